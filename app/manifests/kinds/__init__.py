"""The kinds of manifests, one file and one line in the table for each."""

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from app.manifests.kinds.images import ImageLines, Item

__all__ = ["KINDS", "NOT_YET", "Item", "LineReader"]


class LineReader(Protocol):
    """Reads the item lines of one manifest."""

    def read(self, line: bytes, number: int) -> Item:
        """Read the line of frame `number`; raises `LineFault`."""
        ...


KINDS: Final[Mapping[str, Callable[[str], LineReader]]] = {"images": ImageLines}
"""Each is made with the manifest's folder."""

NOT_YET: Final = frozenset({"video"})
"""Kinds that the format knows and Framegate does not read yet."""
