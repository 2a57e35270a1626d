"""Registers a large manifest out of a real bucket, and asks for pages of it: `python -m bench.manifests`.

Starts a PostgreSQL and an S3 server of its own in a temporary folder; nothing else is touched. `--lines`
says how many frames (100,000). Printed are the seconds of the whole job, how much the process grew
meanwhile, how long the event loop kept others waiting, and the times of pages at both ends.
"""

import argparse
import asyncio
import gc
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from pydantic import SecretStr

from app import log
from app.db.frames import FrameFilter
from app.db.migrate import upgrade
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.s3 import EmbeddedS3, EmbeddedS3Address
from app.lifespan import Services, open_services
from app.manifests.writer import Picture, write_images
from app.metrics import Metrics
from app.secrets import load_keys
from app.services.access import Principal, issue_token
from app.services.storages import StorageDraft
from app.settings import Settings
from app.storage.source import KeyPair, S3Source
from bench.machine import Neighbours, machine
from bench.processes import Running

BUCKET = "large"
KEY = "manifest.jsonl"
PAGE = 100
ASKED = 60
"""Times that each kind of page is asked for."""
_WAIT_S = 3600


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=100_000)
    lines = parser.parse_args().lines
    log.configure("warning", "console")
    print(machine())
    neighbours = Neighbours()
    with tempfile.TemporaryDirectory(prefix="framegate-bench-") as folder, ExitStack() as stack:
        settings = _settings(Path(folder), stack.enter_context(EmbeddedPostgres(Path(folder, "postgres"))))
        s3 = stack.enter_context(EmbeddedS3(Path(folder, "s3")))
        allowed = (s3.endpoint_url.removeprefix("http://"),)
        settings = settings.model_copy(update={"allowed_private_endpoints": allowed})
        # In a process of its own: what it frees would hide what the registration takes.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as uploading:
            size_bytes = uploading.submit(upload, s3, lines).result()
        asyncio.run(_measure(settings, s3, lines, size_bytes))
    print(neighbours)


def _settings(folder: Path, database_url: str) -> Settings:
    settings = Settings.read(_env_file=None, data_dir=folder)
    load_keys(settings)  # makes them: it must not be asked to do so for a database that is not its own
    return settings.model_copy(update={"database_url": database_url})


async def _measure(settings: Settings, s3: EmbeddedS3Address, lines: int, size_bytes: int) -> None:
    assert settings.database_url is not None
    await upgrade(settings.database_url)
    async with open_services(settings, Metrics()) as services:
        token = await issue_token(services.database, "bench", "admin", None)
        caller = await services.access.authenticate(token.text)
        storage_id = await _storage(services, caller, s3)
        manifest_id = await _register(services, caller, storage_id, lines, size_bytes)
        await _pages(services, caller, manifest_id, lines)


def upload(s3: EmbeddedS3Address, lines: int) -> int:
    """Write a manifest into the bucket; gives its size in bytes."""
    return asyncio.run(_upload(s3, lines))


async def _upload(s3: EmbeddedS3Address, lines: int) -> int:
    with tempfile.TemporaryFile() as file:
        for line in write_images(_pictures(lines)):
            file.write(line)
        size_bytes = file.tell()
        async with _client(s3) as client:
            await client.create_bucket(Bucket=BUCKET)
            made = await client.create_multipart_upload(Bucket=BUCKET, Key=KEY)
            file.seek(0)
            parts = []
            while part := file.read(16 * 1024 * 1024):
                place = {"UploadId": made["UploadId"], "PartNumber": len(parts) + 1}
                put = await client.upload_part(Bucket=BUCKET, Key=KEY, Body=part, **place)
                parts.append({"ETag": put["ETag"], "PartNumber": len(parts) + 1})
            await client.complete_multipart_upload(
                Bucket=BUCKET, Key=KEY, UploadId=made["UploadId"], MultipartUpload={"Parts": parts}
            )
    return size_bytes


def _pictures(lines: int) -> Iterator[Picture]:
    for number in range(lines):
        name = f"train/class_{number // 1000:05}/img_{number:08}"
        yield Picture(name, ".jpg", 640 + number % 640, 480, {"related_images": []}, f"{number:032x}")


def _client(s3: EmbeddedS3Address) -> Any:
    return get_session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=s3.endpoint_url,
        aws_access_key_id=s3.access_key_id,
        aws_secret_access_key=s3.secret_access_key,
        config=AioConfig(s3={"addressing_style": "path"}, proxies={}),
    )


async def _storage(services: Services, caller: Principal, s3: EmbeddedS3Address) -> int:
    auth = KeyPair(s3.access_key_id, SecretStr(s3.secret_access_key))
    source = S3Source(BUCKET, auth, endpoint_url=s3.endpoint_url)
    view = await services.storages.create(caller, StorageDraft("Large", "", source, (), "proxy"))
    return view.row.id


async def _register(
    services: Services, caller: Principal, storage_id: int, lines: int, size_bytes: int
) -> int:
    process = Running(os.getpid(), not_counted=frozenset({"postgres", "weed"}))
    gc.collect()
    before = process.memory_bytes()
    process.forget_peak()
    async with _waiting() as turns:
        began = time.perf_counter()
        made = await services.manifests.attach(caller, storage_id, KEY, wait_s=_WAIT_S)
        seconds = time.perf_counter() - began
    grown = process.peak_memory_bytes() - before
    assert made.manifest.frame_count == lines, made
    print(
        f"register {lines:,} lines ({size_bytes / 1e6:.0f} MB): {seconds:.2f} s, {lines / seconds:,.0f} lines/s,"
        f" memory +{grown / 2**20:.0f} MiB at most"
    )
    print(f"  meanwhile a turn of the event loop took {turns}")
    return made.manifest.id


@dataclass
class _Turns:
    """How long others had to wait for their turn, in milliseconds."""

    waited_ms: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        return _times(self.waited_ms)


@asynccontextmanager
async def _waiting() -> AsyncIterator[_Turns]:
    turns = _Turns()

    async def look() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.002)
            turns.waited_ms.append((time.perf_counter() - began) * 1000 - 2)

    looking = asyncio.create_task(look())
    yield turns
    looking.cancel()


async def _pages(services: Services, caller: Principal, manifest_id: int, lines: int) -> None:
    async def page(wanted: FrameFilter, cursor: str | None) -> str | None:
        found = await services.frames.list(caller, manifest_id, wanted, cursor, PAGE)
        return found.next_cursor

    near_end = await _cursor_near(services, caller, manifest_id, lines - 2 * PAGE)
    last_folder = f"train/class_{(lines - 1) // 1000:05}/"
    await _time("page at the start", lambda: page(FrameFilter(), None))
    await _time("page at the end", lambda: page(FrameFilter(), near_end))
    await _time("first page of the last folder", lambda: page(FrameFilter(prefix=last_folder), None))
    await _time("page of all, by prefix", lambda: page(FrameFilter(prefix="train/"), near_end))
    await _time("page by size at the start", lambda: page(FrameFilter(min_width_px=1200), None))
    await _time("page by size at the end", lambda: page(FrameFilter(min_width_px=1200), near_end))
    await _time("one frame", lambda: services.frames.get(caller, manifest_id, lines - 1))
    await _time("a frame's key", lambda: services.frames.locate(caller, manifest_id, lines - 1))


async def _cursor_near(services: Services, caller: Principal, manifest_id: int, number: int) -> str | None:
    """Give a cursor that a client would have had at this place: a thousand frames a page from the start."""
    cursor = None
    for _ in range(number // 1000):
        page = await services.frames.list(caller, manifest_id, FrameFilter(), cursor, 1000)
        cursor = page.next_cursor
    return cursor


async def _time(what: str, ask: Callable[[], Awaitable[object]]) -> None:
    taken_ms = []
    for _ in range(ASKED):
        began = time.perf_counter()
        await ask()
        taken_ms.append((time.perf_counter() - began) * 1000)
    print(f"{what}: {_times(taken_ms)}")


def _times(taken_ms: list[float]) -> str:
    if len(taken_ms) < 2:
        return "no time at all"
    p95 = statistics.quantiles(taken_ms, n=20)[-1]
    return f"p50 {statistics.median(taken_ms):.1f} ms, p95 {p95:.1f} ms, at most {max(taken_ms):.1f} ms"


if __name__ == "__main__":
    main()
