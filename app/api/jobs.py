"""Routes of jobs: what runs in the background, and stopping it."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query

from app.api.deps import Caller, Cursor, Limit, OpenServices
from app.api.schemas.fields import Page
from app.api.schemas.manifests import JobAnswer
from app.api.schemas.problem import problems
from app.db.jobs import JobState

router = APIRouter(prefix="/v1/jobs", tags=["Jobs"])

JobId = Annotated[UUID, Path(description="A job's id, such as a manifest's `job_id`.")]


@router.get("", summary="List jobs", response_description="One page of jobs.", responses=problems(401, 422))
async def list_jobs(
    caller: Caller,
    services: OpenServices,
    cursor: Cursor = None,
    limit: Limit = 100,
    state: Annotated[JobState | None, Query(description="Only jobs in this state.")] = None,
) -> Page[JobAnswer]:
    """List jobs, the newest first."""
    page = await services.jobs.list(caller, cursor, limit, state=state)
    return Page(items=[JobAnswer.model_validate(job) for job in page.items], next_cursor=page.next_cursor)


@router.get("/{job_id}", summary="Show a job", response_description="The job.", responses=problems(401, 404))
async def get_job(job_id: JobId, caller: Caller, services: OpenServices) -> JobAnswer:
    """Show one job: how far it is, and what it came to."""
    return JobAnswer.model_validate(await services.jobs.get(caller, job_id))


@router.delete(
    "/{job_id}",
    summary="Cancel a job",
    response_description="The job; one that had ended stays as it was.",
    responses=problems(401, 404),
)
async def cancel_job(job_id: JobId, caller: Caller, services: OpenServices) -> JobAnswer:
    """Stop a job: a queued one at once, a running one within a second or so."""
    return JobAnswer.model_validate(await services.jobs.cancel(caller, job_id))
