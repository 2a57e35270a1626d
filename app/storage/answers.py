"""What a bucket's HTTP answer says of an object, read leniently. Pure functions.

Buckets differ in their headers: no ETag, an ETag without quotes, no Last-Modified, a Content-Range beside
status 200. What is missing or makes no sense becomes None; nothing here raises.
"""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from math import ceil
from time import time
from typing import NamedTuple

from app.storage.base import Answer, ByteRange, ObjectMeta, Suffix

_ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_BARE_ETAG = re.compile(r"[\x21\x23-\x7e]+")
_CONTENT_RANGE = re.compile(rb"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")
_FIXDATE = re.compile(r"[A-Z][a-z]{2}, (\d\d) ([A-Z][a-z]{2}) (\d{4}) (\d\d):(\d\d):(\d\d) GMT", re.ASCII)
_MONTHS = {
    "Jan": 1, "Feb": 2, "Mar": 3, "Apr": 4, "May": 5, "Jun": 6,
    "Jul": 7, "Aug": 8, "Sep": 9, "Oct": 10, "Nov": 11, "Dec": 12,
}  # fmt: skip
_LENGTH = re.compile(rb"\d{1,19}")
_SECONDS = re.compile(r"\d{1,9}", re.ASCII)
MOST_RETRY_AFTER_S = 120
"""No bucket keeps its readers away for longer; one that says more is asked again after this."""


class ContentRange(NamedTuple):
    """Bytes `[start, stop)` of an object of `size_bytes`."""

    start: int
    stop: int
    size_bytes: int


def entity_tag(text: str | None) -> str | None:
    """Give a tag as it stands in a header; bare ones (listings, some servers) get their quotes."""
    if text is None or _ETAG.fullmatch(text):
        return text
    return f'"{text}"' if _BARE_ETAG.fullmatch(text) else None


@lru_cache(4096)
def http_date(text: str | None) -> datetime | None:
    """Read an HTTP date as aware UTC (RFC 9110 section 5.6.7)."""
    if not text:
        return None
    try:
        # The form that every server writes, by itself: the standard library's reader takes five times as long.
        if found := _FIXDATE.fullmatch(text):
            day, month, year, hour, minute, second = found.groups()
            return datetime(
                int(year), _MONTHS[month], int(day), int(hour), int(minute), int(second), tzinfo=UTC
            )
        moment = parsedate_to_datetime(text)
    except (KeyError, ValueError, OverflowError):
        return None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def text_header(answer: Answer, name: bytes) -> str | None:
    """Give one header's text (latin-1, as HTTP has it)."""
    value = answer.headers.get(name)
    return None if value is None else value.decode("latin-1")


def declared_length(answer: Answer) -> int | None:
    """Give the Content-Length header, which an answer to HEAD carries without a body."""
    value = answer.headers.get(b"content-length", b"")
    return int(value) if _LENGTH.fullmatch(value) else None


def body_length(answer: Answer) -> int | None:
    """Give how long the body is, or is promised to be; None when nobody knows yet."""
    return len(answer.body) if isinstance(answer.body, bytes) else answer.length_bytes


def content_range(answer: Answer) -> ContentRange | None:
    """Read a Content-Range that names bytes and the object's size, and agrees with the body's length."""
    found = _CONTENT_RANGE.fullmatch(answer.headers.get(b"content-range", b""))
    if found is None:
        return None
    first, last, size_bytes = (int(number) for number in found.groups())
    length = body_length(answer)
    sane = first <= last < size_bytes and length in {None, last + 1 - first}
    return ContentRange(first, last + 1, size_bytes) if sane else None


def object_meta(key: str, answer: Answer, size_bytes: int) -> ObjectMeta:
    """Gather what an answer says of an object of that size."""
    return ObjectMeta(
        key,
        size_bytes,
        entity_tag(text_header(answer, b"etag")),
        http_date(text_header(answer, b"last-modified")),
        text_header(answer, b"content-type"),
        _stored_coding(text_header(answer, b"content-encoding")),
    )


def retry_after_s(text: str | None) -> int | None:
    """Read a Retry-After (RFC 9110 section 10.2.3), seconds or date, as 1 to `MOST_RETRY_AFTER_S` seconds."""
    if text is not None and _SECONDS.fullmatch(text):
        seconds = int(text)
    elif (moment := http_date(text)) is not None:
        seconds = ceil(moment.timestamp() - time())
    else:
        return None
    return min(max(seconds, 1), MOST_RETRY_AFTER_S)


def _stored_coding(text: str | None) -> str | None:
    """Give the object's own coding: servers keep `aws-chunked`, which was the upload's framing alone.

    https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html says that S3 drops it; some do not.
    """
    if text is None or "aws-chunked" not in text.lower():
        return text
    codings = [coding.strip() for coding in text.split(",")]
    return ", ".join(coding for coding in codings if coding.lower() not in {"", "aws-chunked"}) or None


def range_header(wanted: ByteRange | Suffix) -> bytes:
    """Write a range as the `Range` header has it."""
    if isinstance(wanted, Suffix):
        return b"bytes=-%d" % wanted.length_bytes
    if wanted.stop is None:
        return b"bytes=%d-" % wanted.start
    return b"bytes=%d-%d" % (wanted.start, wanted.stop - 1)
