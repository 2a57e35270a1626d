"""The data plane's client when readers are slow, stop early or are cancelled."""

import asyncio
import tracemalloc
from collections.abc import Awaitable, Callable

import pytest

from app.errors import BrokenStreamError, UpstreamError
from app.storage.guard import Guard
from app.storage.transport import BodyStream, Transport, read_up_to
from tests.storage.raw_server import (
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
