"""Routes that write objects: a body streamed into the bucket, and a deletion."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.types import Receive, Scope

from app.api import conditional
from app.api.delivery import key_of
from app.api.deps import Caller, OpenServices, StorageId
from app.api.digests import digests_of
from app.api.objects import Key
from app.api.replies import Headers, Reply, Sent
from app.api.schemas.problem import BUCKET, problems
from app.errors import IncompleteBodyError, MalformedRequestError, UnsupportedCodingError
from app.services.uploads import Upload

router = APIRouter(prefix="/v1/storages/{storage_id}", tags=["Objects"])

NO_LIMIT = 2**63 - 1
"""Of FastAPI's; `UploadService` has the one that counts."""

_HEADERS = frozenset(
    {b"content-type", b"content-length", b"content-encoding", b"content-range"}
    | {b"content-md5", b"repr-digest", b"content-digest"}
    | conditional.CONDITIONAL
)


def _documented(*parameters: tuple[str, str]) -> list[dict[str, Any]]:
    return [
        {"in": "header", "name": name, "required": False, "schema": {"type": "string"}, "description": text}
        for name, text in parameters
    ]


_IF_MATCH = ("If-Match", "Only if the object's entity tag is one of these; `*`: only if there is one.")
_IF_UNMODIFIED = ("If-Unmodified-Since", "Only if it did not change since.")
_PUT: dict[str, Any] = {
    "parameters": _documented(
        _IF_MATCH,
        ("If-None-Match", "`*`: only if there is no such object yet."),
        _IF_UNMODIFIED,
        ("Content-MD5", "The body's MD5 in base64; another body is refused and not stored."),
        ("Repr-Digest", "The body's digest, `sha-256=:BASE64:` or `sha-512=:BASE64:` (RFC 9530), likewise."),
    ),
    "requestBody": {
        "required": True,
        "description": "The object's bytes, streamed. `Content-Type` is stored if Framegate serves that type.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
}
_STORED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "It is stored.",
        "headers": {"ETag": {"description": "The stored object's entity tag.", "schema": {"type": "string"}}},
    }
}


@router.put(
    "/objects/{key:key}",
    summary="Write an object",
    response_class=Response,
    responses={**_STORED, **problems(401, 403, 404, 408, 409, 412, 413, 415, 422, *BUCKET)},
    openapi_extra=_PUT,
    max_body_size=NO_LIMIT,
)
async def put_object(
    storage_id: StorageId, key: Key, caller: Caller, services: OpenServices, request: Request
) -> Response:
    """Store an object as it streams in, or replace it; a body that breaks off stores nothing.

    Above 8 MiB the bucket takes it in parts, which are removed again if anything goes wrong. The storage's
    credential must be allowed to write.
    """
    upload = upload_of(request.scope)
    async with aclosing(body_of(request.receive, services.settings.idle_timeout_s)) as body:
        etag = await services.uploads.put(caller, storage_id, upload, body)
    headers: Headers = [(b"content-length", b"0"), (b"cache-control", b"no-store")]
    return Sent(Reply(200, headers + ([] if etag is None else [(b"etag", etag.encode("latin-1"))])))


@router.delete(
    "/objects/{key:key}",
    status_code=204,
    summary="Delete an object",
    response_description="It is deleted.",
    responses=problems(401, 403, 404, 409, 412, 422, *BUCKET),
    openapi_extra={"parameters": _documented(_IF_MATCH, _IF_UNMODIFIED)},
)
async def delete_object(
    storage_id: StorageId, key: Key, caller: Caller, services: OpenServices, request: Request
) -> None:
    """Delete an object in the bucket, a manifest's too; what was registered of it stays as it is."""
    conditions = conditional.parse_write(_joined(request.scope))
    await services.uploads.delete(caller, storage_id, key_of(request.scope), conditions)


def upload_of(scope: Scope) -> Upload:
    """Read what a request says of its body.

    Raises `InvalidInputError` (conditions, digests), `UnsupportedCodingError`, `MalformedRequestError`.
    """
    headers = _joined(scope)
    if b"content-range" in headers:
        raise MalformedRequestError("An object is written as a whole: leave Content-Range out.")
    coding = headers.get(b"content-encoding", b"identity").strip().lower()
    if coding not in {b"identity", b""}:
        raise UnsupportedCodingError("Send the object as it is, without Content-Encoding.")
    length, kind = headers.get(b"content-length"), headers.get(b"content-type")
    return Upload(
        key_of(scope),
        None if kind is None else kind.decode("latin-1"),
        int(length) if length is not None and length.isdigit() else None,
        conditional.parse_write(headers),
        digests_of(headers),
    )


async def body_of(receive: Receive, patience_s: float) -> AsyncGenerator[bytes]:
    """Give a body's pieces as the server has them; `patience_s` is how long the client may send nothing.

    Raises `IncompleteBodyError` where the client goes away before the end.
    """
    while True:
        try:
            async with asyncio.timeout(patience_s):
                message = await receive()
        except TimeoutError:
            raise IncompleteBodyError(f"Nothing of the body came for {patience_s:g} s.") from None
        if message["type"] == "http.disconnect":
            raise IncompleteBodyError("The client went away in the middle of the body.")
        if piece := message.get("body", b""):
            yield piece
        if not message.get("more_body", False):
            return


def _joined(scope: Scope) -> Mapping[bytes, bytes]:
    """Give the headers that a write reads; repeated ones joined, as lists are (RFC 9110 section 5.3)."""
    found: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in _HEADERS:
            found[name] = found[name] + b", " + value if name in found else value
    return found
