"""The connections of one origin: bounded, fair, never lost; and the stream's own bookkeeping."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from app.errors import BrokenStreamError, ThrottledError, UnreachableError, UpstreamError
from app.storage.base import Origin, SignedRequest
from app.storage.guard import Guard, P
from app.storage.transport import BodyStream, Transport
from app.storage.transport.body import HIGH_WATER_BYTES, LOW_WATER_BYTES
from tests.storage.raw_server import HELLO, RawServer, counts, system_tls

Start = Callable[..., Awaitable[RawServer]]
Client = Callable[..., Transport]

GOODBYE = HELLO.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n")


async def test_many_at_once_share_few_connections(raw_server: Start, client: Client) -> None:
    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        await asyncio.sleep(0.001)
        body = server.requests[number - 1].split(b" ")[1] * 20_000
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    server, transport = await raw_server(answer), client(max_connections_per_origin=7)
    targets = [b"/%04d" % number for number in range(200)]
    answers = await asyncio.gather(*(transport.send(server.request(target=target)) for target in targets))
    assert [answer.body for answer in answers] == [target * 20_000 for target in targets]
    assert server.connections == 7
    assert counts(transport, server) == (7, 7)


async def test_closed_connections_give_their_places_away_and_no_more(
    raw_server: Start, client: Client
) -> None:
    most = 0

    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        nonlocal most
        most = max(most, counts(transport, server)[0])
        await asyncio.sleep(0.002)
        writer.write(GOODBYE)

    server, transport = await raw_server(answer), client(max_connections_per_origin=2)
    for _ in range(2):  # who comes later finds no more places than who came first
        answers = await asyncio.gather(*(transport.send(server.request()) for _ in range(15)))
        assert {answer.body for answer in answers} == {b"hello"}
    assert (most, counts(transport, server)) == (2, (0, 0))


async def test_who_waits_is_served_in_the_order_of_asking(raw_server: Start, client: Client) -> None:
    server, transport = await raw_server(HELLO), client(max_connections_per_origin=1)
    targets = [b"/%d" % number for number in range(20)]
    await asyncio.gather(*(transport.send(server.request(target=target)) for target in targets))
    assert [request.split(b" ")[1] for request in server.requests] == targets


@pytest.mark.parametrize("data", [HELLO, GOODBYE], ids=["a connection", "a place"])
async def test_what_a_cancelled_waiter_was_just_given_is_passed_on(
    raw_server: Start, client: Client, data: bytes
) -> None:
    server, transport = await raw_server(data), client(max_connections_per_origin=1)

    async def first() -> None:
        await transport.send(server.request())
        second.cancel()  # after it was given its turn, before it could run

    leading = asyncio.create_task(first())
    await asyncio.sleep(0)
    second = asyncio.create_task(transport.send(server.request()))
    third = asyncio.create_task(transport.send(server.request()))
    async with asyncio.timeout(2):
        assert (await third).body == b"hello"
    await leading
    assert second.cancelled()
    assert len(server.requests) == 2


async def test_who_waits_too_long_for_a_connection_is_throttled(raw_server: Start, client: Client) -> None:
    server = await raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 600000\r\n\r\n")
    transport = client(max_connections_per_origin=1, first_byte_timeout_s=0.1)
    held = await transport.send(server.request())
    with pytest.raises(ThrottledError):
        await transport.send(server.request())
    assert isinstance(held.body, BodyStream)
    await held.body.aclose()


async def test_a_failed_connect_gives_its_place_away(client: Client, unused_tcp_port: int) -> None:
    transport, origin = client(max_connections_per_origin=1), Origin("http", "127.0.0.1", unused_tcp_port)
    request = SignedRequest(origin, "GET", b"/", ())
    got = await asyncio.gather(*(transport.send(request) for _ in range(5)), return_exceptions=True)
    assert {type(error) for error in got} == {UnreachableError}


async def test_a_retry_does_not_take_another_old_connection(raw_server: Start, client: Client) -> None:
    used: set[asyncio.StreamWriter] = set()

    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        await asyncio.sleep(0.01)
        if writer in used:
            writer.transport.abort()
        else:
            used.add(writer)
            writer.write(HELLO)

    server, transport = await raw_server(answer), client()
    await asyncio.gather(*(transport.send(server.request()) for _ in range(3)))
    assert counts(transport, server) == (3, 3)
    assert (await transport.send(server.request())).body == b"hello"


async def test_a_kept_connection_that_ends_is_forgotten_at_once(raw_server: Start, client: Client) -> None:
    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(HELLO)
        await asyncio.sleep(0.01)
        writer.close()

    server, transport = await raw_server(answer), client()
    await transport.send(server.request())
    async with asyncio.timeout(2):
        while counts(transport, server)[0]:
            await asyncio.sleep(0)
    assert counts(transport, server) == (0, 0)


class FadingGuard(Guard):
    """Gives connections that are lost before anybody can use them."""

    async def open(self, factory: Callable[[], P], *args: object, **options: object) -> tuple[object, P]:  # type: ignore[override]
        transport, connection = await super().open(factory, *args, **options)  # type: ignore[arg-type]
        connection.connection_lost(None)  # type: ignore[attr-defined]
        return transport, connection


async def test_a_connection_lost_while_it_opens_costs_no_place(raw_server: Start) -> None:
    server = await raw_server(HELLO)
    transport = Transport(FadingGuard(["127.0.0.1"]), system_tls(), max_connections_per_origin=1)
    for _ in range(3):
        with pytest.raises(UpstreamError, match="without an answer"):
            await transport.send(server.request())
        assert counts(transport, server) == (0, 0)
    await transport.aclose()


class SlowGuard(Guard):
    """Takes its time."""

    async def open(self, *args: object, **options: object) -> object:  # type: ignore[override]
        opened = await super().open(*args, **options)  # type: ignore[arg-type]
        await asyncio.sleep(0.05)
        return opened


async def test_a_connection_that_opens_after_the_end_is_closed(raw_server: Start) -> None:
    server, transport = await raw_server(HELLO), Transport(SlowGuard(["127.0.0.1"]), system_tls())
    asked = asyncio.create_task(transport.send(server.request()))
    await asyncio.sleep(0.01)
    await transport.aclose()
    with pytest.raises(UpstreamError, match="stopping"):
        await asked
    async with asyncio.timeout(2):
        while server.open:
            await asyncio.sleep(0.001)
    assert server.requests == []


# --- the stream's bookkeeping ---------------------------------------------------------------------------


class Tap:
    """A connection that notes what its stream asks of it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pause(self) -> None:
        self.calls.append("pause")

    def resume(self) -> None:
        self.calls.append("resume")

    def expect(self, waiting: bool) -> None:
        self.calls.append(f"expect {waiting}")

    def abandon(self) -> None:
        self.calls.append("abandon")


async def test_a_full_stream_pauses_and_an_emptied_one_resumes() -> None:
    stream = BodyStream(tap := Tap())
    for _ in range(4):
        stream.push(b"a" * (HIGH_WATER_BYTES // 2))
    assert tap.calls == ["pause"]
    left = 2 * HIGH_WATER_BYTES
    while left > LOW_WATER_BYTES:
        assert tap.calls == ["pause"]
        left -= len(await anext(stream))
    assert tap.calls == ["pause", "resume"]


async def test_the_last_bytes_pause_nothing_and_let_a_paused_connection_go() -> None:
    stream = BodyStream(tap := Tap())
    stream.push(b"a" * HIGH_WATER_BYTES, last=True)
    assert tap.calls == []
    paused = BodyStream(tap)
    paused.push(b"a" * HIGH_WATER_BYTES)
    paused.push(b"b", last=True)
    assert tap.calls == ["pause", "resume"]
    assert b"".join([piece async for piece in paused]) == b"a" * HIGH_WATER_BYTES + b"b"
    await paused.aclose()
    assert tap.calls == ["pause", "resume"]


async def test_small_pieces_are_joined_and_large_ones_are_not() -> None:
    stream = BodyStream(Tap())
    for piece in (b"a", b"b", b"c" * 100_000, b"d" * 100_000, b"e"):
        stream.push(piece)
    stream.push(b"", last=True)
    assert [len(piece) async for piece in stream] == [100_002, 100_000, 1]


async def test_a_broken_stream_gives_what_came_and_then_its_fault_for_ever() -> None:
    stream = BodyStream(tap := Tap())
    stream.push(b"hello")
    stream.end(BrokenStreamError("gone"))
    assert await anext(stream) == b"hello"
    for _ in range(2):
        with pytest.raises(BrokenStreamError, match="gone"):
            await anext(stream)
    await stream.aclose()
    assert tap.calls == []
