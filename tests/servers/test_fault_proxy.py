"""The proxy does to an answer what its faults say, and nothing otherwise."""

import asyncio
import time
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.servers.fault_proxy import FaultProxy, Faults

BODY = bytes(range(256)) * 400


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[str]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


@pytest_asyncio.fixture
async def proxy(upstream: str) -> AsyncIterator[FaultProxy]:
    async with FaultProxy.before(upstream) as proxy:
        yield proxy


async def fetch(proxy: FaultProxy, timeout_s: float = 5) -> bytes:
    async with httpx.AsyncClient(timeout=timeout_s, trust_env=False) as client:
        return (await client.get(proxy.url())).content


async def test_passes_bytes_unchanged_on_kept_connections(proxy: FaultProxy) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        assert [(await client.get(proxy.url())).content for _ in range(3)] == [BODY] * 3
        assert (proxy.connections_total, proxy.connections_open, proxy.answers) == (1, 1, 3)


async def test_misbehaves_for_so_many_answers_and_no_more(proxy: FaultProxy) -> None:
    proxy.faults = Faults(cut_after=50_000, cut_with="fin", answers=2)
    for _ in range(2):
        with pytest.raises(httpx.RemoteProtocolError):
            await fetch(proxy)
    assert [await fetch(proxy) for _ in range(2)] == [BODY] * 2


async def test_sends_something_instead_of_an_answer(proxy: FaultProxy) -> None:
    proxy.faults = Faults(instead=b"HTTP/1.1 503 Slow Down\r\nContent-Length: 4\r\n\r\nSlow", answers=1)
    assert await fetch(proxy) == b"Slow"
    assert await fetch(proxy) == BODY


@pytest.mark.parametrize("off_by", [7, -7])
async def test_tells_a_wrong_length(proxy: FaultProxy, off_by: int) -> None:
    proxy.faults = Faults(length_off_by=off_by)
    async with httpx.AsyncClient(trust_env=False) as client, client.stream("GET", proxy.url()) as answer:
        assert answer.headers["content-length"] == str(len(BODY) + off_by)


@pytest.mark.parametrize("how", ["rst", "fin"])
async def test_cuts_after_so_many_bytes_of_the_body(proxy: FaultProxy, how: str) -> None:
    proxy.faults.cut_after, proxy.faults.cut_with = 50_000, how  # type: ignore[assignment]
    got = b""
    broken = httpx.ReadError if how == "rst" else httpx.RemoteProtocolError
    async with httpx.AsyncClient(trust_env=False) as client, client.stream("GET", proxy.url()) as answer:
        pieces = answer.aiter_raw()
        with pytest.raises(broken):  # noqa: PT012  # what came before the break counts
            async for piece in pieces:
                got += piece
    assert BODY.startswith(got)
    assert len(got) <= 50_000
    proxy.heal()
    assert await fetch(proxy) == BODY


async def test_cuts_before_the_head(proxy: FaultProxy) -> None:
    proxy.faults.cut_before_head = True
    with pytest.raises(httpx.ReadError):
        await fetch(proxy)


@pytest.mark.parametrize("fault", [{"stall_before_head": True}, {"stall_after": 0}, {"stall_after": 9}])
async def test_stalls(proxy: FaultProxy, fault: dict[str, int]) -> None:
    for name, value in fault.items():
        setattr(proxy.faults, name, value)
    with pytest.raises(httpx.ReadTimeout):
        await fetch(proxy, timeout_s=0.2)


async def test_turns_one_byte_over(proxy: FaultProxy) -> None:
    proxy.faults.corrupt_at = 60_000
    got = await fetch(proxy)
    assert [at for at in range(len(BODY)) if got[at] != BODY[at]] == [60_000]


async def test_is_late_and_slow(proxy: FaultProxy) -> None:
    proxy.faults.latency_s, proxy.faults.bytes_per_s = 0.1, len(BODY) / 0.2
    begun = time.monotonic()
    assert await fetch(proxy) == BODY
    assert time.monotonic() - begun > 0.25


async def test_refuses_and_admits_at_the_same_port(proxy: FaultProxy) -> None:
    await proxy.refuse()
    with pytest.raises(httpx.ConnectError):
        await fetch(proxy)
    await proxy.admit()
    assert await fetch(proxy) == BODY


async def test_drops_open_connections(proxy: FaultProxy) -> None:
    proxy.faults.stall_after = 10
    waiting = asyncio.ensure_future(fetch(proxy))
    while not proxy.answers:
        await asyncio.sleep(0.01)
    await proxy.drop()
    with pytest.raises(httpx.ReadError):
        await waiting
    assert proxy.connections_open == 0
