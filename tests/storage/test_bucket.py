"""Reads through a Bucket: exact HTTP for the client, whatever kind of server stands behind it.

The double is a small origin server with switchable bad habits. It shares no code with the subject.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import (
    AccessDeniedError,
    BrokenStreamError,
    InvalidInputError,
    InvalidKeyError,
    ObjectMissingError,
    ObjectTooLargeError,
    PreconditionFailedError,
    RangeNotSatisfiableError,
    StorageError,
    ThrottledError,
    UpstreamError,
)
from app.storage import retries
from app.storage.base import (
    Answer,
    ByteRange,
    Capabilities,
    ListedObject,
    ListPage,
    ObjectRead,
    Origin,
    ReadOptions,
    SignedRequest,
    Suffix,
)
from app.storage.bucket import Bucket
from app.storage.gate import Gate
from tests.apart import run_apart

DATA = bytes(range(10)) * 10
THEN = datetime(2024, 5, 17, 10, 30, tzinfo=UTC)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_PAUSE_S", 0.0)


class Body:
    """A stream of small chunks that knows whether it was closed."""

    def __init__(self, data: bytes, promised: int | None = None) -> None:
        self._data = data
        self._promised = len(data) if promised is None else promised
        self.closed = 0
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._data), 7):
            await asyncio.sleep(0)
            self.taken = start + 7
            yield self._data[start : start + 7]
        if len(self._data) < self._promised:
            raise BrokenStreamError("cut")

    async def aclose(self) -> None:
        self.closed += 1


@dataclass
class Server:
    """One object `k`, its validators, and the habits of the server that keeps it."""

    data: bytes = DATA
    etag: str | None = '"v1"'
    modified: datetime | None = THEN
    streams: bool = False
    ranges: bool = True
    status_of_part: int = 206
    suffixes: bool = True
    content_ranges: bool = True
    conditions: bool = True
    chunked: bool = False
    refuses_suffix_by: int | None = None
    more: dict[str, str] = field(default_factory=dict)
    script: list[Answer | Callable[["Server"], None]] = field(default_factory=list)
    """Answers to give first instead, or changes to make just before the request is answered."""
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    bodies: list[Body] = field(default_factory=list)

    async def send(self, request: SignedRequest) -> Answer:
        headers = {name.decode(): value.decode("latin-1") for name, value in request.headers}
        self.seen.append((request.method, headers))
        await asyncio.sleep(0)
        if self.script:
            step = self.script.pop(0)
            if isinstance(step, Answer):
                return step
            step(self)
        if request.target != b"/k":
            return self.answer(404, b"gone")
        return self.head() if request.method == "HEAD" else self.get(headers)

    def head(self) -> Answer:
        length = {} if self.chunked else {"content-length": str(len(self.data))}
        return Answer(200, self.headers(length), b"", None if self.chunked else len(self.data))

    def get(self, headers: dict[str, str]) -> Answer:
        if self.conditions and headers.get("if-none-match") == self.etag is not None:
            return Answer(304, self.headers({}), b"", 0)
        if self.conditions and headers.get("if-match", self.etag) != self.etag:
            return self.answer(412, b"<Code>PreconditionFailed</Code>")
        if "range" not in headers or not self.ranges:
            return self.answer(200, self.data)
        return self.part(headers["range"])

    def part(self, text: str) -> Answer:
        found = re.fullmatch(r"bytes=(\d*)-(\d*)", text)
        assert found, text
        size = len(self.data)
        if not found[1]:
            if not self.suffixes:
                return self.answer(self.refuses_suffix_by or 200, self.data)
            first, last = size - min(size, int(found[2])), size - 1
        else:
            first, last = int(found[1]), min(size - 1, int(found[2] or size))
        if first > last:
            return self.answer(416, b"no", {"content-range": f"bytes */{size}"})
        named = {"content-range": f"bytes {first}-{last}/{size}"} if self.content_ranges else {}
        return self.answer(self.status_of_part, self.data[first : last + 1], named)

    def answer(self, status: int, body: bytes, more: Mapping[str, str] = {}) -> Answer:
        headers = self.headers({"content-length": str(len(body)), **more})
        length = None if self.chunked else len(body)
        if not self.streams:
            return Answer(status, headers, body, length)
        self.bodies.append(Body(body))
        return Answer(status, headers, self.bodies[-1], length)

    def headers(self, more: Mapping[str, str]) -> dict[bytes, bytes]:
        shown = {"content-type": "image/png", **self.more, **more}
        if self.etag is not None:
            shown["etag"] = self.etag
        if self.modified is not None:
            shown["last-modified"] = format_datetime(self.modified, usegmt=True)
        if self.chunked:
            shown.pop("content-length", None)
        return {name.encode(): value.encode("latin-1") for name, value in shown.items()}


class Signer:
    """The provider's part that a Bucket calls."""

    origin = Origin("https", "bucket.example", 443)

    def __init__(self, suffixes: bool) -> None:
        self.capabilities = Capabilities(suffix_ranges=suffixes)
        self.clock_skew_s = 0.0
        self.listed: list[tuple[str, str, str | None, int]] = []
        self.closed = 0
        self.clock_is_wrong = False

    def sign(self, method: str, key: str, extra: Sequence[tuple[bytes, bytes]] = ()) -> SignedRequest:
        return SignedRequest(self.origin, method, b"/" + key.encode(), tuple(extra))  # type: ignore[arg-type]

    def adjust_clock(self, answer: Answer) -> bool:
        learned, self.clock_is_wrong = self.clock_is_wrong and answer.status == 403, False
        return learned

    def explain(self, status: int, headers: Mapping[bytes, bytes], body: bytes, key: str) -> StorageError:
        if status == 404:
            return ObjectMissingError(key)
        if status == 403:
            return AccessDeniedError("no", at="auth/secret_access_key")
        return UpstreamError(f"{status} {len(body)}")

    async def list(self, prefix: str, delimiter: str, cursor: str | None, limit: int) -> ListPage:
        self.listed.append((prefix, delimiter, cursor, limit))
        return ListPage([ListedObject("a/", is_prefix=True), ListedObject("x.jpg", size_bytes=1)], "next")

    async def check_access(self) -> None:
        raise AccessDeniedError("no List")

    async def put(self, key: str, body: bytes) -> None:
        self.listed.append(("put", key, None, len(body)))

    async def delete(self, key: str) -> None:
        self.listed.append(("delete", key, None, 0))

    async def aclose(self) -> None:
        self.closed += 1


def bucket_over(server: Server, *, suffixes: bool = True, concurrency: int = 4, queue: int = 4) -> Bucket:
    return Bucket(Signer(suffixes), server, Gate(concurrency, queue), "pre/")


async def take(read: ObjectRead) -> bytes:
    if isinstance(read.body, bytes):
        return read.body
    try:
        return b"".join([chunk async for chunk in read.body])
    finally:
        await read.body.aclose()


WELL_BEHAVED: list[dict[str, object]] = [{}, {"streams": True}]
ODD: list[dict[str, object]] = [
    {"ranges": False},
    {"ranges": False, "streams": True},
    {"status_of_part": 200},
    {"status_of_part": 200, "streams": True},
    {"content_ranges": False},
    {"suffixes": False},
    {"suffixes": False, "refuses_suffix_by": 416},
    {"conditions": False},
    {"etag": None},
    {"etag": None, "modified": None, "ranges": False},
    {"etag": "bare"},
    {"etag": 'W/"weak"'},
    {"chunked": True, "ranges": False},
]
RANGES = [
    (ByteRange(0, 1), (0, 1)),
    (ByteRange(99, 100), (99, 100)),
    (ByteRange(10, 20), (10, 20)),
    (ByteRange(95), (95, 100)),
    (ByteRange(95, 1000), (95, 100)),
    (ByteRange(0), (0, 100)),
    (Suffix(3), (97, 100)),
    (Suffix(1000), (0, 100)),
]


@pytest.mark.parametrize("habits", WELL_BEHAVED + ODD, ids=str)
@pytest.mark.parametrize("suffixes", [True, False], ids=["suffix", "no-suffix"])
@pytest.mark.parametrize(("wanted", "part"), RANGES, ids=str)
async def test_every_kind_of_server_gives_the_exact_part(
    habits: dict[str, object], suffixes: bool, wanted: ByteRange | Suffix, part: tuple[int, int]
) -> None:
    server = Server(**habits)  # type: ignore[arg-type]
    read = await bucket_over(server, suffixes=suffixes).open("k", ReadOptions(range=wanted))
    assert (read.part, await take(read), read.meta.size_bytes) == (part, DATA[slice(*part)], 100)
    assert all(body.closed == 1 for body in server.bodies)


@given(data=st.binary(max_size=60), habits=st.sampled_from(WELL_BEHAVED + ODD[:7]), suffixes=st.booleans(),
       wanted=st.builds(Suffix, st.integers(0, 70)) | st.builds(
           lambda start, length: ByteRange(start, None if length is None else start + length),
           st.integers(0, 70), st.none() | st.integers(1, 70)))  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_a_range_is_a_slice_on_every_kind_of_server(
    data: bytes, habits: dict[str, object], suffixes: bool, wanted: ByteRange | Suffix
) -> None:
    async def run() -> bytes | None:
        server = Server(data=data, **habits)  # type: ignore[arg-type]
        try:
            return await take(
                await bucket_over(server, suffixes=suffixes).open("k", ReadOptions(range=wanted))
            )
        except RangeNotSatisfiableError:
            return None
        finally:
            assert all(body.closed == 1 for body in server.bodies)

    if isinstance(wanted, Suffix):
        expected = data[max(0, len(data) - wanted.length_bytes) :] if wanted.length_bytes else None
    else:
        expected = data[wanted.start : wanted.stop] or None
    assert run_apart(run()) == expected


@pytest.mark.parametrize("habits", WELL_BEHAVED + ODD, ids=str)
@pytest.mark.parametrize("wanted", [ByteRange(100), ByteRange(100, 200), Suffix(0)], ids=str)
async def test_past_the_end_tells_the_size(habits: dict[str, object], wanted: ByteRange | Suffix) -> None:
    server = Server(**habits)  # type: ignore[arg-type]
    with pytest.raises(RangeNotSatisfiableError) as caught:
        await bucket_over(server).open("k", ReadOptions(range=wanted))
    assert caught.value.size_bytes == 100
    assert all(body.closed for body in server.bodies)


@pytest.mark.parametrize("habits", WELL_BEHAVED + ODD[:8], ids=str)
@pytest.mark.parametrize("suffixes", [True, False])
async def test_an_empty_object_has_no_first_byte_but_an_empty_end(
    habits: dict[str, object], suffixes: bool
) -> None:
    bucket = bucket_over(Server(data=b"", **habits), suffixes=suffixes)  # type: ignore[arg-type]
    whole, end = await bucket.open("k"), await bucket.open("k", ReadOptions(range=Suffix(5)))
    assert (await take(whole), whole.part, await take(end), end.part) == (b"", None, b"", None)
    with pytest.raises(RangeNotSatisfiableError):
        await bucket.open("k", ReadOptions(range=ByteRange(0)))


async def test_a_part_of_nothing_as_azurite_says_it_is_unsatisfiable() -> None:
    server = Server(data=b"")
    server.script = [Answer(206, {b"content-range": b"bytes 0--1/0", b"content-length": b"0"}, b"", 0)]
    with pytest.raises(RangeNotSatisfiableError) as caught:
        await bucket_over(server).open("k", ReadOptions(range=ByteRange(0)))
    assert caught.value.size_bytes == 0


@pytest.mark.parametrize(
    "named", ["bytes 0-9/100", "bytes 10-18/100", "bytes 10-19/*", "bytes 10-19/15", "pages 10-19/100", ""]
)
async def test_a_part_that_is_not_the_asked_one_is_thrown_away(named: str) -> None:
    server = Server()
    wrong = Answer(206, {b"content-range": named.encode()}, b"X" * 10, 10)
    server.script = [wrong]
    read = await bucket_over(server).open("k", ReadOptions(range=ByteRange(10, 20)))
    assert await take(read) == DATA[10:20]


@pytest.mark.parametrize("method", ["open", "head"])
@pytest.mark.parametrize("habits", WELL_BEHAVED + ODD[:8], ids=str)
async def test_a_current_copy_is_not_sent_again(method: str, habits: dict[str, object]) -> None:
    server = Server(**habits)  # type: ignore[arg-type]
    bucket = bucket_over(server)
    for options in (
        ReadOptions(if_none_match=('"v1"',)),
        ReadOptions(if_none_match=('W/"v1"', '"x"')),
        ReadOptions(if_none_match=("*",)),
        ReadOptions(if_modified_since=THEN),
        ReadOptions(if_none_match=('"v1"',), range=ByteRange(0, 1)),
        ReadOptions(if_none_match=('"v1"',), range=ByteRange(500)),
    ):
        read = await getattr(bucket, method)("k", options)
        assert read.not_modified
        assert (read.body, read.part, read.meta.etag) == (b"", None, '"v1"')
    assert all(body.closed for body in server.bodies)


async def test_one_strong_tag_spares_the_body() -> None:
    server = Server()
    await bucket_over(server).open("k", ReadOptions(if_none_match=('"v1"',)))
    await bucket_over(server).open("k", ReadOptions(if_none_match=('"v0"', '"v1"')))
    assert [headers.get("if-none-match") for _, headers in server.seen] == ['"v1"', None]


async def test_a_304_for_another_object_is_not_believed() -> None:
    server = Server(etag='"v2"')
    server.script = [Answer(304, {b"etag": b'"v2"', b"x-amz-checksum-crc32": b"AAAA"}, b"", 0)]
    read = await bucket_over(server).open("k", ReadOptions(if_none_match=('"v1"',)))
    assert (read.not_modified, await take(read)) == (False, DATA)


async def test_a_304_without_headers_repeats_the_readers_tag() -> None:
    server = Server(script=[Answer(304, {}, b"", 0)])
    read = await bucket_over(server).open("k", ReadOptions(if_none_match=('"v1"',)))
    assert (read.not_modified, read.meta.etag) == (True, '"v1"')


@pytest.mark.parametrize("method", ["open", "head"])
@pytest.mark.parametrize("habits", WELL_BEHAVED + ODD[:8], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        ReadOptions(if_match=('"v0"',)),
        ReadOptions(if_match=('W/"v1"',)),
        ReadOptions(if_unmodified_since=THEN - timedelta(seconds=1)),
        ReadOptions(if_match=('"v0"',), if_none_match=('"v1"',)),
        ReadOptions(if_match=('"v0"',), range=ByteRange(500)),
        ReadOptions(if_match=('"v0"',), range=Suffix(5)),
    ],
    ids=str,
)
async def test_a_failed_condition_comes_before_bytes_and_ranges(
    method: str, habits: dict[str, object], options: ReadOptions
) -> None:
    server = Server(**habits)  # type: ignore[arg-type]
    with pytest.raises(PreconditionFailedError):
        await getattr(bucket_over(server), method)("k", options)
    assert all(body.closed for body in server.bodies)


@pytest.mark.parametrize("habits", WELL_BEHAVED + ODD[:7], ids=str)
@pytest.mark.parametrize("suffixes", [True, False])
@pytest.mark.parametrize(
    ("if_range", "holds"),
    [('"v1"', True), ('"v0"', False), ('W/"v1"', False), (THEN, True), (THEN - timedelta(seconds=1), False)],
    ids=str,
)
@pytest.mark.parametrize("wanted", [ByteRange(10, 20), Suffix(10), ByteRange(500)], ids=str)
async def test_a_part_is_given_only_of_the_object_the_reader_has(
    habits: dict[str, object],
    suffixes: bool,
    if_range: str | datetime,
    holds: bool,
    wanted: ByteRange | Suffix,
) -> None:
    server = Server(**habits)  # type: ignore[arg-type]
    opening = bucket_over(server, suffixes=suffixes).open("k", ReadOptions(range=wanted, if_range=if_range))
    if holds and wanted == ByteRange(500):
        with pytest.raises(RangeNotSatisfiableError):
            await opening
        return
    read = await opening
    expected = (DATA[10:20] if wanted == ByteRange(10, 20) else DATA[90:]) if holds else DATA
    assert (await take(read), read.part is not None) == (expected, holds)
    assert all(body.closed for body in server.bodies)


async def test_an_object_replaced_between_head_and_get_gives_one_object_only() -> None:
    def replace(server: Server) -> None:
        server.data, server.etag = b"new" * 50, '"v2"'

    server = Server(script=[lambda server: None, replace])
    read = await bucket_over(server, suffixes=False).open("k", ReadOptions(range=Suffix(3)))
    assert (await take(read), read.part, read.meta.etag) == (b"new", (147, 150), '"v2"')


@pytest.mark.parametrize("etag", [None, 'W/"v"'])
async def test_without_a_strong_tag_size_and_date_tell_a_replaced_object(etag: str | None) -> None:
    def replace(server: Server) -> None:
        server.data, server.modified = b"n" * 100, THEN + timedelta(seconds=5)

    server = Server(etag=etag, script=[lambda server: None, replace])
    read = await bucket_over(server, suffixes=False).open("k", ReadOptions(range=Suffix(3)))
    assert await take(read) == b"nnn"


async def test_an_object_that_never_stands_still_is_an_honest_failure() -> None:
    def grow(server: Server) -> None:
        server.data += b"."
        server.etag = f'"{len(server.data)}"'

    server = Server(script=[grow] * 50)
    with pytest.raises(UpstreamError):
        await bucket_over(server, suffixes=False).open("k", ReadOptions(range=Suffix(3)))
    assert len(server.seen) < 15


async def test_head_equals_get_and_ignores_the_range() -> None:
    bucket = bucket_over(Server(more={"content-encoding": "gzip"}))
    head = await bucket.head("k", ReadOptions(range=ByteRange(500)))
    got = await bucket.open("k")
    assert (head.meta, head.body, head.part) == (got.meta, b"", None)
    assert head.meta.content_encoding == "gzip"


async def test_an_unknown_length_is_learned_by_head_or_is_a_failure() -> None:
    server = Server(chunked=True, streams=True, ranges=False)

    def remember(server: Server) -> None:
        server.chunked = False

    server.script = [lambda server: None, remember, lambda server: setattr(server, "chunked", True)]
    read = await bucket_over(server).open("k")
    assert (read.meta.size_bytes, await take(read)) == (100, DATA)
    with pytest.raises(UpstreamError):
        await bucket_over(server).open("k")
    assert all(body.closed for body in server.bodies)


async def test_a_head_without_length_is_made_up_for_by_one_byte() -> None:
    server = Server(chunked=True, streams=True)
    bucket = bucket_over(server)
    head, read = await bucket.head("k"), await bucket.open("k")
    assert (head.meta, await take(read)) == (read.meta, DATA)
    assert head.meta.size_bytes == 100
    assert {headers.get("range") for _, headers in server.seen} == {None, "bytes=0-0"}
    part = await bucket.open("k", ReadOptions(range=Suffix(3)))
    assert (part.part, await take(part)) == ((97, 100), DATA[97:])
    assert all(body.closed for body in server.bodies)


async def test_a_part_of_no_told_length_is_held_against_its_range() -> None:
    for body, fits in ((DATA[10:20], True), (DATA[10:30], True), (DATA[10:19], False)):
        told = {b"content-range": b"bytes 10-19/100"}
        server = Server(etag=None, script=[Answer(206, told, Body(body), None)])
        read = await bucket_over(server).open("k", ReadOptions(range=ByteRange(10, 20)))
        if fits:
            assert await take(read) == DATA[10:20]
            continue
        with pytest.raises(BrokenStreamError):
            await take(read)


async def test_what_is_unpacked_on_the_way_is_a_failure_and_never_cut_to_the_packed_length() -> None:
    class Unpacking(Server):
        def head(self) -> Answer:
            return Answer(200, self.headers({"content-length": "20", "content-encoding": "gzip"}), b"", 20)

    server = Unpacking(streams=True, chunked=True, ranges=False)
    with pytest.raises(UpstreamError):
        await bucket_over(server).open("k")
    assert all(body.closed for body in server.bodies)


async def test_missing_validators_are_none() -> None:
    read = await bucket_over(Server(etag=None, modified=None)).open("k")
    assert (read.meta.etag, read.meta.last_modified) == (None, None)


async def test_a_missing_object_and_a_refusal_are_explained_and_closed() -> None:
    server = Server(streams=True)
    with pytest.raises(ObjectMissingError):
        await bucket_over(server).open("other")
    assert [body.closed for body in server.bodies] == [1]


async def test_no_more_of_an_errors_body_is_read_than_explains_it() -> None:
    body = Body(b"x" * 1_000_000)
    server = Server(script=[Answer(405, {}, body, 1_000_000)])
    with pytest.raises(UpstreamError, match="405 65536"):
        await bucket_over(server).open("k")
    assert body.closed == 1
    assert body.taken < 70_000


async def test_an_errors_body_that_breaks_off_still_explains() -> None:
    server = Server(script=[Answer(405, {}, Body(b"<Code>", promised=100), 100)])
    with pytest.raises(UpstreamError, match="405 6"):
        await bucket_over(server).open("k")


async def test_a_wrong_clock_is_corrected_once_and_a_wrong_secret_is_not_tried_again() -> None:
    server = Server(script=[Answer(403, {}, b"", 0)])
    bucket = bucket_over(server)
    bucket._provider.clock_is_wrong = True  # type: ignore[attr-defined]
    assert await take(await bucket.open("k")) == DATA
    server.script = [Answer(403, {}, b"", 0)]
    with pytest.raises(AccessDeniedError):
        await bucket.open("k")
    assert len(server.seen) == 3


@pytest.mark.parametrize("status", [204, 206, 304, 412, 416])
async def test_an_answer_that_no_plain_read_can_have_is_a_failure(status: int) -> None:
    body = Body(b"x")
    server = Server(script=[Answer(status, {}, body, 1)])
    with pytest.raises(UpstreamError):
        await bucket_over(server).open("k")
    assert body.closed == 1


async def test_a_short_body_never_ends_cleanly() -> None:
    for options, script in (
        (ReadOptions(), Answer(200, {}, Body(DATA[:50], promised=100), 100)),
        (ReadOptions(range=ByteRange(60, 70)), Answer(200, {}, Body(DATA[:50]), 100)),
    ):
        read = await bucket_over(Server(script=[script])).open("k", options)
        with pytest.raises(BrokenStreamError):
            await take(read)


async def test_a_place_is_held_until_the_stream_is_closed_and_given_back_once() -> None:
    server = Server(streams=True)
    bucket = bucket_over(server, concurrency=1, queue=1)
    first = await bucket.open("k")
    second = asyncio.ensure_future(bucket.open("k"))
    await asyncio.sleep(0.01)
    with pytest.raises(ThrottledError):
        await bucket.open("k")
    assert (second.done(), bucket.busy) == (False, True)
    assert not isinstance(first.body, bytes)
    await first.body.aclose()
    await first.body.aclose()
    assert await take(await second) == DATA
    assert not bucket.busy
    assert await take(await bucket.open("k")) == DATA


async def test_failures_and_cancellations_give_the_place_back() -> None:
    server = Server(streams=True)
    bucket = bucket_over(server, concurrency=1, queue=0)
    for _ in range(3):
        with pytest.raises(ObjectMissingError):
            await bucket.open("other")
        task = asyncio.ensure_future(bucket.open("k"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(PreconditionFailedError):
            await bucket.head("k", ReadOptions(if_match=('"no"',)))
        with pytest.raises(AccessDeniedError):
            await bucket.check_access()
    assert not bucket.busy
    assert await take(await bucket.open("k")) == DATA


async def test_a_reader_cancelled_midway_closes_the_stream() -> None:
    server = Server(streams=True, data=b"x" * 10_000)
    bucket = bucket_over(server)
    task = asyncio.ensure_future(_slowly(await bucket.open("k")))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [body.closed for body in server.bodies] == [1]
    assert not bucket.busy


async def _slowly(read: ObjectRead) -> None:
    assert not isinstance(read.body, bytes)
    try:
        async for _ in read.body:
            await asyncio.sleep(1)
    finally:
        await read.body.aclose()


async def test_a_whole_object_is_read_up_to_a_limit() -> None:
    for streams in (True, False):
        server = Server(streams=streams)
        meta, data = await bucket_over(server).read_whole("k", 100)
        assert (meta.size_bytes, data) == (100, DATA)
        with pytest.raises(ObjectTooLargeError):
            await bucket_over(server).read_whole("k", 99)
        assert all(body.closed == 1 for body in server.bodies)


@pytest.mark.parametrize("act", [Bucket.open, Bucket.head, Bucket.write_check])
async def test_a_hostile_key_reaches_no_provider(act: Callable[[Bucket, str], Awaitable[object]]) -> None:
    server = Server()
    bucket = bucket_over(server)
    with pytest.raises(InvalidKeyError):
        await act(bucket, "../other/k")
    assert (server.seen, bucket._provider.listed) == ([], [])  # type: ignore[attr-defined]


async def test_a_listing_begins_at_the_storages_prefix_and_tells_served_types() -> None:
    bucket = bucket_over(Server())
    page = await bucket.list()
    await bucket.list("other/", "/", "c", 5)
    assert bucket._provider.listed == [("pre/", "", None, 1000), ("other/", "/", "c", 5)]  # type: ignore[attr-defined]
    assert [(item.key, item.media_type) for item in page.items] == [("a/", None), ("x.jpg", "image/jpeg")]
    assert page.cursor == "next"
    with pytest.raises(InvalidInputError):
        await bucket.list("a\nb")


async def test_a_knock_takes_any_answer_and_reads_the_clock() -> None:
    ahead = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    bucket = bucket_over(Server(script=[Answer(403, {b"date": ahead.encode()}, b"", 0)]))
    await bucket.connect_check()
    assert 3590 < bucket.clock_skew_s < 3610


async def test_a_knock_carries_no_credential_and_needs_none() -> None:
    server = Server()
    await bucket_over(server).connect_check()
    assert server.seen == [("HEAD", {"host": "bucket.example:443"})]


async def test_closing_closes_the_provider_and_leaves_streams() -> None:
    bucket = bucket_over(Server(streams=True))
    read = await bucket.open("k")
    await bucket.aclose()
    assert bucket._provider.closed == 1  # type: ignore[attr-defined]
    assert await take(read) == DATA
