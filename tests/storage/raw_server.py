"""A raw server on loopback that sends exactly the bytes a test wants sent, and words to ask it with."""

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cache
from ssl import SSLContext

from app.storage.base import Method, Origin, SignedRequest
from app.storage.tls import tls_context
from app.storage.transport import BodyStream, Transport

Answering = Callable[[asyncio.StreamWriter, int], Awaitable[None]]
"""Answers the n-th request (from 1) of a server."""


class RawServer:
    """Counts connections and keeps requests; `answer` writes what it likes, and may close the connection."""

    def __init__(self, answer: Answering | bytes, tls: SSLContext | None = None) -> None:
        self._answer = _sending(answer) if isinstance(answer, bytes) else answer
        self._tls = tls
        self.connections = 0
        self.open = 0
        self.requests: list[bytes] = []
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def origin(self) -> Origin:
        """Where it listens, as the transport takes it."""
        return Origin("https" if self._tls else "http", "127.0.0.1", self.port)

    def request(self, method: Method = "GET", target: bytes = b"/pics/a.jpg") -> SignedRequest:
        """A request to it."""
        return SignedRequest(self.origin, method, target, ((b"Host", b"127.0.0.1"),))

    async def __aenter__(self) -> "RawServer":
        sockets = _loopback_sockets()
        self.port = sockets[0].getsockname()[1]
        self._servers = [
            await asyncio.start_server(self._serve, sock=sock, ssl=self._tls) for sock in sockets
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(task := asyncio.current_task())  # type: ignore[arg-type]  # a handler is a task
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        writer.reader = reader  # type: ignore[attr-defined]  # for answers that wait until the client is gone
        self.connections += 1
        self.open += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while not writer.is_closing():
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                await self._answer(writer, len(self.requests))
        self.open -= 1
        writer.transport.abort()
        self._tasks.discard(task)


def _sending(data: bytes) -> Answering:
    async def answer(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(data)
        await writer.drain()

    return answer


def _loopback_sockets() -> list[socket.socket]:
    """Listen on one port of both loopback addresses, so that no spelling of "here" misses it."""
    while True:
        four = socket.create_server(("127.0.0.1", 0))
        try:
            six = socket.create_server(("::1", four.getsockname()[1]), family=socket.AF_INET6)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:  # no IPv6 here
                return [four]
            four.close()
            continue
        return [four, six]


@cache
def system_tls() -> SSLContext:
    """The context of a process without a CA file of its own; building one takes long."""
    return tls_context()


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
