"""A bucket that refuses, contradicts itself or speaks no HTTP: honest problems, and never wrong bytes."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from tests.faults.conftest import LONG, LONG_BYTES, SMALL, SMALL_BYTES, Lying, assert_broken, counted
from tests.faults.fake_bucket import PLANTED, Asked, Stored, answer, chunked, refusal


@pytest.mark.parametrize(
    ("status", "code", "asked", "expected"),
    [
        ("500 Internal Server Error", "InternalError", 3, (502, "storage-error")),
        ("502 Bad Gateway", "", 3, (502, "storage-error")),
        ("503 Slow Down", "SlowDown", 3, (503, "storage-throttled")),
        ("503 Service Unavailable", "ServiceUnavailable", 3, (503, "storage-throttled")),
        ("504 Gateway Timeout", "", 3, (502, "storage-error")),
        ("429 Too Many Requests", "TooManyRequests", 3, (503, "storage-throttled")),
        ("403 Forbidden", "AccessDenied", 1, (502, "storage-access-denied")),
        ("403 Forbidden", "InvalidAccessKeyId", 1, (502, "storage-access-denied")),
        ("404 Not Found", "NoSuchBucket", 1, (502, "storage-not-found")),
        ("404 Not Found", "NoSuchKey", 1, (404, "object-not-found")),
        ("403 Forbidden", "InvalidObjectState", 1, (502, "object-archived")),
        ("418 I'm a teapot", "", 1, (502, "storage-error")),
    ],
)
async def test_a_refusal_becomes_a_problem_that_quotes_nothing(
    lying: Lying, status: str, code: str, asked: int, expected: tuple[int, str]
) -> None:
    got = await lying.take(refusal(status, code))
    assert (got.status, got.slug) == expected
    assert lying.bucket.asked == asked
    assert PLANTED.encode() not in got.body
    assert ("retry-after" in got.headers) == (got.status == 503)
    well = await lying.take(answer("200 OK", SMALL))
    assert (well.status, well.body == SMALL) == (200, True)


@pytest.mark.parametrize(("asked_for", "passed_on"), [("7", "7"), ("86400", "120"), ("3", "3")])
async def test_a_bucket_that_wants_a_longer_pause_is_not_asked_again_and_its_wish_is_passed_on(
    lying: Lying, asked_for: str, passed_on: str
) -> None:
    got = await lying.take(refusal("503 Slow Down", "SlowDown", Retry_After=asked_for))
    assert (got.status, got.headers["retry-after"], lying.bucket.asked) == (503, passed_on, 1)


async def test_a_failure_that_passes_is_not_seen_but_counted(lying: Lying) -> None:
    name = 'framegate_upstream_retries_total{reason="server_error"}'
    before = await counted(lying.site.service.admin, name)
    failed = refusal("500 Internal Server Error", "InternalError")
    got = await lying.take(failed, failed, answer("200 OK", SMALL))
    assert (got.status, got.body == SMALL) == (200, True)
    assert await counted(lying.site.service.admin, name) == before + 2


async def test_a_broken_answer_is_counted_as_the_buckets(lying: Lying) -> None:
    assert_broken(await lying.take(answer("200 OK", LONG[:-1], LONG_BYTES), closes=True), LONG)
    name = 'framegate_storage_refusals_total{error="BrokenStreamError"}'
    assert await counted(lying.site.service.admin, name) >= 1


async def test_our_wrong_clock_is_learned_from_a_refusal_and_kept(lying: Lying) -> None:
    ahead = timedelta(hours=2)

    def ahead_of_us(asked: Asked) -> bytes:
        now = datetime.now(UTC) + ahead
        stamp = datetime.strptime(asked.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if abs(now - stamp) < timedelta(minutes=15):
            return answer("200 OK", SMALL)
        return refusal("403 Forbidden", "RequestTimeTooSkewed", Date=format_datetime(now, usegmt=True))

    got = await lying.take(ahead_of_us)
    assert (got.status, got.body == SMALL, lying.bucket.asked) == (200, True, 2)
    got = await lying.take(ahead_of_us)
    assert (got.status, lying.bucket.asked) == (200, 1)
    ahead = timedelta(0)
    got = await lying.take(ahead_of_us)
    assert (got.status, lying.bucket.asked) == (200, 2)


async def test_a_body_shorter_than_its_length_never_ends_cleanly(lying: Lying) -> None:
    got = await lying.take(answer("200 OK", SMALL, SMALL_BYTES + 1), closes=True)
    assert (got.status, got.slug) == (502, "storage-error")
    got = await lying.take(answer("200 OK", LONG[:-1], LONG_BYTES), closes=True)
    assert_broken(got, LONG)
    told = f"bytes 0-{LONG_BYTES - 1}/{LONG_BYTES}"
    part = answer("206 Partial Content", LONG[:-1], LONG_BYTES, Content_Range=told)
    got = await lying.take(part, closes=True, Range="bytes=0-")
    assert (got.status, got.whole, LONG.startswith(got.body)) == (206, False, True)


async def test_a_body_that_ends_with_the_connection_is_held_against_its_size(lying: Lying) -> None:
    head = answer("200 OK", length=LONG_BYTES)
    got = await lying.take(answer("200 OK", LONG, -1), closes=True, head=head)
    assert (got.status, got.whole, got.body == LONG) == (200, True, True)
    got = await lying.take(answer("200 OK", LONG[:-1], -1), closes=True)
    assert_broken(got, LONG)


@pytest.mark.parametrize("whole", [SMALL, LONG], ids=["small", "long"])
async def test_a_chunked_body_is_held_against_its_size(lying: Lying, whole: bytes) -> None:
    head = answer("200 OK", length=len(whole))
    got = await lying.take(chunked("200 OK", whole), head=head)
    assert (got.status, got.whole, got.body == whole) == (200, True, True)
    assert got.headers["content-length"] == str(len(whole))
    assert_broken(await lying.take(chunked("200 OK", whole[:-1])), whole)
    assert_broken(await lying.take(chunked("200 OK", whole[:-1], last=b"zz\r\n"), closes=True), whole)
    got = await lying.take(chunked("200 OK", whole + b"more"))
    assert (got.whole, got.body == whole) == (True, True)


async def test_a_chunked_part_is_held_against_its_range(lying: Lying) -> None:
    told = {"Content-Range": f"bytes 100-299999/{LONG_BYTES}"}
    for given, whole in ((LONG[100:300_000], True), (LONG[100:299_999], False), (LONG[100:400_000], True)):
        got = await lying.take(chunked("206 Partial Content", given, **told), Range="bytes=100-299999")
        assert (got.status, got.headers["content-length"], got.whole) == (206, "299900", whole)
        assert LONG[100:300_000].startswith(got.body)


async def test_a_length_that_nobody_tells_is_an_honest_problem(lying: Lying) -> None:
    got = await lying.take(chunked("200 OK", LONG), head=answer("200 OK", length=-1, Connection="close"))
    assert (got.status, got.slug) == (502, "storage-error")


async def test_bytes_beyond_the_length_reach_nobody(lying: Lying) -> None:
    poison = answer("200 OK", b"poison")
    for whole in (SMALL, LONG):
        got = await lying.take(answer("200 OK", whole) + poison)
        assert (got.whole, got.body == whole) == (True, True)
        got = await lying.take(answer("200 OK", whole))
        assert (got.whole, got.body == whole) == (True, True)


async def test_another_part_than_the_asked_one_is_not_given(lying: Lying) -> None:
    wrong = answer("206 Partial Content", SMALL[:10], Content_Range=f"bytes 0-9/{SMALL_BYTES}")
    bare = answer("206 Partial Content", SMALL[10:20])
    for said in (wrong, bare):
        got = await lying.take(said, answer("200 OK", SMALL), Range="bytes=10-19")
        assert (got.status, got.body) == (206, SMALL[10:20])
        assert got.headers["content-range"] == f"bytes 10-19/{SMALL_BYTES}"


@pytest.mark.parametrize("told", ["bytes */7", "bytes */*", "octets */100000", "nonsense", ""])
async def test_a_416_is_not_believed_before_the_size_is_known(lying: Lying, told: str) -> None:
    refused = answer("416 Range Not Satisfiable", Content_Range=told)
    got = await lying.take(refused, head=Stored(SMALL), Range=f"bytes={SMALL_BYTES}-")
    assert (got.status, got.headers["content-range"]) == (416, f"bytes */{SMALL_BYTES}")
    got = await lying.take(refused, Stored(SMALL), head=Stored(SMALL), Range="bytes=-5")
    assert (got.status, got.body == SMALL[-5:]) == (206, True)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\r\n\r\n",
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ],
)
async def test_what_is_no_answer_is_a_problem(lying: Lying, said: bytes) -> None:
    got = await lying.take(said, closes=True)
    assert (got.status, got.slug) == (502, "storage-error")


async def test_interim_answers_are_read_over(lying: Lying) -> None:
    hints = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    for whole in (SMALL, LONG):
        got = await lying.take(hints + answer("200 OK", whole))
        assert (got.status, got.body == whole) == (200, True)
        assert "link" not in got.headers
