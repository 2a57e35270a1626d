"""A browser before a storage that redirects: what it sends along, and what the bucket must allow."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest_asyncio
from aiohttp import web
from azure.storage.blob import CorsRule
from playwright.async_api import Page, Request

from tests.api.conftest import Service, StartService, azure_source, s3_body
from tests.servers.azurite import AzureContainer
from tests.servers.s3 import S3Bucket

PICTURE = bytes.fromhex(
    "47494638396101000100800000ffffff00000021f90401000000002c00000000010001000002024401003b"
)
"""A GIF of one pixel."""

FETCH = """async ([url, token]) => {
    try {
        const answer = await fetch(url, {headers: {Authorization: `Bearer ${token}`}});
        return [answer.status, answer.redirected, (await answer.arrayBuffer()).byteLength];
    } catch (error) { return String(error); }
}"""
SHOW = """url => new Promise(done => {
    const image = new Image();
    image.onload = () => done(image.naturalWidth);
    image.onerror = () => done("refused");
    image.src = url;
})"""


@asynccontextmanager
async def tool() -> AsyncIterator[str]:
    """A web application of somebody else: an empty page at an origin of its own."""

    async def page(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text="<!doctype html><title>tool</title>", content_type="text/html")

    runner = web.ServerRunner(web.Server(page), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest_asyncio.fixture
async def reading(page: Page) -> AsyncIterator["Reading"]:
    """A page of the tool, and a service that lets its origin read."""
    async with tool() as origin:
        await page.goto(origin)
        yield Reading(page, origin)


class Reading:
    """Reads as the tool's scripts do, and writes down what the browser asked for."""

    def __init__(self, page: Page, origin: str) -> None:
        self.page = page
        self.origin = origin
        self._asked: list[Request] = []
        page.on("request", self._note)

    def _note(self, request: Request) -> None:
        self._asked.append(request)

    async def fetch(self, service: Service, storage: int) -> object:
        """Fetch the picture with the token; gives status, whether redirected and length, or the error."""
        token = service.admin.headers["authorization"].removeprefix("Bearer ")
        url = f"{service.url}/v1/storages/{storage}/objects/a.gif"
        return await self.page.evaluate(FETCH, [url, token])

    async def headers_of_last(self) -> dict[str, str]:
        """The headers of the last request."""
        return await self._asked[-1].all_headers()


async def test_a_script_follows_without_its_token_or_its_origin(
    reading: Reading, start_service: StartService, s3_bucket: S3Bucket
) -> None:
    await s3_bucket.put("a.gif", PICTURE, "image/gif")
    async with start_service(cors_origins=reading.origin) as service:
        storage = await service.attach(s3_body(s3_bucket), delivery="redirect")
        assert await reading.fetch(service, storage) == [200, True, len(PICTURE)]
    sent = await reading.headers_of_last()
    assert sent["host"] == s3_bucket.server.endpoint_url.removeprefix("http://")
    assert "authorization" not in sent
    assert "referer" not in sent
    assert sent["origin"] == "null", "the how-to says so: the bucket must allow any origin"


async def test_a_page_of_framegates_own_origin_keeps_it(
    reading: Reading, service: Service, s3_bucket: S3Bucket
) -> None:
    await s3_bucket.put("a.gif", PICTURE, "image/gif")
    storage = await service.attach(s3_body(s3_bucket), delivery="redirect")
    await reading.page.goto(f"{service.url}/livez")
    assert await reading.fetch(service, storage) == [200, True, len(PICTURE)]
    assert (await reading.headers_of_last())["origin"] == service.url


async def test_a_picture_of_a_signed_url_needs_no_cors_at_all(
    reading: Reading, start_service: StartService, azure_container: AzureContainer
) -> None:
    await azure_container.put("a.gif", PICTURE, "image/gif")
    async with start_service() as service:
        body = {"display_name": "Azure", "source": azure_source(azure_container), "delivery": "redirect"}
        storage = await service.attach(body)
        signed = await service.admin.post("/v1/signed-urls", json={"storage_id": storage, "key": "a.gif"})
        assert await reading.page.evaluate(SHOW, signed.json()["url"]) == 1
    assert "referer" not in await reading.headers_of_last()


async def test_the_bucket_must_allow_any_origin(
    reading: Reading, start_service: StartService, azure_container: AzureContainer
) -> None:
    await azure_container.put("a.gif", PICTURE, "image/gif")
    async with start_service(cors_origins=reading.origin) as service:
        body = {"display_name": "Azure", "source": azure_source(azure_container), "delivery": "redirect"}
        storage = await service.attach(body)
        for allowed, read in (([], False), ([reading.origin], False), (["*"], True)):
            async with cors(azure_container, allowed):
                found = await reading.fetch(service, storage)
            assert (found == [200, True, len(PICTURE)]) == read, (allowed, found)


@asynccontextmanager
async def cors(container: AzureContainer, origins: list[str]) -> AsyncIterator[None]:
    """Let an account answer scripts of these origins."""
    async with container.server.client() as account:
        try:
            rules = [CorsRule(origins, ["GET", "HEAD"], allowed_headers=["*"])] if origins else []
            await account.set_service_properties(cors=rules)
            yield
        finally:
            await account.set_service_properties(cors=[])
