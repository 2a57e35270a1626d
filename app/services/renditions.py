"""Renditions of pictures: who may see them, what is kept of them, and the making where nothing is kept."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from msgspec import structs

from app.errors import ObjectMissingError, PictureTooLargeError, StorageTimeoutError, ThrottledError
from app.images.pool import RenderPool
from app.images.rendition import MOST_SOURCE_BYTES, Rendition, made_by
from app.services.access import Principal
from app.services.buckets import Buckets
from app.storage.base import PLAIN_READ, Method, ObjectMeta, ObjectRead, ReadOptions
from app.storage.bucket import Bucket
from app.storage.cache import ObjectCache, Place
from app.storage.gate import Gate
from app.storage.preconditions import is_strong
from app.storage.reading import from_memory
from app.storage.streams import close_body, whole

SOURCE_LIMIT_S = 60.0
"""How long a bucket may take for a whole picture: one that drips keeps a turn from others."""


class RenditionService:
    """Reads smaller pictures for those who may see their storage."""

    def __init__(self, buckets: Buckets, cache: ObjectCache, pool: RenderPool) -> None:
        self._buckets = buckets
        self._cache = cache
        self._pool = pool
        self._line = Gate(pool.turns, pool.queue)
        self._made_by = made_by()

    async def read(
        self,
        principal: Principal,
        storage_id: int,
        key: str,
        wanted: Rendition,
        method: Method,
        options: ReadOptions,
        *,
        revalidate: bool = False,
    ) -> ObjectRead:
        """Answer a GET or HEAD of a rendition; its body is bytes, and conditions and ranges are its own.

        Its entity tag follows from the object's, so that a condition on it is often decided without a
        picture being decoded. `revalidate`: the bucket is asked whether the object changed.

        Raises `NotAPictureError`, `PictureTooLargeError`, `RenditionsBusyError`, `ShareUsedUpError`, and what
        `ObjectService.read` raises.
        """
        row = await self._buckets.row_for(principal, storage_id)
        bucket = await self._buckets.of(row)
        place = Place(row.id, row.version)
        making = _Making(
            self._cache, self._pool, self._line, self._made_by, bucket, place, key, wanted, principal.user_id
        )
        asks_for_news = options.if_none_match is not None or options.if_modified_since is not None
        if asks_for_news and not self._cache.holds(place, key, wanted.name):
            known = await making.known(options)
            if known is not None:
                return known
        return await self._cache.read_made(
            place, key, wanted.name, making.make, method, options, revalidate=revalidate
        )

    def at_hand(
        self,
        principal: Principal,
        storage_id: int,
        key: str,
        wanted: Rendition,
        method: Method,
        options: ReadOptions,
    ) -> ObjectRead | None:
        """Answer as `read` does from memory alone, without waiting; None where anything must be waited for."""
        row = self._buckets.at_hand(principal, storage_id)
        if row is None:
            return None
        return self._cache.at_hand(row.id, row.version, key, method, options, wanted.name)


@dataclass(slots=True)  # frozen it would take a microsecond longer to make, on every hit
class _Making:
    """The making of one rendition of one object, for whoever asks."""

    cache: ObjectCache
    pool: RenderPool
    line: Gate
    made_by: str
    bucket: Bucket
    place: Place
    key: str
    wanted: Rendition
    caller: int

    async def known(self, options: ReadOptions) -> ObjectRead | None:
        """Answer from the object's facts alone that the reader's copy is current; None: it has to be made.

        Raises `PreconditionFailedError`.
        """
        meta = await self._current()
        if meta is None:
            return None
        judged = from_memory(ObjectRead(meta), b"", "HEAD", options)
        return judged if judged.not_modified else None

    async def make(self, kept: ObjectRead | None) -> ObjectRead:
        """Make it, unless what is kept of it still follows from the object as it is now."""
        tag = None if kept is None else kept.meta.etag
        if kept is not None and tag is not None and is_strong(tag):
            meta = await self._current()
            if meta is not None and meta.etag == tag:
                return structs.replace(kept, not_modified=True)
        async with self._turn():
            source, picture = await self._source()
            made = await self.pool.render(picture, self.wanted, self.place.storage_id)
        return ObjectRead(self._meta(source, len(made)), made)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait for a turn, as fairly between users as before a storage; raises `RenditionsBusyError`."""
        try:
            await self.line.acquire(self.caller)
        except ThrottledError:
            raise self.pool.turn_away() from None
        try:
            async with self.pool.turn():
                yield
        finally:
            self.line.release(self.caller)

    async def _current(self) -> ObjectMeta | None:
        """Give the facts that the rendition would have now, but its size; None where there is no object."""
        try:
            return self._meta((await self.bucket.head(self.key, caller=self.caller)).meta, 0)
        except ObjectMissingError:
            # A HEAD does not tell a missing bucket from a missing object: the GET will say which it is.
            return None

    async def _source(self) -> tuple[ObjectMeta, bytes]:
        try:
            async with asyncio.timeout(SOURCE_LIMIT_S):
                return await self._whole_source()
        except TimeoutError:
            raise StorageTimeoutError("The bucket takes too long to give the whole picture.") from None

    async def _whole_source(self) -> tuple[ObjectMeta, bytes]:
        # From memory if it lies there and is current. It is not kept: the small ones shall not lose their
        # place in memory to the large ones that they are made of.
        read = await self.cache.read(
            self.bucket,
            self.place,
            self.key,
            "GET",
            PLAIN_READ,
            revalidate=True,
            keep=False,
            caller=self.caller,
        )
        if read.meta.size_bytes > MOST_SOURCE_BYTES:
            await close_body(read.body)
            raise PictureTooLargeError(
                f"The object has {read.meta.size_bytes} bytes; of at most {MOST_SOURCE_BYTES} is a smaller"
                " picture made."
            )
        return read.meta, await whole(read.body)

    def _meta(self, source: ObjectMeta, size_bytes: int) -> ObjectMeta:
        return ObjectMeta(
            self.wanted.key_of(self.key),
            size_bytes,
            self._etag(source.etag),
            source.last_modified,
            self.wanted.media_type,
        )

    def _etag(self, source_etag: str | None) -> str | None:
        """Give a tag that changes with the object, with what is wanted, and with the code that makes it."""
        if source_etag is None:
            return None
        facts = "\0".join((source_etag, self.wanted.name, self.made_by))
        tag = f'"{hashlib.sha256(facts.encode("utf-8", "surrogateescape")).hexdigest()[:32]}"'
        return tag if is_strong(source_etag) else f"W/{tag}"
