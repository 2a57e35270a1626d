"""Conditions and ranges of a read, decided from what is known of the object. Pure functions.

RFC 9110 sections 8.8.3.2 (comparing tags), 13.1 and 13.2.2 (conditions, their order), 14.1.2 (byte ranges).
"""

from datetime import datetime
from typing import Literal, Protocol, assert_never

from app.storage.base import ByteRange, ObjectMeta, ReadOptions, Suffix

Verdict = Literal["proceed", "not_modified", "failed"]
STAR = ("*",)


def evaluate(options: ReadOptions, meta: ObjectMeta) -> Verdict:
    """Decide a GET's or HEAD's conditions against an existing object, in the order of section 13.2.2.

    A condition on a fact that the bucket does not tell (no ETag, no Last-Modified) does not hold for
    `If-Match` and is passed over for dates, as the sections of 13.1 ask.
    """
    if options.if_match is not None:
        if not _any_match(options.if_match, meta.etag, strong_match):
            return "failed"
    elif options.if_unmodified_since is not None and _modified_since(meta, options.if_unmodified_since):
        return "failed"
    if options.if_none_match is not None:
        return "not_modified" if _any_match(options.if_none_match, meta.etag, weak_match) else "proceed"
    if options.if_modified_since is not None and meta.last_modified is not None:
        return "proceed" if _modified_since(meta, options.if_modified_since) else "not_modified"
    return "proceed"


def if_range_holds(condition: str | datetime, meta: ObjectMeta) -> bool:
    """Tell whether a range may be answered as a part (section 13.1.5): strongly equal, or the very same date.

    A date is as good as the client's right to use it: it may send one only if it got the object at least
    a second after that date (section 8.8.2.2).
    """
    match condition:
        case str():
            return meta.etag is not None and strong_match(condition, meta.etag)
        case datetime():
            return meta.last_modified is not None and _seconds(condition) == _seconds(meta.last_modified)
        case _:
            assert_never(condition)


def resolve_range(wanted: ByteRange | Suffix, size_bytes: int) -> tuple[int, int] | None:
    """Give the bytes `[start, stop)` that a range means in an object of that size; None: no byte exists.

    A suffix longer than the object means all of it, of an empty object nothing: `(0, 0)`, which no
    `Content-Range` can say and so is answered as the whole (section 14.1.2 calls it satisfiable).
    """
    match wanted:
        case ByteRange(start=start, stop=stop):
            end = size_bytes if stop is None else min(stop, size_bytes)
            return (start, end) if start < end else None
        case Suffix(length_bytes=length):
            return (max(0, size_bytes - length), size_bytes) if length > 0 else None
        case _:
            assert_never(wanted)


def is_strong(tag: str) -> bool:
    """Tell a strong entity tag (`"abc"`) from a weak one (`W/"abc"`)."""
    return tag.startswith('"')


def strong_match(one: str, other: str) -> bool:
    """Compare two tags strongly: equal, and neither of them weak."""
    return one == other and is_strong(one)


def weak_match(one: str, other: str) -> bool:
    """Compare two tags weakly: equal apart from `W/`."""
    return one.removeprefix("W/") == other.removeprefix("W/")


def forwardable_tag(options: ReadOptions) -> str | None:
    """Give the one strong tag that a bucket may be told as `If-None-Match` so that it can spare the body.

    None when there is no such tag or another condition comes before it. Buckets understand exactly one
    strong tag: lists and weak tags find no match on Azure, and a star is an error there.
    """
    first = options.if_match is None and options.if_unmodified_since is None
    if first and options.if_none_match is not None and len(options.if_none_match) == 1:
        tag = options.if_none_match[0]
        return tag if is_strong(tag) and tag.isascii() else None
    return None


def _any_match(tags: tuple[str, ...], etag: str | None, match: "_Comparison") -> bool:
    return tags == STAR or (etag is not None and any(match(tag, etag) for tag in tags))


def _modified_since(meta: ObjectMeta, moment: datetime) -> bool:
    return meta.last_modified is not None and _seconds(meta.last_modified) > _seconds(moment)


def _seconds(moment: datetime) -> int:
    # HTTP dates have whole seconds; a listing's time may have more.
    return int(moment.timestamp())


class _Comparison(Protocol):
    def __call__(self, one: str, other: str, /) -> bool: ...
