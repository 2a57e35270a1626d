"""Readers down at the socket, which take as much and go as they like."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit


class Reader:
    """A client down at the socket, that asks for an object and then does as it likes."""

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw
        self._loop = asyncio.get_running_loop()

    @classmethod
    @asynccontextmanager
    async def ask(cls, url: str, path: str, authorization: str) -> AsyncIterator["Reader"]:
        """Ask, with room for little more than the first bytes."""
        parts = urlsplit(url)
        with socket.socket() as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            raw.setblocking(False)
            reader = cls(raw)
            await reader._loop.sock_connect(raw, (parts.hostname, parts.port))
            lines = [f"GET {path} HTTP/1.1", f"Host: {parts.netloc}", f"Authorization: {authorization}"]
            await reader._loop.sock_sendall(raw, "\r\n".join([*lines, "", ""]).encode())
            yield reader

    async def first_bytes(self) -> bytes:
        """Take the head, and give the first thousand bytes of the body."""
        taken = b""
        while b"\r\n\r\n" not in taken:
            chunk = await self._loop.sock_recv(self._raw, 1000)
            assert chunk, "the connection ended"
            taken += chunk
        head, _, begun = taken.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        return begun + await self.take(1000 - len(begun))

    async def take(self, size_bytes: int) -> bytes:
        """Take the next bytes, and no more than these."""
        taken = bytearray()
        while len(taken) < size_bytes:
            chunk = await self._loop.sock_recv(self._raw, size_bytes - len(taken))
            assert chunk, "the connection ended"
            taken += chunk
        return bytes(taken)

    def vanish(self, number: int) -> None:
        """Go away: every other one with a RST."""
        if number % 2:
            self._raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._raw.close()

    async def rest(self) -> bytes:
        """Take whatever still comes, until the connection ends or breaks."""
        taken = bytearray()
        with suppress(ConnectionError):
            while chunk := await self._loop.sock_recv(self._raw, 65_536):
                taken += chunk
        return bytes(taken)
