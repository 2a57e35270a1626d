"""What tests of jobs share: a database with one storage, and a bucket that a test leads by the hand."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import uuid4

import pytest
import pytest_asyncio
from sqlalchemy import text

from app.db import jobs as job_queries
from app.db import manifests as manifest_queries
from app.db.frames import FrameFilter, FrameRow, list_frames
from app.db.jobs import JobRow
from app.db.manifests import ManifestRow
from app.db.session import Database
from app.errors import ObjectMissingError
from app.jobs.queue import JobKind, Task, enqueue
from app.jobs.runner import JobRunner, Pace
from app.settings import Settings
from app.storage.base import ByteStream, ObjectMeta, ObjectRead, ReadOptions
from app.storage.keys import check_key

HEADER = b'{"version":"1.1"}\n{"type":"images"}\n'
QUICK = Pace(beat_s=0.05, stale_s=20, poll_s=0.1, sweep_s=0.1, retry_s=0.05)
IMPATIENT = replace(QUICK, stale_s=1.5)
"""Takes up what others seem to have left; not shorter, or a busy machine looks like a dead process."""
Runner = Callable[..., "asyncio.Future[None]"]


def lines(*names: str) -> bytes:
    """Give a manifest that names these frames."""
    return HEADER + b"".join(b'{"name":"%s","extension":".jpg"}\n' % name.encode() for name in names)


class Stream(ByteStream):
    """A body that gives one chunk each time it is let go on; `None` lets it go on for ever."""

    def __init__(
        self, body: bytes, chunk: int, gate: asyncio.Semaphore | None, error: Exception | None
    ) -> None:
        self._body = body
        self._chunk = chunk
        self._gate = gate
        self._error = error
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._body), self._chunk):
            if self._gate is not None:
                await self._gate.acquire()
            yield self._body[start : start + self._chunk]
        if self._error is not None:
            raise self._error

    async def aclose(self) -> None:
        self.closed = True


class ToyBucket:
    """Objects in memory. `gate` lets streams go on chunk by chunk, `error` breaks them at their end."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, str | None]] = {}
        self.gate: asyncio.Semaphore | None = None
        self.error: Exception | None = None
        self.chunk = 1000
        self.heeds_conditions = True
        self.reads: list[ReadOptions] = []
        self.streams: list[Stream] = []
        self.size_bytes: int | None = None
        self.head_error: Exception | None = None
        self.busy = False

    def put(self, key: str, body: bytes, etag: str | None = None) -> None:
        self.objects[key] = (body, etag if etag is not None else f'"{hash(body):x}"')

    async def open(self, key: str, options: ReadOptions) -> ObjectRead:
        self.reads.append(options)
        if key not in self.objects:
            raise ObjectMissingError(key)
        body, etag = self.objects[key]
        meta = ObjectMeta(key, self.size_bytes or len(body), etag, None, None)
        if self.heeds_conditions and etag is not None and etag in (options.if_none_match or ()):
            return ObjectRead(meta, not_modified=True)
        self.streams.append(Stream(body, self.chunk, self.gate, self.error))
        return ObjectRead(meta, self.streams[-1])

    async def head(self, key: str, _: ReadOptions) -> ObjectRead:
        if self.head_error is not None:
            raise self.head_error
        check_key(key)
        if key not in self.objects:
            raise ObjectMissingError(key)
        body, etag = self.objects[key]
        return ObjectRead(ObjectMeta(key, len(body), etag, None, None))

    async def aclose(self) -> None:
        pass


class World:
    """A database with one owner, one storage and its bucket."""

    def __init__(self, database: Database, owner_id: int, storage_id: int) -> None:
        self.database = database
        self.owner_id = owner_id
        self.storage_id = storage_id
        self.bucket = ToyBucket()

    async def open_bucket(self, storage_id: int) -> ToyBucket:
        assert storage_id == self.storage_id
        return self.bucket

    def runner(self, pace: Pace = QUICK, database: Database | None = None, **settings: object) -> JobRunner:
        chosen = Settings(database_url=self.database.url, _env_file=None, **settings)
        return JobRunner(database or self.database, self.open_bucket, chosen, pace)

    @asynccontextmanager
    async def running(self, pace: Pace = QUICK, **settings: object) -> AsyncIterator[JobRunner]:
        runner = self.runner(pace, **settings)
        await runner.start()
        try:
            yield runner
        finally:
            async with asyncio.timeout(8):  # less than a runner waits for its last words
                await runner.aclose()

    async def attach(self, key: str = "set/manifest.jsonl", kind: JobKind = "register") -> JobRow:
        async with self.database.session() as session:
            manifest_id = await manifest_queries.attach_manifest(session, self.storage_id, key, 0)
            return await enqueue(session, Task(kind, self.owner_id, self.storage_id, manifest_id))

    async def job(self, job: JobRow) -> JobRow:
        async with self.database.session() as session:
            found = await job_queries.job_by_id(session, job.id)
        assert found is not None
        return found

    async def ended(self, job: JobRow, seconds: float = 10) -> JobRow:
        return await self.until(lambda: self._ended(job), seconds)

    async def _ended(self, job: JobRow) -> JobRow | None:
        found = await self.job(job)
        return found if found.finished_at else None

    async def taken_up(self, job: JobRow, streams: int = 1) -> None:
        """Wait until a registration reads its stream."""

        async def reading() -> bool:
            return (await self.job(job)).state == "running" and len(self.bucket.streams) >= streams

        await self.until(reading)

    async def until(self, look: "Callable[[], object]", seconds: float = 10):  # type: ignore[no-untyped-def]
        """Look until there is something to see."""
        async with asyncio.timeout(seconds):
            while not (found := await look()):  # type: ignore[misc]
                await asyncio.sleep(0.01)
        return found

    async def manifest(self, job: JobRow) -> ManifestRow:
        assert job.manifest_id is not None
        async with self.database.session() as session:
            found = await manifest_queries.manifest_by_id(session, job.manifest_id)
        assert found is not None
        return found

    async def frames(self, job: JobRow, limit: int = 1000) -> list[FrameRow]:
        manifest = await self.manifest(job)
        if manifest.revision_id is None:
            return []
        async with self.database.session() as session:
            page = await list_frames(session, manifest.revision_id, FrameFilter(), -1, limit)
        return list(page.frames)

    async def keys(self, job: JobRow) -> list[str]:
        return [frame.key for frame in await self.frames(job)]

    async def problems(self, job: JobRow) -> list[tuple[int, int, str]]:
        manifest = await self.manifest(job)
        if manifest.revision_id is None:
            return []
        async with self.database.session() as session:
            found = await manifest_queries.list_problems(session, manifest.revision_id, -1, 1000)
        return [(problem.line, problem.column, problem.code) for _, problem in found]

    async def count(self, table: str) -> int:
        async with self.database.session() as session:
            return int((await session.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one())


async def make_storage(database: Database, owner: str = "ann") -> tuple[int, int]:
    """Give the ids of a new owner and of a storage of his."""
    async with database.session() as session:
        user = text("INSERT INTO users (name, role) VALUES (:name, 'user') RETURNING id")
        owner_id = (await session.execute(user, {"name": owner})).scalar_one()
        storage = text(
            "INSERT INTO storages (uuid, owner_id, display_name, provider, bucket, auth_type)"
            " VALUES (:uuid, :owner_id, 'Pets', 's3', 'pets', 'anonymous') RETURNING id"
        )
        storage_id = (await session.execute(storage, {"uuid": uuid4(), "owner_id": owner_id})).scalar_one()
    return owner_id, storage_id


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool on this test's own database."""
    database = Database(database_url)
    yield database
    await database.aclose()


@pytest_asyncio.fixture
async def world(database: Database) -> World:
    """A storage, and what is needed to register its manifests."""
    return World(database, *await make_storage(database))


@pytest.fixture
def gate(world: World) -> asyncio.Semaphore:
    """Holds the streams of the bucket: each release lets one chunk go."""
    world.bucket.gate = asyncio.Semaphore(0)
    return world.bucket.gate
