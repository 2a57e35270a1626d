"""How many requests one storage may have under way, and how many may wait for that."""

import asyncio
from collections import deque
from types import TracebackType

from app.errors import ThrottledError


class Gate:
    """A bounded number of places and a bounded first-come-first-served queue before them.

    A reader holds its place until its body is closed or ended: `async with gate`, or `acquire` and, once,
    `release`. Belongs to one event loop. `concurrency` >= 1 and `queue` >= 0 count requests.
    """

    __slots__ = ("_free", "_queue", "_waiters")

    def __init__(self, concurrency: int, queue: int) -> None:
        self._free = concurrency
        self._queue = queue
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many requests stand in the queue."""
        return len(self._waiters)

    def try_acquire(self) -> bool:
        """Take a place if one is free at once; nobody who waits is overtaken."""
        if self._free == 0:  # a place that comes free goes to the queue first, so free means: nobody waits
            return False
        self._free -= 1
        return True

    async def acquire(self) -> None:
        """Take a place, waiting for it if need be; raises `ThrottledError` when the queue is full.

        Cancelled while it waits it leaves the queue, and passes on a place that it was just given.
        """
        if self.try_acquire():
            return
        if len(self._waiters) >= self._queue:
            raise ThrottledError("Too many requests wait for this storage already.")
        turn = asyncio.get_running_loop().create_future()
        self._waiters.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            self._leave(turn)
            raise

    def release(self) -> None:
        """Give a place back, to the one who has waited longest."""
        while self._waiters:
            turn = self._waiters.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    async def __aenter__(self) -> None:
        """Acquire."""
        await self.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release."""
        self.release()

    def _leave(self, turn: asyncio.Future[None]) -> None:
        if turn.cancelled():
            if turn in self._waiters:
                self._waiters.remove(turn)
        else:
            self.release()
