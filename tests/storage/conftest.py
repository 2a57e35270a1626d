"""Fixtures for everything below `app.storage`: raw servers, transports, both event loops."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from ssl import SSLContext

import pytest

from app.storage.guard import Guard
from app.storage.transport import Transport
from tests.storage.raw_server import Answering, RawServer, system_tls


@pytest.fixture
async def raw_server() -> AsyncIterator[Callable[..., Awaitable[RawServer]]]:
    """Start servers that live as long as the test: `await raw_server(answer, tls=None)`."""
    async with AsyncExitStack() as stack:

        async def start(answer: Answering | bytes, tls: SSLContext | None = None) -> RawServer:
            return await stack.enter_async_context(RawServer(answer, tls))

        yield start


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
