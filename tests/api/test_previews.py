"""A storage's preview: its first frame, or the first picture that lies there."""

from tests.api.conftest import Service, StartService, client, s3_body
from tests.images.pictures import corners, decoded, encoded
from tests.servers.s3 import S3Bucket

MANIFEST = '{"version":"1.1"}\n{"type":"images"}\n{"name":"../out"}\n{"name":"deep/b","extension":".png"}\n'


async def attached(service: Service, bucket: S3Bucket) -> str:
    """Attach a bucket and give the path of its preview."""
    return f"/v1/storages/{await service.attach(s3_body(bucket))}/preview"


async def test_without_a_manifest_the_first_picture_stands_for_the_storage(
    service: Service, s3_bucket: S3Bucket
) -> None:
    path = await attached(service, s3_bucket)
    await s3_bucket.put("a.jpg", b"")
    await s3_bucket.put("a.txt", b"text")
    await s3_bucket.put("a.svg", b"<svg/>")
    none = await service.admin.get(path)
    assert (none.status_code, none.json()["type"]) == (404, "/problems/object-not-found")
    await s3_bucket.put("b.png", encoded(corners(600, 300), "PNG"))
    answer = await service.admin.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert decoded(answer.content).size == (256, 128)
    assert "content-disposition" not in answer.headers
    for header, value in (
        ("cache-control", "private, no-cache"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "default-src 'none'; sandbox"),
        ("vary", "Authorization, Cookie"),
    ):
        assert answer.headers[header] == value


async def test_the_first_frame_of_a_ready_manifest_comes_before_other_pictures(
    service: Service, s3_bucket: S3Bucket
) -> None:
    path = await attached(service, s3_bucket)
    await s3_bucket.put("a.png", encoded(corners(300, 300), "PNG"))
    await s3_bucket.put("deep/b.png", encoded(corners(100, 200), "PNG"))
    await s3_bucket.put("broken.jsonl", b"nothing")
    await s3_bucket.put("manifest.jsonl", MANIFEST.encode())
    storage = int(path.split("/")[3])
    assert (await service.register(storage, "broken.jsonl"))["state"] == "failed"
    assert decoded((await service.admin.get(path)).content).size == (256, 256)
    assert (await service.register(storage, "manifest.jsonl"))["frame_count"] == 1
    assert decoded((await service.admin.get(path)).content).size == (100, 200)


async def test_conditions_ranges_and_head_hold_and_it_is_kept_as_any_rendition(
    start_service: StartService, s3_bucket: S3Bucket
) -> None:
    async with start_service(cache_bytes=1_000_000) as service:
        path = await attached(service, s3_bucket)
        await s3_bucket.put("a.png", encoded(corners(600, 600), "PNG"))
        first = await service.admin.get(path)
        assert (
            await service.admin.get(path, headers={"If-None-Match": first.headers["etag"]})
        ).status_code == 304
        part = await service.admin.get(path, headers={"Range": "bytes=2-5"})
        assert (part.status_code, part.content) == (206, first.content[2:6])
        head = await service.admin.head(path)
        assert (head.content, head.headers["content-length"]) == (b"", str(len(first.content)))
        same = f"{path.removesuffix('preview')}objects/a.png?width=256&height=256"
        assert (await service.admin.get(same)).headers["etag"] == first.headers["etag"]
        text = (await service.admin.get("/metrics")).text
        assert 'framegate_renditions_total{outcome="made"} 1.0' in text


async def test_it_is_for_those_alone_who_may_see_the_storage(service: Service, s3_bucket: S3Bucket) -> None:
    path = await attached(service, s3_bucket)
    await s3_bucket.put("a.png", encoded(corners(), "PNG"))
    async with client(service.url) as nobody, service.user("stranger") as stranger:
        assert (await nobody.get(path)).status_code == 401
        assert (await stranger.get(path)).status_code == 404
        assert (await stranger.head(path)).status_code == 404
        assert (await service.admin.get("/v1/storages/999999/preview")).status_code == 404
    assert (await service.admin.post(path)).status_code == 405
