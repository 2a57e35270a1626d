"""Conditions and ranges against what is known of an object (RFC 9110 sections 13 and 14)."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.storage.base import ByteRange, ObjectMeta, ReadOptions, Suffix
from app.storage.preconditions import evaluate, forwardable_tag, if_range_holds, resolve_range

THEN = datetime(2024, 5, 17, 10, 30, 0, tzinfo=UTC)
BEFORE, AFTER = THEN - timedelta(seconds=1), THEN + timedelta(seconds=1)
FRACTION = THEN + timedelta(milliseconds=400)


def meta(etag: str | None = '"a"', last_modified: datetime | None = THEN) -> ObjectMeta:
    return ObjectMeta("k", 10, etag, last_modified, None)


@pytest.mark.parametrize(
    ("options", "known", "verdict"),
    [
        (ReadOptions(), meta(), "proceed"),
        # If-Match: strong comparison
        (ReadOptions(if_match=('"a"',)), meta(), "proceed"),
        (ReadOptions(if_match=('"b"', '"a"')), meta(), "proceed"),
        (ReadOptions(if_match=('"b"',)), meta(), "failed"),
        (ReadOptions(if_match=('W/"a"',)), meta(), "failed"),
        (ReadOptions(if_match=('W/"a"',)), meta('W/"a"'), "failed"),
        (ReadOptions(if_match=("*",)), meta(), "proceed"),
        (ReadOptions(if_match=("*",)), meta(None), "proceed"),
        (ReadOptions(if_match=('"a"',)), meta(None), "failed"),
        (ReadOptions(if_match=()), meta(), "failed"),
        # If-None-Match: weak comparison
        (ReadOptions(if_none_match=('"a"',)), meta(), "not_modified"),
        (ReadOptions(if_none_match=('W/"a"',)), meta(), "not_modified"),
        (ReadOptions(if_none_match=('"a"',)), meta('W/"a"'), "not_modified"),
        (ReadOptions(if_none_match=('"b"', 'W/"a"')), meta(), "not_modified"),
        (ReadOptions(if_none_match=('"b"',)), meta(), "proceed"),
        (ReadOptions(if_none_match=("*",)), meta(None), "not_modified"),
        (ReadOptions(if_none_match=('"a"',)), meta(None), "proceed"),
        # dates, by whole seconds
        (ReadOptions(if_modified_since=THEN), meta(), "not_modified"),
        (ReadOptions(if_modified_since=AFTER), meta(), "not_modified"),
        (ReadOptions(if_modified_since=BEFORE), meta(), "proceed"),
        (ReadOptions(if_modified_since=THEN), meta(last_modified=FRACTION), "not_modified"),
        (ReadOptions(if_modified_since=THEN), meta(last_modified=None), "proceed"),
        (ReadOptions(if_unmodified_since=THEN), meta(), "proceed"),
        (ReadOptions(if_unmodified_since=THEN), meta(last_modified=FRACTION), "proceed"),
        (ReadOptions(if_unmodified_since=BEFORE), meta(), "failed"),
        (ReadOptions(if_unmodified_since=BEFORE), meta(last_modified=None), "proceed"),
        # a tag silences the date of its kind (section 13.2.2)
        (ReadOptions(if_match=('"a"',), if_unmodified_since=BEFORE), meta(), "proceed"),
        (ReadOptions(if_none_match=('"b"',), if_modified_since=THEN), meta(), "proceed"),
        (ReadOptions(if_none_match=('"a"',), if_modified_since=BEFORE), meta(), "not_modified"),
        # what may fail comes before what may be not modified
        (ReadOptions(if_match=('"b"',), if_none_match=('"a"',)), meta(), "failed"),
        (ReadOptions(if_match=('"a"',), if_none_match=('"a"',)), meta(), "not_modified"),
        (ReadOptions(if_unmodified_since=BEFORE, if_modified_since=THEN), meta(), "failed"),
    ],
)
def test_conditions_hold_as_the_rfc_says(options: ReadOptions, known: ObjectMeta, verdict: str) -> None:
    assert evaluate(options, known) == verdict


@pytest.mark.parametrize(
    ("condition", "known", "holds"),
    [
        ('"a"', meta(), True),
        ('"b"', meta(), False),
        ('W/"a"', meta('W/"a"'), False),
        ('"a"', meta('W/"a"'), False),
        ('"a"', meta(None), False),
        (THEN, meta(), True),
        (THEN, meta(last_modified=FRACTION), True),
        (BEFORE, meta(), False),
        (AFTER, meta(), False),
        (THEN, meta(last_modified=None), False),
    ],
)
def test_if_range_holds_only_for_the_very_same_object(
    condition: str | datetime, known: ObjectMeta, holds: bool
) -> None:
    assert if_range_holds(condition, known) is holds


@pytest.mark.parametrize(
    ("wanted", "size_bytes", "part"),
    [
        (ByteRange(0, 1), 10, (0, 1)),
        (ByteRange(9, 10), 10, (9, 10)),
        (ByteRange(3), 10, (3, 10)),
        (ByteRange(3, 99), 10, (3, 10)),
        (ByteRange(10), 10, None),
        (ByteRange(10, 20), 10, None),
        (ByteRange(0), 0, None),
        (ByteRange(0, 1), 0, None),
        (Suffix(3), 10, (7, 10)),
        (Suffix(10), 10, (0, 10)),
        (Suffix(99), 10, (0, 10)),
        (Suffix(0), 10, None),
        (Suffix(0), 0, None),
        (Suffix(5), 0, (0, 0)),
    ],
)
def test_a_range_means_these_bytes(
    wanted: ByteRange | Suffix, size_bytes: int, part: tuple[int, int] | None
) -> None:
    assert resolve_range(wanted, size_bytes) == part


@given(st.binary(max_size=40), st.integers(0, 50), st.integers(1, 50) | st.none())
def test_a_range_is_what_slicing_gives(data: bytes, start: int, length: int | None) -> None:
    stop = None if length is None else start + length
    part = resolve_range(ByteRange(start, stop), len(data))
    assert (data[slice(*part)] if part else b"") == data[start:stop]


@given(st.binary(max_size=40), st.integers(1, 50))
def test_a_suffix_is_what_slicing_gives(data: bytes, length: int) -> None:
    part = resolve_range(Suffix(length), len(data))
    assert part is not None
    assert data[slice(*part)] == data[-length:]


@pytest.mark.parametrize(
    ("options", "tag"),
    [
        (ReadOptions(if_none_match=('"a"',)), '"a"'),
        (ReadOptions(if_none_match=('"a"',), if_modified_since=THEN), '"a"'),
        (ReadOptions(if_none_match=('W/"a"',)), None),
        (ReadOptions(if_none_match=('"a"', '"b"')), None),
        (ReadOptions(if_none_match=("*",)), None),
        (ReadOptions(if_none_match=('"é"',)), None),
        (ReadOptions(if_none_match=('"a"',), if_match=('"a"',)), None),
        (ReadOptions(if_none_match=('"a"',), if_unmodified_since=THEN), None),
        (ReadOptions(if_modified_since=THEN), None),
    ],
)
def test_a_bucket_is_told_one_strong_tag_and_only_if_nothing_comes_before_it(
    options: ReadOptions, tag: str | None
) -> None:
    assert forwardable_tag(options) == tag
