"""No user and no bucket takes the whole service: others are served while one is greedy or slow."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import pytest
import pytest_asyncio

from tests.api.conftest import Service, client, s3_body
from tests.faults.conftest import OpenSite, Site, eventually, pattern, take
from tests.faults.readers import Reader
from tests.servers.fault_proxy import Faults

LONG, SMALL = pattern(16 * 1024 * 1024), pattern(50_000, 1)
PLACES, QUEUE = 4, 4


@pytest_asyncio.fixture(scope="module", params=[True, False], ids=["lane", "fastapi"])
async def site(open_site: OpenSite, request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    """A service with few places, and a long and a small object."""
    async with open_site(lane=request.param, upstream_concurrency=PLACES, upstream_queue=QUEUE) as one:
        await one.bucket.put("long.bin", LONG)
        await one.bucket.put("small.bin", SMALL)
        yield one
        one.proxy.heal()


@asynccontextmanager
async def reading_slowly(site: Site, reader: httpx.AsyncClient, count: int) -> AsyncIterator[None]:
    """Hold streams of the long object open, whose bytes nobody takes."""
    path, token = f"{site.objects}/long.bin", reader.headers["authorization"]
    async with AsyncExitStack() as stack:
        for _ in range(count):
            one = await stack.enter_async_context(Reader.ask(site.service.url, path, token))
            await one.first_bytes()
        yield


async def test_a_user_who_holds_all_that_he_may_leaves_places_for_others(site: Site) -> None:
    async with client(site.service.url, await site.service.token("bert", "admin")) as bert:
        async with reading_slowly(site, site.service.admin, PLACES - 1):
            fourth = asyncio.create_task(site.take("small.bin"))
            got = await asyncio.gather(*(take(bert, f"{site.objects}/small.bin") for _ in range(QUEUE)))
            assert [one.body for one in got] == [SMALL] * QUEUE
            assert not fourth.done()
        assert (await fourth).body == SMALL


async def test_who_fills_the_queue_gives_way_to_others_and_is_told_so(site: Site) -> None:
    async with (
        client(site.service.url, await site.service.token("bert", "admin")) as bert,
        client(site.service.url, await site.service.token("carl", "admin")) as carl,
    ):
        async with reading_slowly(site, site.service.admin, PLACES - 1), reading_slowly(site, bert, 1):
            greedy = [asyncio.create_task(site.take("small.bin")) for _ in range(QUEUE)]
            await asyncio.sleep(0.2)
            polite = asyncio.create_task(take(carl, f"{site.objects}/small.bin"))
            await eventually(lambda: any(task.done() for task in greedy))
            refused = [task.result() for task in greedy if task.done()]
        assert [(one.status, one.slug, one.headers["retry-after"]) for one in refused] == [
            (429, "share-used-up", "1")
        ]
        assert (await polite).body == SMALL
        assert [one.status for one in await asyncio.gather(*greedy)].count(200) == QUEUE - 1


async def test_a_bucket_that_hangs_does_not_hold_the_others_up(site: Site, service_of_two: int) -> None:
    site.proxy.faults = Faults(stall_before_head=True)
    hanging = [asyncio.create_task(site.take("small.bin")) for _ in range(PLACES + QUEUE)]
    await asyncio.sleep(0.1)
    path = f"/v1/storages/{service_of_two}/objects/small.bin"
    for _ in range(3):
        assert (await take(site.service.admin, path)).body == SMALL
    site.proxy.heal()
    for task in hanging:
        task.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)


@pytest_asyncio.fixture
async def service_of_two(site: Site) -> int:
    """Attach the same bucket once more, without the proxy before it."""
    service: Service = site.service
    return await service.attach(s3_body(site.bucket))
