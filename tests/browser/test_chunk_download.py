"""A chunk of frames from Swagger UI: a file to keep, under the name that the service gives it."""

from zipfile import ZipFile

from playwright.async_api import Page, expect

from tests.api.conftest import Service, s3_body
from tests.browser.test_swagger import authorize, execute, open_swagger, unfold
from tests.servers.s3 import S3Bucket

MANIFEST = b'{"version":"1.1"}\n{"type":"images"}\n{"name":"pug","extension":".jpg"}\n'


async def test_a_chunk_is_downloaded_by_its_name(page: Page, service: Service, s3_bucket: S3Bucket) -> None:
    await s3_bucket.put("pug.jpg", b"picture")
    await s3_bucket.put("manifest.jsonl", MANIFEST)
    manifest = await service.register(await service.attach(s3_body(s3_bucket)), "manifest.jsonl")
    await open_swagger(page, service)
    await authorize(page, await service.token("root"))
    block = await unfold(page, "Frames", "get_chunk")
    answer = await execute(block, 200, manifest_id=str(manifest["id"]), index="0")
    link = answer.get_by_role("link", name="Download file")
    await expect(link).to_be_visible()
    async with page.expect_download() as download:
        await link.click()
    file = await download.value
    assert file.suggested_filename == f"manifest-{manifest['id']}-chunk-000000.zip"
    with ZipFile(await file.path()) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {"000000.jpg": b"picture"}
