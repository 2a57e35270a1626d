"""A running service that holds a little and can reach loopback alone."""

import asyncio
import json
import socket
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.api.conftest import Service, s3_body, s3_source, service, start_service
from tests.images.pictures import corners, encoded
from tests.servers.s3 import S3Bucket

__all__ = ["service", "start_service"]

MANIFEST = b"""{"version":"1.1"}
{"type":"images"}
{"name":"pets/beagle","extension":".jpg","width":40,"height":30,"checksum":"c","meta":{"related_images":[]}}
{"name":"../outside","extension":".jpg"}
{"name":"pets/pug","extension":".png"}
"""
OBJECTS = {
    "manifest.jsonl": MANIFEST,
    "pets/beagle.jpg": encoded(corners(40, 30)),
    "pets/pug.png": b"\x89PNG" + bytes(200),
    "page.html": b"<script>alert(1)</script>",
    "\u00e4 b/+%?.json": b"{}",
}
EXPENDABLE = 3


@pytest_asyncio.fixture
async def confined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the service no way out: no name resolves, no address but loopback's is connected to."""
    loop = asyncio.get_running_loop()
    resolve, connect = loop.getaddrinfo, loop.sock_connect

    async def getaddrinfo(host: Any, port: Any, **more: Any) -> Any:
        if not _is_loopback(host):
            raise socket.gaierror(socket.EAI_NONAME, "nothing resolves here")
        return await resolve(host, port, **more)

    async def sock_connect(sock: Any, address: Any) -> None:
        if not _is_loopback(address[0]):
            raise OSError("nothing but loopback is connected to here")
        await connect(sock, address)

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(loop, "sock_connect", sock_connect)


def _is_loopback(host: Any) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@pytest_asyncio.fixture
async def places(confined: None, service: Service, s3_bucket: S3Bucket, tmp_path: Path) -> Path:
    """Fill the service a little; gives the file that says what it holds and what of it may be deleted."""
    for key, content in OBJECTS.items():
        await s3_bucket.put(key, content)
    body = s3_body(s3_bucket)
    kept = await service.attach(body)
    manifest = await service.register(kept, "manifest.jsonl")
    facts = {
        "ids": {
            "storage_id": kept,
            "changed": await service.attach(body, display_name="Changed"),
            "manifest_id": manifest["id"],
            "number": 0,
            "index": 0,
            "job_id": manifest["job_id"],
        },
        "expendable": {
            "storage_id": [await service.attach(body) for _ in range(EXPENDABLE)],
            "manifest_id": [await _expendable_manifest(service, body) for _ in range(EXPENDABLE)],
            "token_id": [
                (await service.admin.post("/v1/tokens", json={})).json()["id"] for _ in range(EXPENDABLE)
            ],
        },
        "keys": list(OBJECTS),
        "source": s3_source(s3_bucket),
        "endpoint_url": s3_bucket.server.endpoint_url,
    }
    file = tmp_path / "places.json"
    file.write_text(json.dumps(facts))
    return file


async def _expendable_manifest(service: Service, body: dict[str, Any]) -> int:
    manifest = await service.register(await service.attach(body), "manifest.jsonl")
    return int(manifest["id"])
