"""Requests that are made again before their first byte: which, how often, how soon, and how many in all."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import (
    AddressRefusedError,
    Passing,
    StorageError,
    StorageTimeoutError,
    ThrottledError,
    UnreachableError,
    UpstreamError,
)
from app.storage import retries
from app.storage.answers import retry_after_s
from app.storage.base import Answer, Capabilities, Origin, SignedRequest
from app.storage.guard import Guard
from app.storage.providers.azure_refusals import refusal_of as azure_refusal
from app.storage.providers.s3_refusals import refusal_of as s3_refusal
from app.storage.retries import RetryBudget, RetryPolicy
from app.storage.transport import Transport
from app.storage.upstream import Upstream
from tests.storage.raw_server import RawServer, system_tls

FINE = Answer(200, {}, b"x", 1)
PASSING: list[Passing] = ["refused", "connect_timeout", "no_answer", "cut_off", "stalled"]


class Body:
    """An error's body that is a stream."""

    def __init__(self) -> None:
        self.closed = 0

    async def aclose(self) -> None:
        self.closed += 1

    async def __anext__(self) -> bytes:
        raise StopAsyncIteration

    def __aiter__(self) -> "Body":
        return self


class Signer:
    """The provider's part, and a sender in one: gives `steps` in their order, the last one for ever."""

    origin = Origin("http", "bucket.example", 80)
    capabilities = Capabilities(suffix_ranges=True)
    clock_skew_s = 0.0

    def __init__(self, *steps: Answer | StorageError) -> None:
        self.steps = list(steps)
        self.signed = self.sent = 0
        self.takes_s = 0.0

    def sign(self, method: str, key: str, extra: Sequence[tuple[bytes, bytes]] = ()) -> SignedRequest:
        self.signed += 1
        return SignedRequest(self.origin, "GET", b"/k", tuple(extra))

    def adjust_clock(self, answer: Answer) -> bool:
        return answer.status == 403

    def explain(self, status: int, headers: Mapping[bytes, bytes], body: bytes, key: str) -> StorageError:
        return UpstreamError(str(status))

    async def send(self, request: SignedRequest) -> Answer:
        self.sent += 1
        await asyncio.sleep(self.takes_s)
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, StorageError):
            raise step
        return step


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that would have been made; none is."""
    made: list[float] = []
    sleep = asyncio.sleep

    async def skip(seconds: float) -> None:
        if seconds:
            made.append(seconds)
        await sleep(0)

    monkeypatch.setattr("app.storage.upstream.asyncio.sleep", skip)
    return made


def upstream_of(signer: Signer, counts: list[str] | None = None, total_s: float = 20) -> Upstream:
    retried: Callable[[str], None] = (counts if counts is not None else []).append
    return Upstream(signer, signer, RetryPolicy(total_s, retried))  # type: ignore[arg-type]  # lists no keys


@pytest.mark.parametrize("passing", [name for name in PASSING if name != "connect_timeout"])
async def test_what_may_pass_is_asked_three_times_in_all(passing: Passing, pauses: list[float]) -> None:
    counts: list[str] = []
    failing = Signer(UpstreamError("broke", passing=passing))
    with pytest.raises(UpstreamError, match="broke"):
        await upstream_of(failing, counts).ask("GET", "k")
    assert (failing.sent, failing.signed, counts) == (3, 3, [passing] * 2)
    assert await upstream_of(Signer(*[UpstreamError("", passing=passing)] * 2, FINE)).ask("GET", "k") == FINE


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (500, "server_error"),
        (502, "server_error"),
        (503, "throttled"),
        (504, "server_error"),
        (429, "throttled"),
    ],
)
async def test_a_failing_bucket_is_asked_three_times_and_its_bodies_are_closed(
    status: int, reason: str, pauses: list[float]
) -> None:
    bodies, counts = [Body() for _ in range(3)], []  # type: ignore[var-annotated]  # of strings
    signer = Signer(*(Answer(status, {}, body, None) for body in bodies))
    with pytest.raises(UpstreamError, match=str(status)):
        await upstream_of(signer, counts).ask("GET", "k")
    assert (signer.sent, counts, [body.closed for body in bodies]) == (3, [reason] * 2, [1] * 3)
    assert await upstream_of(Signer(Answer(status, {}, b"", 0), FINE)).ask("HEAD", "k") == FINE


@pytest.mark.parametrize(
    "failure",
    [
        *(Answer(status, {}, b"", 0) for status in (301, 400, 401, 404, 405, 408, 409, 410, 501, 505)),
        StorageTimeoutError("no first byte in time"),
        UnreachableError("no such name"),
        AddressRefusedError("private"),
        ThrottledError("every connection is in use"),
        UpstreamError("no HTTP"),
    ],
    ids=lambda failure: str(getattr(failure, "status", failure)),
)
async def test_what_stays_as_it_is_is_asked_once(failure: Answer | StorageError, pauses: list[float]) -> None:
    signer = Signer(failure)
    with pytest.raises(StorageError):
        await upstream_of(signer).ask("GET", "k")
    assert (signer.sent, pauses) == (1, [])


async def test_a_connection_that_does_not_come_about_in_time_is_tried_once_more(pauses: list[float]) -> None:
    signer = Signer(StorageTimeoutError("slow", passing="connect_timeout"))
    with pytest.raises(StorageTimeoutError, match="slow"):
        await upstream_of(signer).ask("GET", "k")
    assert signer.sent == 2


async def test_a_wrong_clock_is_learned_beside_other_failures_and_once(pauses: list[float]) -> None:
    counts: list[str] = []
    refused, failed = Answer(403, {}, b"", 0), Answer(500, {}, b"", 0)
    signer = Signer(failed, refused, failed, FINE)
    assert await upstream_of(signer, counts).ask("GET", "k") == FINE
    assert counts == ["server_error", "clock", "server_error"]
    signer = Signer(refused)
    with pytest.raises(UpstreamError, match="403"):
        await upstream_of(signer).ask("GET", "k")
    assert signer.sent == 2


async def test_pauses_are_random_and_grow(pauses: list[float]) -> None:
    for _ in range(40):
        with pytest.raises(UpstreamError):
            await upstream_of(Signer(Answer(500, {}, b"", 0))).ask("GET", "k")
    first, second = pauses[::2], pauses[1::2]
    assert 0 <= min(pauses) <= max(first) <= retries.FIRST_PAUSE_S < max(second) <= 2 * retries.FIRST_PAUSE_S
    assert len(set(pauses)) == 80


@pytest.mark.parametrize(("asked", "sent"), [("1", 3), ("2", 3), ("3", 1), ("3600", 1), ("soon", 3)])
async def test_a_short_wish_to_wait_is_granted_and_a_long_one_passed_on(
    asked: str, sent: int, pauses: list[float]
) -> None:
    signer = Signer(Answer(503, {b"retry-after": asked.encode()}, b"", 0))
    with pytest.raises(UpstreamError):
        await upstream_of(signer).ask("GET", "k")
    assert signer.sent == sent
    assert all(pause >= float(asked) for pause in pauses if asked != "soon")


async def test_all_tries_together_take_no_longer_than_one_may() -> None:
    signer = Signer(Answer(500, {}, b"", 0))
    upstream = upstream_of(signer, total_s=0.05)
    signer.takes_s = 0.06
    with pytest.raises(UpstreamError, match="500"):  # there is no time left for another
        await upstream.ask("GET", "k")
    assert signer.sent == 1
    upstream = upstream_of(hanging := Signer(UpstreamError("", passing="no_answer")), total_s=0.5)
    asking = asyncio.ensure_future(upstream.ask("GET", "k"))
    await asyncio.sleep(0)
    hanging.takes_s = 3600
    with pytest.raises(StorageTimeoutError, match="asked more than once"):
        await asking
    assert hanging.sent == 2


async def test_a_bucket_that_is_down_is_not_asked_thrice_by_everybody(pauses: list[float]) -> None:
    signer = Signer(UpstreamError("down", passing="refused"))
    upstream = upstream_of(signer)
    for _ in range(1000):
        with pytest.raises(UpstreamError):
            await upstream.ask("GET", "k")
    assert 1200 <= signer.sent <= 1000 + RetryBudget.MOST + 1000 * RetryBudget.EARNED
    signer.steps = [FINE]
    for _ in range(100):
        await upstream.ask("GET", "k")
    signer.steps = [UpstreamError("again", passing="refused"), FINE]
    assert await upstream.ask("GET", "k") == FINE


@given(st.lists(st.booleans(), max_size=300))
@settings(max_examples=100, deadline=None)
def test_the_budget_is_never_overdrawn(fails: list[bool]) -> None:
    budget, spent = RetryBudget(), 0
    for count, failed in enumerate(fails, 1):
        budget.earn()
        spent += failed and budget.spend()
        assert spent <= RetryBudget.MOST + count * RetryBudget.EARNED
    assert not any(fails) or spent >= 1


async def test_a_cancelled_pause_leaves_nothing_open() -> None:
    body = Body()
    signer = Signer(Answer(503, {b"retry-after": b"2"}, body, None), FINE)
    asking = asyncio.ensure_future(upstream_of(signer).ask("GET", "k"))
    while not body.closed:
        await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert signer.sent == 1


def in_seconds(seconds: int) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


def test_a_wish_to_wait_is_read_as_seconds_or_date_and_bounded() -> None:
    for text, expected in (
        ("7", 7),
        ("0", 1),
        ("120", 120),
        ("121", 120),
        ("999999999", 120),
        (in_seconds(-5), 1),
    ):
        assert retry_after_s(text) == expected, text
    assert 28 <= (retry_after_s(in_seconds(30)) or 0) <= 30
    assert retry_after_s(in_seconds(86_400)) == 120
    for nonsense in (None, "", "-1", "1.5", "soon", "9" * 40, "\u0667"):
        assert retry_after_s(nonsense) is None, nonsense


def test_every_provider_passes_a_bounded_wish_on() -> None:
    for asked, given_s in ((b"7", 7), (b"86400", 120), (b"", 1), (in_seconds(86_400).encode(), 120)):
        headers = {b"retry-after": asked}
        s3 = s3_refusal(503, headers, b"", signed_region="eu-west-1", anonymous=False)
        assert s3.retry_after_s == azure_refusal(503, headers, b"", "anonymous").retry_after_s == given_s


async def refusal_by(act: Awaitable[object]) -> StorageError:
    with pytest.raises(StorageError) as caught:
        await act
    return caught.value


Start = Callable[..., Awaitable[RawServer]]
Client = Callable[..., Transport]


async def test_the_way_out_says_what_may_pass(
    raw_server: Start, client: Client, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `passing` is set to where the failure itself is known, and that nothing else has it."""

    async def hang_up(writer: asyncio.StreamWriter, number: int) -> None:
        writer.close()

    transport = client(idle_timeout_s=0.1, first_byte_timeout_s=0.2)
    for said, expected in (
        (hang_up, "no_answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", "stalled"),
        (b"", None),
        (b"SSH-2.0-x\r\n\r\n", None),
    ):
        server = await raw_server(said)
        assert (await refusal_by(transport.send(server.request()))).passing == expected, said

    async def break_off(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")
        writer.close()

    server = await raw_server(break_off)
    assert (await refusal_by(transport.send(server.request()))).passing == "cut_off"
    guard = Guard(["127.0.0.1"])
    opening = guard.open(asyncio.Protocol, "127.0.0.1", unused_tcp_port)
    assert (await refusal_by(opening)).passing == "refused"
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as hanging_up:
        port = hanging_up.sockets[0].getsockname()[1]
        opening = guard.open(asyncio.Protocol, "127.0.0.1", port, tls=system_tls())
        assert (await refusal_by(opening)).passing == "refused"
    assert (await refusal_by(guard.open(asyncio.Protocol, "10.0.0.1", 80))).passing is None
    assert (await refusal_by(guard.open(asyncio.Protocol, "nowhere.invalid", 80))).passing is None

    async def never(*_: object) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", never, raising=False)
    opening = Guard(["127.0.0.1"], connect_timeout_s=0.05).open(asyncio.Protocol, "127.0.0.1", 80)
    assert (await refusal_by(opening)).passing == "connect_timeout"
