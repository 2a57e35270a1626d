"""How much memory all uploads of a process may hold, and who waits when that is taken."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from app.errors import ThrottledError


@dataclass(frozen=True, slots=True)
class _Waiter:
    user_id: int
    size_bytes: int
    turn: "asyncio.Future[None]"


class Room:
    """A number of bytes that holders reserve parts of, first come, first served; for one event loop.

    One user has at most half of it, and `most_waiting` who wait. Who waits for his own share holds up nobody else.
    """

    def __init__(self, size_bytes: int, most_waiting: int) -> None:
        self._size_bytes = size_bytes
        self._most_waiting = most_waiting
        self._free_bytes = size_bytes
        self._held: Counter[int] = Counter()
        self._waiters: deque[_Waiter] = deque()

    @asynccontextmanager
    async def reserve(self, user_id: int, size_bytes: int) -> AsyncIterator[None]:
        """Hold so many bytes (at most half of the room) for as long as the block lasts.

        Waits until they are free; raises `ThrottledError` when too many of the user's wait already.
        """
        size_bytes = min(size_bytes, self._size_bytes // 2)
        await self._enter(user_id, size_bytes)
        try:
            yield
        finally:
            self._leave(user_id, size_bytes)

    async def _enter(self, user_id: int, size_bytes: int) -> None:
        if sum(waiter.user_id == user_id for waiter in self._waiters) >= self._most_waiting:
            raise ThrottledError("Too many of your uploads wait already.")
        waiter = _Waiter(user_id, size_bytes, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self._admit()
        try:
            await waiter.turn
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
                self._admit()
            else:  # it was admitted just now
                self._leave(user_id, size_bytes)
            raise

    def _leave(self, user_id: int, size_bytes: int) -> None:
        self._free_bytes += size_bytes
        self._held[user_id] -= size_bytes
        if not self._held[user_id]:
            del self._held[user_id]
        self._admit()

    def _admit(self) -> None:
        """Let in who fits; the first that only lacks free bytes is not overtaken, so that he comes in one day."""
        for waiter in list(self._waiters):
            if self._held[waiter.user_id] + waiter.size_bytes > self._size_bytes // 2:
                continue
            if waiter.size_bytes > self._free_bytes:
                return
            self._waiters.remove(waiter)
            self._free_bytes -= waiter.size_bytes
            self._held[waiter.user_id] += waiter.size_bytes
            waiter.turn.set_result(None)
