"""An answer as plain data, and the sending of it: one way for FastAPI's routes and for the lane."""

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.errors import StorageError

Headers = list[tuple[bytes, bytes]]

BROKEN_BY = "framegate.broken_by"
"""Where a scope keeps the error that broke its answer off."""


class Stream(Protocol):
    """A body on its way; closed by whoever sends it."""

    def __aiter__(self) -> AsyncIterator[bytes | memoryview]:
        """Give the bytes in order."""
        ...

    async def aclose(self) -> None:
        """Free what the stream holds."""
        ...


class Reply(msgspec.Struct, frozen=True):
    """Status, raw headers (lower-case names) and a body that is bytes when it is short."""

    status: int
    headers: Headers
    body: bytes | Stream = b""


async def send_reply(reply: Reply, receive: Receive, send: Send) -> None:
    """Send an answer; a stream is closed on its end, an error, cancellation or a vanished client.

    An error of the stream is raised after the head was sent: the server then aborts the connection, so that
    a short body never looks complete.
    """
    body = reply.body
    try:
        await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
        if isinstance(body, bytes):
            await send({"type": "http.response.body", "body": body})
        else:
            await _relay(body, receive, send)
    finally:
        if not isinstance(body, bytes):
            await body.aclose()


async def _relay(body: Stream, receive: Receive, send: Send) -> None:
    relaying = asyncio.ensure_future(_send_chunks(body, send))
    watching = asyncio.ensure_future(_disconnection(receive))
    # A server swallows what is sent to a vanished client, so its going must be listened for.
    try:
        await asyncio.wait({relaying, watching}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        watching.cancel()
        if not relaying.done():
            relaying.cancel()
        await asyncio.wait({relaying, watching})
    if not relaying.cancelled():
        relaying.result()


async def _send_chunks(body: Stream, send: Send) -> None:
    async for chunk in body:
        await send({"type": "http.response.body", "body": bytes(chunk), "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _disconnection(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Sent(Response):
    """A reply as a FastAPI route returns it."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(status_code=reply.status)
        self._reply = reply

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; see `send_reply`. A stream that breaks is left in the scope, for the edge to abort with.

        Raised through Starlette's error handlers it would be logged as a fault of ours.
        """
        try:
            await send_reply(self._reply, receive, send)
        except StorageError as error:
            scope[BROKEN_BY] = error
