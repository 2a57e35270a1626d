"""Swagger UI and ReDoc in a real browser: they draw, from this host alone, and Swagger UI works."""

import io
import json
from typing import Any

import pytest
from PIL import Image
from playwright.async_api import ConsoleMessage, Locator, Page, expect

from tests.api.conftest import Service, s3_body
from tests.servers.s3 import S3Bucket

REFUSED = "Failed to load resource: the server responded with a status of 401"
"""What the browser's console says of an answer that a test wants."""


class Watch:
    """Writes down what a page asks for and complains about."""

    def __init__(self, page: Page, service: Service) -> None:
        self._home = f"{service.url}/"
        self.foreign: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self._asked(request.url))
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _asked(self, url: str) -> None:
        if not url.startswith((self._home, f"blob:{self._home}", "data:")):
            self.foreign.append(url)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not message.text.startswith(REFUSED):
            self.complaints.append(message.text)

    def assert_quiet(self) -> None:
        """Check that no other host was asked, and that nothing went wrong: no error, no broken policy."""
        assert self.foreign == []
        assert self.complaints == []


@pytest.fixture
def watch(page: Page, service: Service) -> Watch:
    """A watch of this test's page."""
    return Watch(page, service)


async def operations(service: Service) -> list[dict[str, Any]]:
    """Every operation of the document."""
    document = (await service.admin.get("/openapi.json")).json()
    return [facts for methods in document["paths"].values() for facts in methods.values()]


async def open_swagger(page: Page, service: Service) -> None:
    """Open Swagger UI and wait until it is drawn."""
    await page.goto(f"{service.url}/docs")
    await expect(page.locator(".opblock").first).to_be_visible()


async def unfold(page: Page, tag: str, operation: str) -> Locator:
    """Unfold an operation; gives its block."""
    block = page.locator(f"#operations-{tag}-{operation}")
    await block.locator(".opblock-summary-control").click()
    await expect(block.locator(".execute")).to_be_visible()
    return block


async def execute(block: Locator, status: int, **parameters: str) -> Locator:
    """Fill in parameters and execute; gives the part that shows what was answered."""
    for name, value in parameters.items():
        await block.locator(f'tr[data-param-name="{name}"] input').fill(value)
    await block.locator(".execute").click()
    answer = block.locator(".live-responses-table").first
    await expect(answer.locator("tbody .response-col_status").first).to_have_text(str(status))
    return answer


async def authorize(page: Page, token: str) -> None:
    """Enter a token in the dialog."""
    await page.locator(".btn.authorize").click()
    dialog = page.locator(".dialog-ux")
    await dialog.locator("input").fill(token)
    await dialog.locator(".auth-btn-wrapper .authorize").click()
    await expect(dialog.get_by_text("Logout")).to_be_visible()
    await dialog.locator(".auth-btn-wrapper .btn-done").click()
    await expect(dialog).to_have_count(0)


async def test_swagger_lists_every_operation_and_asks_no_other_host(
    page: Page, service: Service, watch: Watch
) -> None:
    await open_swagger(page, service)
    known = await operations(service)
    await expect(page.locator(".opblock")).to_have_count(len(known))
    shown = await page.locator(".opblock-summary-description").all_inner_texts()
    assert sorted(shown) == sorted(operation["summary"] for operation in known)
    tags = await page.locator("h3.opblock-tag").all_inner_texts()
    assert [tag.split("\n")[0] for tag in tags] == list(dict.fromkeys(one["tags"][0] for one in known))
    await page.wait_for_load_state("networkidle")
    watch.assert_quiet()


async def test_authorize_takes_a_token(page: Page, service: Service, watch: Watch) -> None:
    await open_swagger(page, service)
    me = await unfold(page, "Access", "get_me")
    await execute(me, 401)
    await authorize(page, await service.token("ada"))
    answer = await execute(me, 200)
    await expect(answer.locator(".highlight-code").first).to_contain_text('"name": "ada"')
    watch.assert_quiet()


async def test_try_it_out_attaches_a_storage_and_fetches_a_picture(
    page: Page, service: Service, s3_bucket: S3Bucket, watch: Watch
) -> None:
    drawn = io.BytesIO()
    Image.new("RGB", (64, 48), "seagreen").save(drawn, "JPEG")
    await s3_bucket.put("pets/a beagle.jpg", drawn.getvalue(), "image/jpeg")
    await open_swagger(page, service)
    await authorize(page, await service.token("ada"))

    attach = await unfold(page, "Storages", "create_storage")
    examples = await attach.locator(".examples-select option").all_inner_texts()
    assert len(examples) == 8
    await attach.locator("textarea.body-param__text").fill(json.dumps(s3_body(s3_bucket)))
    answer = await execute(attach, 201)
    body = answer.locator(".highlight-code pre").first
    assert await body.evaluate("body => body.clientHeight") > 250, "the answer is cut"
    storage = json.loads(await body.inner_text())
    assert storage["owner"] == "ada"

    read = await unfold(page, "Objects", "get_object")
    answer = await execute(read, 200, storage_id=str(storage["id"]), key="pets/a beagle.jpg")
    picture = answer.locator("img")
    await expect(picture).to_be_visible()
    assert await picture.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [64, 48]
    watch.assert_quiet()


async def test_redoc_draws_every_operation_and_asks_no_other_host(
    page: Page, service: Service, watch: Watch
) -> None:
    await page.goto(f"{service.url}/redoc")
    for summary in {operation["summary"] for operation in await operations(service)}:
        await expect(page.locator("h2", has_text=summary).first).to_be_attached()
    await page.wait_for_load_state("networkidle")
    watch.assert_quiet()
