"""A bucket as the rest of Framegate knows it: written once for all providers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from functools import partial
from time import time

from msgspec import structs
from pydantic import SecretStr

from app.errors import ObjectTooLargeError
from app.storage.answers import http_date, text_header
from app.storage.base import (
    ANYTHING,
    PLAIN_READ,
    Answer,
    ListedObject,
    ListPage,
    Method,
    ObjectMeta,
    ObjectRead,
    Overrides,
    Pin,
    Provider,
    ReadOptions,
)
from app.storage.gate import HOUSE, Gate
from app.storage.keys import check_key, check_prefix
from app.storage.media import media_type
from app.storage.reading import Reading
from app.storage.redirects import PRESIGNED_LIFE_S, overrides_for
from app.storage.resuming import resumable
from app.storage.retries import RetryPolicy
from app.storage.streams import HeldStream
from app.storage.upstream import Sender, Upstream
from app.storage.writing import ENDING_S, Part, Writing, part_bytes, parts_of, pin_to


class Bucket:
    """One opened bucket or container. Keys are whole bucket keys; `prefix` only says where listings begin.

    Every method may be cancelled at any await and leaves nothing open. Every method waits for its turn at
    the gate, where `caller` is a user's id, and raises `ThrottledError` when too many wait already,
    `ShareUsedUpError` when too many of them are the caller's own.
    """

    def __init__(
        self,
        provider: Provider,
        transport: Sender,
        gate: Gate,
        prefix: str = "",
        policy: RetryPolicy | None = None,
    ) -> None:
        self.prefix = prefix
        self._provider = provider
        self._upstream = Upstream(provider, transport, policy)
        self._gate = gate
        self._running = 0
        self._seen_skew_s = 0.0
        self._endings: set[asyncio.Task[None]] = set()

    @property
    def clock_skew_s(self) -> float:
        """Seconds that the bucket's clock is ahead of ours, as far as an answer told it."""
        return self._provider.clock_skew_s or self._seen_skew_s

    @property
    def busy(self) -> bool:
        """Whether anything runs or streams from this bucket just now."""
        return self._running > 0

    async def open(self, key: str, options: ReadOptions = PLAIN_READ, *, caller: int = HOUSE) -> ObjectRead:
        """Read an object: RFC 9110 conditions, then the range, then bytes.

        Comes back before the first byte of a long body, which is resumed where it breaks; the caller closes
        a body that is a stream, and only then the next reader's turn comes. A missing ETag or Last-Modified
        is None in `meta`. With `not_modified` the size is 0 when the bucket did not repeat it.

        Raises `InvalidKeyError`, `ObjectMissingError`, `PreconditionFailedError`,
        `RangeNotSatisfiableError`, and `StorageError` for what the bucket refuses; while streaming
        `BrokenStreamError`.
        """
        check_key(key)
        await self._enter(caller)
        try:
            read = await Reading(self._upstream, key, options).get()
        except BaseException:
            self._leave(caller)
            raise
        if isinstance(read.body, bytes):
            self._leave(caller)
            return read
        body = resumable(self._upstream, key, read, read.body)
        return structs.replace(read, body=HeldStream(body, partial(self._leave, caller)))

    async def head(self, key: str, options: ReadOptions = PLAIN_READ, *, caller: int = HOUSE) -> ObjectRead:
        """Give an object's facts, its conditions decided and its range ignored; raises as `open` does.

        A missing bucket cannot be told from a missing object here: an answer to HEAD has no words.
        """
        check_key(key)
        async with self._turn(caller):
            return await Reading(self._upstream, key, options).head()

    def presign(
        self, method: Method, key: str, overrides: Overrides, lifetime_s: int = PRESIGNED_LIFE_S
    ) -> SecretStr:
        """Give a URL at the bucket itself that reads one object by one method for a while; asks nobody.

        Raises `InvalidKeyError`, and `MisconfiguredError` where it would give the credential itself away.
        """
        check_key(key)
        return self._provider.presign(method, key, lifetime_s, overrides)

    async def read_whole(self, key: str, limit_bytes: int) -> tuple[ObjectMeta, bytes]:
        """Read a small object into memory; raises `ObjectTooLargeError` above `limit_bytes`, else as `open`.

        The object is of one piece: an object replaced meanwhile gives the old bytes or `BrokenStreamError`.
        """
        read = await self.open(key)
        if isinstance(read.body, bytes):
            body = read.body
        else:
            try:
                _check_size(read.meta, limit_bytes)
                body = b"".join([chunk async for chunk in read.body])
            finally:
                await read.body.aclose()
        _check_size(read.meta, limit_bytes)
        return read.meta, body

    async def write(
        self,
        key: str,
        body: AsyncIterator[bytes],
        media_type: str,
        conditions: ReadOptions = PLAIN_READ,
        *,
        most_bytes: int,
        caller: int = HOUSE,
    ) -> str | None:
        """Store an object and give its entity tag; the whole body, or nothing of it.

        Conditions are decided before the first byte is asked of `body`, which has at most `most_bytes`; no more
        of it is taken than the bucket takes. What `body` raises ends the write and is raised. A place at the
        gate is held while the bucket works, not while a short body comes. Raises `InvalidKeyError`,
        `PreconditionFailedError`, and `StorageError` for what the bucket refuses (`ReadOnlyCredentialError`,
        `WriteRefusedError`); after a time-out or a broken connection the object may be stored.
        """
        check_key(key)
        self._running += 1
        try:
            pin = await self._pin(key, conditions, caller)
            writing = Writing(self._upstream, key, media_type, pin, self._endings)
            async with aclosing(parts_of(body, part_bytes(most_bytes))) as parts:
                return await self._write(writing, parts, caller)
        finally:
            self._running -= 1

    async def delete(self, key: str, conditions: ReadOptions = PLAIN_READ, *, caller: int = HOUSE) -> None:
        """Delete an object that is there; raises `ObjectMissingError`, and else as `write`."""
        check_key(key)
        async with self._turn(caller):
            pin = await pin_to(self._upstream, key, conditions, must_exist=True)
            await self._provider.delete(key, pin)

    async def list(
        self,
        prefix: str | None = None,
        delimiter: str = "",
        cursor: str | None = None,
        limit: int = 1000,
        *,
        caller: int = HOUSE,
    ) -> ListPage:
        """List up to `limit` (1 to 1,000) keys; `prefix` None means the storage's own.

        `media_type` is what the object is served as, by its stored type where the listing tells it, else by
        its key. The order is the bucket's own and means nothing; a page may be short with a cursor left.
        Raises `StorageError`, and `InvalidInputError` at `query:prefix` or `query:cursor`.
        """
        begin = self.prefix if prefix is None else prefix
        check_prefix(begin)
        async with self._turn(caller):
            page = await self._provider.list(begin, delimiter, cursor, limit)
        return ListPage([_typed(item) for item in page.items], page.cursor)

    async def check_access(self) -> None:
        """Ask for what every sufficient credential may do; raises `StorageError` with the field at fault."""
        async with self._turn():
            await self._provider.check_access()

    async def connect_check(self) -> None:
        """Get any HTTP answer at all: name, address, connection and TLS are well, whatever it says.

        Raises `UnreachableError`, `AddressRefusedError`, `StorageTimeoutError`, `UpstreamError`.
        """
        async with self._turn():
            self._seen_skew_s = _skew_s(await self._upstream.knock())

    async def write_check(self, key: str) -> None:
        """Store a small object and delete it again; raises `InvalidKeyError`, `StorageError`."""
        check_key(key)
        async with self._turn():
            await self._provider.put(key, b"framegate")
            await self._provider.delete(key)

    async def redirect_check(self, key: str) -> None:
        """Take an object's first byte by a presigned URL, as a client would; raises as `presign`, `StorageError`."""
        url = self.presign("GET", key, overrides_for(key))
        async with self._turn():
            await self._upstream.follow(url, key)

    async def aclose(self) -> None:
        """Close the provider; streams already open go on, and are closed by those who have them."""
        if self._endings:
            _, unended = await asyncio.wait(self._endings, timeout=ENDING_S)
            for ending in unended:
                ending.cancel()
        await self._provider.aclose()

    async def _pin(self, key: str, conditions: ReadOptions, caller: int) -> Pin:
        if conditions == PLAIN_READ:
            return ANYTHING
        async with self._turn(caller):
            return await pin_to(self._upstream, key, conditions)

    async def _write(self, writing: Writing, parts: AsyncIterator[Part], caller: int) -> str | None:
        first = await anext(parts)
        async with self._turn(caller):
            return await (writing.put(first.body) if first.is_last else writing.put_parts(first, parts))

    @asynccontextmanager
    async def _turn(self, caller: int = HOUSE) -> AsyncIterator[None]:
        await self._enter(caller)
        try:
            yield
        finally:
            self._leave(caller)

    async def _enter(self, caller: int) -> None:
        if not self._gate.try_acquire(caller):
            await self._gate.acquire(caller)
        self._running += 1

    def _leave(self, caller: int) -> None:
        self._running -= 1
        self._gate.release(caller)


def _skew_s(answer: Answer) -> float:
    moment = http_date(text_header(answer, b"date"))
    return moment.timestamp() - time() if moment else 0.0


def _check_size(meta: ObjectMeta, limit_bytes: int) -> None:
    if meta.size_bytes > limit_bytes:
        raise ObjectTooLargeError(meta.key, meta.size_bytes, limit_bytes)


def _typed(item: ListedObject) -> ListedObject:
    if item.is_prefix:
        return item
    return replace(item, media_type=media_type(item.media_type, item.key).content_type)
