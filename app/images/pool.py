"""Rendering processes: as many as the machine has cores, started when they are first needed, none beyond help."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Literal, assert_never

import structlog

from app.errors import NotAPictureError, PictureTooLargeError, RenditionsBusyError
from app.images.process import ProcessDiedError, RenderProcess
from app.images.rendition import Rendition
from app.images.wire import Outcome

TIME_LIMIT_S = 10.0
TURNS_PER_PROCESS = 4
"""So many pictures are fetched or wait in memory for each process, so that none is idle while a bucket answers."""

Counted = Literal["made", "refused", "busy", "killed"]

_log = structlog.get_logger(__name__)


class RenderPool:
    """Renders pictures in processes of its own; belongs to one event loop.

    `processes` >= 1 run at a time, and `queue` >= 0 pictures may wait for a turn. `count` is told what came of
    each, and how many seconds its process took.
    """

    def __init__(
        self,
        processes: int,
        queue: int,
        count: Callable[[Counted, float], None] = lambda *_: None,
        time_limit_s: float = TIME_LIMIT_S,
    ) -> None:
        self.turns = processes * TURNS_PER_PROCESS
        """How many pictures are fetched or rendered at a time."""
        self.queue = queue
        """How many more may wait."""
        self._turns = asyncio.Semaphore(self.turns)
        self._waiting = 0
        self._places = asyncio.Semaphore(processes)
        self._idle: list[RenderProcess] = []
        self._busy: set[RenderProcess] = set()
        self._closed = asyncio.Event()
        self._count = count
        self._time_limit_s = time_limit_s

    @property
    def pids(self) -> list[int]:
        """The ids of the processes that run."""
        return [process.pid for process in (*self._idle, *self._busy)]

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for leave to fetch and render one picture: who has to wait shall not hold its bytes yet.

        Raises `RenditionsBusyError` when too many wait.
        """
        if self._closed.is_set() or (self._turns.locked() and self._waiting >= self.queue):
            raise self.turn_away()
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._turns.release()

    def turn_away(self) -> RenditionsBusyError:
        """Give the error for one who cannot wait, and count him."""
        self._count("busy", 0)
        return RenditionsBusyError()

    async def render(self, picture: bytes, wanted: Rendition, storage_id: int) -> bytes:
        """Render one picture; called within a turn. `storage_id` is what the log says of a killed process.

        Raises `NotAPictureError`, `PictureTooLargeError`, for a picture that takes too long, too, and
        `RenditionsBusyError` while the service stops.
        """
        async with self._places:
            with suppress(ProcessDiedError):
                return await self._attempt(picture, wanted, storage_id)
            # Whatever took the process (a machine short of memory) need not have to do with the picture.
            try:
                return await self._attempt(picture, wanted, storage_id)
            except ProcessDiedError as error:
                self._count("refused", 0)
                raise NotAPictureError("Two processes broke down over the picture.") from error

    async def aclose(self) -> None:
        """End every process; who waits is refused. Closing twice does nothing."""
        self._closed.set()
        processes = {*self._idle, *self._busy}
        self._idle.clear()
        await asyncio.gather(*(process.kill() for process in processes))

    async def _attempt(self, picture: bytes, wanted: Rendition, storage_id: int) -> bytes:
        process = await self._taken()
        begun = time.perf_counter()
        reusable = False
        try:
            outcome, body = await asyncio.wait_for(process.render(picture, wanted), self._time_limit_s)
            reusable = True
        except TimeoutError:
            self._note_killed(storage_id, "it took too long")
            self._count("refused", time.perf_counter() - begun)
            raise PictureTooLargeError(
                f"Making it smaller takes longer than the {self._time_limit_s:g} seconds that it may take."
            ) from None
        except ProcessDiedError:
            self._note_killed(storage_id, "it died")
            raise
        finally:
            await self._give_back(process, reusable=reusable)
        return self._judged(outcome, body, time.perf_counter() - begun)

    async def _taken(self) -> RenderProcess:
        if self._closed.is_set():
            raise RenditionsBusyError
        process = self._idle.pop() if self._idle else await RenderProcess.start()
        self._busy.add(process)
        if self._closed.is_set():
            await self._give_back(process, reusable=False)
            raise RenditionsBusyError
        return process

    async def _give_back(self, process: RenderProcess, *, reusable: bool) -> None:
        self._busy.discard(process)
        if reusable and not self._closed.is_set():
            self._idle.append(process)
        else:
            await process.kill()

    def _note_killed(self, storage_id: int, why: str) -> None:
        if not self._closed.is_set():
            self._count("killed", 0)
            _log.warning("rendition_process_killed", storage_id=storage_id, why=why)

    def _judged(self, outcome: Outcome, body: bytes, seconds: float) -> bytes:
        self._count("made" if outcome is Outcome.MADE else "refused", seconds)
        match outcome:
            case Outcome.MADE:
                return body
            case Outcome.NO_PICTURE:
                raise NotAPictureError(body.decode(errors="replace"))
            case Outcome.TOO_LARGE:
                raise PictureTooLargeError(body.decode(errors="replace"))
            case _:
                assert_never(outcome)
