"""The data plane's client when servers stall, break off or lie."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import BrokenStreamError, StorageError, StorageTimeoutError, UnreachableError, UpstreamError
from app.storage.base import Origin
from app.storage.guard import Guard
from app.storage.transport import Transport, read_up_to
from tests.apart import run_apart
from tests.storage.raw_server import (
    HELLO,
    MIB,
    RawServer,
    counts,
    head_of,
    stall,
    stream_of,
    system_tls,
    until,
)

Start = Callable[..., Awaitable[RawServer]]
Client = Callable[..., Transport]
Run = Callable[[Awaitable[None]], None]


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
        for piece in (head_of(10) + b"he", b"llo"):
            writer.write(piece)
            await asyncio.sleep(0.02)
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
    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(head_of(3 * MIB))
        await asyncio.sleep(0.02)  # so that the reader has waited once
        writer.write(b"a" * 3 * MIB)

    server, transport = await raw_server(answer), client(idle_timeout_s=0.1)
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
            await asyncio.sleep(0.1)
            writer.write(b"a")

    server, transport = await raw_server(answer), client(idle_timeout_s=0.5)
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
        async with RawServer(answer) as server, asyncio.timeout(15):
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

    run_apart(scenario())
