"""The short way for byte requests: a raw ASGI app ahead of FastAPI, calling the same functions as its routes."""

from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.delivery import (
    IMAGE_PATH,
    LARGEST_ID,
    OBJECT_PATH,
    image_reply,
    object_reply,
    request_of,
)
from app.api.failures import reply_to_failure
from app.api.replies import Reply, send_reply
from app.lifespan import services_of


class Lane:
    """Answers GET and HEAD of objects and images by itself; everything else passes through."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] not in {"GET", "HEAD"} or scope.get("root_path"):
            return await self._app(scope, receive, send)
        reply = await _reply(scope)
        if reply is None:
            return await self._app(scope, receive, send)
        return await send_reply(reply, receive, send)


async def _reply(scope: Scope) -> Reply | None:
    path = scope["raw_path"]
    found = OBJECT_PATH.fullmatch(path)
    image = None if found else IMAGE_PATH.fullmatch(path)
    match = found or image
    if match is None or int(match[1]) not in range(1, LARGEST_ID + 1):
        return None
    scope["route_name"] = "object" if found else "image"
    try:
        services, request = services_of(scope), request_of(scope)
        if found:
            return await object_reply(services, request, int(found[1]), found[2])
        return await image_reply(services, request, int(match[1]), int(match[2]))
    except Exception as error:
        return reply_to_failure(error, scope)
