"""What a benchmark ran on, in one line."""

import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

from bench.load import wrk_version
from bench.processes import Running, find_program


class Neighbours:
    """How much of the machine programs that are not ours took: what makes figures noisy."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._busy_s = _busy_s() - _ours_s()

    def cores(self) -> float:
        """Give how many cores they kept busy, on average since this was made."""
        return max(0.0, (_busy_s() - _ours_s() - self._busy_s) / (time.monotonic() - self._began))

    def __str__(self) -> str:
        return f"meanwhile other programs kept {self.cores():.1f} of {os.cpu_count()} cores busy"


def _busy_s() -> float:
    # proc(5): user nice system idle iowait irq softirq steal
    ticks = [int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def _ours_s() -> float:
    ended = os.times()
    return Running(os.getpid()).cpu_s() + ended.children_user + ended.children_system


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
