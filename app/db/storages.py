"""Queries over storages; a row leaves as a value, its credential sealed as it lies."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, delete, func, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.tables import MANIFESTS, STORAGES, USERS


@dataclass(frozen=True, slots=True)
class StorageRow:
    """An attached storage and its owner's name."""

    id: int
    uuid: UUID
    owner_id: int
    owner_name: str
    version: int
    display_name: str
    description: str
    provider: str
    bucket: str
    account_name: str | None
    region: str | None
    endpoint_url: str | None
    prefix: str
    auth_type: str
    auth_hint: Mapping[str, Any]
    sealed: Mapping[str, str]
    delivery: str
    created_at: datetime
    updated_at: datetime

    def __repr__(self) -> str:
        return f"StorageRow(id={self.id}, version={self.version}, provider={self.provider!r})"


@dataclass(frozen=True, slots=True)
class StorageQuery:
    """Which storages to list, and in what order.

    `sort` is one of `SORTABLE`; `after` is the sort value and id of the last storage already seen.
    """

    owner_id: int | None
    search: str = ""
    provider: str | None = None
    sort: str = "id"
    descending: bool = False
    after: tuple[Any, int] | None = None
    limit: int = 100


SORTABLE: Mapping[str, Any] = {
    "id": STORAGES.c.id,
    "display_name": STORAGES.c.display_name,
    "created_at": STORAGES.c.created_at,
    "updated_at": STORAGES.c.updated_at,
}

_SEARCHED = (STORAGES.c.display_name, STORAGES.c.description, STORAGES.c.bucket, USERS.c.name)

_COLUMNS = (
    STORAGES.c.id,
    STORAGES.c.uuid,
    STORAGES.c.owner_id,
    USERS.c.name.label("owner_name"),
    STORAGES.c.version,
    STORAGES.c.display_name,
    STORAGES.c.description,
    STORAGES.c.provider,
    STORAGES.c.bucket,
    STORAGES.c.account_name,
    STORAGES.c.region,
    STORAGES.c.endpoint_url,
    STORAGES.c.prefix,
    STORAGES.c.auth_type,
    STORAGES.c.auth_hint,
    STORAGES.c.sealed,
    STORAGES.c.delivery,
    STORAGES.c.created_at,
    STORAGES.c.updated_at,
)


def _storages() -> Select[Any]:
    return select(*_COLUMNS).join(USERS, USERS.c.id == STORAGES.c.owner_id)


async def insert_storage(session: AsyncSession, owner_id: int, values: Mapping[str, Any]) -> int:
    """Store a new storage; gives its id."""
    statement = insert(STORAGES).values(owner_id=owner_id, **values).returning(STORAGES.c.id)
    return int((await session.execute(statement)).scalar_one())


async def storage_by_id(session: AsyncSession, storage_id: int, *, lock: bool = False) -> StorageRow | None:
    """Find a storage; `lock` holds the row until the transaction ends."""
    statement = _storages().where(STORAGES.c.id == storage_id)
    if lock:
        statement = statement.with_for_update(of=STORAGES)
    row = (await session.execute(statement)).one_or_none()
    return None if row is None else StorageRow(*row)


async def hold_storage(session: AsyncSession, storage_id: int) -> None:
    """Keep a storage from being removed until the transaction ends; any number may do so at once."""
    found = select(STORAGES.c.id).where(STORAGES.c.id == storage_id)
    await session.execute(found.with_for_update(read=True, key_share=True))


async def list_storages(session: AsyncSession, query: StorageQuery) -> list[StorageRow]:
    """List storages by the query's order, ties by id."""
    column = SORTABLE[query.sort]
    statement = _storages().where(*_conditions(query, column))
    order = (column, STORAGES.c.id) if query.sort != "id" else (STORAGES.c.id,)
    ordered = statement.order_by(*(part.desc() if query.descending else part.asc() for part in order))
    return [StorageRow(*row) for row in await session.execute(ordered.limit(query.limit))]


def _conditions(query: StorageQuery, column: Any) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if query.owner_id is not None:
        conditions.append(STORAGES.c.owner_id == query.owner_id)
    if query.provider is not None:
        conditions.append(STORAGES.c.provider == query.provider)
    conditions += [
        or_(*(searched.icontains(term, autoescape=True) for searched in _SEARCHED))
        for term in query.search.split()
    ]
    if query.after is not None:
        place = tuple_(column, STORAGES.c.id)
        conditions.append(place < query.after if query.descending else place > query.after)
    return conditions


async def update_storage(session: AsyncSession, storage_id: int, values: Mapping[str, Any]) -> None:
    """Change a storage; its version rises and every process hears of it."""
    statement = update(STORAGES).where(STORAGES.c.id == storage_id)
    await session.execute(statement.values(version=STORAGES.c.version + 1, updated_at=func.now(), **values))


async def delete_storage(session: AsyncSession, storage_id: int) -> None:
    """Remove a storage with its manifests and jobs; frames are swept later.

    Manifests are locked before anything cascades: a job that ends locks its manifest first and itself then,
    and the cascade alone may take them the other way round.
    """
    theirs = select(MANIFESTS.c.id).where(MANIFESTS.c.storage_id == storage_id).order_by(MANIFESTS.c.id)
    await session.execute(theirs.with_for_update())
    await session.execute(delete(STORAGES).where(STORAGES.c.id == storage_id))


async def reseal_storage(session: AsyncSession, storage_id: int, sealed: Mapping[str, str]) -> None:
    """Replace the sealed credential by the same one under another key; the version stays."""
    await session.execute(update(STORAGES).where(STORAGES.c.id == storage_id).values(sealed=dict(sealed)))
