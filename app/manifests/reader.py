"""Reads a manifest as its bytes come: frames, and problems with line and column.

Memory is bounded by one line and 16 bytes for each name. How the bytes are cut into chunks never matters.
"""

from dataclasses import dataclass

from app.manifests.exact import Line, read_line
from app.manifests.kinds import KINDS, NOT_YET, Item, LineReader
from app.manifests.names import DistinctNames, folder_of
from app.manifests.problems import PROBLEMS, LineFault, Problem, problem, shown
from app.settings import GIB, MIB

LONG_LINE_BYTES = 64 * 1024
VERSIONS = frozenset({"1.0", "1.1"})
_CR = 0x0D
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a manifest is read, and how many of its problems are kept (all are counted)."""

    max_manifest_bytes: int = 4 * GIB
    max_line_bytes: int = 1 * MIB
    kept_problems: int = 1000


class ManifestReader:
    """Takes the chunks of one manifest in order and gives its frames; then `finish()`."""

    def __init__(self, manifest_key: str, limits: Limits = Limits()) -> None:
        self._folder = folder_of(manifest_key)
        self._limits = limits
        self._rest = b""
        self._skipping = False
        """Inside a line that is too long, of which nothing is kept."""
        self._bytes = 0
        self._line = 0
        self._blank_line = 0
        self._remarks: set[str] = set()
        self._lines: LineReader | None = None
        self._names = DistinctNames()
        self._number = 0
        self.version: str | None = None
        self.kind: str | None = None
        self.frame_count = 0
        self.problem_count = 0
        self.problems: list[Problem] = []
        """The first of them, in the order of the file."""
        self.failure: Problem | None = None
        """Why the whole manifest is failed; whatever comes after is not looked at."""

    @property
    def holds_long_line(self) -> bool:
        """Whether the next bytes may complete a line that takes long to read."""
        return len(self._rest) > LONG_LINE_BYTES

    def refuse_size(self) -> None:
        """Fail the manifest before a byte of it was read, because it is known to be too large."""
        self._fail(1, 1, "file-too-large", self._limits.max_manifest_bytes)

    def feed(self, chunk: bytes) -> list[Item]:
        """Take the next bytes; gives the frames that they complete."""
        room = self._limits.max_manifest_bytes - self._bytes
        self._bytes += len(chunk)
        items = self._split(chunk[:room])
        if len(chunk) > room and not self.failure:
            line = self._line if self._skipping else self._line + 1
            self._fail(line, 1, "file-too-large", self._limits.max_manifest_bytes)
        return items

    def finish(self) -> list[Item]:
        """Take the end of the file; gives the frame of a last line without a line end."""
        items: list[Item] = []
        if self._rest and not self.failure:
            item = self._take(self._rest, is_last=True)
            items = [item] if item else []
        self._rest = b""
        if not self.failure:
            self._check_whole()
        return items

    def _split(self, chunk: bytes) -> list[Item]:
        if self.failure:
            return []
        if self._skipping:
            _, line_end, chunk = chunk.partition(b"\n")
            self._skipping = not line_end
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        items = [item for line in lines if (item := self._take(line))]
        if len(self._rest) > self._limits.max_line_bytes:
            self._take(self._rest)
            self._rest, self._skipping = b"", True
        return items

    def _take(self, line: bytes, *, is_last: bool = False) -> Item | None:
        """Take one line without its line end; gives its frame, if it has one."""
        if self.failure:
            return None
        self._line += 1
        if len(line) > self._limits.max_line_bytes:
            self._refuse_long_line()
            return None
        if not line or line.isspace():
            self._blank_line = self._blank_line or self._line
            return None
        if self._blank_line or line[-1] == _CR:
            line = self._remark_on(line)
        if self._lines is not None:
            return self._take_item(self._lines, line, is_last=is_last)
        self._take_header(line)
        return None

    def _remark_on(self, line: bytes) -> bytes:
        """Note what is harmless here and stops other readers, once for the file; gives the line itself."""
        if self._blank_line:
            self._note_once("blank-line", self._blank_line, 1)
            self._blank_line = 0
        if not line.endswith(b"\r"):
            return line
        self._note_once("crlf", self._line, len(line))
        return line[:-1]

    def _take_item(self, lines: LineReader, line: bytes, *, is_last: bool) -> Item | None:
        number = self._number
        self._number += 1
        try:
            item = lines.read(line, number)
        except LineFault as fault:
            self._set_aside(line, fault, is_last=is_last)
            return None
        if self._names.add(item.key):
            self.frame_count += 1
            return item
        self._set_aside_duplicate(line, item)
        return None

    def _take_header(self, line: bytes) -> None:
        shift = 0
        if self._line == 1 and line.startswith(_BOM):
            self._note_once("byte-order-mark", 1, 1)
            line, shift = line[len(_BOM) :], len(_BOM)
        code = "header-missing" if self.version is None else "type-missing"
        try:
            header = read_line(line)
        except LineFault as fault:
            self._fail(self._line, shift + _column(line, fault), code, _message(fault))
            return
        if self.version is None:
            self._take_version(header, shift)
        else:
            self._take_type(header)

    def _take_version(self, header: Line, shift: int) -> None:
        version = header.fields.get("version")
        column = shift + _column_of(header, "version")
        if "version" not in header.fields:
            self._fail(self._line, column, "header-missing", "it has no version")
        elif not isinstance(version, str) or version not in VERSIONS:
            self._fail(self._line, column, "unknown-version", shown(version))
        else:
            self.version = version

    def _take_type(self, header: Line) -> None:
        kind = header.fields.get("type")
        column = _column_of(header, "type")
        if "type" not in header.fields:
            self._fail(self._line, column, "type-missing", "it has no type")
        elif isinstance(kind, str) and kind in NOT_YET:
            self.kind = kind
            self._fail(self._line, column, "type-not-supported", shown(kind))
        elif not isinstance(kind, str) or kind not in KINDS:
            self._fail(self._line, column, "unknown-type", shown(kind))
        else:
            self.kind = kind
            self._lines = KINDS[kind](self._folder)

    def _refuse_long_line(self) -> None:
        column, limit = self._limits.max_line_bytes + 1, self._limits.max_line_bytes
        if self._lines is None:
            code = "header-missing" if self.version is None else "type-missing"
            self._fail(self._line, column, code, f"it has more than {limit} bytes")
            return
        self._number += 1
        self._note(self._line, column, "line-too-long", limit)

    def _set_aside(self, line: bytes, fault: LineFault, *, is_last: bool) -> None:
        if is_last and fault.code in {"not-json", "not-utf8"}:
            self._note(self._line, _column(line, fault), "truncated", _message(fault))
        else:
            self._note(self._line, _column(line, fault), fault.code, *fault.facts)

    def _set_aside_duplicate(self, line: bytes, item: Item) -> None:
        if len(self.problems) < self._limits.kept_problems:
            column = _column_of(read_line(line), "name")
            self._note(self._line, column, "duplicate-name", shown(item.key[len(self._folder) :]))
        else:
            self.problem_count += 1

    def _check_whole(self) -> None:
        if self._line == 0 or (self.version is None and self._blank_line):
            self._fail(1, 1, "empty-file")
        elif self._lines is None:
            self._fail(self._line + 1, 1, "type-missing", "the file ends before it")
        elif self._number == 0:
            self._note(self._line + 1, 1, "no-items")

    def _note_once(self, code: str, line: int, column: int) -> None:
        if code not in self._remarks:
            self._remarks.add(code)
            self._note(line, column, code)

    def _note(self, line: int, column: int, code: str, *facts: object) -> None:
        self.problem_count += 1
        if len(self.problems) < self._limits.kept_problems:
            self.problems.append(problem(line, column, code, *facts))

    def _fail(self, line: int, column: int, code: str, *facts: object) -> None:
        """Fail the manifest; its reason is kept however many problems came before."""
        self.failure = problem(line, column, code, *facts)
        self.problem_count += 1
        self.problems.append(self.failure)


def _column(line: bytes, fault: LineFault) -> int:
    if fault.in_bytes:
        return fault.offset + 1
    return len(line.decode()[: fault.offset].encode()) + 1


def _column_of(line: Line, field: str) -> int:
    return len(line.text[: line.place(field)].encode()) + 1


def _message(fault: LineFault) -> str:
    text = PROBLEMS[fault.code].message.format(*fault.facts)
    return text[:1].lower() + text[1:].removesuffix(".")
