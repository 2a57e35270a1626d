"""Bodies that break off in the middle: gone on with at the same byte of the same object, or visibly broken."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.storage.resuming import MOST_RESUMES, MOST_SKIPPED_BYTES
from tests.faults.conftest import LONG, LONG_BYTES, Lying, Taken, assert_broken, counted, eventually, pattern
from tests.faults.fake_bucket import Asked, Cut, Saying, Stored, answer, chunked, refusal

HALF = LONG_BYTES // 2
STORED = Stored(LONG)
NEW = pattern(LONG_BYTES, 9)
HUGE = LONG + LONG


def broken_after(count: int, stored: Stored = STORED, *, with_reset: bool = False) -> Callable[[Asked], Cut]:
    """Answer as a server that breaks off after so many bytes of the body."""

    def say(asked: Asked) -> Cut:
        said = stored(asked)
        return Cut(said[: said.index(b"\r\n\r\n") + 4 + count], with_reset)

    return say


def assert_whole(got: Taken, whole: bytes = LONG, status: int = 200) -> None:
    """Nothing was to be seen."""
    assert (got.status, got.whole, got.body == whole) == (status, True, True)


async def test_a_resume_asks_for_the_rest_of_the_same_object_signed_anew(lying: Lying) -> None:
    reader = lying.site.service.admin
    resumed = await counted(reader, 'framegate_upstream_resumes_total{outcome="resumed"}')
    assert_whole(await lying.take(broken_after(HALF), STORED))
    first, second = lying.bucket.seen
    assert second.headers["range"] == f"bytes={HALF}-{LONG_BYTES - 1}"
    assert (first.headers.get("if-match"), second.headers["if-match"]) == (None, '"v1"')
    assert second.headers["authorization"].startswith("AWS4-HMAC-SHA256 ")
    assert await counted(reader, 'framegate_upstream_resumes_total{outcome="resumed"}') == resumed + 1


async def test_a_part_is_resumed_within_its_own_bounds(lying: Lying) -> None:
    got = await lying.take(broken_after(HALF), STORED, Range="bytes=100000-899999")
    assert_whole(got, LONG[100_000:900_000], 206)
    assert lying.bucket.seen[1].headers["range"] == f"bytes={100_000 + HALF}-899999"
    got = await lying.take(broken_after(HALF), STORED, Range="bytes=-900000")
    assert_whole(got, LONG[-900_000:], 206)


async def test_a_body_is_resumed_three_times_and_no_more(lying: Lying) -> None:
    step = LONG_BYTES // 5
    assert_whole(await lying.take(*[broken_after(step)] * MOST_RESUMES, STORED))
    got = await lying.take(broken_after(step))
    assert_broken(got, LONG)
    assert (len(got.body), lying.bucket.asked) == (step * (MOST_RESUMES + 1), MOST_RESUMES + 1)


async def test_a_resume_that_brings_nothing_is_the_last(lying: Lying) -> None:
    assert_broken(await lying.take(broken_after(HALF), broken_after(0)), LONG)
    assert lying.bucket.asked == 2
    assert_whole(await lying.take(broken_after(0), STORED))


async def test_a_resume_is_tried_again_as_every_request_is(lying: Lying) -> None:
    busy = refusal("503 Slow Down", "SlowDown")
    assert_whole(await lying.take(broken_after(HALF), busy, Cut(b""), STORED))


@pytest.mark.parametrize(
    "rest",
    [
        refusal("412 Precondition Failed", "PreconditionFailed"),
        refusal("404 Not Found", "NoSuchKey"),
        refusal("403 Forbidden", "AccessDenied"),
        refusal("416 Range Not Satisfiable", "InvalidRange"),
        Stored(NEW, {"ETag": '"v2"'}, conditions=False),
        Stored(NEW, {"ETag": '"v2"'}, conditions=False, ranges=False),
        Stored(NEW, {"ETag": 'W/"v1"'}, conditions=False),
        Stored(NEW, {}, conditions=False),
        Stored(NEW + b"x", conditions=False),
        Stored(NEW[:-1], conditions=False, ranges=False),
        answer("206 Partial Content", NEW[HALF:], ETag='"v1"'),
        answer("206 Partial Content", NEW[:9], ETag='"v1"', Content_Range=f"bytes 0-8/{LONG_BYTES}"),
        answer("200 OK", NEW[HALF:], ETag='"v1"', Content_Range="bytes nonsense"),
        answer("304 Not Modified", length=-1, ETag='"v1"'),
        chunked("200 OK", NEW, ETag='"v1"'),
    ],
    ids=[
        "412", "404", "403", "416", "another-etag", "another-etag-whole", "weak-etag", "no-etag", "another-size",
        "another-size-whole", "no-content-range", "another-part", "odd-200", "304", "unknown-length",
    ],
)  # fmt: skip
async def test_what_is_not_the_rest_of_the_same_object_breaks_the_answer(lying: Lying, rest: Saying) -> None:
    got = await lying.take(broken_after(HALF), rest)
    assert_broken(got, LONG)
    assert (len(got.body), lying.bucket.asked) == (HALF, 2)


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"v1"'}], ids=["no-etag", "weak-etag"])
async def test_without_a_strong_etag_nothing_is_resumed(lying: Lying, headers: dict[str, str]) -> None:
    got = await lying.take(broken_after(HALF, Stored(LONG, headers)), STORED)
    assert_broken(got, LONG)
    assert lying.bucket.asked == 1


async def test_a_server_with_odd_ranges_is_resumed_where_that_is_cheap(lying: Lying) -> None:
    beside_200 = replace(STORED, part="200 OK")
    assert_whole(await lying.take(broken_after(HALF), beside_200))
    rangeless = replace(STORED, ranges=False)
    assert_whole(await lying.take(broken_after(HALF), rangeless))
    assert_whole(await lying.take(broken_after(HALF), rangeless, Range="bytes=7-"), LONG[7:], 206)
    far = Stored(HUGE, ranges=False)
    got = await lying.take(broken_after(MOST_SKIPPED_BYTES + 1, far), far)
    assert_broken(got, HUGE)


async def test_a_rest_of_unknown_length_is_held_against_its_range(lying: Lying) -> None:
    told = {"ETag": '"v1"', "Content-Range": f"bytes {HALF}-{LONG_BYTES - 1}/{LONG_BYTES}"}
    assert_whole(await lying.take(broken_after(HALF), chunked("206 Partial Content", LONG[HALF:], **told)))
    short = chunked("206 Partial Content", LONG[HALF:-1], **told)
    got = await lying.take(broken_after(HALF), short, Cut(b""))
    assert_broken(got, LONG)
    assert len(got.body) == LONG_BYTES - 1


async def test_a_chunked_object_is_resumed_at_the_size_that_head_told(lying: Lying) -> None:
    whole = chunked("200 OK", LONG, ETag='"v1"')
    got = await lying.take(whole, Cut(whole[:HALF]), STORED, head=STORED)
    assert_whole(got)


async def test_a_client_that_goes_while_a_body_is_resumed_is_not_waited_for(
    lying: Lying, caplog: pytest.LogCaptureFixture
) -> None:
    asked_again = asyncio.Event()

    def hangs(asked: Asked) -> bytes:
        asked_again.set()
        return b""

    lying.bucket.say(broken_after(HALF), hangs)
    async with lying.site.service.admin.stream("GET", lying.path):
        await asked_again.wait()
    bucket = await lying.site.opened()
    await eventually(lambda: not bucket.busy)
    assert "answer_aborted" not in caplog.text  # as it would be after the time-out


@dataclass
class Schedule:
    """Where the bucket breaks off, answer by answer; after the last break it is well, and perhaps another."""

    breaks: list[tuple[int, bool]]
    stored: Stored
    after: Stored | None = None
    given: list[int] = field(default_factory=list)

    def __call__(self, asked: Asked) -> bytes | Cut:
        """Answer a GET."""
        if not self.breaks:
            return (self.after or self.stored)(asked)
        count, with_reset = self.breaks.pop(0)
        return broken_after(count, self.stored, with_reset=with_reset)(asked)


HABITS = [{}, {"part": "200 OK"}, {"ranges": False}, {"conditions": False}, {"headers": {"ETag": 'W/"v"'}}]
places = st.sampled_from([-9, -1, 0, 1, 70_000, 250_000, 300_000]) | st.integers(0, 350_000)


async def test_a_clients_bytes_are_a_prefix_and_whole_exactly_if_they_end_cleanly(lying: Lying) -> None:
    """Whatever the schedule: small objects and long ones, parts and wholes, resets and FINs, replaced or not."""
    headers = dict(lying.site.service.admin.headers)

    @given(
        size=st.sampled_from([1, 1000, 262_144, 262_145, 350_000]),
        start=st.none() | places,
        breaks=st.lists(st.tuples(places, st.booleans()), max_size=5),
        habits=st.sampled_from(HABITS),
        replaced=st.booleans(),
    )
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    def scheduled(
        size: int,
        start: int | None,
        breaks: list[tuple[int, bool]],
        habits: dict[str, object],
        replaced: bool,
    ) -> None:
        truth, other = LONG[:size], Stored(NEW[:size], {"ETag": '"v2"'})
        start = None if start is None else max(0, start) % size
        stored = Stored(truth, **habits)  # type: ignore[arg-type]
        cuts = [(max(0, place), with_reset) for place, with_reset in breaks]
        lying.bucket.say(Schedule(cuts, stored, other if replaced else None), head=stored)
        status, whole, body = read(f"{lying.site.service.url}{lying.path}", headers, start)
        wanted = [truth[start or 0 :]] + ([other.data[start or 0 :]] if replaced else [])
        assert status in {200, 206, 502}
        if status != 502:
            assert any(one.startswith(body) for one in wanted)
            assert whole == (body in wanted)

    async with asyncio.timeout(60):
        await asyncio.to_thread(scheduled)


def read(url: str, headers: dict[str, str], start: int | None) -> tuple[int, bool, bytes]:
    """Read like any client, in a thread of its own: status, whether it ended cleanly, bytes."""
    ranged = headers if start is None else {**headers, "Range": f"bytes={start}-"}
    body = b""
    with httpx.Client(trust_env=False) as reader, reader.stream("GET", url, headers=ranged) as got:
        try:
            for piece in got.iter_raw():
                body += piece
        except (httpx.RemoteProtocolError, httpx.ReadError):
            return got.status_code, False, body
        return got.status_code, True, body
