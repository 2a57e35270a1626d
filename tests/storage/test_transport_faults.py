"""The data plane's client when servers stall, break off or lie, and when readers are slow or go away."""

import asyncio
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from conftest import RawServer, system_tls
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import BrokenStreamError, StorageError, StorageTimeoutError, UnreachableError, UpstreamError
from app.storage.base import Origin
from app.storage.guard import Guard
from app.storage.transport import BodyStream, Transport, read_up_to

Start = Callable[..., Awaitable[RawServer]]
Client = Callable[..., Transport]
Run = Callable[[Awaitable[None]], None]

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
MIB = 2**20


def head_of(length: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length


def counts(transport: Transport, server: RawServer) -> tuple[int, int]:
    return transport.connection_counts().get(server.origin, (0, 0))


async def stream_of(transport: Transport, server: RawServer) -> BodyStream:
    answer = await transport.send(server.request(), whole_up_to=0)
    assert isinstance(answer.body, BodyStream)
    return answer.body


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def stall(writer: asyncio.StreamWriter, number: int) -> None:
    """Say nothing more until the client hangs up."""
    await writer.reader.read()  # type: ignore[attr-defined]  # set by the server
    writer.close()


# --- time ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_no_answer_in_time_is_a_time_out(raw_server: Start, client: Client, first: bytes) -> None:
    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(first)
        await stall(writer, number)

    server, transport = await raw_server(answer), client(first_byte_timeout_s=0.1)
    with pytest.raises(StorageTimeoutError, match=r"within 0\.1 seconds"):
        await transport.send(server.request())
    assert (len(server.requests), counts(transport, server)) == (1, (0, 0))


@pytest.mark.parametrize("whole_up_to", [0, 100])
async def test_a_body_that_stalls_is_given_up(raw_server: Start, client: Client, whole_up_to: int) -> None:
    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(head_of(10) + b"hello")
        await stall(writer, number)

    server, transport = await raw_server(answer), client(idle_timeout_s=0.1)
    with pytest.raises(BrokenStreamError if whole_up_to == 0 else StorageTimeoutError):
        await read_up_to((await transport.send(server.request(), whole_up_to=whole_up_to)).body, 100)
    assert counts(transport, server) == (0, 0)


async def test_chunks_without_content_do_not_keep_a_reader_waiting(raw_server: Start, client: Client) -> None:
    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
        while True:
            writer.write(b"X-Trailer: 1\r\n")
            await asyncio.sleep(0.01)

    server, transport = await raw_server(answer), client(idle_timeout_s=0.1)
    stream = await stream_of(transport, server)
    async with asyncio.timeout(2):
        with pytest.raises(BrokenStreamError):
            await anext(stream)


async def test_a_slow_reader_is_no_stall(raw_server: Start, client: Client) -> None:
    server, transport = await raw_server(head_of(3 * MIB) + b"a" * 3 * MIB), client(idle_timeout_s=0.1)
    size = 0
    async for piece in (stream := await stream_of(transport, server)):
        size += len(piece)
        if size < 2 * MIB:
            await asyncio.sleep(0.2)
    assert size == 3 * MIB
    await stream.aclose()
    assert counts(transport, server) == (1, 1)


async def test_slow_progress_is_no_stall(raw_server: Start, client: Client) -> None:
    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(head_of(8))
        for _ in range(8):
            await asyncio.sleep(0.05)
            writer.write(b"a")

    server, transport = await raw_server(answer), client(idle_timeout_s=0.2)
    for whole_up_to in (0, 100):
        answer_ = await transport.send(server.request(), whole_up_to=whole_up_to)
        assert await read_up_to(answer_.body, 100) == b"a" * 8


async def test_a_connection_unused_for_long_is_closed(raw_server: Start, client: Client) -> None:
    server, transport = await raw_server(HELLO), client(keep_alive_s=0.1)
    await transport.send(server.request())
    assert counts(transport, server) == (1, 1)
    await until(lambda: transport.connection_counts() == {})
    await until(lambda: server.open == 0)


# --- breaks -------------------------------------------------------------------------------------------


def breaking(data: bytes, *, reset: bool) -> Callable[[asyncio.StreamWriter, int], Awaitable[None]]:
    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(0.01)
        if reset:
            writer.transport.abort()
        else:
            writer.close()

    return answer


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize(
    "data", [b"", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\n", head_of(5), head_of(5) + b"hell"]
)
async def test_an_answer_cut_short_is_an_error_before_anything_is_given(
    raw_server: Start, client: Client, data: bytes, reset: bool
) -> None:
    server, transport = await raw_server(breaking(data, reset=reset)), client()
    with pytest.raises(UpstreamError):
        await transport.send(server.request())
    assert (len(server.requests), counts(transport, server)) == (1, (0, 0))


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize(
    "data",
    [
        head_of(9) + b"hello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhello",
    ],
)
async def test_a_stream_cut_short_breaks_after_what_came(
    raw_server: Start, client: Client, data: bytes, reset: bool
) -> None:
    server, transport = await raw_server(breaking(data, reset=reset)), client()
    stream = await stream_of(transport, server)
    assert await anext(stream) == b"hello"
    for _ in range(2):
        with pytest.raises(BrokenStreamError):
            await anext(stream)
    await stream.aclose()
    assert counts(transport, server) == (0, 0)


async def test_a_kept_connection_that_died_costs_one_retry(raw_server: Start, client: Client) -> None:
    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        if number == 2:
            writer.transport.abort()
        else:
            writer.write(HELLO)

    server, transport = await raw_server(answer), client()
    for _ in range(3):
        assert (await transport.send(server.request())).body == b"hello"
    assert (len(server.requests), server.connections) == (4, 2)


async def test_a_retry_is_not_tried_again(raw_server: Start, client: Client) -> None:
    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        if number == 1:
            writer.write(HELLO)
        else:
            writer.transport.abort()

    server, transport = await raw_server(answer), client()
    await transport.send(server.request())
    with pytest.raises(UpstreamError, match="without an answer"):
        await transport.send(server.request())
    assert len(server.requests) == 3


async def test_a_kept_connection_that_answered_a_little_is_not_retried(
    raw_server: Start, client: Client
) -> None:
    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(HELLO if number == 1 else b"HTTP/1.1 5")
        if number > 1:
            writer.close()

    server, transport = await raw_server(answer), client()
    await transport.send(server.request())
    with pytest.raises(UpstreamError):
        await transport.send(server.request())
    assert len(server.requests) == 2


async def test_a_server_that_closes_kept_connections_is_noticed(raw_server: Start, client: Client) -> None:
    server, transport = await raw_server(breaking(HELLO, reset=False)), client()
    for _ in range(3):
        assert (await transport.send(server.request())).body == b"hello"
        await until(lambda: counts(transport, server) == (0, 0))


async def test_a_refused_connection_is_unreachable(client: Client, unused_tcp_port: int) -> None:
    with pytest.raises(UnreachableError, match="refuses connections"):
        await client().connect_check(Origin("http", "127.0.0.1", unused_tcp_port))


async def test_a_connect_check_leaves_a_connection_for_the_first_read(
    raw_server: Start, client: Client
) -> None:
    server, transport = await raw_server(HELLO), client()
    await transport.connect_check(server.origin)
    await transport.send(server.request())
    assert (server.connections, len(server.requests)) == (1, 1)


# --- readers ------------------------------------------------------------------------------------------


def test_a_slow_reader_holds_the_bucket_back(run: Run) -> None:
    sent = 0

    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        nonlocal sent
        writer.write(head_of(64 * MIB))
        for _ in range(64 * 16):
            writer.write(b"a" * 65_536)
            await writer.drain()
            sent += 65_536

    async def scenario() -> None:
        transport = Transport(Guard(["127.0.0.1"]), system_tls())
        async with RawServer(answer) as server:
            tracemalloc.start()
            stream = await stream_of(transport, server)
            size = len(await anext(stream))
            await asyncio.sleep(0.3)
            held, early = tracemalloc.get_traced_memory()[0], sent
            tracemalloc.stop()
            async for piece in stream:
                size += len(piece)
            assert size == 64 * MIB
            assert held < 4 * MIB
            assert early < 32 * MIB  # the kernel's buffers take their share
            assert counts(transport, server) == (1, 1)
            await transport.aclose()

    run(scenario())


async def test_a_closed_stream_with_little_left_keeps_its_connection(
    raw_server: Start, client: Client
) -> None:
    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(head_of(50_000) + b"a" * 10)
        await asyncio.sleep(0.05)
        writer.write(b"a" * 49_990)

    server, transport = await raw_server(answer), client()
    for _ in range(2):
        stream = await stream_of(transport, server)
        await anext(stream)
        await stream.aclose()
        await stream.aclose()
        await until(lambda: counts(transport, server) == (1, 1))
        with pytest.raises(BrokenStreamError):
            await anext(stream)
    assert server.connections == 1


async def test_a_rest_that_does_not_come_is_not_waited_for(raw_server: Start, client: Client) -> None:
    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(head_of(50_000) + b"a")
        await stall(writer, number)

    server, transport = await raw_server(answer), client(idle_timeout_s=0.1)
    await (await stream_of(transport, server)).aclose()
    await until(lambda: counts(transport, server) == (0, 0))


async def test_a_closed_stream_with_much_left_closes_its_connection(
    raw_server: Start, client: Client
) -> None:
    server, transport = await raw_server(head_of(9 * MIB) + b"a" * 9 * MIB), client()
    stream = await stream_of(transport, server)
    await anext(stream)
    await stream.aclose()
    assert counts(transport, server) == (0, 0)
    await until(lambda: server.open == 0)


async def test_small_pieces_are_joined(raw_server: Start, client: Client) -> None:
    chunks = b"1\r\na\r\n" * 5000 + b"0\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    server, transport = await raw_server(head + chunks), client()
    stream = await stream_of(transport, server)
    await asyncio.sleep(0.05)
    pieces = [piece async for piece in stream]
    assert b"".join(pieces) == b"a" * 5000
    assert len(pieces) < 10


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\n", head_of(9), head_of(9) + b"hello"])
async def test_a_cancelled_request_closes_its_connection(
    raw_server: Start, client: Client, first: bytes
) -> None:
    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(first)
        await stall(writer, number)

    server, transport = await raw_server(answer), client()
    task = asyncio.create_task(transport.send(server.request()))
    await until(lambda: len(server.requests) == 1)
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert counts(transport, server) == (0, 0)
    await until(lambda: server.open == 0)


@pytest.mark.parametrize("delay_s", [0, 0.0005, 0.001, 0.0015, 0.002, 0.003])
@pytest.mark.parametrize("whole_up_to", [0, 2 * MIB])
async def test_requests_cancelled_at_any_moment_leave_nothing_open(
    raw_server: Start, client: Client, delay_s: float, whole_up_to: int
) -> None:
    server, transport = await raw_server(head_of(MIB) + b"a" * MIB), client(max_connections_per_origin=3)
    tasks = [asyncio.create_task(transport.send(server.request(), whole_up_to=whole_up_to)) for _ in range(9)]
    await asyncio.sleep(delay_s)
    for task in tasks:
        task.cancel()
    for got in await asyncio.gather(*tasks, return_exceptions=True):
        if not isinstance(got, BaseException) and isinstance(got.body, BodyStream):
            await got.body.aclose()
    await until(lambda: len({*counts(transport, server)}) == 1)  # whatever is open is idle
    again = await asyncio.gather(*(transport.send(server.request(), whole_up_to=2 * MIB) for _ in range(6)))
    assert [answer.body for answer in again] == [b"a" * MIB] * 6


async def test_a_cancelled_wait_for_bytes_loses_none(raw_server: Start, client: Client) -> None:
    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(head_of(5))
        await asyncio.sleep(0.1)
        writer.write(b"hello")

    server, transport = await raw_server(answer), client()
    stream = await stream_of(transport, server)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await anext(stream)
    assert await read_up_to(stream, 100) == b"hello"
    assert counts(transport, server) == (1, 1)


async def test_closing_the_transport_breaks_what_is_open(raw_server: Start, client: Client) -> None:
    server, transport = await raw_server(head_of(10) + b"hello"), client()
    stream = await stream_of(transport, server)
    asked = asyncio.create_task(transport.send(server.request()))
    await until(lambda: len(server.requests) == 2)
    await transport.aclose()
    await transport.aclose()
    assert await anext(stream) == b"hello"
    with pytest.raises(BrokenStreamError):
        await anext(stream)
    with pytest.raises(UpstreamError):
        await asked
    with pytest.raises(UpstreamError):
        await transport.send(server.request())
    await until(lambda: server.open == 0)


# --- nonsense -----------------------------------------------------------------------------------------

LINES = [
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 204 No\r\n", b"Content-Length: 5\r\n",
    b"Content-Length: 70000\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"\r\n", b"hello",
    b"5\r\nhello\r\n", b"0\r\n\r\n", b"\n", b": ", b"A: b\r\n", b"a" * 70_000,
]  # fmt: skip
NONSENSE = st.lists(st.sampled_from(LINES) | st.binary(max_size=20), max_size=12).map(b"".join)


@settings(max_examples=150, deadline=None)
@given(
    data=NONSENSE,
    cut=st.integers(0, 200),
    closes=st.booleans(),
    whole_up_to=st.sampled_from([0, 262_144]),
    method=st.sampled_from(["GET", "HEAD"]),
)
def test_no_nonsense_wedges_or_leaks_a_connection(
    data: bytes, cut: int, closes: bool, whole_up_to: int, method: str
) -> None:
    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        if number > 1:
            writer.write(HELLO)
            return
        writer.write(data[:cut])
        await asyncio.sleep(0)
        writer.write(data[cut:])
        if closes:
            writer.close()

    async def scenario() -> None:
        transport = Transport(
            Guard(["127.0.0.1"]), system_tls(), first_byte_timeout_s=0.04, idle_timeout_s=0.04
        )
        async with RawServer(answer) as server, asyncio.timeout(3):
            with suppress(StorageError):
                got = await transport.send(server.request(method), whole_up_to=whole_up_to)
                await read_up_to(got.body, 2**30)
            open_, idle = counts(transport, server)
            assert open_ == idle  # free or closed, never lost in between
            assert server.connections == 1
            with suppress(UpstreamError):  # bytes that came late poison a kept connection at most once
                await transport.send(server.request())
            assert (await transport.send(server.request())).status in {200, 204}
            await transport.aclose()

    asyncio.run(scenario())
