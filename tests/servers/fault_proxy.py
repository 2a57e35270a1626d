"""A TCP proxy that misbehaves on demand, to stand between a client and a real server."""

import asyncio
import contextlib
import re
import socket
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

CHUNK_BYTES = 16 * 1024
HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"(\ncontent-length: *)(\d+)", re.IGNORECASE)


@dataclass(slots=True)
class Faults:
    """What goes wrong; may be changed at any time, and holds for whatever passes from then on."""

    latency_s: float = 0
    """Wait so long before the first byte of each answer."""
    bytes_per_s: float = 0
    """Answers flow no faster; 0 is no limit."""
    cut_after: int | None = None
    """Break the connection after so many bytes of an answer's body (of the answer, if `raw`)."""
    cut_with: Literal["rst", "fin"] = "rst"
    cut_before_head: bool = False
    """Break the connection when an answer begins, before its first byte."""
    stall_before_head: bool = False
    """Send nothing of an answer, keep the connection open."""
    stall_after: int | None = None
    """Send so many bytes of an answer's body, then nothing; 0 stalls right after the headers."""
    corrupt_at: int | None = None
    """Turn over every bit of the body's byte at this offset."""
    instead: bytes | None = None
    """Send this in place of an answer, and hang up."""
    length_off_by: int = 0
    """Tell so much more (or less) as the Content-Length than it is."""
    answers: int | None = None
    """How many answers, from now on, all this is for; None: every one."""


HEALTHY = Faults()


class FaultProxy:
    """Passes bytes between clients and one upstream, as `faults` says.

    Counts: `connections_open`, `connections_total`, `answers` (begun), `bytes_down` (sent to clients).
    With `raw=True` an answer is not taken for HTTP: every byte counts as body.
    """

    def __init__(self, host: str, port: int, *, raw: bool = False) -> None:
        self.upstream = (host, port)
        self.raw = raw
        self.faults = Faults()
        self.host, self.port = "127.0.0.1", 0
        self.connections_open = self.connections_total = self.answers = self.bytes_down = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    def before(cls, url: str, *, raw: bool = False) -> Self:
        """A proxy in front of the server that a URL names."""
        parts = urlsplit(url)
        return cls(parts.hostname or "127.0.0.1", parts.port or 80, raw=raw)

    def url(self, url: str = "") -> str:
        """The same URL through this proxy; without one, the proxy's own."""
        parts = urlsplit(url or f"http://{self.host}")
        user = parts.netloc.rpartition("@")[0]
        return parts._replace(netloc=f"{user}@{self.address}" if user else self.address).geturl()

    @property
    def address(self) -> str:
        """`127.0.0.1:PORT`."""
        return f"{self.host}:{self.port}"

    async def __aenter__(self) -> Self:
        await self.admit()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.refuse()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def refuse(self) -> None:
        """Take no new connection: a client gets ECONNREFUSED. Open ones go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def admit(self) -> None:
        """Take connections (again), always at the same port."""
        if self._server is None:
            self._server = await asyncio.start_server(self._accepted, self.host, self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def drop(self) -> None:
        """Reset every open connection."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def heal(self) -> None:
        """No fault any more, for what passes from now on."""
        self.faults = Faults()

    def for_next_answer(self) -> Faults:
        """Give what goes wrong with an answer that begins."""
        if self.faults.answers == 0:
            return HEALTHY
        if self.faults.answers is not None:
            self.faults.answers -= 1
        return self.faults

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections_open += 1
        self.connections_total += 1
        upstream: asyncio.StreamWriter | None = None
        try:
            from_upstream, upstream = await asyncio.open_connection(*self.upstream)
            await _Exchange(self, reader, writer, from_upstream, upstream).run()
        except _FinishedError:
            pass  # closed below, with a FIN
        except (OSError, asyncio.CancelledError):
            _reset(writer)
        finally:
            self.connections_open -= 1
            for end in filter(None, (writer, upstream)):
                end.close()


class _Exchange:
    """One connection: two pumps, and where in the present answer we are."""

    def __init__(
        self,
        proxy: FaultProxy,
        from_client: asyncio.StreamReader,
        client: asyncio.StreamWriter,
        from_upstream: asyncio.StreamReader,
        upstream: asyncio.StreamWriter,
    ) -> None:
        self.proxy, self.client, self.upstream = proxy, client, upstream
        self.from_client, self.from_upstream = from_client, from_upstream
        self.asked()

    def asked(self) -> None:
        """The client says something: the next bytes from upstream begin a new answer."""
        self.begun = False
        self.limited: Faults | None = None
        self.in_body = self.proxy.raw
        self.body_bytes = 0
        self.head = b""

    @property
    def faults(self) -> Faults:
        """What goes wrong just now."""
        return self.proxy.faults if self.limited is None else self.limited

    async def run(self) -> None:
        """Pump both ways until one end is done."""
        pumps = {asyncio.ensure_future(self.up()), asyncio.ensure_future(self.down())}
        try:
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in done:
                pump.result()
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def up(self) -> None:
        """From client to upstream, unchanged."""
        while data := await self.from_client.read(CHUNK_BYTES):
            if self.begun:
                self.asked()
            self.upstream.write(data)
            await self.upstream.drain()

    async def down(self) -> None:
        """From upstream to client, with faults."""
        while data := await self.from_upstream.read(CHUNK_BYTES):
            if not self.begun:
                await self.begin()
            for piece, is_body in self.split(data):
                await (self.send_body(piece) if is_body else self.send(piece))

    async def begin(self) -> None:
        """The first bytes of an answer are here."""
        self.begun = True
        self.proxy.answers += 1
        faults = self.proxy.for_next_answer()
        self.limited = None if faults.answers is None and faults is not HEALTHY else faults
        await asyncio.sleep(faults.latency_s)
        if faults.cut_before_head:
            raise self.cut()
        if faults.instead is not None:
            await self.send(faults.instead)
            raise _FinishedError
        if faults.stall_before_head:
            await self.stall()

    def split(self, data: bytes) -> list[tuple[bytes, bool]]:
        """The bytes as pieces of head and body."""
        if self.in_body:
            return [(data, True)]
        before = len(self.head)
        self.head += data
        end = self.head.find(HEAD_END)
        if end < 0:
            return [(data, False)]
        self.in_body = True
        cut = end + len(HEAD_END) - before
        return [(self.told(data[:cut]), False), (data[cut:], True)]

    def told(self, head: bytes) -> bytes:
        """The head with the Content-Length that is told."""
        off_by = self.faults.length_off_by
        return _LENGTH.sub(lambda found: found[1] + b"%d" % (int(found[2]) + off_by), head, count=1)

    async def send_body(self, data: bytes) -> None:
        """Pass on a piece of body up to where the next fault is."""
        faults = self.faults
        start, stop = self.body_bytes, self.body_bytes + len(data)
        if faults.corrupt_at is not None and start <= faults.corrupt_at < stop:
            offset = faults.corrupt_at - start
            data = data[:offset] + bytes([data[offset] ^ 0xFF]) + data[offset + 1 :]
        ends = [limit for limit in (faults.cut_after, faults.stall_after) if limit is not None]
        limit = min(ends, default=stop)
        await self.send(data[: max(limit - start, 0)])
        self.body_bytes = stop
        if ends and stop >= limit:
            if limit == faults.cut_after:
                raise self.cut()
            await self.stall()

    async def send(self, data: bytes) -> None:
        """Pass bytes on, no faster than allowed."""
        if not data:
            return
        self.client.write(data)
        self.proxy.bytes_down += len(data)
        await self.client.drain()
        if self.faults.bytes_per_s:
            await asyncio.sleep(len(data) / self.faults.bytes_per_s)

    async def stall(self) -> None:
        """Say nothing until the client goes away or the fault is healed."""
        while self.faults.stall_before_head or self.faults.stall_after is not None:
            await asyncio.sleep(0.02)

    def cut(self) -> Exception:
        """Break the client's connection; gives the exception that ends the exchange."""
        if self.faults.cut_with == "rst":
            return ConnectionResetError("cut")
        return _FinishedError()


class _FinishedError(Exception):
    """The answer ends here, with a FIN."""


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    with contextlib.suppress(OSError, AttributeError):
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
