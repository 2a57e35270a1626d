"""Starts one server program, waits until it is ready, and stops it by its own process id."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.embedded import EmbeddedServerError
from app.embedded import launch as launcher

LOOPBACK = "127.0.0.1"
POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class SystemUser:
    """The user and group ids that a server runs as when Framegate itself runs as root."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Program:
    """What to run: an absolute program with arguments, where, with which environment, as whom."""

    name: str
    command: Sequence[str]
    folder: Path
    log_file: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    user: SystemUser | None = None
    death_signal: signal.Signals = signal.SIGTERM
    """What the program gets when our process dies without having stopped it (Linux)."""


class ServerProcess:
    """A started program, in a session of its own: a terminal's Ctrl-C reaches us alone."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._process = _launch(program)

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    def wait_ready(self, is_ready: Callable[[], bool], timeout_s: float) -> None:
        """Wait until `is_ready`; raises `EmbeddedServerError` when it ended or was stopped as too slow."""
        deadline = time.monotonic() + timeout_s
        while not is_ready():
            if self._process.poll() is not None:
                raise EmbeddedServerError(f"{self._program.name} ended at its start: {self._last_words()}")
            if time.monotonic() > deadline:
                self.stop()
                raise EmbeddedServerError(
                    f"{self._program.name} was not ready in {timeout_s:g} s: {self._last_words()}"
                )
            time.sleep(POLL_S)

    def stop(self, stop_signal: signal.Signals = signal.SIGTERM, timeout_s: float = 10) -> None:
        """Stop the program, by force after `timeout_s`; returns when it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(stop_signal)
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _last_words(self) -> str:
        lines = self._program.log_file.read_text(errors="replace").strip().splitlines()[-5:]
        return " | ".join(line.strip() for line in lines) or "it said nothing"


def _launch(program: Program) -> subprocess.Popen[bytes]:
    # The kernel's death signal follows the thread that forked, not the process.
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("start servers from the main thread: they die with the thread that starts them")
    uid, gid = (program.user.uid, program.user.gid) if program.user else (launcher.SAME_USER,) * 2
    facts = [os.getpid(), int(program.death_signal), uid, gid]
    wrapper = [sys.executable, "-I", "-S", launcher.__file__, *map(str, facts)]
    with _private_file(program.log_file) as log:
        return subprocess.Popen(  # noqa: S603  # an explicit list, no shell
            [*wrapper, *program.command],
            cwd=program.folder,
            env=dict(program.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


@contextlib.contextmanager
def _private_file(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def stop_by_id(
    pid: int, is_gone: Callable[[], bool], stop_signal: signal.Signals, timeout_s: float = 10
) -> None:
    """Stop a server that another, vanished process of ours started; by force after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, stop_signal)
        while not is_gone():
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                break
            time.sleep(POLL_S)


def is_alive(pid: int) -> bool:
    """Whether some process has this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def accepts(port: int) -> bool:
    """Whether something on this machine takes connections at the port."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True


def free_ports(count: int, *, preferred: Sequence[int] = ()) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on: the preferred ones if all of them are free."""
    if len(preferred) == count and (same := _bound(preferred)):
        return same
    return _bound([0] * count)


def _bound(ports: Sequence[int]) -> list[int]:
    with contextlib.ExitStack() as sockets:
        found = []
        for port in ports:
            listener = sockets.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((LOOPBACK, port))
            except OSError:
                return []
            found.append(listener.getsockname()[1])
        return found
