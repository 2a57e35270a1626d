"""Runs the `framegate` command as a user would: another process, its own environment."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

COMMAND = Path(sys.executable).with_name("framegate")
START_S = 60


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


def environment(**variables: str) -> dict[str, str]:
    """The machine's environment without any of Framegate's variables, and these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FRAMEGATE_")}
    return kept | {"COLUMNS": "200"} | {f"FRAMEGATE_{name}": value for name, value in variables.items()}


async def framegate(*arguments: str, cwd: Path, **variables: str) -> Ended:
    """Run a command to its end."""
    process = await asyncio.create_subprocess_exec(
        str(COMMAND),
        *arguments,
        cwd=cwd,
        env=environment(**variables),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), START_S)
    return Ended(process.returncode or 0, out.decode(), err.decode())


@dataclass
class Running:
    """A command that goes on, its address, and what it wrote so far."""

    process: asyncio.subprocess.Process
    url: str
    log: Path

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Tell it to stop and give its exit code."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), START_S)

    @property
    def text(self) -> str:
        """Both of its outputs."""
        return self.log.read_text()


def unused_port() -> int:
    """A port of loopback that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@asynccontextmanager
async def going_on(*arguments: str, cwd: Path, **variables: str) -> AsyncIterator[Running]:
    """Run a command that serves on a free port, until the block ends."""
    port = unused_port()
    log = cwd / f"log-{port}"
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            str(COMMAND),
            *arguments,
            "--port",
            str(port),
            cwd=cwd,
            env=environment(**variables),
            stdout=file,
            stderr=file,
        )
    running = Running(process, f"http://127.0.0.1:{port}", log)
    try:
        await _ready(running)
        yield running
    finally:
        await running.stop()


async def _ready(running: Running) -> None:
    deadline = asyncio.get_running_loop().time() + START_S
    async with httpx.AsyncClient(trust_env=False, timeout=START_S) as asking:
        while asyncio.get_running_loop().time() < deadline:
            assert running.process.returncode is None, running.text
            try:
                if (await asking.get(f"{running.url}/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)
    raise AssertionError(running.text)
