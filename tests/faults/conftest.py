"""A service whose bucket lies behind a proxy that breaks, and readers that notice every lie."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Protocol

import httpx
import pytest

from tests.api.conftest import Service, running, s3_body, service_settings
from tests.faults.process import Serving
from tests.servers.fault_proxy import FaultProxy
from tests.servers.postgres import PostgresServer
from tests.servers.s3 import S3Bucket, S3Server

SMALL_BYTES = 100_000
"""Read whole before the answer begins."""
LONG_BYTES = 1_000_000
"""Streamed."""


def pattern(size_bytes: int, seed: int = 0) -> bytes:
    """Bytes in which no two places look alike, so that a hole or a mixture shows; the same every time."""
    return Random(seed).randbytes(size_bytes)


@dataclass(frozen=True, slots=True)
class Taken:
    """What a reader got; `whole` is False when the connection broke before the promised end."""

    status: int
    headers: httpx.Headers
    body: bytes
    whole: bool

    @property
    def slug(self) -> str:
        """The problem's slug; empty for what is no problem."""
        if self.headers.get("content-type") != "application/problem+json":
            return ""
        found = httpx.Response(self.status, content=self.body).json()
        assert found["status"] == self.status
        return str(found["type"]).removeprefix("/problems/")


async def take(reader: httpx.AsyncClient, path: str, **headers: str) -> Taken:
    """Read an answer to its end, or to where it breaks."""
    body = bytearray()
    async with reader.stream("GET", path, headers=headers) as answer:
        try:
            async for chunk in answer.aiter_raw():
                body += chunk
        except (httpx.RemoteProtocolError, httpx.ReadError):
            return Taken(answer.status_code, answer.headers, bytes(body), whole=False)
    return Taken(answer.status_code, answer.headers, bytes(body), whole=True)


async def eventually(holds: Callable[[], bool], seconds: float = 15) -> None:
    """Wait until something holds; the time is only there to end a test that would hang."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.02)


@dataclass
class Site:
    """A service, one bucket attached to it through a proxy, and the path of the bucket's objects."""

    service: Service
    proxy: FaultProxy
    bucket: S3Bucket
    storage_id: int

    @property
    def objects(self) -> str:
        """The path that keys are put behind."""
        return f"/v1/storages/{self.storage_id}/objects"

    async def take(self, key: str, **headers: str) -> Taken:
        """Read an object as the admin."""
        return await take(self.service.admin, f"{self.objects}/{key}", **headers)


class OpenSite(Protocol):
    """Opens a site; `lane` off sends byte requests the long way."""

    def __call__(self, *, lane: bool = True, **settings: Any) -> AbstractAsyncContextManager[Site]: ...


Serve = Callable[..., AbstractAsyncContextManager[Serving]]


def behind(proxy: FaultProxy, bucket: S3Bucket, **more: Any) -> dict[str, Any]:
    """A body that attaches a bucket through a proxy."""
    body = s3_body(bucket, **more)
    body["source"]["endpoint_url"] = proxy.url()
    return body


@pytest.fixture(scope="module")
def open_site(
    postgres: PostgresServer, migrated_template: str, s3: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> OpenSite:
    """Open sites that a module's tests share, with settings of their own: `async with open_site(lane=True)`."""

    @asynccontextmanager
    async def open_one(*, lane: bool = True, **overrides: Any) -> AsyncIterator[Site]:
        async with AsyncExitStack() as stack:
            url = await stack.enter_async_context(postgres.database(migrated_template))
            bucket = await stack.enter_async_context(s3.bucket())
            proxy = await stack.enter_async_context(FaultProxy.before(s3.endpoint_url))
            settings = service_settings(url, tmp_path_factory.mktemp("data"), **overrides)
            service = await stack.enter_async_context(running(settings, lane=lane))
            yield Site(service, proxy, bucket, await service.attach(behind(proxy, bucket)))

    return open_one


@pytest.fixture
def serve(database_url: str, tmp_path: Path) -> Serve:
    """Run `framegate serve` as a process of its own: `async with serve(grace_s=2) as process`."""
    return lambda **settings: Serving.run(database_url, tmp_path, **settings)
