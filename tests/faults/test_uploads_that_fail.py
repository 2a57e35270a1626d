"""Uploads into buckets that break, from a service that is stopped, and of more than fits into memory."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from app.storage.writing import PART_BYTES
from tests.api.conftest import s3_body
from tests.faults.conftest import OpenSite, Serve, Site, behind, eventually, pattern
from tests.servers.fault_proxy import Faults
from tests.servers.fixtures import OpenProxy
from tests.servers.s3 import S3Bucket

MIB = 1024 * 1024
SHORT, LONG = pattern(50_000), pattern(3 * PART_BYTES + 5, 1)


@pytest_asyncio.fixture(scope="module")
async def site(open_site: OpenSite) -> AsyncIterator[Site]:
    """A site with little patience."""
    async with open_site(first_byte_timeout_s=1, connect_timeout_s=1) as one:
        yield one


async def leftovers(bucket: S3Bucket) -> int:
    answer = await bucket.client.list_multipart_uploads(Bucket=bucket.name)
    return len(answer.get("Uploads", []))


async def none_left(bucket: S3Bucket) -> None:
    async with asyncio.timeout(30):
        while await leftovers(bucket):
            await asyncio.sleep(0.05)


async def exists(bucket: S3Bucket, key: str) -> bool:
    answer = await bucket.client.list_objects_v2(Bucket=bucket.name, Prefix=key)
    return bool(answer.get("Contents"))


class Body:
    """A body in two halves: the second comes when it is let."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._go = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        half = len(self._body) // 2
        for start in range(0, half, 65_536):
            yield self._body[start : min(start + 65_536, half)]
        await self._go.wait()
        for start in range(half, len(self._body), 65_536):
            yield self._body[start : start + 65_536]

    def go_on(self) -> None:
        self._go.set()


def put(client: httpx.AsyncClient, path: str, body: Body) -> "asyncio.Task[httpx.Response]":
    return asyncio.create_task(client.put(path, content=body))


FAULTS = {
    "cut": (Faults(cut_before_head=True), 502, "storage-error"),
    "silent": (Faults(stall_before_head=True), 504, "storage-timeout"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("body", [SHORT, LONG], ids=["short", "long"])
async def test_a_bucket_that_breaks_midway_is_said_and_keeps_no_parts(
    site: Site, fault: str, body: bytes
) -> None:
    faults, status, slug = FAULTS[fault]
    key, coming = f"{fault}-{len(body)}.bin", Body(body)
    answered = site.proxy.answers
    putting = put(site.service.admin, f"{site.objects}/{key}", coming)
    if body is LONG:
        await eventually(lambda: site.proxy.answers > answered)  # it is begun
    site.proxy.faults = faults
    coming.go_on()
    answer = await putting
    site.proxy.heal()
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{slug}")
    await none_left(site.bucket)
    if body is LONG:  # a short one was taken; only its answer did not come
        assert not await exists(site.bucket, key)
    assert (await site.service.admin.put(f"{site.objects}/{key}", content=body)).status_code == 200
    assert (await site.take(key)).body == body


async def test_a_bucket_that_cannot_be_reached_stores_nothing(site: Site) -> None:
    await site.proxy.refuse()
    await site.proxy.drop()
    for body in (SHORT, LONG):
        answer = await site.service.admin.put(f"{site.objects}/lost.bin", content=body)
        assert (answer.status_code, answer.json()["type"]) == (502, "/problems/storage-error")
    await site.proxy.admit()
    assert not await exists(site.bucket, "lost.bin")
    assert await leftovers(site.bucket) == 0


async def test_a_service_that_is_stopped_midway_leaves_nothing(serve: Serve, s3_bucket: S3Bucket) -> None:
    async with serve(grace_s=1) as process:
        attached = await process.admin.post("/v1/storages", json=s3_body(s3_bucket))
        path = f"/v1/storages/{attached.json()['id']}/objects/a.bin"
        putting = put(process.admin, path, Body(LONG))
        async with asyncio.timeout(20):
            while await leftovers(s3_bucket) == 0:
                await asyncio.sleep(0.02)
        process.terminate()
        assert await process.exit_code() == 0
        putting.cancel()
        await asyncio.wait({putting})
        assert await leftovers(s3_bucket) == 0
        assert not await exists(s3_bucket, "a.bin")


async def test_an_upload_takes_a_few_parts_of_memory(
    serve: Serve, s3_bucket: S3Bucket, fault_proxy: OpenProxy
) -> None:
    """However long it is: two hundred MiB come much faster than this bucket takes them."""
    proxy = await fault_proxy(s3_bucket.server.endpoint_url)
    piece = pattern(MIB)
    async with serve() as process:
        attached = await process.admin.post("/v1/storages", json=behind(proxy, s3_bucket))
        path = f"/v1/storages/{attached.json()['id']}/objects"
        assert (await process.admin.put(f"{path}/warm.bin", content=LONG)).status_code == 200
        before = most = process.memory_bytes
        proxy.faults = Faults(latency_s=0.05)

        async def body() -> AsyncIterator[bytes]:
            nonlocal most
            for _ in range(200):
                yield piece
                most = max(most, process.memory_bytes)

        assert (await process.admin.put(f"{path}/long.bin", content=body())).status_code == 200
        assert most - before < 96 * MIB
        head = await process.admin.head(f"{path}/long.bin")
        assert head.headers["content-length"] == str(200 * MIB)
