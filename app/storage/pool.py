"""One open bucket per (storage, version): opened once, shared by all, closed when nobody needs it."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from app.storage.bucket import Bucket

_log = logging.getLogger(__name__)

Opener = Callable[[int, int], Awaitable[Bucket]]
"""Opens the bucket of (storage id, version); raises `StorageError` and what unsealing raises."""

LINGER_S = 5.0
"""How long a bucket of a replaced version stays open after it was last asked for."""


@dataclass(slots=True)
class _Entry:
    opening: "asyncio.Task[Bucket]"
    used_at: float

    def idle_bucket(self) -> Bucket | None:
        """Give the bucket if it is open and nothing runs on it."""
        if not self.opening.done() or self.opening.cancelled() or self.opening.exception() is not None:
            return None
        bucket = self.opening.result()
        return None if bucket.busy else bucket


class BucketPool:
    """Open buckets by (storage id, version).

    A bucket is closed `idle_s` seconds after it was last asked for, or shortly after a newer version of its
    storage was opened; never while anything runs or streams on it. A failed opening is not remembered.
    """

    def __init__(self, opener: Opener, idle_s: float = 300.0) -> None:
        self._opener = opener
        self._idle_s = idle_s
        self._entries: dict[tuple[int, int], _Entry] = {}
        self._newest: dict[int, float] = {}
        self._sweeper: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._entries)

    async def get(self, storage_id: int, version: int) -> Bucket:
        """Give the open bucket, opening it if need be; use it soon and do not close it.

        Many askers at once share one opening; an asker that is cancelled does not disturb the others. Raises
        what the opener raises.
        """
        entry = self._entries.get((storage_id, version)) or self._start(storage_id, version)
        entry.used_at = time.monotonic()
        if entry.opening.done():
            return entry.opening.result()
        return await asyncio.shield(entry.opening)

    def retire(self, storage_id: int) -> None:
        """Let go of every version of a storage opened so far (it was deleted, or its rights ended)."""
        versions = [version for known_id, version in self._entries if known_id == storage_id]
        self._newest[storage_id] = max(versions, default=0) + 0.5

    async def aclose(self) -> None:
        """Close every bucket and stop openings under way; closing twice does nothing."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweeper
        entries, self._entries = list(self._entries.values()), {}
        for entry in entries:
            await _discard(entry.opening)

    def _start(self, storage_id: int, version: int) -> _Entry:
        loop = asyncio.get_running_loop()
        opening = loop.create_task(self._open(storage_id, version))
        opening.add_done_callback(_take_notice)
        entry = self._entries[storage_id, version] = _Entry(opening, time.monotonic())
        self._newest[storage_id] = max(version, self._newest.get(storage_id, version))
        if self._sweeper is None:
            self._sweeper = loop.create_task(self._sweep_for_ever())
        return entry

    async def _open(self, storage_id: int, version: int) -> Bucket:
        try:
            return await self._opener(storage_id, version)
        except BaseException:
            self._entries.pop((storage_id, version), None)
            raise

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(min(self._idle_s, LINGER_S) / 2)
            await self.sweep()

    async def sweep(self) -> None:
        """Close what is due; runs by itself every few seconds."""
        now = time.monotonic()
        for (storage_id, version), entry in list(self._entries.items()):
            replaced = version < self._newest.get(storage_id, version)
            patience = min(LINGER_S, self._idle_s) if replaced else self._idle_s
            bucket = entry.idle_bucket()
            if bucket is not None and now - entry.used_at >= patience:
                del self._entries[storage_id, version]
                await _close(bucket)
        self._forget_gone()

    def _forget_gone(self) -> None:
        """Keep the newest versions of open storages alone, so that the pool does not grow for ever."""
        open_ids = {storage_id for storage_id, _ in self._entries}
        self._newest = {key: value for key, value in self._newest.items() if key in open_ids}


def _take_notice(opening: "asyncio.Task[Bucket]") -> None:
    """Look at a failure, else asyncio complains when every asker of it was cancelled."""
    if not opening.cancelled():
        opening.exception()


async def _discard(opening: "asyncio.Task[Bucket]") -> None:
    opening.cancel()
    with suppress(asyncio.CancelledError, Exception):
        await _close(await opening)


async def _close(bucket: Bucket) -> None:
    try:
        await bucket.aclose()
    except Exception:  # one bucket that does not close must not keep the others open
        _log.warning("a bucket did not close cleanly", exc_info=True)
