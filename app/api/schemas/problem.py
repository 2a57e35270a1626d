"""RFC 9457 problems as the OpenAPI document shows them."""

from typing import Any

from pydantic import ConfigDict

from app.api.schemas.fields import View

_DESCRIPTIONS = {
    400: "The request cannot be read, or its host is not served here.",
    401: "A valid token is needed.",
    403: "This is not allowed.",
    404: "There is no such thing, or not for you.",
    405: "This method is not served here.",
    409: "This contradicts the present state.",
    410: "The manifest has a newer revision.",
    412: "A condition of the request does not hold.",
    413: "The body is too large.",
    415: "The body must be JSON.",
    416: "No byte of that range exists.",
    422: "Understood, but not valid; `errors` points at each field at fault.",
    429: "Your share is used up; `Retry-After` says when to come again.",
    500: "Something went wrong in Framegate.",
    502: "The bucket refused us, or failed.",
    503: "The bucket is too busy, or the database is gone; `Retry-After` says when to come again.",
    504: "The bucket did not answer in time.",
}
MEDIA_TYPE = "application/problem+json"


class FaultView(View):
    """One field at fault."""

    pointer: str
    """RFC 6901 into the body, or `query:NAME`, `header:NAME`."""
    detail: str


class ProblemView(View):
    """What went wrong (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str
    """`/problems/<slug>`; each is documented in docs/problems.md."""
    title: str
    status: int
    detail: str
    instance: str
    """`urn:framegate:request:<id>`, the id in `X-Request-Id`."""
    errors: list[FaultView] | None = None


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Give the documentation of these problem statuses, and of those that any operation can answer."""
    schema = {"$ref": "#/components/schemas/ProblemView"}
    return {
        status: {"description": _DESCRIPTIONS[status], "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in sorted({400, 500, 503, *statuses})
    }


BUCKET = (502, 503, 504)
"""What an attached bucket may come to."""
