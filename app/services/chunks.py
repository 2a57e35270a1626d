"""Chunks of a manifest: so many neighbouring frames at once, in order, fetched ahead of their reader."""

from collections import deque

from app.errors import Fault, FramegateError, InvalidInputError, InvalidKeyError, MissingError
from app.images.rendition import Rendition
from app.services.access import Principal
from app.services.fetch_ahead import AHEAD, FetchAhead, FetchedFrame, concerns_bucket
from app.services.frames import FrameRange, FrameService
from app.services.objects import ObjectService
from app.services.renditions import RenditionService
from app.services.room import Room
from app.storage.base import PLAIN_READ, ObjectRead

MOST_FRAMES = 500
"""The largest size of a chunk."""


class ChunkFrames:
    """The frames of a chunk in order, once; whoever received it closes it, on every way out."""

    def __init__(self, first: deque[FetchedFrame], others: FetchAhead) -> None:
        self._first = first
        self._others = others

    def __aiter__(self) -> "ChunkFrames":
        """Give itself."""
        return self

    async def __anext__(self) -> FetchedFrame:
        """Give the next frame."""
        return self._first.popleft() if self._first else await anext(self._others)

    async def aclose(self) -> None:
        """Stop what is under way and free what it holds; closing twice does nothing."""
        await self._others.aclose()


class ChunkService:
    """Gives the frames of chunks to those who may see their manifest."""

    def __init__(
        self, frames: FrameService, objects: ObjectService, renditions: RenditionService, room: Room
    ) -> None:
        self._frames = frames
        self._objects = objects
        self._renditions = renditions
        self._room = room

    async def locate(
        self, principal: Principal, manifest_id: int, index: int, size: int, *, revision: int | None = None
    ) -> FrameRange:
        """Say which frames a chunk has, all of one revision: `[index * size, (index + 1) * size)`.

        Raises `MissingError` behind the manifest's end too, `NotReadyError`, `StaleRevisionError`,
        `NoImageError` for a video, `InvalidInputError` at `query:size`.
        """
        if not 1 <= size <= MOST_FRAMES:
            raise InvalidInputError(Fault("query:size", f"A chunk has 1 to {MOST_FRAMES} frames."))
        start = index * size
        return await self._frames.locate_range(principal, manifest_id, start, start + size, revision=revision)

    async def open(
        self, principal: Principal, chunk: FrameRange, wanted: Rendition | None, *, revalidate: bool = False
    ) -> ChunkFrames:
        """Begin to fetch a chunk's frames, or smaller pictures of them; the caller closes what comes back.

        Each is read by `ObjectService.read` or `RenditionService.read`. Comes back with the first frame that
        tells that the bucket answers. Raises what these raise when the first `AHEAD` frames, or all there
        are, fail for no reason of their own.
        """

        async def read(key: str) -> ObjectRead:
            place = (principal, chunk.storage_id, key)
            if wanted is None:
                return await self._objects.read(*place, "GET", PLAIN_READ, revalidate=revalidate)
            return await self._renditions.read(*place, wanted, "GET", PLAIN_READ, revalidate=revalidate)

        frames = FetchAhead(read, self._room, principal.user_id, chunk.start, chunk.keys)
        try:
            return ChunkFrames(await _first(frames), frames)
        except BaseException:
            await frames.aclose()
            raise


async def _first(frames: FetchAhead) -> deque[FetchedFrame]:
    """Give the frames up to the first that the bucket gave, or had an answer for."""
    taken: deque[FetchedFrame] = deque()
    failures: list[FramegateError] = []
    async for frame in frames:
        taken.append(frame)
        if isinstance(frame.content, FramegateError) and concerns_bucket(frame.content):
            failures.append(frame.content)
        elif not isinstance(
            frame.content, MissingError | InvalidKeyError
        ):  # of these the bucket knows nothing
            return taken
        if len(failures) == AHEAD:
            break
    if failures:
        raise failures[0]
    return taken
