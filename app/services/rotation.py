"""Key rotation: every stored credential sealed anew under the newest key, storage by storage."""

from dataclasses import dataclass

from app.db import storages as queries
from app.db.session import Database
from app.db.storages import StorageQuery, StorageRow
from app.errors import CredentialUnreadableError
from app.secrets import Sealer

_BATCH = 500


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation did; `unreadable` names the storages whose key is gone."""

    resealed: int
    current: int
    unreadable: tuple[int, ...]


async def rotate(database: Database, sealer: Sealer) -> Rotation:
    """Seal every credential under the newest key; safe beside a running service and when run again.

    Raises `DatabaseUnavailableError`.
    """
    resealed, current, unreadable = 0, 0, list[int]()
    for storage_id in await _ids(database):
        try:
            changed = await _reseal(database, sealer, storage_id)
        except CredentialUnreadableError:
            unreadable.append(storage_id)
        else:
            resealed += changed
            current += not changed
    return Rotation(resealed, current, tuple(unreadable))


async def _ids(database: Database) -> list[int]:
    ids = list[int]()
    while True:
        after = (ids[-1], ids[-1]) if ids else None
        async with database.session() as session:
            rows = await queries.list_storages(session, StorageQuery(None, after=after, limit=_BATCH))
        ids += [row.id for row in rows]
        if len(rows) < _BATCH:
            return ids


async def _reseal(database: Database, sealer: Sealer, storage_id: int) -> bool:
    async with database.session() as session:
        row = await queries.storage_by_id(session, storage_id, lock=True)
        if row is None or all(sealer.is_newest(sealed) for sealed in row.sealed.values()):
            return False
        await queries.reseal_storage(session, storage_id, _sealed_anew(row, sealer))
    return True


def _sealed_anew(row: StorageRow, sealer: Sealer) -> dict[str, str]:
    return {
        field: sealer.seal(row.uuid, field, sealer.unseal(row.uuid, field, sealed))
        for field, sealed in row.sealed.items()
    }
