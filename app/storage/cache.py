"""Hot objects in memory: one fetch for many waiters, bounded in bytes, revalidated by entity tag.

Only whole objects of a few MiB are kept, and only those that a plain GET asked for: a range or a condition on
an object that is not here goes to the bucket as it is. Nothing stale is served in place of an error.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from cachetools import LRUCache

from app.storage.base import PLAIN_READ, ByteStream, Method, ObjectRead, ReadOptions
from app.storage.bucket import Bucket
from app.storage.preconditions import is_strong
from app.storage.reading import from_memory
from app.storage.streams import close_body

MOST_OBJECT_BYTES = 4 * 1024 * 1024
_ENTRY_BYTES = 1024
"""What an entry costs beside its bytes: the key, the facts, the cache's own links (a generous round figure)."""

Outcome = Literal["hit", "miss", "revalidated", "passed"]


@dataclass(frozen=True, slots=True)
class Place:
    """Which bucket: a storage in the version that it was opened with."""

    storage_id: int
    version: int


@dataclass(slots=True)
class _Entry:
    whole: ObjectRead
    body: bytes
    checked_at: float


_Key = tuple[int, int, str]


class ObjectCache:
    """Whole small objects of all storages of a process; permission is the caller's to check, on every call."""

    def __init__(
        self,
        limit_bytes: int,
        max_age_s: float,
        count: Callable[[Outcome], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._entries: LRUCache[_Key, _Entry] = LRUCache(limit_bytes, getsizeof=_size)
        self._most_object_bytes = min(MOST_OBJECT_BYTES, limit_bytes - _ENTRY_BYTES)
        self._max_age_s = max_age_s
        self._count = count
        self._clock = clock
        self._fetches: dict[_Key, asyncio.Task[ObjectRead]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def held_bytes(self) -> int:
        """How much memory the kept objects take, about."""
        return int(self._entries.currsize)

    async def read(
        self,
        bucket: Bucket,
        place: Place,
        key: str,
        method: Method,
        options: ReadOptions = PLAIN_READ,
        *,
        revalidate: bool = False,
    ) -> ObjectRead:
        """Answer a GET or HEAD from memory, or from the bucket; raises what `Bucket.open` raises.

        `revalidate` asks the bucket even if the kept object is fresh. The caller closes a body that is a
        stream.
        """
        entry_key = (place.storage_id, place.version, key)
        entry = self._entries.get(entry_key)
        if entry is not None and not revalidate and self._clock() - entry.checked_at < self._max_age_s:
            self._count("hit")
            return from_memory(entry.whole, entry.body, method, options)
        if entry is None and (method == "HEAD" or options != PLAIN_READ or self._most_object_bytes <= 0):
            self._count("passed")
            return await _direct(bucket, key, method, options)
        return await self._fetched(bucket, entry_key, method, options)

    def forget(self, storage_id: int, key: str | None = None) -> None:
        """Drop one object that was written or deleted, or every object of a storage that was changed or removed.

        What is being fetched is not kept either, and nobody who asks from now on is given it.
        """
        for kept in (self._entries, self._fetches):
            for entry_key in [one for one in kept if one[0] == storage_id and key in {None, one[2]}]:
                kept.pop(entry_key)

    def clear(self) -> None:
        """Drop everything, what is being fetched too."""
        self._entries.clear()
        self._fetches.clear()

    async def _fetched(
        self, bucket: Bucket, entry_key: _Key, method: Method, options: ReadOptions
    ) -> ObjectRead:
        fetch = self._fetches.get(entry_key)
        leads = fetch is None
        fetch = fetch or self._begin(bucket, entry_key)
        # A waiter that goes away must not take the fetch from the others.
        try:
            read = await asyncio.shield(fetch)
        except asyncio.CancelledError:
            if leads:
                fetch.add_done_callback(self._discard)
            raise
        if isinstance(read.body, bytes):
            return from_memory(read, read.body, method, options)
        # Too long to share: it is the first asker's, every other one asks for himself.
        if leads and method == "GET" and options == PLAIN_READ:
            return read
        if leads:
            await close_body(read.body)
        return await _direct(bucket, entry_key[2], method, options)

    def _begin(self, bucket: Bucket, entry_key: _Key) -> asyncio.Task[ObjectRead]:
        fetch = asyncio.create_task(self._fetch(bucket, entry_key))
        self._fetches[entry_key] = fetch
        fetch.add_done_callback(lambda done: self._end(entry_key, done))
        return fetch

    def _end(self, entry_key: _Key, fetch: asyncio.Task[ObjectRead]) -> None:
        if self._fetches.get(entry_key) is fetch:
            del self._fetches[entry_key]

    async def _fetch(self, bucket: Bucket, entry_key: _Key) -> ObjectRead:
        """Get the object anew, or learn that the kept one is current; a long one comes as a stream."""
        entry = self._entries.get(entry_key)
        tag = None if entry is None else entry.whole.meta.etag
        if entry is not None and tag is not None and is_strong(tag):
            read = await bucket.open(entry_key[2], ReadOptions(if_none_match=(tag,)))
            if read.not_modified:
                self._count("revalidated")
                entry.checked_at = self._clock()
                return entry.whole
        else:
            read = await bucket.open(entry_key[2])
        self._count("miss")
        self._entries.pop(entry_key, None)
        return await self._kept(entry_key, read)

    async def _kept(self, entry_key: _Key, read: ObjectRead) -> ObjectRead:
        if read.meta.size_bytes > self._most_object_bytes:
            return read
        body = read.body if isinstance(read.body, bytes) else await _whole(read.body)
        whole = ObjectRead(read.meta, body)
        if self._fetches.get(entry_key) is asyncio.current_task():  # else it was forgotten meanwhile
            self._entries[entry_key] = _Entry(whole, body, self._clock())
        return whole

    def _discard(self, fetch: asyncio.Task[ObjectRead]) -> None:
        """Close what nobody takes any more; an error was nobody's either."""
        if fetch.cancelled() or fetch.exception() is not None:
            return
        body = fetch.result().body
        if not isinstance(body, bytes):
            closing = asyncio.create_task(body.aclose())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


def _size(entry: _Entry) -> int:
    return len(entry.body) + _ENTRY_BYTES


async def _whole(body: ByteStream) -> bytes:
    try:
        return b"".join([chunk async for chunk in body])
    finally:
        await body.aclose()


async def _direct(bucket: Bucket, key: str, method: Method, options: ReadOptions) -> ObjectRead:
    return await (bucket.head(key, options) if method == "HEAD" else bucket.open(key, options))
