"""S3 servers: SeaweedFS, rclone, and the MinIO gateway code in JuiceFS."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession, get_session

from app.embedded.process import LOOPBACK, Program, ServerProcess, accepts, free_ports
from app.embedded.s3 import EmbeddedS3, S3Identity

REGION = "us-east-1"
IDENTITIES = (
    S3Identity("admin"),
    S3Identity("reader", ("Read", "List")),
    S3Identity("unlisting", ("Read",)),
    S3Identity("stranger", ()),
)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An access key id and its secret."""

    access_key_id: str
    secret_access_key: str


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running S3 server. Only SeaweedFS knows identities besides `admin`; the others' are the admin's."""

    endpoint_url: str
    admin: KeyPair
    reader: KeyPair
    """Reads and lists everything, writes nothing."""
    unlisting: KeyPair
    """Reads everything, lists nothing."""
    stranger: KeyPair
    """Is known, may do nothing."""
    region: str = REGION

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1."""
        return int(self.endpoint_url.rpartition(":")[2])

    @asynccontextmanager
    async def client(self, keys: KeyPair | None = None) -> AsyncIterator[Any]:
        """An aiobotocore client with these keys, else the admin's."""
        pair = keys or self.admin
        config = AioConfig(
            s3={"addressing_style": "path"},
            retries={"mode": "standard", "max_attempts": 3},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        async with sdk_session().create_client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=pair.access_key_id,
            aws_secret_access_key=pair.secret_access_key,
            region_name=self.region,
            config=config,
        ) as client:
            yield client

    @asynccontextmanager
    async def bucket(self) -> AsyncIterator["S3Bucket"]:
        """A fresh bucket; it stays until the server ends, since nothing else ever sees its name."""
        async with self.client() as client:
            name = f"test-{uuid4().hex[:16]}"
            await client.create_bucket(Bucket=name)
            yield S3Bucket(self, name, client)


@dataclass(frozen=True, slots=True)
class S3Bucket:
    """One bucket, and an admin's client (`client`, aiobotocore) for whatever the shortcuts do not do."""

    server: S3Server
    name: str
    client: Any = field(repr=False)

    async def put(self, key: str, body: bytes, content_type: str | None = None, **headers: Any) -> str:
        """Store an object; `headers` are `put_object`'s (`CacheControl=`, ...); gives the ETag with quotes."""
        if content_type is not None:
            headers["ContentType"] = content_type
        answer = await self.client.put_object(Bucket=self.name, Key=key, Body=body, **headers)
        etag: str = answer["ETag"]
        return etag

    async def delete(self, key: str) -> None:
        """Take an object away."""
        await self.client.delete_object(Bucket=self.name, Key=key)

    async def publish(self) -> None:
        """Let anybody list and read it, by a bucket policy (SeaweedFS)."""
        arn = f"arn:aws:s3:::{self.name}"
        statement = {
            "Effect": "Allow",
            "Principal": "*",
            "Action": ["s3:GetObject", "s3:ListBucket"],
            "Resource": [arn, f"{arn}/*"],
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        await self.client.put_bucket_policy(Bucket=self.name, Policy=policy)


@cache
def sdk_session() -> AioSession:
    """One for all clients: each new one would read the service's large description again."""
    return get_session()


@contextmanager
def seaweedfs(folder: Path) -> Iterator[S3Server]:
    """SeaweedFS with the four identities."""
    server = EmbeddedS3(folder, IDENTITIES)
    with server as address:
        pairs = {}
        for identity in IDENTITIES:
            keys = server.address(identity.name)
            pairs[identity.name] = KeyPair(keys.access_key_id, keys.secret_access_key)
        yield S3Server(address.endpoint_url, **pairs)


@contextmanager
def rclone(folder: Path) -> Iterator[S3Server]:
    """`rclone serve s3`: answers a Range with 200, ignores `If-Match`."""
    keys, port = KeyPair("rclone-key", "rclone-secret-rclone-secret"), free_ports(1)[0]
    (folder / "data").mkdir()
    command = [program("rclone"), "serve", "s3", "--addr", f"{LOOPBACK}:{port}", "--config", ""]
    command += ["--auth-key", f"{keys.access_key_id},{keys.secret_access_key}", str(folder / "data")]
    with running("rclone", command, folder, port):
        yield _single(port, keys)


@contextmanager
def juicefs(folder: Path) -> Iterator[S3Server]:
    """JuiceFS's gateway, which is MinIO's code: no `x` beside `x/y`, no `a//b`."""
    keys, port = KeyPair("juicefs-key", "juicefs-secret-juicefs-secret"), free_ports(1)[0]
    meta = f"sqlite3://{folder}/meta.db"
    juice, home = program("juicefs"), {"PATH": os.defpath, "HOME": str(folder)}
    make = [juice, "format", "--storage", "file", "--bucket", f"{folder}/blob/", meta, "tests"]
    subprocess.run(make, env=home, check=True, capture_output=True)
    command = [juice, "gateway", "--multi-buckets", "--keep-etag", "--no-usage-report", "--no-banner"]
    command += ["--log", str(folder / "gateway.log"), "--cache-dir", str(folder / "cache")]
    command += [meta, f"{LOOPBACK}:{port}"]
    login = {"MINIO_ROOT_USER": keys.access_key_id, "MINIO_ROOT_PASSWORD": keys.secret_access_key}
    with running("juicefs", command, folder, port, home | login):
        yield _single(port, keys)


@contextmanager
def running(
    name: str, command: list[str], folder: Path, port: int, environment: dict[str, str] | None = None
) -> Iterator[None]:
    """A server program that is ready when its port takes connections."""
    plain = {"PATH": os.defpath, "HOME": str(folder)}
    process = ServerProcess(
        Program(name, command, folder, folder / f"{name}.log", environment=environment or plain)
    )
    try:
        process.wait_ready(lambda: accepts(port), timeout_s=60)
        yield
    finally:
        process.stop(timeout_s=5)


def program(name: str) -> str:
    """A program of `.venv`; a missing one fails the test that wants it."""
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    assert found, f"{name} is not installed: run script/bootstrap"
    return found


def _single(port: int, keys: KeyPair) -> S3Server:
    return S3Server(f"http://{LOOPBACK}:{port}", keys, keys, keys, keys)
