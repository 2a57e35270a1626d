"""One run of a job: what its work may say, and how it ends."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Literal

from sqlalchemy.ext.asyncio import AsyncSession

from app.db.jobs import JobRow, Progress
from app.jobs.queue import end_run


class Run:
    """A job in the hands of this process."""

    def __init__(self, job: JobRow) -> None:
        self.job = job
        self.progress = Progress()
        self.stopped: Literal["cancelled", "lost"] | None = None
        """Why the work was cancelled; None: because the process stops."""
        self._doing: asyncio.Task[None] | None = None

    def report(self, done: int, total: int | None) -> None:
        """Say how far the work is; written about once a second, by somebody else."""
        self.progress = Progress(done, total)

    async def succeed(self, session: AsyncSession, result: Mapping[str, Any]) -> None:
        """End the job in the transaction of what it made: both are seen, or neither.

        Raises `JobLostError`, which must roll that transaction back.
        """
        await end_run(session, self.job, "succeeded", result=result, progress=self.progress)

    async def fail(self, session: AsyncSession, *errors: str) -> None:
        """End the job without success, in the transaction of what it leaves behind; raises `JobLostError`."""
        await end_run(session, self.job, "failed", errors=errors, progress=self.progress)

    async def do(self, work: "Work") -> None:
        """Do the work in a task of its own, so that `cancel` stops it and not what comes after."""
        self._doing = asyncio.create_task(work(self))
        await self._doing

    def cancel(self, why: Literal["cancelled", "lost"] | None = None) -> None:
        """Stop the work; `do` then raises `CancelledError`. Work that is done stays done."""
        if self._doing is not None and not self._doing.done():
            self.stopped = why
            self._doing.cancel()


Work = Callable[[Run], Coroutine[Any, Any, None]]
"""Does a job and ends it by `run.succeed` or `run.fail`, or raises.

It may be cancelled at any await, must then leave nothing behind, and may be run again.
"""
