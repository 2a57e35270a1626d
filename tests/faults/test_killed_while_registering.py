"""A service killed in the middle of a registration: nothing half is seen, and the next start does it."""

import asyncio
from typing import Any

import asyncpg
import httpx
import pytest

from tests.faults.conftest import Serve, behind, eventually
from tests.faults.process import Serving
from tests.faults.test_database_gone import manifest
from tests.servers.fault_proxy import FaultProxy, Faults
from tests.servers.fixtures import OpenProxy
from tests.servers.s3 import S3Bucket

FRAMES = 20_000
SLOW = Faults(bytes_per_s=300_000)


@pytest.fixture
async def proxy(s3_bucket: S3Bucket, fault_proxy: OpenProxy) -> FaultProxy:
    """The way to the bucket, that can be made slow."""
    return await fault_proxy(s3_bucket.server.endpoint_url)


async def age_beats(database_url: str) -> None:
    """Let every running job look as if its process had been silent for a minute."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("UPDATE jobs SET beat_at = beat_at - interval '1 minute'")
    finally:
        await connection.close()


async def stored(database_url: str, table: str) -> int:
    """Count the rows of a table that anybody else sees."""
    connection = await asyncpg.connect(database_url)
    try:
        return int(await connection.fetchval(f"SELECT count(*) FROM {table}"))
    finally:
        await connection.close()


async def get(reader: httpx.AsyncClient, path: str) -> dict[str, Any]:
    """Give what a path answers."""
    answer = await reader.get(path)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def rolled_back(database_url: str) -> None:
    """Wait until PostgreSQL has noticed that the process is gone."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'framegate' AND datname = $1"
    connection = await asyncpg.connect(database_url)
    try:
        async with asyncio.timeout(15):
            while await connection.fetchval(query, database_url.rpartition("/")[2]):
                await asyncio.sleep(0.05)
    finally:
        await connection.close()


async def assert_shown_before(process: Serving, fresh: str, synced: str) -> None:
    """One manifest has nothing to show yet, the other its first revision."""
    assert (await get(process.admin, fresh))["state"] == "pending"
    assert (await process.admin.get(f"{fresh}/frames")).status_code == 409
    old = await get(process.admin, synced)
    assert (old["state"], old["revision"], old["frame_count"]) == ("ready", 1, 3)
    assert len((await get(process.admin, f"{synced}/frames"))["items"]) == 3


async def assert_shown_after(process: Serving, path: str, revision: int) -> None:
    """The whole manifest comes at once: nothing in between is ever seen."""
    async with asyncio.timeout(30):
        while (seen := await get(process.admin, path))["frame_count"] != FRAMES:
            assert seen["frame_count"] == (3 if revision == 2 else 0)
            await asyncio.sleep(0.05)
    assert (seen["state"], seen["revision"]) == ("ready", revision)
    last = await get(process.admin, f"{path}/frames/{FRAMES - 1}")
    assert last["key"] == f"frame-{FRAMES - 1:06}.jpg"
    job = await get(process.admin, f"/v1/jobs/{seen['job_id']}")
    assert (job["state"], job["errors"]) == ("succeeded", [])


async def test_a_killed_service_leaves_no_half_revision_and_goes_on_after_its_restart(
    serve: Serve, database_url: str, s3_bucket: S3Bucket, proxy: FaultProxy
) -> None:
    await s3_bucket.put("fresh.jsonl", manifest(FRAMES))
    await s3_bucket.put("synced.jsonl", manifest(3))
    async with serve() as process:
        attached = await process.admin.post("/v1/storages", json=behind(proxy, s3_bucket))
        manifests = f"/v1/storages/{attached.json()['id']}/manifests"
        wait = {"Prefer": "wait=30"}
        made = await process.admin.post(manifests, json={"key": "synced.jsonl"}, headers=wait)
        synced = f"/v1/manifests/{made.json()['manifest']['id']}"
        await s3_bucket.put("synced.jsonl", manifest(FRAMES))
        proxy.faults, begun = SLOW, proxy.bytes_down
        made = await process.admin.post(manifests, json={"key": "fresh.jsonl"})
        fresh = f"/v1/manifests/{made.json()['manifest']['id']}"
        assert (await process.admin.post(f"{synced}/sync")).status_code == 202
        await eventually(lambda: proxy.bytes_down > begun + 500_000)
        await assert_shown_before(process, fresh, synced)
        assert await stored(database_url, "jobs WHERE state = 'running'") == 2
        process.kill()
    await rolled_back(database_url)
    assert (await stored(database_url, "frames"), await stored(database_url, "revisions")) == (3, 1)
    async with serve() as process:
        await assert_shown_before(process, fresh, synced)
        proxy.heal()
        await age_beats(database_url)
        await assert_shown_after(process, fresh, 1)
        await assert_shown_after(process, synced, 2)
        assert (await process.admin.get(f"{synced}/frames", params={"revision": 1})).status_code == 410
