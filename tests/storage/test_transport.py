"""The data plane's client against servers that send exactly chosen bytes: framing and kept connections."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from app.errors import BrokenStreamError, UpstreamError
from app.storage.base import Answer, SignedRequest
from app.storage.guard import Guard
from app.storage.transport import Transport, read_up_to
from tests.storage.raw_server import RawServer, system_tls

Start = Callable[..., Awaitable[RawServer]]
Client = Callable[..., Transport]

HELLO = b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: "a"\r\nX-Empty:\r\n\r\nhello'
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nhel\r\n2;ext=1\r\nlo\r\n0\r\nX-Trailer: 1\r\n\r\n"
)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"


async def whole(answer: Answer) -> bytes:
    return await read_up_to(answer.body, 2**40)


async def get(transport: Transport, request: SignedRequest, whole_up_to: int = 262_144) -> bytes:
    return await whole(await transport.send(request, whole_up_to=whole_up_to))


async def test_an_answer_is_given_with_its_headers(raw_server: Start, client: Client) -> None:
    server = await raw_server(HELLO)
    answer = await client().send(server.request(target=b"/pics/a%20b.jpg?x=1"))
    assert (answer.status, answer.body, answer.length_bytes) == (200, b"hello", 5)
    assert answer.headers == {b"content-length": b"5", b"etag": b'"a"', b"x-empty": b""}
    assert server.requests == [b"GET /pics/a%20b.jpg?x=1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"]


BODIES = {
    "counted": HELLO,
    "chunked": CHUNKED,
    "after 100 Continue": CONTINUE + HELLO,
    "after two 1xx": CONTINUE + EARLY + CHUNKED,
}


@pytest.mark.parametrize("whole_up_to", [262_144, 4])
@pytest.mark.parametrize("data", BODIES.values(), ids=BODIES.keys())
def test_an_answer_may_be_cut_anywhere(
    run: Callable[[Awaitable[None]], None], data: bytes, whole_up_to: int
) -> None:
    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        cut = number - 1
        writer.write(data[:cut])
        await asyncio.sleep(0.001)
        writer.write(data[cut:])

    async def scenario() -> None:
        transport = Transport(Guard(["127.0.0.1"]), system_tls())
        async with RawServer(answer) as server:
            for _ in range(len(data) + 1):
                assert await get(transport, server.request(), whole_up_to) == b"hello"
            assert server.connections == 1
            await transport.aclose()

    run(scenario())


@pytest.mark.parametrize("data", BODIES.values(), ids=BODIES.keys())
async def test_an_answer_may_come_byte_by_byte(raw_server: Start, client: Client, data: bytes) -> None:
    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        for position in range(len(data)):
            writer.write(data[position : position + 1])
            await asyncio.sleep(0)

    server, transport = await raw_server(answer), client()
    for _ in range(2):
        assert await get(transport, server.request()) == b"hello"
    assert server.connections == 1


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_an_answer_without_body_ends_with_its_head(
    raw_server: Start, client: Client, status: bytes
) -> None:
    server, transport = await raw_server(b"HTTP/1.1 " + status + b"\r\nContent-Length: 9\r\n\r\n"), client()
    for _ in range(2):
        answer = await transport.send(server.request())
        assert (answer.status, answer.body) == (int(status[:3]), b"")
    assert server.connections == 1


async def test_head_and_get_share_a_connection(raw_server: Start, client: Client) -> None:
    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(HELLO if number % 2 == 0 else HELLO.removesuffix(b"hello"))

    server, transport = await raw_server(answer), client()
    for _ in range(3):
        head = await transport.send(server.request("HEAD"))
        assert (head.status, head.body, head.length_bytes) == (200, b"", 5)
        assert await get(transport, server.request()) == b"hello"
    assert server.connections == 1


@pytest.mark.parametrize("body", [b"", b"hello"])
@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n"])
async def test_a_body_may_end_with_the_connection(
    raw_server: Start, client: Client, head: bytes, body: bytes
) -> None:
    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(head + body)
        writer.close()

    server, transport = await raw_server(answer), client()
    answer_ = await transport.send(server.request())
    assert answer_.length_bytes is None
    assert await whole(answer_) == body
    assert transport.connection_counts().get(server.origin, (0, 0)) == (0, 0)


CLOSING = [
    HELLO.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"),
    HELLO.replace(b"OK\r\n", b"OK\r\nConnection: TE, Close\r\n"),
    HELLO.replace(b"HTTP/1.1", b"HTTP/1.0"),
    HELLO + b"surplus",
    HELLO + HELLO,
    CHUNKED + b"x",
    CHUNKED + HELLO,
    b"HTTP/1.1 204 No Content\r\n\r\nhello",
]


@pytest.mark.parametrize("whole_up_to", [262_144, 0])
@pytest.mark.parametrize("data", CLOSING)
async def test_a_connection_that_cannot_be_trusted_is_not_used_again(
    raw_server: Start, client: Client, data: bytes, whole_up_to: int
) -> None:
    server, transport = await raw_server(data), client()
    for _ in range(3):
        assert await get(transport, server.request(), whole_up_to) == (b"" if b"204" in data else b"hello")
    assert server.connections == 3


@pytest.mark.parametrize("size", [100_000, 262_143])
async def test_a_surplus_after_a_body_read_in_pieces_is_seen(
    raw_server: Start, client: Client, size: int
) -> None:
    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"a" * (size - 9))
        await asyncio.sleep(0.01)
        writer.write(b"a" * 9 + HELLO)

    server, transport = await raw_server(answer), client()
    for _ in range(2):
        assert await get(transport, server.request()) == b"a" * size
    assert server.connections == 2


MALFORMED = [
    b"\r\n\r\n", b"hello\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x16\r\n\r\n", b"ICY 200 OK\r\n\r\n",
    b"HTTP/1.1 20 OK\r\n\r\n", b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK\n\nhello\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello", b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA b: c\r\n\r\n", b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
    b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nA: " + b"a" * 70_000 + b"\r\n\r\n", b"HTTP/1.1 200 OK\r\nA: " + b"a" * 70_000,
    CONTINUE * 3000, EARLY * 1800 + HELLO,
]  # fmt: skip


@pytest.mark.parametrize("data", MALFORMED)
async def test_what_is_no_http_is_an_error_in_words(raw_server: Start, client: Client, data: bytes) -> None:
    server, transport = await raw_server(data), client()
    with pytest.raises(UpstreamError) as caught:
        await get(transport, server.request())
    assert "HTTP/1.1" in caught.value.detail
    assert caught.value.at == "endpoint_url"
    assert transport.connection_counts().get(server.origin, (0, 0)) == (0, 0)


@pytest.mark.parametrize("data", [b"zz\r\nhello", b"3\r\nhello\r\n", b"3hel\r\n", b"ffffffffffffffffff\r\n"])
async def test_bad_chunks_break_the_stream(raw_server: Start, client: Client, data: bytes) -> None:
    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await asyncio.sleep(0.01)
        writer.write(data)

    server, transport = await raw_server(answer), client()
    with pytest.raises(BrokenStreamError):
        await get(transport, server.request())


@pytest.mark.parametrize("bad", [b"/a b", b"/a\r\nX: y", b"/a\nX: y"])
async def test_a_target_cannot_smuggle(raw_server: Start, client: Client, bad: bytes) -> None:
    server, transport = await raw_server(HELLO), client()
    for _ in range(2):
        assert await get(transport, server.request()) == b"hello"
        with pytest.raises(ValueError, match="line break"):
            await transport.send(server.request(target=bad))
    assert len(server.requests) == 2
    assert transport.connection_counts() == {server.origin: (1, 1)}
