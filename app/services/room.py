"""Memory that is set aside for one purpose: bounded for a process, shared out between users."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from app.errors import ThrottledError

LONGEST_WAIT_S = 20.0
MOST_WAITERS = 256
"""So many requests of one user may wait."""
_RETRY_AFTER_S = 5


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    user_id: int
    size_bytes: int
    turn: "asyncio.Future[None]"


class Room:
    """So many bytes for all, and at most one of `shares` parts of them for each user. Belongs to one event loop.

    Whatever can do without takes room only where there is some. Those who cannot go on without it wait, and
    hold nothing meanwhile: so they never wait for each other.
    """

    def __init__(
        self,
        limit_bytes: int,
        *,
        shares: int = 4,
        wait_s: float | None = LONGEST_WAIT_S,
        most_waiters: int = MOST_WAITERS,
        what: str = "chunks",
    ) -> None:
        """`wait_s` None: for as long as it takes; `what` is named where there is no room."""
        self.share_bytes = limit_bytes // shares
        self._limit_bytes = limit_bytes
        self._wait_s = wait_s
        self._most_waiters = most_waiters
        self._what = what
        self._held: Counter[int] = Counter()
        self._waiters: deque[_Waiter] = deque()

    @property
    def held_bytes(self) -> int:
        """How much is taken just now."""
        return self._held.total()

    def take(self, user_id: int, size_bytes: int, *, urgent: bool = False) -> bool:
        """Take room if there is some and nobody waits for it; tells whether.

        Half of a user's share is for what is `urgent` alone.
        """
        most_bytes = self.share_bytes if urgent else self.share_bytes // 2
        if self._waiters or self._held[user_id] + size_bytes > most_bytes or not self._fits(size_bytes):
            return False
        self._held[user_id] += size_bytes
        return True

    @asynccontextmanager
    async def reserve(self, user_id: int, size_bytes: int) -> AsyncIterator[None]:
        """Hold room for as long as the block lasts, at most a user's share; raises as `wait` does."""
        held_bytes = min(size_bytes, self.share_bytes)
        await self.wait(user_id, held_bytes)
        try:
            yield
        finally:
            self.give(user_id, held_bytes)

    async def wait(self, user_id: int, size_bytes: int) -> None:
        """Take room, at most a user's share, as soon as there is some; call it while holding nothing.

        Raises `ThrottledError` when that takes too long, or when too many wait already. Cancelled while it
        waits it holds nothing.
        """
        if sum(waiter.user_id == user_id for waiter in self._waiters) >= self._most_waiters:
            raise self._crowded()
        waiter = _Waiter(user_id, size_bytes, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self._serve()
        try:
            async with asyncio.timeout(self._wait_s):
                await waiter.turn
        except BaseException as error:
            self._leave(waiter)
            if isinstance(error, TimeoutError):
                raise self._crowded() from None
            raise

    def give(self, user_id: int, size_bytes: int) -> None:
        """Give room back."""
        self._held[user_id] -= size_bytes
        if not self._held[user_id]:
            del self._held[user_id]
        self._serve()

    def _fits(self, size_bytes: int) -> bool:
        return self.held_bytes + size_bytes <= self._limit_bytes

    def _serve(self) -> None:
        """Let those who wait have their room, in order; one whose own share is used up holds up nobody else."""
        for waiter in tuple(self._waiters):
            if not self._fits(waiter.size_bytes):
                return
            if self._held[waiter.user_id] + waiter.size_bytes <= self.share_bytes:
                self._waiters.remove(waiter)
                if not waiter.turn.done():
                    self._held[waiter.user_id] += waiter.size_bytes
                    waiter.turn.set_result(None)

    def _leave(self, waiter: _Waiter) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
            self._serve()
        elif not waiter.turn.cancelled():
            self.give(waiter.user_id, waiter.size_bytes)

    def _crowded(self) -> ThrottledError:
        return ThrottledError(
            f"Too many {self._what} are under way: they take all the memory that is set aside for them.",
            retry_after_s=_RETRY_AFTER_S,
        )
