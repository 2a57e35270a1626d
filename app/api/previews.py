"""The route of a storage's preview."""

from typing import Any

from fastapi import APIRouter, Request, Response

from app.api import conditional
from app.api.delivery import request_of, shaped
from app.api.deps import Caller, OpenServices, StorageId
from app.api.objects import BYTES_PROBLEMS, CONDITIONS
from app.api.replies import Sent

router = APIRouter(prefix="/v1/storages/{storage_id}", tags=["Storages"])

_JPEG = {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}
_PREVIEW: dict[str, Any] = {
    "response_class": Response,
    "responses": {
        200: {"description": "The picture.", "content": _JPEG},
        206: {"description": "The asked part.", "content": _JPEG},
        304: {"description": "Your copy is current."},
        **BYTES_PROBLEMS,
    },
    "openapi_extra": {"parameters": [one for one in CONDITIONS["parameters"] if one["in"] == "header"]},
}


@router.head("/preview", summary="Ask about a storage's preview", **_PREVIEW)
@router.get("/preview", summary="Show a storage's preview", **_PREVIEW)
async def get_preview(
    storage_id: StorageId, caller: Caller, services: OpenServices, request: Request
) -> Response:
    """Show a storage by one picture, a JPEG of at most 256 by 256 pixels; HEAD only describes it.

    It is the first frame of the first manifest that is ready, else the first picture in the first page of its
    objects; 404 where neither is found.
    """
    asked = request_of(request.scope)
    options = conditional.parse(asked.headers, asked.method)
    read = await services.previews.read(caller, storage_id, asked.method, options, revalidate=asked.asks_anew)
    return Sent(shaped(read, download=False, signed=False))
