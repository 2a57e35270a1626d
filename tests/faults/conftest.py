"""A service whose bucket lies behind a proxy that breaks, and readers that notice every lie."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, Protocol, cast

import httpx
import pytest
import pytest_asyncio

from app.lifespan import Services
from app.storage import retries
from app.storage.bucket import Bucket
from app.storage.retries import RetryBudget
from tests.api.conftest import Service, running, s3_body, service_settings
from tests.faults.fake_bucket import FakeBucket, Saying, answer
from tests.faults.process import Serving
from tests.servers.fault_proxy import FaultProxy
from tests.servers.postgres import PostgresServer
from tests.servers.s3 import S3Bucket, S3Server

SMALL_BYTES = 100_000
"""Read whole before the answer begins."""
LONG_BYTES = 1_000_000
"""Streamed."""
IMPATIENT = {"first_byte_timeout_s": 1.5, "idle_timeout_s": 0.8}


def pattern(size_bytes: int, seed: int = 0) -> bytes:
    """Bytes in which no two places look alike, so that a hole or a mixture shows; the same every time."""
    return Random(seed).randbytes(size_bytes)


SMALL, LONG = pattern(SMALL_BYTES), pattern(LONG_BYTES, 1)
ONE_READER = 2
"""How many connections one reader at a time may leave open."""


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

    async def opened(self) -> Bucket:
        """The bucket as the service has it open."""
        services = cast("Services", self.service.server.lifespan.state["services"])
        return await services.buckets.open_stored(self.storage_id)

    async def forgive(self) -> None:
        """Give the bucket all its retries back, whatever the test before used up."""
        (await self.opened())._upstream._budget = RetryBudget()

    async def take(self, key: str, **headers: str) -> Taken:
        """Read an object as the admin."""
        return await take(self.service.admin, f"{self.objects}/{key}", **headers)


def assert_broken(got: Taken, whole: bytes) -> None:
    """The answer began, broke off visibly, and held nothing but the object's own first bytes."""
    assert (got.status, got.whole) == (200, False)
    assert got.headers["content-length"] == str(len(whole))
    assert whole.startswith(got.body)
    assert len(got.body) < len(whole)


async def assert_well(site: Site) -> None:
    """The next requests succeed, no connection is left behind, and no place at the bucket is taken."""
    site.proxy.heal()
    for key, whole in (("small.jpg", SMALL), ("long.jpg", LONG)):
        got = await site.take(key)
        assert (got.status, got.whole, got.body == whole) == (200, True, True)
    await eventually(lambda: site.proxy.connections_open <= ONE_READER)
    assert not (await site.opened()).busy


async def counted(reader: httpx.AsyncClient, metric: str) -> float:
    """Give what a counter stands at: `name{label="value"}`."""
    lines = (await reader.get("/metrics")).text.splitlines()
    return float(next(line for line in lines if line.startswith(f"{metric} ")).rpartition(" ")[2])


class OpenSite(Protocol):
    """Opens a site; `lane` off sends byte requests the long way."""

    def __call__(self, *, lane: bool = True, **settings: Any) -> AbstractAsyncContextManager[Site]: ...


class Lying:
    """One object of a bucket that answers as it is told to."""

    def __init__(self, site: Site, bucket: FakeBucket) -> None:
        self.site, self.bucket = site, bucket
        self.path = f"{site.objects}/a.jpg"

    async def take(
        self, *answers: Saying, closes: bool = False, head: Saying | None = None, **headers: str
    ) -> Taken:
        """Let the bucket answer so, and read the object."""
        self.bucket.say(*answers, closes=closes, head=head)
        return await take(self.site.service.admin, self.path, **headers)


Serve = Callable[..., AbstractAsyncContextManager[Serving]]


def behind(proxy: FaultProxy, bucket: S3Bucket, **more: Any) -> dict[str, Any]:
    """A body that attaches a bucket through a proxy."""
    body = s3_body(bucket, **more)
    body["source"]["endpoint_url"] = proxy.url()
    return body


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the pauses before retries be short."""
    monkeypatch.setattr(retries, "FIRST_PAUSE_S", 0.02)


@pytest.fixture(scope="package")
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


@pytest_asyncio.fixture(scope="package", params=[True, False], ids=["lane", "fastapi"])
async def impatient(request: pytest.FixtureRequest, open_site: OpenSite) -> AsyncIterator[Site]:
    """A site, once for each way of byte requests, with a small and a long object."""
    async with open_site(lane=request.param, **IMPATIENT) as one:
        await one.bucket.put("small.jpg", SMALL)
        await one.bucket.put("long.jpg", LONG)
        yield one


@pytest_asyncio.fixture
async def site(impatient: Site, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Site]:
    """The impatient site, without the faults of the test before; a bucket's fault is never logged as ours."""
    impatient.proxy.heal()
    await impatient.forgive()
    yield impatient
    impatient.proxy.heal()
    assert not [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR]


@pytest_asyncio.fixture(scope="package")
async def fake(impatient: Site) -> AsyncIterator[Lying]:
    """A bucket that says what it is told to say, attached beside the real one."""
    async with FakeBucket() as bucket:
        keys = {"type": "key_pair", "access_key_id": "AKIDEXAMPLE", "secret_access_key": "s" * 40}
        source = {"provider": "s3", "bucket": "pets", "endpoint_url": bucket.url, "auth": keys}
        storage_id = await impatient.service.attach({"display_name": "Liar", "source": source})
        yield Lying(replace(impatient, storage_id=storage_id), bucket)


@pytest_asyncio.fixture
async def lying(fake: Lying, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Lying]:
    """The fake bucket, with all its retries left; whatever it says is never logged as our fault."""
    await fake.site.forgive()
    fake.bucket.head = answer("404 Not Found")
    yield fake
    assert not [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    assert not (await fake.site.opened()).busy


@pytest.fixture
def serve(database_url: str, tmp_path: Path) -> Serve:
    """Run `framegate serve` as a process of its own: `async with serve(grace_s=2) as process`."""
    return lambda **settings: Serving.run(database_url, tmp_path, **settings)
