"""Runs queued jobs inside this process, and takes up again those whose process died."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import assert_never

import asyncpg
import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import jobs as queries
from app.db.jobs import CHANNEL, JobRow, Outcome
from app.db.session import Database
from app.errors import DatabaseUnavailableError, FramegateError, StorageError
from app.jobs.queue import JobLostError, end_run
from app.jobs.register import OpenBucket, Registrar
from app.jobs.run import Run, Work
from app.jobs.sweep import sweep
from app.manifests.reader import Limits
from app.settings import Settings

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """How many jobs run at once in this process, and how patient it is, in seconds."""

    concurrency: int = 2
    beat_s: float = 1.0
    """How often a running job shows that it lives, writes its progress and looks whether to stop."""
    stale_s: float = 15.0
    """A job without a beat for so long is taken up again."""
    poll_s: float = 2.0
    """How often work is looked for unasked; who queues a job also says so."""
    sweep_s: float = 30.0
    retry_s: float = 1.0
    """How long to wait for a database that is gone."""
    most_starts: int = 3


class JobRunner:
    """Takes up jobs while it is started; any number of processes may do so on one database."""

    def __init__(
        self,
        database: Database,
        open_bucket: OpenBucket,
        settings: Settings,
        pace: Pace = Pace(),
    ) -> None:
        registrar = Registrar(
            database, open_bucket, Limits(settings.max_manifest_bytes, settings.max_line_bytes)
        )
        self._works: Mapping[str, Work] = {"register": registrar, "sync": registrar}
        self._database = database
        self._pace = pace
        self._wake = asyncio.Event()
        self._sweep_wake = asyncio.Event()
        self._slots = asyncio.Semaphore(pace.concurrency)
        self._running: dict[asyncio.Task[None], Run] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    async def start(self) -> None:
        """Begin to take up jobs; a database that is gone is waited for."""
        self._stopping = False
        self._tasks = [asyncio.create_task(part()) for part in (self._serve, self._listen, self._sweep)]

    async def aclose(self) -> None:
        """Stop; what runs goes back into the queue at once, for another process or the next start."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        for run in self._running.values():
            run.cancel()
        unwritten = asyncio.gather(*self._tasks, *self._running, return_exceptions=True)
        with suppress(TimeoutError):  # the database may be gone as well: then others find the jobs stale
            await asyncio.wait_for(unwritten, _LAST_WORDS_S)

    async def _serve(self) -> None:
        while True:
            await self._slots.acquire()
            job = await self._claim()
            if job is None:
                self._slots.release()
                await self._wait_for(self._wake, self._pace.poll_s)
            else:
                run = Run(job)
                task = asyncio.create_task(self._run(run), name=f"job {job.id}")
                self._running[task] = run
                task.add_done_callback(self._note_end)

    def _note_end(self, task: "asyncio.Task[None]") -> None:
        run = self._running.pop(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Its end is not written: it will be taken up again like that of a process that died.
            _log.error("job_unended", job=str(run.job.id), exc_info=error)
        self._slots.release()
        self._wake.set()  # another job on the same manifest may have waited for this one
        self._sweep_wake.set()

    async def _claim(self) -> JobRow | None:
        try:
            async with self._database.session() as session:
                return await queries.claim_job(session, tuple(self._works), self._pace.stale_s)
        except DatabaseUnavailableError:
            return None
        except Exception as error:  # a table may be away while a backup is restored: work is looked for again
            _log.error("jobs_unreadable", exc_info=error)
            return None

    async def _run(self, run: Run) -> None:
        """Do one job from its start to a written end."""
        if run.job.starts > self._pace.most_starts:
            await self._end(run, "failed", _GIVEN_UP.format(run.job.starts - 1))
        elif run.job.cancel_requested:
            await self._end(run, "cancelled")
        elif self._stopping:
            await self._requeue(run)
        else:
            await self._do(run)

    async def _do(self, run: Run) -> None:
        beat = asyncio.create_task(self._beat(run))
        try:
            await run.do(self._works[run.job.kind])
        except asyncio.CancelledError:
            await self._end_stopped(run)
        except JobLostError:
            _log.warning("job_lost", job=str(run.job.id))
        except DatabaseUnavailableError:
            await self._requeue(run)
        except Exception as error:  # a job must end, whatever its work does
            await self._end(run, "failed", *_reasons(run.job, error))
        finally:
            beat.cancel()

    async def _beat(self, run: Run) -> None:
        """Show that a run lives, and stop its work when that is asked for or the job is not ours any more."""
        while True:
            await asyncio.sleep(self._pace.beat_s)
            try:
                async with self._database.session() as session:
                    cancelling = await queries.beat(session, run.job, run.progress)
            except DatabaseUnavailableError:
                continue
            except Exception:  # a job that lives must not look dead
                _log.exception("beat_failed", job=str(run.job.id))
                continue
            if cancelling is not False:
                run.cancel("cancelled" if cancelling else "lost")
                return

    async def _end_stopped(self, run: Run) -> None:
        match run.stopped:
            case "cancelled":
                await self._end(run, "cancelled")
            case "lost":
                _log.warning("job_lost", job=str(run.job.id))
            case None:  # this process stops
                await self._requeue(run)
            case _:
                assert_never(run.stopped)

    async def _end(self, run: Run, outcome: Outcome, *errors: str) -> None:
        async def write(session: AsyncSession) -> None:
            await end_run(session, run.job, outcome, errors=errors, progress=run.progress)

        await self._write(write)
        _log.info("job_ended", job=str(run.job.id), kind=run.job.kind, outcome=outcome, errors=errors)

    async def _requeue(self, run: Run) -> None:
        async def write(session: AsyncSession) -> None:
            await queries.requeue_run(session, run.job)

        await self._write(write)
        _log.info("job_requeued", job=str(run.job.id), kind=run.job.kind)

    async def _write(self, write: Callable[[AsyncSession], Awaitable[None]]) -> None:
        """Write a job's end, waiting for a database that is gone; a process that stops waits no longer."""
        while True:
            try:
                async with self._database.session() as session:
                    await write(session)
            except JobLostError:
                return
            except DatabaseUnavailableError:
                if self._stopping:
                    return
                await asyncio.sleep(self._pace.retry_s)
            else:
                return

    async def _listen(self) -> None:
        """Hear of new work at once; without this connection it is found by looking every few seconds."""
        while True:
            try:
                connection = await self._database.connect()
                try:
                    await self._hear(connection)
                finally:
                    connection.terminate()
            except (DatabaseUnavailableError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                await asyncio.sleep(self._pace.retry_s)

    async def _hear(self, connection: asyncpg.Connection) -> None:
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        await connection.add_listener(CHANNEL, lambda *_: self._wake.set())
        self._wake.set()
        await lost.wait()

    async def _sweep(self) -> None:
        while True:
            try:
                await sweep(self._database)
            except DatabaseUnavailableError:
                pass
            except Exception as error:  # as above
                _log.error("sweep_broken", exc_info=error)
            await self._wait_for(self._sweep_wake, self._pace.sweep_s)

    @staticmethod
    async def _wait_for(event: asyncio.Event, seconds: float) -> None:
        # Not wait_for: before Python 3.12 it swallows a cancellation that comes with the event.
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()
        event.clear()


_LAST_WORDS_S = 10.0
_GIVEN_UP = "Given up: its process died {} times while it ran."


def _reasons(job: JobRow, error: Exception) -> tuple[str, ...]:
    """Give what the owner may read of an error; what is our own fault goes to the log."""
    match error:
        case StorageError():
            return (f"{error.detail} {error.remedy}".strip(),)
        case FramegateError():
            return (str(error),)
        case _:
            _log.error("job_broken", job=str(job.id), kind=job.kind, exc_info=error)
            return (f"An error inside Framegate; its log says more of job {job.id}.",)
