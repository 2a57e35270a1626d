"""A thousand clients at once, half of whom vanish: the others get exact bytes, and nothing stays behind."""

import asyncio
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from dataclasses import dataclass

import pytest

from app.system import raise_descriptor_limit
from tests.api.conftest import s3_body
from tests.faults.conftest import Serve, eventually, pattern
from tests.faults.process import Serving
from tests.faults.readers import Reader
from tests.servers.s3 import S3Bucket

CLIENTS = 1000
PLACES = 32
SHARE = PLACES - PLACES // 4
"""How many of them one user may hold."""
SMALL, LONG, ENDLESS = pattern(100_000), pattern(600_000, 1), pattern(8_000_000, 2)
BODIES = {"small.bin": SMALL, "long.bin": LONG}
"""One is read whole before it is answered, the other is streamed."""
MOST_GROWTH_BYTES = 32 * 1024 * 1024


@contextmanager
def few_descriptors() -> Iterator[None]:
    """Start processes with room for some hundred descriptors, as most systems do."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@dataclass
class Crowd:
    """A service with one bucket, and those who ask it."""

    process: Serving
    objects: str

    async def ask(self, number: int) -> bool:
        """Be one client: an odd one vanishes at its first bytes; tells whether an even one got exact bytes."""
        key = f"{('small', 'long')[number // 2 % 2]}.bin"
        async with self.reading(key) as reader:
            body = await reader.first_bytes()
            if number % 2:
                reader.vanish(number // 4)
                return False
            return body + await reader.take(len(BODIES[key]) - 1000) == BODIES[key]

    def reading(self, key: str) -> AbstractAsyncContextManager[Reader]:
        """Ask for an object over a connection of its own."""
        authorization = self.process.admin.headers["authorization"]
        return Reader.ask(self.process.url, f"{self.objects}/{key}", authorization)

    async def every_place_is_free(self) -> None:
        """Hold all places at once that a user may have."""
        async with AsyncExitStack() as stack, asyncio.timeout(20):
            readers = [await stack.enter_async_context(self.reading("endless.bin")) for _ in range(SHARE)]
            for reader in readers:
                await reader.first_bytes()


@pytest.fixture
async def crowd(serve: Serve, s3_bucket: S3Bucket) -> AsyncIterator[Crowd]:
    """A service of few places."""
    for key, body in {**BODIES, "endless.bin": ENDLESS}.items():
        await s3_bucket.put(key, body)
    async with AsyncExitStack() as stack:
        with few_descriptors():
            process = await stack.enter_async_context(serve(upstream_concurrency=PLACES, cache_bytes=0))
        yield Crowd(process, await process.attach(s3_body(s3_bucket)))


async def test_a_thousand_clients_of_whom_half_vanish_leave_nothing_behind(crowd: Crowd) -> None:
    assert raise_descriptor_limit() > CLIENTS
    process = crowd.process
    await asyncio.gather(*(crowd.ask(number) for number in range(2 * PLACES)))
    await crowd.every_place_is_free()
    await eventually(lambda: process.open_descriptors < PLACES)
    descriptors, memory = process.open_descriptors, process.memory_bytes
    async with asyncio.timeout(60):
        right = await asyncio.gather(*(crowd.ask(number) for number in range(CLIENTS)))
    assert right == [number % 2 == 0 for number in range(CLIENTS)]
    await crowd.every_place_is_free()
    await eventually(lambda: process.open_descriptors <= descriptors)
    assert process.memory_bytes - memory < MOST_GROWTH_BYTES
    assert (process.events("error"), process.events("warning")) == ([], [])
