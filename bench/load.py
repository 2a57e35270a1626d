"""Load, made by `wrk`: so many connections, each asking again as soon as it was answered."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.processes import find_program

_REPORT = """
done = function(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        '\\n{"requests": %d, "micros": %d, "bytes": %d, "p50": %d, "p99": %d, "failed": %d}\\n',
        summary.requests, summary.duration, summary.bytes, latency:percentile(50), latency:percentile(99),
        errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of load has seen."""

    requests: int
    seconds: float
    received_bytes: int
    p50_ms: float
    p99_ms: float
    failed: int
    """Answers other than 2xx and 3xx, broken connections and time-outs."""


def wrk_version() -> str | None:
    """Give what `wrk` calls itself; None where it is not installed."""
    program = find_program("wrk")
    if program is None:
        return None
    said = subprocess.run([program, "-v"], capture_output=True, text=True, check=False)  # its exit code is 1
    return " ".join((said.stdout + said.stderr).split()[:2])


def run_wrk(url: str, headers: Mapping[str, str], *, connections: int, seconds: int, folder: Path) -> Load:
    """Ask a URL for so long, from one thread; raises `RuntimeError` when `wrk` did not report."""
    script = folder / "report.lua"
    script.write_text(_REPORT)
    command = [find_program("wrk") or "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s"]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    said = subprocess.run([*command, "-s", str(script), url], capture_output=True, text=True, check=False)
    return _load(said.stdout)


def _load(text: str) -> Load:
    line = text.strip().rpartition("\n")[2]
    if not line.startswith("{"):
        raise RuntimeError(f"wrk gave no report: {text.strip()[-200:]}")
    report = json.loads(line)
    return Load(
        requests=report["requests"],
        seconds=report["micros"] / 1e6,
        received_bytes=report["bytes"],
        p50_ms=report["p50"] / 1000,
        p99_ms=report["p99"] / 1000,
        failed=report["failed"],
    )
