"""Opens the bucket of a storage: rows remembered, credentials unsealed, one open bucket shared by all readers."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from app.db.changes import Changes, Remembered
from app.db.session import Database
from app.db.storages import StorageRow, storage_by_id
from app.errors import MissingError
from app.secrets import Sealer
from app.services.access import Principal, may_see
from app.services.sources import source_of
from app.storage.bucket import Bucket
from app.storage.pool import BucketPool
from app.storage.source import Source

OpenBucket = Callable[[Source], Awaitable[Bucket]]


class Buckets:
    """From a storage's id to its row and its open bucket; the way of every byte request."""

    def __init__(
        self,
        database: Database,
        changes: Changes,
        sealer: Sealer,
        open_bucket: OpenBucket,
    ) -> None:
        self._database = database
        self._sealer = sealer
        self._open = open_bucket
        self._rows: Remembered[int, StorageRow] = Remembered(changes, {"storages"}, self._load)
        self._pool = BucketPool(self._open_stored)

    async def row(self, storage_id: int) -> StorageRow:
        """Give a storage's row whoever asks; raises `MissingError`."""
        row = await self._rows.get(storage_id)
        if row is None:
            raise _missing()
        return row

    async def row_for(self, principal: Principal, storage_id: int) -> StorageRow:
        """Give a storage's row to those who may see it; to others it is missing."""
        return seen_storage(principal, await self._rows.get(storage_id))

    def at_hand(self, principal: Principal, storage_id: int) -> StorageRow | None:
        """Give a remembered row to those who may see it, else None; raises as `row_for` does."""
        row = self._rows.at_hand(storage_id)
        return None if row is None else seen_storage(principal, row)

    async def of(self, row: StorageRow) -> Bucket:
        """Give the open bucket of a storage; shared, so nobody but the pool closes it.

        Raises `CredentialUnreadableError`, `MisconfiguredError`.
        """
        return await self._pool.get(row.id, row.version)

    async def open_stored(self, storage_id: int) -> Bucket:
        """Give the open bucket of a storage by its id, for background jobs."""
        return await self.of(await self.row(storage_id))

    @asynccontextmanager
    async def trying(self, source: Source) -> AsyncIterator[Bucket]:
        """Open a bucket that is not attached yet, for as long as the block lasts."""
        bucket = await self._open(source)
        try:
            yield bucket
        finally:
            await bucket.aclose()

    def forget(self, storage_id: int) -> None:
        """Drop the remembered row of a storage that this process just changed."""
        self._rows.forget(storage_id)

    async def aclose(self) -> None:
        """Close every open bucket."""
        await self._pool.aclose()

    async def _load(self, storage_id: int) -> StorageRow | None:
        async with self._database.session() as session:
            return await storage_by_id(session, storage_id)

    async def _open_stored(self, storage_id: int, _version: int) -> Bucket:
        return await self._open(source_of(await self.row(storage_id), self._sealer))


def seen_storage(principal: Principal, row: StorageRow | None) -> StorageRow:
    """Give a storage's row to those who may see it; raises `MissingError` for others, as if there was none."""
    if row is None or not may_see(principal, row.owner_id):
        raise _missing()
    return row


def _missing() -> MissingError:
    return MissingError("storage", "There is no such storage.")
