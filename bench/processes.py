"""Starts the programs that a benchmark compares, reads what they use, and stops each by its own id."""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from app.embedded.process import LOOPBACK, Program, ServerProcess, accepts, free_ports

ROOT = Path(__file__).resolve().parents[1]
PYTHON = sys.executable
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_START_TIMEOUT_S = 60.0

__all__ = [
    "LOOPBACK",
    "PYTHON",
    "ROOT",
    "Running",
    "find_program",
    "free_port",
    "running",
    "stopped_by_signals",
]


@dataclass(frozen=True, slots=True)
class Running:
    """A started program and every process that it started."""

    pid: int
    not_counted: frozenset[str] = field(default=frozenset())
    """Names of child programs whose memory is not the program's own (their CPU time is counted)."""

    def cpu_s(self) -> float:
        """Give the CPU seconds used so far, in user and system mode, by the whole family."""
        return sum(map(_cpu_s, self._family()))

    def memory_bytes(self) -> int:
        """Give the memory that the family holds now (resident set)."""
        return sum(_memory(pid, "VmRSS") for pid in self._own())

    def peak_memory_bytes(self) -> int:
        """Give the sum of the most that each process has held since its start, or since `forget_peak`."""
        return sum(_memory(pid, "VmHWM") for pid in self._own())

    def forget_peak(self) -> None:
        """Begin to look for the peak anew (proc(5), `clear_refs`)."""
        for pid in self._own():
            with suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")

    def open_sockets(self) -> int:
        """Give how many sockets the family holds open."""
        return sum(_sockets(pid) for pid in self._own())

    def _own(self) -> list[int]:
        return [pid for pid in self._family() if _read(pid, "comm").strip() not in self.not_counted]

    def _family(self) -> list[int]:
        found = [self.pid]
        for pid in found:  # grows while it is read
            found += _children(pid)
        return found


@contextmanager
def running(
    name: str,
    command: Sequence[str],
    folder: Path,
    port: int,
    *,
    environment: Mapping[str, str] | None = None,
    ready: Callable[[], bool] | None = None,
    not_counted: frozenset[str] = frozenset(),
) -> Iterator[Running]:
    """Run a program until the block ends; it begins when `ready`, or when the port takes connections.

    The program dies with us, however we end. Raises `EmbeddedServerError` when it does not start.
    """
    plain = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder), "PYTHONPATH": str(ROOT)}
    program = Program(name, command, folder, folder / f"{name}.log", {**plain, **(environment or {})})
    process = ServerProcess(program)
    try:
        process.wait_ready(ready or (lambda: accepts(port)), _START_TIMEOUT_S)
        yield Running(process.pid, not_counted)
    finally:
        process.stop()


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Leave the block on SIGTERM as on Ctrl-C, so that everything started in it is stopped."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def find_program(name: str) -> str | None:
    """Give a program of the virtual environment or of the machine; None where there is none."""
    places = [str(Path(PYTHON).parent), os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"]
    return shutil.which(name, path=os.pathsep.join(places))


def free_port() -> int:
    """Give a port of 127.0.0.1 that nobody listens on."""
    return free_ports(1)[0]


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, task.read_text().split())
    return found


def _cpu_s(pid: int) -> float:
    # The name in parentheses may hold anything; after it, utime and stime are the 12th and 13th field.
    fields = _read(pid, "stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S if fields else 0.0


def _memory(pid: int, name: str) -> int:
    for line in _read(pid, "status").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def _sockets(pid: int) -> int:
    count = 0
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                count += os.readlink(entry.path).startswith("socket:")
    return count


def _read(pid: int, name: str) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_text()
    return ""
