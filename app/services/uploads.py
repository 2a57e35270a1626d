"""Writing through to a storage's bucket: who may, how much, and that nobody is served what was there before."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

import structlog

from app.db.changes import Changes
from app.db.storages import StorageRow
from app.errors import BodyTooLargeError, DatabaseUnavailableError
from app.services.access import Principal, require_writer
from app.services.buckets import Buckets
from app.services.room import Room
from app.storage.base import ReadOptions
from app.storage.cache import ObjectCache
from app.storage.digests import Digest, verified
from app.storage.keys import check_key
from app.storage.media import media_type
from app.storage.writing import held_bytes

ROOM_BYTES = 256 * 1024 * 1024
"""Memory of all uploads of a process together: eight long ones at once, or a thousand pictures."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Upload:
    """What a client says of an object that it is about to send."""

    key: str
    content_type: str | None
    length_bytes: int | None
    """None where the body is chunked."""
    conditions: ReadOptions
    digests: tuple[Digest, ...]


class UploadService:
    """Stores and deletes objects for those who may see their storage and whose role may write."""

    def __init__(self, buckets: Buckets, cache: ObjectCache, changes: Changes, limit_bytes: int) -> None:
        self._buckets = buckets
        self._cache = cache
        self._changes = changes
        self._limit_bytes = limit_bytes
        self._room = Room(ROOM_BYTES, shares=2, wait_s=None, what="uploads")

    async def put(
        self, principal: Principal, storage_id: int, upload: Upload, body: AsyncIterator[bytes]
    ) -> str | None:
        """Store an object and give its entity tag; nothing of `body` is asked for before all is agreed.

        Raises `MissingError`, `ForbiddenError`, `InvalidKeyError`, `BodyTooLargeError`,
        `PreconditionFailedError`, `InvalidInputError` for a body that is not what its digests say, what `body`
        raises, and every `StorageError`. No database connection is held while bytes flow.
        """
        row = await self._writable(principal, storage_id, upload.key)
        most_bytes = self._limit_bytes if upload.length_bytes is None else upload.length_bytes
        if most_bytes > self._limit_bytes:
            raise BodyTooLargeError(self._limit_bytes)
        bucket = await self._buckets.of(row)
        kind = media_type(upload.content_type, upload.key).content_type
        async with (
            self._room.reserve(principal.user_id, held_bytes(most_bytes)),
            aclosing(_limited(body, self._limit_bytes)) as limited,
            aclosing(verified(limited, upload.digests)) as whole,
            self._made_known(row.id, upload.key),
        ):
            return await bucket.write(
                upload.key,
                whole,
                kind,
                upload.conditions,
                most_bytes=most_bytes,
                caller=principal.user_id,
            )
        raise AssertionError  # nothing is swallowed here; mypy cannot know

    async def delete(self, principal: Principal, storage_id: int, key: str, conditions: ReadOptions) -> None:
        """Delete an object; raises `ObjectMissingError` where there is none, and else as `put`."""
        row = await self._writable(principal, storage_id, key)
        bucket = await self._buckets.of(row)
        async with self._made_known(row.id, key):
            await bucket.delete(key, conditions, caller=principal.user_id)

    async def _writable(self, principal: Principal, storage_id: int, key: str) -> StorageRow:
        row = await self._buckets.row_for(principal, storage_id)
        require_writer(principal)
        check_key(key)
        return row

    @asynccontextmanager
    async def _made_known(self, storage_id: int, key: str) -> AsyncIterator[None]:
        """Let every process forget the object, however the write ended: a failed one may have been done."""
        try:
            yield
        finally:
            self._cache.forget(storage_id, key)
            try:
                await self._changes.announce_object(storage_id, key)
            except DatabaseUnavailableError:
                # The object is stored; other processes ask for its tag when its age is over.
                _log.warning("write_not_announced", storage_id=storage_id)


async def _limited(body: AsyncIterator[bytes], limit_bytes: int) -> AsyncGenerator[bytes]:
    size_bytes = 0
    async for piece in body:
        size_bytes += len(piece)
        if size_bytes > limit_bytes:
            raise BodyTooLargeError(limit_bytes)
        yield piece
