"""A rendering process: `python -m app.images.worker PARENT_PID` reads pictures on stdin and answers on stdout.

It holds nothing that is worth having: no credential, no socket, next to no environment. It ends with its input,
and with its parent, however that ends.
"""

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import BinaryIO

from app.errors import NotAPictureError, PictureTooLargeError
from app.images.rendition import Rendition
from app.images.wire import READY, REQUEST_HEAD_BYTES, Outcome, answer_head, read_request_head

MOST_MEMORY_BYTES = 1536 * 1024 * 1024
"""Address space: a hundred million pixels of four bytes, twice, beside the libraries and the picture's bytes."""
_MOST_OPEN_FILES = 64
_LESS_URGENT = 5
"""Streams go first: a picture may take a moment longer."""
_PR_SET_PDEATHSIG = 1

Render = Callable[[bytes, Rendition], bytes]


def main() -> None:
    """Answer requests until there are no more."""
    _confine(int(sys.argv[1]))
    with os.fdopen(0, "rb") as requests, os.fdopen(os.dup(1), "wb") as answers:
        # Within the limits, too: what the decoders' libraries take is part of what the process may have.
        from app.images.render import render  # noqa: PLC0415

        _silence()
        answers.write(READY)
        answers.flush()
        while _answer_one(requests, answers, render):
            answers.flush()


def _confine(parent_pid: int) -> None:
    """Give up what a decoder does not need, so that a hostile picture has little to gain."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.nice(_LESS_URGENT)
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        sys.exit("the service that wanted this process is gone")
    for limit, most in (
        (resource.RLIMIT_AS, MOST_MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _MOST_OPEN_FILES),
    ):
        resource.setrlimit(limit, (most, most))


def _silence() -> None:
    """Take stdout and stderr away from the libraries, which print what they think of a picture."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _answer_one(requests: BinaryIO, answers: BinaryIO, render: Render) -> bool:
    head = requests.read(REQUEST_HEAD_BYTES)
    if len(head) < REQUEST_HEAD_BYTES:
        return False
    wanted, length_bytes = read_request_head(head)
    outcome, body = _attempt(render, requests.read(length_bytes), wanted)
    answers.write(answer_head(outcome, len(body)))
    answers.write(body)
    return True


def _attempt(render: Render, picture: bytes, wanted: Rendition) -> tuple[Outcome, bytes]:
    try:
        return Outcome.MADE, render(picture, wanted)
    except NotAPictureError as error:
        return Outcome.NO_PICTURE, error.detail.encode()
    except PictureTooLargeError as error:
        return Outcome.TOO_LARGE, error.detail.encode()


if __name__ == "__main__":
    main()
