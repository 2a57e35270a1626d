"""SIGTERM: what streams may end, nobody new is let in, and the process ends in time, without a complaint."""

import asyncio
import time

import httpx
import pytest

from tests.faults.conftest import Serve, Taken, behind, eventually, pattern, take
from tests.faults.process import Serving
from tests.servers.fault_proxy import FaultProxy, Faults
from tests.servers.fixtures import OpenProxy
from tests.servers.s3 import S3Bucket

LONG = pattern(1_500_000)
STREAMS = 50


@pytest.fixture
async def proxy(s3_bucket: S3Bucket, fault_proxy: OpenProxy) -> FaultProxy:
    """The way to a bucket with one long object, that can be made slow."""
    await s3_bucket.put("long.bin", LONG)
    return await fault_proxy(s3_bucket.server.endpoint_url)


async def streaming(process: Serving, proxy: FaultProxy, bucket: S3Bucket) -> "list[asyncio.Task[Taken]]":
    """Readers in the middle of the object."""
    objects = await process.attach(behind(proxy, bucket))
    proxy.faults = Faults(bytes_per_s=100_000)
    begun = proxy.answers
    readers = [asyncio.create_task(take(process.admin, f"{objects}/long.bin")) for _ in range(STREAMS)]
    await eventually(lambda: proxy.answers == begun + STREAMS)
    return readers


async def refused(process: Serving) -> None:
    """Wait until nobody new is let in; none is left waiting meanwhile."""
    async with asyncio.timeout(15):
        while True:
            try:
                async with httpx.AsyncClient(trust_env=False) as new:
                    await new.get(f"{process.url}/livez")
            except httpx.ConnectError:
                return
            except (httpx.ReadError, httpx.RemoteProtocolError):
                pass  # it came just as the door was closed
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("workers", [1, 2])
async def test_fifty_streams_end_whole_within_the_grace_time(
    serve: Serve, s3_bucket: S3Bucket, proxy: FaultProxy, workers: int
) -> None:
    async with serve(workers=workers, cache_bytes=0, grace_s=20, upstream_concurrency=2 * STREAMS) as process:
        readers = await streaming(process, proxy, s3_bucket)
        process.terminate()
        await refused(process)
        assert process.process.poll() is None
        proxy.heal()
        for got in await asyncio.gather(*readers):
            assert (got.status, got.whole, got.body == LONG) == (200, True, True)
        assert await process.exit_code() == 0
        assert process.events("error") == []


@pytest.mark.parametrize("workers", [1, 2])
async def test_streams_longer_than_the_grace_time_are_cut(
    serve: Serve, s3_bucket: S3Bucket, proxy: FaultProxy, workers: int
) -> None:
    async with serve(workers=workers, cache_bytes=0, grace_s=1, upstream_concurrency=2 * STREAMS) as process:
        readers = await streaming(process, proxy, s3_bucket)
        begun = time.monotonic()
        process.terminate()
        assert await process.exit_code() == 0
        assert time.monotonic() - begun < 15
        for got in await asyncio.gather(*readers):
            assert (got.status, got.whole) == (200, False)
            assert LONG.startswith(got.body)
        await eventually(lambda: proxy.connections_open == 0)
        assert "Traceback" not in process.log()


async def test_an_idle_service_ends_at_once(serve: Serve) -> None:
    async with serve(grace_s=30) as process:
        assert (await process.admin.get("/v1/me")).status_code == 200  # a kept connection does not hold it up
        process.terminate()
        assert await process.exit_code() == 0
