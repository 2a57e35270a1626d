"""Hot objects in memory: one fetch for many waiters, bounded in bytes, revalidated by entity tag.

Only whole objects of a few MiB are kept, and only those that a plain GET asked for: a range or a condition on
an object that is not here goes to the bucket as it is. Nothing stale is served in place of an error.

What is made of an object (a smaller picture) is kept beside it, in the same memory and by the same rules.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from cachetools import LRUCache

from app.storage.base import PLAIN_READ, Method, ObjectRead, ReadOptions
from app.storage.bucket import Bucket
from app.storage.gate import HOUSE
from app.storage.preconditions import is_strong
from app.storage.reading import from_memory
from app.storage.streams import close_body, whole

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


_Key = tuple[int, int, str, str]
"""Storage, version, key, and the name of what was made of that object; "" is the object itself."""

Get = Callable[[ObjectRead | None], Awaitable[ObjectRead]]
"""Gets something anew. It is given what is kept of it, and answers `not_modified` when that is current."""


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
    def keeps(self) -> bool:
        """Whether anything can be held at all."""
        return self._most_object_bytes > 0

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
        keep: bool = True,
        caller: int = HOUSE,
    ) -> ObjectRead:
        """Answer a GET or HEAD from memory, or from the bucket; raises what `Bucket.open` raises.

        `revalidate` asks the bucket even if the kept object is fresh. Without `keep` an object that is not
        here is not kept either. Whoever asks first is the `caller` of a fetch that others wait for; a body
        that is a stream is the reader's to close.
        """
        if not revalidate:
            held = self.at_hand(place.storage_id, place.version, key, method, options)
            if held is not None:
                return held
        entry_key = (place.storage_id, place.version, key, "")
        kept = keep and self.keeps and method == "GET" and options == PLAIN_READ
        if not kept and entry_key not in self._entries:
            self._count("passed")
            return await _direct(bucket, key, method, options, caller)
        return await self._fetched(bucket, entry_key, method, options, caller)

    def at_hand(
        self, storage_id: int, version: int, key: str, method: Method, options: ReadOptions, name: str = ""
    ) -> ObjectRead | None:
        """Answer from memory if the object is there and fresh, else None; raises what conditions come to.

        With a `name` it is what was made of the object by that name.
        """
        entry = self._entries.get((storage_id, version, key, name))
        if entry is None or self._clock() - entry.checked_at >= self._max_age_s:
            return None
        self._count("hit")
        return from_memory(entry.whole, entry.body, method, options)

    async def read_made(
        self,
        place: Place,
        key: str,
        name: str,
        make: Get,
        method: Method,
        options: ReadOptions = PLAIN_READ,
        *,
        revalidate: bool = False,
    ) -> ObjectRead:
        """Answer a GET or HEAD of what `make` makes of an object; `name` (not empty) tells it from others.

        One making serves all who wait, even where nothing is kept; it goes on when they leave. Its body is
        whole. Raises what `make` raises, and what conditions and ranges come to.
        """
        if not revalidate:
            held = self.at_hand(place.storage_id, place.version, key, method, options, name)
            if held is not None:
                return held
        entry_key = (place.storage_id, place.version, key, name)
        making = self._fetches.get(entry_key) or self._begin(entry_key, make)
        made = await asyncio.shield(making)
        assert isinstance(made.body, bytes)  # noqa: S101 - what is made is made as a whole
        return from_memory(made, made.body, method, options)

    def holds(self, place: Place, key: str, name: str) -> bool:
        """Tell whether something made of an object is here, fresh or not."""
        return (place.storage_id, place.version, key, name) in self._entries

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
        self, bucket: Bucket, entry_key: _Key, method: Method, options: ReadOptions, caller: int
    ) -> ObjectRead:
        fetch = self._fetches.get(entry_key)
        leads = fetch is None
        fetch = fetch or self._begin(entry_key, partial(_get_object, bucket, entry_key[2], caller))
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
        return await _direct(bucket, entry_key[2], method, options, caller)

    def _begin(self, entry_key: _Key, get: Get) -> asyncio.Task[ObjectRead]:
        fetch = asyncio.create_task(self._fetch(entry_key, get))
        self._fetches[entry_key] = fetch
        fetch.add_done_callback(partial(self._end, entry_key))
        return fetch

    def _end(self, entry_key: _Key, fetch: asyncio.Task[ObjectRead]) -> None:
        if self._fetches.get(entry_key) is fetch:
            del self._fetches[entry_key]
        if not fetch.cancelled():
            fetch.exception()  # looked at, else asyncio complains when everybody who waited has left

    async def _fetch(self, entry_key: _Key, get: Get) -> ObjectRead:
        """Get it anew, or learn that the kept one is current; a long object comes as a stream."""
        entry = self._entries.get(entry_key)
        read = await get(None if entry is None else entry.whole)
        if entry is not None and read.not_modified:
            self._count("revalidated")
            entry.checked_at = self._clock()
            return entry.whole
        self._count("miss")
        self._entries.pop(entry_key, None)
        return await self._kept(entry_key, read)

    async def _kept(self, entry_key: _Key, read: ObjectRead) -> ObjectRead:
        if read.meta.size_bytes > self._most_object_bytes:
            return read
        body = await whole(read.body)
        kept = ObjectRead(read.meta, body)
        if self._fetches.get(entry_key) is asyncio.current_task():  # else it was forgotten meanwhile
            self._entries[entry_key] = _Entry(kept, body, self._clock())
        return kept

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


async def _get_object(bucket: Bucket, key: str, caller: int, kept: ObjectRead | None) -> ObjectRead:
    tag = None if kept is None else kept.meta.etag
    if tag is None or not is_strong(tag):
        return await bucket.open(key, caller=caller)
    return await bucket.open(key, ReadOptions(if_none_match=(tag,)), caller=caller)


async def _direct(bucket: Bucket, key: str, method: Method, options: ReadOptions, caller: int) -> ObjectRead:
    read = bucket.head if method == "HEAD" else bucket.open
    return await read(key, options, caller=caller)
