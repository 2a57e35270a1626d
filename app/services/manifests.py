"""Manifests of a storage: attaching, reading again, removing them, and what is wrong with their lines."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from app.db import manifests as queries
from app.db.jobs import JobRow, job_by_id
from app.db.manifests import ManifestRow, ProblemRow
from app.db.session import Database
from app.db.storages import hold_storage, storage_by_id
from app.errors import Fault, InvalidInputError, MissingError, ObjectMissingError
from app.jobs.queue import JobKind, Task, enqueue
from app.services import cursors
from app.services.access import Principal, may_see
from app.services.buckets import Buckets
from app.services.jobs import JobService
from app.services.revisions import place_in_revision
from app.storage.base import PLAIN_READ
from app.storage.keys import key_fault

MAX_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Registration:
    """A manifest and the job that reads it.

    `created`: it was not attached before. `finished`: the job ended, one way or the other, while the caller
    waited; the manifest is what the job made of it.
    """

    manifest: ManifestRow
    job: JobRow | None
    created: bool
    finished: bool = False


@dataclass(frozen=True, slots=True)
class ManifestList:
    """One page of manifests, by id."""

    items: Sequence[ManifestRow]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class ProblemList:
    """One page of problems, in the order of the file; the first thousand of a revision are kept."""

    items: Sequence[ProblemRow]
    next_cursor: str | None


class ManifestService:
    """Attaches, shows, syncs and removes the manifests of storages that a principal may see."""

    def __init__(self, database: Database, buckets: Buckets, jobs: JobService) -> None:
        self._database = database
        self._buckets = buckets
        self._jobs = jobs

    async def attach(
        self, principal: Principal, storage_id: int, key: str, *, wait_s: float = 0
    ) -> Registration:
        """Attach the manifest that lies at `key` and queue its registration; wait for that if asked to.

        One that is attached already is given as it is, with its newest job. Raises `MissingError`,
        `InvalidInputError` at `/key` when there is no such object, and what a bucket may raise.
        """
        storage = await self._buckets.row_for(principal, storage_id)
        if fault := key_fault(key):
            raise InvalidInputError(Fault("/key", fault))
        found = await self._attached(storage_id, key)
        if found is not None:
            return found
        await self._require_object(storage_id, key)
        async with self._database.session() as session:
            if await storage_by_id(session, storage_id, lock=True) is None:
                raise MissingError("storage", "There is no such storage.")
            position = await queries.next_position(session, storage_id)
            manifest_id = await queries.attach_manifest(session, storage_id, key, position)
            job = await _enqueue(session, "register", storage_id, manifest_id, storage.owner_id)
        return await self._registration(manifest_id, job, created=True, wait_s=wait_s)

    async def list(
        self, principal: Principal, storage_id: int, cursor: str | None, limit: int
    ) -> ManifestList:
        """List one page of the manifests of a storage, detached ones too; raises `MissingError`."""
        await self._buckets.row_for(principal, storage_id)
        after_id = 0 if cursor is None else cursors.decode(cursor, int)[0]
        if not 0 <= after_id <= MAX_ID:
            raise cursors.bent()
        async with self._database.session() as session:
            rows = await queries.list_manifests(session, storage_id, after_id, limit + 1)
        page = rows[:limit]
        return ManifestList(page, cursors.encode(page[-1].id) if len(rows) > limit else None)

    async def get(self, principal: Principal, manifest_id: int) -> ManifestRow:
        """Give one manifest; raises `MissingError`."""
        async with self._database.session() as session:
            return seen(principal, await queries.manifest_by_id(session, manifest_id))

    async def delete(self, principal: Principal, manifest_id: int) -> None:
        """Remove a manifest; its frames go in the background. Raises `MissingError`."""
        async with self._database.session() as session:
            seen(principal, await queries.manifest_by_id(session, manifest_id, lock=True))
            await queries.delete_manifest(session, manifest_id)

    async def sync(self, principal: Principal, manifest_id: int, *, wait_s: float = 0) -> Registration:
        """Queue a reading of the bucket's present copy; what is shown goes on until that succeeded.

        Raises `MissingError`.
        """
        async with self._database.session() as session:
            known = seen(principal, await queries.manifest_by_id(session, manifest_id))
            # The storage first, as everybody who takes both: the job that is queued will refer to it.
            await hold_storage(session, known.storage_id)
            manifest = seen(principal, await queries.manifest_by_id(session, manifest_id, lock=True))
            job = await _enqueue(session, "sync", manifest.storage_id, manifest_id, manifest.owner_id)
        return await self._registration(manifest_id, job, created=False, wait_s=wait_s)

    async def problems(
        self, principal: Principal, manifest_id: int, cursor: str | None, limit: int
    ) -> ProblemList:
        """List one page of what is wrong with the lines of the shown revision.

        Raises `MissingError`, `StaleRevisionError` for a cursor into a revision that is no longer shown.
        """
        async with self._database.session() as session:
            manifest = seen(principal, await queries.manifest_by_id(session, manifest_id))
            after = place_in_revision(cursor, manifest.revision_id, manifest.revision)
            if manifest.revision_id is None:
                return ProblemList((), None)
            found = await queries.list_problems(session, manifest.revision_id, after, limit + 1)
        page = [problem for _, problem in found[:limit]]
        if len(found) <= limit:
            return ProblemList(page, None)
        return ProblemList(page, cursors.encode(manifest.revision_id, found[limit - 1][0]))

    async def _attached(self, storage_id: int, key: str) -> Registration | None:
        async with self._database.session() as session:
            manifest = await queries.manifest_by_key(session, storage_id, key)
            if manifest is None or not manifest.attached:
                return None
            job = None if manifest.job_id is None else await job_by_id(session, manifest.job_id)
        return Registration(manifest, job, created=False)

    async def _require_object(self, storage_id: int, key: str) -> None:
        bucket = await self._buckets.open_stored(storage_id)
        try:
            await bucket.head(key, PLAIN_READ)
        except ObjectMissingError as error:
            raise InvalidInputError(Fault("/key", error.detail)) from error

    async def _registration(
        self, manifest_id: int, job: JobRow, *, created: bool, wait_s: float
    ) -> Registration:
        ended = await self._jobs.wait_for(job.id, wait_s) if wait_s > 0 else job
        async with self._database.session() as session:
            manifest = await queries.manifest_by_id(session, manifest_id)
        if manifest is None or ended is None:
            raise MissingError("manifest", "The manifest was removed meanwhile.")
        return Registration(manifest, ended, created, finished=ended.finished_at is not None)


async def attach_all(session: AsyncSession, storage_id: int, keys: Sequence[str], owner_id: int) -> None:
    """Let exactly `keys`, in this order, be the attached manifests of a storage, in the caller's transaction.

    Those not attached before are queued for registration, which does nothing where an earlier one still
    holds; what is left out is detached and keeps its frames. The storage's row should be locked.
    """
    chosen = tuple(dict.fromkeys(keys))
    present = (await queries.attached_keys(session, [storage_id])).get(storage_id, ())
    if present == chosen:
        return
    await queries.detach_manifests(session, storage_id, keep=chosen)
    for position, key in enumerate(chosen):
        manifest_id = await queries.attach_manifest(session, storage_id, key, position)
        if key not in present:
            await _enqueue(session, "register", storage_id, manifest_id, owner_id)


def seen(principal: Principal, manifest: ManifestRow | None) -> ManifestRow:
    """Give a manifest to those who may see it; raises `MissingError` for others, as if there was none."""
    if manifest is None or not may_see(principal, manifest.owner_id):
        raise MissingError("manifest", "There is no such manifest.")
    return manifest


async def _enqueue(
    session: AsyncSession, kind: JobKind, storage_id: int, manifest_id: int, owner_id: int
) -> JobRow:
    return await enqueue(session, Task(kind, owner_id, storage_id, manifest_id))
