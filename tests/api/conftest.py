"""The whole service on a real socket: PostgreSQL below it, S3 and Azure beside it."""

import asyncio
import base64
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest
import pytest_asyncio
import uvicorn

from app.api.wire import LaneProtocol
from app.db.session import Database
from app.main import create_app
from app.services.access import issue_token
from app.settings import Settings
from app.system import answer_at_once
from tests.servers.azurite import AzureContainer
from tests.servers.s3 import S3Bucket


@dataclass
class Service:
    """A running service, and a client that is its admin."""

    url: str
    settings: Settings
    admin: httpx.AsyncClient
    server: uvicorn.Server

    async def token(self, name: str, role: Any = None) -> str:
        """Make a token of a user, as the command line does."""
        assert self.settings.database_url is not None
        database = Database(self.settings.database_url, pool_size=1)
        try:
            return (await issue_token(database, name, role, None)).text
        finally:
            await database.aclose()

    @asynccontextmanager
    async def user(self, name: str, role: Any = None) -> AsyncIterator[httpx.AsyncClient]:
        """A client of another user."""
        async with client(self.url, await self.token(name, role)) as one:
            yield one

    async def attach(self, body: dict[str, Any], **more: Any) -> int:
        """Attach a storage and give its id."""
        answer = await self.admin.post("/v1/storages", json=body | more)
        assert answer.status_code == 201, answer.text
        return int(answer.json()["id"])

    async def register(self, storage_id: int, key: str) -> dict[str, Any]:
        """Attach a manifest, wait for it, and give it."""
        path = f"/v1/storages/{storage_id}/manifests"
        answer = await self.admin.post(path, json={"key": key}, headers={"Prefer": "wait=30"})
        assert answer.status_code in {200, 201}, answer.text
        return dict(answer.json()["manifest"])


def client(url: str, token: str | None = None) -> httpx.AsyncClient:
    """A client with or without a token; no proxy of the environment is used."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=60, trust_env=False)


class StartService(Protocol):
    """Starts a service; `lane` off sends byte requests the long way."""

    def __call__(self, *, lane: bool = True, **settings: Any) -> AbstractAsyncContextManager[Service]: ...


@pytest.fixture
def start_service(database_url: str, tmp_path: Path) -> StartService:
    """Start services on this test's database with other settings."""

    @asynccontextmanager
    async def start(*, lane: bool = True, **overrides: Any) -> AsyncIterator[Service]:
        settings = service_settings(database_url, tmp_path, **overrides)
        async with running(settings, lane=lane) as service:
            yield service

    return start


def service_settings(database_url: str, data_dir: Path, **overrides: Any) -> Settings:
    """Settings for tests: every bucket lives on loopback."""
    key = base64.b64encode(os.urandom(32)).decode()
    values = {
        "database_url": database_url,
        "data_dir": data_dir,
        "secret_keys": f"k1:{key}",
        "allowed_private_endpoints": "127.0.0.0/8",
        "log_format": "json",
        "grace_s": 2,
        # Most tests look at what a bucket is asked; those of hot objects switch the memory on.
        "cache_bytes": 0,
    }
    return Settings.read(_env_file=None, **(values | overrides))


@asynccontextmanager
async def running(settings: Settings, *, lane: bool = True) -> AsyncIterator[Service]:
    """Run a service on a free port of loopback, in this event loop."""
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listening:
        answer_at_once(listening)
        config = uvicorn.Config(
            create_app(settings, lane=lane),
            http=LaneProtocol,
            ws="none",
            log_config=None,
            access_log=False,
            lifespan="on",
            timeout_graceful_shutdown=round(settings.grace_s),
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.005)
        assert server.started, "the service did not start"
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        service = Service(url, settings, client(url), server)
        service.admin.headers["Authorization"] = f"Bearer {await service.token('root', 'admin')}"
        try:
            yield service
        finally:
            await service.admin.aclose()
            server.should_exit = True
            await serving


@pytest_asyncio.fixture
async def service(start_service: StartService) -> AsyncIterator[Service]:
    """A running service."""
    async with start_service() as one:
        yield one


WAYS: dict[str, dict[str, Any]] = {
    "lane": {"lane": True},
    "fastapi": {"lane": False},
    "memory": {"lane": True, "cache_bytes": 10_000_000, "cache_max_age_s": 0},
}


@pytest_asyncio.fixture(params=WAYS.values(), ids=WAYS)
async def both_ways(request: pytest.FixtureRequest, start_service: StartService) -> AsyncIterator[Service]:
    """A running service: with the lane, without it, and with hot objects in memory; bytes may not differ."""
    async with start_service(**request.param) as one:
        yield one


def s3_source(bucket: S3Bucket, /, **more: Any) -> dict[str, Any]:
    """How a test bucket is described to Framegate."""
    keys = bucket.server.admin
    auth = {
        "type": "key_pair",
        "access_key_id": keys.access_key_id,
        "secret_access_key": keys.secret_access_key,
    }
    return {
        "provider": "s3",
        "bucket": bucket.name,
        "endpoint_url": bucket.server.endpoint_url,
        "auth": auth,
    } | more


def s3_body(bucket: S3Bucket, /, **more: Any) -> dict[str, Any]:
    """A body that attaches a test bucket."""
    return {"display_name": "Pets", "source": s3_source(bucket)} | more


def azure_source(container: AzureContainer, auth: dict[str, Any] | None = None) -> dict[str, Any]:
    """How a test container is described to Framegate."""
    server = container.server
    return {
        "provider": "azure",
        "container": container.name,
        "account_name": server.account_name,
        "endpoint_url": server.endpoint_url,
        "auth": auth or {"type": "account_key", "account_key": server.account_key},
    }
