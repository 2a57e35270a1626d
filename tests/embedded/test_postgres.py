"""The embedded PostgreSQL keeps its data, its secrets and its place in the process tree."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import pytest

from app.embedded import EmbeddedServerError
from app.embedded import postgres as subject
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.process import is_alive

HOLD = """
import sys, time
from pathlib import Path
from app.embedded.postgres import EmbeddedPostgres
print(EmbeddedPostgres(Path(sys.argv[1]), durable=False).start(), flush=True)
time.sleep(600)
"""


@pytest.fixture
def data_dir(servers_dir: Path, request: pytest.FixtureRequest) -> Path:
    return servers_dir / "closed" / request.node.name / "postgres"


async def value(url: str, query: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def server_pid(data_dir: Path) -> int:
    return int((data_dir / "cluster" / "postmaster.pid").read_text().split()[0])


def gone(pid: int, within_s: float = 20) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not is_alive(pid) or Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


async def test_keeps_data_password_and_port_over_a_restart(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as first:
        await value(first, "CREATE TABLE kept AS SELECT 7 AS n")
    with EmbeddedPostgres(data_dir) as second:
        assert second == first
        assert await value(second, "SELECT n FROM kept") == 7
        assert await value(second, "SHOW server_encoding") == "UTF8"


async def test_nothing_is_open_to_other_users(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir, durable=False) as url:
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in data_dir.iterdir()}
        assert modes.pop("cluster") == 0o700
        assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
        assert set(modes.values()) == {0o600}
        assert (
            await value(url, "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method != 'scram-sha-256'")
            == 0
        )
        assert await value(url, "SHOW unix_socket_directories") == ""
        assert await value(url, "SHOW listen_addresses") == "127.0.0.1"
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(url.replace("framegate:", "framegate:x"))


async def test_wanted_folder_may_lie_below_a_private_one(data_dir: Path) -> None:
    data_dir.parent.mkdir(parents=True)
    data_dir.parent.chmod(0o700)
    with EmbeddedPostgres(data_dir, durable=False) as url:
        assert await value(url, "SELECT 1") == 1


async def test_second_user_shares_the_running_server(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir, durable=False) as first:
        with EmbeddedPostgres(data_dir, durable=False) as second:
            assert second == first
        assert await value(first, "SELECT 1") == 1


def test_exclusive_user_is_told_who_runs_the_server(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "ANOTHER_PROCESS_TIMEOUT_S", 0.1)
    with (
        EmbeddedPostgres(data_dir, durable=False),
        pytest.raises(EmbeddedServerError, match=str(os.getpid())),
    ):
        EmbeddedPostgres(data_dir, durable=False, exclusive=True).start()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no death signal")
async def test_server_dies_with_a_killed_process_and_recovers(data_dir: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(data_dir)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    url = holder.stdout.readline().decode().strip()
    await value(url, "CREATE TABLE kept AS SELECT 7 AS n")
    pid = server_pid(data_dir)
    assert os.getsid(pid) != os.getsid(0), "a terminal's Ctrl-C would reach it"
    holder.kill()
    holder.communicate()
    assert gone(pid)
    with EmbeddedPostgres(data_dir, durable=False) as again:
        assert await value(again, "SELECT n FROM kept") == 7


UNBOUND = """
import dataclasses
from app.embedded.postgres import EmbeddedPostgres as E
bound = E._program
E._program = lambda *a: dataclasses.replace(bound(*a), death_signal=0)
"""


async def test_orphan_is_taken_over_and_stopped(data_dir: Path) -> None:
    """Where no death signal exists a killed process leaves its server behind."""
    holder = subprocess.Popen([sys.executable, "-c", UNBOUND + HOLD, str(data_dir)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    url = holder.stdout.readline().decode().strip()
    pid = server_pid(data_dir)
    holder.kill()
    holder.communicate()
    with EmbeddedPostgres(data_dir, durable=False) as again:
        assert (again, server_pid(data_dir)) == (url, pid)
        assert await value(again, "SELECT 1") == 1
    assert gone(pid)


async def test_crashed_server_starts_again(data_dir: Path) -> None:
    first = EmbeddedPostgres(data_dir)
    await value(first.start(), "CREATE TABLE kept AS SELECT 7 AS n")
    os.kill(server_pid(data_dir), signal.SIGKILL)
    first.stop()
    with EmbeddedPostgres(data_dir) as url:
        assert await value(url, "SELECT n FROM kept") == 7


async def test_stale_pid_file_naming_another_program_is_no_hindrance(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir, durable=False):
        pid_file = data_dir / "cluster" / "postmaster.pid"
        stale = pid_file.read_text().split("\n", 1)[1]
    pid_file.write_text(f"{os.getpid()}\n{stale}")
    with EmbeddedPostgres(data_dir, durable=False) as url:
        assert await value(url, "SELECT 1") == 1


async def test_taken_port_is_left_to_its_owner(data_dir: Path) -> None:
    import socket

    with EmbeddedPostgres(data_dir, durable=False) as first:
        pass
    port = int(first.rpartition(":")[2].partition("/")[0])
    with socket.create_server(("127.0.0.1", port)), EmbeddedPostgres(data_dir, durable=False) as second:
        assert second != first
        assert await value(second, "SELECT 1") == 1


async def test_interrupted_creation_leaves_nothing_half_made(data_dir: Path) -> None:
    (data_dir / "cluster.new" / "base").mkdir(parents=True)
    with EmbeddedPostgres(data_dir, durable=False) as url:
        assert await value(url, "SELECT 1") == 1


def test_data_of_another_major_version_is_refused(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir, durable=False):
        pass
    (data_dir / "cluster" / "PG_VERSION").write_text("9\n")
    with pytest.raises(EmbeddedServerError, match="made by PostgreSQL 9"):
        EmbeddedPostgres(data_dir, durable=False).start()


def test_missing_programs_are_named(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "_bin_folders", lambda: iter([Path("/nowhere")]))
    with pytest.raises(EmbeddedServerError, match="PG_BIN"):
        EmbeddedPostgres(data_dir).start()


async def test_programs_below_a_private_folder_are_copied(
    data_dir: Path, servers_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = servers_dir / "private"
    private.mkdir(mode=0o700)
    package = next(folder for folder in subject._bin_folders()).parents[1]
    shutil.copytree(package, private / package.name, ignore=shutil.ignore_patterns("pginstall"))
    shutil.copytree(package.with_name(f"{package.name}.libs"), private / f"{package.name}.libs")
    monkeypatch.setenv("PG_BIN", str(private / package.name / "pginstall18" / "bin"))
    monkeypatch.setattr("tempfile.tempdir", str(servers_dir))
    servers_dir.chmod(0o711)
    with EmbeddedPostgres(data_dir, durable=False) as url:
        assert await value(url, "SELECT 1") == 1


def test_start_from_another_thread_is_refused(data_dir: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor() as pool, pytest.raises(RuntimeError, match="main thread"):
        pool.submit(EmbeddedPostgres(data_dir, durable=False).start).result()
