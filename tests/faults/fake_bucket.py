"""A bucket that answers what a test wants said, for the answers that no real server gives when asked to."""

import asyncio
import re
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

EMPTY_LIST = (
    b'<?xml version="1.0" encoding="UTF-8"?>'
    b'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    b"<Name>pets</Name><KeyCount>0</KeyCount><MaxKeys>1</MaxKeys><IsTruncated>false</IsTruncated>"
    b"</ListBucketResult>"
)
PLANTED = "Words of the bucket that nobody else may read"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request; names of headers are lower-case."""

    method: str
    target: str
    headers: dict[str, str]

    @classmethod
    def of(cls, request: bytes) -> Self:
        """Read one."""
        first, *lines = request.decode("latin-1").strip().split("\r\n")
        method, target, _ = first.split(" ")
        pairs = (line.split(": ", 1) for line in lines)
        return cls(method, target, {name.lower(): value for name, value in pairs})


@dataclass(frozen=True, slots=True)
class Cut:
    """An answer, or the first bytes of one, after which the connection ends."""

    data: bytes
    with_reset: bool = False


Saying = bytes | Cut | Callable[[Asked], bytes | Cut]


def answer(status: str, body: bytes = b"", length: int | None = None, **headers: str) -> bytes:
    """The bytes of an answer; `length` is what its Content-Length says, -1 for none at all."""
    told = len(body) if length is None else length
    lines = [f"HTTP/1.1 {status}"]
    lines += [f"Content-Length: {told}"] if told >= 0 else []
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def refusal(status: str, code: str, **headers: str) -> bytes:
    """An S3 error."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{PLANTED}</Message></Error>"
    return answer(status, body.encode(), Content_Type="application/xml", **headers)


def chunked(status: str, body: bytes, *, last: bytes = b"0\r\n\r\n", **headers: str) -> bytes:
    """The bytes of an answer whose length is not told before."""
    head = answer(status, length=-1, Transfer_Encoding="chunked", **headers)
    pieces = (body[start : start + 50_000] for start in range(0, len(body), 50_000))
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + last


@dataclass
class Stored:
    """One object, served as a good server does it, but for its habits."""

    data: bytes
    headers: dict[str, str] = field(default_factory=lambda: {"ETag": '"v1"'})
    ranges: bool = True
    """Off: gives the whole to whoever asks for a part."""
    part: str = "206 Partial Content"
    conditions: bool = True

    def __call__(self, asked: Asked) -> bytes:
        """Answer a GET or HEAD."""
        etag, match = self.headers.get("ETag"), asked.headers.get("if-match")
        if self.conditions and match is not None and match != etag:
            return refusal("412 Precondition Failed", "PreconditionFailed")
        if self.conditions and etag is not None and asked.headers.get("if-none-match") == etag:
            return answer("304 Not Modified", length=-1, **self.headers)
        if asked.method == "HEAD":
            return answer("200 OK", length=len(self.data), **self.headers)
        found = re.fullmatch(r"bytes=(\d+)-(\d*)|bytes=-(\d+)", asked.headers.get("range", ""))
        return self._part(found) if found and self.ranges else answer("200 OK", self.data, **self.headers)

    def _part(self, found: re.Match[str]) -> bytes:
        size = len(self.data)
        first = max(0, size - int(found[3])) if found[3] else int(found[1])
        last = min(size - 1, int(found[2] or size - 1))
        if first > last:
            return answer("416 Range Not Satisfiable", Content_Range=f"bytes */{size}")
        told = {"Content-Range": f"bytes {first}-{last}/{size}", **self.headers}
        return answer(self.part, self.data[first : last + 1], **told)


class FakeBucket:
    """Lists itself empty, and answers each GET of an object with the next of `answers`; the last one stays.

    With `closes` it hangs up after each answer. `head` is what it says to HEAD. `seen` are the GETs.
    """

    def __init__(self) -> None:
        self.answers: list[Saying] = []
        self.closes = False
        self.seen: list[Asked] = []
        self.head: Saying = answer("404 Not Found")
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def say(self, *answers: Saying, closes: bool = False, head: Saying | None = None) -> None:
        """Answer so from now on, and count requests anew."""
        self.answers, self.closes, self.seen = list(answers), closes, []
        self.head = self.head if head is None else head

    @property
    def asked(self) -> int:
        """How many GETs of objects came."""
        return len(self.seen)

    @property
    def url(self) -> str:
        """Its endpoint."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0, family=socket.AF_INET)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                while await self._answer(Asked.of(await reader.readuntil(b"\r\n\r\n")), writer):
                    pass
        finally:
            writer.close()

    async def _answer(self, asked: Asked, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False: hang up."""
        if "list-type=2" in asked.target or "comp=list" in asked.target:
            writer.write(answer("200 OK", EMPTY_LIST, Content_Type="application/xml"))
            return True
        saying = self.head if asked.method == "HEAD" else self._next(asked)
        said = saying(asked) if callable(saying) else saying
        writer.write(said.data if isinstance(said, Cut) else said)
        await writer.drain()
        if not isinstance(said, Cut):
            return asked.method == "HEAD" or not self.closes
        if said.with_reset:
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        return False

    def _next(self, asked: Asked) -> Saying:
        self.seen.append(asked)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
