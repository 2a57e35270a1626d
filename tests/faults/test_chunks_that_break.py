"""Chunks of a bucket that is slow, breaks or goes down, and clients that leave: whole ZIPs, and nothing left behind."""

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, NamedTuple
from zipfile import ZipFile

import pytest
import pytest_asyncio

from app.services.fetch_ahead import FetchAhead
from tests.faults.conftest import OpenSite, Serve, Site, Taken, behind, eventually, pattern, take
from tests.faults.readers import Reader
from tests.servers.fault_proxy import Faults
from tests.servers.fixtures import OpenProxy
from tests.servers.s3 import S3Bucket
from tests.zips import read_as_stream

MIB = 1024 * 1024
COUNT = 24
PLACES = 12
KEPT = PLACES + 1
"""Connections to the bucket that wait for work: one for each place, and the SDK's own."""


def body_of(number: int) -> bytes:
    """Every other frame is streamed, the others come in one piece."""
    return pattern(300_000 if number % 2 else 20_000, number)


def manifest_of(count: int) -> bytes:
    """A manifest of `000.jpg` and so on."""
    items = (json.dumps({"name": f"{number:03}", "extension": ".jpg"}) for number in range(count))
    return "\n".join(['{"version":"1.1"}', '{"type":"images"}', *items, ""]).encode()


class Held(NamedTuple):
    """What a ZIP holds: the frames by number, and the problems."""

    frames: dict[int, bytes]
    problems: list[dict[str, Any]]

    @classmethod
    def by(cls, got: Taken) -> "Held":
        """Read an answer with every kind of reader."""
        assert (got.status, got.whole) == (200, True), got.body[:500]
        with ZipFile(io.BytesIO(got.body)) as archive:
            assert archive.testzip() is None
            entries = [(name, archive.read(name)) for name in archive.namelist()]
        assert list(read_as_stream(got.body)) == entries
        problems = json.loads(dict(entries).get("problems.json", b"[]"))
        frames = {int(name[:6]): body for name, body in entries if name != "problems.json"}
        assert list(frames) == sorted(frames)
        assert all(body == body_of(number) for number, body in frames.items())
        assert sorted([*frames, *(problem["number"] for problem in problems)]) == list(range(COUNT))
        return cls(frames, problems)

    @property
    def slugs(self) -> set[str]:
        """What kinds of problems there are."""
        return {problem["type"].removeprefix("/problems/") for problem in self.problems}


@pytest_asyncio.fixture(scope="module")
async def dataset(open_site: OpenSite) -> AsyncIterator[Site]:
    """A site with few places, little memory for chunks and little patience; manifest 1 has all frames."""
    limits = {"upstream_concurrency": PLACES, "chunk_bytes": 128 * MIB}
    async with open_site(**limits, first_byte_timeout_s=1, idle_timeout_s=0.5) as one:
        for number in range(COUNT):
            await one.bucket.put(f"{number:03}.jpg", body_of(number))
        await one.bucket.put("manifest.jsonl", manifest_of(COUNT))
        manifest = await one.service.register(one.storage_id, "manifest.jsonl")
        assert manifest["id"] == 1
        yield one


@pytest.fixture
def site(dataset: Site, caplog: pytest.LogCaptureFixture) -> Iterator[Site]:
    """The dataset without the faults of the test before; a bucket's fault is never logged as ours."""
    dataset.proxy.heal()
    yield dataset
    dataset.proxy.heal()
    assert not [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR]


CHUNK = f"/v1/manifests/1/chunks/0?size={COUNT}"


async def chunk(site: Site) -> Taken:
    """Read the whole dataset as one chunk."""
    return await take(site.service.admin, CHUNK)


def ask(site: Site) -> AbstractAsyncContextManager[Reader]:
    """Ask for the chunk down at the socket."""
    return Reader.ask(site.service.url, CHUNK, site.service.admin.headers["authorization"])


def fetching() -> int:
    """How many frames are being fetched in this process, the service's own."""
    names = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
    return sum(name.startswith(FetchAhead.__name__) for name in names)


async def assert_well(site: Site) -> None:
    """Whole chunks come again, more at a time than a leak would let through, and nothing is left over."""
    site.proxy.heal()
    async with asyncio.timeout(60):
        found = await asyncio.gather(*(chunk(site) for _ in range(4)))
    assert all(len(Held.by(got).frames) == COUNT for got in found)
    await eventually(lambda: site.proxy.connections_open <= KEPT)
    await eventually(lambda: fetching() == 0)


async def test_a_slow_frame_does_not_change_the_order(site: Site) -> None:
    site.proxy.faults = Faults(latency_s=0.02, bytes_per_s=3_000_000)
    assert len(Held.by(await chunk(site)).frames) == COUNT


async def test_frames_that_break_off_are_told_and_the_others_come(site: Site) -> None:
    site.proxy.faults = Faults(cut_after=25_000)
    held = Held.by(await chunk(site))
    assert sorted(held.frames) == list(range(0, COUNT, 2))
    assert held.slugs == {"storage-error"}
    await assert_well(site)


async def test_frames_that_stand_still_are_told_and_the_others_come(site: Site) -> None:
    site.proxy.faults = Faults(stall_after=25_000)
    held = Held.by(await chunk(site))
    assert sorted(held.frames) == list(range(0, COUNT, 2))
    assert held.slugs <= {"storage-error", "storage-timeout"}
    await assert_well(site)


@pytest.mark.parametrize(
    ("faults", "status", "slug"),
    [
        (Faults(cut_before_head=True), 502, "storage-error"),
        (Faults(stall_before_head=True), 504, "storage-timeout"),
        (Faults(cut_after=10), 502, "storage-error"),
    ],
    ids=["cut", "silent", "broken"],
)
async def test_a_bucket_that_gives_no_frame_at_all_is_the_answer(
    site: Site, faults: Faults, status: int, slug: str
) -> None:
    site.proxy.faults = faults
    got = await chunk(site)
    assert (got.status, got.slug) == (status, slug)
    await assert_well(site)


async def test_a_bucket_that_cannot_be_reached_is_the_answer(site: Site) -> None:
    await site.proxy.refuse()
    await site.proxy.drop()
    got = await chunk(site)
    await site.proxy.admit()
    assert (got.status, got.slug) == (502, "storage-error")
    await assert_well(site)


async def test_a_bucket_that_goes_down_midway_leaves_a_whole_zip(site: Site) -> None:
    site.proxy.faults = Faults(bytes_per_s=2_000_000)
    begun = site.proxy.answers
    going = asyncio.create_task(chunk(site))
    await eventually(lambda: site.proxy.answers >= begun + 6)
    await site.proxy.refuse()
    await site.proxy.drop()
    held = Held.by(await going)
    await site.proxy.admit()
    assert held.frames
    assert len(held.problems) > 6
    assert held.slugs <= {"storage-error", "storage-timeout"}
    await assert_well(site)


async def test_a_deleted_bucket_is_the_answer(open_site: OpenSite) -> None:
    async with open_site() as one:
        await one.bucket.put("manifest.jsonl", manifest_of(3))
        await one.service.register(one.storage_id, "manifest.jsonl")
        await one.bucket.client.delete_object(Bucket=one.bucket.name, Key="manifest.jsonl")
        await one.bucket.client.delete_bucket(Bucket=one.bucket.name)
        got = await take(one.service.admin, "/v1/manifests/1/chunks/0")
    assert (got.status, got.slug) == (502, "storage-not-found")


async def test_clients_that_vanish_midway_leave_nothing(site: Site) -> None:

    async def look_and_vanish(number: int) -> None:
        async with ask(site) as reader:
            await reader.first_bytes()
            reader.vanish(number)

    seen_fetching = 0
    site.proxy.faults = Faults(bytes_per_s=1_000_000)
    async with asyncio.timeout(60):
        for _ in range(3):
            await asyncio.gather(*(look_and_vanish(number) for number in range(12)))
            seen_fetching = max(seen_fetching, fetching())
    assert seen_fetching, "they were gone before anything was under way"
    await assert_well(site)


async def test_clients_that_vanish_from_a_silent_bucket_are_not_waited_for(site: Site) -> None:
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(ask(site)) for _ in range(4)]
        site.proxy.faults = Faults(bytes_per_s=400_000)
        for number, reader in enumerate(readers):
            await reader.first_bytes()
            site.proxy.faults = Faults(stall_after=0)
            reader.vanish(number)
            site.proxy.faults = Faults(bytes_per_s=400_000)
    await assert_well(site)


async def test_clients_that_do_not_read_hold_no_place_at_the_bucket(site: Site) -> None:
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(ask(site)) for _ in range(PLACES)]
        for reader in readers:
            await reader.first_bytes()
        async with asyncio.timeout(30):
            answers = await asyncio.gather(*(site.take(f"{n:03}.jpg") for n in range(2 * PLACES)))
        assert [got.body == body_of(number) for number, got in enumerate(answers)] == [True] * 2 * PLACES
        for number, reader in enumerate(readers):
            reader.vanish(number)


async def test_more_chunks_than_places_all_come_whole(site: Site) -> None:
    async with asyncio.timeout(60):
        found = await asyncio.gather(*(chunk(site) for _ in range(2 * PLACES)))
    assert [len(Held.by(got).frames) for got in found] == [COUNT] * 2 * PLACES


async def test_a_chunk_needs_no_more_than_one_place(open_site: OpenSite) -> None:
    async with open_site(upstream_concurrency=1, upstream_queue=0) as one:
        for number in range(COUNT):
            await one.bucket.put(f"{number:03}.jpg", body_of(number))
        await one.bucket.put("manifest.jsonl", manifest_of(COUNT))
        await one.service.register(one.storage_id, "manifest.jsonl")
        assert len(Held.by(await chunk(one)).frames) == COUNT


async def test_slow_readers_of_long_chunks_take_no_more_memory_than_is_set_aside(
    serve: Serve, s3_bucket: S3Bucket, fault_proxy: OpenProxy
) -> None:
    frames, size_bytes = 14, 6 * MIB
    await asyncio.gather(
        *(s3_bucket.put(f"{number:03}.jpg", pattern(size_bytes, number)) for number in range(frames))
    )
    await s3_bucket.put("manifest.jsonl", manifest_of(frames))
    proxy = await fault_proxy(s3_bucket.server.endpoint_url)
    async with serve(chunk_bytes=64 * MIB, cache_bytes=0) as process, AsyncExitStack() as stack:
        attached = await process.admin.post("/v1/storages", json=behind(proxy, s3_bucket))
        path = f"/v1/storages/{attached.json()['id']}/manifests"
        made = await process.admin.post(path, json={"key": "manifest.jsonl"}, headers={"Prefer": "wait=30"})
        assert made.json()["manifest"]["state"] == "ready"
        asking = (process.url, "/v1/manifests/1/chunks/0", process.admin.headers["authorization"])
        before = process.memory_bytes
        readers = [await stack.enter_async_context(Reader.ask(*asking)) for _ in range(8)]
        passed = -1
        while passed != proxy.bytes_down:
            passed = proxy.bytes_down
            await asyncio.sleep(0.3)
        assert process.memory_bytes - before < 64 * MIB
        for number, reader in enumerate(readers[1:]):
            reader.vanish(number)
        await readers[0].first_bytes()
        for _ in range(frames * 6 - 1):
            await readers[0].take(MIB)
        assert process.memory_bytes - before < 64 * MIB
