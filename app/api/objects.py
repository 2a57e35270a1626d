"""Routes of objects: listings, and bytes by the same function that the lane calls."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.convertors import PathConvertor, register_url_convertor

from app.api.delivery import object_reply, raw_key_of, request_of
from app.api.deps import Caller, Cursor, KeyPrefix, Limit, OpenServices, StorageId
from app.api.renditions import PARAMETERS as RENDITIONS
from app.api.replies import Sent
from app.api.schemas.fields import Page
from app.api.schemas.objects import ObjectAnswer
from app.api.schemas.problem import BUCKET, problems


class KeyConvertor(PathConvertor):
    """The rest of the path, line breaks too: what no key may hold is refused as a key, not as a path."""

    regex = "(?s:.+)"


register_url_convertor("key", KeyConvertor())

router = APIRouter(prefix="/v1/storages/{storage_id}", tags=["Objects"])

Key = Annotated[
    str,
    Path(
        description="The whole bucket key, such as `pets/beagle.jpg`; no control characters, no `.` or `..` segment."
    ),
]

_BINARY = {"schema": {"type": "string", "format": "binary"}}
BYTES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The whole object.", "content": {"image/*": _BINARY, "*/*": _BINARY}},
    206: {"description": "The asked part.", "content": {"*/*": _BINARY}},
    304: {"description": "Your copy is current."},
}
BYTES_PROBLEMS = problems(401, 403, 404, 412, 416, 422, *BUCKET)
CONDITIONS: dict[str, Any] = {
    "parameters": [
        {"in": "header", "name": name, "required": False, "schema": {"type": "string"}, "description": text}
        for name, text in (
            ("Range", "One range of bytes: `bytes=0-99`, `bytes=100-`, `bytes=-100`."),
            ("If-None-Match", "304 if the object's entity tag is one of these."),
            ("If-Modified-Since", "304 if it did not change since."),
            ("If-Match", "412 unless its entity tag is one of these."),
            ("If-Unmodified-Since", "412 if it changed since."),
            ("If-Range", "The range only if the object is still this one, else the whole."),
        )
    ]
    + [
        {"in": "query", "name": name, "required": False, "schema": {"type": kind}, "description": text}
        for name, kind, text in (
            ("download", "boolean", "As an attachment, with the key's last part as file name."),
        )
    ]
    + RENDITIONS
}
SIGNED: list[dict[str, Any]] = [
    {
        "in": "query",
        "name": name,
        "required": False,
        "schema": {"type": "string"},
        "description": "Part of a signed URL (`POST /v1/signed-urls`), which needs no token.",
    }
    for name in ("expires", "token_id", "signature")
]


@router.get(
    "/objects",
    summary="List objects",
    response_description="One page of objects and, with `delimiter=/`, of prefixes.",
    responses=problems(401, 404, 422, *BUCKET),
)
async def list_objects(
    storage_id: StorageId,
    caller: Caller,
    services: OpenServices,
    prefix: KeyPrefix = "",
    delimiter: Annotated[
        Literal["", "/"], Query(description="`/` folds everything below a folder into one prefix.")
    ] = "",
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Page[ObjectAnswer]:
    """List objects in the bucket's own order; without `prefix`, from the storage's prefix on."""
    page = await services.objects.list(caller, storage_id, prefix, delimiter, cursor, limit)
    return Page(items=[ObjectAnswer.of(item) for item in page.items], next_cursor=page.cursor)


_OBJECT: dict[str, Any] = {
    "response_class": Response,
    "responses": {**BYTES, **BYTES_PROBLEMS},
    "openapi_extra": {"parameters": CONDITIONS["parameters"] + SIGNED, "security": [{"token": []}, {}]},
}


@router.head("/objects/{key:key}", summary="Ask about an object", **_OBJECT)
@router.get("/objects/{key:key}", summary="Read an object", **_OBJECT)
async def get_object(storage_id: StorageId, key: Key, services: OpenServices, request: Request) -> Response:
    """Stream an object's bytes, with ranges and conditions as HTTP has them (RFC 9110); HEAD only describes it.

    `width`, `height` and `format` ask for a smaller picture instead: never enlarged, upright, in sRGB.

    The key is the rest of the path, percent-decoded once. A signed URL carries its permission in its query and
    needs no token.
    """
    scope = request.scope
    return Sent(await object_reply(services, request_of(scope), storage_id, raw_key_of(scope)))
