"""Registers a manifest: one stream from the bucket into PostgreSQL, shown at once at its end or not at all."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from app.db import manifests as queries
from app.db.frames import FrameRecord, load_frames
from app.db.manifests import ManifestRow, NewRevision, ProblemRow
from app.db.session import Database
from app.jobs.queue import JobLostError
from app.jobs.run import Run
from app.manifests.kinds import Item
from app.manifests.problems import Problem
from app.manifests.reader import Limits, ManifestReader
from app.storage.base import PLAIN_READ, ByteStream, ObjectMeta, ObjectRead, ReadOptions

TURN_S = 0.002
"""How long a manifest may be read before others get their turn on the event loop."""
LEAST_BYTES, MOST_BYTES = 512, 64 * 1024


class Reads(Protocol):
    """What of a bucket a registration needs."""

    async def open(self, key: str, options: ReadOptions) -> ObjectRead:
        """Read an object; see `Bucket.open`."""
        ...


OpenBucket = Callable[[int], Awaitable[Reads]]
"""Gives the open bucket of a storage by its id; it is shared, and not closed here."""


class Registrar:
    """Does the jobs `register` and `sync`."""

    def __init__(self, database: Database, open_bucket: OpenBucket, limits: Limits) -> None:
        self._database = database
        self._open_bucket = open_bucket
        self._limits = limits

    async def __call__(self, run: Run) -> None:
        """Read the manifest of a job again, unless the bucket's copy is the one that is shown.

        Raises `JobLostError`, `DatabaseUnavailableError`, `InvalidKeyError`, `MissingError` and every
        `StorageError`; then nothing has changed.
        """
        manifest = await self._manifest(run)
        bucket = await self._open_bucket(manifest.storage_id)
        known = manifest.etag if manifest.state == "ready" else None
        options = PLAIN_READ if known is None else ReadOptions(if_none_match=(known,))
        read = await bucket.open(manifest.key, options)
        async with _closed_at_the_end(read):
            # Some servers ignore If-None-Match.
            if read.not_modified or (known is not None and read.meta.etag == known):
                await self._confirm(run, manifest.id)
            else:
                await self._read(run, manifest, read)

    async def _manifest(self, run: Run) -> ManifestRow:
        async with self._database.session() as session:
            return await _found(session, run, lock=False)

    async def _confirm(self, run: Run, manifest_id: int) -> None:
        async with self._database.session() as session:
            manifest = await _found(session, run, lock=True)
            await queries.note_synced(session, manifest_id)
            await run.succeed(session, _result(manifest.revision, changed=False))

    async def _read(self, run: Run, manifest: ManifestRow, read: ObjectRead) -> None:
        meta = read.meta
        reader = ManifestReader(manifest.key, self._limits)
        if meta.size_bytes > self._limits.max_manifest_bytes:
            reader.refuse_size()
        if not await self._load(run, reader, read):
            await self._refuse(run, reader, meta)

    async def _load(self, run: Run, reader: ManifestReader, read: ObjectRead) -> bool:
        """Load and show what is read; False when the manifest is refused, and nothing of it is kept."""
        async with self._database.session() as session:
            revision_id = await queries.reserve_revision(session)
            async with aclosing(_records(run, reader, read, revision_id)) as records:
                await load_frames(session, records)
            if reader.failure:
                await session.rollback()
                return False
            await self._show(session, run, revision_id, reader, read.meta)
            return True

    async def _show(
        self, session: AsyncSession, run: Run, revision_id: int, reader: ManifestReader, meta: ObjectMeta
    ) -> None:
        manifest = await _found(session, run, lock=True)
        number = await queries.show_revision(
            session, manifest, revision_id, "ready", _new_revision(reader, meta)
        )
        await run.succeed(session, _result(number, changed=True))

    async def _refuse(self, run: Run, reader: ManifestReader, meta: ObjectMeta) -> None:
        """Keep what is wrong with a manifest that has nothing to show; what is shown already stays."""
        async with self._database.session() as session:
            manifest = await _found(session, run, lock=True)
            if manifest.state != "ready":
                revision_id = await queries.reserve_revision(session)
                await queries.show_revision(
                    session, manifest, revision_id, "failed", _new_revision(reader, meta)
                )
            await run.fail(session, *([_in_words(reader.failure)] if reader.failure else []))


@asynccontextmanager
async def _closed_at_the_end(read: ObjectRead) -> AsyncIterator[None]:
    try:
        yield
    finally:
        if not isinstance(read.body, bytes):
            await read.body.aclose()


async def _records(
    run: Run, reader: ManifestReader, read: ObjectRead, revision_id: int
) -> AsyncGenerator[FrameRecord, None]:
    """Give the frames of a manifest as they come; after each slice everybody else gets a turn."""
    done = 0
    turns = Turns()
    async for part in _slices(read.body, turns):
        for item in await turns.feed(reader, part):
            yield _record(revision_id, item)
        if reader.failure:
            return
        done += len(part)
        run.report(done, max(done, read.meta.size_bytes))
        await asyncio.sleep(0)
    for item in await asyncio.to_thread(reader.finish):
        yield _record(revision_id, item)


class Turns:
    """Cuts what is read into turns of about `TURN_S`: a line at fault takes fifty times as long as a good one."""

    def __init__(self) -> None:
        self.size_bytes = 8 * LEAST_BYTES

    async def feed(self, reader: ManifestReader, part: bytes) -> Sequence[Item]:
        """Read a part; one that may complete a very long line is read in a thread."""
        if reader.holds_long_line:
            return await asyncio.to_thread(reader.feed, part)
        began = time.perf_counter()
        items = reader.feed(part)
        self.adapt(time.perf_counter() - began)
        return items

    def adapt(self, took_s: float) -> None:
        """Make the next parts smaller after one that took long, larger after one that did not."""
        if took_s > TURN_S:
            self.size_bytes = max(LEAST_BYTES, self.size_bytes // 2)
        elif took_s < TURN_S / 2:
            self.size_bytes = min(MOST_BYTES, self.size_bytes * 2)


async def _slices(body: bytes | ByteStream, turns: Turns) -> AsyncGenerator[bytes, None]:
    if isinstance(body, bytes):
        for part in _cut(body, turns):
            yield part
    else:
        async for chunk in body:
            for part in _cut(bytes(chunk), turns):
                yield part


def _cut(chunk: bytes, turns: Turns) -> Iterator[bytes]:
    start = 0
    while start < len(chunk):
        stop = start + turns.size_bytes
        yield chunk[start:stop]
        start = stop


def _record(revision_id: int, item: Item) -> FrameRecord:
    return (
        revision_id,
        item.number,
        item.key,
        item.width_px,
        item.height_px,
        item.checksum,
        item.meta,
    )


async def _found(session: AsyncSession, run: Run, *, lock: bool) -> ManifestRow:
    manifest_id = run.job.manifest_id
    found = None if manifest_id is None else await queries.manifest_by_id(session, manifest_id, lock=lock)
    if found is None:
        raise JobLostError("The manifest was removed.")
    return found


def _new_revision(reader: ManifestReader, meta: ObjectMeta) -> NewRevision:
    return NewRevision(
        kind=reader.kind,
        version=reader.version,
        etag=meta.etag,
        last_modified=meta.last_modified,
        size_bytes=meta.size_bytes,
        frame_count=0 if reader.failure else reader.frame_count,
        problem_count=reader.problem_count,
        problems=[
            ProblemRow(found.line, found.column, found.code, found.message, found.hint)
            for found in reader.problems
        ],
    )


def _result(revision: int | None, *, changed: bool) -> dict[str, Any]:
    return {"revision": revision, "changed": changed}


def _in_words(problem: Problem) -> str:
    return f"Line {problem.line}, column {problem.column}: {problem.message} {problem.hint}"
