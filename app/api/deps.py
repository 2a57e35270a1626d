"""What a handler may ask for, as annotated types; the only reader of the request's state."""

import re
from typing import Annotated

from fastapi import Depends, Header, Path, Query, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BeforeValidator

from app.api.schemas.fields import checked
from app.errors import UnauthenticatedError
from app.lifespan import Services, services_of
from app.services.access import Principal
from app.services.cursors import LONGEST_CURSOR
from app.storage.keys import prefix_fault

bearer_scheme = HTTPBearer(
    auto_error=False,
    scheme_name="token",
    description="A token of Framegate (`fg_...`), from `framegate token create` or `POST /v1/tokens`.",
)


def services(request: Request) -> Services:
    """Give the services of this process."""
    return services_of(request.scope)


OpenServices = Annotated[Services, Depends(services)]


async def principal(
    services: OpenServices,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(bearer_scheme)],
) -> Principal:
    """Give the caller; raises `UnauthenticatedError`."""
    if credentials is None:
        raise UnauthenticatedError("This needs a token: Authorization: Bearer fg_...")
    return await services.access.authenticate(credentials.credentials)


Caller = Annotated[Principal, Depends(principal)]


def _plain_digits(value: object) -> object:
    """Refuse the other spellings that pydantic takes for an int, such as `1.0`, `+1` and `1_0`."""
    if isinstance(value, str) and not re.fullmatch(r"[0-9]{1,19}", value):
        raise ValueError("this is no plain number")
    return value


LARGEST_ID = 2**63 - 1
PlainInt = Annotated[int, BeforeValidator(_plain_digits)]
StorageId = Annotated[PlainInt, Path(ge=1, le=LARGEST_ID, description="A storage's id.")]
ManifestId = Annotated[PlainInt, Path(ge=1, le=LARGEST_ID, description="A manifest's id.")]
TokenId = Annotated[PlainInt, Path(ge=1, le=LARGEST_ID, description="A token's id.")]

Limit = Annotated[int, Query(ge=1, le=1000, description="How many items a page has at most.")]
Cursor = Annotated[
    str | None,
    Query(
        max_length=LONGEST_CURSOR, description="The last page's `next_cursor`; left out for the first page."
    ),
]
KeyPrefix = Annotated[str, Query(description="Only keys that begin with this."), checked(prefix_fault)]
IfMatch = Annotated[
    str | None, Header(description="Only if the entity tag is one of these (RFC 9110 section 13.1.1).")
]
Prefer = Annotated[
    str | None, Header(description="`wait=N`: wait up to N (at most 60) seconds for the work (RFC 7240).")
]
