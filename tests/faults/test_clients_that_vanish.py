"""Readers that go away, wait in the queue for nothing, or take their time: they cost the others nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack

import pytest
import pytest_asyncio

from tests.faults.conftest import OpenSite, Serve, Site, behind, eventually, pattern
from tests.faults.readers import Reader
from tests.servers.fault_proxy import Faults
from tests.servers.fixtures import OpenProxy
from tests.servers.s3 import S3Bucket

MIB = 1024 * 1024
LONG, SMALL = pattern(4 * MIB), pattern(50_000, 1)
PLACES = 16
KEPT = PLACES + 1
"""Connections to the bucket that wait for work: one for each place, and the SDK's own."""


@pytest_asyncio.fixture(params=[True, False], ids=["lane", "fastapi"], scope="module")
async def site(request: pytest.FixtureRequest, open_site: OpenSite) -> AsyncIterator[Site]:
    """A site, once for each way of byte requests, with few places."""
    async with open_site(lane=request.param, upstream_concurrency=PLACES) as one:
        await one.bucket.put("long.jpg", LONG)
        await one.bucket.put("small.jpg", SMALL)
        yield one


def ask(site: Site, key: str) -> AbstractAsyncContextManager[Reader]:
    """Ask for an object of a site."""
    authorization = site.service.admin.headers["authorization"]
    return Reader.ask(site.service.url, f"{site.objects}/{key}", authorization)


async def assert_thirty_succeed(site: Site) -> None:
    """The next requests are answered at once."""
    async with asyncio.timeout(20):
        answers = await asyncio.gather(*(site.take("small.jpg") for _ in range(30)))
    assert [(got.status, got.body == SMALL) for got in answers] == [(200, True)] * 30


async def test_120_clients_that_vanish_leave_every_place_free(site: Site) -> None:
    await assert_thirty_succeed(site)
    tasks = len(asyncio.all_tasks())

    async def look_and_vanish(number: int) -> None:
        async with ask(site, "long.jpg") as reader:
            await reader.first_bytes()
            reader.vanish(number)

    async with asyncio.timeout(60):
        await asyncio.gather(*(look_and_vanish(number) for number in range(120)))
    await assert_thirty_succeed(site)
    await eventually(lambda: site.proxy.connections_open <= KEPT)
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks)


async def test_clients_that_vanish_from_a_silent_bucket_are_not_waited_for(site: Site) -> None:
    """Nothing is sent to them, so nothing fails: their going itself must be noticed."""
    site.proxy.faults = Faults(stall_after=200_000 + len(SMALL))
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(ask(site, "long.jpg")) for _ in range(PLACES)]
        for number, reader in enumerate(readers):
            await reader.first_bytes()
            reader.vanish(number)
    await assert_thirty_succeed(site)
    site.proxy.heal()
    await eventually(lambda: site.proxy.connections_open <= KEPT)


async def test_clients_that_vanish_before_the_first_byte_leave_every_place_free(site: Site) -> None:
    site.proxy.faults = Faults(latency_s=0.3)
    begun = site.proxy.answers
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(ask(site, "long.jpg")) for _ in range(40)]
        await eventually(lambda: site.proxy.answers > begun)
        for number, reader in enumerate(readers):
            reader.vanish(number)
    site.proxy.heal()
    await assert_thirty_succeed(site)
    await eventually(lambda: site.proxy.connections_open <= KEPT)


async def test_a_client_that_stops_reading_disturbs_nobody_and_gets_every_byte(site: Site) -> None:
    async with ask(site, "long.jpg") as reader, asyncio.timeout(30):
        await reader.first_bytes()
        await assert_thirty_succeed(site)
        assert await reader.take(len(LONG) - 1000) == LONG[1000:]


async def test_slow_readers_of_long_objects_take_no_memory(
    serve: Serve, s3_bucket: S3Bucket, fault_proxy: OpenProxy
) -> None:
    await s3_bucket.put("long.bin", pattern(96 * MIB))
    proxy = await fault_proxy(s3_bucket.server.endpoint_url)
    async with serve() as process, AsyncExitStack() as stack:
        attached = await process.admin.post("/v1/storages", json=behind(proxy, s3_bucket))
        path = f"/v1/storages/{attached.json()['id']}/objects/long.bin"
        asking = (process.url, path, process.admin.headers["authorization"])
        async with Reader.ask(*asking) as first:
            await first.first_bytes()
        before = process.memory_bytes
        readers = [await stack.enter_async_context(Reader.ask(*asking)) for _ in range(8)]
        for _ in range(8):
            for reader in readers:
                await reader.take(MIB // 4)
            assert process.memory_bytes - before < 64 * MIB
        passed = -1
        while passed != proxy.bytes_down:  # until the rest waits in the bucket
            passed = proxy.bytes_down
            await asyncio.sleep(0.2)
            assert process.memory_bytes - before < 64 * MIB
        assert passed < 8 * 48 * MIB
        for number, reader in enumerate(readers):
            reader.vanish(number)
        await eventually(lambda: proxy.connections_open <= 1)
        assert process.memory_bytes - before < 64 * MIB
