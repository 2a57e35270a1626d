"""Routes of access: who you are, your tokens, and signed URLs."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Body, Request, Response

from app.api.deps import Caller, Cursor, Limit, OpenServices, TokenId
from app.api.links import absolute
from app.api.schemas.access import (
    SIGNED_URL_EXAMPLES,
    MeAnswer,
    NewTokenAnswer,
    SignedUrlAnswer,
    SignedUrlBody,
    TokenAnswer,
    TokenBody,
    token_facts,
)
from app.api.schemas.fields import Page
from app.api.schemas.problem import problems
from app.lifespan import Services
from app.services import cursors
from app.services.access import Principal, parse_lifetime
from app.services.signed_urls import expiry

router = APIRouter(prefix="/v1", tags=["Access"])

_TOKEN_EXAMPLES = {"month": {"summary": "For a month", "value": {"name": "laptop", "expires": "30d"}}}


@router.get("/me", summary="Show who you are", response_description="You.", responses=problems(401))
async def get_me(caller: Caller) -> MeAnswer:
    """Show the user and the role that your token stands for."""
    return MeAnswer(id=caller.user_id, name=caller.name, role=caller.role, token_id=caller.token_id)


@router.post(
    "/tokens",
    status_code=201,
    summary="Make a token",
    response_description="The token, shown this once.",
    responses=problems(401, 413, 415, 422),
)
async def create_token(
    body: Annotated[TokenBody, Body(openapi_examples=_TOKEN_EXAMPLES)],
    caller: Caller,
    services: OpenServices,
    response: Response,
) -> NewTokenAnswer:
    """Make a further token of your own, such as one for each machine; only its hash is kept."""
    lifetime = None if body.expires is None else parse_lifetime(body.expires)
    response.headers["Cache-Control"] = "no-store"
    return NewTokenAnswer.made(await services.access.create_token(caller, body.name or "", lifetime))


@router.get(
    "/tokens",
    summary="List your tokens",
    response_description="One page of tokens.",
    responses=problems(401, 422),
)
async def list_tokens(
    caller: Caller, services: OpenServices, cursor: Cursor = None, limit: Limit = 100
) -> Page[TokenAnswer]:
    """List your tokens that were not revoked; the tokens themselves are not shown again."""
    after = 0 if cursor is None else cursors.decode_id(cursor)
    rows = await services.access.list_tokens(caller, after, limit + 1)
    items = [TokenAnswer.model_validate(token_facts(row)) for row in rows[:limit]]
    return Page(items=items, next_cursor=cursors.encode(items[-1].id) if len(rows) > limit else None)


@router.delete(
    "/tokens/{token_id}",
    status_code=204,
    summary="Revoke a token",
    response_description="It is revoked.",
    responses=problems(401, 404),
)
async def revoke_token(token_id: TokenId, caller: Caller, services: OpenServices) -> None:
    """Revoke a token, and with it every URL that it signed."""
    await services.access.revoke_token(caller, token_id)


@router.post(
    "/signed-urls",
    status_code=201,
    summary="Sign a URL",
    response_description="The URL and when it ends.",
    responses=problems(401, 404, 409, 413, 415, 422),
)
async def create_signed_url(
    body: Annotated[SignedUrlBody, Body(openapi_examples=SIGNED_URL_EXAMPLES)],
    caller: Caller,
    services: OpenServices,
    request: Request,
    response: Response,
) -> SignedUrlAnswer:
    """Make a URL that reads one object without a token, such as in an `<img>`; GET and HEAD only.

    With `width`, `height` or `format` it reads that smaller picture, and nothing else.
    """
    storage_id, key = await _place(services, caller, body)
    expires_at = datetime.now(UTC) + timedelta(seconds=body.expires_in_s)
    link, signed = services.signer.sign_object(caller, storage_id, key, expires_at, body.rendition())
    response.headers["Cache-Control"] = "no-store"
    return SignedUrlAnswer(url=absolute(request, link), expires_at=expiry(signed))


async def _place(services: Services, caller: Principal, body: SignedUrlBody) -> tuple[int, str]:
    if body.manifest_id is not None and body.number is not None:
        place = await services.frames.locate(caller, body.manifest_id, body.number)
        return place.storage_id, place.key
    assert body.storage_id is not None  # noqa: S101 - the body's own rule: one way or the other
    assert body.key is not None  # noqa: S101
    await services.buckets.row_for(caller, body.storage_id)
    return body.storage_id, body.key
