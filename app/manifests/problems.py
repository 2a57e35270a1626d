"""Everything that can be wrong with a manifest: one table of codes.

`docs/manifest-problems.md` explains each of them; a test keeps the two together.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Effect = Literal["failed", "set aside", "remark"]
"""What a problem does: the whole manifest fails, its line is set aside, or nothing is lost."""


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """One code: what it does to the manifest, what it says (`{}` takes a fact), and what to do about it."""

    effect: Effect
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault at its place; line and column are counted from 1, the column in bytes."""

    line: int
    column: int
    code: str
    message: str
    hint: str


PROBLEMS: Final[Mapping[str, ProblemKind]] = {
    # --- the whole file
    "empty-file": ProblemKind(
        "failed", "The manifest is empty.", "Write it again; a manifest begins with a version line."
    ),
    "file-too-large": ProblemKind(
        "failed",
        "The manifest has more than {} bytes.",
        "Split the dataset, or raise FRAMEGATE_MAX_MANIFEST_BYTES.",
    ),
    "header-missing": ProblemKind(
        "failed",
        "The first line is no version line: {}",
        'A manifest begins with the lines {"version":"1.1"} and {"type":"images"}.',
    ),
    "unknown-version": ProblemKind(
        "failed",
        "The version is {}.",
        'Versions "1.0" and "1.1" are read; write the version as text: {"version":"1.1"}.',
    ),
    "type-missing": ProblemKind(
        "failed", "The second line is no type line: {}", 'The second line of a manifest is {"type":"images"}.'
    ),
    "unknown-type": ProblemKind(
        "failed", "The type is {}.", 'The type is "images" (point clouds too) or "video".'
    ),
    "type-not-supported": ProblemKind(
        "failed",
        "Manifests of type {} are not supported yet.",
        "Register a manifest of its pictures.",
    ),
    # --- one line that is no JSON object
    "line-too-long": ProblemKind(
        "set aside",
        "The line has more than {} bytes.",
        "Shorten the line's meta, or raise FRAMEGATE_MAX_LINE_BYTES.",
    ),
    "not-utf8": ProblemKind(
        "set aside", "The line is not UTF-8.", "Save the file as UTF-8, or write such characters as \\uXXXX."
    ),
    "nul": ProblemKind("set aside", "The line holds a NUL character.", "Remove it; no name can have one."),
    "lone-surrogate": ProblemKind(
        "set aside",
        "The line holds half of a character (a lone surrogate).",
        "Write the whole character, or both halves of its \\uXXXX\\uXXXX pair.",
    ),
    "not-json": ProblemKind(
        "set aside",
        "The line is not JSON: {}.",
        "Write one JSON object on each line, nothing else.",
    ),
    "truncated": ProblemKind(
        "set aside",
        "The file ends in the middle of this line: {}.",
        "The upload or the writing of the file was cut off; write it again.",
    ),
    "not-an-object": ProblemKind(
        "set aside",
        "The line is JSON, but no object.",
        'A line is an object: {"name":"a","extension":".jpg"}.',
    ),
    "too-deep": ProblemKind(
        "set aside", "The line is nested more than {} levels deep.", "Flatten what its meta holds."
    ),
    "duplicate-key": ProblemKind(
        "set aside",
        "The key {} stands twice in one object.",
        "Keep one; readers disagree on which counts.",
    ),
    "number-out-of-range": ProblemKind(
        "set aside", "The number {} is too large.", "Whole numbers have 64 bits, others fit into a double."
    ),
    # --- one line that is no frame
    "missing-field": ProblemKind("set aside", "The field {} is missing.", "A frame has name and extension."),
    "wrong-type": ProblemKind("set aside", "The field {} is no {}.", "See docs/manifest-problems.md."),
    "bad-size": ProblemKind(
        "set aside", "The field {} is no size.", "Width and height are whole pixels from 1 on, or left out."
    ),
    "bad-extension": ProblemKind(
        "set aside",
        "The extension {} does not begin with a dot, or goes on with a folder.",
        'Write everything from the last dot on: ".jpg"; an object without extension has "".',
    ),
    "empty-name": ProblemKind("set aside", "The name is empty.", "Write a path from the manifest's folder."),
    "absolute-name": ProblemKind(
        "set aside", "The name begins with a slash.", "Names are relative to the manifest's own folder."
    ),
    "dot-segment": ProblemKind(
        "set aside",
        "The name has a segment that is '.' or '..'.",
        "Put the manifest into a folder above all of its files, and write plain paths from there.",
    ),
    "backslash": ProblemKind(
        "set aside",
        "The name has a backslash.",
        "Write / between folders, as the bucket does; build the manifest on the bucket or on Linux.",
    ),
    "control-character": ProblemKind(
        "set aside",
        "The name has a control character.",
        "Rename the object; such keys are refused.",
    ),
    "name-too-long": ProblemKind(
        "set aside", "The whole key has more than {} bytes.", "No bucket stores such a key; check the name."
    ),
    "checksum-too-long": ProblemKind(
        "set aside", "The checksum has more than {} characters.", "Write an MD5 as 32 hexadecimal digits."
    ),
    "meta-too-large": ProblemKind(
        "set aside", "The meta has more than {} bytes.", "Keep such data in an object of its own."
    ),
    "duplicate-name": ProblemKind(
        "set aside", "The name {} stands in an earlier line.", "The first line counts; remove this one."
    ),
    # --- what is only worth knowing
    "byte-order-mark": ProblemKind(
        "remark",
        "The file begins with a byte order mark.",
        "Save it without one; other readers stumble.",
    ),
    "crlf": ProblemKind(
        "remark",
        "This line, and perhaps others, ends with CR LF.",
        "Save the file with Unix line ends.",
    ),
    "blank-line": ProblemKind(
        "remark", "There is a blank line before this one.", "Remove blank lines; other readers stop there."
    ),
    "no-items": ProblemKind("remark", "The manifest names no frame.", "Build it again if it should."),
}
MOST_SHOWN = 80


def problem(line: int, column: int, code: str, *facts: object) -> Problem:
    """Give the problem of a code at a place; facts of the file are shown shortened and escaped."""
    kind = PROBLEMS[code]
    return Problem(line, column, code, kind.message.format(*facts), kind.hint)


def shown(value: object) -> str:
    """Write a fact of the file so that it cannot disturb who reads it: escaped, and short."""
    text = ascii(value)
    return text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 3] + "..."


class LineFault(Exception):  # noqa: N818 - an answer on the way, no error that leaves this package
    """Why a line is set aside; `offset` counts characters of the line from 0."""

    def __init__(self, code: str, offset: int, *facts: object, in_bytes: bool = False) -> None:
        super().__init__(code, offset)
        self.code = code
        self.offset = offset
        self.facts = facts
        self.in_bytes = in_bytes
        """True where the line is no text, so that the offset counts bytes already."""
