"""Routes of chunks: so many frames at once, as a ZIP on its way while they are fetched."""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Annotated, Any

import orjson
import structlog
from fastapi import APIRouter, Path, Query, Request, Response
from starlette.types import Scope

from app.api.archive import StoredZip
from app.api.delivery import SAME_ORIGIN, request_in
from app.api.deps import LARGEST_ID, Caller, ManifestId, OpenServices, PlainInt
from app.api.frames import Revision
from app.api.problems import members_of
from app.api.renditions import PARAMETERS, rendition_of
from app.api.replies import Headers, Reply, Sent
from app.api.schemas.problem import BUCKET, problems
from app.errors import FramegateError, StorageError
from app.images.rendition import Rendition
from app.lifespan import services_of
from app.services.chunks import MOST_FRAMES, ChunkFrames
from app.services.fetch_ahead import FetchedFrame

PROBLEMS_ENTRY = "problems.json"

_log = structlog.get_logger(__name__)

router = APIRouter(prefix="/v1/manifests/{manifest_id}/chunks", tags=["Frames"])

Index = Annotated[PlainInt, Path(ge=0, le=LARGEST_ID, description="Counts the chunks of this size from 0.")]
Size = Annotated[
    int, Query(ge=1, le=MOST_FRAMES, description="How many frames a chunk has; the last one may have fewer.")
]

_CHUNK: dict[str, Any] = {
    "response_class": Response,
    "responses": {
        200: {
            "description": "The ZIP.",
            "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
        },
        **problems(401, 404, 409, 410, 422, *BUCKET),
    },
    "openapi_extra": {"parameters": PARAMETERS},
}


@router.head("/{index}", summary="Ask about a chunk of frames", **_CHUNK)
@router.get("/{index}", summary="Read a chunk of frames", **_CHUNK)
async def get_chunk(
    manifest_id: ManifestId,
    index: Index,
    caller: Caller,
    services: OpenServices,
    request: Request,
    size: Size = 36,
    revision: Revision = None,
) -> Response:
    """Stream the pictures of the frames `[index * size, (index + 1) * size)` as a ZIP, all of one revision.

    The entries are stored in the order of the frames and named by their numbers, such as `000036.jpg`. A frame
    that cannot be had does not break the ZIP: it is named in a last entry `problems.json`, a list of problems
    with `number` and `key`. HEAD fetches no frame. `width`, `height` and `format` ask for smaller pictures.
    """
    asked = request_in(request.scope)
    wanted = rendition_of(asked.query)
    chunk = await services.chunks.locate(caller, manifest_id, index, size, revision=revision)
    headers = _headers(manifest_id, index)
    if request.method == "HEAD":
        return Sent(Reply(200, headers))
    frames = await services.chunks.open(caller, chunk, wanted, revalidate=asked.asks_anew)
    return Sent(Reply(200, headers, ChunkZip(frames, wanted, request.scope)))


class ChunkZip:
    """The body of an answer: the ZIP of a chunk's frames."""

    def __init__(self, frames: ChunkFrames, rendition: Rendition | None, scope: Scope) -> None:
        self._frames = frames
        self._rendition = rendition
        self._scope = scope
        self._problems: list[Mapping[str, object]] = []
        self._refusals: list[StorageError] = []
        self._messages = self._made()

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Give the ZIP, once."""
        return self._messages

    async def aclose(self) -> None:
        """Stop fetching and free what the frames hold."""
        await self._messages.aclose()
        await self._frames.aclose()

    async def _made(self) -> AsyncGenerator[bytes]:
        archive = StoredZip()
        async for frame in self._frames:
            if isinstance(frame.content, FramegateError):
                self._note(frame, frame.content)
                continue
            name = self._name(frame.number, frame.key or "")
            for message in await archive.add(name, frame.content.last_modified, frame.content.pieces):
                yield message
            del frame  # or it would lie in memory, uncounted, while the next one comes
        if self._problems:
            told = orjson.dumps(self._problems, option=orjson.OPT_INDENT_2)
            for message in await archive.add(PROBLEMS_ENTRY, None, [told]):
                yield message
        self._log_refusals()
        for message in archive.finish():
            yield message

    def _name(self, number: int, key: str) -> str:
        return entry_name(number, key if self._rendition is None else self._rendition.key_of(key))

    def _note(self, frame: FetchedFrame, error: FramegateError) -> None:
        self._problems.append({"number": frame.number, "key": frame.key, **members_of(error)})
        if isinstance(error, StorageError):
            services_of(self._scope).metrics.refused(error)
            if error.state != "available":
                self._refusals.append(error)

    def _log_refusals(self) -> None:
        if self._refusals:
            first = self._refusals[0]
            _log.warning(
                "chunk_incomplete",
                request_id=self._scope["request_id"],
                frames=len(self._refusals),
                error=type(first).__name__,
                detail=str(first),
            )


def entry_name(number: int, key: str) -> str:
    """Give `000036.jpg`: the number, and the key's extension if it is up to eight plain letters and digits."""
    name = key.rpartition("/")[2]
    ending = name.rpartition(".")[2].lower() if "." in name else ""
    return f"{number:06d}.{ending}" if re.fullmatch("[a-z0-9]{1,8}", ending) else f"{number:06d}"


def _headers(manifest_id: int, index: int) -> Headers:
    name = f"manifest-{manifest_id}-chunk-{index:06d}.zip"
    return [
        *SAME_ORIGIN,
        (b"content-type", b"application/zip"),
        (b"content-disposition", f'attachment; filename="{name}"'.encode()),
        (b"accept-ranges", b"none"),
    ]
