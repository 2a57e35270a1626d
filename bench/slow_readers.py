"""The row of slow readers: a thousand of them at once, and what the service holds for them."""

import hashlib
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.peers import FRAMEGATE, Peer, framegate
from bench.place import PICTURE, Place
from bench.processes import PYTHON, ROOT
from bench.table import Line
from bench.turns import check

READERS, QUICK_READERS = 1000, 100
SECONDS, QUICK_SECONDS = 12.0, 3.0
MOST_KIB_EACH = 256
_LOOK_EVERY_S = 0.05


def slow_readers(place: Place) -> list[Line]:
    """Let them take a picture that lies in no memory, each its own copy of it."""
    readers, seconds = (QUICK_READERS, QUICK_SECONDS) if place.quick else (READERS, SECONDS)
    with framegate(place.bucket, place.folder) as peer:
        for _ in range(20):
            check(peer, place.bucket, PICTURE)
        before = peer.process.memory_bytes()
        with _reading(peer, place.bucket.body(PICTURE), readers, seconds) as process:
            most = _most_memory(peer, process)
            said: dict[str, Any] = json.loads(process.communicate()[0])
        peak = peer.process.peak_memory_bytes()
    each_kib = max(0, most - before) / readers / 1024
    served = said["served"]
    return [
        Line(f"{FRAMEGATE}: served", f"{served:,} of {readers:,}", must="all", reached=served == readers),
        Line(
            f"{FRAMEGATE}: memory for each",
            f"{each_kib:.0f} KiB",
            must=f"<= {MOST_KIB_EACH} KiB",
            reached=each_kib <= MOST_KIB_EACH,
            peak_bytes=peak,
        ),
    ]


@contextmanager
def _reading(peer: Peer, body: bytes, readers: int, seconds: float) -> "Iterator[subprocess.Popen[str]]":
    command = [PYTHON, "-m", "bench.slow_clients", peer.url + PICTURE, "--readers", str(readers)]
    command += ["--seconds", str(seconds), "--authorization", peer.headers["Authorization"]]
    command += ["--size", str(len(body)), "--sha256", hashlib.sha256(body).hexdigest()]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _most_memory(peer: Peer, process: "subprocess.Popen[str]") -> int:
    """Watch the service for as long as the readers read."""
    most = 0
    while process.poll() is None:
        most = max(most, peer.process.memory_bytes())
        time.sleep(_LOOK_EVERY_S)
    return most
