"""Hot objects over HTTP: permission on every hit, no-cache, and every process forgets what changed."""

import asyncio
import base64

from tests.api.conftest import Service, StartService, client, s3_body
from tests.servers.s3 import S3Bucket

ON = {"cache_bytes": 1_000_000, "cache_max_age_s": 60}


async def reads(service: Service, outcome: str) -> int:
    """How many reads had this outcome."""
    name = f'framegate_object_reads_total{{outcome="{outcome}"}} '
    text = (await service.admin.get("/metrics")).text
    return int(float(next(line for line in text.splitlines() if line.startswith(name)).removeprefix(name)))


async def test_a_hot_object_is_served_from_memory_until_its_age(
    start_service: StartService, s3_bucket: S3Bucket
) -> None:
    await s3_bucket.put("a.jpg", b"old", "image/jpeg")
    async with start_service(**ON) as service:
        path = f"/v1/storages/{await service.attach(s3_body(s3_bucket))}/objects/a.jpg"
        first = await service.admin.get(path)
        await s3_bucket.put("a.jpg", b"new", "image/jpeg")
        second = await service.admin.get(path)
        assert second.content == first.content == b"old"
        assert second.headers["etag"] == first.headers["etag"]
        for ask in ("no-cache", "max-age=0", "no-transform, No-Cache"):
            fresh = await service.admin.get(path, headers={"Cache-Control": ask})
            assert fresh.content == b"new", ask
        assert (await service.admin.get(path, headers={"Cache-Control": "max-age=10"})).content == b"new"
        counted = [await reads(service, outcome) for outcome in ("miss", "hit", "revalidated")]
        assert counted == [2, 2, 2]


async def test_permission_is_asked_on_every_hit(start_service: StartService, s3_bucket: S3Bucket) -> None:
    await s3_bucket.put("a.jpg", b"picture")
    async with start_service(**ON) as service:
        storage = await service.attach(s3_body(s3_bucket))
        path = f"/v1/storages/{storage}/objects/a.jpg"
        assert (await service.admin.get(path)).status_code == 200
        made = (await service.admin.post("/v1/tokens", json={})).json()
        body = {"storage_id": storage, "key": "a.jpg"}
        async with (
            service.user("ben") as ben,
            client(service.url) as nobody,
            client(service.url, made["token"]) as short,
        ):
            url = (await short.post("/v1/signed-urls", json=body)).json()["url"]
            assert (await short.get(path)).status_code == (await nobody.get(url)).status_code == 200
            assert (await ben.get(path)).status_code == 404
            assert (await nobody.get(path)).status_code == 401
            await service.admin.delete(f"/v1/tokens/{made['id']}")
            assert (await short.get(path)).status_code == 401
            assert (await nobody.get(url)).status_code == 403


async def test_a_changed_or_removed_storage_is_forgotten_in_every_process(
    start_service: StartService, s3_bucket: S3Bucket
) -> None:
    await s3_bucket.put("a.jpg", b"old")
    async with start_service(**ON) as one, start_service(**ON) as other:
        storage = await other.attach(s3_body(s3_bucket))
        path = f"/v1/storages/{storage}"
        assert (await other.admin.get(f"{path}/objects/a.jpg")).content == b"old"
        await s3_bucket.put("a.jpg", b"new")
        assert (await other.admin.get(f"{path}/objects/a.jpg")).content == b"old"
        assert (await one.admin.patch(path, json={"display_name": "Other"})).status_code == 200
        await asyncio.sleep(0.5)
        assert (await other.admin.get(f"{path}/objects/a.jpg")).content == b"new"
        assert (await one.admin.delete(path)).status_code == 204
        await asyncio.sleep(0.5)
        assert (await other.admin.get(f"{path}/objects/a.jpg")).status_code == 404


async def test_what_was_written_is_served_at_once_and_soon_by_every_process(
    start_service: StartService, s3_bucket: S3Bucket
) -> None:
    same = ON | {"secret_keys": f"k1:{base64.b64encode(bytes(32)).decode()}"}
    async with start_service(**same) as one, start_service(**same) as other:
        storage = await one.attach(s3_body(s3_bucket))
        path = f"/v1/storages/{storage}/objects"
        for key in ("a.jpg", "b.jpg"):
            await s3_bucket.put(key, b"old")
            for service in (one, other):
                assert (await service.admin.get(f"{path}/{key}")).content == b"old"
        await s3_bucket.put("b.jpg", b"not heard of")
        assert (await one.admin.put(f"{path}/a.jpg", content=b"new")).status_code == 200
        assert (await one.admin.get(f"{path}/a.jpg")).content == b"new"
        async with asyncio.timeout(10):
            while (await other.admin.get(f"{path}/a.jpg")).content != b"new":
                await asyncio.sleep(0.02)
        # Nothing else is forgotten.
        for service in (one, other):
            assert (await service.admin.get(f"{path}/b.jpg")).content == b"old"
        assert (await other.admin.delete(f"{path}/a.jpg")).status_code == 204
        assert (await other.admin.get(f"{path}/a.jpg")).status_code == 404
        async with asyncio.timeout(10):
            while (await one.admin.get(f"{path}/a.jpg")).status_code != 404:
                await asyncio.sleep(0.02)
