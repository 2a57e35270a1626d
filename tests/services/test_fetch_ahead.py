"""Frames fetched ahead: in order, whole, bounded in number and bytes, and gone without a trace."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import pytest

from app.errors import (
    AccessDeniedError,
    BrokenStreamError,
    FramegateError,
    InvalidKeyError,
    MissingError,
    ObjectMissingError,
    ObjectTooLargeError,
    RenditionsBusyError,
    ThrottledError,
    UpstreamError,
)
from app.services.fetch_ahead import AHEAD, Content, FetchAhead, FetchedFrame
from app.services.room import Room
from app.storage.base import ByteStream, ObjectMeta, ObjectRead

MIB = 1024 * 1024
ROOMY = 1024 * MIB
MORNING = datetime(2026, 3, 1, 9, 31, 8, tzinfo=UTC)
ANN = 1


class Body(ByteStream):
    """A body that comes piece by piece, and knows whether it was closed."""

    def __init__(self, bucket: "Bucket", size_bytes: int, error: FramegateError | None) -> None:
        self._bucket = bucket
        self._left = size_bytes
        self._error = error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self._left:
            piece = bytes(min(self._left, MIB))
            self._left -= len(piece)
            self._bucket.sent_bytes += len(piece)
            yield piece
            await asyncio.sleep(0)
        if self._error is not None:
            raise self._error

    async def aclose(self) -> None:
        self._bucket.open -= 1


class Bucket:
    """Answers with as many bytes as a key says, or with an error; `hold` keeps keys back."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.open = 0
        self.sent_bytes = 0
        self.errors: dict[str, Exception] = {}
        self.breaks: dict[str, FramegateError] = {}
        self.hold: dict[str, asyncio.Event] = {}

    async def read(self, key: str) -> ObjectRead:
        self.asked.append(key)
        if key in self.hold:
            await self.hold[key].wait()
        await asyncio.sleep(0)
        if key in self.errors:
            raise self.errors[key]
        size_bytes = int(key.partition("x")[0])
        meta = ObjectMeta(key, size_bytes, None, MORNING, None)
        if size_bytes < 1000:
            self.sent_bytes += size_bytes
            return ObjectRead(meta, bytes(size_bytes))
        self.open += 1
        return ObjectRead(meta, Body(self, size_bytes, self.breaks.get(key)))


def keys_of(*sizes: int) -> list[str]:
    """Keys of objects of these sizes."""
    return [f"{size}x{place}" for place, size in enumerate(sizes)]


def ahead(bucket: Bucket, keys: Sequence[str | None], room: Room, start: int = 0) -> FetchAhead:
    return FetchAhead(bucket.read, room, ANN, start, keys)


def size_of(frame: FetchedFrame) -> int:
    assert isinstance(frame.content, Content), frame
    return sum(map(len, frame.content.pieces))


async def settled() -> None:
    """Let every task that can go on do so."""
    for _ in range(500):
        await asyncio.sleep(0)


async def test_frames_come_whole_and_in_order_however_slow_some_are() -> None:
    bucket, room = Bucket(), Room(ROOMY)
    sizes = [10, 3 * MIB, 0, 5, 2000] * 8
    keys = keys_of(*sizes)
    bucket.hold[keys[2]] = asyncio.Event()
    frames = ahead(bucket, keys, room, start=100)
    taken = [await anext(frames), await anext(frames)]
    await settled()
    assert len(bucket.asked) == 1 + AHEAD
    bucket.hold[keys[2]].set()
    taken += [frame async for frame in frames]
    assert [(frame.number, frame.key, size_of(frame)) for frame in taken] == [
        (100 + place, keys[place], size) for place, size in enumerate(sizes)
    ]
    assert isinstance(taken[0].content, Content)
    assert taken[0].content.last_modified == MORNING
    assert (bucket.open, room.held_bytes) == (0, 0)
    assert len(bucket.asked) == len(keys), "none was asked for twice"


async def test_so_many_frames_are_ahead_of_a_reader_that_takes_his_time() -> None:
    bucket, room = Bucket(), Room(ROOMY)
    frames = ahead(bucket, keys_of(*[10] * 100), room)
    await anext(frames)
    await settled()
    assert len(bucket.asked) == AHEAD
    await anext(frames)
    await settled()
    assert len(bucket.asked) == AHEAD + 1
    assert room.held_bytes == AHEAD * 10
    await frames.aclose()
    assert room.held_bytes == 0


async def test_so_many_bytes_are_ahead_of_a_reader_that_takes_his_time() -> None:
    bucket, room = Bucket(), Room(256 * MIB)
    sizes = [10 * MIB] * 20
    frames = ahead(bucket, keys_of(*sizes), room)
    taken_bytes = 0
    for _ in sizes:
        taken_bytes += size_of(await anext(frames))
        await settled()
        assert room.held_bytes <= room.share_bytes
        assert bucket.sent_bytes - taken_bytes <= room.share_bytes
        assert bucket.open == 0, "no place at the bucket is held meanwhile"
    with pytest.raises(StopAsyncIteration):
        await anext(frames)
    assert room.held_bytes == 0
    assert bucket.sent_bytes == sum(sizes), "no byte was fetched twice"
    assert len(bucket.asked) <= 20 + AHEAD, "sizes are expected once one is known"


async def test_a_frame_that_fits_only_alone_still_comes() -> None:
    bucket, room = Bucket(), Room(256 * MIB)
    sizes = [10, 60 * MIB, 10, 10, 64 * MIB, 5 * MIB, 50 * MIB, 10]
    frames = ahead(bucket, keys_of(*sizes), room)
    taken = []
    async for frame in frames:
        await settled()
        assert room.held_bytes <= room.share_bytes
        taken.append(size_of(frame))
        del frame
    assert taken == sizes
    assert (room.held_bytes, bucket.open) == (0, 0)


async def test_two_chunks_of_one_user_share_his_room_and_both_end() -> None:
    bucket, room = Bucket(), Room(64 * MIB)
    sizes = [6 * MIB, 10, 12 * MIB, 9 * MIB, 16 * MIB, 1000, 4 * MIB] * 3

    async def take() -> list[int]:
        frames = ahead(bucket, keys_of(*sizes), room)
        taken = []
        async for frame in frames:
            assert room.held_bytes <= room.share_bytes
            taken.append(size_of(frame))
            await asyncio.sleep(0)
        return taken

    async with asyncio.timeout(30):
        assert await asyncio.gather(*(take() for _ in range(4))) == [sizes] * 4
    assert (room.held_bytes, bucket.open) == (0, 0)


async def test_an_object_that_is_too_large_is_an_error_of_its_own_frame() -> None:
    bucket, room = Bucket(), Room(ROOMY)
    frames = ahead(bucket, keys_of(10, 64 * MIB + 1, 20), room)
    first, second, third = [frame async for frame in frames]
    assert (size_of(first), size_of(third)) == (10, 20)
    assert isinstance(second.content, ObjectTooLargeError)
    assert (bucket.sent_bytes, bucket.open, room.held_bytes) == (30, 0, 0)


async def test_a_frame_that_cannot_be_had_keeps_no_other_away() -> None:
    bucket, room = Bucket(), Room(ROOMY)
    keys: list[str | None] = list(keys_of(*[10] * 6))
    keys[3] = None
    bucket.errors = {
        "10x0": ObjectMissingError("k"),
        "10x1": InvalidKeyError("no"),
        "10x4": UpstreamError("x"),
    }
    found = [type(frame.content) for frame in [frame async for frame in ahead(bucket, keys, room)]]
    assert found == [ObjectMissingError, InvalidKeyError, Content, MissingError, UpstreamError, Content]
    assert room.held_bytes == 0


async def test_a_body_that_breaks_off_is_an_error_of_its_frame() -> None:
    bucket, room = Bucket(), Room(ROOMY)
    bucket.breaks["2000x1"] = BrokenStreamError("gone")
    frames = ahead(bucket, keys_of(10, 2000, 10), room)
    assert [type(frame.content) for frame in [frame async for frame in frames]] == [
        Content,
        BrokenStreamError,
        Content,
    ]
    assert (bucket.open, room.held_bytes) == (0, 0)


async def test_a_bucket_that_is_down_is_not_asked_for_every_frame() -> None:
    bucket, room = Bucket(), Room(ROOMY)
    keys: list[str | None] = list(keys_of(*[10] * 100))
    keys[90] = None
    bucket.errors = {key: AccessDeniedError("no") for key in keys[20:] if key is not None}
    taken = [frame async for frame in ahead(bucket, keys, room)]
    assert [frame.number for frame in taken] == list(range(100))
    assert all(isinstance(frame.content, Content) for frame in taken[:20])
    assert isinstance(taken[90].content, MissingError)
    assert {type(frame.content) for frame in taken[20:]} == {AccessDeniedError, MissingError}
    assert len(bucket.asked) <= 20 + 2 * AHEAD
    assert room.held_bytes == 0


async def test_a_bucket_that_fails_now_and_then_is_asked_for_every_frame() -> None:
    bucket, room = Bucket(), Room(ROOMY)
    keys = keys_of(*[10] * 60)
    bucket.errors = {key: UpstreamError("no") for place, key in enumerate(keys) if place % AHEAD}
    taken = [frame async for frame in ahead(bucket, keys, room)]
    assert len(bucket.asked) == len(taken) == 60


@pytest.mark.parametrize(
    "busy", [ThrottledError("full"), RenditionsBusyError()], ids=["bucket", "renditions"]
)
async def test_a_frame_that_was_too_much_is_fetched_in_its_turn(busy: FramegateError) -> None:
    bucket, room = Bucket(), Room(ROOMY)
    keys = keys_of(*[10] * 30)
    most, under_way = 1, 0

    async def read(key: str) -> ObjectRead:
        nonlocal under_way
        if under_way >= most:
            raise busy
        under_way += 1
        try:
            return await bucket.read(key)
        finally:
            under_way -= 1

    frames = FetchAhead(read, room, ANN, 0, keys)
    assert [size_of(frame) async for frame in frames] == [10] * 30
    most = 0
    refused = [frame async for frame in FetchAhead(read, room, ANN, 0, keys)]
    assert {type(frame.content) for frame in refused} == {type(busy)}
    assert room.held_bytes == 0


async def test_without_any_room_frames_are_given_as_throttled_and_the_bucket_is_not_asked() -> None:
    bucket, room = Bucket(), Room(64 * MIB, wait_s=0.01)
    await room.wait(ANN, 14 * MIB)
    taken = [frame async for frame in ahead(bucket, keys_of(10, 10, 10), room)]
    assert [type(frame.content) for frame in taken] == [ThrottledError] * 3
    assert bucket.asked == []
    assert room.held_bytes == 14 * MIB


@pytest.mark.parametrize("taken", [0, 1, 5, 20])
async def test_closing_stops_what_is_under_way(taken: int) -> None:
    bucket, room = Bucket(), Room(ROOMY)
    tasks = len(asyncio.all_tasks())
    frames = ahead(bucket, keys_of(*[3 * MIB] * 30), room)
    for _ in range(taken):
        await anext(frames)
    await asyncio.sleep(0)
    await frames.aclose()
    await frames.aclose()
    assert (bucket.open, room.held_bytes, len(asyncio.all_tasks())) == (0, 0, tasks)
    with pytest.raises(StopAsyncIteration):
        await anext(frames)


async def test_closing_does_not_wait_for_a_silent_bucket() -> None:
    bucket, room = Bucket(), Room(ROOMY)
    keys = keys_of(10, 10, 10)
    bucket.hold = {keys[1]: asyncio.Event(), keys[2]: asyncio.Event()}
    frames = ahead(bucket, keys, room)
    await anext(frames)
    async with asyncio.timeout(10):
        await frames.aclose()
    assert room.held_bytes == 0


@pytest.mark.parametrize("steps", range(1, 40, 3))
async def test_a_reader_that_is_cancelled_leaves_nothing(steps: int) -> None:
    bucket, room = Bucket(), Room(64 * MIB)
    tasks = len(asyncio.all_tasks())
    frames = ahead(bucket, keys_of(10, 9 * MIB, 3 * MIB, 12 * MIB, 10, 16 * MIB), room)

    async def take() -> None:
        try:
            async for _ in frames:
                await asyncio.sleep(0)
        finally:
            await frames.aclose()

    reader = asyncio.create_task(take())
    for _ in range(steps):
        await asyncio.sleep(0)
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    assert (bucket.open, room.held_bytes, len(asyncio.all_tasks())) == (0, 0, tasks)


async def test_a_fault_of_ours_is_no_error_of_a_frame() -> None:
    bucket, room = Bucket(), Room(ROOMY)
    bucket.errors["10x1"] = ZeroDivisionError()
    frames = ahead(bucket, keys_of(10, 10, 10), room)
    await anext(frames)
    with pytest.raises(ZeroDivisionError):
        await anext(frames)
    await frames.aclose()
    assert room.held_bytes == 0
