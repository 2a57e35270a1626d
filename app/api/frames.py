"""Routes of frames: pages of them, one of them, and their pictures."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from app.api.delivery import image_reply, request_of
from app.api.deps import LARGEST_ID, Caller, Cursor, Limit, ManifestId, OpenServices, PlainInt
from app.api.objects import BYTES, BYTES_PROBLEMS, CONDITIONS
from app.api.replies import Sent
from app.api.schemas.fields import Line, Page
from app.api.schemas.manifests import FrameAnswer
from app.api.schemas.problem import problems
from app.db.frames import FrameFilter

router = APIRouter(prefix="/v1/manifests/{manifest_id}/frames", tags=["Frames"])

Number = Annotated[PlainInt, Path(ge=0, le=LARGEST_ID, description="Counts the item lines from 0.")]
Revision = Annotated[
    int | None,
    Query(ge=1, le=LARGEST_ID, description="410 when this is no longer the manifest's current revision."),
]
Pixels = Annotated[int | None, Query(ge=0, le=2**31 - 1, description="In pixels, inclusive.")]


@dataclass(frozen=True, slots=True)
class FrameQuery:
    """Which frames to list."""

    prefix: Annotated[Line | None, Query(description="Only keys that begin with this.")] = None
    key: Annotated[Line | None, Query(description="Only this key.")] = None
    glob: Annotated[Line | None, Query(description="Only keys that match, such as `pets/*.jpg`.")] = None
    min_width: Pixels = None
    max_width: Pixels = None
    min_height: Pixels = None
    max_height: Pixels = None

    def filter(self) -> FrameFilter:
        """Give what the service takes."""
        sizes = (self.min_width, self.max_width, self.min_height, self.max_height)
        return FrameFilter(self.prefix, self.key, self.glob, *sizes)


@router.get(
    "",
    summary="List frames",
    response_description="One page of frames.",
    responses=problems(401, 404, 409, 410, 422),
)
async def list_frames(
    manifest_id: ManifestId,
    caller: Caller,
    services: OpenServices,
    wanted: Annotated[FrameQuery, Depends()],
    cursor: Cursor = None,
    limit: Limit = 100,
    revision: Revision = None,
) -> Page[FrameAnswer]:
    """List frames in the manifest's order; a filtered page may be short with a cursor left."""
    page = await services.frames.list(caller, manifest_id, wanted.filter(), cursor, limit, revision=revision)
    items = [FrameAnswer.model_validate(frame) for frame in page.items]
    return Page(items=items, next_cursor=page.next_cursor)


@router.get(
    "/{number}",
    summary="Show a frame",
    response_description="The frame.",
    responses=problems(401, 404, 409, 410, 422),
)
async def get_frame(
    manifest_id: ManifestId, number: Number, caller: Caller, services: OpenServices, revision: Revision = None
) -> FrameAnswer:
    """Show one frame: its key, its size in pixels, and what the manifest says beside."""
    return FrameAnswer.model_validate(
        await services.frames.get(caller, manifest_id, number, revision=revision)
    )


_REVISION: dict[str, Any] = {
    "in": "query",
    "name": "revision",
    "required": False,
    "schema": {"type": "integer", "minimum": 1, "maximum": LARGEST_ID},
    "description": "410 when this is no longer the manifest's current revision.",
}
_IMAGE: dict[str, Any] = {
    "response_class": Response,
    "responses": {**BYTES, **BYTES_PROBLEMS, **problems(409, 410)},
    "openapi_extra": {"parameters": [*CONDITIONS["parameters"], _REVISION], "security": [{"token": []}]},
}


@router.head("/{number}/image", summary="Ask about a frame's picture", **_IMAGE)
@router.get("/{number}/image", summary="Read a frame's picture", **_IMAGE)
async def get_image(
    manifest_id: ManifestId, number: Number, services: OpenServices, request: Request
) -> Response:
    """Stream a frame's picture, with ranges and conditions as for objects; HEAD only describes it.

    `width`, `height` and `format` ask for a smaller picture instead: never enlarged, upright, in sRGB.
    """
    return Sent(await image_reply(services, request_of(request.scope), manifest_id, number))
