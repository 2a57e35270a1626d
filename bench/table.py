"""One table of all rows: a line for each who took part, and what must be reached beside whom."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.bucket import MIB

NOT_MEASURED = "not measured"
HEADS = (
    "work",
    "who",
    "figure",
    "Framegate beside it",
    "must reach",
    "reached",
    "CPU-ms",
    "peak MiB",
    "failed",
)
_LEFT = 2
"""Columns of words; the others are figures and stand at the right."""


class NotMeasuredError(Exception):
    """A row that cannot be measured here; the text says why."""


@dataclass(frozen=True, slots=True)
class Line:
    """What one participant did; what does not apply is empty."""

    who: str
    figure: str = NOT_MEASURED
    beside: str = ""
    """How Framegate compares with this one."""
    must: str = ""
    reached: bool | None = None
    cpu_ms: str = ""
    peak_bytes: int = 0
    failed: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """The lines of one work, and how many cores other programs kept busy meanwhile."""

    title: str
    lines: Sequence[Line]
    others_cores: float = 0
    note: str = ""
    """Why it could not be measured."""

    @property
    def good(self) -> bool:
        """Whether everything was measured, answered and reached."""
        return all(
            line.figure != NOT_MEASURED and line.reached is not False and not line.failed
            for line in self.lines
        )


def not_measured(title: str, reason: str) -> Result:
    """Give the row of a work that could not be measured."""
    return Result(title, [Line("Framegate")], note=f"{NOT_MEASURED}: {title}: {reason}")


def text_of(results: Sequence[Result]) -> str:
    """Give the table, in Markdown that can be read as it is, and below it why rows were not measured."""
    table = [list(HEADS), *(cells for result in results for cells in _rows(result))]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    rule = ["-" * width for width in widths]
    notes = [result.note for result in results if result.note]
    return "\n".join([*(_line(cells, widths) for cells in [table[0], rule, *table[1:]]), *notes])


def _rows(result: Result) -> list[list[str]]:
    others = f" [others {result.others_cores:.1f}]" if result.others_cores >= 0.05 else ""
    titles = [result.title + others] + [""] * (len(result.lines) - 1)
    return [[title, *_cells(line)] for title, line in zip(titles, result.lines, strict=True)]


def _cells(line: Line) -> list[str]:
    reached = {None: "", True: "yes", False: "NO"}[line.reached]
    peak = f"{line.peak_bytes / MIB:.0f}" if line.peak_bytes else ""
    failed = "" if line.failed is None else str(line.failed)
    return [line.who, line.figure, line.beside, line.must, reached, line.cpu_ms, peak, failed]


def _line(cells: list[str], widths: list[int]) -> str:
    words = map(str.ljust, cells[:_LEFT], widths)
    figures = map(str.rjust, cells[_LEFT:], widths[_LEFT:])
    return f"| {' | '.join([*words, *figures])} |"
