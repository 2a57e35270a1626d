"""The `framegate` command: exit codes, one line for each fault, and a service that starts and stops."""

import asyncio
import base64
import os
import re
import socket
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from tests.api.conftest import client, s3_body
from tests.cli.command import framegate, going_on
from tests.servers.s3 import S3Bucket

KEYS = "k1:" + base64.b64encode(os.urandom(32)).decode()


def one_line(text: str) -> str:
    """The only line of a text."""
    lines = text.splitlines()
    assert len(lines) == 1, text
    return lines[0]


@pytest.mark.parametrize(
    ("name", "value"), [("UPSTREAM_QUEUE", "many"), ("ALLOWED_PRIVATE_ENDPOINTS", "10.0.0.0/99")]
)
async def test_a_wrong_setting_stops_the_start_with_one_line(tmp_path: Path, name: str, value: str) -> None:
    ended = await framegate("serve", cwd=tmp_path, **{name: value})
    assert ended.code == 1
    assert one_line(ended.err).startswith(f"framegate: FRAMEGATE_{name}: ")
    assert f"Example: FRAMEGATE_{name}=" in ended.err


@pytest.mark.parametrize("arguments", [["nothing"], ["serve", "--port", "x"], ["token", "create"]])
async def test_wrong_usage_is_exit_2(tmp_path: Path, arguments: list[str]) -> None:
    assert (await framegate(*arguments, cwd=tmp_path)).code == 2


async def test_a_taken_port_names_the_option(tmp_path: Path, database_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = await framegate(
            "serve", "--port", port, cwd=tmp_path, DATABASE_URL=database_url, SECRET_KEYS=KEYS
        )
    assert ended.code == 1
    assert "--port" in one_line(ended.err)


async def test_an_external_database_wants_keys(tmp_path: Path, database_url: str) -> None:
    ended = await framegate("serve", "--port", "1", cwd=tmp_path, DATABASE_URL=database_url)
    assert ended.code == 1
    ended = await framegate("secrets", "rotate", cwd=tmp_path, DATABASE_URL=database_url)
    assert (ended.code, "FRAMEGATE_SECRET_KEYS" in one_line(ended.err)) == (1, True)


async def test_a_database_that_is_not_there_is_one_line(tmp_path: Path, database_url: str) -> None:
    nowhere = database_url.rpartition("/")[0] + "/nowhere"
    ended = await framegate("migrate", cwd=tmp_path, DATABASE_URL=nowhere)
    assert ended.code == 1
    assert "FRAMEGATE_DATABASE_URL" in one_line(ended.err)


async def test_a_stale_schema_names_the_command_and_a_newer_one_is_refused(
    tmp_path: Path, empty_database_url: str
) -> None:
    setting = {"DATABASE_URL": empty_database_url, "SECRET_KEYS": KEYS}
    stale = await framegate("serve", "--port", "65000", cwd=tmp_path, **setting)
    assert (stale.code, "framegate migrate" in one_line(stale.err)) == (1, True)
    assert (await framegate("migrate", cwd=tmp_path, **setting)).code == 0
    async with going_on("serve", cwd=tmp_path, **setting) as service, client(service.url) as nobody:
        assert (await nobody.get("/readyz")).status_code == 200
    connection = await asyncpg.connect(empty_database_url)
    await connection.execute("UPDATE alembic_version SET version_num = 'from the future'")
    await connection.close()
    for command in (["serve", "--port", "65000"], ["migrate"]):
        newer = await framegate(*command, cwd=tmp_path, **setting)
        assert (newer.code, "newer" in one_line(newer.err)) == (1, True)


async def test_a_token_is_printed_alone_and_opens_the_door(tmp_path: Path) -> None:
    async with going_on("serve", cwd=tmp_path) as service:
        made = await framegate("token", "create", "--name", "ann", "--role", "admin", cwd=tmp_path)
        assert (made.code, made.err) == (0, "")
        assert re.fullmatch(r"fg_[\w-]{32}\n", made.out)
        async with client(service.url, made.out.strip()) as ann:
            assert (await ann.get("/v1/me")).json()["role"] == "admin"
        other = await framegate("token", "create", "--name", "ann", "--role", "user", cwd=tmp_path)
        assert (other.code, other.out) == (1, "")
        assert "admin" in one_line(other.err)
        odd = await framegate("token", "create", "--name", "a b", cwd=tmp_path)
        assert (odd.code, odd.out) == (1, "")
        soon = await framegate("token", "create", "--name", "ann", "--expires", "soon", cwd=tmp_path)
        assert soon.code == 2
        data = tmp_path / ".framegate"
        assert data.stat().st_mode & 0o777 == 0o700
        assert (data / "secret-keys").stat().st_mode & 0o777 == 0o600
        assert await service.stop() == 0


async def attached(url: str, token: str, bucket: S3Bucket) -> int:
    """Attach a bucket over HTTP."""
    async with client(url, token) as one:
        answer = await one.post("/v1/storages", json=s3_body(bucket))
        assert answer.status_code == 201, answer.text
        return int(answer.json()["id"])


async def read(url: str, token: str, storage: int) -> httpx.Response:
    """Read the one object of a test bucket."""
    async with client(url, token) as one:
        return await one.get(f"/v1/storages/{storage}/objects/a.jpg")


async def test_keys_are_rotated_and_a_lost_one_is_no_crash(
    tmp_path: Path, database_url: str, s3_bucket: S3Bucket
) -> None:
    await s3_bucket.put("a.jpg", b"picture")
    old, new = (f"{name}:{base64.b64encode(os.urandom(32)).decode()}" for name in ("old", "new"))
    setting: dict[str, Any] = {"DATABASE_URL": database_url, "ALLOWED_PRIVATE_ENDPOINTS": "127.0.0.1"}
    token = (await framegate("token", "create", "--name", "ann", cwd=tmp_path, **setting)).out.strip()
    async with going_on("serve", cwd=tmp_path, SECRET_KEYS=old, **setting) as service:
        storage = await attached(service.url, token, s3_bucket)
    async with going_on("serve", cwd=tmp_path, SECRET_KEYS=new, **setting) as service:
        lost = await read(service.url, token, storage)
        assert (lost.status_code, lost.json()["type"]) == (502, "/problems/credential-unreadable")
        async with client(service.url, token) as one:
            health = (await one.get(f"/v1/storages/{storage}/health")).json()
            assert (health["ok"], health["state"]) == (False, "misconfigured")
    failed = await framegate("secrets", "rotate", cwd=tmp_path, SECRET_KEYS=new, **setting)
    assert (failed.code, str(storage) in failed.err) == (1, True)
    done = await framegate("secrets", "rotate", cwd=tmp_path, SECRET_KEYS=f"{new},{old}", **setting)
    assert (done.code, done.out) == (0, "1 storages sealed anew, 0 were already.\n")
    async with going_on("serve", cwd=tmp_path, SECRET_KEYS=new, **setting) as service:
        found = await read(service.url, token, storage)
        assert (found.status_code, found.content) == (200, b"picture")


async def test_two_workers_answer_and_count_together(tmp_path: Path, database_url: str) -> None:
    setting = {"DATABASE_URL": database_url, "SECRET_KEYS": KEYS}
    token = (await framegate("token", "create", "--name", "ann", cwd=tmp_path, **setting)).out.strip()
    async with going_on("serve", "--workers", "2", cwd=tmp_path, **setting) as service:
        for _ in range(12):
            async with client(service.url, token) as one:
                assert (await one.get("/v1/me")).status_code == 200
        counted = 'framegate_requests_total{method="GET",route="get_me",status="200"} 12.0'
        async with client(service.url) as nobody, asyncio.timeout(15):
            # The worker that is asked tells its own requests at once, the other one a moment later.
            while counted not in (await nobody.get("/metrics")).text:
                await asyncio.sleep(0.05)
        assert await service.stop() == 0


async def test_a_worker_registers_what_a_service_without_jobs_queued(
    tmp_path: Path, database_url: str, s3_bucket: S3Bucket
) -> None:
    from tests.api.test_manifests import HEAD, lines

    await s3_bucket.put("manifest.jsonl", HEAD + lines(3))
    setting = {
        "DATABASE_URL": database_url,
        "SECRET_KEYS": KEYS,
        "ALLOWED_PRIVATE_ENDPOINTS": "127.0.0.1",
        "INLINE_JOBS": "false",
    }
    token = (await framegate("token", "create", "--name", "ann", cwd=tmp_path, **setting)).out.strip()
    async with going_on("serve", cwd=tmp_path, **setting) as service, client(service.url, token) as one:
        storage = await attached(service.url, token, s3_bucket)
        path = f"/v1/storages/{storage}/manifests"
        waited = await one.post(path, json={"key": "manifest.jsonl"}, headers={"Prefer": "wait=1"})
        assert (waited.status_code, waited.json()["manifest"]["state"]) == (202, "pending")
        async with working(tmp_path, **setting):
            job = waited.json()["job"]["id"]
            assert await ended(one, job) == "succeeded"


async def ended(one: httpx.AsyncClient, job: str) -> str:
    """Wait for a job's end."""
    import asyncio

    for _ in range(300):
        state = str((await one.get(f"/v1/jobs/{job}")).json()["state"])
        if state not in {"queued", "running"}:
            return state
        await asyncio.sleep(0.1)
    return "never"


def working(cwd: Path, **setting: str) -> Any:
    """Run `framegate worker` for as long as the block lasts."""
    import asyncio
    from contextlib import asynccontextmanager

    from tests.cli.command import COMMAND, environment

    @asynccontextmanager
    async def run() -> Any:
        process = await asyncio.create_subprocess_exec(
            str(COMMAND), "worker", cwd=cwd, env=environment(**setting)
        )
        try:
            yield
        finally:
            process.terminate()
            assert await asyncio.wait_for(process.wait(), 30) == 0

    return run()
