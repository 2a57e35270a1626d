"""What every row of the benchmark is given: the bucket, the turns, and a folder of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.bucket import Bucket
from bench.table import Line
from bench.turns import Turns

PICTURE, LARGE = "picture.jpg", "large.bin"
PICTURE_CONNECTIONS, LARGE_CONNECTIONS = 16, 2


@dataclass(frozen=True, slots=True)
class Place:
    """Where one row is measured; `quick`: with less of everything, to see that it works."""

    bucket: Bucket
    turns: Turns
    quick: bool = False

    @property
    def folder(self) -> Path:
        """Where servers may write."""
        return self.turns.folder


@dataclass(frozen=True, slots=True)
class Measure:
    """One row: its title, and what gives its lines; raises `NotMeasuredError`."""

    title: str
    lines: Callable[[Place], list[Line]]
