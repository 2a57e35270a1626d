"""Objects of an attached storage: who may read them, and the reading."""

from app.db.storages import StorageRow
from app.services.access import Principal
from app.services.buckets import Buckets
from app.storage.base import ListPage, Method, ObjectRead, ReadOptions, Redirection
from app.storage.cache import ObjectCache, Place
from app.storage.redirects import overrides_for


class ObjectService:
    """Reads and lists objects for those who may see their storage."""

    def __init__(self, buckets: Buckets, cache: ObjectCache) -> None:
        self._buckets = buckets
        self._cache = cache

    async def deliver(
        self,
        principal: Principal,
        storage_id: int,
        key: str,
        method: Method,
        options: ReadOptions,
        *,
        revalidate: bool = False,
        download: bool = False,
    ) -> ObjectRead | Redirection:
        """Answer a GET or HEAD of one object in the way of its storage: by its bytes, or by a URL at the bucket.

        The one place that redirects. Whatever is made of an object's bytes (renditions, chunks) takes them by
        `read`, from every storage. A redirecting bucket is not asked here, so neither `options` nor a missing
        object count; `download` is for it alone. Raises as `read` does.
        """
        row = await self._buckets.row_for(principal, storage_id)
        if row.delivery == "redirect":
            bucket = await self._buckets.of(row)
            return Redirection(bucket.presign(method, key, overrides_for(key, download=download)))
        return await self._read(principal, row, key, method, options, revalidate=revalidate)

    async def read(
        self,
        principal: Principal,
        storage_id: int,
        key: str,
        method: Method,
        options: ReadOptions,
        *,
        revalidate: bool = False,
    ) -> ObjectRead:
        """Answer a GET or HEAD of one object before its first byte is taken; the caller closes the body.

        `revalidate`: an object that is held in memory is asked for again. No database connection is held
        while bytes flow. Raises `MissingError`, `InvalidKeyError`, `PreconditionFailedError`,
        `RangeNotSatisfiableError`, `ShareUsedUpError` and every `StorageError`.
        """
        row = await self._buckets.row_for(principal, storage_id)
        return await self._read(principal, row, key, method, options, revalidate=revalidate)

    @property
    def any_at_hand(self) -> bool:
        """Whether `at_hand` can give anything; where it cannot, asking would be in vain."""
        return self._cache.keeps

    def at_hand(
        self, principal: Principal, storage_id: int, key: str, method: Method, options: ReadOptions
    ) -> ObjectRead | None:
        """Answer as `deliver` does from memory alone, without waiting; None where that cannot be."""
        row = self._buckets.at_hand(principal, storage_id)
        if row is None or row.delivery == "redirect":
            return None
        return self._cache.at_hand(row.id, row.version, key, method, options)

    async def list(
        self,
        principal: Principal,
        storage_id: int,
        prefix: str,
        delimiter: str,
        cursor: str | None,
        limit: int,
    ) -> ListPage:
        """List one page of objects in the bucket's own order; see `Bucket.list`."""
        row = await self._buckets.row_for(principal, storage_id)
        bucket = await self._buckets.of(row)
        return await bucket.list(prefix or row.prefix, delimiter, cursor, limit, caller=principal.user_id)

    async def _read(
        self,
        principal: Principal,
        row: StorageRow,
        key: str,
        method: Method,
        options: ReadOptions,
        *,
        revalidate: bool,
    ) -> ObjectRead:
        bucket = await self._buckets.of(row)
        place = Place(row.id, row.version)
        return await self._cache.read(
            bucket, place, key, method, options, revalidate=revalidate, caller=principal.user_id
        )
