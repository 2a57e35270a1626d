"""PostgreSQL stops and comes back: what is remembered is served for a while, the rest says 503, then all is well."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx
import pytest
import pytest_asyncio

from app.db import changes, migrate, session
from app.embedded.postgres import EmbeddedPostgres
from tests.api.conftest import Service, running, s3_body, service_settings
from tests.faults.conftest import behind, eventually, pattern, take
from tests.servers.fault_proxy import Faults
from tests.servers.fixtures import OpenProxy
from tests.servers.s3 import S3Bucket

TRUST_S = 2.0
PICTURE = pattern(40_000)
HEADER = b'{"version":"1.1"}\n{"type":"images"}\n'


def manifest(count: int) -> bytes:
    """A manifest of so many frames, all of them longer than a small object's key."""
    lines = (b'{"name":"frame-%06d","extension":".jpg","width":4,"height":3}\n' % n for n in range(count))
    return HEADER + b"".join(lines)


class OwnPostgres:
    """A PostgreSQL that only these tests use, so that it may be stopped."""

    def __init__(self, folder: Path) -> None:
        self._server = EmbeddedPostgres(folder, durable=False)
        self.url = self._server.start()

    def stop(self) -> None:
        """Stop it, as an administrator does: clients are sent away."""
        self._server.stop()

    def start(self) -> None:
        """Start it again, at the same address."""
        assert self._server.start() == self.url


@pytest.fixture(scope="module")
def own_server(servers_dir: Path) -> Iterator[OwnPostgres]:
    """The server that is stopped and started."""
    folder = servers_dir / "own-postgres"
    folder.mkdir(mode=0o700)
    server = OwnPostgres(folder)
    yield server
    server.stop()


@pytest_asyncio.fixture
async def own_postgres(own_server: OwnPostgres) -> AsyncIterator[OwnPostgres]:
    """That server, running, with the newest schema and nothing in it."""
    await migrate.upgrade(own_server.url)
    yield own_server
    own_server.start()
    await run_sql(own_server, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")


async def run_sql(server: OwnPostgres, statement: str) -> None:
    """Run a statement behind the service's back."""
    connection = await asyncpg.connect(server.url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@asynccontextmanager
async def serving(server: OwnPostgres, folder: Path, *, lane: bool = True) -> AsyncIterator[Service]:
    """A service on that server."""
    async with running(service_settings(server.url, folder), lane=lane) as service:
        yield service


async def answers_of(reader: httpx.AsyncClient, *paths: str) -> list[tuple[int, str]]:
    """Status and problem of each path."""
    answers = [await take(reader, path) for path in paths]
    assert all((got.status == 503) == ("retry-after" in got.headers) for got in answers)
    return [(got.status, got.slug) for got in answers]


GONE = (503, "database-unavailable")


@pytest.mark.parametrize("lane", [True, False], ids=["lane", "fastapi"])
async def test_what_is_remembered_is_served_for_a_while_and_all_is_well_afterwards(
    own_postgres: OwnPostgres,
    s3_bucket: S3Bucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lane: bool,
) -> None:
    monkeypatch.setattr(changes, "TRUST_S", TRUST_S)
    await s3_bucket.put("frame-000001.jpg", PICTURE)
    await s3_bucket.put("manifest.jsonl", manifest(3))
    async with serving(own_postgres, tmp_path, lane=lane) as service:
        admin = service.admin
        storage_id = await service.attach(s3_body(s3_bucket))
        registered = await service.register(storage_id, "manifest.jsonl")
        assert registered["state"] == "ready"
        picture = f"/v1/storages/{storage_id}/objects/frame-000001.jpg"
        image = f"/v1/manifests/{registered['id']}/frames/1/image"
        assert await answers_of(admin, picture, image) == [(200, ""), (200, "")]

        own_postgres.stop()
        for path in (picture, image):
            got = await take(admin, path)
            assert (got.status, got.body == PICTURE) == (200, True)
        new = f"/v1/manifests/{registered['id']}/frames"
        everything_else = ("/v1/storages", "/v1/me", "/v1/jobs", new, "/readyz")
        assert await answers_of(admin, *everything_else[2:]) == [GONE] * 3
        assert (await take(admin, "/livez")).status == 200

        async with asyncio.timeout(20):
            while (await take(admin, picture)).status == 200:
                await asyncio.sleep(0.1)
        assert await answers_of(admin, picture, image, *everything_else) == [GONE] * 7
        assert (await take(admin, "/livez")).status == 200

        own_postgres.start()
        async with asyncio.timeout(20):
            while (await take(admin, picture)).status == 503:
                await asyncio.sleep(0.1)
        well = await answers_of(admin, picture, image, *everything_else)
        assert well == [(200, "")] * 7
        again = await service.register(storage_id, "manifest.jsonl")
        assert again["state"] == "ready"


async def test_what_was_missed_while_the_channel_was_lost_is_not_served_any_more(
    own_postgres: OwnPostgres, s3_bucket: S3Bucket, tmp_path: Path
) -> None:
    """A token that was revoked in between is refused as soon as the database is heard again."""
    await s3_bucket.put("a.jpg", PICTURE)
    async with serving(own_postgres, tmp_path) as service:
        storage_id = await service.attach(s3_body(s3_bucket))
        path = f"/v1/storages/{storage_id}/objects/a.jpg"
        assert (await take(service.admin, path)).status == 200
        own_postgres.stop()
        assert (await take(service.admin, path)).status == 200
        own_postgres.start()
        await run_sql(
            own_postgres, "ALTER TABLE tokens DISABLE TRIGGER USER; UPDATE tokens SET revoked_at = now()"
        )
        async with asyncio.timeout(20):
            while (await take(service.admin, path)).status != 401:
                await asyncio.sleep(0.1)


async def test_a_listener_that_is_cut_while_it_begins_to_listen_tries_again(
    own_postgres: OwnPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that takes connections and drops them, as one that is starting behind a balancer does."""
    listen, cut = asyncpg.Connection.add_listener, 0

    async def cut_twice(connection: asyncpg.Connection, channel: str, callback: object) -> None:
        nonlocal cut
        if channel == changes.CHANNEL and cut < 2:
            cut += 1
            connection.terminate()
        await listen(connection, channel, callback)

    async with serving(own_postgres, tmp_path) as service:
        monkeypatch.setattr(changes, "TRUST_S", 0.0)
        monkeypatch.setattr(asyncpg.Connection, "add_listener", cut_twice)
        await run_sql(
            own_postgres,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ '^LISTEN|^SELECT 1'",
        )
        await eventually(lambda: cut == 2)
        async with asyncio.timeout(20):
            while (await take(service.admin, "/v1/me")).status != 200:
                await asyncio.sleep(0.1)


async def test_a_registration_that_loses_its_database_is_done_when_it_is_back(
    own_postgres: OwnPostgres, s3_bucket: S3Bucket, tmp_path: Path, fault_proxy: OpenProxy
) -> None:
    await s3_bucket.put("manifest.jsonl", manifest(20_000))
    proxy = await fault_proxy(s3_bucket.server.endpoint_url)
    async with serving(own_postgres, tmp_path) as service:
        storage_id = await service.attach(behind(proxy, s3_bucket))
        proxy.faults = Faults(bytes_per_s=400_000)
        path = f"/v1/storages/{storage_id}/manifests"
        begun = proxy.bytes_down
        queued = (await service.admin.post(path, json={"key": "manifest.jsonl"})).json()
        await eventually(lambda: proxy.bytes_down > begun + 200_000)
        own_postgres.stop()
        proxy.heal()
        await asyncio.sleep(0.3)
        own_postgres.start()
        manifest_path = f"/v1/manifests/{queued['manifest']['id']}"
        async with asyncio.timeout(30):
            while True:
                got = await service.admin.get(manifest_path)
                if got.status_code == 200 and got.json()["state"] != "pending":
                    break
                await asyncio.sleep(0.1)
        assert (got.json()["state"], got.json()["frame_count"]) == ("ready", 20_000)
        job = (await service.admin.get(f"/v1/jobs/{queued['job']['id']}")).json()
        assert (job["state"], job["errors"]) == ("succeeded", [])


async def test_background_work_outlives_a_database_that_is_being_restored(
    own_postgres: OwnPostgres, s3_bucket: S3Bucket, tmp_path: Path
) -> None:
    """Tables are away for a moment; what looks for work must not die of that."""
    await s3_bucket.put("manifest.jsonl", manifest(3))
    async with serving(own_postgres, tmp_path) as service:
        storage_id = await service.attach(s3_body(s3_bucket))
        await run_sql(own_postgres, "ALTER TABLE jobs RENAME TO away; ALTER TABLE revisions RENAME TO gone")
        await run_sql(own_postgres, "NOTIFY framegate_jobs")
        await asyncio.sleep(0.3)
        await run_sql(own_postgres, "ALTER TABLE away RENAME TO jobs; ALTER TABLE gone RENAME TO revisions")
        assert (await service.register(storage_id, "manifest.jsonl"))["state"] == "ready"


async def test_a_database_that_hangs_is_gone_too(
    database_url: str,
    s3_bucket: S3Bucket,
    tmp_path: Path,
    fault_proxy: OpenProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As behind a pulled cable: connections stay, answers do not come."""
    monkeypatch.setattr(session, "QUERY_TIMEOUT_S", 1)
    await s3_bucket.put("a.jpg", PICTURE)
    proxy = await fault_proxy(database_url, raw=True)
    async with running(service_settings(proxy.url(database_url), tmp_path)) as service:
        picture = f"/v1/storages/{await service.attach(s3_body(s3_bucket))}/objects/a.jpg"
        assert (await take(service.admin, picture)).status == 200
        proxy.faults = Faults(stall_before_head=True)
        assert (await take(service.admin, picture)).status == 200
        async with asyncio.timeout(15):
            hung = await asyncio.gather(*(answers_of(service.admin, "/v1/storages") for _ in range(15)))
        assert hung == [[GONE]] * 15
        proxy.heal()
        async with asyncio.timeout(20):
            while await answers_of(service.admin, "/v1/storages") != [(200, "")]:
                await asyncio.sleep(0.1)


async def test_a_long_registration_is_not_taken_for_a_database_that_hangs(
    own_postgres: OwnPostgres,
    s3_bucket: S3Bucket,
    tmp_path: Path,
    fault_proxy: OpenProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "QUERY_TIMEOUT_S", 1)
    await s3_bucket.put("manifest.jsonl", manifest(10_000))
    proxy = await fault_proxy(s3_bucket.server.endpoint_url)
    async with serving(own_postgres, tmp_path) as service:
        storage_id = await service.attach(behind(proxy, s3_bucket))
        proxy.faults = Faults(bytes_per_s=250_000)
        registered = await service.register(storage_id, "manifest.jsonl")
        assert (registered["state"], registered["frame_count"]) == ("ready", 10_000)
