"""A bucket that answers what a test wants said, for the answers that no real server gives when asked to."""

import asyncio
import socket
from contextlib import suppress
from typing import Self

EMPTY_LIST = (
    b'<?xml version="1.0" encoding="UTF-8"?>'
    b'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    b"<Name>pets</Name><KeyCount>0</KeyCount><MaxKeys>1</MaxKeys><IsTruncated>false</IsTruncated>"
    b"</ListBucketResult>"
)
PLANTED = "Words of the bucket that nobody else may read"


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


class FakeBucket:
    """Lists itself empty, and answers each GET of an object with the next of `answers`; the last one stays.

    With `closes` it hangs up after each answer. `head` is what it says to HEAD.
    """

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.closes = False
        self.asked = 0
        self.head = answer("404 Not Found")
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def say(self, *answers: bytes, closes: bool = False) -> None:
        """Answer so from now on, and count requests anew."""
        self.answers, self.closes, self.asked = list(answers), closes, 0

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
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while await self._answer(await reader.readuntil(b"\r\n\r\n"), writer):
                pass
        writer.close()

    async def _answer(self, request: bytes, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False: hang up."""
        method, target, _ = request.split(b" ", 2)
        if b"list-type=2" in target:
            writer.write(answer("200 OK", EMPTY_LIST, Content_Type="application/xml"))
            return True
        if method == b"HEAD":
            writer.write(self.head)
            return True
        self.asked += 1
        writer.write(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
        await writer.drain()
        return not self.closes
