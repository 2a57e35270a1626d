"""`framegate demo`: embedded PostgreSQL and S3, pictures, a manifest, a token, and the service over them."""

import asyncio
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import typer
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import ClientError
from pydantic import SecretStr

from app import log, samples
from app.db.migrate import upgrade
from app.db.storages import StorageQuery
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.s3 import EmbeddedS3, EmbeddedS3Address
from app.errors import CommandError, UnauthenticatedError
from app.lifespan import Services, open_services
from app.manifests.folder import FolderManifest, build
from app.metrics import Metrics
from app.secrets import load_keys
from app.services.access import Principal, issue_token
from app.services.storages import StorageDraft, StorageView
from app.serving import bound_socket, make_private, serve_on
from app.settings import Settings
from app.storage.source import KeyPair, S3Source

USER = "demo"
MANIFEST = "manifest.jsonl"
_UPLOADS_AT_ONCE = 16
_WAIT_S = 120
_LINK_LIFE = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What stands ready: the URLs and lines to print are made of it."""

    token: str
    storage_id: int
    manifest_id: int
    frame_count: int
    key: str
    link: str
    """Path and query of a signed URL of the first picture."""


@dataclass(frozen=True, slots=True)
class _Dataset:
    """The pictures to serve, their manifest, and the bucket that is theirs at every start."""

    pictures: Path
    manifest: FolderManifest
    bucket: str


def run(settings: Settings, folder: Path | None, host: str, port: int) -> None:
    """Run the whole system on this machine until Ctrl-C; stops everything that it started.

    Raises `CommandError` for a folder without pictures or a taken port, `EmbeddedServerError`.
    """
    if folder is not None and not folder.is_dir():
        raise CommandError(f"{folder} is no folder. Name a folder with pictures in it, or none.")
    log.configure("warning", settings.log_format)
    make_private(settings.data_dir)
    load_keys(settings)
    with ExitStack() as stack:
        listening = stack.enter_context(bound_socket(host, port))
        pictures = stack.enter_context(_pictures(folder))
        manifest = build(pictures)
        if not manifest.paths:
            raise CommandError(f"There are no pictures in {folder}.")
        database = EmbeddedPostgres(settings.data_dir / "postgres", exclusive=True)
        settings = settings.model_copy(update={"database_url": stack.enter_context(database)})
        s3 = stack.enter_context(EmbeddedS3(settings.data_dir / "s3"))
        settings = _allowing(settings, s3)
        dataset = _Dataset(pictures, manifest, _bucket_name(folder))
        prepared = asyncio.run(_prepare(settings, s3, dataset))
        typer.echo(_words(prepared, f"http://{_shown(host)}:{port}", settings.data_dir))
        serve_on(listening, settings)


@contextmanager
def _pictures(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="framegate-samples-") as drawn:
        samples.draw(Path(drawn))
        yield Path(drawn)


def _allowing(settings: Settings, s3: EmbeddedS3Address) -> Settings:
    endpoint = s3.endpoint_url.removeprefix("http://")
    allowed = (*settings.allowed_private_endpoints, endpoint)
    return settings.model_copy(update={"allowed_private_endpoints": allowed})


def _bucket_name(folder: Path | None) -> str:
    """Give each folder a bucket of its own, found again at the next start."""
    if folder is None:
        return "samples"
    path = folder.resolve()
    slug = re.sub(r"[^a-z0-9]+", "-", path.name.lower()).strip("-")[:40] or "pictures"
    return f"{slug}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"


async def _prepare(settings: Settings, s3: EmbeddedS3Address, dataset: _Dataset) -> Prepared:
    assert settings.database_url is not None  # noqa: S101 - the embedded one's
    await upgrade(settings.database_url)
    changed = await _upload(s3, dataset)
    async with open_services(settings, Metrics()) as services:
        token, caller = await _token(services, settings.data_dir)
        view = await _storage(services, caller, s3, dataset)
        return await _registered(services, caller, token, view, changed=changed)


async def _upload(s3: EmbeddedS3Address, dataset: _Dataset) -> bool:
    """Put what the bucket does not hold yet; tells whether there was anything."""
    async with _client(s3) as client:
        present = await _sizes(client, dataset.bucket)
        paths = dataset.manifest.paths
        bodies: dict[str, Path | bytes] = {str(path): dataset.pictures / path for path in paths}
        bodies[MANIFEST] = dataset.manifest.text
        missing = {key: body for key, body in bodies.items() if present.get(key) != _size(body)}
        turns = asyncio.Semaphore(_UPLOADS_AT_ONCE)
        puts = (_put(client, dataset.bucket, key, body, turns) for key, body in missing.items())
        await asyncio.gather(*puts)
    return bool(missing)


def _client(s3: EmbeddedS3Address) -> Any:
    return get_session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=s3.endpoint_url,
        aws_access_key_id=s3.access_key_id,
        aws_secret_access_key=s3.secret_access_key,
        config=AioConfig(s3={"addressing_style": "path"}, proxies={}, max_pool_connections=_UPLOADS_AT_ONCE),
    )


async def _sizes(client: Any, bucket: str) -> Mapping[str, int]:
    try:
        await client.create_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
            raise
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {item["Key"]: item["Size"] async for page in pages for item in page.get("Contents", ())}


def _size(body: Path | bytes) -> int:
    return len(body) if isinstance(body, bytes) else body.stat().st_size


async def _put(client: Any, bucket: str, key: str, body: Path | bytes, turns: asyncio.Semaphore) -> None:
    async with turns:
        read = body if isinstance(body, bytes) else await asyncio.to_thread(body.read_bytes)
        await client.put_object(Bucket=bucket, Key=key, Body=read)


async def _token(services: Services, data_dir: Path) -> tuple[str, Principal]:
    """Give the kept token, or a new one if there is none or it was revoked."""
    file = data_dir / "demo-token"
    token = _read(file)
    try:
        return token, await services.access.authenticate(token)
    except UnauthenticatedError:
        token = (await issue_token(services.database, USER, "admin", None)).text
    _keep(file, token)
    return token, await services.access.authenticate(token)


def _read(file: Path) -> str:
    return file.read_text().strip() if file.exists() else ""


def _keep(file: Path, token: str) -> None:
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
        opened.write(token + "\n")


async def _storage(
    services: Services, caller: Principal, s3: EmbeddedS3Address, dataset: _Dataset
) -> StorageView:
    """Attach the bucket, or bring an attached one up to where the server answers now."""
    auth = KeyPair(s3.access_key_id, SecretStr(s3.secret_access_key))
    bucket = dataset.bucket
    source = S3Source(bucket, auth, endpoint_url=s3.endpoint_url)
    draft = StorageDraft(_name(dataset), "Made by framegate demo.", source, (MANIFEST,), "proxy")
    known = await services.storages.list(caller, StorageQuery(None, search=bucket, limit=1000), None)
    for view in known.items:
        if view.row.bucket == bucket and view.row.endpoint_url == s3.endpoint_url:
            return view
        if view.row.bucket == bucket:
            return await services.storages.change(caller, view.row.id, draft, view.row.version)
    return await services.storages.create(caller, draft)


def _name(dataset: _Dataset) -> str:
    return (
        "Sample pictures"
        if dataset.bucket == "samples"
        else dataset.pictures.resolve().name[:63] or "Pictures"
    )


async def _registered(
    services: Services, caller: Principal, token: str, view: StorageView, *, changed: bool
) -> Prepared:
    done = await services.manifests.attach(caller, view.row.id, MANIFEST)
    if changed or done.manifest.state != "ready":
        done = await services.manifests.sync(caller, done.manifest.id, wait_s=_WAIT_S)
    if done.manifest.state != "ready":
        reasons = "; ".join(done.job.errors) if done.job else ""
        raise CommandError(f"The manifest could not be registered. {reasons}")
    place = await services.frames.locate(caller, done.manifest.id, 0)
    expires_at = datetime.now(UTC) + _LINK_LIFE
    link, _ = services.signer.sign_object(caller, place.storage_id, place.key, expires_at)
    return Prepared(
        token,
        view.row.id,
        done.manifest.id,
        done.manifest.frame_count,
        place.key,
        link,
    )


def _shown(host: str) -> str:
    named = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"[{named}]" if ":" in named and not named.startswith("[") else named


def _words(prepared: Prepared, url: str, data_dir: Path) -> str:
    header = f"'Authorization: Bearer {prepared.token}'"
    frames = f"{url}/v1/manifests/{prepared.manifest_id}/frames"
    return f"""
Framegate serves {prepared.frame_count} pictures from a real S3 server on this machine.

  Swagger UI  {url}/docs   (Authorize with the token)
  ReDoc       {url}/redoc
  A picture   {url}{prepared.link}
  Token       {prepared.token}
  Data        {data_dir.resolve()}

Paste these:

  curl -s -H {header} '{url}/v1/storages'
  curl -s -H {header} '{frames}?limit=3'
  curl -s -H {header} -o frame-0.jpg '{frames}/0/image'
  curl -s -H {header} -r 0-99 -o first-bytes.bin '{url}/v1/storages/{prepared.storage_id}/objects/{quote(prepared.key)}'

Ctrl-C stops everything.
"""
