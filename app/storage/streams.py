"""Bodies on their way: cut to a window, holding a place until they are closed."""

from collections.abc import AsyncIterator, Callable

from app.errors import BrokenStreamError
from app.storage.base import ByteStream, Piece


class Window:
    """`take` bytes of a stream after its first `skip`; closing it closes the stream.

    Raises `BrokenStreamError` when the stream ends before the window does.
    """

    def __init__(self, stream: ByteStream, skip: int, take: int) -> None:
        self._stream = stream
        self._skip = skip
        self._take = take

    async def __aiter__(self) -> AsyncIterator[Piece]:
        """Give the window's bytes in order, once."""
        skip, take = self._skip, self._take
        async for chunk in self._stream:
            piece = chunk[skip : skip + take]
            skip = max(0, skip - len(chunk))
            take -= len(piece)
            if piece:
                yield piece
            if take == 0:
                return
        if take:
            raise BrokenStreamError("The bucket ended the object before its last byte.")

    async def aclose(self) -> None:
        """Close the stream below; closing twice does nothing."""
        await self._stream.aclose()


class HeldStream:
    """A stream that gives a place back when it is closed: once, on every way out."""

    def __init__(self, stream: ByteStream, release: Callable[[], None]) -> None:
        self._stream = stream
        self._release: Callable[[], None] | None = release

    def __aiter__(self) -> AsyncIterator[Piece]:
        """Give the stream's bytes."""
        return self._stream.__aiter__()

    async def aclose(self) -> None:
        """Close the stream and give the place back; closing twice does nothing."""
        release, self._release = self._release, None
        try:
            await self._stream.aclose()
        finally:
            if release is not None:
                release()


def cut(body: "bytes | ByteStream", start: int, stop: int) -> "bytes | ByteStream":
    """Give the bytes `[start, stop)` of a body."""
    return body[start:stop] if isinstance(body, bytes) else Window(body, start, stop - start)


async def whole(body: "bytes | ByteStream") -> bytes:
    """Give a body in one piece, and close it on every way out; raises `BrokenStreamError`."""
    if isinstance(body, bytes):
        return body
    try:
        return b"".join([piece async for piece in body])
    finally:
        await body.aclose()


async def close_body(body: "bytes | ByteStream") -> None:
    """Close a body that nobody will read."""
    if not isinstance(body, bytes):
        await body.aclose()
