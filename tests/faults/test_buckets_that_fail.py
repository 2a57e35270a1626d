"""A bucket that breaks, stalls, lies or changes: honest problems, or broken connections, and never wrong bytes."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import pytest_asyncio

from tests.faults.conftest import LONG_BYTES, SMALL_BYTES, OpenSite, Site, Taken, eventually, pattern, take
from tests.faults.fake_bucket import PLANTED, FakeBucket, answer, refusal
from tests.servers.fault_proxy import Faults

SMALL, LONG = pattern(SMALL_BYTES), pattern(LONG_BYTES, 1)
HUGE = pattern(16_000_000, 2)
ONE_READER = 2
"""How many connections one reader at a time may leave open."""


BOTH_WAYS = {"params": [True, False], "ids": ["lane", "fastapi"], "scope": "module"}


@pytest_asyncio.fixture(**BOTH_WAYS)
async def impatient(request: pytest.FixtureRequest, open_site: OpenSite) -> AsyncIterator[Site]:
    """A site, once for each way of byte requests, with a small and a long object."""
    async with open_site(lane=request.param, first_byte_timeout_s=1, idle_timeout_s=1) as one:
        await one.bucket.put("small.jpg", SMALL)
        await one.bucket.put("long.jpg", LONG)
        yield one


@pytest.fixture
def site(impatient: Site, caplog: pytest.LogCaptureFixture) -> Iterator[Site]:
    """The impatient site, without the faults of the test before; a bucket's fault is never logged as ours."""
    impatient.proxy.heal()
    yield impatient
    impatient.proxy.heal()
    assert not [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR]


@pytest_asyncio.fixture(scope="module")
async def patient(open_site: OpenSite) -> AsyncIterator[Site]:
    """A site that waits as long as it does by default."""
    async with open_site() as one:
        yield one


def assert_broken(got: Taken, whole: bytes) -> None:
    """The answer began, broke off visibly, and held nothing but the object's own first bytes."""
    assert (got.status, got.whole) == (200, False)
    assert got.headers["content-length"] == str(len(whole))
    assert whole.startswith(got.body)
    assert len(got.body) < len(whole)


async def assert_well(site: Site) -> None:
    """The next requests succeed, and no connection is left behind."""
    site.proxy.heal()
    for key, whole in (("small.jpg", SMALL), ("long.jpg", LONG)):
        got = await site.take(key)
        assert (got.status, got.whole, got.body == whole) == (200, True, True)
    await eventually(lambda: site.proxy.connections_open <= ONE_READER)


@pytest.mark.parametrize("how", ["rst", "fin"])
async def test_an_object_cut_off_is_a_problem_or_a_broken_connection(site: Site, how: str) -> None:
    """Small ones are a problem before the first byte; of long ones the first bytes are out already."""
    for size, cuts in ((SMALL_BYTES, (0, 1, SMALL_BYTES // 2, SMALL_BYTES - 1)), (LONG_BYTES, (0, 1))):
        key, whole = ("small.jpg", SMALL) if size == SMALL_BYTES else ("long.jpg", LONG)
        for cut in (*cuts, *((LONG_BYTES // 2, LONG_BYTES - 1) if size == LONG_BYTES else ())):
            site.proxy.faults = Faults(cut_after=cut, cut_with=how)  # type: ignore[arg-type]
            got = await site.take(key)
            if got.slug:
                assert (got.status, got.slug, got.whole) == (502, "storage-error", True), (key, cut)
                assert size == SMALL_BYTES or how == "rst", cut
            else:
                assert size == LONG_BYTES, cut
                assert_broken(got, whole)
    await assert_well(site)


@pytest.mark.parametrize("how", ["rst", "fin"])
async def test_a_connection_that_ends_without_an_answer_is_a_problem(site: Site, how: str) -> None:
    await assert_well(site)  # so that there are kept connections, which are tried first
    site.proxy.faults = Faults(cut_before_head=True, cut_with=how)  # type: ignore[arg-type]
    for key in ("small.jpg", "long.jpg"):
        got = await site.take(key)
        assert (got.status, got.slug) == (502, "storage-error")
    await assert_well(site)


async def test_a_broken_answer_is_counted_as_the_buckets(site: Site) -> None:
    name = 'framegate_storage_refusals_total{error="BrokenStreamError"}'
    site.proxy.faults = Faults(cut_after=1000, cut_with="fin")
    assert_broken(await site.take("long.jpg"), LONG)
    assert name in (await site.service.admin.get("/metrics")).text


async def test_a_part_that_is_cut_off_is_no_part(site: Site) -> None:
    site.proxy.faults = Faults(cut_after=400_000, cut_with="fin")
    got = await site.take("long.jpg", Range="bytes=100000-699999")
    assert (got.status, got.whole, got.headers["content-length"]) == (206, False, "600000")
    assert LONG[100_000:].startswith(got.body)
    got = await site.take("long.jpg", Range="bytes=100000-199999")
    assert (got.status, got.body == LONG[100_000:200_000]) == (206, True)
    await assert_well(site)


async def test_a_bucket_that_says_nothing_is_504_before_the_first_byte(site: Site) -> None:
    site.proxy.faults = Faults(stall_before_head=True)
    for got in await asyncio.gather(site.take("small.jpg"), site.take("long.jpg")):
        assert (got.status, got.slug) == (504, "storage-timeout")
    site.proxy.faults = Faults(stall_after=1000)
    got = await site.take("small.jpg")
    assert (got.status, got.slug) == (504, "storage-timeout")
    await assert_well(site)


@pytest.mark.parametrize("after", [0, 1, LONG_BYTES - 1])
async def test_a_bucket_that_falls_silent_after_its_headers_breaks_a_long_answer(
    site: Site, after: int
) -> None:
    site.proxy.faults = Faults(stall_after=after)
    assert_broken(await site.take("long.jpg"), LONG)
    await assert_well(site)


async def test_latency_of_a_far_bucket_costs_time_and_nothing_else(site: Site) -> None:
    site.proxy.faults = Faults(latency_s=0.1)
    answers = await asyncio.gather(*(site.take("small.jpg") for _ in range(20)))
    assert {(got.status, got.body == SMALL) for got in answers} == {(200, True)}


async def test_a_bucket_that_refuses_connections_is_a_problem_until_it_is_back(site: Site) -> None:
    await site.proxy.refuse()
    await site.proxy.drop()
    for _ in range(3):
        got = await site.take("small.jpg")
        assert (got.status, got.slug) == (502, "storage-error")
    await site.proxy.admit()
    await assert_well(site)


async def test_many_failures_leave_nothing_behind(site: Site) -> None:
    await assert_well(site)
    tasks = len(asyncio.all_tasks())
    faults = [
        Faults(cut_after=500),
        Faults(cut_after=500_000, cut_with="fin"),
        Faults(cut_before_head=True),
        Faults(stall_after=200_000),
        Faults(stall_before_head=True),
    ]
    for fault in faults:
        site.proxy.faults = fault
        answers = await asyncio.gather(*(site.take(key) for key in ("small.jpg", "long.jpg") * 10))
        assert all(not got.whole or got.slug or got.body in {SMALL, LONG} for got in answers)
    await assert_well(site)
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks)


async def test_an_object_replaced_while_it_streams_is_the_old_one_or_broken(patient: Site) -> None:
    site = patient
    await site.bucket.put("huge.jpg", HUGE)
    site.proxy.faults = Faults(bytes_per_s=4_000_000)
    begin = site.proxy.bytes_down
    reading = asyncio.create_task(site.take("huge.jpg"))
    await eventually(lambda: site.proxy.bytes_down > begin + 500_000)
    replaced = pattern(len(HUGE), 3)
    await site.bucket.put("huge.jpg", replaced)
    site.proxy.heal()
    got = await reading
    assert HUGE.startswith(got.body)
    assert got.whole == (len(got.body) == len(HUGE))
    again = await site.take("huge.jpg")
    assert (again.whole, again.body == replaced) == (True, True)
    assert again.headers["etag"] != got.headers["etag"]


async def test_an_object_deleted_while_it_streams_is_given_whole_or_broken(patient: Site) -> None:
    site = patient
    await site.bucket.put("huge.jpg", HUGE)
    site.proxy.faults = Faults(bytes_per_s=4_000_000)
    begin = site.proxy.bytes_down
    reading = asyncio.create_task(site.take("huge.jpg"))
    await eventually(lambda: site.proxy.bytes_down > begin + 500_000)
    await site.bucket.delete("huge.jpg")
    site.proxy.heal()
    got = await reading
    assert HUGE.startswith(got.body)
    assert got.whole == (len(got.body) == len(HUGE))
    again = await site.take("huge.jpg")
    assert (again.status, again.slug) == (404, "object-not-found")


async def test_an_object_replaced_between_two_parts_is_told(patient: Site) -> None:
    site, new = patient, pattern(LONG_BYTES // 2, 4)
    await site.bucket.put("long.jpg", LONG)
    first = await site.take("long.jpg", Range="bytes=0-99")
    etag = first.headers["etag"]
    await site.bucket.put("long.jpg", new)
    held = await site.take("long.jpg", Range="bytes=100-199", **{"If-Match": etag})
    assert (held.status, held.slug) == (412, "precondition-failed")
    asked = await site.take("long.jpg", Range="bytes=100-199", **{"If-Range": etag})
    assert (asked.status, asked.body == new) == (200, True)
    bare = await site.take("long.jpg", Range="bytes=100-199")
    assert (bare.status, bare.body == new[100:200], bare.headers["etag"] != etag) == (206, True, True)
    past = await site.take("long.jpg", Range=f"bytes={LONG_BYTES - 100}-")
    assert (past.status, past.headers["content-range"]) == (416, f"bytes */{len(new)}")
    await site.bucket.delete("long.jpg")
    gone = await site.take("long.jpg", Range="bytes=100-199")
    assert (gone.status, gone.slug) == (404, "object-not-found")


class Lying:
    """One object of a bucket that answers as it is told to."""

    def __init__(self, reader: httpx.AsyncClient, bucket: FakeBucket, path: str) -> None:
        self.reader, self.bucket, self.path = reader, bucket, path

    async def take(self, *answers: bytes, closes: bool = False, **headers: str) -> Taken:
        """Let the bucket answer so, and read the object."""
        self.bucket.say(*answers, closes=closes)
        return await take(self.reader, self.path, **headers)


@pytest_asyncio.fixture(**BOTH_WAYS)
async def lying(request: pytest.FixtureRequest, open_site: OpenSite) -> AsyncIterator[Lying]:
    """A service, once for each way, and a bucket that says what it is told to say."""
    async with FakeBucket() as bucket, open_site(lane=request.param) as site:
        keys = {"type": "key_pair", "access_key_id": "AKIDEXAMPLE", "secret_access_key": "s" * 40}
        source = {"provider": "s3", "bucket": "pets", "endpoint_url": bucket.url, "auth": keys}
        storage_id = await site.service.attach({"display_name": "Liar", "source": source})
        yield Lying(site.service.admin, bucket, f"/v1/storages/{storage_id}/objects/a.jpg")


@pytest.mark.parametrize(
    ("status", "code", "asked", "expected"),
    [
        ("500 Internal Server Error", "InternalError", 2, (502, "storage-error")),
        ("502 Bad Gateway", "", 1, (502, "storage-error")),
        ("503 Slow Down", "SlowDown", 2, (503, "storage-throttled")),
        ("503 Service Unavailable", "ServiceUnavailable", 2, (503, "storage-throttled")),
        ("429 Too Many Requests", "TooManyRequests", 1, (503, "storage-throttled")),
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


async def test_a_throttling_bucket_says_when_to_come_again(lying: Lying) -> None:
    got = await lying.take(refusal("503 Slow Down", "SlowDown", Retry_After="7"))
    assert (got.status, got.headers["retry-after"]) == (503, "7")


async def test_one_failure_of_the_bucket_is_not_seen(lying: Lying) -> None:
    failed = refusal("500 Internal Server Error", "InternalError")
    got = await lying.take(failed, answer("200 OK", SMALL))
    assert (got.status, got.body == SMALL) == (200, True)


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
    lying.bucket.head = answer("200 OK", length=LONG_BYTES)
    got = await lying.take(answer("200 OK", LONG, -1), closes=True)
    assert (got.status, got.whole, got.body == LONG) == (200, True, True)
    got = await lying.take(answer("200 OK", LONG[:-1], -1), closes=True)
    assert_broken(got, LONG)


async def test_bytes_beyond_the_length_reach_nobody(lying: Lying) -> None:
    poison = answer("200 OK", b"poison")
    for whole in (SMALL, LONG):
        got = await lying.take(answer("200 OK", whole) + poison)
        assert (got.whole, got.body == whole) == (True, True)
        got = await lying.take(answer("200 OK", whole))
        assert (got.whole, got.body == whole) == (True, True)


async def test_another_part_than_the_asked_one_is_not_given(lying: Lying) -> None:
    wrong = answer("206 Partial Content", SMALL[:10], Content_Range=f"bytes 0-9/{SMALL_BYTES}")
    got = await lying.take(wrong, answer("200 OK", SMALL), Range="bytes=10-19")
    assert (got.status, got.body) == (206, SMALL[10:20])


@pytest.mark.parametrize(
    "said", [b"", b"\r\n\r\n", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"]
)
async def test_what_is_no_answer_is_a_problem(lying: Lying, said: bytes) -> None:
    got = await lying.take(said, closes=True)
    assert (got.status, got.slug) == (502, "storage-error")
