"""A body that goes on where its connection broke, as long as the object is still the same one."""

import asyncio
from collections.abc import AsyncIterator

from app.errors import BrokenStreamError, StorageError
from app.storage.answers import body_length, content_range, entity_tag, range_header, text_header
from app.storage.base import Answer, ByteRange, ByteStream, ObjectRead, Piece
from app.storage.preconditions import is_strong
from app.storage.retries import backoff_s
from app.storage.streams import close_body, cut
from app.storage.upstream import Upstream

MOST_RESUMES = 3
"""Of one read; after one that brought no byte there is no other: the bucket breaks at that place each time."""
MOST_SKIPPED_BYTES = 1024 * 1024
"""From a server that gives the whole object instead of its rest, so much is received again and dropped."""


def resumable(upstream: Upstream, key: str, read: ObjectRead, body: ByteStream) -> ByteStream:
    """Give the body of a read as one that is resumed.

    Only a strong tag tells that two answers hold the same bytes (RFC 9110 section 8.8.1); without one the
    body stays as it is.
    """
    if read.meta.etag is None or not is_strong(read.meta.etag):
        return body
    return ResumingStream(upstream, key, read, body)


class ResumingStream:
    """The bytes of one read, asked for again from where they broke off; for one reader.

    Raises `BrokenStreamError` where they cannot be had, and never gives bytes of two objects.
    """

    __slots__ = (
        "_body", "_chunks", "_closed", "_etag", "_key", "_next", "_resumed_at", "_resumes", "_size", "_stop",
        "_upstream",
    )  # fmt: skip

    def __init__(self, upstream: Upstream, key: str, read: ObjectRead, body: ByteStream) -> None:
        self._upstream = upstream
        self._key = key
        self._etag = read.meta.etag or ""
        self._size = read.meta.size_bytes
        self._next, self._stop = read.part or (0, read.meta.size_bytes)
        self._resumes = 0
        self._resumed_at: int | None = None
        self._closed = False
        self._body: bytes | ByteStream = body
        self._chunks = body.__aiter__()

    def __aiter__(self) -> "ResumingStream":
        """Give the stream itself."""
        return self

    async def __anext__(self) -> Piece:
        """Give the next bytes; may make a request for them."""
        while True:
            try:
                chunk = await self._chunks.__anext__()
            except BrokenStreamError as error:
                await self._resume(error)
            else:
                self._next += len(chunk)
                return chunk

    async def aclose(self) -> None:
        """Close what is open; closing twice does nothing."""
        self._closed = True
        await close_body(self._body)

    async def _resume(self, broken: BrokenStreamError) -> None:
        """Put a body in place that begins with the next byte; raises `BrokenStreamError`."""
        await close_body(self._body)
        resumed = self._upstream.policy.resumed
        try:
            if self._closed or self._resumes == MOST_RESUMES or self._next == self._resumed_at:
                raise broken
            await asyncio.sleep(backoff_s(self._resumes))
            self._resumes, self._resumed_at = self._resumes + 1, self._next
            body = await self._rest(broken)
        except BrokenStreamError:
            resumed("failed")
            raise
        resumed("resumed")
        self._body = body
        self._chunks = _once(body) if isinstance(body, bytes) else body.__aiter__()

    async def _rest(self, broken: BrokenStreamError) -> "bytes | ByteStream":
        wanted = range_header(ByteRange(self._next, self._stop))
        pinned = [(b"range", wanted), (b"if-match", self._etag.encode("latin-1"))]
        try:
            answer = await self._upstream.ask("GET", self._key, pinned)
        except StorageError as error:
            raise BrokenStreamError(f"{broken.detail} It is not resumed: {error.detail}") from error
        body = self._fitting(answer)
        if body is None:
            await close_body(answer.body)
            raise BrokenStreamError(
                f"{broken.detail} It is not resumed: the bucket gave no such rest of the same object."
            ) from broken
        return body

    def _fitting(self, answer: Answer) -> "bytes | ByteStream | None":
        """Give the missing bytes out of an answer, or None: it is of another object, or not these bytes."""
        if answer.status not in (200, 206) or entity_tag(text_header(answer, b"etag")) != self._etag:
            return None
        given = content_range(answer)  # beside a 200, too: `rclone serve s3`
        if given is not None:
            fits = given == (self._next, self._stop, self._size)
            return cut(answer.body, 0, self._stop - self._next) if fits else None
        whole = answer.status == 200 and b"content-range" not in answer.headers
        if whole and body_length(answer) == self._size and self._next <= MOST_SKIPPED_BYTES:
            return cut(answer.body, self._next, self._stop)
        return None


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body
