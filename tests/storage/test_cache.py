"""Hot objects: one fetch for many, bounded memory, revalidation, and never a stale or wrong byte."""

import asyncio
import gc
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from app.errors import (
    ObjectMissingError,
    PreconditionFailedError,
    RangeNotSatisfiableError,
    StorageError,
    UpstreamError,
)
from app.storage.base import PLAIN_READ, ByteRange, ObjectMeta, ObjectRead, ReadOptions, Suffix
from app.storage.bucket import Bucket
from app.storage.cache import MOST_OBJECT_BYTES, ObjectCache, Place

PLACE = Place(1, 1)
MOMENT = datetime(2026, 11, 23, tzinfo=UTC)


class Streamed:
    """A body in pieces, which knows whether it was closed."""

    def __init__(self, body: bytes) -> None:
        self._pieces = [body[start : start + 1000] for start in range(0, len(body), 1000)]
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            await asyncio.sleep(0)
            yield piece

    async def aclose(self) -> None:
        self.closed = True


@dataclass
class FakeBucket:
    """A bucket of one object per key; counts what it is asked, and waits at a gate if there is one."""

    objects: dict[str, bytes]
    etag: str | None = '"1"'
    stream_above: int = 10_000
    asked: list[tuple[str, str, ReadOptions]] = field(default_factory=list)
    gate: asyncio.Event | None = None
    error: StorageError | None = None
    streams: list[Streamed] = field(default_factory=list)

    async def open(self, key: str, options: ReadOptions = PLAIN_READ, *, caller: int = 0) -> ObjectRead:
        self.asked.append(("GET", key, options))
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        if key not in self.objects:
            raise ObjectMissingError(key)
        body = self.objects[key]
        meta = ObjectMeta(key, len(body), self.etag, MOMENT, "image/jpeg")
        if options.if_none_match == (self.etag,):
            return ObjectRead(meta, not_modified=True)
        if isinstance(options.range, ByteRange):
            part = (options.range.start, options.range.stop or len(body))
            return ObjectRead(meta, body[part[0] : part[1]], part)
        if len(body) <= self.stream_above:
            return ObjectRead(meta, body)
        self.streams.append(Streamed(body))
        return ObjectRead(meta, self.streams[-1])

    async def head(self, key: str, options: ReadOptions = PLAIN_READ, *, caller: int = 0) -> ObjectRead:
        self.asked.append(("HEAD", key, options))
        return ObjectRead(ObjectMeta(key, len(self.objects[key]), self.etag, MOMENT, None))


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Memory:
    """A cache with its clock and its counts."""

    def __init__(self, limit_bytes: int = 1_000_000, max_age_s: float = 30) -> None:
        self.clock = Clock()
        self.counts: list[str] = []
        self.cache = ObjectCache(limit_bytes, max_age_s, self.counts.append, self.clock)

    async def read(self, bucket: FakeBucket, key: str = "a", method: Any = "GET", **more: Any) -> ObjectRead:
        revalidate = more.pop("revalidate", False)
        place = more.pop("place", PLACE)
        options = ReadOptions(**more) if more else PLAIN_READ
        return await self.cache.read(
            cast("Bucket", bucket), place, key, method, options, revalidate=revalidate
        )


async def test_a_second_read_comes_from_memory() -> None:
    memory, bucket = Memory(), FakeBucket({"a": b"picture"})
    first, second = await memory.read(bucket), await memory.read(bucket)
    assert first == second
    assert second.body == b"picture"
    assert len(bucket.asked) == 1
    assert memory.counts == ["miss", "hit"]


async def test_many_readers_at_once_are_one_fetch() -> None:
    memory, bucket = Memory(), FakeBucket({"a": b"x" * 50_000}, gate=asyncio.Event())
    readers = [asyncio.create_task(memory.read(bucket)) for _ in range(50)]
    await asyncio.sleep(0.01)
    assert bucket.gate is not None
    bucket.gate.set()
    assert {(await reader).body for reader in readers} == {b"x" * 50_000}
    assert len(bucket.asked) == 1
    assert all(stream.closed for stream in bucket.streams)


async def test_a_reader_that_goes_leaves_the_fetch_to_the_others() -> None:
    memory, bucket = Memory(), FakeBucket({"a": b"picture"}, gate=asyncio.Event())
    leader, other = (asyncio.create_task(memory.read(bucket)) for _ in range(2))
    await asyncio.sleep(0.01)
    leader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leader
    assert bucket.gate is not None
    bucket.gate.set()
    assert (await other).body == b"picture"
    assert len(bucket.asked) == 1


async def test_after_its_age_an_object_is_asked_for_by_its_tag() -> None:
    memory, bucket = Memory(), FakeBucket({"a": b"picture"})
    await memory.read(bucket)
    memory.clock.now = 29.9
    await memory.read(bucket)
    assert len(bucket.asked) == 1
    memory.clock.now = 30
    assert (await memory.read(bucket)).body == b"picture"
    assert bucket.asked[1][2].if_none_match == ('"1"',)
    memory.clock.now = 59
    await memory.read(bucket)
    assert memory.counts == ["miss", "hit", "revalidated", "hit"]


@pytest.mark.parametrize("more", [{"revalidate": True}, {}])
async def test_a_changed_object_is_fetched_anew(more: dict[str, Any]) -> None:
    memory, bucket = Memory(max_age_s=30 if more else 0), FakeBucket({"a": b"old"})
    await memory.read(bucket)
    bucket.objects["a"], bucket.etag = b"new", '"2"'
    read = await memory.read(bucket, **more)
    assert (read.body, read.meta.etag) == (b"new", '"2"')
    assert memory.counts == ["miss", "miss"]


@pytest.mark.parametrize("etag", [None, 'W/"1"'])
async def test_without_a_strong_tag_it_is_fetched_again(etag: str | None) -> None:
    memory, bucket = Memory(max_age_s=0), FakeBucket({"a": b"old"}, etag=etag)
    await memory.read(bucket)
    bucket.objects["a"] = b"new"
    assert (await memory.read(bucket)).body == b"new"


async def test_an_object_that_went_or_a_bucket_that_fails_is_said_and_nothing_stale_served() -> None:
    memory, bucket = Memory(max_age_s=0), FakeBucket({"a": b"old"})
    await memory.read(bucket)
    bucket.error = UpstreamError("no")
    with pytest.raises(UpstreamError):
        await memory.read(bucket)
    bucket.error = None
    del bucket.objects["a"]
    with pytest.raises(ObjectMissingError):
        await memory.read(bucket)


async def test_ranges_and_conditions_are_answered_from_memory() -> None:
    memory, bucket = Memory(), FakeBucket({"a": b"0123456789"})
    await memory.read(bucket)
    part = await memory.read(bucket, range=ByteRange(2, 5))
    assert (part.body, part.part) == (b"234", (2, 5))
    assert (await memory.read(bucket, range=Suffix(3))).body == b"789"
    assert (await memory.read(bucket, if_none_match=('"1"',))).not_modified
    assert (await memory.read(bucket, method="HEAD")).body == b""
    whole = await memory.read(bucket, range=ByteRange(0, 1), if_range='"other"')
    assert (whole.body, whole.part) == (b"0123456789", None)
    with pytest.raises(PreconditionFailedError):
        await memory.read(bucket, if_match=('"other"',))
    with pytest.raises(RangeNotSatisfiableError):
        await memory.read(bucket, range=ByteRange(10))
    assert len(bucket.asked) == 1


async def test_a_range_of_what_is_not_here_goes_to_the_bucket_alone() -> None:
    memory, bucket = Memory(), FakeBucket({"a": b"0123456789"})
    assert (await memory.read(bucket, range=ByteRange(2, 5))).body == b"234"
    await memory.read(bucket, method="HEAD")
    assert [(method, options.range) for method, _, options in bucket.asked] == [
        ("GET", ByteRange(2, 5)),
        ("HEAD", None),
    ]
    assert memory.cache.held_bytes == 0


async def test_memory_is_bounded_and_the_least_used_goes_first() -> None:
    memory = Memory(limit_bytes=100_000)
    bucket = FakeBucket({str(number): bytes(20_000) for number in range(20)})
    for number in range(20):
        await memory.read(bucket, str(number))
        await memory.read(bucket, "0")
        assert memory.cache.held_bytes <= 100_000
    asked = len(bucket.asked)
    await memory.read(bucket, "0")
    assert len(bucket.asked) == asked
    await memory.read(bucket, "1")
    assert len(bucket.asked) == asked + 1


async def test_a_long_object_is_streamed_to_each_and_never_kept() -> None:
    memory = Memory(limit_bytes=100_000_000)
    body = bytes(MOST_OBJECT_BYTES + 1)
    bucket = FakeBucket({"a": body}, gate=asyncio.Event())
    readers = [asyncio.create_task(memory.read(bucket)) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert bucket.gate is not None
    bucket.gate.set()
    for reader in readers:
        read = await reader
        assert isinstance(read.body, Streamed)
        assert sum([len(piece) async for piece in read.body]) == len(body)
        await read.body.aclose()
    assert len(bucket.streams) == 3
    assert memory.cache.held_bytes == 0


async def test_a_long_object_that_its_reader_left_is_closed() -> None:
    memory = Memory(limit_bytes=100_000_000)
    bucket = FakeBucket({"a": bytes(MOST_OBJECT_BYTES + 1)}, gate=asyncio.Event())
    reader = asyncio.create_task(memory.read(bucket))
    await asyncio.sleep(0.01)
    reader.cancel()
    assert bucket.gate is not None
    bucket.gate.set()
    await asyncio.wait({reader})
    await asyncio.sleep(0.01)
    assert [stream.closed for stream in bucket.streams] == [True]


async def test_a_storage_that_changes_takes_its_objects_along() -> None:
    memory, bucket = Memory(), FakeBucket({"a": b"picture"})
    other = Place(2, 1)
    await memory.read(bucket)
    await memory.read(bucket, place=other)
    await memory.read(bucket, place=Place(1, 2))
    memory.cache.forget(1)
    await memory.read(bucket, place=other)
    assert len(bucket.asked) == 3
    await memory.read(bucket)
    assert len(bucket.asked) == 4
    memory.cache.clear()
    assert memory.cache.held_bytes == 0


async def test_a_written_object_goes_alone() -> None:
    memory, bucket = Memory(), FakeBucket({"a": b"picture", "b": b"other"})
    for key in ("a", "b"):
        await memory.read(bucket, key)
    memory.cache.forget(PLACE.storage_id, "a")
    memory.cache.forget(PLACE.storage_id + 1, "b")
    for key in ("a", "b"):
        await memory.read(bucket, key)
    assert [key for _, key, _ in bucket.asked] == ["a", "b", "a"]


@pytest.mark.parametrize("forget", ["object", "storage", "everything"])
async def test_what_was_being_fetched_when_it_changed_is_not_kept_and_not_joined(forget: str) -> None:
    memory, bucket = Memory(), FakeBucket({"a": b"old"}, gate=asyncio.Event())
    assert bucket.gate is not None
    before = asyncio.create_task(memory.read(bucket))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    if forget == "everything":
        memory.cache.clear()
    else:
        memory.cache.forget(PLACE.storage_id, "a" if forget == "object" else None)
    after = asyncio.create_task(memory.read(bucket))
    await asyncio.sleep(0.01)
    assert len(bucket.asked) == 2
    bucket.gate.set()
    await asyncio.gather(before, after)
    memory.cache.forget(PLACE.storage_id, "a")
    bucket.gate.clear()
    late = asyncio.create_task(memory.read(bucket))
    await asyncio.sleep(0.01)
    memory.cache.forget(PLACE.storage_id, "a")
    bucket.gate.set()
    await late
    assert memory.cache.held_bytes == 0


async def test_without_memory_every_read_goes_to_the_bucket() -> None:
    memory, bucket = Memory(limit_bytes=0), FakeBucket({"a": b"picture"})
    for _ in range(2):
        assert (await memory.read(bucket)).body == b"picture"
    assert memory.counts == ["passed", "passed"]


class Maker:
    """Makes something of an object, or finds that what is kept is current; counts how often, and may wait."""

    def __init__(self, body: bytes = b"small", etag: str | None = '"s1"') -> None:
        self.body, self.etag = body, etag
        self.calls: list[str | None] = []
        self.gate: asyncio.Event | None = None

    async def __call__(self, kept: ObjectRead | None) -> ObjectRead:
        self.calls.append(None if kept is None else kept.meta.etag)
        if self.gate is not None:
            await self.gate.wait()
        if kept is not None and kept.meta.etag == self.etag:
            return ObjectRead(kept.meta, not_modified=True)
        return ObjectRead(ObjectMeta("a", len(self.body), self.etag, MOMENT, "image/jpeg"), self.body)


async def made(memory: Memory, maker: Maker, name: str = "1x1", **more: Any) -> ObjectRead:
    """What is made of the object `a`."""
    revalidate, method = more.pop("revalidate", False), more.pop("method", "GET")
    options = ReadOptions(**more) if more else PLAIN_READ
    return await memory.cache.read_made(PLACE, "a", name, maker, method, options, revalidate=revalidate)


async def test_what_is_made_of_an_object_is_kept_beside_it_under_its_own_name() -> None:
    memory, bucket = Memory(), FakeBucket({"a": b"picture"})
    makers = Maker(b"one"), Maker(b"two")
    for _ in range(2):
        assert (await made(memory, makers[0], "1x1")).body == b"one"
        assert (await made(memory, makers[1], "2x2")).body == b"two"
        assert (await memory.read(bucket)).body == b"picture"
    assert [maker.calls for maker in makers] == [[None], [None]]
    assert memory.counts == ["miss"] * 3 + ["hit"] * 3
    assert memory.cache.holds(PLACE, "a", "1x1")
    memory.cache.forget(PLACE.storage_id)
    assert not memory.cache.holds(PLACE, "a", "1x1")
    assert memory.cache.held_bytes == 0


@pytest.mark.parametrize("limit_bytes", [1_000_000, 0])
async def test_many_who_want_the_same_made_are_one_making_even_where_nothing_is_kept(
    limit_bytes: int,
) -> None:
    memory, maker = Memory(limit_bytes), Maker()
    maker.gate = asyncio.Event()
    readers = [asyncio.create_task(made(memory, maker, method=method)) for method in ("GET", "HEAD") * 10]
    await asyncio.sleep(0.01)
    readers[0].cancel()
    maker.gate.set()
    await asyncio.wait(readers)
    assert {reader.result().body for reader in readers[1:]} == {b"small", b""}
    assert len(maker.calls) == 1
    assert memory.cache.holds(PLACE, "a", "1x1") == bool(limit_bytes)


async def test_what_was_made_is_asked_about_after_its_age_and_made_anew_only_if_it_changed() -> None:
    memory, maker = Memory(), Maker()
    await made(memory, maker)
    memory.clock.now = 30
    assert (await made(memory, maker)).body == b"small"
    assert (await made(memory, maker, revalidate=True)).body == b"small"
    maker.body, maker.etag = b"other", '"s2"'
    assert (await made(memory, maker)).body == b"small"
    assert (await made(memory, maker, revalidate=True)).body == b"other"
    assert maker.calls == [None, '"s1"', '"s1"', '"s1"']
    assert memory.counts == ["miss", "revalidated", "revalidated", "hit", "miss"]


async def test_a_making_that_fails_when_everybody_has_left_is_no_complaint() -> None:
    memory, maker, complaints = Memory(), Maker(), list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    maker.gate = asyncio.Event()
    reader = asyncio.create_task(made(memory, maker))
    await asyncio.sleep(0.01)
    reader.cancel()
    await asyncio.wait({reader})
    del reader
    maker.body = cast("bytes", None)  # has no length
    maker.gate.set()
    await asyncio.sleep(0.01)
    gc.collect()
    asyncio.get_running_loop().set_exception_handler(None)
    assert complaints == []
    assert not memory.cache.holds(PLACE, "a", "1x1")


async def test_conditions_and_ranges_hold_for_what_was_just_made_too() -> None:
    memory, maker = Memory(limit_bytes=0), Maker()
    assert (await made(memory, maker, range=ByteRange(1, 3))).body == b"ma"
    assert (await made(memory, maker, if_none_match=('"s1"',))).not_modified
    assert (await made(memory, maker, method="HEAD")).meta.size_bytes == 5
    with pytest.raises(PreconditionFailedError):
        await made(memory, maker, if_match=('"other"',))


async def test_an_object_that_shall_not_be_kept_is_not_but_is_taken_from_memory() -> None:
    memory, bucket = Memory(), FakeBucket({"a": b"picture"})
    cache = memory.cache
    read = await cache.read(cast("Bucket", bucket), PLACE, "a", "GET", keep=False)
    assert (read.body, cache.held_bytes) == (b"picture", 0)
    await memory.read(bucket)
    await cache.read(cast("Bucket", bucket), PLACE, "a", "GET", keep=False)
    assert len(bucket.asked) == 2
    assert memory.counts == ["passed", "miss", "hit"]
