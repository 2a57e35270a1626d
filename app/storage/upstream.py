"""One signed request to a bucket: sent, made again where that can help, its refusals explained."""

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import Protocol

from pydantic import SecretStr

from app.errors import StorageError
from app.storage.base import Answer, Method, Origin, Provider, SignedRequest
from app.storage.redirects import first_byte_of
from app.storage.retries import RetryBudget, Retrying, RetryPolicy
from app.storage.streams import close_body

UNDERSTOOD = frozenset({200, 206, 304, 412, 416})
"""Statuses that a read knows how to go on from; all others are refusals."""

ERROR_BODY_BYTES = 64 * 1024

Headers = Sequence[tuple[bytes, bytes]]


class Sender(Protocol):
    """What a request is sent with (`app.storage.transport.Transport`)."""

    async def send(self, request: SignedRequest) -> Answer:
        """Send a request; the caller closes a body that is a stream."""
        ...


class Upstream:
    """The way to one bucket's objects."""

    def __init__(self, provider: Provider, sender: Sender, policy: RetryPolicy | None = None) -> None:
        self.provider = provider
        self.policy = policy or RetryPolicy()
        self._sender = sender
        self._budget = RetryBudget()

    async def ask(self, method: Method, key: str, extra: Headers = ()) -> Answer:
        """Ask for an object and give the answer if its status is one of `UNDERSTOOD`; the caller closes it.

        Asked again, before any byte of an answer is handed on, after a refusal that our clock explains and
        where `app.storage.retries` sees a chance. Raises `StorageError` for every other answer, or for none.
        """
        self._budget.earn()
        began = monotonic()
        outcome: Answer | StorageError
        try:
            outcome = await self._sender.send(self.provider.sign(method, key, extra))
            if outcome.status in UNDERSTOOD:
                return outcome
        except StorageError as error:
            outcome = error
        return await self._insist(outcome, Retrying(self.policy, self._budget, began), method, key, extra)

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

    async def _insist(
        self, outcome: Answer | StorageError, retrying: Retrying, method: Method, key: str, extra: Headers
    ) -> Answer:
        """Ask again as long as that may help; signed anew each time, since time has passed."""
        while isinstance(outcome, StorageError) or outcome.status not in UNDERSTOOD:
            pause_s = self._pause_s(outcome, retrying)
            if pause_s is None:
                raise outcome if isinstance(outcome, StorageError) else await self._refusal(outcome, key)
            if isinstance(outcome, Answer):
                await close_body(outcome.body)
            outcome = await retrying.within(self._attempt(method, key, extra, pause_s))
        return outcome

    def _pause_s(self, outcome: Answer | StorageError, retrying: Retrying) -> float | None:
        if not retrying.clock_learned and self._learns_clock(outcome):
            return retrying.by_another_clock()
        return retrying.pause_s(outcome)

    def _learns_clock(self, outcome: Answer | StorageError) -> bool:
        if isinstance(outcome, StorageError) or not 400 <= outcome.status < 500:
            return False
        return self.provider.adjust_clock(outcome)

    async def _attempt(
        self, method: Method, key: str, extra: Headers, pause_s: float = 0
    ) -> Answer | StorageError:
        if pause_s:
            await asyncio.sleep(pause_s)
        try:
            return await self._sender.send(self.provider.sign(method, key, extra))
        except StorageError as error:
            return error

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
