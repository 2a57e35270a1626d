"""Where a body ends: after so many bytes, with its last chunk, or with the connection."""

from typing import Protocol

import httptools

from app.storage.base import Piece
from app.storage.transport.head import Head, MalformedError


class Framing(Protocol):
    """Cuts one body out of what a connection receives."""

    done: bool
    """The body is complete."""
    surplus: bool
    """More came than the body: the connection must not be used again."""
    ends_with_connection: bool

    def feed(self, data: Piece) -> Piece:
        """Take what was received and give the body's bytes in it; raises `MalformedError`."""
        ...

    def left_bytes(self) -> int | None:
        """How many bytes are still to come; None where nobody knows."""
        ...


class Counted:
    """A body of known length."""

    __slots__ = ("_left", "done", "surplus")
    ends_with_connection = False

    def __init__(self, length_bytes: int) -> None:
        self._left = length_bytes
        self.done = False
        self.surplus = False

    def feed(self, data: Piece) -> Piece:
        """Count; bytes beyond the length are dropped."""
        if len(data) > self._left:
            self.surplus = True
            data = data[: self._left]
        self._left -= len(data)
        self.done = self._left == 0
        return data

    def left_bytes(self) -> int | None:
        """Give the rest of the length."""
        return self._left


class UntilClose:
    """A body that ends with the connection (RFC 9112 section 6.3, rule 8)."""

    __slots__ = ("done", "surplus")
    ends_with_connection = True

    def __init__(self) -> None:
        self.done = False
        self.surplus = False

    def feed(self, data: Piece) -> Piece:
        """Take everything."""
        return data

    def left_bytes(self) -> int | None:
        """Nobody knows."""
        return None


class _ChunkEvents:
    """What httptools calls while it reads chunks."""

    __slots__ = ("begun", "done", "pieces")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.done = False
        self.begun = 0

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_body(self, piece: bytes) -> None:
        if not self.done:  # else it belongs to a second answer, which nobody asked for
            self.pieces.append(piece)

    def on_message_complete(self) -> None:
        self.done = True


class Chunked:
    """A chunked body (RFC 9112 section 7.1); trailers are read over."""

    __slots__ = ("_events", "_parser", "done", "surplus")
    ends_with_connection = False

    def __init__(self) -> None:
        self.done = False
        self.surplus = False
        self._events = _ChunkEvents()
        self._parser = httptools.HttpResponseParser(self._events)
        self._parser.feed_data(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")

    def feed(self, data: Piece) -> Piece:
        """Decode; raises `MalformedError`, but not for what follows the body (that is `surplus`)."""
        events = self._events
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not events.done:
                raise MalformedError from error
            self.surplus = True
        self.done = events.done
        self.surplus = self.surplus or events.begun > 1
        pieces, events.pieces = events.pieces, []
        return b"".join(pieces)

    def left_bytes(self) -> int | None:
        """Nobody knows."""
        return None


def framing_of(head: Head) -> Framing:
    """Choose the framing that a head announces."""
    if head.length_bytes is not None:
        return Counted(head.length_bytes)
    return Chunked() if head.chunked else UntilClose()
