"""What a bucket's headers say, read leniently."""

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.storage.answers import (
    content_range,
    declared_length,
    entity_tag,
    http_date,
    object_meta,
    range_header,
)
from app.storage.base import Answer, ByteRange, Suffix

THEN = datetime(2024, 5, 17, 10, 30, tzinfo=UTC)


@given(st.datetimes(THEN.replace(year=1000, tzinfo=None), timezones=st.just(UTC)))
def test_every_http_date_is_read(moment: datetime) -> None:
    assert http_date(format_datetime(moment, usegmt=True)) == moment.replace(microsecond=0)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("Fri, 17 May 2024 10:30:00 GMT", THEN),
        ("Fri, 17 May 2024 12:30:00 +0200", THEN),
        ("Friday, 17-May-24 10:30:00 GMT", THEN),
        ("Fri, 17 May 2024 10:30:00", THEN),
        ("Fri, 17 Mai 2024 10:30:00 GMT", None),
        ("Fri, 31 Feb 2024 10:30:00 GMT", None),
        ("Fri, 17 May 2024 10:30:99 GMT", None),
        ("0", None),
        ("", None),
        (None, None),
        ("soon", None),
    ],
)
def test_a_date_in_any_form_is_utc_and_nonsense_is_none(text: str | None, moment: datetime | None) -> None:
    assert http_date(text) == moment


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ('"a"', '"a"'),
        ('W/"a"', 'W/"a"'),
        ('""', '""'),
        ("a-b", '"a-b"'),
        ("0x8D", '"0x8D"'),
        (None, None),
        ("", None),
        ('"a', None),
        ("a b", None),
        ('"a"b"', None),
    ],
)
def test_a_tag_is_as_in_the_header_or_none(text: str | None, tag: str | None) -> None:
    assert entity_tag(text) == tag


@pytest.mark.parametrize(
    ("text", "length", "named"),
    [
        (b"bytes 0-9/10", 10, (0, 10, 10)),
        (b"bytes 5-9/10", None, (5, 10, 10)),
        (b"bytes 5-9/10", 4, None),
        (b"bytes 9-5/10", None, None),
        (b"bytes 0-10/10", 11, None),
        (b"bytes 0--1/0", 0, None),
        (b"bytes */10", 0, None),
        (b"bytes 0-9/*", 10, None),
        (b"Bytes 0-9/10", 10, None),
        (b"", 10, None),
    ],
)
def test_a_content_range_agrees_with_itself_and_the_body(
    text: bytes, length: int | None, named: tuple[int, int, int] | None
) -> None:
    class Body:
        async def aclose(self) -> None: ...

    answer = Answer(206, {b"content-range": text}, Body(), length)  # type: ignore[arg-type]
    assert content_range(answer) == named


def test_missing_facts_are_none() -> None:
    meta = object_meta("k", Answer(200, {b"content-length": b"-5"}, b"", 0), 0)
    assert (meta.etag, meta.last_modified, meta.media_type, meta.content_encoding) == (None,) * 4
    assert declared_length(Answer(200, {b"content-length": b"-5"}, b"", 0)) is None
    assert declared_length(Answer(200, {b"content-length": b"5"}, b"", 0)) == 5


@pytest.mark.parametrize(
    ("wanted", "text"),
    [(ByteRange(0, 1), b"bytes=0-0"), (ByteRange(5), b"bytes=5-"), (Suffix(3), b"bytes=-3")],
)
def test_a_range_is_written_inclusively(wanted: ByteRange | Suffix, text: bytes) -> None:
    assert range_header(wanted) == text


@pytest.mark.parametrize(
    ("stored", "given"),
    [
        ("aws-chunked", None),
        ("aws-chunked,", None),
        ("aws-chunked,gzip", "gzip"),
        ("gzip, AWS-Chunked", "gzip"),
        ("gzip,br", "gzip,br"),
    ],
)
def test_an_uploads_framing_is_no_coding_of_the_object(stored: str, given: str | None) -> None:
    meta = object_meta("k", Answer(200, {b"content-encoding": stored.encode()}, b"", 0), 0)
    assert meta.content_encoding == given
