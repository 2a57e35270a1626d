"""Bytes of objects, by the lane and by FastAPI's way: exact HTTP both ways."""

from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from urllib.parse import quote

import httpx
import pytest

from tests.api.conftest import Service, azure_source, client, s3_body
from tests.servers.azurite import AzureContainer
from tests.servers.s3 import S3Bucket

BODY = bytes(range(256)) * 40


async def attached(service: Service, bucket: S3Bucket) -> str:
    """Attach a bucket and give the path of its objects."""
    return f"/v1/storages/{await service.attach(s3_body(bucket))}/objects"


async def test_gives_an_object_byte_for_byte_with_its_facts(both_ways: Service, s3_bucket: S3Bucket) -> None:
    etag = await s3_bucket.put("pets/beagle.jpg", BODY, "image/jpeg")
    answer = await both_ways.admin.get(f"{await attached(both_ways, s3_bucket)}/pets/beagle.jpg")
    assert answer.status_code == 200
    assert answer.content == BODY
    assert answer.headers["etag"] == etag
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["content-length"] == str(len(BODY))
    assert answer.headers["accept-ranges"] == "bytes"
    assert parsedate_to_datetime(answer.headers["last-modified"])


async def test_serves_safe_headers_with_every_object(both_ways: Service, s3_bucket: S3Bucket) -> None:
    await s3_bucket.put("a.jpg", BODY, "image/jpeg")
    headers = (await both_ways.admin.get(f"{await attached(both_ways, s3_bucket)}/a.jpg")).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == "private, no-cache"
    assert headers["vary"] == "Authorization, Cookie"
    assert "content-disposition" not in headers


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=10200-", 10200, 10240),
        ("bytes=10239-10239", 10239, 10240),
        ("bytes=10000-99999", 10000, 10240),
        ("bytes=-1", 10239, 10240),
        ("bytes=-99999", 0, 10240),
        ("BYTES=5-9", 5, 10),
    ],
)
async def test_answers_a_range(
    both_ways: Service, s3_bucket: S3Bucket, wanted: str, start: int, stop: int
) -> None:
    await s3_bucket.put("a.bin", BODY)
    path = f"{await attached(both_ways, s3_bucket)}/a.bin"
    answer = await both_ways.admin.get(path, headers={"Range": wanted})
    assert answer.status_code == 206
    assert answer.content == BODY[start:stop]
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(BODY)}"
    assert answer.headers["content-length"] == str(stop - start)


@pytest.mark.parametrize(
    "wanted", ["bytes=0-1,5-9", "bytes=9-5", "pixels=0-9", "bytes=a-b", "nonsense", "bytes=-"]
)
async def test_gives_the_whole_object_for_what_is_no_single_range(
    both_ways: Service, s3_bucket: S3Bucket, wanted: str
) -> None:
    await s3_bucket.put("a.bin", BODY)
    path = f"{await attached(both_ways, s3_bucket)}/a.bin"
    answer = await both_ways.admin.get(path, headers={"Range": wanted})
    assert (answer.status_code, answer.content) == (200, BODY)


@pytest.mark.parametrize("wanted", ["bytes=10240-", "bytes=99999-100000", "bytes=-0"])
async def test_refuses_a_range_past_the_end(both_ways: Service, s3_bucket: S3Bucket, wanted: str) -> None:
    await s3_bucket.put("a.bin", BODY)
    path = f"{await attached(both_ways, s3_bucket)}/a.bin"
    answer = await both_ways.admin.get(path, headers={"Range": wanted})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(BODY)}"
    assert answer.json()["type"] == "/problems/range-not-satisfiable"


async def test_decides_conditions_as_http_says(both_ways: Service, s3_bucket: S3Bucket) -> None:
    etag = await s3_bucket.put("a.bin", BODY)
    path = f"{await attached(both_ways, s3_bucket)}/a.bin"
    first = await both_ways.admin.get(path)
    moment = parsedate_to_datetime(first.headers["last-modified"])
    before, after = (format_datetime(moment + timedelta(hours=hours), usegmt=True) for hours in (-1, 1))
    expected = [
        ({"If-None-Match": etag}, 304),
        ({"If-None-Match": f"W/{etag}"}, 304),
        ({"If-None-Match": f'"other", {etag}'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"other"'}, 200),
        ({"If-Modified-Since": first.headers["last-modified"]}, 304),
        ({"If-Modified-Since": before}, 200),
        ({"If-None-Match": '"other"', "If-Modified-Since": after}, 200),
        ({"If-Match": etag}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": '"other"'}, 412),
        ({"If-Match": f"W/{etag}"}, 412),
        ({"If-Unmodified-Since": before}, 412),
        ({"If-Unmodified-Since": after}, 200),
        ({"Range": "bytes=0-9", "If-Range": etag}, 206),
        ({"Range": "bytes=0-9", "If-Range": '"other"'}, 200),
        ({"Range": "bytes=0-9", "If-Range": first.headers["last-modified"]}, 206),
        ({"Range": "bytes=0-9", "If-Range": before}, 200),
        ({"Range": "bytes=0-9", "If-None-Match": etag}, 304),
        ({"Range": "bytes=99999-", "If-None-Match": etag}, 304),
    ]
    for headers, status in expected:
        answer = await both_ways.admin.get(path, headers=headers)
        assert answer.status_code == status, headers
        if status == 304:
            assert (answer.content, answer.headers["etag"]) == (b"", etag), headers
        if status == 200:
            assert answer.content == BODY, headers


async def test_head_gives_the_same_facts_and_no_body(both_ways: Service, s3_bucket: S3Bucket) -> None:
    await s3_bucket.put("a.jpg", BODY, "image/jpeg")
    path = f"{await attached(both_ways, s3_bucket)}/a.jpg"
    get = await both_ways.admin.get(path)
    head = await both_ways.admin.head(path, headers={"Range": "bytes=0-9"})
    assert (head.status_code, head.content) == (200, b"")
    same = ("etag", "content-length", "content-type", "last-modified", "accept-ranges", "cache-control")
    assert {name: head.headers[name] for name in same} == {name: get.headers[name] for name in same}


@pytest.mark.parametrize(
    "key",
    [
        "with space.jpg",
        "100%.jpg",
        "a+b.jpg",
        "q?x=1.jpg",
        "h#h.jpg",
        "日本/é.jpg",
        "a%2Fb.jpg",
        "a&b=c;d.jpg",
    ],
)
async def test_finds_keys_that_need_encoding(both_ways: Service, s3_bucket: S3Bucket, key: str) -> None:
    await s3_bucket.put(key, BODY)
    path = await attached(both_ways, s3_bucket)
    for safe in ("/", ""):
        answer = await both_ways.admin.get(f"{path}/{quote(key, safe=safe)}")
        assert (answer.status_code, answer.content) == (200, BODY)


@pytest.mark.parametrize(
    ("raw", "status", "slug"),
    [
        ("%ff.jpg", 400, "malformed-request"),
        ("a%2F..%2Fb.jpg", 400, "invalid-key"),
        ("a%2F.%2Fb.jpg", 400, "invalid-key"),
        ("a%00.jpg", 400, "invalid-key"),
        ("a%0Ab.jpg", 400, "invalid-key"),
        ("x" * 1025, 400, "invalid-key"),
        ("none.jpg", 404, "object-not-found"),
    ],
)
async def test_refuses_keys_that_no_object_has(
    both_ways: Service, s3_bucket: S3Bucket, raw: str, status: int, slug: str
) -> None:
    answer = await both_ways.admin.get(f"{await attached(both_ways, s3_bucket)}/{raw}")
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{slug}")


@pytest.mark.parametrize(
    ("key", "stored", "served", "inline"),
    [
        ("a.jpg", "image/jpeg", "image/jpeg", True),
        ("a.png", "binary/octet-stream", "image/png", True),
        ("a.html", "text/html", "application/octet-stream", False),
        ("a.jpg", "text/html", "application/octet-stream", False),
        ("a.svg", "image/svg+xml", "application/octet-stream", False),
        ("a.xml", "application/xml", "application/octet-stream", False),
        ("noextension", "application/x-thing", "application/octet-stream", False),
    ],
)
async def test_serves_types_from_one_table_alone(
    both_ways: Service, s3_bucket: S3Bucket, key: str, stored: str, served: str, inline: bool
) -> None:
    await s3_bucket.put(key, b"<script>alert(1)</script>", stored)
    answer = await both_ways.admin.get(f"{await attached(both_ways, s3_bucket)}/{key}")
    assert answer.headers["content-type"] == served
    assert ("content-disposition" not in answer.headers) == inline


async def test_download_names_the_file_in_both_spellings(both_ways: Service, s3_bucket: S3Bucket) -> None:
    key = 'x/na"ïve;.jpg'
    await s3_bucket.put(key, BODY, "image/jpeg")
    path = await attached(both_ways, s3_bucket)
    answer = await both_ways.admin.get(f"{path}/{quote(key)}?download=true")
    assert answer.headers["content-disposition"] == (
        "attachment; filename=\"na__ve_.jpg\"; filename*=UTF-8''na%22%C3%AFve%3B.jpg"
    )


async def test_streams_a_long_object_and_an_empty_one(both_ways: Service, s3_bucket: S3Bucket) -> None:
    long = bytes(range(251)) * 20_000
    await s3_bucket.put("long.bin", long)
    await s3_bucket.put("empty.bin", b"")
    path = await attached(both_ways, s3_bucket)
    assert (await both_ways.admin.get(f"{path}/long.bin")).content == long
    empty = await both_ways.admin.get(f"{path}/empty.bin")
    assert (empty.status_code, empty.content, empty.headers["content-length"]) == (200, b"", "0")
    ranged = await both_ways.admin.get(f"{path}/empty.bin", headers={"Range": "bytes=0-"})
    assert (ranged.status_code, ranged.headers["content-range"]) == (416, "bytes */0")


async def test_wants_a_token_before_it_says_anything(both_ways: Service, s3_bucket: S3Bucket) -> None:
    etag = await s3_bucket.put("a.jpg", BODY)
    path = f"{await attached(both_ways, s3_bucket)}/a.jpg"
    async with client(both_ways.url) as nobody, both_ways.user("stranger") as stranger:
        refused = await nobody.get(path, headers={"If-None-Match": etag})
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, 'Bearer realm="framegate"')
        hidden = await stranger.get(path, headers={"If-None-Match": etag})
        none = await stranger.get("/v1/storages/999999/objects/a.jpg")
        assert hidden.status_code == none.status_code == 404
        assert hidden.json()["detail"] == none.json()["detail"]


async def test_other_methods_are_405_and_odd_ids_404(both_ways: Service, s3_bucket: S3Bucket) -> None:
    path = await attached(both_ways, s3_bucket)
    answer = await both_ways.admin.post(f"{path}/a.jpg")
    assert (answer.status_code, answer.json()["type"]) == (405, "/problems/method-not-allowed")
    for odd in ("abc", "-1", "0", "1.5", "9" * 40):
        answer = await both_ways.admin.get(f"/v1/storages/{odd}/objects/a.jpg")
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found"), odd


async def test_an_azure_container_serves_the_same_way(
    both_ways: Service, azure_container: AzureContainer
) -> None:
    etag = await azure_container.put("pets/é b.jpg", BODY, "image/jpeg")
    source = azure_source(azure_container)
    storage = await both_ways.attach({"display_name": "Azure", "source": source})
    path = f"/v1/storages/{storage}/objects/{quote('pets/é b.jpg')}"
    whole = await both_ways.admin.get(path)
    assert (whole.status_code, whole.content, whole.headers["etag"]) == (200, BODY, etag)
    tail = await both_ways.admin.get(path, headers={"Range": "bytes=-5"})
    assert (tail.status_code, tail.content) == (206, BODY[-5:])
    assert (await both_ways.admin.get(path, headers={"If-None-Match": etag})).status_code == 304
    assert (await both_ways.admin.get(path, headers={"If-Match": '"x"'})).status_code == 412
    past = await both_ways.admin.get(path, headers={"Range": "bytes=99999-"})
    assert (past.status_code, past.headers["content-range"]) == (416, f"bytes */{len(BODY)}")


async def test_lists_objects_flat_and_by_folder(service: Service, s3_bucket: S3Bucket) -> None:
    etag = await s3_bucket.put("pets/a.jpg", BODY, "image/jpeg")
    await s3_bucket.put("pets/deep/b.png", BODY)
    await s3_bucket.put("top.txt", b"x")
    path = await attached(service, s3_bucket)
    flat = (await service.admin.get(path)).json()
    assert sorted(item["key"] for item in flat["items"]) == ["pets/a.jpg", "pets/deep/b.png", "top.txt"]
    assert flat["next_cursor"] is None
    level = (await service.admin.get(path, params={"prefix": "pets/", "delimiter": "/"})).json()["items"]
    by_key = {item["key"]: item for item in level}
    assert by_key["pets/deep/"] == {
        "key": "pets/deep/",
        "type": "prefix",
        "size_bytes": None,
        "etag": None,
        "last_modified": None,
        "media_type": None,
    }
    found = by_key["pets/a.jpg"]
    assert (found["size_bytes"], found["etag"], found["media_type"]) == (len(BODY), etag, "image/jpeg")
    assert found["last_modified"].endswith("Z")


async def test_pages_through_a_listing_and_refuses_what_is_no_page(
    service: Service, s3_bucket: S3Bucket
) -> None:
    for number in range(7):
        await s3_bucket.put(f"{number}.jpg", b"x")
    path = await attached(service, s3_bucket)
    seen: list[str] = []
    cursor: str | None = None
    while cursor is not None or not seen:
        params = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = (await service.admin.get(path, params=params)).json()
        seen += [item["key"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert sorted(seen) == [f"{number}.jpg" for number in range(7)]
    for params, pointer in [
        ({"limit": 0}, "query:limit"),
        ({"limit": 1001}, "query:limit"),
        ({"limit": "many"}, "query:limit"),
        ({"delimiter": "-"}, "query:delimiter"),
        ({"prefix": "a\x00"}, "query:prefix"),
    ]:
        answer = await service.admin.get(path, params=params)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)


async def test_a_reader_that_vanishes_leaves_the_bucket_free(both_ways: Service, s3_bucket: S3Bucket) -> None:
    await s3_bucket.put("long.bin", bytes(8_000_000))
    path = f"{await attached(both_ways, s3_bucket)}/long.bin"
    for _ in range(80):
        async with both_ways.admin.stream("GET", path) as answer:
            await anext(answer.aiter_raw())
    answers = [await both_ways.admin.get(path, headers={"Range": "bytes=0-9"}) for _ in range(5)]
    assert {answer.status_code for answer in answers} == {206}


async def test_a_given_request_id_is_kept_on_every_way(both_ways: Service, s3_bucket: S3Bucket) -> None:
    path = await attached(both_ways, s3_bucket)
    answer: httpx.Response = await both_ways.admin.get(
        f"{path}/none", headers={"X-Request-Id": "abc.DEF_1-2"}
    )
    assert answer.headers["x-request-id"] == "abc.DEF_1-2"
    assert answer.json()["instance"] == "urn:framegate:request:abc.DEF_1-2"
    odd = await both_ways.admin.get(f"{path}/none", headers={"X-Request-Id": "a b"})
    assert odd.headers["x-request-id"] != "a b"
