"""Queries over jobs: one row for each piece of background work."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Select, func, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.tables import JOBS

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Outcome = Literal["succeeded", "failed", "cancelled"]

CHANNEL = "framegate_jobs"
"""What runners LISTEN on; a notice says only that there is work."""


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as its row stands; `done` and `total` are bytes for a registration."""

    id: UUID
    kind: str
    state: JobState
    owner_id: int
    storage_id: int | None
    manifest_id: int | None
    arguments: Mapping[str, Any]
    done: int
    total: int | None
    errors: Sequence[str]
    result: Mapping[str, Any] | None
    starts: int
    """How often it was taken up; with the id it names one run, so that one given up can write no more."""
    cancel_requested: bool
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Progress:
    """How much of a job is done, of how much in all (bytes for a registration); None: not known."""

    done: int = 0
    total: int | None = None


@dataclass(frozen=True, slots=True)
class JobQuery:
    """Which jobs to list, the newest first; `after` is the place of the last one already seen."""

    owner_id: int | None
    state: JobState | None = None
    after: tuple[datetime, UUID] | None = None
    limit: int = 100


_COLUMNS = (
    JOBS.c.id,
    JOBS.c.kind,
    JOBS.c.state,
    JOBS.c.owner_id,
    JOBS.c.storage_id,
    JOBS.c.manifest_id,
    JOBS.c.arguments,
    JOBS.c.done,
    JOBS.c.total,
    JOBS.c.errors,
    JOBS.c.result,
    JOBS.c.starts,
    JOBS.c.cancel_requested,
    JOBS.c.created_at,
    JOBS.c.finished_at,
)


def _jobs() -> Select[Any]:
    return select(*_COLUMNS)


async def insert_job(
    session: AsyncSession,
    job_id: UUID,
    *,
    kind: str,
    owner_id: int,
    storage_id: int | None,
    manifest_id: int | None,
) -> JobRow:
    """Store a queued job; runners hear of it when the transaction commits."""
    values = {"id": job_id, "kind": kind, "owner_id": owner_id}
    statement = insert(JOBS).values(**values, storage_id=storage_id, manifest_id=manifest_id)
    await session.execute(statement)
    await wake_runners(session)
    return JobRow(*(await session.execute(_jobs().where(JOBS.c.id == job_id))).one())


async def wake_runners(session: AsyncSession) -> None:
    """Tell every runner, at commit, that there is work."""
    await session.execute(text("SELECT pg_notify(:channel, '')"), {"channel": CHANNEL})


async def job_by_id(session: AsyncSession, job_id: UUID, *, lock: bool = False) -> JobRow | None:
    """Find a job; `lock` holds its row until the transaction ends."""
    statement = _jobs().where(JOBS.c.id == job_id)
    row = (await session.execute(statement.with_for_update() if lock else statement)).one_or_none()
    return None if row is None else JobRow(*row)


async def queued_job(session: AsyncSession, manifest_id: int) -> JobRow | None:
    """Find the job of a manifest that nobody has taken up yet."""
    statement = _jobs().where(JOBS.c.manifest_id == manifest_id, JOBS.c.state == "queued")
    row = (await session.execute(statement.order_by(JOBS.c.created_at).limit(1))).one_or_none()
    return None if row is None else JobRow(*row)


async def list_jobs(session: AsyncSession, query: JobQuery) -> list[JobRow]:
    """List jobs, the newest first."""
    statement = _jobs()
    if query.owner_id is not None:
        statement = statement.where(JOBS.c.owner_id == query.owner_id)
    if query.state is not None:
        statement = statement.where(JOBS.c.state == query.state)
    if query.after is not None:
        statement = statement.where(tuple_(JOBS.c.created_at, JOBS.c.id) < query.after)
    rows = await session.execute(
        statement.order_by(JOBS.c.created_at.desc(), JOBS.c.id.desc()).limit(query.limit)
    )
    return [JobRow(*row) for row in rows]


# A job waits while another run on the same manifest lives: two readings at once would be wasted work.
# (Harmless if it happens all the same: each swaps its own revision in, under the manifest's lock.)
_CLAIM = text(
    f"""
    UPDATE jobs SET state = 'running', starts = starts + 1, beat_at = now()
    WHERE id = (
        SELECT job.id FROM jobs AS job
        WHERE job.state IN ('queued', 'running') AND job.kind = ANY(:kinds)
          AND (job.state = 'queued' OR job.beat_at < now() - make_interval(secs => :stale_s))
          AND NOT EXISTS (
              SELECT FROM jobs AS other
              WHERE other.manifest_id = job.manifest_id AND other.id <> job.id AND other.state = 'running'
                AND other.beat_at >= now() - make_interval(secs => :stale_s))
        ORDER BY job.created_at
        LIMIT 1
        FOR UPDATE SKIP LOCKED)
    RETURNING {", ".join(column.name for column in _COLUMNS)}
    """  # noqa: S608 - only column names of our own
)


async def claim_job(session: AsyncSession, kinds: Sequence[str], stale_s: float) -> JobRow | None:
    """Take up the oldest waiting job, or one whose process gave no sign of life for `stale_s` seconds."""
    row = (await session.execute(_CLAIM, {"kinds": list(kinds), "stale_s": stale_s})).one_or_none()
    return None if row is None else JobRow(*row)


async def beat(session: AsyncSession, job: JobRow, progress: Progress) -> bool | None:
    """Show that a run lives and how far it is; gives whether its cancelling is asked for.

    None: this run no longer owns the job (given to another process, or removed), and must stop.
    """
    statement = update(JOBS).where(*_is_run(job))
    statement = statement.values(beat_at=func.now(), done=progress.done, total=progress.total)
    cancelling: bool | None = (
        await session.execute(statement.returning(JOBS.c.cancel_requested))
    ).scalar_one_or_none()
    return cancelling


async def finish_run(
    session: AsyncSession,
    job: JobRow,
    outcome: Outcome,
    errors: Sequence[str],
    result: Mapping[str, Any] | None,
    progress: Progress,
) -> bool:
    """Write how a run ended; False when it no longer owns the job, and nothing may be kept of it."""
    statement = update(JOBS).where(*_is_run(job))
    statement = statement.values(
        state=outcome,
        errors=list(errors),
        result=result,
        done=progress.done,
        total=progress.total,
        finished_at=func.now(),
    )
    return (await session.execute(statement.returning(JOBS.c.id))).scalar_one_or_none() is not None


async def requeue_run(session: AsyncSession, job: JobRow) -> None:
    """Give a job back that was stopped through no fault of its own: its start does not count."""
    statement = update(JOBS).where(*_is_run(job))
    await session.execute(statement.values(state="queued", starts=JOBS.c.starts - 1, beat_at=None))
    await wake_runners(session)


async def cancel_queued(session: AsyncSession, job_id: UUID) -> None:
    """End a job that nobody has taken up; the row must be locked."""
    statement = update(JOBS).where(JOBS.c.id == job_id)
    await session.execute(statement.values(state="cancelled", finished_at=func.now()))


async def request_cancel(session: AsyncSession, job_id: UUID) -> None:
    """Ask the process that runs a job to stop; it looks about once a second."""
    await session.execute(update(JOBS).where(JOBS.c.id == job_id).values(cancel_requested=True))


def _is_run(job: JobRow) -> tuple[Any, ...]:
    return (JOBS.c.id == job.id, JOBS.c.state == "running", JOBS.c.starts == job.starts)
