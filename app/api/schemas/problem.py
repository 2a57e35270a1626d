"""RFC 9457 problems as the OpenAPI document shows them."""

from typing import Any

from pydantic import ConfigDict

from app.api.problems import HTTP_PROBLEMS, PROBLEMS
from app.api.schemas.fields import View

_DESCRIPTIONS = {
    400: "The request cannot be read, or its host is not served here.",
    401: "A valid token is needed.",
    403: "This is not allowed.",
    404: "There is no such thing, or not for you.",
    405: "This method is not served here.",
    408: "The body did not come to its end in time.",
    409: "This contradicts the present state.",
    410: "The manifest has a newer revision.",
    412: "A condition of the request does not hold.",
    413: "The body is too large.",
    415: "This kind of body is not taken: JSON is wanted, or an object without `Content-Encoding`.",
    416: "No byte of that range exists.",
    422: "Understood, but not valid; `errors` points at each field at fault.",
    429: "Your share is used up; `Retry-After` says when to come again.",
    500: "Something went wrong in Framegate.",
    502: "The bucket refused us, or failed.",
    503: "The bucket is too busy, or the database is gone; `Retry-After` says when to come again.",
    504: "The bucket did not answer in time.",
}
_TYPICAL = {
    400: "malformed-request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not-found",
    408: "body-incomplete",
    409: "conflict",
    410: "revision-gone",
    412: "precondition-failed",
    413: "body-too-large",
    415: "unsupported-media-type",
    416: "range-not-satisfiable",
    422: "invalid-request",
    429: "share-used-up",
    500: "internal-error",
    502: "storage-access-denied",
    503: "storage-throttled",
    504: "storage-timeout",
}
_MORE: dict[int, dict[str, Any]] = {
    410: {"current_revision": 2},
    416: {"size_bytes": 199_680},
    422: {
        "detail": "/source/bucket: There is no bucket of this name.",
        "errors": [{"pointer": "/source/bucket", "detail": "There is no bucket of this name."}],
    },
    502: {"remedy": "Check that the key is active and may list and read this bucket."},
}
_TITLES = {kind.slug: kind.title for kind in reversed([*HTTP_PROBLEMS.values(), *PROBLEMS.values()])}
MEDIA_TYPE = "application/problem+json"


class FaultView(View):
    """One field at fault."""

    pointer: str
    """RFC 6901 into the body, or `query:NAME`, `header:NAME`."""
    detail: str


class ProblemView(View):
    """What went wrong (RFC 9457); some kinds say more beside, such as `remedy` or `current_revision`."""

    model_config = ConfigDict(extra="allow")

    type: str
    """`/problems/<slug>`; each is documented in docs/problems.md."""
    title: str
    status: int
    detail: str
    instance: str
    """`urn:framegate:request:<id>`, the id in `X-Request-Id`."""
    errors: list[FaultView] | None = None
    """Of a 422: each field at fault."""


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Give the documentation of these problem statuses, and of those that any operation can answer."""
    schema = {"$ref": "#/components/schemas/ProblemView"}
    return {
        status: {
            "description": _DESCRIPTIONS[status],
            "content": {MEDIA_TYPE: {"schema": schema, "example": _example(status)}},
        }
        for status in sorted({400, 500, 503, *statuses})
    }


def _example(status: int) -> dict[str, Any]:
    slug = _TYPICAL[status]
    return {
        "type": f"/problems/{slug}",
        "title": _TITLES[slug],
        "status": status,
        "detail": _DESCRIPTIONS[status].partition(";")[0].rstrip(".") + ".",
        "instance": "urn:framegate:request:5f0c9e1a-2b",
        **_MORE.get(status, {}),
    }


BUCKET = (429, 502, 503, 504)
"""What an attached bucket may come to."""
