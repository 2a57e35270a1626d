"""Bodies and answers of manifests, frames and jobs."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from app.api.schemas.fields import Body, View
from app.api.schemas.storages import Key
from app.db.jobs import JobState
from app.db.manifests import ManifestState
from app.services.manifests import Registration


class ManifestBody(Body):
    """A manifest to attach."""

    key: Key
    """The whole bucket key of a `manifest.jsonl`."""


class ManifestAnswer(View):
    """A manifest and the revision that is shown of it."""

    id: int
    storage_id: int
    key: str
    attached: bool
    kind: Literal["images", "video"] | None
    version: str | None
    """Of the file format, `1.0` or `1.1`."""
    state: ManifestState
    frame_count: int
    problem_count: int
    etag: str | None
    """Of the bucket's copy that was read."""
    revision: int | None
    """Rises with every new reading; null before the first one."""
    synced_at: datetime | None
    job_id: UUID | None
    """The newest job that read it."""


class JobAnswer(View):
    """A piece of background work."""

    id: UUID
    kind: str
    state: JobState
    done: int
    total: int | None
    """Both in bytes of the manifest while it is registered; null while unknown."""
    errors: list[str]
    result: dict[str, Any] | None


class RegistrationAnswer(View):
    """A manifest and the job that registers it; null where it ended long ago."""

    manifest: ManifestAnswer
    job: JobAnswer | None

    @classmethod
    def of(cls, registration: Registration) -> "RegistrationAnswer":
        """Show a registration."""
        job = registration.job
        return cls(
            manifest=ManifestAnswer.model_validate(registration.manifest),
            job=None if job is None else JobAnswer.model_validate(job),
        )


class ProblemAnswer(View):
    """One thing wrong with a manifest; lines count from 1, columns from 1 in bytes."""

    line: int
    column: int
    code: str
    message: str
    hint: str


class FrameAnswer(View):
    """One frame of a manifest of images."""

    number: int
    """Counts the non-blank item lines from 0; a line that was set aside keeps its number."""
    key: str
    """The whole bucket key of its picture."""
    width_px: int | None
    height_px: int | None
    checksum: str | None
    """As the manifest says; CVAT's tool writes the md5 of the decoded pixels."""
    meta: dict[str, Any] | None = Field(
        description="What the manifest says beside, such as `related_images`."
    )
