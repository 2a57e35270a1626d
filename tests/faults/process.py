"""`framegate serve` as a process of its own, to be stopped, killed and weighed."""

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from app.db.session import Database
from app.embedded.process import free_ports
from app.services.access import issue_token
from tests.api.conftest import client

ROOT = Path(__file__).parents[2]
PATIENCE_S = 30
"""Ends a test that would hang; nothing is measured by it."""


class Serving:
    """One running service, its admin's token, and what it wrote to its log."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, token: str, log_file: Path) -> None:
        self.process = process
        self.url = url
        self.admin = client(url, token)
        self.log_file = log_file

    @classmethod
    @asynccontextmanager
    async def run(
        cls, database_url: str, folder: Path, workers: int = 1, **settings: Any
    ) -> AsyncIterator["Serving"]:
        """Start one and wait until it answers; whatever is left of it at the end is killed."""
        port = free_ports(1)[0]
        log_file = folder / f"serve-{port}.log"
        with log_file.open("wb") as log:
            # As the installed command does, but with the sources beside these tests.
            command = [sys.executable, "-c", "from app.cli import main; main()"]
            process = subprocess.Popen(
                [*command, "serve", "--port", str(port), "--workers", str(workers)],
                cwd=ROOT,
                env=_environment(database_url, folder, settings),
                stdout=log,
                stderr=log,
                start_new_session=True,  # so that its workers can be ended with it
            )
        serving = cls(process, f"http://127.0.0.1:{port}", await _token(database_url), log_file)
        try:
            await serving.ready()
            yield serving
        finally:
            await serving.admin.aclose()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    async def ready(self) -> None:
        """Wait until it is ready."""
        async with asyncio.timeout(PATIENCE_S), client(self.url) as anybody:
            while True:
                assert self.process.poll() is None, self.log()
                with suppress(httpx.TransportError):
                    if (await anybody.get("/readyz")).status_code == 200:
                        return
                await asyncio.sleep(0.05)

    async def attach(self, body: dict[str, Any]) -> str:
        """Attach a storage, and give the path that its keys are put behind."""
        answer = await self.admin.post("/v1/storages", json=body)
        assert answer.status_code == 201, answer.text
        return f"/v1/storages/{answer.json()['id']}/objects"

    def terminate(self) -> None:
        """Ask it to stop."""
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it without a last word."""
        self.process.kill()
        self.process.wait()

    async def exit_code(self) -> int:
        """Wait for its end."""
        async with asyncio.timeout(PATIENCE_S):
            while (code := self.process.poll()) is None:
                await asyncio.sleep(0.02)
        return code

    def log(self) -> str:
        """What it wrote."""
        return self.log_file.read_text()

    def events(self, level: str) -> list[dict[str, Any]]:
        """The lines of its log that have a level."""
        lines = (line for line in self.log().splitlines() if line.startswith("{"))
        return [event for line in lines if (event := json.loads(line)).get("level") == level]

    @property
    def open_descriptors(self) -> int:
        """How many files and sockets it holds open (Linux)."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    @property
    def memory_bytes(self) -> int:
        """What it occupies of the machine's memory now."""
        with suppress(FileNotFoundError):
            pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
            return pages * os.sysconf("SC_PAGE_SIZE")
        command = ["ps", "-o", "rss=", "-p", str(self.process.pid)]
        return int(subprocess.run(command, capture_output=True, check=True).stdout) * 1024


def _environment(database_url: str, folder: Path, settings: dict[str, Any]) -> dict[str, str]:
    values = {
        "database_url": database_url,
        "data_dir": folder,
        "secret_keys": "k1:" + base64.b64encode(b"\7" * 32).decode(),
        "allowed_private_endpoints": "127.0.0.0/8",
        "log_format": "json",
        "grace_s": 2,
    } | settings
    return {**os.environ, **{f"FRAMEGATE_{name.upper()}": str(value) for name, value in values.items()}}


async def _token(database_url: str) -> str:
    database = Database(database_url, pool_size=1)
    try:
        return (await issue_token(database, "root", "admin", None)).text
    finally:
        await database.aclose()
