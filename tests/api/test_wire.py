"""What a client's connection may do to the service: pipelined, slow, endless and broken requests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from app.api import wire
from tests.api.conftest import Service, StartService, s3_body
from tests.servers.s3 import S3Bucket

SMALL, LONG = b"small" * 1000, bytes(range(256)) * 20_000


@dataclass
class Line:
    """A connection down at the socket."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Take one whole answer off the line."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(first.split()[1]), headers, body

    async def ends(self) -> bytes:
        """Wait for the other side to close, and give what came before."""
        async with asyncio.timeout(15):
            return await self.reader.read()


@asynccontextmanager
async def line(service: Service) -> AsyncIterator[Line]:
    parts = urlsplit(service.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        yield Line(reader, writer)
    finally:
        writer.close()


@pytest_asyncio.fixture
async def objects(service: Service, s3_bucket: S3Bucket) -> str:
    """The path of a storage with a small and a long object."""
    await s3_bucket.put("small.bin", SMALL)
    await s3_bucket.put("long.bin", LONG)
    return f"/v1/storages/{await service.attach(s3_body(s3_bucket))}/objects"


def get(service: Service, path: str, method: str = "GET", version: str = "1.1", more: str = "") -> bytes:
    token = service.admin.headers["authorization"]
    host = urlsplit(service.url).netloc
    return f"{method} {path} HTTP/{version}\r\nHost: {host}\r\nAuthorization: {token}\r\n{more}\r\n".encode()


async def test_pipelined_requests_are_answered_in_order_by_both_ways(service: Service, objects: str) -> None:
    paths = [f"{objects}/long.bin", "/v1/me", f"{objects}/small.bin", f"{objects}/small.bin", "/livez"]
    async with line(service) as one:
        one.writer.write(b"".join(get(service, path) for path in paths))
        answers = [await one.answer() for _ in paths]
    assert [status for status, _, _ in answers] == [200] * 5
    assert [body for _, _, body in answers[:1] + answers[2:4]] == [LONG, SMALL, SMALL]
    assert b'"root"' in answers[1][2]
    assert len({headers["x-request-id"] for _, headers, _ in answers}) == 5


async def test_a_head_has_no_body_and_the_connection_goes_on(service: Service, objects: str) -> None:
    async with line(service) as one:
        one.writer.write(get(service, f"{objects}/small.bin", "HEAD"))
        head = (await one.reader.readuntil(b"\r\n\r\n")).lower()
        assert b"content-length: %d\r\n" % len(SMALL) in head
        one.writer.write(get(service, f"{objects}/small.bin"))
        assert (await one.answer())[2] == SMALL


@pytest.mark.parametrize("key", ["small.bin", "long.bin"])
async def test_a_client_that_wants_no_more_is_answered_and_let_go(
    service: Service, objects: str, key: str
) -> None:
    async with line(service) as one:
        one.writer.write(get(service, f"{objects}/{key}", more="Connection: close\r\n"))
        status, headers, body = await one.answer()
        assert (status, headers["connection"], len(body)) == (
            200,
            "close",
            len(SMALL if key == "small.bin" else LONG),
        )
        assert await one.ends() == b""


async def test_http_1_0_goes_the_long_way_and_is_answered_the_same(service: Service, objects: str) -> None:
    async with line(service) as one, line(service) as other:
        one.writer.write(get(service, f"{objects}/small.bin", version="1.0"))
        other.writer.write(get(service, f"{objects}/small.bin"))
        status, headers, body = await one.answer()
        assert (status, body) == (200, SMALL)
        same = headers.keys() - {"date", "x-request-id", "connection"}
        expected = (await other.answer())[1]
        assert {name: headers[name] for name in same} == {name: expected[name] for name in same}
        assert await one.ends() == b""


async def test_a_body_that_nobody_asked_for_is_read_over(service: Service, objects: str) -> None:
    async with line(service) as one:
        one.writer.write(get(service, f"{objects}/small.bin", more="Content-Length: 5\r\n") + b"hello")
        assert (await one.answer())[2] == SMALL
        one.writer.write(get(service, f"{objects}/small.bin"))
        assert (await one.answer())[2] == SMALL


@pytest.mark.parametrize("size", [wire.MAX_HEAD_BYTES // 2, 4 * wire.MAX_HEAD_BYTES])
async def test_a_head_is_bounded(service: Service, objects: str, size: int) -> None:
    async with line(service) as one:
        one.writer.write(get(service, f"{objects}/small.bin")[:-2])
        with suppress(ConnectionResetError):  # it may close while we are still sending
            for _ in range(size // 1000):
                one.writer.write(b"X-Filler: " + b"x" * 988 + b"\r\n")
                await one.writer.drain()
            one.writer.write(b"\r\n")
            if size < wire.MAX_HEAD_BYTES:
                assert (await one.answer())[2] == SMALL
                return
            assert (await one.ends()).startswith(b"HTTP/1.1 400 ")
    assert size > wire.MAX_HEAD_BYTES


async def test_a_body_that_never_comes_is_not_waited_for(start_service: StartService) -> None:
    async with start_service() as service:
        service.server.config.timeout_keep_alive = 1
        async with line(service) as one:
            more = "Content-Type: application/json\r\nContent-Length: 100\r\n"
            one.writer.write(get(service, "/v1/tokens", "POST", more=more) + b'{"name": ')
            assert await one.ends() == b""


@pytest.mark.parametrize("begun", [b"", b"GET /livez HTTP/1.1\r\nX-Slow: "], ids=["nothing", "a head"])
async def test_who_never_finishes_a_request_is_let_go(start_service: StartService, begun: bytes) -> None:
    async with start_service() as service:
        service.server.config.timeout_keep_alive = 1
        async with line(service) as one:
            one.writer.write(begun)

            async def drip() -> None:
                while begun:
                    one.writer.write(b"x")
                    await asyncio.sleep(0.1)

            dripping = asyncio.create_task(drip())
            assert await one.ends() == b""
            dripping.cancel()


async def test_a_kept_connection_serves_for_longer_than_one_wait(
    start_service: StartService, s3_bucket: S3Bucket
) -> None:
    await s3_bucket.put("small.bin", SMALL)
    async with start_service() as service:
        path = f"/v1/storages/{await service.attach(s3_body(s3_bucket))}/objects/small.bin"
        service.server.config.timeout_keep_alive = 1
        async with line(service) as one:
            for _ in range(6):
                one.writer.write(get(service, path))
                assert (await one.answer())[2] == SMALL
                await asyncio.sleep(0.4)
            assert await one.ends() == b""


async def test_an_answer_longer_than_the_wait_is_not_cut(
    start_service: StartService, s3_bucket: S3Bucket
) -> None:
    await s3_bucket.put("long.bin", LONG)
    async with start_service() as service:
        path = f"/v1/storages/{await service.attach(s3_body(s3_bucket))}/objects/long.bin"
        service.server.config.timeout_keep_alive = 1
        parts = urlsplit(service.url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=65_536)
        one = Line(reader, writer)
        writer.write(get(service, path))
        head = await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(2.5)
        assert b" 200 " in head
        assert await reader.readexactly(len(LONG)) == LONG
        assert await one.ends() == b""
        writer.close()


async def test_what_is_no_http_is_refused(service: Service) -> None:
    async with line(service) as one:
        one.writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
        assert (await one.ends()).startswith(b"HTTP/1.1 400 ")
