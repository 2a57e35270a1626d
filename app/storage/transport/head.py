"""The head of a request, written; the head of an answer, read (RFC 9112 sections 3 to 6)."""

import httptools

from app.storage.base import SignedRequest

MAX_HEAD_BYTES = 65_536
"""Status line and headers together, those of 1xx answers before them included."""


class MalformedError(Exception):
    """The bytes are no HTTP/1.1 answer, or one that cannot be framed without doubt."""


class Head:
    """One parsed head; `length_bytes` is None when the body is chunked or ends with the connection."""

    __slots__ = ("chunked", "headers", "keep_alive", "length_bytes", "status")

    def __init__(self, status: int, headers: dict[bytes, bytes]) -> None:
        self.status = status
        self.headers = headers
        self.keep_alive = False
        self.chunked = False
        self.length_bytes: int | None = None


class _Collector:
    """What httptools calls while it reads a head."""

    __slots__ = ("complete", "headers")

    # A parser asks for each of these when it is made; an attribute that is there is found faster than none.
    on_message_begin = on_url = on_status = on_body = on_message_complete = None
    on_chunk_header = on_chunk_complete = None

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self.complete = True


def request_bytes(request: SignedRequest) -> bytes:
    """Write a request down; raises ValueError where its target or a header would smuggle a line in."""
    lines = [b"%b %b HTTP/1.1\r\n" % (request.method.encode(), request.target)]
    lines += [b"%b: %b\r\n" % header for header in request.headers]
    lines.append(b"\r\n")
    data = b"".join(lines)
    if data.count(b"\n") != len(lines) or b" " in request.target:
        raise ValueError("a request's target or header holds a line break or a space")
    return data


def parse_head(data: bytes) -> Head:
    """Read one head, from the status line to the empty line; raises `MalformedError`.

    httptools checks the grammar strictly, and refuses repeated or bad Content-Length and one beside a
    Transfer-Encoding. Each head has a parser of its own that never sees a body: httptools cannot be told
    that an answer to HEAD has none.
    """
    collector = _Collector()
    parser = httptools.HttpResponseParser(collector)
    try:
        parser.feed_data(data)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
        raise MalformedError from error
    if not collector.complete or not data.startswith(b"HTTP/1."):
        raise MalformedError
    return _framed(Head(parser.get_status_code(), collector.headers), data)


def _framed(head: Head, data: bytes) -> Head:
    connection = head.headers.get(b"connection")
    if data.startswith(b"HTTP/1.1"):
        head.keep_alive = connection is None or b"close" not in connection.lower()
    length = head.headers.get(b"content-length")
    if length is not None:
        head.length_bytes = int(length)
    elif (coding := head.headers.get(b"transfer-encoding")) is not None:
        _check_chunked(coding, data)
        head.chunked = True
    return head


def _check_chunked(coding: bytes, data: bytes) -> None:
    """Nobody asked for another transfer coding (RFC 9112 section 7.4), so none is decoded."""
    if coding.strip().lower() != b"chunked" or data.lower().count(b"\ntransfer-encoding:") > 1:
        raise MalformedError
