"""Queries over manifests, their revisions and their problems."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Select, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.tables import MANIFESTS, PROBLEMS, REVISIONS, STORAGES

ManifestState = Literal["pending", "ready", "failed"]


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """A manifest, its storage's owner, and the revision that is shown."""

    id: int
    storage_id: int
    owner_id: int
    key: str
    attached: bool
    state: ManifestState
    kind: str | None
    version: str | None
    frame_count: int
    problem_count: int
    etag: str | None
    revision: int | None
    """The number that callers see; rises by one with every new reading."""
    revision_id: int | None
    """What frames and problems are filed under; never used twice."""
    synced_at: datetime | None
    job_id: UUID | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ProblemRow:
    """One fault of a manifest line; lines and columns (in bytes) are counted from 1."""

    line: int
    column: int
    code: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class NewRevision:
    """What one reading of a manifest found, beside its frames."""

    kind: str | None
    version: str | None
    etag: str | None
    last_modified: datetime | None
    size_bytes: int
    frame_count: int
    problem_count: int
    problems: Sequence[ProblemRow]


_COLUMNS = (
    MANIFESTS.c.id,
    MANIFESTS.c.storage_id,
    STORAGES.c.owner_id,
    MANIFESTS.c.key,
    MANIFESTS.c.attached,
    MANIFESTS.c.state,
    REVISIONS.c.kind,
    REVISIONS.c.version,
    func.coalesce(REVISIONS.c.frame_count, 0),
    func.coalesce(REVISIONS.c.problem_count, 0),
    REVISIONS.c.etag,
    REVISIONS.c.number,
    MANIFESTS.c.revision_id,
    MANIFESTS.c.synced_at,
    MANIFESTS.c.job_id,
    MANIFESTS.c.created_at,
)


def _manifests() -> Select[Any]:
    joined = MANIFESTS.join(STORAGES, STORAGES.c.id == MANIFESTS.c.storage_id)
    return select(*_COLUMNS).select_from(
        joined.outerjoin(REVISIONS, REVISIONS.c.id == MANIFESTS.c.revision_id)
    )


async def manifest_by_id(
    session: AsyncSession, manifest_id: int, *, lock: bool = False
) -> ManifestRow | None:
    """Find a manifest; `lock` holds its row until the transaction ends."""
    statement = _manifests().where(MANIFESTS.c.id == manifest_id)
    if lock:
        statement = statement.with_for_update(of=MANIFESTS)
    row = (await session.execute(statement)).one_or_none()
    return None if row is None else ManifestRow(*row)


async def manifest_by_key(session: AsyncSession, storage_id: int, key: str) -> ManifestRow | None:
    """Find the manifest of a storage by its key, attached or not."""
    statement = _manifests().where(MANIFESTS.c.storage_id == storage_id, MANIFESTS.c.key == key)
    row = (await session.execute(statement)).one_or_none()
    return None if row is None else ManifestRow(*row)


async def list_manifests(
    session: AsyncSession, storage_id: int, after_id: int, limit: int
) -> list[ManifestRow]:
    """List the manifests of a storage by id, detached ones too."""
    statement = _manifests().where(MANIFESTS.c.storage_id == storage_id, MANIFESTS.c.id > after_id)
    rows = await session.execute(statement.order_by(MANIFESTS.c.id).limit(limit))
    return [ManifestRow(*row) for row in rows]


async def attached_keys(session: AsyncSession, storage_ids: Sequence[int]) -> Mapping[int, tuple[str, ...]]:
    """Give the keys of the attached manifests of each storage, in their order; none: no entry."""
    chosen = select(MANIFESTS.c.storage_id, MANIFESTS.c.key).where(
        MANIFESTS.c.storage_id.in_(storage_ids), MANIFESTS.c.attached
    )
    keys: dict[int, tuple[str, ...]] = {}
    for storage_id, key in await session.execute(chosen.order_by(MANIFESTS.c.position, MANIFESTS.c.id)):
        keys[storage_id] = (*keys.get(storage_id, ()), key)
    return keys


async def attach_manifest(session: AsyncSession, storage_id: int, key: str, position: int) -> int:
    """Attach a manifest at a place of its storage's list, anew or again; gives its id."""
    statement = insert(MANIFESTS).values(storage_id=storage_id, key=key, position=position)
    statement = statement.on_conflict_do_update(
        index_elements=[MANIFESTS.c.storage_id, MANIFESTS.c.key],
        set_={"attached": True, "position": position},
    )
    return int((await session.execute(statement.returning(MANIFESTS.c.id))).scalar_one())


async def detach_manifests(session: AsyncSession, storage_id: int, *, keep: Sequence[str]) -> None:
    """Detach every manifest of a storage whose key is not in `keep`; their frames stay."""
    statement = update(MANIFESTS).where(
        MANIFESTS.c.storage_id == storage_id, MANIFESTS.c.attached, MANIFESTS.c.key.not_in(keep)
    )
    await session.execute(statement.values(attached=False))


async def next_position(session: AsyncSession, storage_id: int) -> int:
    """Give the place behind the last attached manifest; the storage's row should be locked."""
    highest = select(func.max(MANIFESTS.c.position)).where(
        MANIFESTS.c.storage_id == storage_id, MANIFESTS.c.attached
    )
    found = (await session.execute(highest)).scalar_one()
    return 0 if found is None else int(found) + 1


async def delete_manifest(session: AsyncSession, manifest_id: int) -> None:
    """Remove a manifest with its revisions, problems and jobs; its frames are swept later."""
    await session.execute(delete(MANIFESTS).where(MANIFESTS.c.id == manifest_id))


async def list_problems(
    session: AsyncSession, revision_id: int, after: int, limit: int
) -> list[tuple[int, ProblemRow]]:
    """List the kept problems of a revision as (position, problem), in the order of the file."""
    columns = (
        PROBLEMS.c.position,
        PROBLEMS.c.line,
        PROBLEMS.c.column,
        PROBLEMS.c.code,
        PROBLEMS.c.message,
        PROBLEMS.c.hint,
    )
    chosen = select(*columns).where(PROBLEMS.c.revision_id == revision_id, PROBLEMS.c.position > after)
    rows = await session.execute(chosen.order_by(PROBLEMS.c.position).limit(limit))
    return [(position, ProblemRow(*rest)) for position, *rest in rows]


async def reserve_revision(session: AsyncSession) -> int:
    """Give an id for a revision that does not exist yet, to load frames under.

    No row is made and nothing is locked: a long load must not hold up who detaches or removes the manifest.
    """
    statement = text("SELECT nextval(pg_get_serial_sequence('revisions', 'id'))")
    return int((await session.execute(statement)).scalar_one())


async def show_revision(
    session: AsyncSession, manifest: ManifestRow, revision_id: int, state: ManifestState, new: NewRevision
) -> int:
    """Put a new revision in the place of the present one; gives its number.

    The manifest's row must be locked. The replaced revision is removed here, its frames are swept later.
    """
    number = await _next_number(session, manifest.id)
    await session.execute(_INSERT_REVISION, _revision_values(manifest.id, revision_id, number, new))
    await _insert_problems(session, revision_id, new.problems)
    shown = update(MANIFESTS).where(MANIFESTS.c.id == manifest.id)
    # One update alone: a second one of the same row asks for its storage again, which may be held by somebody
    # who waits for this very row (PostgreSQL checks the foreign keys of a row that its transaction made).
    await session.execute(
        shown.values(state=state, revision_id=revision_id, revision_number=number, synced_at=func.now())
    )
    if manifest.revision_id is not None:
        await session.execute(delete(REVISIONS).where(REVISIONS.c.id == manifest.revision_id))
    return number


async def revision_exists(session: AsyncSession, revision_id: int) -> bool:
    """Tell whether a revision is still there; its frames are not swept before it is gone."""
    found = await session.execute(select(REVISIONS.c.id).where(REVISIONS.c.id == revision_id))
    return found.first() is not None


async def note_synced(session: AsyncSession, manifest_id: int) -> None:
    """Note that the bucket's copy was looked at now, and was the one that is shown."""
    statement = update(MANIFESTS).where(MANIFESTS.c.id == manifest_id)
    await session.execute(statement.values(synced_at=func.now()))


async def note_job(session: AsyncSession, manifest_id: int, job_id: UUID) -> None:
    """Note the newest job of a manifest."""
    statement = update(MANIFESTS).where(MANIFESTS.c.id == manifest_id)
    await session.execute(statement.values(job_id=job_id))


async def fail_pending(session: AsyncSession, manifest_id: int) -> None:
    """Let a manifest that still waits for its first revision be failed; any other stays what it is."""
    statement = update(MANIFESTS).where(MANIFESTS.c.id == manifest_id, MANIFESTS.c.state == "pending")
    await session.execute(statement.values(state="failed"))


# The id comes from the column's own sequence (`reserve_revision`), which SQLAlchemy's insert cannot say.
_INSERT_REVISION = text(
    """
    INSERT INTO revisions (id, manifest_id, number, kind, version, etag, last_modified, size_bytes,
                           frame_count, problem_count)
    OVERRIDING SYSTEM VALUE
    VALUES (:id, :manifest_id, :number, :kind, :version, :etag, :last_modified, :size_bytes,
            :frame_count, :problem_count)
    """
)


def _revision_values(manifest_id: int, revision_id: int, number: int, new: NewRevision) -> dict[str, Any]:
    return {
        "id": revision_id,
        "manifest_id": manifest_id,
        "number": number,
        "kind": new.kind,
        "version": new.version,
        "etag": new.etag,
        "last_modified": new.last_modified,
        "size_bytes": new.size_bytes,
        "frame_count": new.frame_count,
        "problem_count": new.problem_count,
    }


async def _next_number(session: AsyncSession, manifest_id: int) -> int:
    """Give the number after the highest ever given; the manifest's row is locked, so nobody else takes it."""
    highest = select(MANIFESTS.c.revision_number).where(MANIFESTS.c.id == manifest_id)
    return int((await session.execute(highest)).scalar_one()) + 1


async def _insert_problems(session: AsyncSession, revision_id: int, problems: Sequence[ProblemRow]) -> None:
    rows = [
        {
            "revision_id": revision_id,
            "position": position,
            "line": problem.line,
            "column": problem.column,
            "code": problem.code,
            "message": problem.message,
            "hint": problem.hint,
        }
        for position, problem in enumerate(problems)
    ]
    if rows:
        await session.execute(insert(PROBLEMS), rows)
