"""Chunks of frames as ZIPs, over HTTP: every byte of every frame, in order, and what is missing said inside."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import httpx
import pytest
import pytest_asyncio
from PIL import Image
from sqlalchemy import text

from app.db.session import Database
from app.manifests.folder import build
from app.samples import draw
from tests.api.conftest import Service, StartService, azure_source, client, s3_body
from tests.servers.azurite import AzureContainer
from tests.servers.s3 import S3Bucket
from tests.zips import read_as_stream

HEAD = b'{"version":"1.1"}\n{"type":"images"}\n'
COUNT = 11


def line(name: str, extension: str = ".jpg") -> bytes:
    """An item line of a manifest."""
    return json.dumps({"name": name, "extension": extension}).encode() + b"\n"


@dataclass
class Set:
    """A registered manifest, its bucket, and the bodies of its frames in order."""

    service: Service
    bucket: S3Bucket
    manifest_id: int
    storage_id: int
    frames: Mapping[str, bytes]

    @property
    def path(self) -> str:
        """The path of its chunks."""
        return f"/v1/manifests/{self.manifest_id}/chunks"

    async def chunk(self, index: int, size: int, **more: Any) -> httpx.Response:
        """Ask for a chunk."""
        return await self.service.admin.get(f"{self.path}/{index}", params={"size": size}, **more)

    def expected(self, start: int, stop: int) -> list[tuple[str, bytes]]:
        """Name and bytes of the entries of the frames `[start, stop)`."""
        bodies = list(self.frames.items())
        return [
            (f"{number:06d}.{bodies[number][0].rpartition('.')[2]}", bodies[number][1])
            for number in range(start, min(stop, len(bodies)))
        ]


async def drawn(service: Service, bucket: S3Bucket, folder: Path) -> Set:
    """Drawn pictures in a bucket, attached and registered."""
    draw(folder, COUNT)
    manifest = build(folder)
    items = [json.loads(item) for item in manifest.text.splitlines()[2:]]
    keys = [item["name"] + item["extension"] for item in items]
    frames = {key: (folder / key).read_bytes() for key in keys}
    for key, body in {**frames, "manifest.jsonl": manifest.text}.items():
        await bucket.put(key, body)
    storage = await service.attach(s3_body(bucket))
    registered = await service.register(storage, "manifest.jsonl")
    return Set(service, bucket, registered["id"], storage, frames)


@pytest_asyncio.fixture
async def pictures(service: Service, s3_bucket: S3Bucket, tmp_path: Path) -> Set:
    """Drawn pictures."""
    return await drawn(service, s3_bucket, tmp_path / "pictures")


@pytest_asyncio.fixture(params=[0, 10_000_000], ids=["bucket", "memory"])
async def both_ways(
    request: pytest.FixtureRequest, start_service: StartService, s3_bucket: S3Bucket, tmp_path: Path
) -> AsyncIterator[Set]:
    """Drawn pictures; without hot objects in memory, and with them."""
    async with start_service(cache_bytes=request.param) as service:
        yield await drawn(service, s3_bucket, tmp_path / "pictures")


async def written(service: Service, bucket: S3Bucket, lines: bytes, **objects: bytes) -> Set:
    """A manifest of these lines, and these objects beside it."""
    for key, body in objects.items():
        await bucket.put(f"{key}.jpg", body)
    await bucket.put("manifest.jsonl", HEAD + lines)
    storage = await service.attach(s3_body(bucket))
    registered = await service.register(storage, "manifest.jsonl")
    assert registered["state"] == "ready"
    return Set(service, bucket, registered["id"], storage, objects)


def entries(answer: httpx.Response) -> list[tuple[str, bytes]]:
    """The entries of a ZIP, which every kind of reader must see alike."""
    assert answer.status_code == 200, answer.text
    with ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        found = [(name, archive.read(name)) for name in archive.namelist()]
    assert list(read_as_stream(answer.content)) == found
    return found


def problems(answer: httpx.Response) -> list[dict[str, Any]]:
    """The last entry of a ZIP that lacks frames."""
    name, body = entries(answer)[-1]
    assert name == "problems.json"
    return list(json.loads(body))


def problem(answer: httpx.Response) -> tuple[int, str]:
    """Status and slug of a refused request."""
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["type"].removeprefix("/problems/")


@pytest.mark.parametrize("size", [1, 4, COUNT, 500])
async def test_chunks_hold_every_frame_once_in_order_and_byte_for_byte(both_ways: Set, size: int) -> None:
    found = []
    for index in range(-(-COUNT // size)):
        of_chunk = entries(await both_ways.chunk(index, size))
        assert of_chunk == both_ways.expected(index * size, (index + 1) * size)
        found += of_chunk
    assert found == both_ways.expected(0, COUNT)
    assert {name.rpartition(".")[2] for name, _ in found} == {"jpg", "png"}
    behind = await both_ways.chunk(-(-COUNT // size), size)
    assert problem(behind) == (404, "frame-not-found")


async def test_an_azure_container_is_served_alike(service: Service, azure_container: AzureContainer) -> None:
    bodies = {f"{number}.jpg": bytes([number]) * (number * 100_000) for number in range(6)}
    for key, body in bodies.items():
        await azure_container.put(key, body)
    await azure_container.put("manifest.jsonl", HEAD + b"".join(line(str(number)) for number in range(6)))
    storage = await service.attach({"display_name": "Blobs", "source": azure_source(azure_container)})
    manifest = await service.register(storage, "manifest.jsonl")
    answer = await service.admin.get(f"/v1/manifests/{manifest['id']}/chunks/0")
    assert entries(answer) == [(f"{number:06d}.jpg", body) for number, body in enumerate(bodies.values())]


async def test_thirty_six_frames_are_a_chunk_unless_said_otherwise(
    service: Service, s3_bucket: S3Bucket
) -> None:
    await s3_bucket.put("same.jpg", b"picture")
    names = b"".join(line(f"missing/{number}") for number in range(36)) + line("same")
    one = await written(service, s3_bucket, names)
    assert len(problems(await service.admin.get(f"{one.path}/0"))) == 36
    assert entries(await service.admin.get(f"{one.path}/1")) == [("000036.jpg", b"picture")]


async def test_a_chunk_is_a_safe_download_of_unknown_length(pictures: Set) -> None:
    answer = await pictures.chunk(1, 4, headers={"X-Request-Id": "mine"})
    assert {name: value for name, value in answer.headers.items() if name != "date"} == {
        "content-type": "application/zip",
        "content-disposition": f'attachment; filename="manifest-{pictures.manifest_id}-chunk-000001.zip"',
        "accept-ranges": "none",
        "cache-control": "private, no-cache",
        "vary": "Authorization, Cookie",
        "x-content-type-options": "nosniff",
        "content-security-policy": "default-src 'none'; sandbox",
        "cross-origin-resource-policy": "same-origin",
        "transfer-encoding": "chunked",
        "x-request-id": "mine",
    } | ({"server": "uvicorn"} if "server" in answer.headers else {})
    ranged = await pictures.chunk(1, 4, headers={"Range": "bytes=0-9", "If-None-Match": "*"})
    assert (ranged.status_code, ranged.content) == (200, answer.content)


async def test_head_describes_a_chunk_and_asks_the_bucket_nothing(pictures: Set) -> None:
    got = await pictures.service.admin.get(f"{pictures.path}/0")
    for key in (*pictures.frames, "manifest.jsonl"):
        await pictures.bucket.client.delete_object(Bucket=pictures.bucket.name, Key=key)
    await pictures.bucket.client.delete_bucket(Bucket=pictures.bucket.name)
    head = await pictures.service.admin.head(f"{pictures.path}/0")
    assert (head.status_code, head.content) == (200, b"")
    volatile = {"date", "x-request-id", "transfer-encoding"}
    assert {name: value for name, value in head.headers.items() if name not in volatile} == {
        name: value for name, value in got.headers.items() if name not in volatile
    }
    assert (await pictures.service.admin.head(f"{pictures.path}/99")).status_code == 404
    assert problem(await pictures.chunk(0, 36)) == (502, "storage-not-found")


@pytest.mark.parametrize("size", ["0", "-1", "501", "9" * 30, "x", ""])
async def test_a_size_that_is_none_is_named(pictures: Set, size: str) -> None:
    answer = await pictures.service.admin.get(f"{pictures.path}/0?size={size}")
    assert problem(answer) == (422, "invalid-request")
    assert [error["pointer"] for error in answer.json()["errors"]] == ["query:size"]


@pytest.mark.parametrize("index", [10**6, 2**31, 2**63 - 1])
async def test_no_index_is_too_large_to_be_refused(pictures: Set, index: int) -> None:
    for size in (1, 500):
        assert problem(await pictures.chunk(index, size)) == (404, "frame-not-found")


async def test_a_missing_object_and_a_line_set_aside_are_told_inside(
    service: Service, s3_bucket: S3Bucket
) -> None:
    lines = line("a") + line("gone") + b"no json\n" + line("c") + line("../../evil")
    one = await written(service, s3_bucket, lines, a=b"picture a", c=b"picture c")
    answer = await one.chunk(0, 36)
    assert entries(answer)[:-1] == [("000000.jpg", b"picture a"), ("000003.jpg", b"picture c")]
    gone, aside = problems(answer)
    assert gone == {
        "number": 1,
        "key": "gone.jpg",
        "type": "/problems/object-not-found",
        "title": "There is no such object",
        "status": 404,
        "detail": "There is no object of that key in the bucket.",
    }
    assert (aside["number"], aside["key"], aside["type"]) == (2, None, "/problems/frame-not-found")


async def test_a_chunk_of_lines_set_aside_alone_is_no_end_of_the_manifest(
    service: Service, s3_bucket: S3Bucket
) -> None:
    one = await written(service, s3_bucket, line("a") + b"no json\n" * 5 + line("c"), a=b"a", c=b"c")
    assert [entry["number"] for entry in problems(await one.chunk(1, 2))] == [2, 3]
    assert entries(await one.chunk(3, 2)) == [("000006.jpg", b"c")]


async def test_a_chunk_without_problems_has_no_such_entry(pictures: Set) -> None:
    assert "problems.json" not in dict(entries(await pictures.chunk(0, 500)))


async def test_an_object_that_is_replaced_comes_whole_old_or_new(both_ways: Set) -> None:
    key = list(both_ways.frames)[5]
    old, new = both_ways.frames[key], b"\xff\xd8\xff" + b"new" * 100_000
    stop = asyncio.Event()

    async def replace() -> None:
        while not stop.is_set():
            for body in (new, old):
                await both_ways.bucket.put(key, body)

    replacing = asyncio.create_task(replace())
    try:
        for _ in range(20):
            answer = await both_ways.chunk(0, 36, headers={"Cache-Control": "no-cache"})
            found = [body for _, body in entries(answer)]
            assert found[5] in {old, new}
            assert found[:5] + found[6:] == [body for name, body in both_ways.frames.items() if name != key]
    finally:
        stop.set()
        await replacing


async def test_asked_anew_a_replaced_object_comes_at_once(
    start_service: StartService, s3_bucket: S3Bucket, tmp_path: Path
) -> None:
    async with start_service(cache_bytes=10_000_000, cache_max_age_s=3600) as service:
        one = await drawn(service, s3_bucket, tmp_path / "pictures")
        assert entries(await one.chunk(0, 2)) == one.expected(0, 2)
        await one.bucket.put(next(iter(one.frames)), b"new")
        assert entries(await one.chunk(0, 2)) == one.expected(0, 2)
        anew = await one.chunk(0, 2, headers={"Cache-Control": "no-cache"})
        assert entries(anew) == [(one.expected(0, 1)[0][0], b"new"), one.expected(0, 2)[1]]


@pytest.mark.parametrize("form", ["jpeg", "webp"])
async def test_smaller_pictures_are_those_of_the_single_frames(pictures: Set, form: str) -> None:
    wanted = {"width": 64, "height": 48, "format": form}
    found = entries(await pictures.service.admin.get(f"{pictures.path}/0", params=wanted))
    assert [name for name, _ in found] == [
        f"{number:06d}.{'jpg' if form == 'jpeg' else form}" for number in range(COUNT)
    ]
    frames = f"/v1/manifests/{pictures.manifest_id}/frames"
    for number, (_, body) in enumerate(found):
        single = await pictures.service.admin.get(f"{frames}/{number}/image", params=wanted)
        assert single.content == body
        with Image.open(io.BytesIO(body)) as picture:
            assert picture.format == form.upper()
            assert max(picture.width / 64, picture.height / 48) == 1


async def test_what_is_no_picture_is_told_where_smaller_ones_are_asked_for(
    service: Service, s3_bucket: S3Bucket
) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (90, 60), "teal").save(picture, "JPEG")
    one = await written(
        service, s3_bucket, line("text") + line("gone") + line("good"), text=b"text", good=picture.getvalue()
    )
    answer = await service.admin.get(f"{one.path}/0", params={"width": 30})
    assert [name for name, _ in entries(answer)] == ["000002.jpg", "problems.json"]
    assert [(told["number"], told["key"], told["type"], told["status"]) for told in problems(answer)] == [
        (0, "text.jpg", "/problems/not-a-picture", 422),
        (1, "gone.jpg", "/problems/object-not-found", 404),
    ]


@pytest.mark.parametrize("query", ["width=0", "height=x", "format=gif", "width=9999"])
async def test_a_rendition_that_is_none_is_named(pictures: Set, query: str) -> None:
    for method in ("GET", "HEAD"):
        answer = await pictures.service.admin.request(method, f"{pictures.path}/0?{query}")
        assert answer.status_code == 422
    answer = await pictures.service.admin.get(f"{pictures.path}/0?{query}")
    assert [error["pointer"] for error in answer.json()["errors"]] == [f"query:{query.partition('=')[0]}"]


async def test_another_users_chunk_is_missing(pictures: Set) -> None:
    async with pictures.service.user("eve") as eve:
        for method in ("GET", "HEAD"):
            answer = await eve.request(method, f"{pictures.path}/0")
            assert answer.status_code == 404
        unknown = await eve.get("/v1/manifests/999999/chunks/0")
        shown = await eve.get(f"{pictures.path}/0")
        assert problem(shown) == problem(unknown) == (404, "not-found")
    async with client(pictures.service.url) as nobody:
        assert problem(await nobody.get(f"{pictures.path}/0")) == (401, "unauthenticated")


async def test_a_stale_revision_is_410_and_the_current_one_is_named(pictures: Set) -> None:
    path = f"{pictures.path}/0?revision="
    assert (await pictures.service.admin.get(f"{path}1")).status_code == 200
    stale = await pictures.service.admin.get(f"{path}2")
    assert problem(stale) == (410, "revision-gone")
    assert stale.json()["current_revision"] == 1
    assert problem(await pictures.service.admin.get(f"{path}0")) == (422, "invalid-request")


async def test_a_chunk_follows_the_manifest_to_its_next_revision(
    service: Service, s3_bucket: S3Bucket
) -> None:
    one = await written(service, s3_bucket, line("a") + line("b"), a=b"a", b=b"b", c=b"c")
    assert entries(await one.chunk(0, 36)) == [("000000.jpg", b"a"), ("000001.jpg", b"b")]
    await s3_bucket.put("manifest.jsonl", HEAD + line("c"))
    path = f"/v1/manifests/{one.manifest_id}"
    await service.admin.post(f"{path}/sync", headers={"Prefer": "wait=30"})
    assert entries(await one.chunk(0, 36)) == [("000000.jpg", b"c")]
    assert problem(await service.admin.get(f"{one.path}/0?revision=1")) == (410, "revision-gone")


async def test_frames_of_a_video_have_no_chunk(pictures: Set) -> None:
    assert pictures.service.settings.database_url is not None
    database = Database(pictures.service.settings.database_url)
    async with database.session() as session:
        await session.execute(text("UPDATE revisions SET kind = 'video'"))
    await database.aclose()
    for method in ("GET", "HEAD"):
        answer = await pictures.service.admin.request(method, f"{pictures.path}/0")
        assert answer.status_code == 422
    assert problem(await pictures.chunk(0, 36)) == (422, "no-image")


async def test_a_manifest_that_failed_has_no_chunk(service: Service, s3_bucket: S3Bucket) -> None:
    await s3_bucket.put("manifest.jsonl", b"nonsense")
    manifest = await service.register(await service.attach(s3_body(s3_bucket)), "manifest.jsonl")
    answer = await service.admin.get(f"/v1/manifests/{manifest['id']}/chunks/0")
    assert problem(answer) == (409, "manifest-not-ready")
