"""Jobs: what runs in the background, how far it is, and stopping it."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from app.db import jobs as queries
from app.db.jobs import JobQuery, JobRow, JobState
from app.db.session import Database
from app.errors import MissingError
from app.jobs import queue
from app.services import cursors
from app.services.access import Principal, may_see

_FIRST_LOOK_S = 0.02
_LAST_LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class JobList:
    """One page of jobs, the newest first."""

    items: Sequence[JobRow]
    next_cursor: str | None


class JobService:
    """Shows jobs to the owners of what they serve, and stops them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, principal: Principal, job_id: UUID) -> JobRow:
        """Give one job; raises `MissingError`."""
        async with self._database.session() as session:
            return _seen(principal, await queries.job_by_id(session, job_id))

    async def list(
        self, principal: Principal, cursor: str | None, limit: int, *, state: JobState | None = None
    ) -> JobList:
        """List one page of the jobs that the principal may see."""
        owner_id = None if principal.role == "admin" else principal.user_id
        query = JobQuery(owner_id, state, _place(cursor), limit + 1)
        async with self._database.session() as session:
            rows = await queries.list_jobs(session, query)
        page = rows[:limit]
        if len(rows) <= limit:
            return JobList(page, None)
        return JobList(page, cursors.encode(page[-1].created_at.isoformat(), str(page[-1].id)))

    async def cancel(self, principal: Principal, job_id: UUID) -> JobRow:
        """Stop a job: a queued one at once, a running one within a second or so; an ended one stays.

        Cancelling a first registration leaves its manifest `failed`. Raises `MissingError`.
        """
        async with self._database.session() as session:
            job = _seen(principal, await queries.job_by_id(session, job_id))
            await queue.cancel(session, job)
        return await self.get(principal, job_id)

    async def wait_for(self, job_id: UUID, seconds: float) -> JobRow | None:
        """Wait until a job ended, `seconds` at most; gives it as it then stands, None if it is gone.

        No connection is held between two looks.
        """
        deadline = time.monotonic() + seconds
        pause_s = _FIRST_LOOK_S
        while True:
            async with self._database.session() as session:
                job = await queries.job_by_id(session, job_id)
            left_s = deadline - time.monotonic()
            if job is None or job.finished_at is not None or left_s <= 0:
                return job
            await asyncio.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, _LAST_LOOK_S)


def _seen(principal: Principal, job: JobRow | None) -> JobRow:
    if job is None or not may_see(principal, job.owner_id):
        raise MissingError("job", "There is no such job.")
    return job


def _place(cursor: str | None) -> tuple[datetime, UUID] | None:
    if cursor is None:
        return None
    moment, job_id = cursors.decode(cursor, str, str)
    try:
        return datetime.fromisoformat(moment).astimezone(UTC), UUID(job_id)
    except (ValueError, OverflowError):
        raise cursors.bent() from None
