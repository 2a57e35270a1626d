"""Storages: attaching, changing and detaching buckets; nothing is stored before the bucket agreed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID, uuid4

from app.db import manifests as manifest_queries
from app.db import storages as queries
from app.db.session import Database
from app.db.storages import StorageQuery, StorageRow
from app.errors import (
    ConflictError,
    Fault,
    InvalidInputError,
    InvalidKeyError,
    ObjectMissingError,
    PreconditionFailedError,
    ProbeRefusedError,
    StorageError,
    WrongRegionError,
)
from app.secrets import Sealer
from app.services import cursors
from app.services.access import Principal, require_creator
from app.services.buckets import Buckets, seen_storage
from app.services.manifests import attach_all
from app.services.probe import Report, delivery_fault, fault_of, probe, unopened
from app.services.sources import columns_of, secrets_of, source_of
from app.storage.base import PLAIN_READ
from app.storage.bucket import Bucket
from app.storage.providers import redirect_refusal
from app.storage.source import S3Source, Source

Delivery = Literal["proxy", "redirect"]


@dataclass(frozen=True, slots=True)
class StorageDraft:
    """What an owner says of a storage; `source` None (in a change) keeps where it is and its credential."""

    display_name: str
    description: str
    source: Source | None
    manifests: tuple[str, ...]
    delivery: Delivery
    prefix: str = ""
    """The prefix where the source is kept."""


@dataclass(frozen=True, slots=True)
class StorageView:
    """A storage as it is shown: its row and the keys of its attached manifests, in their order."""

    row: StorageRow
    manifests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StorageList:
    """One page of storages."""

    items: Sequence[StorageView]
    next_cursor: str | None


class StorageService:
    """Creates, lists, changes and removes storages for their owners."""

    def __init__(self, database: Database, sealer: Sealer, buckets: Buckets) -> None:
        self._database = database
        self._sealer = sealer
        self._buckets = buckets

    async def create(self, principal: Principal, draft: StorageDraft) -> StorageView:
        """Attach a bucket: it is asked first, and each manifest; then all is stored at once, or nothing.

        Raises `ForbiddenError`, `InvalidInputError` at the field that the bucket refuses.
        """
        require_creator(principal)
        assert draft.source is not None  # noqa: S101 - only a change leaves it out
        require_deliverable(draft.source, draft.delivery)
        source = await self._agreed(draft.source, draft.manifests)
        row_uuid = uuid4()
        values = self._columns(draft, row_uuid, source) | {"uuid": row_uuid}
        async with self._database.session() as session:
            storage_id = await queries.insert_storage(session, principal.user_id, values)
            await attach_all(session, storage_id, draft.manifests, principal.user_id)
        return await self.get(principal, storage_id)

    async def get(self, principal: Principal, storage_id: int) -> StorageView:
        """Give one storage; raises `MissingError`."""
        async with self._database.session() as session:
            row = seen_storage(principal, await queries.storage_by_id(session, storage_id))
            keys = await manifest_queries.attached_keys(session, [storage_id])
        return StorageView(row, keys.get(storage_id, ()))

    async def list(self, principal: Principal, query: StorageQuery, cursor: str | None) -> StorageList:
        """List one page of the storages that the principal may see."""
        chosen = replace(query, limit=query.limit + 1, after=_place(query, cursor))
        if principal.role != "admin":
            chosen = replace(chosen, owner_id=principal.user_id)
        async with self._database.session() as session:
            rows = await queries.list_storages(session, chosen)
            keys = await manifest_queries.attached_keys(session, [row.id for row in rows])
        page = rows[: query.limit]
        views = [StorageView(row, keys.get(row.id, ())) for row in page]
        return StorageList(views, _next(query, page) if len(rows) > query.limit else None)

    async def change(
        self, principal: Principal, storage_id: int, draft: StorageDraft, seen_version: int
    ) -> StorageView:
        """Change a storage from the version that the draft was made of.

        A new source, and manifests that were not attached before, are asked of the bucket first. Raises
        `MissingError`, `InvalidInputError`, `ConflictError` when somebody else changed it meanwhile.
        """
        before = await self.get(principal, storage_id)
        self._require_change_deliverable(before.row, draft)
        added = tuple(key for key in draft.manifests if key not in before.manifests)
        source = await self._agreed_change(before.row, draft, added)
        async with self._database.session() as session:
            row = await queries.storage_by_id(session, storage_id, lock=True)
            if row is None or row.version != seen_version:
                raise ConflictError("Somebody else changed this storage meanwhile; read it again.")
            await queries.update_storage(session, storage_id, self._columns(draft, row.uuid, source))
            await attach_all(session, storage_id, draft.manifests, row.owner_id)
        self._buckets.forget(storage_id)
        return await self.get(principal, storage_id)

    async def delete(self, principal: Principal, storage_id: int, versions: Sequence[int] | None) -> None:
        """Detach a storage; the bucket is not touched.

        Raises `MissingError`, and `PreconditionFailedError` when its version is none of `versions`.
        """
        async with self._database.session() as session:
            row = seen_storage(principal, await queries.storage_by_id(session, storage_id, lock=True))
            if versions is not None and row.version not in versions:
                raise PreconditionFailedError("The storage is not the version that the condition names.")
            await queries.delete_storage(session, storage_id)
        self._buckets.forget(storage_id)

    async def probe(self, principal: Principal, draft: StorageDraft, *, write: bool) -> Report:
        """Try a bucket and store nothing.

        Raises `ForbiddenError`, and `ProbeRefusedError` with the checklist when anything was refused.
        """
        require_creator(principal)
        assert draft.source is not None  # noqa: S101 - only a change leaves it out
        report = await self._probed(draft.source, draft.manifests, draft.delivery, write=write)
        if not report.ok:
            raise ProbeRefusedError(report.checks, *report.faults)
        return report

    async def health(self, principal: Principal, storage_id: int) -> Report:
        """Try an attached storage as it stands, with its attached manifests; raises `MissingError`."""
        view = await self.get(principal, storage_id)
        try:
            source = source_of(view.row, self._sealer)
        except StorageError as error:
            return unopened(error)
        return await self._probed(source, view.manifests, view.row.delivery, write=False)

    async def _probed(
        self, source: Source, manifests: Sequence[str], delivery: str, *, write: bool
    ) -> Report:
        redirect = delivery == "redirect"
        refusal = redirect_refusal(source) if redirect else None
        try:
            async with self._buckets.trying(source) as bucket:
                report = await probe(bucket, manifests, write=write, redirect=redirect and refusal is None)
        except StorageError as error:
            report = unopened(error)
        return report if refusal is None else report.refusing_redirects(refusal)

    def _require_change_deliverable(self, row: StorageRow, draft: StorageDraft) -> None:
        """Look at the credential as it will be, wherever credential or delivery change."""
        if draft.source is not None:
            require_deliverable(draft.source, draft.delivery)
        elif draft.delivery != row.delivery:
            try:
                require_deliverable(source_of(row, self._sealer), draft.delivery)
            except StorageError as error:
                raise InvalidInputError(fault_of(error)) from error

    async def _agreed_change(
        self, row: StorageRow, draft: StorageDraft, added: Sequence[str]
    ) -> Source | None:
        if draft.source is not None:
            return await self._agreed(draft.source, draft.manifests)
        if added:
            try:
                await require_manifests(await self._buckets.of(row), draft.manifests, only=added)
            except StorageError as error:
                raise InvalidInputError(fault_of(error)) from error
        return None

    async def _agreed(self, source: Source, manifests: Sequence[str]) -> Source:
        """Ask the bucket, and give the source with the region that it said it lives in."""
        try:
            return await self._ask(source, manifests)
        except WrongRegionError as error:
            if not isinstance(source, S3Source) or source.region is not None or error.region is None:
                raise InvalidInputError(fault_of(error)) from error
            found = replace(source, region=error.region)
        except StorageError as error:
            raise InvalidInputError(fault_of(error)) from error
        try:
            return await self._ask(found, manifests)
        except StorageError as error:
            raise InvalidInputError(fault_of(error)) from error

    async def _ask(self, source: Source, manifests: Sequence[str]) -> Source:
        async with self._buckets.trying(source) as bucket:
            await bucket.check_access()
            await require_manifests(bucket, manifests)
        return source

    def _columns(self, draft: StorageDraft, row_uuid: UUID, source: Source | None) -> dict[str, object]:
        columns: dict[str, object] = {
            "display_name": draft.display_name,
            "description": draft.description,
            "delivery": draft.delivery,
        }
        if source is None:
            return columns | {"prefix": draft.prefix}
        sealed = self._sealer.seal_all(row_uuid, secrets_of(source.auth))
        return columns | columns_of(source) | {"sealed": sealed}


def require_deliverable(source: Source, delivery: Delivery) -> None:
    """Raise `InvalidInputError` at `/delivery` where a redirect would give the owner's credential away."""
    refusal = redirect_refusal(source) if delivery == "redirect" else None
    if refusal is not None:
        raise InvalidInputError(delivery_fault(refusal))


async def require_manifests(
    bucket: Bucket, manifests: Sequence[str], *, only: Sequence[str] | None = None
) -> None:
    """Ask the bucket for each manifest; raises `InvalidInputError` with a fault for each that is not there."""
    faults = []
    for index, key in enumerate(manifests):
        if only is not None and key not in only:
            continue
        try:
            await bucket.head(key, PLAIN_READ)
        except (ObjectMissingError, InvalidKeyError) as error:
            faults.append(Fault(f"/manifests/{index}", error.args[0]))
    if faults:
        raise InvalidInputError(*faults)


def _place(query: StorageQuery, cursor: str | None) -> tuple[object, int] | None:
    if cursor is None:
        return None
    is_time = query.sort.endswith("_at")
    kind = int if query.sort == "id" else str
    sort, value, last_id = cursors.decode(cursor, str, kind, int)
    if sort != query.sort or not -(2**63) <= last_id < 2**63:
        raise cursors.bent()
    return (_moment(value) if is_time else value, last_id)


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise cursors.bent() from None


def _next(query: StorageQuery, page: Sequence[StorageRow]) -> str:
    last = page[-1]
    value = getattr(last, query.sort)
    shown = value.isoformat() if isinstance(value, datetime) else value
    return cursors.encode(query.sort, shown, last.id)
