"""Rendering processes as the machine sees them."""

from contextlib import suppress
from pathlib import Path


def lives(pid: int) -> bool:
    """Whether a process runs, and is no zombie."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


def rendering_processes(parent_pid: int) -> list[int]:
    """The ids of the rendering processes that a process has."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            if b"app.images.worker" in arguments and str(parent_pid).encode() in arguments:
                found.append(int(entry.name))
    return [pid for pid in found if lives(pid)]
