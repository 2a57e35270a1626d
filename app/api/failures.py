"""From any exception of a request to its problem, for the lane and for FastAPI alike."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import compile_path
from starlette.types import Scope

from app.api.faults import faults_of
from app.api.problems import HTTP_PROBLEMS, reply_to, reply_with
from app.api.replies import Headers, Reply, Sent
from app.errors import DatabaseUnavailableError, FramegateError, InvalidInputError, StorageError
from app.lifespan import Services, services_of

_log = structlog.get_logger(__name__)

# What pydantic calls a body that is no JSON, or not JSON by its Content-Type.
_NO_JSON = "json_invalid"
_DETAILS = {
    404: "There is nothing at this path.",
    405: "This method is not served here.",
    400: "The request cannot be read.",
}


def reply_to_failure(error: Exception, scope: Scope) -> Reply:
    """Give the answer to whatever went wrong on FastAPI's way."""
    request_id = scope["request_id"]
    match error:
        case RequestValidationError():
            return _invalid(error, scope)
        case HTTPException():
            problem = HTTP_PROBLEMS.get(error.status_code, HTTP_PROBLEMS[400])
            detail = _DETAILS.get(error.status_code, str(error.detail))
            return reply_with(problem, detail, request_id, _raw(error.headers))
    return problem_of(error, request_id, services_of(scope))


def problem_of(error: Exception, request_id: str, services: Services) -> Reply:
    """Give the answer to what a service raised; only our own faults are logged as errors."""
    if isinstance(error, FramegateError):
        _note(error, request_id, services)
        return reply_to(error, request_id)
    _log.error("internal_error", request_id=request_id, exc_info=error)
    return reply_with(HTTP_PROBLEMS[500], "The fault is ours; it was logged.", request_id)


def install(app: FastAPI) -> None:
    """Let every exception of a FastAPI app become a problem."""

    async def handle(request: Request, error: Exception) -> Response:
        served = _served(app, request.scope["path"])
        if served and request.method not in served:
            error = HTTPException(405)
        reply = reply_to_failure(error, request.scope)
        if reply.status == 405 and served:
            reply.headers[:] = [pair for pair in reply.headers if pair[0] != b"allow"]
            reply.headers.append((b"allow", ", ".join(sorted(served)).encode()))
        return Sent(reply)

    for kind in (RequestValidationError, HTTPException, FramegateError, Exception):
        app.add_exception_handler(kind, handle)


def _served(app: FastAPI, path: str) -> set[str]:
    """Give every method that a documented path is served by.

    The router knows those of its first route alone, and takes `/v1/storages/probe` for a storage, too.
    """
    paths = app.openapi()["paths"]
    templates = [path] if path in paths else [one for one in paths if _pattern(one).match(path)]
    return {method.upper() for template in templates for method in paths[template]}


@cache
def _pattern(template: str) -> re.Pattern[str]:
    return compile_path(template.replace("{key}", "{key:key}"))[0]


def _note(error: FramegateError, request_id: str, services: Services) -> None:
    if isinstance(error, StorageError):
        services.metrics.refused(error)
        if error.state != "available":
            _log.warning(
                "storage_refused",
                request_id=request_id,
                error=type(error).__name__,
                detail=str(error),
            )
    elif isinstance(error, DatabaseUnavailableError):
        _log.warning("database_unavailable", request_id=request_id)


def _invalid(error: RequestValidationError, scope: Scope) -> Reply:
    request_id = scope["request_id"]
    errors = error.errors()
    if any(one["loc"][0] == "path" for one in errors):
        return reply_with(HTTP_PROBLEMS[404], "There is nothing at this path.", request_id)
    if any(one["type"] == _NO_JSON for one in errors):
        return reply_with(HTTP_PROBLEMS[400], "The body is not JSON.", request_id)
    if any(tuple(one["loc"]) == ("body",) for one in errors) and not _says_json(scope):
        return reply_with(
            HTTP_PROBLEMS[415], "Send JSON, and say so: Content-Type: application/json.", request_id
        )
    return reply_to(InvalidInputError(*faults_of(errors)), request_id)


def _says_json(scope: Scope) -> bool:
    said = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    essence = said.partition(b";")[0].strip().lower()
    return essence in {b"application/json", b"application/merge-patch+json"}


def _raw(headers: Mapping[str, Any] | None) -> Headers:
    return [(name.lower().encode(), str(value).encode("latin-1")) for name, value in (headers or {}).items()]
