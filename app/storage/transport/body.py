"""Bodies: one read whole into the memory it is handed out in, or a stream with backpressure."""

import asyncio
from collections import deque
from io import BytesIO
from typing import Protocol

from app.errors import BrokenStreamError, StorageError
from app.storage.base import Answer, ByteStream, Piece

HIGH_WATER_BYTES = 1_048_576
"""A stream that holds this much asks the bucket to wait; it may hold one read (256 KiB) more."""
LOW_WATER_BYTES = 262_144
_JOIN_BELOW_BYTES = 65_536


class WholeBody:
    """A body of known length, received into the very bytes it becomes.

    There is room for one byte more than promised, so that a surplus is seen. A `BytesIO` gives its buffer
    away without a copy: one of 200 KB costs as much as the rest of an answer.
    """

    __slots__ = ("_buffer", "_filled", "_headers", "_length", "_status", "_view")

    def __init__(self, status: int, headers: dict[bytes, bytes], length: int, first: memoryview) -> None:
        self._status = status
        self._headers = headers
        self._length = length
        self._buffer = BytesIO()
        self._buffer.seek(length)
        self._buffer.write(b"\0")
        self._view = self._buffer.getbuffer()
        self._filled = len(first)
        self._view[: self._filled] = first

    def room(self) -> memoryview:
        """Give the part of the buffer that is still empty."""
        return self._view[self._filled :]

    def filled(self, count: int) -> int:
        """Note `count` bytes more; gives how many are missing, -1 for a surplus."""
        self._filled += count
        return self._length - self._filled

    def answer(self) -> Answer:
        """Hand the finished body out; call it outside of the event loop's read, which holds the buffer."""
        self._view.release()
        self._buffer.truncate(self._length)
        return Answer(self._status, self._headers, self._buffer.getvalue(), self._length)


class Source(Protocol):
    """What a stream asks of its connection."""

    def pause(self) -> None:
        """Receive no more for now."""
        ...

    def resume(self) -> None:
        """Receive again."""
        ...

    def expect(self, waiting: bool) -> None:
        """Start or stop the idle time-out: it runs only while a reader waits."""
        ...

    def abandon(self) -> None:
        """Nobody reads the rest."""
        ...


class BodyStream:
    """A body on its way; at most `HIGH_WATER_BYTES` and one read of it are held in memory.

    Its connection is free as soon as the last byte has arrived, before the reader has taken it. One reader.
    """

    __slots__ = ("_chunks", "_ended", "_error", "_paused", "_size", "_source", "_waiter")

    def __init__(self, source: Source) -> None:
        self._source = source
        self._chunks: deque[Piece] = deque()
        self._size = 0
        self._ended = False
        self._paused = False
        self._error: StorageError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def push(self, data: Piece, *, last: bool = False) -> None:
        """Take bytes from the connection, which goes its own way after the last ones."""
        if data:
            self._chunks.append(data)
            self._size += len(data)
        if last:
            self._let_go()
        elif self._size >= HIGH_WATER_BYTES and not self._paused:
            self._paused = True
            self._source.pause()
        if data or last:
            self._wake()

    def end(self, error: StorageError | None = None) -> None:
        """Take the body's end, or what ended it too early; what was received before is still given out."""
        if not self._ended:
            self._ended = True
            self._paused = False
            self._error = error
            self._wake()

    def __aiter__(self) -> "BodyStream":
        """Give the stream itself."""
        return self

    async def __anext__(self) -> Piece:
        """Give the next bytes; raises `BrokenStreamError` when the body ends too early or stalls.

        Cancelled while it waits it loses nothing.
        """
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            await self._more()
        return self._taken()

    async def aclose(self) -> None:
        """Free the connection: it is closed, or kept when only a little is left to receive."""
        self.discard()

    def discard(self) -> None:
        """Do what `aclose` does."""
        self._chunks.clear()
        if not self._ended:
            self.end(BrokenStreamError("The stream was closed before its end."))
            self._source.abandon()

    def _let_go(self) -> None:
        self._ended = True
        if self._paused:
            self._paused = False
            self._source.resume()

    def _taken(self) -> Piece:
        data = self._chunks.popleft()
        if len(data) < _JOIN_BELOW_BYTES and self._chunks:
            data = self._joined(data)
        self._size -= len(data)
        if self._paused and self._size <= LOW_WATER_BYTES:
            self._paused = False
            self._source.resume()
        return data

    def _joined(self, first: Piece) -> bytes:
        """Many small pieces would cost the reader a message each."""
        pieces, size = [first], len(first)
        while self._chunks and size < _JOIN_BELOW_BYTES:
            pieces.append(self._chunks.popleft())
            size += len(pieces[-1])
        return b"".join(pieces)

    async def _more(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        self._source.expect(True)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if not self._ended:
                self._source.expect(False)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


async def read_up_to(body: bytes | ByteStream, limit_bytes: int) -> bytes:
    """Give the first `limit_bytes` bytes of a body, for an error's text; closes it on every way out.

    Raises `BrokenStreamError` when the body breaks off before.
    """
    if isinstance(body, bytes):
        return body[:limit_bytes]
    pieces, size = [], 0
    try:
        async for piece in body:
            pieces.append(piece)
            size += len(piece)
            if size >= limit_bytes:
                break
    finally:
        await body.aclose()
    return b"".join(pieces)[:limit_bytes]
