"""Manifests from attach to picture, over HTTP."""

import asyncio
import json
from typing import Any

import pytest

from tests.api.conftest import Service, client, s3_body
from tests.servers.azurite import AzureContainer
from tests.servers.s3 import S3Bucket

HEAD = b'{"version":"1.1"}\n{"type":"images"}\n'


def lines(count: int, start: int = 0) -> bytes:
    """Item lines of a manifest."""
    items = (
        {
            "name": f"a/{number:05d}",
            "extension": ".jpg",
            "width": 40 + number % 7,
            "height": 30,
            "checksum": "c",
        }
        for number in range(start, start + count)
    )
    return b"".join(json.dumps(item).encode() + b"\n" for item in items)


async def registered(
    service: Service, bucket: S3Bucket, body: bytes, key: str = "sets/manifest.jsonl"
) -> dict[str, Any]:
    """Store a manifest, attach its bucket, register it."""
    await bucket.put(key, body)
    return await service.register(await service.attach(s3_body(bucket)), key)


async def test_registers_a_manifest_and_says_where_it_is(service: Service, s3_bucket: S3Bucket) -> None:
    etag = await s3_bucket.put("sets/manifest.jsonl", HEAD + lines(3))
    storage = await service.attach(s3_body(s3_bucket))
    path = f"/v1/storages/{storage}/manifests"
    answer = await service.admin.post(
        path, json={"key": "sets/manifest.jsonl"}, headers={"Prefer": "wait=20"}
    )
    assert answer.status_code == 201, answer.text
    manifest, job = answer.json()["manifest"], answer.json()["job"]
    assert answer.headers["location"] == f"{service.url}/v1/manifests/{manifest['id']}"
    assert answer.headers["preference-applied"] == "wait=20"
    assert manifest == {
        "id": manifest["id"],
        "storage_id": storage,
        "key": "sets/manifest.jsonl",
        "attached": True,
        "kind": "images",
        "version": "1.1",
        "state": "ready",
        "frame_count": 3,
        "problem_count": 0,
        "etag": etag,
        "revision": 1,
        "synced_at": manifest["synced_at"],
        "job_id": job["id"],
    }
    assert (job["kind"], job["state"], job["errors"]) == ("register", "succeeded", [])
    assert job["done"] == job["total"] == len(HEAD + lines(3))
    again = await service.admin.post(path, json={"key": "sets/manifest.jsonl"})
    assert (again.status_code, again.json()["manifest"]) == (200, manifest)
    assert (await service.admin.get(f"/v1/manifests/{manifest['id']}")).json() == manifest
    assert (await service.admin.get(path)).json()["items"] == [manifest]


async def test_without_waiting_it_answers_at_once_with_a_job(service: Service, s3_bucket: S3Bucket) -> None:
    await s3_bucket.put("manifest.jsonl", HEAD + lines(3))
    storage = await service.attach(s3_body(s3_bucket))
    answer = await service.admin.post(f"/v1/storages/{storage}/manifests", json={"key": "manifest.jsonl"})
    assert answer.status_code == 202
    job = answer.json()["job"]["id"]
    for _ in range(200):
        state = (await service.admin.get(f"/v1/jobs/{job}")).json()["state"]
        if state == "succeeded":
            break
        await asyncio.sleep(0.02)
    assert state == "succeeded"
    assert job in [one["id"] for one in (await service.admin.get("/v1/jobs")).json()["items"]]
    assert (await service.admin.get(f"/v1/manifests/{answer.json()['manifest']['id']}")).json()[
        "state"
    ] == "ready"


async def test_creating_a_storage_registers_its_manifests(service: Service, s3_bucket: S3Bucket) -> None:
    await s3_bucket.put("manifest.jsonl", HEAD + lines(2))
    storage = await service.attach(s3_body(s3_bucket, manifests=["manifest.jsonl"]))
    found: dict[str, Any] = {}
    for _ in range(200):
        found = (await service.admin.get(f"/v1/storages/{storage}/manifests")).json()["items"][0]
        if found["state"] == "ready":
            break
        await asyncio.sleep(0.02)
    assert (found["state"], found["frame_count"]) == ("ready", 2)


async def test_a_manifest_that_is_not_there_is_422_at_its_key(service: Service, s3_bucket: S3Bucket) -> None:
    storage = await service.attach(s3_body(s3_bucket))
    for key in ("none.jsonl", "a/../b", ""):
        answer = await service.admin.post(f"/v1/storages/{storage}/manifests", json={"key": key})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/key")
    assert (await service.admin.get(f"/v1/storages/{storage}/manifests")).json()["items"] == []


async def test_pages_frames_in_manifest_order_by_filters(service: Service, s3_bucket: S3Bucket) -> None:
    manifest = await registered(service, s3_bucket, HEAD + lines(250))
    path = f"/v1/manifests/{manifest['id']}/frames"
    first = (await service.admin.get(path)).json()
    assert first["items"][0] == {
        "number": 0,
        "key": "sets/a/00000.jpg",
        "width_px": 40,
        "height_px": 30,
        "checksum": "c",
        "meta": None,
    }
    numbers: list[int] = []
    params: dict[str, Any] = {"limit": 90}
    while "cursor" not in params or params["cursor"]:
        page = (await service.admin.get(path, params=params)).json()
        numbers += [item["number"] for item in page["items"]]
        params["cursor"] = page["next_cursor"]
    assert numbers == list(range(250))

    async def found(**wanted: Any) -> list[int]:
        answer = await service.admin.get(path, params={"limit": 1000} | wanted)
        assert answer.status_code == 200, answer.text
        return [item["number"] for item in answer.json()["items"]]

    assert await found(prefix="sets/a/0001") == list(range(10, 20))
    assert await found(key="sets/a/00042.jpg") == [42]
    assert await found(prefix="other/") == []
    assert await found(glob="sets/*/0000[0-2].jpg") == [0, 1, 2]
    assert await found(min_width=46, prefix="sets/a/0000") == [6]


async def test_gives_one_frame_and_its_image(both_ways: Service, s3_bucket: S3Bucket) -> None:
    await s3_bucket.put("sets/a/00001.jpg", b"picture", "image/jpeg")
    manifest = await registered(both_ways, s3_bucket, HEAD + lines(3))
    path = f"/v1/manifests/{manifest['id']}/frames"
    assert (await both_ways.admin.get(f"{path}/1")).json()["key"] == "sets/a/00001.jpg"
    image = await both_ways.admin.get(f"{path}/1/image")
    assert (image.status_code, image.content, image.headers["content-type"]) == (
        200,
        b"picture",
        "image/jpeg",
    )
    part = await both_ways.admin.get(f"{path}/1/image", headers={"Range": "bytes=1-2"})
    assert (part.status_code, part.content) == (206, b"ic")
    head = await both_ways.admin.head(f"{path}/1/image")
    assert (head.status_code, head.headers["content-length"]) == (200, "7")
    lost = await both_ways.admin.get(f"{path}/2/image")
    assert (lost.status_code, lost.json()["type"]) == (404, "/problems/object-not-found")
    for number in ("3", "999999999", "9" * 18):
        for tail in ("", "/image"):
            none = await both_ways.admin.get(f"{path}/{number}{tail}")
            assert (none.status_code, none.json()["type"]) == (404, "/problems/frame-not-found"), (
                number + tail
            )
    for odd in ("-1", "x"):
        assert (await both_ways.admin.get(f"{path}/{odd}/image")).status_code == 404
    async with both_ways.user("ben") as ben:
        assert (await ben.get(f"{path}/1/image")).status_code == 404


async def test_a_frame_can_be_signed_as_its_object(service: Service, s3_bucket: S3Bucket) -> None:
    await s3_bucket.put("sets/a/00001.jpg", b"picture")
    manifest = await registered(service, s3_bucket, HEAD + lines(3))
    body = {"manifest_id": manifest["id"], "number": 1}
    answer = await service.admin.post("/v1/signed-urls", json=body)
    assert answer.status_code == 201, answer.text
    assert f"/v1/storages/{manifest['storage_id']}/objects/sets/a/00001.jpg?" in answer.json()["url"]
    async with client(service.url) as nobody:
        assert (await nobody.get(answer.json()["url"])).content == b"picture"


async def test_bad_lines_are_told_and_good_ones_served(service: Service, s3_bucket: S3Bucket) -> None:
    body = HEAD + lines(2) + b'{"name":"../x","extension":".jpg"}\nnot json\n' + lines(1, 9)
    manifest = await registered(service, s3_bucket, body)
    assert (manifest["state"], manifest["frame_count"], manifest["problem_count"]) == ("ready", 3, 2)
    path = f"/v1/manifests/{manifest['id']}"
    frames = (await service.admin.get(f"{path}/frames")).json()["items"]
    assert [frame["number"] for frame in frames] == [0, 1, 4]
    assert (await service.admin.get(f"{path}/frames/2")).status_code == 404
    found = (await service.admin.get(f"{path}/problems")).json()["items"]
    assert [problem["line"] for problem in found] == [5, 6]
    assert all(problem["column"] >= 1 and problem["code"] and problem["message"] for problem in found)
    one = (await service.admin.get(f"{path}/problems", params={"limit": 1})).json()
    rest = (await service.admin.get(f"{path}/problems", params={"cursor": one["next_cursor"]})).json()
    assert one["items"] + rest["items"] == found


@pytest.mark.parametrize("body", [b"", b"no manifest\n", b'{"version":"9.9"}\n{"type":"images"}\n'])
async def test_a_file_that_is_no_manifest_fails_with_its_problem(
    service: Service, s3_bucket: S3Bucket, body: bytes
) -> None:
    manifest = await registered(service, s3_bucket, body)
    assert (manifest["state"], manifest["frame_count"]) == ("failed", 0)
    path = f"/v1/manifests/{manifest['id']}"
    assert (await service.admin.get(f"{path}/problems")).json()["items"]
    frames = await service.admin.get(f"{path}/frames")
    assert (frames.status_code, frames.json()["type"]) == (409, "/problems/manifest-not-ready")
    assert frames.json()["state"] == "failed"


async def test_a_sync_replaces_the_revision_and_old_cursors_are_gone(
    service: Service, s3_bucket: S3Bucket
) -> None:
    manifest = await registered(service, s3_bucket, HEAD + lines(5))
    path = f"/v1/manifests/{manifest['id']}"
    page = (await service.admin.get(f"{path}/frames", params={"limit": 2})).json()
    same = await service.admin.post(f"{path}/sync", headers={"Prefer": "wait=20"})
    assert (same.status_code, same.json()["manifest"]["revision"]) == (201, 1)
    await s3_bucket.put("sets/manifest.jsonl", HEAD + lines(7))
    newer = (await service.admin.post(f"{path}/sync", headers={"Prefer": "wait=20"})).json()["manifest"]
    assert (newer["revision"], newer["frame_count"]) == (2, 7)
    stale = await service.admin.get(f"{path}/frames", params={"cursor": page["next_cursor"]})
    assert (stale.status_code, stale.json()["type"]) == (410, "/problems/revision-gone")
    assert stale.json()["current_revision"] == 2
    for tail in ("/frames", "/frames/0", "/frames/0/image"):
        gone = await service.admin.get(f"{path}{tail}", params={"revision": 1})
        assert (gone.status_code, gone.json()["current_revision"]) == (410, 2), tail
    assert (await service.admin.get(f"{path}/frames/6", params={"revision": 2})).status_code == 200


async def test_a_sync_that_fails_leaves_the_old_revision(service: Service, s3_bucket: S3Bucket) -> None:
    manifest = await registered(service, s3_bucket, HEAD + lines(5))
    path = f"/v1/manifests/{manifest['id']}"
    await s3_bucket.put("sets/manifest.jsonl", b"broken")
    answer = await service.admin.post(f"{path}/sync", headers={"Prefer": "wait=20"})
    assert answer.json()["job"]["state"] == "failed"
    assert answer.json()["job"]["errors"]
    assert (await service.admin.get(path)).json()["state"] == "ready"
    assert len((await service.admin.get(f"{path}/frames")).json()["items"]) == 5


async def test_deleting_a_manifest_answers_at_once(service: Service, s3_bucket: S3Bucket) -> None:
    manifest = await registered(service, s3_bucket, HEAD + lines(5))
    path = f"/v1/manifests/{manifest['id']}"
    assert (await service.admin.get(f"{path}/frames/0")).status_code == 200
    assert (await service.admin.delete(path)).status_code == 204
    for tail in ("", "/frames", "/frames/0", "/frames/0/image", "/problems"):
        assert (await service.admin.get(path + tail)).status_code == 404


async def test_registers_from_an_azure_container(service: Service, azure_container: AzureContainer) -> None:
    from tests.api.conftest import azure_source

    await azure_container.put("manifest.jsonl", HEAD + lines(2))
    await azure_container.put("a/00001.jpg", b"picture", "image/jpeg")
    storage = await service.attach({"display_name": "Azure", "source": azure_source(azure_container)})
    manifest = await service.register(storage, "manifest.jsonl")
    assert (manifest["state"], manifest["frame_count"]) == ("ready", 2)
    image = await service.admin.get(f"/v1/manifests/{manifest['id']}/frames/1/image")
    assert (image.status_code, image.content) == (200, b"picture")
