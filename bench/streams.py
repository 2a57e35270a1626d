"""Slow readers and vanishing ones: `python -m bench.streams`; see docs/performance.md.

Slow readers must not make the service hold what they have not taken. Vanished ones must not keep what the
service held for them: whoever asks next is answered at once.
"""

import argparse
import asyncio
import hashlib
import socket
import struct
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from bench.bucket import MIB, Bucket, bucket, large_object, picture
from bench.machine import machine
from bench.peers import FRAMEGATE, REFERENCE, Peer, starts
from bench.processes import find_program, stopped_by_signals

LARGE, PICTURE = "large.bin", "picture.jpg"
LARGE_MIB = 96
READERS = 8
MOST_GROWTH_MIB = 64
VANISHING = 120
REQUESTS_AFTER = 30
MOST_WAIT_S = 1.0
_PIECE_BYTES = 64 * 1024
_LOOK_EVERY_S = 0.05


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 when Framegate is not as it must be, or nothing could be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.streams", description=__doc__)
    parser.add_argument("--seconds", type=float, default=12, help="that a slow reader takes for the object")
    parser.add_argument("--reference", action="store_true", help="also try the plain reference, before")
    options = parser.parse_args(arguments)
    if find_program("nginx") is None:
        print("not measured: nginx not installed (Debian: nginx-light)")
        return 1
    print(machine(), flush=True)
    names = [REFERENCE, FRAMEGATE] if options.reference else [FRAMEGATE]
    good = True
    with stopped_by_signals(), tempfile.TemporaryDirectory(prefix="framegate-bench-") as folder:
        for name in names:
            good = _try(name, Path(folder) / str(names.index(name)), options.seconds)
    return 0 if good else 1


def _try(name: str, folder: Path, seconds: float) -> bool:
    start = starts()[name]
    assert start is not None, "our own peers are always installed"
    folder.mkdir()
    with ExitStack() as stack:
        served = stack.enter_context(bucket(folder, {LARGE: large_object(LARGE_MIB), PICTURE: picture()}))
        peer = stack.enter_context(start(served, folder))
        for _ in range(20):
            peer.fetch(PICTURE)
        print(f"{name}:")
        slow = asyncio.run(_slow_readers(peer, served, seconds))
        gone = asyncio.run(_vanishing_clients(peer, served))
    return slow and gone


async def _slow_readers(peer: Peer, served: Bucket, seconds: float) -> bool:
    """Let readers take the object slowly, and watch the service's memory."""
    expected = hashlib.sha256(served.body(LARGE)).digest()
    before = peer.process.memory_bytes()
    async with _watched(peer.process.memory_bytes) as seen:
        digests = await asyncio.gather(*(_read_slowly(peer, seconds) for _ in range(READERS)))
    growth = (max(seen) - before) / MIB
    right = sum(digest == expected for digest in digests)
    after = (peer.process.memory_bytes() - before) / MIB
    print(
        f"  {READERS} readers took {LARGE_MIB} MiB in {seconds:g} s each: {right} got the right bytes;"
        f" memory {before / MIB:.0f} MiB, grew by {growth:.1f} MiB (wanted: < {MOST_GROWTH_MIB}),"
        f" {after:+.1f} MiB when they were done"
    )
    return right == READERS and growth < MOST_GROWTH_MIB


async def _read_slowly(peer: Peer, seconds: float) -> bytes:
    """Give the digest of the object, taken at an even rate."""
    size, taken, digest = LARGE_MIB * MIB, 0, hashlib.sha256()
    async with _asking(peer, LARGE) as (reader, _):
        await reader.readuntil(b"\r\n\r\n")
        began = time.monotonic()
        while taken < size:
            due = began + seconds * taken / size
            await asyncio.sleep(max(0, due - time.monotonic()))
            piece = await reader.read(_PIECE_BYTES)
            if not piece:
                break
            digest.update(piece)
            taken += len(piece)
    return digest.digest()


@dataclass(frozen=True, slots=True)
class _Asked:
    status: int
    seconds: float


async def _vanishing_clients(peer: Peer, served: Bucket) -> bool:
    """Let clients go after their first bytes, half of them with a reset, and ask at once for pictures."""
    sockets = peer.process.open_sockets()
    async with asyncio.timeout(60):
        await asyncio.gather(*(_vanish(peer, reset=number % 2 == 0) for number in range(VANISHING)))
    size = len(served.body(PICTURE))
    asked = [await _ask(peer, size) for _ in range(REQUESTS_AFTER)]
    good = [one for one in asked if one.status == 200 and one.seconds < MOST_WAIT_S]
    times = sorted(one.seconds * 1000 for one in asked)
    await asyncio.sleep(1)
    left = peer.process.open_sockets() - sockets
    print(
        f"  {VANISHING} clients vanished after the first bytes: {len(good)} of the next {REQUESTS_AFTER} requests"
        f" succeeded at once; first {asked[0].seconds * 1000:.1f} ms, median {median(times):.1f} ms,"
        f" slowest {times[-1]:.1f} ms; {left:+d} open sockets a second later"
    )
    return len(good) == REQUESTS_AFTER


async def _vanish(peer: Peer, *, reset: bool) -> None:
    async with _asking(peer, LARGE) as (reader, writer):
        await reader.read(1000)
        if reset:
            linger = struct.pack("ii", 1, 0)  # close() then resets, as a killed client's machine does
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


async def _ask(peer: Peer, size: int) -> _Asked:
    """Get a picture over a new connection; status 0 when no whole answer came."""
    began, status, body = time.monotonic(), 0, b""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(10), _asking(peer, PICTURE) as (reader, _):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            status = int(head.split(b" ", 2)[1])
    return _Asked(status if len(body) == size else 0, time.monotonic() - began)


@asynccontextmanager
async def _asking(peer: Peer, key: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Send one GET over a connection of its own, closed with the block; that of a large object buffers little."""
    url = urlsplit(peer.url + key)
    connection = socket.socket()
    if key == LARGE:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _PIECE_BYTES)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, (url.hostname, url.port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=_PIECE_BYTES)
    headers = {"Host": url.netloc, "Connection": "close", **peer.headers}
    lines = [f"GET {url.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    try:
        writer.write("\r\n".join(lines).encode())
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


@asynccontextmanager
async def _watched(look: Callable[[], int]) -> AsyncIterator[list[int]]:
    """Give a list that fills with what `look` says for as long as the block lasts."""
    seen = [look()]

    async def watch() -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            seen.append(look())

    watching = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        watching.cancel()


if __name__ == "__main__":
    sys.exit(main())
