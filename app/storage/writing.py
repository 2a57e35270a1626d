"""One write to one key: its conditions decided, its bytes cut into parts, and nothing left of what fails.

A body that fits into one part is stored in one request, after it came to its end. A longer one goes up part by
part as it comes, and is an object only when it is completed. Whatever ends a body early ends the write.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, replace

from app.errors import (
    AccessDeniedError,
    FramegateError,
    ObjectMissingError,
    PreconditionFailedError,
    StorageError,
    UpstreamError,
)
from app.storage.base import ANYTHING, ObjectMeta, PartedUpload, Pin, ReadOptions
from app.storage.preconditions import evaluate, is_strong
from app.storage.reading import Reading
from app.storage.upstream import Upstream

PART_BYTES = 8 * 1024 * 1024
MOST_PARTS = 10_000
"""S3's limit (https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html); Azure takes more."""
PARTS_IN_FLIGHT = 2

ABORT_PAUSES_S = (1.0, 4.0, 15.0)
ENDING_S = 5.0
"""How long a writer, or the closing of its bucket, waits until the parts of a failed upload are gone."""

_log = logging.getLogger(__name__)


def part_bytes(most_bytes: int) -> int:
    """Give the length of the parts of a body of at most that many bytes; all have one, which some servers want."""
    return max(PART_BYTES, -(-most_bytes // MOST_PARTS))


def held_bytes(most_bytes: int) -> int:
    """Give how much of a body of at most that many bytes is in memory at a time.

    The parts on their way, the one that is being filled, and one that is handed over.
    """
    return min(most_bytes, (PARTS_IN_FLIGHT + 2) * part_bytes(most_bytes))


async def pin_to(upstream: Upstream, key: str, conditions: ReadOptions, *, must_exist: bool = False) -> Pin:
    """Decide a write's conditions by a HEAD, and give what the write is then pinned to: the state that it saw.

    So that lists of tags, stars and dates come down to the two conditions that buckets know. Without
    conditions, and without `must_exist`, nothing is asked. RFC 9110 section 13.2.2: a condition that would
    spare a reader the body fails a writer. Raises `PreconditionFailedError`, `ObjectMissingError`.
    """
    wanted = replace(conditions, range=None, if_range=None, if_modified_since=None)
    conditional = wanted != ReadOptions()
    if not conditional and not must_exist:
        return ANYTHING
    meta = await _facts(upstream, key)
    if meta is None and must_exist:
        raise ObjectMissingError(key)
    if not conditional:
        return ANYTHING
    if (meta is None and wanted.if_match is not None) or (meta and evaluate(wanted, meta) != "proceed"):
        raise PreconditionFailedError
    if meta is None:
        return Pin(missing=True)
    return Pin(meta.etag) if meta.etag is not None and is_strong(meta.etag) else ANYTHING


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a body, and whether it is the last one."""

    body: bytes
    is_last: bool


class Writing:
    """One write of `key`; used once.

    `endings` keeps the ends of parted uploads that are still on their way when the writer is gone.
    """

    def __init__(
        self,
        upstream: Upstream,
        key: str,
        media_type: str,
        pin: Pin,
        endings: "set[asyncio.Task[None]]",
    ) -> None:
        self._upstream = upstream
        self._provider = upstream.provider
        self._key = key
        self._media_type = media_type
        self._pin = pin
        self._endings = endings

    async def put(self, body: bytes) -> str | None:
        """Store a body in one request and give its entity tag."""
        try:
            return await self._provider.put(self._key, body, self._media_type, self._pin)
        except ObjectMissingError as error:
            raise self._missing() from error

    async def put_parts(self, first: Part, others: AsyncIterator[Part]) -> str | None:
        """Store a body in parts and give its entity tag; whatever goes wrong, the parts are taken away again."""
        upload = await self._begin()
        try:
            await _send_all(upload, first, others)
            etag = await upload.complete(self._pin)
        except BaseException as error:
            await self._end(asyncio.create_task(_abort(upload)))
            if isinstance(error, ObjectMissingError):
                raise self._missing() from error
            raise
        return await self._confirmed(etag)

    def _missing(self) -> FramegateError:
        """Read "no such object" as S3 means it: its answer to If-Match where there is nothing."""
        if self._pin.etag is not None:
            return PreconditionFailedError()
        return UpstreamError("The bucket answered a write as if it was a read of a missing object.")

    async def _confirmed(self, etag: str | None) -> str | None:
        """Give the tag if the bucket still says it; `rclone serve s3` answers another one than it has later.

        Another one may as well be somebody else's who wrote since then, so it is not given either.
        """
        try:
            meta = await _facts(self._upstream, self._key)
        except StorageError:
            return etag
        return etag if meta is not None and meta.etag == etag else None

    async def _begin(self) -> PartedUpload:
        """Begin an upload; one that a cancelled writer began is aborted as soon as its name is known."""
        beginning = asyncio.ensure_future(self._provider.begin(self._key, self._media_type))
        try:
            return await asyncio.shield(beginning)
        except asyncio.CancelledError:
            await self._end(asyncio.create_task(_abort_begun(beginning)))
            raise

    async def _end(self, ending: "asyncio.Task[None]") -> None:
        """Wait for an ending, but not long: it goes on by itself."""
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
        await asyncio.wait({ending}, timeout=ENDING_S)


async def parts_of(body: AsyncIterator[bytes], size_bytes: int) -> AsyncGenerator[Part]:
    """Cut a body into parts of `size_bytes`; the last may be shorter, and of an empty body it is empty."""
    held = bytearray()
    async for piece in body:
        held += piece
        while len(held) > size_bytes:
            with memoryview(held) as view:
                part = Part(bytes(view[:size_bytes]), is_last=False)
            del held[:size_bytes]
            yield part
            del part  # it is the taker's; kept here it would be in memory for a part too long
    yield Part(bytes(held), is_last=True)


async def _facts(upstream: Upstream, key: str) -> ObjectMeta | None:
    try:
        return (await Reading(upstream, key, ReadOptions()).head()).meta
    except ObjectMissingError:
        return None


async def _send_all(upload: PartedUpload, first: Part, others: AsyncIterator[Part]) -> None:
    """Send parts as they come, a few at a time: no more is taken from the body than the bucket takes."""
    free = asyncio.Semaphore(PARTS_IN_FLIGHT)

    async def send(number: int, body: bytes) -> None:
        try:
            await upload.put_part(number, body)
        finally:
            free.release()

    try:
        async with asyncio.TaskGroup() as sending:
            number, part = 1, first
            while True:
                await free.acquire()
                sending.create_task(send(number, part.body))
                if part.is_last:
                    return
                number, part = number + 1, await anext(others)
    except BaseExceptionGroup as group:
        failed = group.exceptions[0]
        raise failed from failed.__cause__


async def _abort(upload: PartedUpload) -> None:
    """Take parts away, and try again if the bucket fails: left there they cost money for ever."""
    for pause_s in (*ABORT_PAUSES_S, None):
        try:
            return await upload.abort()
        except StorageError as error:
            if pause_s is None or isinstance(error, AccessDeniedError):
                _log.warning("parts of an upload stay in the bucket: %s", error)
                return None
        await asyncio.sleep(pause_s)
    return None


async def _abort_begun(beginning: "asyncio.Future[PartedUpload]") -> None:
    try:
        upload = await beginning
    except FramegateError:
        return
    await _abort(upload)
