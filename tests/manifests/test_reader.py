"""The reader: every problem at its place, no frame lost, whatever the bytes and however they are cut."""

import json
import random
import re
from collections.abc import Iterator
from dataclasses import astuple
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidKeyError
from app.manifests.exact import MAX_DEPTH, read_line
from app.manifests.kinds.images import MAX_META_BYTES, ImageLines, Item
from app.manifests.problems import PROBLEMS, LineFault
from app.manifests.reader import Limits, ManifestReader
from app.manifests.writer import Picture, write_images
from app.storage.keys import check_key

HEADER = b'{"version":"1.1"}\n{"type":"images"}\n'
GOOD = b'{"name":"good","extension":".jpg"}\n'


def read_manifest(chunks: list[bytes], reader: ManifestReader) -> Iterator[list[Item]]:
    for chunk in chunks:
        yield reader.feed(chunk)
    yield reader.finish()


def read(body: bytes, *, key: str = "manifest.jsonl", **limits: int) -> tuple[list[Item], ManifestReader]:
    reader = ManifestReader(key, Limits(**limits))
    items = [item for batch in read_manifest([body], reader) for item in batch]
    return items, reader


def places(reader: ManifestReader) -> list[tuple[int, int, str]]:
    return [(found.line, found.column, found.code) for found in reader.problems]


def test_frames_have_whole_keys_and_numbers_from_zero() -> None:
    line = b'{"name":"a/x","extension":".PNG","width":4,"height":3,"meta":{"a":[1]},"checksum":"c0"}\n'
    items, reader = read(HEADER + line + GOOD, key="sets/one/manifest.jsonl")
    assert items == [
        Item(0, "sets/one/a/x.PNG", 4, 3, "c0", '{"a":[1]}'),
        Item(1, "sets/one/good.jpg", None, None, None, None),
    ]
    assert (reader.version, reader.kind, reader.frame_count, reader.problem_count) == ("1.1", "images", 2, 0)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_both_versions_are_read(version: str) -> None:
    items, reader = read(HEADER.replace(b"1.1", version.encode()) + GOOD)
    assert (len(items), reader.version, reader.failure) == (1, version, None)


@pytest.mark.parametrize(
    ("line", "column", "code"),
    [
        (b'{"name":"a","extension":".j"', 29, "not-json"),
        (b'{"name":"a" "extension":".j"}', 13, "not-json"),
        ('{"name":"ä" "extension":".j"}'.encode(), 14, "not-json"),
        (b'{"name":"a","extension":".j"} x', 31, "not-json"),
        (b"{'name':'a'}", 2, "not-json"),
        (b'{"name":"a","extension":".j","meta":{"x":NaN}}', 42, "not-json"),
        (b'{"name":"a","extension":".j","meta":{"x":-Infinity}}', 42, "not-json"),
        (b'{"name":"a","extension":".j","x":1,}', 36, "not-json"),
        (b"hello", 1, "not-json"),
        (b'["a"]', 1, "not-an-object"),
        (b'  "a"', 3, "not-an-object"),
        (b'{"name":"a\xff","extension":".j"}', 11, "not-utf8"),
        (b'{"name":"a\x00","extension":".j"}', 11, "nul"),
        (b'{"name":"\xc3\xa4\x00","extension":".j"}', 12, "nul"),
        (b'{"name":"a\\u0000","extension":".j"}', 11, "nul"),
        (b'{"name":"a","extension":".j","meta":{"x":["\\\\\\u0000"]}}', 46, "nul"),
        (b'{"name":"a","extension":".j","checksum":"\\ud800"}', 42, "lone-surrogate"),
        (b'{"name":"a","extension":".j","checksum":"\\udc00\\ud800"}', 42, "lone-surrogate"),
        (b'{"name":"a","extension":".j","checksum":"\\ud800x\\udc00"}', 42, "lone-surrogate"),
        (b'{"name":"a","name":"b","extension":".j"}', 13, "duplicate-key"),
        (b'{"name":"a","n\\u0061me":"b","extension":".j"}', 13, "duplicate-key"),
        (b'{"name" :"a","name":"b","extension":".j"}', 14, "duplicate-key"),
        (b'{"name":"a","extension":".j","meta":{"x":1,"y":[{"z":1,"z":2}]}}', 56, "duplicate-key"),
        (b'{"name":"a","extension":".j","meta":{"x":1e999}}', 42, "number-out-of-range"),
        (b'{"name":"a","extension":".j","width":99999999999999999999}', 38, "number-out-of-range"),
        (b'{"name":"a","extension":".j","meta":{"x":' + b"9" * 5000 + b"}}", 42, "number-out-of-range"),
        (b'{"extension":".j"}', 1, "missing-field"),
        (b'{"name":"a"}', 1, "missing-field"),
        (b'{"name":null,"extension":".j"}', 9, "wrong-type"),
        (b'{"name":"a","extension": 5}', 26, "wrong-type"),
        (b'{"name":"a","extension":".j","checksum":5}', 41, "wrong-type"),
        (b'{"name":"a","extension":".j","checksum":"' + b"0" * 129 + b'"}', 41, "checksum-too-long"),
        (b'{"name":"a","extension":".j","meta":[]}', 37, "wrong-type"),
        (b'{"name":"a","extension":".j","meta":"x"}', 37, "wrong-type"),
        (b'{"name":"a","extension":".j","width":0}', 38, "bad-size"),
        (b'{"name":"a","extension":".j","width":-1}', 38, "bad-size"),
        (b'{"name":"a","extension":".j","height":1.5}', 39, "bad-size"),
        (b'{"name":"a","extension":".j","height":1.0}', 39, "bad-size"),
        (b'{"name":"a","extension":".j","height":true}', 39, "bad-size"),
        (b'{"name":"a","extension":".j","height":"5"}', 39, "bad-size"),
        (b'{"name":"a","extension":".j","height":2147483647}', 39, "bad-size"),
        (b'{"name":"a","extension":"j"}', 25, "bad-extension"),
        (b'{"name":"a","extension":".j/k"}', 25, "bad-extension"),
        (b'{"name":"","extension":".j"}', 9, "empty-name"),
        (b'{"name":"/a","extension":".j"}', 9, "absolute-name"),
        (b'{"name":"../a","extension":".j"}', 9, "dot-segment"),
        (b'{"name":"b/./a","extension":".j"}', 9, "dot-segment"),
        (b'{"name":"b/..","extension":""}', 9, "dot-segment"),
        (b'{"name":"b/.","extension":"."}', 9, "dot-segment"),
        (b'{"name":"b\\\\a","extension":".j"}', 9, "backslash"),
        (b'{"name":"b\\u005ca","extension":".j"}', 9, "backslash"),
        (b'{"name":"b\\na","extension":".j"}', 9, "control-character"),
        (b'{"name":"b\\u0085","extension":".j"}', 9, "control-character"),
        (b'{"name":"' + b"n" * 1022 + b'","extension":".jp"}', 9, "name-too-long"),
        (('{"name":"' + "ä" * 512 + '","extension":".j"}').encode(), 9, "name-too-long"),
        (
            b'{"name":"a","extension":".j","meta":{"x":"' + b"m" * MAX_META_BYTES + b'"}}',
            37,
            "meta-too-large",
        ),
        (
            b'{"name":"a","extension":".j","meta":' + b"[" * 100 + b"]" * 100 + b"}",
            37 + MAX_DEPTH - 1,
            "too-deep",
        ),
        (b'{"name":"a","extension":".j","meta":{"a":' + b"[" * 63 + b"]" * 63 + b"}}", 104, "too-deep"),
        (b'{"meta":{"name":"x"},"name":"/a","extension":".j"}', 29, "absolute-name"),
        (b"[" * 100_000, 1 + MAX_DEPTH, "too-deep"),
        (
            b'{"name":"a","extension":".j","new":' + b'{"a":' * 100 + b"1" + b"}" * 101,
            36 + 5 * 63,
            "too-deep",
        ),
        (b'{"name":"good","extension":".jpg","width":5}', 9, "duplicate-name"),
        (b'{ "name":"goo\\u0064","extension":".jpg"}', 10, "duplicate-name"),
        (b'{"name":"good.jpg","extension":""}', 9, "duplicate-name"),
    ],
)
def test_a_bad_line_is_set_aside_with_its_place(line: bytes, column: int, code: str) -> None:
    items, reader = read(HEADER + GOOD + line + b"\n" + GOOD.replace(b"good", b"next"))
    assert places(reader) == [(4, column, code)]
    assert [(item.number, item.key) for item in items] == [(0, "good.jpg"), (2, "next.jpg")]
    assert (reader.problem_count, reader.frame_count, reader.failure) == (1, 2, None)
    assert PROBLEMS[code].effect == "set aside"
    assert reader.problems[0].hint


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"", (1, 1, "empty-file")),
        (b"\n \n\r\n", (1, 1, "empty-file")),
        (b"\x89PNG\r\n\x1a\n\x00", (1, 1, "header-missing")),
        (b"name,width\na,1\n", (1, 1, "header-missing")),
        (GOOD, (1, 1, "header-missing")),
        (b'  {"vers', (1, 4, "header-missing")),
        (b'["1.1"]\n', (1, 1, "header-missing")),
        (b'{"version":"1.1"\n', (1, 17, "header-missing")),
        (b'\xef\xbb\xbf{"version":"1.1"\n', (1, 20, "header-missing")),
        (b'{"version":"2.0"}\n', (1, 12, "unknown-version")),
        (b'{"version":1.1}\n', (1, 12, "unknown-version")),
        (b'{"version":["1.1"]}\n', (1, 12, "unknown-version")),
        (b'\xef\xbb\xbf{"version":"7"}\n', (1, 15, "unknown-version")),
        (b'{"version":"1.1"}\n', (2, 1, "type-missing")),
        (b'{"version":"1.1"}\n' + GOOD, (2, 1, "type-missing")),
        (b'{"version":"1.1"}\n{"type":', (2, 9, "type-missing")),
        (b'{"version":"1.1"}\n{"type":"sounds"}\n', (2, 9, "unknown-type")),
        (b'{"version":"1.1"}\n{"type":{}}\n', (2, 9, "unknown-type")),
        (b'{"version":"1.1"}\n{"type":"video"}\n', (2, 9, "type-not-supported")),
        (b'{"version":"1.1"' + b" " * 300 + b"}\n", (1, 201, "header-missing")),
    ],
)
def test_a_bad_header_fails_the_manifest(body: bytes, place: tuple[int, int, str]) -> None:
    items, reader = read(body, max_line_bytes=200)
    assert reader.failure is not None
    assert places(reader)[-1] == place
    assert (items, reader.frame_count) == ([], 0)
    assert PROBLEMS[place[2]].effect == "failed"


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b"\xef\xbb\xbf" + HEADER + GOOD, (1, 1, "byte-order-mark")),
        (HEADER.replace(b"\n", b"\r\n") + GOOD.replace(b"\n", b"\r\n"), (1, 18, "crlf")),
        (HEADER + b"\n \n" + GOOD + b"\n\n", (3, 1, "blank-line")),
        (b"\n" + HEADER + GOOD + b"\n\n", (1, 1, "blank-line")),
    ],
)
def test_what_is_harmless_is_remarked_on_once_and_every_frame_served(
    body: bytes, place: tuple[int, int, str]
) -> None:
    items, reader = read(body)
    assert places(reader) == [place]
    assert [item.number for item in items] == [0]
    assert PROBLEMS[place[2]].effect == "remark"


def test_a_manifest_without_items_is_ready_and_says_so() -> None:
    items, reader = read(HEADER)
    assert (items, places(reader), reader.failure) == ([], [(3, 1, "no-items")], None)


def test_blank_lines_at_the_end_are_no_problem() -> None:
    assert read(HEADER + GOOD + b"\n\n")[1].problem_count == 0


def test_the_last_line_needs_no_line_end() -> None:
    items, reader = read(HEADER + GOOD.rstrip())
    assert (len(items), reader.problem_count) == (1, 0)


@pytest.mark.parametrize("kept", range(1, len(GOOD) - 2))
def test_a_file_cut_in_the_middle_says_so(kept: int) -> None:
    items, reader = read(HEADER + GOOD + GOOD[:kept])
    assert [(line, code) for line, _, code in places(reader)] == [(4, "truncated")]
    assert len(items) == 1


def test_a_line_cut_within_a_character_is_a_cut_line_too() -> None:
    _, reader = read(HEADER + '{"name":"ä'.encode()[:-1])
    assert places(reader) == [(3, 10, "truncated")]


def test_unknown_keys_and_nulls_are_ignored() -> None:
    line = (
        b'{"name":"a","extension":".j","width":null,"height":null,"meta":null,"checksum":null,"new":[{}]}\n'
    )
    items, reader = read(HEADER + line)
    assert (items, reader.problem_count) == ([Item(0, "a.j", None, None, None, None)], 0)


def test_a_line_of_ten_megabytes_is_skipped_and_not_kept() -> None:
    reader = ManifestReader("m.jsonl", Limits(max_line_bytes=1000))
    items = reader.feed(HEADER + b'{"name":"')
    for _ in range(160):
        items += reader.feed(b"x" * 65_536)
        assert len(reader._rest) <= 1000 + 65_536
    items += reader.feed(b'"}\n' + GOOD)
    items += reader.finish()
    assert places(reader) == [(3, 1001, "line-too-long")]
    assert [item.number for item in items] == [1]


def test_a_manifest_over_the_limit_fails_where_the_limit_is() -> None:
    items, reader = read(HEADER + GOOD + GOOD.replace(b"good", b"best"), max_manifest_bytes=80)
    assert [item.key for item in items] == ["good.jpg"]
    assert places(reader) == [(4, 1, "file-too-large")]
    assert reader.failure is not None


def test_a_manifest_of_just_the_limit_is_read() -> None:
    assert read(HEADER + GOOD, max_manifest_bytes=len(HEADER + GOOD))[1].failure is None


def test_the_first_thousand_problems_are_kept_and_all_are_counted() -> None:
    _, reader = read(HEADER + b"x\n" * 3000 + GOOD * 3000)
    assert (len(reader.problems), reader.problem_count, reader.frame_count) == (1000, 5999, 1)


def test_hundreds_of_thousands_of_names_are_told_apart() -> None:
    names = [b'{"name":"%d","extension":".j"}\n' % index for index in range(60_000)]
    _, reader = read(HEADER + b"".join(names) + b"".join(names[::1000]))
    assert (reader.frame_count, reader.problem_count) == (60_000, 60)


def test_what_a_file_says_is_shown_short_and_escaped() -> None:
    _, reader = read(b'{"version":"\\u001b[31m' + b"v" * 1000 + b'"}')
    message = reader.problems[0].message
    assert message.isascii()
    assert message.isprintable()
    assert len(message) < 150


def test_hostile_lines_take_linear_time() -> None:
    """One regular expression too many, and a line of a megabyte would take hours."""
    lines = [b'{"a":"' + b'\\"' * 400_000, b"[" + b"[]," * 70 + b'"' + b'\\"' * 400_000, b'"' * 800_000]
    _, reader = read(HEADER + b"\n".join(lines))
    assert reader.problem_count == 3


def test_a_manifest_fails_once() -> None:
    reader = ManifestReader("m.jsonl", Limits(max_manifest_bytes=60))
    assert reader.feed(GOOD * 3) == reader.feed(GOOD) == reader.finish() == []
    assert places(reader) == [(1, 1, "header-missing")]


PIECES = st.sampled_from(
    [
        b"\n", b"\r\n", b"\r", b" ", b"\xef\xbb\xbf", b"\x00", b"\xff", b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\",
        b'{"version":"1.1"}\n', b'{"type":"images"}\n', HEADER, GOOD, b'{"name":"a","extension":".j"}\n',
        b'"name":"b",', b'"extension":".j"', b'"meta":{"related_images":[]}', b'"width":5', b"\\u0000", b"\\ud800",
        b"[" * 70, b"1e999", b"NaN", b"x" * 120,
    ]
)  # fmt: skip
BODIES = st.one_of(
    st.binary(max_size=200),
    st.lists(PIECES, max_size=12).map(b"".join),
    st.lists(PIECES, max_size=12).map(lambda pieces: HEADER + b"".join(pieces)),
)


@given(BODIES)
def test_any_bytes_give_frames_or_problems_and_never_an_exception(body: bytes) -> None:
    items, reader = read(body, max_line_bytes=100)
    assert reader.frame_count == len(items)
    assert reader.failure is not None or reader.kind == "images"
    assert items or reader.problems
    assert reader.problem_count == len(reader.problems)
    for item in items:
        json.loads(item.meta or "{}")
        check_key(item.key)


@given(BODIES, st.lists(st.integers(0, 400), max_size=8), st.sampled_from([50, 100, 10_000]))
def test_it_never_matters_how_the_bytes_are_cut(body: bytes, cuts: list[int], limit: int) -> None:
    limits = Limits(max_line_bytes=limit, max_manifest_bytes=300)
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    chunks = [body[start:stop] for start, stop in pairwise(edges)]
    outcomes = []
    for pieces in ([body], chunks, [body[index : index + 1] for index in range(len(body))]):
        reader = ManifestReader("f/m.jsonl", limits)
        items = [item for batch in read_manifest(pieces, reader) for item in batch]
        outcomes.append((items, reader.problems, reader.problem_count, reader.failure, reader.frame_count))
    assert outcomes[0] == outcomes[1] == outcomes[2]


FIELDS = st.fixed_dictionaries(
    {
        "name": st.text(min_size=1, max_size=8),
        "extension": st.sampled_from([".jpg", "", ".", "x", ".a/b", ".é"]),
    },
    optional={
        "width": st.one_of(st.integers(-1, 5), st.none(), st.booleans(), st.floats()),
        "height": st.integers(0, 2**33),
        "checksum": st.one_of(st.text(max_size=5), st.none()),
        "meta": st.recursive(
            st.one_of(st.none(), st.text(max_size=3), st.floats(), st.integers()),
            lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=3), inner)),
            max_leaves=5,
        ),
        "new": st.text(max_size=5),
    },
)


@given(FIELDS, st.booleans(), st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")]))
def test_the_fast_way_accepts_only_what_the_exact_way_accepts(
    fields: dict[str, object], ascii_only: bool, separators: tuple[str, str]
) -> None:
    line = json.dumps(fields, ensure_ascii=ascii_only, separators=separators).encode("utf-8", "surrogatepass")
    lines = ImageLines("folder/")
    fast = lines._read_fast(line, 0)
    if fast is not None:
        assert fast == lines._read_exactly(line, 0)


@given(st.binary(max_size=60), st.integers(0, 60), st.integers(0, 60))
def test_the_fast_way_accepts_no_line_that_was_tampered_with(noise: bytes, start: int, length: int) -> None:
    line = b'{"name":"a","extension":".j","width":5,"meta":{"r":[]},"checksum":"0"}'
    bent = line[:start] + noise + line[start + length % 4 :]
    lines = ImageLines("")
    fast = lines._read_fast(bent, 0)
    if fast is not None:
        assert fast == lines._read_exactly(bent, 0)


def test_an_ordinary_line_takes_the_fast_way() -> None:
    line = (
        b'{"name":"a/b","extension":".JPEG","width":5,"height":4,"meta":{"related_images":[]},"checksum":"0"}'
    )
    lines = ImageLines("folder/")
    assert lines._read_fast(line, 7) == lines._read_exactly(line, 7) != None  # noqa: E711 - both are there


NAMES = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\\/."), min_size=1, max_size=12
)
PICTURES = st.builds(
    Picture,
    name=st.lists(NAMES, min_size=1, max_size=3).map("/".join),
    extension=st.sampled_from([".jpg", ".PNG", "", ".ü"]),
    width_px=st.one_of(st.none(), st.integers(1, 2**31 - 2)),
    height_px=st.one_of(st.none(), st.integers(1, 2**31 - 2)),
    meta=st.one_of(st.none(), st.dictionaries(NAMES, st.one_of(NAMES, st.integers(-(2**63), 2**63 - 1)))),
    checksum=st.one_of(st.none(), st.from_regex("[0-9a-f]{32}", fullmatch=True)),
)


@given(st.lists(PICTURES, max_size=5, unique_by=lambda picture: picture.name + picture.extension))
def test_what_is_written_is_read_back(pictures: list[Picture]) -> None:
    items, reader = read(b"".join(write_images(pictures)), key="f/m.jsonl")
    assert reader.problem_count == (0 if pictures else 1)
    assert [
        (item.key, item.width_px, item.height_px, json.loads(item.meta or "null"), item.checksum)
        for item in items
    ] == [
        (
            f"f/{picture.name}{picture.extension}",
            picture.width_px,
            picture.height_px,
            picture.meta,
            picture.checksum,
        )
        for picture in pictures
    ]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8))
def test_every_served_name_is_a_key_that_may_be_asked_for(name: str) -> None:
    items, _ = read(HEADER + json.dumps({"name": name, "extension": ""}).encode() + b"\n")
    try:
        check_key(name)
    except InvalidKeyError:
        assert items == []


def test_a_fault_is_found_in_a_line_of_many_parts_too() -> None:
    shuffled = random.Random(7)
    for _ in range(200):
        depth = shuffled.randrange(60, 68)
        line = b'{"x":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"
        if depth <= MAX_DEPTH:
            assert read_line(line)
        else:
            with pytest.raises(LineFault):
                read_line(line)


def test_every_code_says_what_happened_and_what_to_do() -> None:
    for code, kind in PROBLEMS.items():
        assert all(astuple(kind)), code


def test_every_code_is_documented_and_no_other() -> None:
    documented = (Path(__file__).parents[2] / "docs" / "manifest-problems.md").read_text()
    sections = dict(re.findall(r"^### ([a-z0-9-]+)\n\n(.*?)(?=\n#|\Z)", documented, re.DOTALL | re.MULTILINE))
    assert set(sections) == set(PROBLEMS)
    for code, kind in PROBLEMS.items():
        assert kind.message.replace("{}", "…") in sections[code], code
        assert kind.hint in sections[code], code
