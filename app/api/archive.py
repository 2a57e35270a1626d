"""A ZIP made piece by piece, its entries stored: sizes and checksum stand before an entry's bytes.

`zipfile` writes it, to a file that holds no more than the present entry. To a file that cannot seek it would
write sizes behind the bytes, and many readers of streams cannot find the end of such an entry.
"""

import asyncio
import io
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from zipfile import ZIP_STORED, ZipFile, ZipInfo

MESSAGE_BYTES = 1024 * 1024
"""So many bytes are summed up, or sent, in one go."""
_NO_DATE = (1980, 1, 1, 0, 0, 0)
_LAST_YEAR = 2107
_UNIX = 3
_PLAIN_FILE = 0o100644 << 16


class StoredZip:
    """Makes one ZIP. `add` and `finish` give what is to be sent next; the order of calls is that of entries."""

    def __init__(self) -> None:
        self._file = _Unsent()
        self._zip = ZipFile(self._file, "w", ZIP_STORED)

    async def add(self, name: str, modified: datetime | None, pieces: Sequence[bytes]) -> Iterator[bytes]:
        """Add an entry, and give its header and bytes; other tasks have their turn meanwhile."""
        with self._zip.open(_info(name, modified, sum(map(len, pieces))), "w") as entry:
            for part in _parts(pieces):
                entry.write(part)
                if len(part) == MESSAGE_BYTES:
                    await asyncio.sleep(0)
        return _messages(self._file.taken())

    def finish(self) -> Iterator[bytes]:
        """Give the directory at the end."""
        self._zip.close()
        return _messages(self._file.taken())


class _Unsent:
    """A file that keeps what was not taken yet, in the pieces in which it was written.

    It may be gone back in, to write a piece anew in its old length: `zipfile` does so with an entry's header.
    """

    def __init__(self) -> None:
        self._pieces: dict[int, bytes] = {}
        self._place = 0
        self._end = 0

    def tell(self) -> int:
        return self._place

    def seek(self, place: int, whence: int = io.SEEK_SET, /) -> int:
        self._place = place
        return place

    def write(self, data: bytes, /) -> int:
        known = self._pieces.get(self._place)
        if self._place != self._end and (known is None or len(known) != len(data)):
            raise io.UnsupportedOperation("Only a whole piece can be written anew.")
        self._pieces[self._place] = data
        self._place += len(data)
        self._end = max(self._end, self._place)
        return len(data)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def taken(self) -> Sequence[bytes]:
        pieces, self._pieces = self._pieces, {}
        return list(pieces.values())


def _info(name: str, modified: datetime | None, size_bytes: int) -> ZipInfo:
    info = ZipInfo(name, _zip_date(modified))
    info.create_system = _UNIX
    info.external_attr = _PLAIN_FILE
    info.file_size = size_bytes
    return info


def _zip_date(moment: datetime | None) -> tuple[int, int, int, int, int, int]:
    """Give a time as a ZIP has it, in UTC; years before 1980 and after 2107 do not fit."""
    if moment is None:
        return _NO_DATE
    moment = moment.astimezone(UTC)
    if not _NO_DATE[0] <= moment.year <= _LAST_YEAR:
        return _NO_DATE
    return (moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second)


def _parts(pieces: Sequence[bytes]) -> Iterator[memoryview]:
    for piece in pieces:
        view = memoryview(piece)
        for start in range(0, len(view), MESSAGE_BYTES):
            yield view[start : start + MESSAGE_BYTES]


def _messages(pieces: Sequence[bytes]) -> Iterator[bytes]:
    """Join small pieces, each of which would cost a message of its own."""
    joined: list[bytes] = []
    size_bytes = 0
    for piece in pieces:
        if joined and size_bytes + len(piece) > MESSAGE_BYTES:
            yield b"".join(joined)
            joined, size_bytes = [], 0
        joined.append(piece)
        size_bytes += len(piece)
    if joined:
        yield b"".join(joined)
