"""Becomes a server: `python -I -S launch.py PARENT_PID DEATH_SIGNAL UID GID PROGRAM [ARGUMENT...]`.

A program of its own, since what it does (changing the user, asking for a signal when the parent dies) would
otherwise have to run between fork and exec, where a process with threads may deadlock.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
SAME_USER = -1


def main(arguments: list[str]) -> None:
    """Replace this process by the program; never returns."""
    parent_pid, death_signal, uid, gid = (int(text) for text in arguments[:4])
    if uid != SAME_USER:
        become(uid, gid)
    if sys.platform == "linux":
        die_with(parent_pid, death_signal)
    program = arguments[4:]
    os.execv(program[0], program)  # noqa: S606  # an explicit list, no shell


def become(uid: int, gid: int) -> None:
    """Give up root for good."""
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def die_with(parent_pid: int, death_signal: int) -> None:
    """Ask the kernel for a signal at the parent's death; `become` afterwards would undo it (prctl(2))."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal)
    if os.getppid() != parent_pid:
        sys.exit("the process that wanted this server is gone")


if __name__ == "__main__":
    main(sys.argv[1:])
