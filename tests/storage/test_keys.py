"""What an object key, a prefix, and the names of a bucket may look like."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidInputError, InvalidKeyError, MisconfiguredError
from app.storage.base import Origin
from app.storage.keys import check_key, check_prefix
from app.storage.names import (
    azure_account_fault,
    azure_container_fault,
    check_source,
    endpoint_fault,
    endpoint_origin,
    region_fault,
    s3_bucket_fault,
    source_faults,
)
from app.storage.source import Anonymous, AzureSource, S3Source

ODD_BUT_FINE = [
    "a b.jpg",
    "100%.jpg",
    "%2e%2e/x",
    "a+b",
    "a//b",
    "/leading",
    "trailing/",
    "why?.png",
    "#1.png",
    "back\\slash\\..\\x",
    "é/漢/🐈.webp",
    "...",
    "..a/b..",
    ".hidden/x",
    "a" * 1024,
    "\u2028line",
]
DOTS = [".", "..", "./x", "../x", "a/./b", "a/../b", "a/.", "a/..", "/..", "//./x"]
UNPRINTABLE = ["a\0b", "a\nb", "\x1f", "a\x7f", "a\x80", "a\x9f", "\ud800", "x\udfff"]


@pytest.mark.parametrize("key", ODD_BUT_FINE)
def test_a_key_with_odd_characters_passes_as_it_is(key: str) -> None:
    check_key(key)
    check_prefix(key)


@pytest.mark.parametrize("key", ["", *DOTS, *UNPRINTABLE, "a" * 1025, "é" * 513])
def test_a_key_that_no_bucket_may_be_asked_for_is_refused(key: str) -> None:
    with pytest.raises(InvalidKeyError):
        check_key(key)


@pytest.mark.parametrize("prefix", ["../", "a/../", "./", "a/./b", *UNPRINTABLE, "a" * 1025])
def test_a_bad_prefix_is_refused_at_its_own_place(prefix: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        check_prefix(prefix)
    assert [fault.pointer for fault in caught.value.faults] == ["query:prefix"]


@pytest.mark.parametrize("prefix", ["", ".", "a/..", "a/", "/"])
def test_a_prefix_may_end_in_the_middle_of_a_segment(prefix: str) -> None:
    check_prefix(prefix)


@given(st.text(max_size=60))
def test_exactly_the_keys_without_controls_and_dot_segments_pass(key: str) -> None:
    controls = any(unicodedata.category(character) in {"Cc", "Cs"} for character in key)
    dots = any(segment in {".", ".."} for segment in key.split("/"))
    try:
        check_key(key)
    except InvalidKeyError:
        assert controls or dots or not key
    else:
        assert not controls
        assert not dots
        assert key


@pytest.mark.parametrize("name", ["pets", "my.pets-2024", "a1b", "a" * 63, "x" * 20 + "-s3alias"])
def test_a_bucket_name_by_the_grammar_passes(name: str) -> None:
    assert s3_bucket_fault(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "ab",
        "a" * 64,
        "Pets",
        "pets_2",
        "-pets",
        "pets-",
        ".pets",
        "a..b",
        "a.-b",
        "a-.b",
        "192.168.5.4",
        "pets/cats",
        "s3://pets",
        "arn:aws:s3:::pets",
        "arn:aws:s3:eu-west-1:123456789012:accesspoint/pets",
        "pets\n",
        "pets?x",
        "pets@evil.example",
        "\u0440ets",
        "pets--euw1-az1--x-s3",
    ],
)
def test_a_bucket_name_against_the_grammar_is_refused(name: str) -> None:
    assert s3_bucket_fault(name)


@pytest.mark.parametrize("name", ["pics", "my-pics-1", "$web", "$root", "a" * 63])
def test_a_container_name_by_the_grammar_passes(name: str) -> None:
    assert azure_container_fault(name) is None


@pytest.mark.parametrize(
    "name", ["", "ab", "a" * 64, "Pics", "a--b", "-ab", "ab-", "a.b", "a/b", "$logs", "pics\n", "pïcs"]
)
def test_a_container_name_against_the_grammar_is_refused(name: str) -> None:
    assert azure_container_fault(name)


@pytest.mark.parametrize(
    ("name", "fine"),
    [("acc", True), ("a" * 24, True), ("devstoreaccount1", True)]
    + [(bad, False) for bad in ("", "ab", "a" * 25, "Acc", "a-b", "acc.blob.core.windows.net", "acc\n")],
)
def test_an_account_has_3_to_24_lower_case_letters_and_digits(name: str, fine: bool) -> None:
    assert (azure_account_fault(name) is None) is fine


@pytest.mark.parametrize(
    ("name", "fine"),
    [("eu-central-1", True), ("garage", True), ("a" * 63, True)]
    + [(bad, False) for bad in ("", "a" * 64, "EU", "eu_central", "eu-central-1\n", "x.evil.example/")],
)
def test_a_region_is_a_short_word(name: str, fine: bool) -> None:
    assert (region_fault(name) is None) is fine


@pytest.mark.parametrize(
    ("url", "origin", "path"),
    [
        ("https://s3.example.org", Origin("https", "s3.example.org", 443), ""),
        ("http://127.0.0.1:9000/", Origin("http", "127.0.0.1", 9000), ""),
        ("http://minio:9000/base/path/", Origin("http", "minio", 9000), "/base/path"),
        ("http://[::1]:8333", Origin("http", "::1", 8333), ""),
        ("https://my_minio.internal", Origin("https", "my_minio.internal", 443), ""),
    ],
)
def test_an_endpoint_is_split_into_origin_and_path(url: str, origin: Origin, path: str) -> None:
    assert endpoint_fault(url) is None
    assert endpoint_origin(url) == (origin, path)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "s3.example.org",
        "ftp://x.example",
        "file:///etc/passwd",
        "http://",
        "http:///path",
        "http://user:pw@host.example",
        "http://host.example@evil.example",
        "http://host.example?x=1",
        "http://host.example/?",
        "http://host.example/#f",
        "http://host.example:0",
        "http://host.example:99999",
        "http://host.example:80x",
        "http://host example",
        "http://host.example/a b",
        "http://host.example/a/../b",
        "http://host.example/%2e%2e/",
        "http://host.example//x",
        "http://host\t.example",
        "http://host.example\n",
        "http://host.example\\@evil.example",
        "http://\uff11\uff12\uff17.0.0.1",
        "http://2130706433",
        "http://0x7f.1",
        "http://127.1",
        "http://0177.0.0.1",
        "http://[fe80::1%25lo]",
        "http://[::1",
        "http://-x.example",
        "http://a..example",
        "http://" + "a" * 600,
    ],
)
def test_an_endpoint_with_anything_more_is_refused(url: str) -> None:
    assert endpoint_fault(url)


def test_every_fault_of_a_source_is_named_at_its_own_field() -> None:
    s3 = S3Source("Bad Bucket", Anonymous(), region="EU", endpoint_url="nope", prefix="\0")
    azure = AzureSource("x", Anonymous(), account_name="NO", endpoint_url="nope", prefix="../")
    assert [at for at, _ in source_faults(s3)] == ["bucket", "region", "endpoint_url", "prefix"]
    assert [at for at, _ in source_faults(azure)] == ["container", "account_name", "endpoint_url", "prefix"]
    assert [at for at, _ in source_faults(AzureSource("pics", Anonymous()))] == ["account_name"]


def test_a_source_is_checked_once_more_before_it_is_opened() -> None:
    check_source(S3Source("pets", Anonymous()))
    with pytest.raises(MisconfiguredError) as caught:
        check_source(S3Source("arn:aws:s3:::pets", Anonymous()))
    assert caught.value.at == "bucket"
