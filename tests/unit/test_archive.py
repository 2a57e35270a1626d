"""ZIPs made piece by piece: whole for readers of files and for readers of streams, and named by plain names."""

import io
import random
import re
import struct
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from zipfile import ZIP_STORED, ZipFile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.archive import MESSAGE_BYTES, StoredZip, _Unsent
from app.api.chunks import entry_name
from tests.zips import read_as_stream

MORNING = datetime(2026, 3, 1, 9, 31, 8, tzinfo=UTC)
Entry = tuple[str, datetime | None, Sequence[bytes]]


async def made(*entries: Entry) -> list[bytes]:
    """The messages of a ZIP of these entries."""
    archive = StoredZip()
    messages = [message for entry in entries for message in await archive.add(*entry)]
    return messages + list(archive.finish())


def bodies(entries: Sequence[Entry]) -> dict[str, bytes]:
    return {name: b"".join(pieces) for name, _, pieces in entries}


SIZES = [(), (0,), (1,), (5, 7), (MESSAGE_BYTES,), (MESSAGE_BYTES + 1,), (3 * MESSAGE_BYTES + 5, 1, 2)]


async def test_every_reader_finds_the_entries_whole_and_in_order() -> None:
    chance = random.Random(1)
    entries: list[Entry] = [
        (f"{number:06d}.jpg", MORNING, [chance.randbytes(size) for size in sizes])
        for number, sizes in enumerate(SIZES)
    ]
    whole = b"".join(await made(*entries))
    with ZipFile(io.BytesIO(whole)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == bodies(entries)
        assert archive.namelist() == [name for name, _, _ in entries]
        assert {info.compress_type for info in archive.infolist()} == {ZIP_STORED}
    assert list(read_as_stream(whole)) == list(bodies(entries).items())


async def test_the_same_entries_make_the_same_bytes() -> None:
    entry: Entry = ("000000.jpg", MORNING, [b"abc", b"def"])
    assert b"".join(await made(entry)) == b"".join(await made(("000000.jpg", MORNING, [b"abcdef"])))


async def test_without_entries_it_is_an_empty_zip() -> None:
    with ZipFile(io.BytesIO(b"".join(await made()))) as archive:
        assert archive.namelist() == []


async def test_an_entry_is_sent_in_few_messages_of_a_bounded_size() -> None:
    small = await made(("a", None, [b"x" * 1000] * 100))
    assert len(small) == 2  # the entry, and the directory
    long = await made(("a", None, [b"x" * (5 * MESSAGE_BYTES)]))
    assert 6 <= len(long) <= 8
    assert max(map(len, long)) <= MESSAGE_BYTES


async def test_nothing_that_was_sent_is_kept() -> None:
    archive = StoredZip()
    sent = b"".join(await archive.add("a", None, [b"x" * 10_000]))
    assert len(sent) == 10_000 + 30 + 1
    assert archive._file.taken() == []


@pytest.mark.parametrize(
    ("moment", "shown"),
    [
        (None, (1980, 1, 1, 0, 0, 0)),
        (MORNING, (2026, 3, 1, 9, 31, 8)),
        (MORNING.astimezone(timezone(timedelta(hours=-11))), (2026, 3, 1, 9, 31, 8)),
        (datetime(1979, 12, 31, 23, 59, 59, tzinfo=UTC), (1980, 1, 1, 0, 0, 0)),
        (datetime(2108, 1, 1, tzinfo=UTC), (1980, 1, 1, 0, 0, 0)),
        (datetime(2107, 12, 31, 23, 59, 58, tzinfo=UTC), (2107, 12, 31, 23, 59, 58)),
    ],
)
async def test_an_entry_has_its_objects_date(moment: datetime | None, shown: tuple[int, ...]) -> None:
    with ZipFile(io.BytesIO(b"".join(await made(("a", moment, [b"x"]))))) as archive:
        assert archive.infolist()[0].date_time == shown


async def test_an_archive_beyond_four_gibibytes_points_at_its_entries() -> None:
    """What lies so far back needs the longer form of the directory; the bytes before need not exist for that."""
    archive = StoredZip()
    list(await archive.add("000000.jpg", None, [b"first"]))
    archive._zip.start_dir = archive._file._place = archive._file._end = 5 * 1024**3
    entry = b"".join(await archive.add("000001.jpg", None, [b"second"]))
    tail = b"".join(archive.finish())
    (offset,) = struct.unpack("<Q", tail[tail.rindex(b"\x01\x00\x08\x00") + 4 :][:8])
    assert offset == 5 * 1024**3
    assert b"PK\x06\x06" in tail
    assert list(read_as_stream(entry + tail)) == [("000001.jpg", b"second")]


def test_only_a_whole_piece_is_written_anew() -> None:
    file = _Unsent()
    file.write(b"head")
    file.write(b"body")
    file.seek(0)
    file.write(b"HEAD")
    for place, data in ((0, b"longer"), (2, b"xx"), (8 + 1, b"x")):
        file.seek(place)
        with pytest.raises(io.UnsupportedOperation):
            file.write(data)
    assert b"".join(file.taken()) == b"HEADbody"


@pytest.mark.parametrize(
    ("number", "key", "name"),
    [
        (36, "pets/beagle.jpg", "000036.jpg"),
        (0, "a.b/PUG.JPEG", "000000.jpeg"),
        (1234567, "x.png", "1234567.png"),
        (1, "a.b/plain", "000001"),
        (1, "x.tar.gz", "000001.gz"),
        (1, ".jpg", "000001.jpg"),
        (1, "x.", "000001"),
        (1, "x.jp g", "000001"),
        (1, "x.123456789", "000001"),
        (1, "x.\u00e4", "000001"),
        (1, "x.jpg\\..\\evil", "000001"),
        (1, "x.jpg\n", "000001"),
    ],
)
def test_an_entry_is_named_by_its_number(number: int, key: str, name: str) -> None:
    assert entry_name(number, key) == name


@given(st.integers(0, 2**31 - 1), st.text())
def test_no_key_makes_a_name_that_is_more_than_a_number_and_an_extension(number: int, key: str) -> None:
    assert re.fullmatch(r"[0-9]{6,10}(\.[a-z0-9]{1,8})?", entry_name(number, key), re.ASCII)
    assert int(entry_name(number, key).partition(".")[0]) == number


def test_the_reader_of_streams_sees_a_wrong_sum() -> None:
    """It would be no witness otherwise."""
    head = struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 0, 0, 33, zlib.crc32(b"abc") ^ 1, 3, 3, 1, 0)
    with pytest.raises(AssertionError):
        list(read_as_stream(head + b"a" + b"abc"))
