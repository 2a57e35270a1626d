"""Many slow readers at once, in a process of their own: `python -m bench.slow_clients`, started by a row.

All connect and ask before the first has taken anything; then each takes the object at an even rate into a small
buffer. What was taken is compared with a digest. Prints one line of JSON.
"""

import argparse
import asyncio
import hashlib
import json
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from app.system import raise_descriptor_limit

ROOM_BYTES = 16 * 1024
"""Of each socket; the kernel doubles it."""
PIECE_BYTES = 8 * 1024
_CONNECTING = 100
"""Connections that are made at a time."""


@dataclass(slots=True)
class Reader:
    """One slow reader; `status` stays 0 when no head came."""

    raw: socket.socket
    status: int = 0
    taken: int = 0
    digest: str = ""
    rest: bytes = field(default=b"", repr=False)

    async def ask(self, url: str, authorization: str) -> None:
        """Connect and send the request."""
        parts = urlsplit(url)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self.raw, (parts.hostname, parts.port))
        lines = [f"GET {parts.path} HTTP/1.1", f"Host: {parts.netloc}", f"Authorization: {authorization}"]
        await loop.sock_sendall(self.raw, "\r\n".join([*lines, "Connection: close", "", ""]).encode())

    async def head(self) -> None:
        """Take the head, and what comes with it of the body."""
        received = b""
        while b"\r\n\r\n" not in received:
            piece = await asyncio.get_running_loop().sock_recv(self.raw, 1024)
            if not piece:
                return
            received += piece
        head, _, self.rest = received.partition(b"\r\n\r\n")
        self.status = int(head.split(b" ", 2)[1])

    async def body(self, size_bytes: int, began: float, seconds: float) -> None:
        """Take the body at an even rate, to be done `seconds` after `began`."""
        digest = hashlib.sha256(self.rest)
        self.taken = len(self.rest)
        while self.taken < size_bytes:
            await asyncio.sleep(max(0, began + seconds * self.taken / size_bytes - time.monotonic()))
            piece = await asyncio.get_running_loop().sock_recv(self.raw, PIECE_BYTES)
            if not piece:
                break
            digest.update(piece)
            self.taken += len(piece)
        self.digest = digest.hexdigest()


def main() -> None:
    """Read, and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m bench.slow_clients", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--authorization", required=True)
    parser.add_argument("--readers", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--sha256", required=True)
    options = parser.parse_args()
    raise_descriptor_limit()
    readers = asyncio.run(_read(options))
    served = sum(reader.status == 200 and reader.digest == options.sha256 for reader in readers)
    print(json.dumps({"served": served, "statuses": sorted({reader.status for reader in readers})}))


async def _read(options: argparse.Namespace) -> list[Reader]:
    readers = [Reader(_small_socket()) for _ in range(options.readers)]
    doors = asyncio.Semaphore(_CONNECTING)
    await asyncio.gather(*(_asked(reader, options, doors) for reader in readers))
    began = time.monotonic()
    await asyncio.gather(*(_taken(reader, options, began) for reader in readers))
    return readers


async def _asked(reader: Reader, options: argparse.Namespace, doors: asyncio.Semaphore) -> None:
    async with doors:
        with suppress(OSError):
            await reader.ask(options.url, options.authorization)


async def _taken(reader: Reader, options: argparse.Namespace, began: float) -> None:
    with reader.raw, suppress(OSError):
        await reader.head()
        await reader.body(options.size, began, options.seconds)


def _small_socket() -> socket.socket:
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM_BYTES)
    raw.setblocking(False)
    return raw


if __name__ == "__main__":
    main()
