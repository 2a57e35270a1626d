"""Joins routers, problem handlers and the edge into one ASGI app; no logic."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Lifespan

from app import __version__, log
from app.api import (
    access,
    chunks,
    docs,
    failures,
    frames,
    health,
    jobs,
    manifests,
    objects,
    previews,
    storages,
    uploads,
)
from app.api.edge import Edge
from app.api.expect import Expect
from app.api.lane import Lane
from app.api.openapi import DESCRIPTION, TAGS, document
from app.lifespan import open_services
from app.log import AccessLog
from app.metrics import Metrics
from app.settings import Settings


def create_app(settings: Settings | None = None, *, lane: bool = True) -> ASGIApp:
    """Make the service's ASGI app; nothing is opened before its lifespan begins.

    The lifespan's state holds the lane that `app.api.wire.LaneProtocol` looks for. Under another server, or
    without `lane`, byte requests take FastAPI's long way to the same functions.
    """
    settings = settings or Settings.read()
    log.configure(settings.log_level, settings.log_format)
    metrics = Metrics()
    access_log = AccessLog(settings.log_level, settings.log_format)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with open_services(settings, metrics) as services:
            yield {"services": services} | ({"lane": Lane(edge, services)} if lane else {})
        access_log.flush()
        metrics.flush()

    edge = Edge(Expect(_api(settings, lifespan)), settings, metrics, access_log)
    return edge


def _api(settings: Settings, lifespan: Lifespan[FastAPI]) -> FastAPI:
    api = FastAPI(
        title="Framegate",
        version=__version__,
        description=DESCRIPTION,
        openapi_tags=TAGS,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
        separate_input_output_schemas=False,
        max_body_size=settings.max_body_bytes,
    )
    for part in (
        storages,
        previews,
        objects,
        uploads,
        manifests,
        frames,
        chunks,
        jobs,
        access,
        health,
        docs,
    ):
        api.include_router(part.router)
    failures.install(api)
    api.openapi = lambda: document(api)  # type: ignore[method-assign]  # FastAPI's own hook for this
    return api
