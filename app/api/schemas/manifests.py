"""Bodies and answers of manifests, frames and jobs."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from app.api.schemas.fields import Body, View, shown_as
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

    model_config = shown_as(
        id=1,
        storage_id=1,
        key="manifest.jsonl",
        attached=True,
        kind="images",
        version="1.1",
        state="ready",
        frame_count=72,
        problem_count=0,
        etag='"5d41402abc4b2a76b9719d911017c592"',
        revision=1,
        synced_at="2026-03-01T09:31:00Z",
        job_id="0195f1a2-7c1e-7d5a-9c55-3f4f0a6e2b11",
    )

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

    model_config = shown_as(
        id="0195f1a2-7c1e-7d5a-9c55-3f4f0a6e2b11",
        kind="register",
        state="running",
        done=65_536,
        total=1_048_576,
        errors=[],
        result=None,
    )

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

    model_config = shown_as(
        line=17,
        column=10,
        code="empty-name",
        message="The name is empty.",
        hint="Write a path from the manifest's folder.",
    )

    line: int
    column: int
    code: str
    message: str
    hint: str


class FrameAnswer(View):
    """One frame of a manifest of images."""

    model_config = shown_as(
        number=0,
        key="pets/beagle.jpg",
        width_px=1600,
        height_px=1200,
        checksum="0cc175b9c0f1b6a831c399e269772661",
        meta={"related_images": []},
    )

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
