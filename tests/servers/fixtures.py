"""The servers as fixtures. Session fixtures start at their first use, one server per test process."""

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from tests.servers import azurite as azurite_server
from tests.servers import postgres as postgres_server
from tests.servers import s3 as s3_servers
from tests.servers.azurite import AzureContainer, AzureServer
from tests.servers.chromium import Chromium, find_chromium
from tests.servers.fault_proxy import FaultProxy
from tests.servers.postgres import PostgresServer
from tests.servers.s3 import S3Bucket, S3Server

OpenProxy = Callable[..., Awaitable[FaultProxy]]


@pytest.fixture(scope="session")
def servers_dir() -> Iterator[Path]:
    """A folder for the servers' data, gone at the end."""
    with tempfile.TemporaryDirectory(prefix="framegate-tests-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _folder(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture(scope="session")
def postgres(servers_dir: Path) -> Iterator[PostgresServer]:
    """A PostgreSQL server."""
    with postgres_server.postgres(_folder(servers_dir, "postgres")) as server:
        yield server


@pytest_asyncio.fixture(scope="session")
async def migrated_template(postgres: PostgresServer) -> str:
    """The name of a database with the newest schema, to be copied only."""
    return await postgres_server.make_template(postgres)


@pytest_asyncio.fixture
async def database_url(postgres: PostgresServer, migrated_template: str) -> AsyncIterator[str]:
    """The URL of this test's own migrated database, dropped after the test."""
    async with postgres.database(migrated_template) as url:
        yield url


@pytest_asyncio.fixture
async def empty_database_url(postgres: PostgresServer) -> AsyncIterator[str]:
    """The URL of this test's own database without any table, dropped after the test."""
    async with postgres.database() as url:
        yield url


@pytest.fixture(scope="session")
def s3(servers_dir: Path) -> Iterator[S3Server]:
    """SeaweedFS."""
    with s3_servers.seaweedfs(_folder(servers_dir, "s3")) as server:
        yield server


@pytest_asyncio.fixture
async def s3_bucket(s3: S3Server) -> AsyncIterator[S3Bucket]:
    """A fresh bucket in SeaweedFS."""
    async with s3.bucket() as bucket:
        yield bucket


@pytest.fixture(scope="session")
def rclone_s3(servers_dir: Path) -> Iterator[S3Server]:
    """`rclone serve s3`."""
    with s3_servers.rclone(_folder(servers_dir, "rclone")) as server:
        yield server


@pytest.fixture(scope="session")
def juicefs_s3(servers_dir: Path) -> Iterator[S3Server]:
    """JuiceFS's gateway."""
    with s3_servers.juicefs(_folder(servers_dir, "juicefs")) as server:
        yield server


@pytest.fixture(scope="session")
def azurite(servers_dir: Path) -> Iterator[AzureServer]:
    """Azurite."""
    with azurite_server.azurite(_folder(servers_dir, "azurite")) as server:
        yield server


@pytest_asyncio.fixture
async def azure_container(azurite: AzureServer) -> AsyncIterator[AzureContainer]:
    """A fresh private container in Azurite."""
    async with azurite.container() as container:
        yield container


@pytest.fixture(scope="session")
def chromium() -> Chromium:
    """A headless browser's program, environment and arguments."""
    return find_chromium()


@pytest_asyncio.fixture(scope="session")
async def browser(chromium: Chromium) -> AsyncIterator[Browser]:
    """A running headless browser."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium.executable, args=list(chromium.arguments), env=chromium.environment
        )
        yield browser
        await browser.close()


@pytest_asyncio.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A fresh page that shares nothing with other tests' pages."""
    context = await browser.new_context()
    yield await context.new_page()
    await context.close()


@pytest_asyncio.fixture
async def fault_proxy() -> AsyncIterator[OpenProxy]:
    """Opens misbehaving proxies: `await fault_proxy(server.endpoint_url)`; `raw=True` for other than HTTP."""
    async with AsyncExitStack() as stack:

        async def open_proxy(url: str, *, raw: bool = False) -> FaultProxy:
            return await stack.enter_async_context(FaultProxy.before(url, raw=raw))

        yield open_proxy
