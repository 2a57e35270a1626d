"""Smaller pictures over HTTP: by key and by frame, by the lane and by FastAPI's way, cold and warm."""

import asyncio
import os
import signal
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.api.conftest import Service, StartService, azure_source, client, s3_body
from tests.images.pictures import BLUE, GREEN, RED, WHITE, alike, corners, decoded, encoded, seen_in_corners
from tests.images.processes import rendering_processes
from tests.servers.azurite import AzureContainer
from tests.servers.s3 import S3Bucket

PICTURE = encoded(corners(800, 600), orientation=6)
ON = {"cache_bytes": 1_000_000, "cache_max_age_s": 60}


async def attached(
    service: Service, bucket: S3Bucket, key: str = "cats/tom.png", body: bytes = PICTURE
) -> str:
    """Put a picture, attach its bucket, and give the picture's path."""
    await bucket.put(key, body)
    return f"/v1/storages/{await service.attach(s3_body(bucket))}/objects/{key}"


async def counted(service: Service, metric: str) -> int:
    """What the service counts, by a line's beginning; 0 where there is none."""
    lines = (await service.admin.get("/metrics")).text.splitlines()
    return int(sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(metric)))


async def made(service: Service, outcome: str = "made") -> int:
    """How many renditions had an outcome."""
    return await counted(service, f'framegate_renditions_total{{outcome="{outcome}"}}')


async def test_gives_a_smaller_picture_upright_with_facts_of_its_own(
    both_ways: Service, s3_bucket: S3Bucket
) -> None:
    path = await attached(both_ways, s3_bucket)
    whole = await both_ways.admin.get(path)
    assert whole.content == PICTURE
    seen = set()
    for query, kind, size in (
        ("width=100", "jpeg", (100, 133)),
        ("height=100", "jpeg", (75, 100)),
        ("width=100&height=100&format=webp", "webp", (75, 100)),
        ("width=4096", "jpeg", (600, 800)),
        ("format=jpeg", "jpeg", (600, 800)),
    ):
        answer = await both_ways.admin.get(f"{path}?{query}")
        assert answer.status_code == 200, answer.text
        image = decoded(answer.content)
        assert (image.format, image.size) == (kind.upper(), size)
        assert all(map(alike, seen_in_corners(image), (BLUE, RED, WHITE, GREEN), [24] * 4))
        assert answer.headers["content-type"] == f"image/{kind}"
        assert answer.headers["content-length"] == str(len(answer.content))
        assert answer.headers["last-modified"] == whole.headers["last-modified"]
        assert answer.headers["cache-control"] == "private, no-cache"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["etag"].startswith('"')
        seen.add(answer.headers["etag"])
    assert len(seen | {whole.headers["etag"]}) == 6


async def test_conditions_ranges_and_head_are_those_of_the_smaller_picture(
    both_ways: Service, s3_bucket: S3Bucket
) -> None:
    path = f"{await attached(both_ways, s3_bucket)}?width=100"
    first = await both_ways.admin.get(path)
    etag, size = first.headers["etag"], len(first.content)
    head = await both_ways.admin.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(size)
    assert head.headers["etag"] == etag
    for headers, status in (
        ({"If-None-Match": etag}, 304),
        ({"If-None-Match": f"W/{etag}"}, 304),
        ({"If-None-Match": '"other"'}, 200),
        ({"If-Modified-Since": first.headers["last-modified"]}, 304),
        ({"If-Match": etag}, 200),
        ({"If-Match": '"other"'}, 412),
        ({"If-Match": '"other"', "If-None-Match": etag}, 412),
        ({"Range": "bytes=10-19"}, 206),
        ({"Range": "bytes=-10", "If-Range": etag}, 206),
        ({"Range": "bytes=0-9", "If-Range": '"other"'}, 200),
        ({"Range": f"bytes={size}-"}, 416),
    ):
        answer = await both_ways.admin.get(path, headers=headers)
        assert answer.status_code == status, (headers, answer.text)
        if status == 304:
            assert (answer.content, answer.headers["etag"]) == (b"", etag)
    part = await both_ways.admin.get(path, headers={"Range": "bytes=10-19"})
    assert part.content == first.content[10:20]
    assert part.headers["content-range"] == f"bytes 10-19/{size}"


async def test_a_frame_has_smaller_pictures_too(both_ways: Service, s3_bucket: S3Bucket) -> None:
    path = await attached(both_ways, s3_bucket)
    lines = '{"version":"1.1"}\n{"type":"images"}\n{"name":"cats/tom","extension":".png"}\n'
    await s3_bucket.put("manifest.jsonl", lines.encode())
    manifest = await both_ways.register(int(path.split("/")[3]), "manifest.jsonl")
    image = f"/v1/manifests/{manifest['id']}/frames/0/image"
    small = await both_ways.admin.get(f"{image}?height=80&revision=1")
    assert decoded(small.content).size == (60, 80)
    same = await both_ways.admin.get(f"{path}?height=80")
    assert (same.content, same.headers["etag"]) == (small.content, small.headers["etag"])
    assert (await both_ways.admin.get(f"{image}?height=80&revision=2")).status_code == 410


async def test_a_picture_in_azure_is_made_smaller_as_well(
    both_ways: Service, azure_container: AzureContainer
) -> None:
    await azure_container.put("tom.jpg", PICTURE)
    storage = await both_ways.attach({"display_name": "Azure", "source": azure_source(azure_container)})
    path = f"/v1/storages/{storage}/objects/tom.jpg?width=60"
    answer = await both_ways.admin.get(path)
    assert decoded(answer.content).size == (60, 80)
    again = await both_ways.admin.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


@pytest.mark.parametrize(
    ("query", "pointers"),
    [
        ("width=0", ["query:width"]),
        ("width=4097", ["query:width"]),
        ("width=", ["query:width"]),
        ("height=1e3", ["query:height"]),
        ("height=-5", ["query:height"]),
        ("width=%EF%BC%91", ["query:width"]),
        ("format=png", ["query:format"]),
        ("format=JPEG", ["query:format"]),
        ("width=x&height=99999&format=gif", ["query:width", "query:height", "query:format"]),
    ],
)
async def test_what_is_no_size_or_format_is_named(
    both_ways: Service, s3_bucket: S3Bucket, query: str, pointers: list[str]
) -> None:
    path = await attached(both_ways, s3_bucket)
    answer = await both_ways.admin.get(f"{path}?{query}")
    assert answer.status_code == 422
    assert [fault["pointer"] for fault in answer.json()["errors"]] == pointers


async def test_what_cannot_be_made_smaller_says_why_and_is_still_served_as_it_is(
    both_ways: Service, s3_bucket: S3Bucket
) -> None:
    path = await attached(both_ways, s3_bucket, "notes.txt", b"no picture")
    for key, body, slug in (
        ("notes.txt", b"no picture", "not-a-picture"),
        ("empty.jpg", b"", "not-a-picture"),
        ("torn.jpg", PICTURE[: len(PICTURE) // 2], "not-a-picture"),
        ("long.jpg", PICTURE + bytes(64 * 1024 * 1024), "picture-too-large"),
    ):
        await s3_bucket.put(key, body)
        answer = await both_ways.admin.get(f"{path.removesuffix('notes.txt')}{key}?width=10")
        assert (answer.status_code, answer.json()["type"]) == (422, f"/problems/{slug}")
    assert (await both_ways.admin.get(path)).content == b"no picture"
    missing = await both_ways.admin.get(f"{path}.none?width=10")
    assert (missing.status_code, missing.json()["type"]) == (404, "/problems/object-not-found")
    news = await both_ways.admin.get(f"{path}.none?width=10", headers={"If-None-Match": '"x"'})
    assert (news.status_code, news.json()["type"]) == (404, "/problems/object-not-found")
    bent = await both_ways.admin.get(f"{path}%000x10.jpeg?width=10")
    assert (bent.status_code, bent.json()["type"]) == (400, "/problems/invalid-key")


async def test_a_download_is_named_as_what_it_is(both_ways: Service, s3_bucket: S3Bucket) -> None:
    path = await attached(both_ways, s3_bucket, "cats.old/tom.v2.tiff")
    answer = await both_ways.admin.get(f"{path}?width=10&format=webp&download=true")
    assert answer.headers["content-disposition"].startswith('attachment; filename="tom.v2.webp"')


async def test_permission_comes_before_any_work(both_ways: Service, s3_bucket: S3Bucket) -> None:
    path = await attached(both_ways, s3_bucket)
    async with client(both_ways.url) as nobody, both_ways.user("stranger") as stranger:
        assert (await nobody.get(f"{path}?width=10")).status_code == 401
        assert (await stranger.get(f"{path}?width=10")).status_code == 404
        assert await counted(both_ways, "framegate_renditions_total") == 0
        assert rendering_processes(os.getpid()) == []
        assert (await both_ways.admin.get(f"{path}?width=10")).status_code == 200
        assert (await nobody.get(f"{path}?width=10")).status_code == 401
        assert (await stranger.get(f"{path}?width=10")).status_code == 404


async def test_a_signed_url_is_for_what_was_signed_alone(both_ways: Service, s3_bucket: S3Bucket) -> None:
    path = await attached(both_ways, s3_bucket)
    body = {"storage_id": int(path.split("/")[3]), "key": "cats/tom.png"}
    url = (await both_ways.admin.post("/v1/signed-urls", json=body)).json()["url"]
    async with client(both_ways.url) as nobody:
        assert (await nobody.get(url)).content == PICTURE
        for more in ("width=10", "height=10", "format=webp"):
            assert (await nobody.get(f"{url}&{more}")).status_code == 403
        assert urlsplit(url).path == path
        assert await counted(both_ways, "framegate_renditions_total") == 0
        wanted = body | {"width": 60, "format": "webp"}
        small = (await both_ways.admin.post("/v1/signed-urls", json=wanted)).json()["url"]
        answer = await nobody.get(small)
        assert (decoded(answer.content).format, decoded(answer.content).size) == ("WEBP", (60, 80))
        assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
        assert (await nobody.get(small, headers={"If-None-Match": answer.headers["etag"]})).status_code == 304
        for bent in (
            small.replace("width=60", "width=61"),
            small.replace("width=60&", ""),
            small.replace("webp", "jpeg"),
            f"{small}&height=9",
        ):
            assert (await nobody.get(bent)).status_code == 403, bent
    odd = await both_ways.admin.post("/v1/signed-urls", json=body | {"width": 5000, "format": "gif"})
    assert [fault["pointer"] for fault in odd.json()["errors"]] == ["/width", "/format"]


async def test_many_readers_at_once_are_one_rendering(both_ways: Service, s3_bucket: S3Bucket) -> None:
    path = await attached(both_ways, s3_bucket)
    answers = await asyncio.gather(*(both_ways.admin.get(f"{path}?width=90") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert await made(both_ways) == 1


async def test_a_warm_rendition_comes_from_memory_until_its_age(
    start_service: StartService, s3_bucket: S3Bucket
) -> None:
    async with start_service(**ON) as service:
        path = f"{await attached(service, s3_bucket)}?width=100"
        first = await service.admin.get(path)
        hits = await counted(service, 'framegate_object_reads_total{outcome="hit"}')
        await s3_bucket.put("cats/tom.png", encoded(corners(300, 300)))
        for headers in ({}, {"Range": "bytes=0-9"}, {"If-None-Match": first.headers["etag"]}):
            assert (await service.admin.get(path, headers=headers)).status_code in {200, 206, 304}
        assert await counted(service, 'framegate_object_reads_total{outcome="hit"}') == hits + 3
        assert await made(service) == 1
        fresh = await service.admin.get(path, headers={"Cache-Control": "no-cache"})
        assert decoded(fresh.content).size == (100, 100)
        assert fresh.headers["etag"] != first.headers["etag"]
        assert await made(service) == 2


async def test_an_unchanged_picture_is_not_made_again(
    start_service: StartService, s3_bucket: S3Bucket
) -> None:
    async with start_service(cache_bytes=1_000_000, cache_max_age_s=0) as service:
        path = f"{await attached(service, s3_bucket)}?width=100"
        answers = [await service.admin.get(path) for _ in range(3)]
        assert len({answer.content for answer in answers}) == 1
        assert await made(service) == 1
        assert await counted(service, 'framegate_object_reads_total{outcome="revalidated"}') == 2
        await s3_bucket.delete("cats/tom.png")
        assert (await service.admin.get(path)).status_code == 404


async def test_the_picture_that_a_rendition_is_made_of_takes_no_memory_from_others(
    start_service: StartService, s3_bucket: S3Bucket
) -> None:
    async with start_service(**ON) as service:
        path = await attached(service, s3_bucket)
        await service.admin.get(f"{path}?width=100")
        hits = 'framegate_object_reads_total{outcome="hit"}'
        assert (await service.admin.get(path)).content == PICTURE
        assert await counted(service, hits) == 0
        # But one that lies there already is not fetched again, only asked about.
        await service.admin.get(f"{path}?width=101")
        assert await counted(service, 'framegate_object_reads_total{outcome="revalidated"}') == 1


async def test_a_current_copy_is_known_without_decoding_a_picture(
    both_ways: Service, start_service: StartService, s3_bucket: S3Bucket
) -> None:
    path = f"{await attached(both_ways, s3_bucket)}?width=100"
    etag = (await both_ways.admin.get(path)).headers["etag"]
    async with start_service(secret_keys=_keys(both_ways)) as other:
        assert (await other.admin.get(path, headers={"If-None-Match": etag})).status_code == 304
        assert (await other.admin.head(path, headers={"If-None-Match": etag})).status_code == 304
        assert await made(other) == 0
        await s3_bucket.put("cats/tom.png", encoded(corners(300, 300)))
        changed = await other.admin.get(path, headers={"If-None-Match": etag})
        assert decoded(changed.content).size == (100, 100)


def _keys(service: Service) -> Any:
    return service.settings.secret_keys


async def test_a_bucket_that_is_gone_is_told_from_an_object_that_is(
    both_ways: Service, s3_bucket: S3Bucket
) -> None:
    path = f"{await attached(both_ways, s3_bucket)}?width=100"
    etag = (await both_ways.admin.get(path)).headers["etag"]
    await s3_bucket.delete("cats/tom.png")
    await s3_bucket.client.delete_bucket(Bucket=s3_bucket.name)
    for headers in ({}, {"If-None-Match": etag}):
        answer = await both_ways.admin.get(path, headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (502, "/problems/storage-not-found")


async def test_a_storage_that_changes_or_goes_takes_its_renditions_along(
    start_service: StartService, s3_bucket: S3Bucket
) -> None:
    async with start_service(**ON) as service:
        path = f"{await attached(service, s3_bucket)}?width=100"
        storage = "/".join(path.split("/")[:4])
        assert (await service.admin.get(path)).status_code == 200
        assert (await service.admin.patch(storage, json={"display_name": "Other"})).status_code == 200
        await asyncio.sleep(0.5)
        assert (await service.admin.get(path)).status_code == 200
        assert await made(service) == 2
        assert (await service.admin.delete(storage)).status_code == 204
        assert (await service.admin.get(path)).status_code == 404


async def test_a_full_queue_is_503_and_who_waits_is_served(
    start_service: StartService, s3_bucket: S3Bucket
) -> None:
    async with start_service(rendition_workers=1, rendition_queue=1) as service:
        path = await attached(service, s3_bucket)
        assert (await service.admin.get(f"{path}?width=1")).status_code == 200
        [process] = rendering_processes(os.getpid())
        os.kill(process, signal.SIGSTOP)
        try:
            asked = [
                asyncio.create_task(service.admin.get(f"{path}?width={10 + number}")) for number in range(9)
            ]
            turned_away, waiting = await asyncio.wait(asked, timeout=2)
        finally:
            os.kill(process, signal.SIGCONT)
        for answer in [await task for task in turned_away]:
            assert (answer.status_code, answer.json()["type"]) == (503, "/problems/renditions-busy")
            assert int(answer.headers["retry-after"]) > 0
        assert len(turned_away) == 5  # three turns of four are one user's, and one place in the queue
        assert {(await task).status_code for task in waiting} == {200}
        assert await made(service, "busy") == 5
        assert await made(service) == 5


async def test_one_user_cannot_take_every_turn(start_service: StartService, s3_bucket: S3Bucket) -> None:
    async with start_service(rendition_workers=1, rendition_queue=3) as service:
        path = await attached(service, s3_bucket)
        assert (await service.admin.get(f"{path}?width=1")).status_code == 200
        async with service.user("bert", "admin") as bert:
            [process] = rendering_processes(os.getpid())
            os.kill(process, signal.SIGSTOP)
            try:
                greedy = [
                    asyncio.create_task(service.admin.get(f"{path}?width={10 + number}"))
                    for number in range(7)
                ]
                await asyncio.sleep(0.3)
                other = asyncio.create_task(bert.get(f"{path}?width=50"))
                await asyncio.sleep(0.3)
                assert not other.done()
            finally:
                os.kill(process, signal.SIGCONT)
            assert (await other).status_code == 200
        # Three had turns, three waited, and the fourth turn was kept from the last one.
        assert sorted(answer.status_code for answer in await asyncio.gather(*greedy)) == [200] * 6 + [503]


async def test_who_asks_for_no_rendition_pays_for_none_and_a_stopped_service_leaves_none(
    start_service: StartService, s3_bucket: S3Bucket
) -> None:
    async with start_service() as service:
        path = await attached(service, s3_bucket)
        assert (await service.admin.get(path)).status_code == 200
        assert rendering_processes(os.getpid()) == []
        assert (await service.admin.get(f"{path}?width=10")).status_code == 200
        assert len(rendering_processes(os.getpid())) == 1
    assert rendering_processes(os.getpid()) == []


async def test_the_time_of_the_picture_is_kept(service: Service, s3_bucket: S3Bucket) -> None:
    path = await attached(service, s3_bucket)
    answer = await service.admin.get(f"{path}?width=10")
    assert parsedate_to_datetime(answer.headers["last-modified"])
