"""The queue: a job is put in with the row that it serves, and ends with what it leaves behind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncSession

from app.db import jobs as queries
from app.db import manifests
from app.db.jobs import JobRow, Outcome, Progress
from app.errors import FramegateError


class JobLostError(FramegateError):
    """This run no longer owns its job: it was taken up elsewhere, or removed. Nothing of it may be kept."""


JobKind = Literal["register", "sync"]


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be done for whom; `owner_id` is the owner of the storage, whoever asks."""

    kind: JobKind
    owner_id: int
    storage_id: int
    manifest_id: int


async def enqueue(session: AsyncSession, task: Task) -> JobRow:
    """Put a job into the queue, in the transaction of the row that it serves.

    The manifest's row must be locked. A job for the same manifest that nobody took up yet is given instead:
    it will see all that a new one would.
    """
    waiting = await queries.queued_job(session, task.manifest_id)
    if waiting is not None:
        return waiting
    job = await queries.insert_job(
        session,
        uuid4(),
        kind=task.kind,
        owner_id=task.owner_id,
        storage_id=task.storage_id,
        manifest_id=task.manifest_id,
    )
    await manifests.note_job(session, task.manifest_id, job.id)
    return job


async def end_run(
    session: AsyncSession,
    job: JobRow,
    outcome: Outcome,
    *,
    errors: Sequence[str] = (),
    result: Mapping[str, Any] | None = None,
    progress: Progress = Progress(),  # noqa: B008 - frozen
) -> None:
    """Write how a run ended, and what that means for its manifest.

    A manifest that still waits for its first revision is failed by a job that did not succeed. Raises
    `JobLostError`, which must roll the caller's transaction back.
    """
    # The manifest first, then its job: the order in which a removed manifest takes its jobs along.
    if outcome != "succeeded" and job.manifest_id is not None:
        await manifests.fail_pending(session, job.manifest_id)
    if not await queries.finish_run(session, job, outcome, errors, result, progress):
        raise JobLostError("Another process has taken this job up, or it was removed.")


async def cancel(session: AsyncSession, job: JobRow) -> None:
    """End a queued job at once, ask a running one to stop; one that ended stays as it is."""
    if job.manifest_id is not None:
        await manifests.manifest_by_id(session, job.manifest_id, lock=True)
    locked = await queries.job_by_id(session, job.id, lock=True)
    if locked is None:
        return
    match locked.state:
        case "queued":
            await queries.cancel_queued(session, job.id)
            if locked.manifest_id is not None:
                await manifests.fail_pending(session, locked.manifest_id)
        case "running":
            await queries.request_cancel(session, job.id)
        case "succeeded" | "failed" | "cancelled":
            pass
