"""Routes of operation: alive, ready, and what was counted."""

import ipaddress
from typing import Annotated

from fastapi import APIRouter, Request, Response, Security
from fastapi.security import HTTPAuthorizationCredentials
from prometheus_client import CONTENT_TYPE_LATEST

from app.api.deps import OpenServices, bearer_scheme, principal
from app.api.schemas.fields import View
from app.api.schemas.problem import problems
from app.db.migrate import require_schema
from app.errors import ForbiddenError

router = APIRouter(tags=["Operation"])


class AliveAnswer(View):
    """The process answers."""

    status: str = "ok"


@router.get("/livez", summary="Alive?", response_description="It is alive.")
async def livez() -> AliveAnswer:
    """Tell that the process is alive; asks nothing else."""
    return AliveAnswer()


@router.get(
    "/readyz", summary="Ready?", response_description="Requests can be answered.", responses=problems(503)
)
async def readyz(services: OpenServices) -> AliveAnswer:
    """Tell whether requests can be answered: the database answers and its schema is ours."""
    await require_schema(services.database)
    return AliveAnswer()


@router.get(
    "/metrics",
    summary="Read the counters",
    response_class=Response,
    responses={
        200: {"description": "Prometheus text format.", "content": {"text/plain": {}}},
        **problems(401, 403),
    },
    openapi_extra={"security": [{}]},
)
async def metrics(
    services: OpenServices,
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(bearer_scheme)],
) -> Response:
    """Give the counters of all workers together; wants an admin's token unless asked from loopback."""
    if not _is_local(request):
        caller = await principal(services, credentials)
        if caller.role != "admin":
            raise ForbiddenError("Only an admin may read the metrics from elsewhere.")
    return Response(services.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


def _is_local(request: Request) -> bool:
    """Tell whether the asker is on this machine; what a proxy passed on is not, though it comes from loopback."""
    if any(name in request.headers for name in ("forwarded", "x-forwarded-for", "x-real-ip")):
        return False
    try:
        return request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
