"""Buckets with odd habits, through the whole service: its own clients get exact HTTP all the same."""

import gzip
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from tests.api.conftest import azure_source, s3_body
from tests.faults.conftest import LONG, SMALL, SMALL_BYTES, Lying, Site, take
from tests.faults.fake_bucket import Stored, answer, refusal
from tests.servers.azurite import AzureServer
from tests.servers.s3 import S3Server

THEN = datetime(2024, 5, 17, 10, 30, tzinfo=UTC)
DATED = {"Last-Modified": format_datetime(THEN, usegmt=True)}


def date(seconds: int = 0) -> str:
    """The object's date, or one so much later."""
    return format_datetime(THEN + timedelta(seconds=seconds), usegmt=True)


async def assert_exact(reader: httpx.AsyncClient, path: str, whole: bytes) -> None:
    """GET, HEAD and every form of a range, with status, headers and bytes as RFC 9110 has them."""
    size = len(whole)
    got = await take(reader, path)
    assert (got.status, got.whole, got.body == whole) == (200, True, True)
    assert (got.headers["content-length"], got.headers["accept-ranges"]) == (str(size), "bytes")
    assert "content-range" not in got.headers
    head = await reader.head(path, headers={"Range": "bytes=0-0"})
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(size), b"")
    for asked, start, stop in (
        ("0-0", 0, 1),
        (f"{size - 1}-", size - 1, size),
        ("10-19", 10, 20),
        (f"5-{size + 99}", 5, size),
        ("-7", size - 7, size),
        (f"-{size + 99}", 0, size),
    ):
        got = await take(reader, path, Range=f"bytes={asked}")
        assert (got.status, got.whole, got.body == whole[start:stop]) == (206, True, True), asked
        assert got.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
        assert got.headers["content-length"] == str(stop - start)
        assert not [name for name in got.headers if name.startswith("x-amz-")]
    got = await take(reader, path, Range=f"bytes={size}-")
    assert (got.status, got.headers["content-range"]) == (416, f"bytes */{size}")


async def test_rclone_that_answers_a_range_with_200(site: Site, rclone_s3: S3Server) -> None:
    reader = site.service.admin
    async with rclone_s3.bucket() as bucket:
        storage_id = await site.service.attach(s3_body(bucket))
        for key, whole in (("small.jpg", SMALL), ("long.jpg", LONG)):
            await bucket.put(key, whole)
            path = f"/v1/storages/{storage_id}/objects/{key}"
            await assert_exact(reader, path, whole)
            etag = (await reader.head(path)).headers["etag"]
            got = await take(reader, path, **{"If-Match": '"other"'})  # which rclone passes over
            assert (got.status, got.slug) == (412, "precondition-failed")
            got = await take(reader, path, **{"If-None-Match": etag, "Range": "bytes=0-9"})
            assert (got.status, got.body) == (304, b"")
            got = await take(reader, path, **{"If-Range": '"other"', "Range": "bytes=0-9"})
            assert (got.status, got.body == whole) == (200, True)
            got = await take(reader, path, **{"If-Range": etag, "Range": "bytes=0-9"})
            assert (got.status, got.body) == (206, whole[:10])


async def test_azure_that_knows_no_suffix_ranges(site: Site, azurite: AzureServer) -> None:
    async with azurite.container() as container:
        body = {"display_name": "Blobs", "source": azure_source(container)}
        storage_id = await site.service.attach(body)
        for key, whole in (("small.jpg", SMALL), ("long.jpg", LONG)):
            await container.put(key, whole)
            await assert_exact(site.service.admin, f"/v1/storages/{storage_id}/objects/{key}", whole)


@pytest.mark.parametrize(
    "habits",
    [
        {"part": "200 OK"},
        {"ranges": False},
        {"conditions": False},
        {"headers": {}},
        {"headers": {"ETag": 'W/"v1"'}},
        {"headers": {"ETag": "v1"}},
    ],
    ids=["200-with-content-range", "no-ranges", "no-conditions", "no-etag", "weak-etag", "bare-etag"],
)
@pytest.mark.parametrize("whole", [SMALL, LONG], ids=["small", "long"])
async def test_every_habit_gives_exact_ranges(lying: Lying, habits: dict[str, object], whole: bytes) -> None:
    stored = Stored(whole, **habits)  # type: ignore[arg-type]
    lying.bucket.say(stored, head=stored)
    await assert_exact(lying.site.service.admin, lying.path, whole)


async def test_without_an_etag_conditions_are_on_the_date_alone(lying: Lying) -> None:
    stored = Stored(SMALL, DATED)
    for headers, status in (
        ({"If-Match": '"v1"'}, 412),
        ({"If-Match": "*"}, 200),
        ({"If-None-Match": '"v1"'}, 200),
        ({"If-None-Match": "*"}, 304),
        ({"If-Modified-Since": date()}, 304),
        ({"If-Modified-Since": date(-1)}, 200),
        ({"If-Unmodified-Since": date()}, 200),
        ({"If-Unmodified-Since": date(-1)}, 412),
        ({"If-Range": date(), "Range": "bytes=0-9"}, 206),
        ({"If-Range": date(-1), "Range": "bytes=0-9"}, 200),
        ({"If-Range": '"v1"', "Range": "bytes=0-9"}, 200),
    ):
        got = await lying.take(stored, head=stored, **headers)
        assert got.status == status, headers
        assert "etag" not in got.headers
        assert status == 412 or got.headers["last-modified"] == date()


async def test_a_weak_etag_matches_weakly_alone(lying: Lying) -> None:
    stored = Stored(SMALL, {"ETag": 'W/"v1"'})
    for headers, status in (
        ({"If-None-Match": 'W/"v1"'}, 304),
        ({"If-None-Match": '"v1"'}, 304),
        ({"If-None-Match": 'W/"v2"'}, 200),
        ({"If-Match": 'W/"v1"'}, 412),
        ({"If-Match": '"v1"'}, 412),
        ({"If-Range": 'W/"v1"', "Range": "bytes=0-9"}, 200),
        ({"If-Range": '"v1"', "Range": "bytes=0-9"}, 200),
        ({"Range": "bytes=0-9"}, 206),
    ):
        got = await lying.take(stored, head=stored, **headers)
        assert got.status == status, headers
        assert status == 412 or got.headers["etag"] == 'W/"v1"'


@pytest.mark.parametrize("plain_bytes", [1000, 2_000_000])
async def test_a_packed_object_is_passed_on_as_it_is_stored(lying: Lying, plain_bytes: int) -> None:
    plain = (LONG + SMALL)[: plain_bytes // 2] * 2
    packed = gzip.compress(plain, 1)
    stored = Stored(packed, {"ETag": '"v1"', "Content-Encoding": "gzip", "Content-Type": "application/json"})
    got = await lying.take(stored, head=stored, **{"Accept-Encoding": "gzip, br"})
    assert (got.status, got.body == packed) == (200, True)
    assert (got.headers["content-encoding"], got.headers["content-length"]) == ("gzip", str(len(packed)))
    assert lying.bucket.seen[0].headers["accept-encoding"] == "identity"
    got = await lying.take(stored, Range="bytes=10-19")
    assert (got.status, got.body, got.headers["content-encoding"]) == (206, packed[10:20], "gzip")
    assert got.headers["content-range"] == f"bytes 10-19/{len(packed)}"
    head = await lying.site.service.admin.head(lying.path)
    assert (head.headers["content-encoding"], head.headers["content-length"]) == ("gzip", str(len(packed)))
    unpacked = await lying.site.service.admin.get(lying.path)  # as a client does that knows the coding
    assert unpacked.content == plain


@pytest.mark.parametrize(
    ("stored", "given"),
    [
        ("aws-chunked", None),
        ("aws-chunked,gzip", "gzip"),
        ("gzip, AWS-Chunked", "gzip"),
        ("br", "br"),
        ("gzip,br", "gzip,br"),
    ],
)
async def test_an_uploads_framing_is_no_coding(lying: Lying, stored: str, given: str | None) -> None:
    got = await lying.take(answer("200 OK", SMALL, Content_Encoding=stored))
    assert (got.headers.get("content-encoding"), got.body == SMALL) == (given, True)


async def test_a_304_is_bare_whatever_the_bucket_adds_to_it(lying: Lying) -> None:
    more = {"x_amz_checksum_crc32": "AAAAAA==", "Content_Type": "image/jpeg", "x_amz_request_id": "R"}
    for told in ({}, {"ETag": '"v1"'}, {"ETag": 'W/"v1"'}):
        said = answer("304 Not Modified", length=SMALL_BYTES, **more, **told)
        got = await lying.take(said, **{"If-None-Match": '"v1"'})
        assert (got.status, got.body) == (304, b"")
        assert got.headers["etag"] == told.get("ETag", '"v1"')
        assert not {"content-length", "content-type"} & set(got.headers)
        assert not [name for name in got.headers if name.startswith("x-amz-")]
    got = await lying.take(answer("200 OK", SMALL))  # and its connection was left in order
    assert (got.status, got.body == SMALL) == (200, True)


@pytest.mark.parametrize(
    "said",
    [
        answer("301 Moved Permanently", x_amz_bucket_region="eu-west-1", Location="http://127.0.0.1:1/"),
        answer("307 Temporary Redirect", x_amz_bucket_region="eu-west-1", Location="http://127.0.0.1:1/"),
        refusal("301 Moved Permanently", "PermanentRedirect", x_amz_bucket_region="eu-west-1"),
        refusal("307 Temporary Redirect", "TemporaryRedirect", x_amz_bucket_region="eu-west-1"),
        refusal("400 Bad Request", "AuthorizationHeaderMalformed", x_amz_bucket_region="eu-west-1"),
    ],
)
async def test_a_bucket_of_another_region_is_named_and_not_followed(lying: Lying, said: bytes) -> None:
    got = await lying.take(said)
    assert (got.status, got.slug, lying.bucket.asked) == (502, "storage-error", 1)
    assert b"This bucket lives in eu-west-1." in got.body
    assert b"Set the region to eu-west-1." in got.body


async def test_a_head_without_length_is_made_up_for(lying: Lying) -> None:
    lengthless = answer("200 OK", length=-1, ETag='"v1"')
    for whole in (SMALL, LONG):
        lying.bucket.say(Stored(whole), head=lengthless)
        head = await lying.site.service.admin.head(lying.path)
        assert (head.status_code, head.headers["content-length"]) == (200, str(len(whole)))
        assert lying.bucket.seen[0].headers["range"] == "bytes=0-0"
        head = await lying.site.service.admin.head(lying.path, headers={"If-None-Match": '"v1"'})
        assert (head.status_code, head.headers["etag"]) == (304, '"v1"')
