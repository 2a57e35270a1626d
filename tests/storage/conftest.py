"""Raw servers on loopback that send exactly the bytes a test wants sent."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from functools import cache
from ssl import SSLContext

import pytest

from app.storage.base import Method, Origin, SignedRequest
from app.storage.guard import Guard
from app.storage.tls import tls_context
from app.storage.transport import Transport

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
            if error.errno != 98:  # EADDRINUSE: try another port
                return [four]
            four.close()
            continue
        return [four, six]


@pytest.fixture
async def raw_server() -> AsyncIterator[Callable[..., Awaitable[RawServer]]]:
    """Start servers that live as long as the test: `await raw_server(answer, tls=None)`."""
    async with AsyncExitStack() as stack:

        async def start(answer: Answering | bytes, tls: SSLContext | None = None) -> RawServer:
            return await stack.enter_async_context(RawServer(answer, tls))

        yield start


@cache
def system_tls() -> SSLContext:
    """The context of a process without a CA file of its own; building one takes long."""
    return tls_context()


@pytest.fixture
async def client() -> AsyncIterator[Callable[..., Transport]]:
    """Make transports that may go to 127.0.0.1: `client(tls=None, **options)`."""
    made: list[Transport] = []

    def make(tls: SSLContext | None = None, **options: float) -> Transport:
        guard = Guard(["127.0.0.1"], connect_timeout_s=options.pop("connect_timeout_s", 5.0))
        made.append(Transport(guard, tls or system_tls(), **options))  # type: ignore[arg-type]  # an int, too
        return made[-1]

    yield make
    for transport in made:
        await transport.aclose()


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Awaitable[None]], None]]:
    """Run a scenario on either event loop, each in a loop of its own."""
    import uvloop

    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        yield runner.run
