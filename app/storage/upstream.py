"""One signed request to a bucket: sent, retried where that can help, its refusals explained."""

import asyncio
import random
from collections.abc import Sequence
from typing import Protocol

from pydantic import SecretStr

from app.errors import StorageError
from app.storage.base import Answer, Method, Origin, Provider, SignedRequest
from app.storage.redirects import first_byte_of
from app.storage.streams import close_body

UNDERSTOOD = frozenset({200, 206, 304, 412, 416})
"""Statuses that a read knows how to go on from; all others are refusals."""

RETRIED = frozenset({500, 503})
RETRY_AFTER_S = (0.05, 0.25)
"""A failing bucket is asked once more, after a random pause between these."""

ERROR_BODY_BYTES = 64 * 1024


class Sender(Protocol):
    """What a request is sent with (`app.storage.transport.Transport`)."""

    async def send(self, request: SignedRequest) -> Answer:
        """Send a request; the caller closes a body that is a stream."""
        ...


class Upstream:
    """The way to one bucket's objects."""

    def __init__(self, provider: Provider, sender: Sender) -> None:
        self.provider = provider
        self._sender = sender

    async def ask(self, method: Method, key: str, extra: Sequence[tuple[bytes, bytes]] = ()) -> Answer:
        """Ask for an object and give the answer if its status is one of `UNDERSTOOD`; the caller closes it.

        Asked again at most once, before any byte: after a refusal that our clock explains, or after 500 and
        503. Raises `StorageError` for every other answer.
        """
        answer = await self._send(method, key, extra)
        if await self._worth_another(answer):
            await close_body(answer.body)
            answer = await self._send(method, key, extra)
        if answer.status not in UNDERSTOOD:
            raise await self._refusal(answer, key)
        return answer

    async def knock(self) -> Answer:
        """Give the answer to a HEAD of the server's root, whatever it is; no credential goes along.

        Raises `StorageError` when no answer comes.
        """
        origin = self.provider.origin
        answer = await self._sender.send(SignedRequest(origin, "HEAD", b"/", ((b"host", _host(origin)),)))
        await close_body(answer.body)
        return answer

    async def follow(self, url: SecretStr, key: str) -> None:
        """Take the first byte by a presigned URL and drop it; raises `StorageError` for what is refused."""
        answer = await self._sender.send(first_byte_of(url, self.provider.origin))
        if answer.status not in UNDERSTOOD:
            raise await self._refusal(answer, key)
        await close_body(answer.body)

    async def _send(self, method: Method, key: str, extra: Sequence[tuple[bytes, bytes]]) -> Answer:
        return await self._sender.send(self.provider.sign(method, key, extra))

    async def _worth_another(self, answer: Answer) -> bool:
        if answer.status in RETRIED:
            try:
                await asyncio.sleep(random.uniform(*RETRY_AFTER_S))  # noqa: S311 - jitter, no secret
            except BaseException:
                await close_body(answer.body)
                raise
            return True
        return 400 <= answer.status < 500 and self.provider.adjust_clock(answer)

    async def _refusal(self, answer: Answer, key: str) -> StorageError:
        body = await _error_body(answer)
        return self.provider.explain(answer.status, answer.headers, body, key)


def _host(origin: Origin) -> bytes:
    name = f"[{origin.host}]" if ":" in origin.host else origin.host
    return f"{name}:{origin.port}".encode("ascii")


async def _error_body(answer: Answer) -> bytes:
    """Read as much of an error's body as explains it, and close it; a broken one is as good as cut."""
    if isinstance(answer.body, bytes):
        return answer.body[:ERROR_BODY_BYTES]
    taken = bytearray()
    try:
        async for chunk in answer.body:
            taken += chunk
            if len(taken) >= ERROR_BODY_BYTES:
                break
    except StorageError:
        pass
    finally:
        await answer.body.aclose()
    return bytes(taken[:ERROR_BODY_BYTES])
