"""What a benchmark ran on, in one line."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from bench.load import wrk_version
from bench.processes import find_program


def machine() -> str:
    """Name processor, Python, loop and the peers' versions, and how busy the machine was."""
    facts = [
        f"{os.cpu_count()} cores ({_processor()})",
        f"{platform.system()} {platform.release()}",
        f"Python {platform.python_version()}",
        *(f"{name} {version(name)}" for name in ("uvloop", "httptools", "uvicorn", "aiobotocore", "fastapi")),
        _nginx_version(),
        wrk_version() or "no wrk",
        f"load average before {os.getloadavg()[0]:.1f}",
    ]
    return "machine: " + ", ".join(facts)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.machine()


def _nginx_version() -> str:
    program = find_program("nginx")
    if program is None:
        return "no nginx"
    said = subprocess.run([program, "-v"], capture_output=True, text=True, check=False)
    return said.stderr.strip().rpartition(" ")[2] if "/" not in said.stderr else _named(said.stderr)


def _named(text: str) -> str:
    return "nginx " + text.partition("/")[2].split()[0]
