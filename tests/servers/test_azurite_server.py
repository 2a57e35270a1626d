"""The Azure emulator answers, and a SAS grants what it says."""

import httpx
import pytest

from tests.servers.azurite import AzureContainer, AzureServer


async def test_keeps_a_blob(azure_container: AzureContainer) -> None:
    etag = await azure_container.put("a folder/ä+b.txt", b"0123456789", "text/plain")
    blob = azure_container.client.get_blob_client("a folder/ä+b.txt")
    assert await (await blob.download_blob()).readall() == b"0123456789"
    assert (await blob.get_blob_properties()).etag == etag


@pytest.mark.parametrize(("expires_in_s", "status"), [(60, 200), (-60, 403)])
async def test_sas_opens_until_it_expires(
    azurite: AzureServer, azure_container: AzureContainer, expires_in_s: int, status: int
) -> None:
    await azure_container.put("k", b"x")
    sas = azurite.container_sas(azure_container.name, expires_in_s=expires_in_s)
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{azurite.endpoint_url}/{azure_container.name}/k?{sas}")
    assert answer.status_code == status


async def test_public_container_needs_no_credential(azurite: AzureServer) -> None:
    async with azurite.container(public_access="blob") as container, httpx.AsyncClient() as client:
        await container.put("k", b"open")
        headers = {"x-ms-version": "2021-12-02"}
        answer = await client.get(f"{azurite.endpoint_url}/{container.name}/k", headers=headers)
    assert answer.content == b"open"
