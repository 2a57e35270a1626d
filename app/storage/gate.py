"""How many requests one storage may have under way, how many may wait for that, and whose turn is next.

The bounds are the storage's; within them no caller can keep the others out. One caller gets at most three
quarters of the places. Those who wait take turns, caller by caller; and who comes to a full queue takes the place
of the last one in the longest line.
"""

import asyncio
from collections import deque
from types import TracebackType

from app.errors import ShareUsedUpError, ThrottledError

HOUSE = 0
"""The caller of what nobody asked for himself: background jobs and checks. It has no share to use up."""


class Tally:
    """How many requests each caller has under way or waiting, over all storages of a process."""

    __slots__ = ("_counts", "_most")

    def __init__(self, most: int) -> None:
        self._counts: dict[int, int] = {}
        self._most = most

    def __getitem__(self, caller: int) -> int:
        return self._counts.get(caller, 0)

    def add(self, caller: int) -> None:
        """Count one more; raises `ShareUsedUpError` when the caller has too many already."""
        count = self._counts.get(caller, 0)
        if count >= self._most and caller != HOUSE:
            raise ShareUsedUpError
        self._counts[caller] = count + 1

    def remove(self, caller: int) -> None:
        """Count one less."""
        count = self._counts[caller] - 1
        if count:
            self._counts[caller] = count
        else:
            del self._counts[caller]


class Gate:
    """A bounded number of places and a bounded queue before them, both shared fairly between callers.

    A reader holds its place until its body is closed or ended: `async with gate`, or `acquire` and, once,
    `release` with the same caller. Belongs to one event loop. `concurrency` >= 1 and `queue` >= 0 count
    requests; `caller` is a user's id; `tally` counts for all gates together.
    """

    __slots__ = (
        "_free",
        "_held",
        "_queue",
        "_queues",
        "_share",
        "_tally",
        "_turns",
        "waiting",
    )

    def __init__(self, concurrency: int, queue: int, tally: Tally | None = None) -> None:
        self._free = concurrency
        self._share = concurrency - concurrency // 4
        self._queue = queue
        self._held: dict[int, int] = {}
        self._queues: dict[int, deque[asyncio.Future[None]]] = {}
        self._turns: deque[int] = deque()
        self._tally = tally or Tally(concurrency + queue)
        self.waiting = 0
        """How many requests stand in the queue."""

    def try_acquire(self, caller: int = HOUSE) -> bool:
        """Take a place if one is free at once; nobody who may have it is overtaken.

        Raises `ShareUsedUpError`.
        """
        # A place that comes free goes to the queue first, so a free one is for nobody who waits.
        if self._free == 0 or not self._may_hold(caller):
            return False
        self._tally.add(caller)
        self._take(caller)
        return True

    async def acquire(self, caller: int = HOUSE) -> None:
        """Take a place, waiting for it if need be.

        Raises `ThrottledError` when the queue is full, `ShareUsedUpError` when it is full, most of all of the
        caller's own requests, and others wait as well. Cancelled while it waits it leaves the queue, and
        passes on a place that it was just given.
        """
        if self.try_acquire(caller):
            return
        turn = self._stand_in_line(caller)
        try:
            await turn
        except ShareUsedUpError:
            self._tally.remove(caller)
            raise
        except asyncio.CancelledError:
            self._leave(caller, turn)
            raise

    def release(self, caller: int = HOUSE) -> None:
        """Give a place back, to the caller whose turn is next."""
        self._tally.remove(caller)
        held = self._held[caller] - 1
        if held:
            self._held[caller] = held
        else:
            del self._held[caller]
        self._free += 1
        if self._turns:
            self._hand_on()

    async def __aenter__(self) -> None:
        """Acquire for the house."""
        await self.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release."""
        self.release()

    def _may_hold(self, caller: int) -> bool:
        return caller == HOUSE or self._held.get(caller, 0) < self._share

    def _take(self, caller: int) -> None:
        self._free -= 1
        self._held[caller] = self._held.get(caller, 0) + 1

    def _stand_in_line(self, caller: int) -> "asyncio.Future[None]":
        if self.waiting >= self._queue:
            self._make_room(caller)
        self._tally.add(caller)
        line = self._queues.get(caller)
        if line is None:
            line = self._queues[caller] = deque()
            self._turns.append(caller)
        turn = asyncio.get_running_loop().create_future()
        line.append(turn)
        self.waiting += 1
        return turn

    def _make_room(self, caller: int) -> None:
        """Send the last one of the longest line away, unless that line is the caller's own, or all there is."""
        lines = {one: len(line) for one, line in self._queues.items() if one != HOUSE}
        longest = max(lines, key=lines.__getitem__, default=HOUSE)
        if not set(lines) - {caller} and longest in {caller, HOUSE}:
            raise ThrottledError("Too many requests wait for this storage already.")
        if lines[longest] <= lines.get(caller, 0) + 1:
            raise ShareUsedUpError
        turn = self._queues[longest][-1]
        self._forget(longest, turn)
        if not turn.done():
            turn.set_exception(ShareUsedUpError())

    def _hand_on(self) -> None:
        """Give free places to those who wait, one caller after the other, past those who have their share."""
        passed_over = 0
        while self._free and passed_over < len(self._turns):
            caller = self._turns[0]
            self._turns.rotate(-1)
            if self._may_hold(caller):
                self._give(caller, self._queues[caller][0])
                passed_over = 0
            else:
                passed_over += 1

    def _give(self, caller: int, turn: "asyncio.Future[None]") -> None:
        self._forget(caller, turn)
        if not turn.cancelled():  # else its task just has not run yet
            self._take(caller)
            turn.set_result(None)

    def _leave(self, caller: int, turn: "asyncio.Future[None]") -> None:
        if turn.done() and not turn.cancelled() and turn.exception() is None:
            self.release(caller)
            return
        self._tally.remove(caller)
        if turn in self._queues.get(caller, ()):
            self._forget(caller, turn)

    def _forget(self, caller: int, turn: "asyncio.Future[None]") -> None:
        """Take one turn out of the queue."""
        line = self._queues[caller]
        line.remove(turn)
        self.waiting -= 1
        if not line:
            del self._queues[caller]
            self._turns.remove(caller)
