"""Conditional and range headers to ReadOptions; pure functions (RFC 9110 sections 13 and 14)."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from app.errors import Fault, InvalidInputError
from app.storage.base import PLAIN_READ, ByteRange, Method, ReadOptions, Suffix

CONDITIONAL = frozenset(
    {b"range", b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"if-range"}
)

_RANGE = re.compile(r"bytes=[ \t]*(?:(\d{1,19})-(\d{0,19})|-(\d{1,19}))[ \t]*", re.ASCII | re.IGNORECASE)
_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_TAG_LIST = re.compile(rf"[ \t,]*{_TAG.pattern}(?:[ \t]*,[ \t,]*{_TAG.pattern})*[ \t,]*")


def parse(headers: Mapping[bytes, bytes], method: Method) -> ReadOptions:
    """Give what a reader's headers ask for; `headers` have lower-case names.

    A range that is no single byte range is as if it were not there, and so is a date that is none; HEAD has
    no ranges.
    """
    if CONDITIONAL.isdisjoint(headers):
        return PLAIN_READ
    text = {name: headers[name].decode("latin-1").strip() for name in CONDITIONAL & headers.keys()}
    asked = _range(text.get(b"range", "")) if method == "GET" else None
    return ReadOptions(
        range=asked,
        if_match=_tags(text.get(b"if-match"), malformed=()),
        if_none_match=_tags(text.get(b"if-none-match"), malformed=None),
        if_modified_since=_date(text.get(b"if-modified-since")),
        if_unmodified_since=_date(text.get(b"if-unmodified-since")),
        if_range=_if_range(text.get(b"if-range")) if asked is not None else None,
    )


def parse_write(headers: Mapping[bytes, bytes]) -> ReadOptions:
    """Give the conditions of a write; `headers` have lower-case names, repeated ones joined.

    Raises `InvalidInputError` for a list of tags that is none: passed over, it could cost an object.
    """
    text = {name: headers[name].decode("latin-1").strip() for name in CONDITIONAL & headers.keys()}
    faults = [
        Fault(f"header:{name}", 'This is neither * nor a list of entity tags such as "abc".')
        for name in ("If-Match", "If-None-Match")
        if (given := text.get(name.lower().encode())) is not None and _tags(given, None) is None
    ]
    if faults:
        raise InvalidInputError(*faults)
    return ReadOptions(
        if_match=_tags(text.get(b"if-match"), malformed=None),
        if_none_match=_tags(text.get(b"if-none-match"), malformed=None),
        if_unmodified_since=_date(text.get(b"if-unmodified-since")),
    )


def _range(text: str) -> ByteRange | Suffix | None:
    match = _RANGE.fullmatch(text)
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        return Suffix(int(suffix))
    if not last:
        return ByteRange(int(first))
    return ByteRange(int(first), int(last) + 1) if int(first) <= int(last) else None


def _tags(text: str | None, malformed: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    if text == "*":
        return ("*",)
    return tuple(_TAG.findall(text)) if _TAG_LIST.fullmatch(text) else malformed


def _date(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = parsedate_to_datetime(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _if_range(text: str | None) -> str | datetime | None:
    """Give the validator; one that is neither a tag nor a date matches nothing, so the whole object comes."""
    if text is None:
        return None
    return text if _TAG.fullmatch(text) else _date(text) or text
