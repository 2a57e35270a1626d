"""Headers to ReadOptions, and faults to pointers: pure functions."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.conditional import parse
from app.api.faults import pointer
from app.api.manifests import waiting
from app.api.problems import PROBLEMS
from app.errors import (
    AnswerAbortedError,
    CommandError,
    FramegateError,
    StorageError,
)
from app.storage.base import ByteRange, ReadOptions, Suffix

MOMENT = datetime(2026, 11, 23, 7, 0, tzinfo=UTC)
TEXT = b"Mon, 23 Nov 2026 07:00:00 GMT"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (b"bytes=0-0", ByteRange(0, 1)),
        (b"bytes=5-", ByteRange(5)),
        (b"bytes=-7", Suffix(7)),
        (b" bytes= 0-4 ", ByteRange(0, 5)),
        (b"bytes=5-4", None),
        (b"bytes=0-1,3-4", None),
        (b"bytes=", None),
        (b"bytes=--1", None),
        (b"bytes=1-2-3", None),
        (b"items=0-1", None),
        (b"bytes=\xb2-3", None),
        (b"bytes=" + b"9" * 30 + b"-", None),
    ],
)
def test_reads_one_range_or_none(text: bytes, wanted: ByteRange | Suffix | None) -> None:
    assert parse({b"range": text}, "GET").range == wanted


def test_head_has_no_range() -> None:
    options = parse({b"range": b"bytes=0-1", b"if-range": b'"a"'}, "HEAD")
    assert (options.range, options.if_range) == (None, None)


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        (b'"a"', ('"a"',)),
        (b'W/"a", "b,c" ,"d"', ('W/"a"', '"b,c"', '"d"')),
        (b"*", ("*",)),
        (b', "a",', ('"a"',)),
        (b"a", None),
        (b'"a" "b"', None),
        (b"", None),
    ],
)
def test_reads_entity_tags(text: bytes, tags: tuple[str, ...] | None) -> None:
    assert parse({b"if-none-match": text}, "GET").if_none_match == tags
    assert parse({b"if-match": text}, "GET").if_match == (tags if tags is not None else ())


@pytest.mark.parametrize("text", [TEXT, b"Monday, 23-Nov-26 07:00:00 GMT", b"Mon Nov 23 07:00:00 2026"])
def test_reads_each_form_of_a_date(text: bytes) -> None:
    assert parse({b"if-modified-since": text}, "GET").if_modified_since == MOMENT


@pytest.mark.parametrize("text", [b"", b"yesterday", b"Mon, 99 Nov 2026 07:00:00 GMT", b"0", b"\xff"])
def test_a_date_that_is_none_is_as_if_it_were_not_there(text: bytes) -> None:
    assert parse({b"if-modified-since": text}, "GET") == ReadOptions()


@pytest.mark.parametrize(("text", "wanted"), [(b'"a"', '"a"'), (TEXT, MOMENT), (b"nonsense", "nonsense")])
def test_reads_if_range(text: bytes, wanted: object) -> None:
    assert parse({b"range": b"bytes=0-1", b"if-range": text}, "GET").if_range == wanted


@given(st.dictionaries(st.sampled_from([b"range", b"if-match", b"if-none-match", b"if-range"]), st.binary()))
def test_no_header_is_an_exception(headers: dict[bytes, bytes]) -> None:
    parse(headers, "GET")


@pytest.mark.parametrize(
    ("location", "wanted"),
    [
        (("body", "source", "s3", "auth", "key_pair", "access_key_id"), "/source/auth/access_key_id"),
        (("body", "manifests", 3), "/manifests/3"),
        (("body", "a/b~c"), "/a~1b~0c"),
        (("source", "bucket"), "/source/bucket"),
        (("body",), ""),
        (("query", "limit"), "query:limit"),
        (("header", "if-match"), "header:if-match"),
    ],
)
def test_a_location_becomes_a_pointer(location: tuple[object, ...], wanted: str) -> None:
    assert pointer(location) == wanted


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("wait=5", 5),
        ("respond-async, wait=90", 60),
        ('wait="7"', 7),
        ("wait=x", 0),
        ("await=5", 0),
        ("", 0),
        (None, 0),
    ],
)
def test_reads_how_long_to_wait(text: str | None, seconds: int) -> None:
    assert waiting(text) == seconds


def descendants(kind: type[FramegateError]) -> set[type[FramegateError]]:
    """Every class below one, itself included."""
    return {kind}.union(*(descendants(child) for child in kind.__subclasses__()))


def test_every_domain_error_has_a_problem() -> None:
    never_answered = descendants(CommandError) | {FramegateError, StorageError, AnswerAbortedError}
    internal = {kind for kind in descendants(FramegateError) if not kind.__module__.startswith("app.errors")}
    missing = descendants(FramegateError) - set(PROBLEMS) - never_answered - internal
    assert {kind.__name__ for kind in missing} == set()
