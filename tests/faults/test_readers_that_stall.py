"""Readers that stay connected and take nothing: after a while they are hung up on, and hold nothing any more."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.faults.conftest import Taken, behind, eventually, pattern, take
from tests.faults.process import Serving
from tests.faults.readers import Reader
from tests.servers.fault_proxy import FaultProxy
from tests.servers.postgres import PostgresServer
from tests.servers.s3 import S3Server

MIB = 1024 * 1024
LONG, SMALL = pattern(12 * MIB), pattern(200_000, 1)
PLACES = 2

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system's kernel has no such time-out"
)


@dataclass
class Site:
    """A service with two places and little patience, and the path of a long object and a small one."""

    process: Serving
    objects: str
    proxy: FaultProxy

    def ask(self, key: str) -> AbstractAsyncContextManager[Reader]:
        """Ask for an object, to take it as one likes."""
        authorization = self.process.admin.headers["authorization"]
        return Reader.ask(self.process.url, f"{self.objects}/{key}", authorization)

    async def take(self, key: str) -> Taken:
        """Take an object whole, over a connection that is closed afterwards."""
        async with asyncio.timeout(20):
            return await take(self.process.admin, f"{self.objects}/{key}", connection="close")


@pytest_asyncio.fixture(scope="module")
async def site(
    postgres: PostgresServer, migrated_template: str, s3: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Site]:
    """A site that these tests share."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(postgres.database(migrated_template))
        bucket = await stack.enter_async_context(s3.bucket())
        await bucket.put("long.bin", LONG)
        await bucket.put("small.bin", SMALL)
        proxy = await stack.enter_async_context(FaultProxy.before(s3.endpoint_url))
        settings = {"send_timeout_s": 1, "upstream_concurrency": PLACES}
        running = Serving.run(url, tmp_path_factory.mktemp("stall"), **settings)
        process = await stack.enter_async_context(running)
        one = Site(process, await process.attach(behind(proxy, bucket)), proxy)
        assert (await one.take("small.bin")).body == SMALL
        yield one
        assert process.events("error") == []


async def test_a_reader_that_takes_nothing_gives_its_place_to_who_waits(site: Site) -> None:
    descriptors, connections = site.process.open_descriptors, site.proxy.connections_open
    async with AsyncExitStack() as stack:
        stalled = [await stack.enter_async_context(site.ask("long.bin")) for _ in range(PLACES)]
        for reader in stalled:
            await reader.first_bytes()
        got = await site.take("long.bin")
        assert (got.status, got.whole, got.body == LONG) == (200, True, True)
        await eventually(lambda: site.process.open_descriptors <= descriptors + PLACES)  # toward the bucket
        await eventually(lambda: site.proxy.connections_open <= connections + PLACES)
        for reader in stalled:
            rest = await reader.rest()
            assert LONG[1000:].startswith(rest)
            assert len(rest) < len(LONG) - 1000


async def test_a_reader_of_a_small_object_that_takes_nothing_is_hung_up_on(site: Site) -> None:
    descriptors = site.process.open_descriptors
    async with site.ask("small.bin") as reader:
        await reader.first_bytes()
        assert site.process.open_descriptors > descriptors
        await eventually(lambda: site.process.open_descriptors <= descriptors)


async def test_a_reader_that_is_slow_but_takes_something_gets_every_byte(site: Site) -> None:
    async with site.ask("long.bin") as reader, asyncio.timeout(30):
        await reader.first_bytes()
        taken = b""
        for _ in range(10):  # longer in all than the service is patient
            await asyncio.sleep(0.2)
            taken += await reader.take(MIB // 4)
        taken += await reader.take(len(LONG) - 1000 - len(taken))
    assert taken == LONG[1000:]
