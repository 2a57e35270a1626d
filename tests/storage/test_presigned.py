"""Presigned URLs: signed as botocore signs them, taken by real servers, for one key and a while, and no more."""

import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, urlsplit

import httpx
import pytest
import pytest_asyncio
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from app.errors import AccessDeniedError, InvalidKeyError, MisconfiguredError, ObjectMissingError
from app.services.probe import probe
from app.storage.base import Origin, Overrides
from app.storage.bucket import Bucket
from app.storage.providers import redirect_refusal
from app.storage.providers.s3_signature import S3Signer
from app.storage.redirects import overrides_for
from app.storage.source import (
    AccountKey,
    Anonymous,
    AzureSource,
    ConnectionString,
    KeyPair,
    S3Source,
    SasToken,
    Source,
)
from tests.servers.azurite import AzureServer
from tests.servers.s3 import S3Server
from tests.storage.test_conformance import (
    ODD_KEYS,
    SLASHES,
    Backend,
    Open,
    azure_backend,
    opened,
    s3_backend,
)
from tests.storage.test_s3 import KEYS, NOW, WITH_TOKEN, key_text

__all__ = ["opened"]

PLAIN = Overrides("image/jpeg", None, "private, no-cache")
BODY = bytes(range(256)) * 40
PAST_S = -3600.0


def query_of(url: str) -> dict[str, str]:
    """The query of a URL, decoded."""
    return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True, strict_parsing=True))


def botocores(
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    url: str,
    region: str,
    auth: KeyPair,
    lifetime_s: int,
    overrides: Overrides,
) -> str:
    """Presign a URL as botocore does, at the frozen time."""
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: NOW.replace(tzinfo=None))
    token = auth.session_token
    credentials = Credentials(
        auth.access_key_id, auth.secret_access_key.get_secret_value(), token and token.get_secret_value()
    )
    asked = {
        "response-cache-control": overrides.cache_control,
        "response-content-disposition": overrides.content_disposition,
        "response-content-type": overrides.content_type,
    }
    request = AWSRequest(method, url, params={name: text for name, text in asked.items() if text})
    S3SigV4QueryAuth(credentials, "s3", region, expires=lifetime_s).add_auth(request)
    return str(request.url)


@pytest.mark.parametrize("auth", [KEYS, WITH_TOKEN], ids=["key", "token"])
@pytest.mark.parametrize(
    ("scheme", "host", "base", "region"),
    [
        ("https", "pets.s3.eu-central-1.amazonaws.com", "/", "eu-central-1"),
        ("https", "s3.amazonaws.com", "/my.pets/", "us-east-1"),
        ("http", "127.0.0.1:9000", "/base/path/pets/", "us-east-1"),
    ],
)
@given(
    key=key_text,
    method=st.sampled_from(["GET", "HEAD"]),
    lifetime_s=st.integers(1, 604_800),
    download=st.booleans(),
)
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_presigned_url_is_botocores(
    monkeypatch: pytest.MonkeyPatch,
    scheme: Literal["http", "https"],
    host: str,
    base: str,
    region: str,
    auth: KeyPair,
    key: str,
    method: Any,
    lifetime_s: int,
    download: bool,
) -> None:
    monkeypatch.setattr("app.storage.providers.s3_signature.time", NOW.timestamp)
    overrides = overrides_for(key, download=download)
    signer = S3Signer(Origin(scheme, host, 443), host, base, region, auth)
    ours = signer.presign(method, key, lifetime_s, overrides).get_secret_value()
    url = f"{scheme}://{host}{base}{quote(key, safe='/~')}"
    theirs = botocores(monkeypatch, method, url, region, auth, lifetime_s, overrides)
    assert ours.partition("?")[0] == theirs.partition("?")[0] == url
    assert query_of(ours) == query_of(theirs)
    assert ours.isascii()


def test_a_url_carries_the_skew_and_the_session_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.storage.providers.s3_signature.time", NOW.timestamp)
    signer = S3Signer(Origin("https", "h", 443), "h", "/b/", "eu-west-1", WITH_TOKEN)
    signer.skew_s = 3600
    found = query_of(signer.presign("GET", "k", 60, PLAIN).get_secret_value())
    assert (found["X-Amz-Date"], found["X-Amz-Expires"]) == ("20240517T113005Z", "60")
    assert found["X-Amz-Security-Token"] == "planted-session-token=="


def test_an_anonymous_url_is_plain() -> None:
    signer = S3Signer(Origin("https", "h", 443), "h", "/b/", "eu-west-1", Anonymous())
    assert signer.presign("GET", "a b", 60, PLAIN).get_secret_value() == "https://h/b/a%20b"


def test_a_url_shows_in_no_repr() -> None:
    signer = S3Signer(Origin("https", "h", 443), "h", "/b/", "eu-west-1", KEYS)
    url = signer.presign("GET", "k", 60, PLAIN)
    assert "X-Amz" not in repr(url) + str(url)


@pytest.mark.parametrize(
    ("key", "download", "content_type", "attached"),
    [
        ("a.jpg", False, "image/jpeg", False),
        ("a.jpg", True, "image/jpeg", True),
        ("a.html", False, "application/octet-stream", True),
        ("a.svg", False, "application/octet-stream", True),
        ("noending", False, "application/octet-stream", True),
    ],
)
def test_what_the_bucket_shall_say_goes_by_the_key(
    key: str, download: bool, content_type: str, attached: bool
) -> None:
    overrides = overrides_for(key, download=download)
    assert (overrides.content_type, overrides.cache_control) == (content_type, "private, no-cache")
    given_name = f"attachment; filename=\"{key}\"; filename*=UTF-8''{key}"
    assert overrides.content_disposition == (given_name if attached else None)


def test_a_location_is_short_enough_for_any_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.storage.providers.s3_signature.time", NOW.timestamp)
    signer = S3Signer(Origin("https", "h", 443), "h", "/b/", "eu-west-1", KEYS)
    for key in ("é" * 512, "%" * 1024, "a/" * 511 + "b"):
        url = signer.presign("GET", key, 60, overrides_for(key)).get_secret_value()
        assert len(url) < 5_000
        assert query_of(url)["response-content-disposition"].startswith("attachment")


# --- real servers ---------------------------------------------------------------------------------


S3_SERVERS = ("seaweedfs", "juicefs", "rclone")
AZURE_WAYS = ("azurite-key", "azurite-connection-string")
ON_S3 = pytest.mark.parametrize("backend", S3_SERVERS, indirect=True)
ON_AZURE = pytest.mark.parametrize("backend", AZURE_WAYS, indirect=True)


@pytest_asyncio.fixture(params=(*S3_SERVERS, *AZURE_WAYS))
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    """Every server whose credential may make URLs."""
    name = request.param
    fixture = {"seaweedfs": "s3", "juicefs": "juicefs_s3", "rclone": "rclone_s3"}.get(name, "azurite")
    make = azure_backend if fixture == "azurite" else s3_backend
    async with make(name, request.getfixturevalue(fixture)) as made:
        yield made


async def ask(url: SecretStr, method: str = "GET", **headers: str) -> httpx.Response:
    """Ask as a client does that knows nothing but the URL."""
    async with httpx.AsyncClient(trust_env=False, timeout=30) as nobody:
        return await nobody.request(method, url.get_secret_value(), headers=headers)


def presigned(bucket: Bucket, key: str, method: Any = "GET", **more: Any) -> SecretStr:
    """The URL of an object as a redirecting storage gives it."""
    return bucket.presign(method, key, overrides_for(key), **more)


def shift_clock(bucket: Bucket, skew_s: float) -> None:
    """Let a bucket's provider sign at another time."""
    provider: Any = bucket._provider
    signing = provider._signer if hasattr(provider, "_signer") else provider._signature
    signing.skew_s = skew_s


@pytest.mark.parametrize("key", ODD_KEYS)
async def test_a_url_gives_the_object_of_an_odd_key(backend: Backend, opened: Open, key: str) -> None:
    await backend.put(key, BODY)
    answer = await ask(presigned(await opened(backend.source), key))
    assert (answer.status_code, answer.content) == (200, BODY)


@ON_AZURE
async def test_double_slashes_stay_two(backend: Backend, opened: Open) -> None:
    await backend.put(SLASHES, BODY)
    await backend.put(SLASHES.replace("//", "/"), b"another")
    assert (await ask(presigned(await opened(backend.source), SLASHES))).content == BODY


async def test_head_has_a_url_of_its_own_and_ranges_are_the_clients(backend: Backend, opened: Open) -> None:
    etag = await backend.put("a.jpg", BODY)
    bucket = await opened(backend.source)
    head = await ask(presigned(bucket, "a.jpg", "HEAD"), "HEAD")
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(BODY)))
    url = presigned(bucket, "a.jpg")
    part = await ask(url, Range="bytes=10-19")
    assert part.content == BODY[10:20]
    assert (await ask(url, **{"If-None-Match": etag})).status_code == 304
    assert (await ask(presigned(bucket, "none.jpg"))).status_code == 404


@ON_S3
async def test_an_s3_url_is_for_one_method(backend: Backend, opened: Open) -> None:
    await backend.put("a.jpg", BODY)
    bucket = await opened(backend.source)
    assert (await ask(presigned(bucket, "a.jpg", "HEAD"), "GET")).status_code == 403
    assert (await ask(presigned(bucket, "a.jpg", "GET"), "HEAD")).status_code == 403


async def test_a_url_is_for_one_key_and_for_reading(backend: Backend, opened: Open) -> None:
    for key in ("a.jpg", "b.jpg"):
        await backend.put(key, BODY)
    bucket = await opened(backend.source)
    url = presigned(bucket, "a.jpg").get_secret_value()
    bent = SecretStr(url.replace("/a.jpg?", "/b.jpg?"))
    assert bent.get_secret_value() != url
    assert (await ask(bent)).status_code == 403
    whole = SecretStr(url.replace("/a.jpg?", "?restype=container&comp=list&"))
    assert (await ask(whole)).status_code == 403
    for method in ("PUT", "DELETE"):
        refused = await ask(SecretStr(url), method, **{"x-ms-blob-type": "BlockBlob"})
        assert refused.status_code == 403, method
    assert (await ask(SecretStr(url))).content == BODY


async def test_a_url_ends(backend: Backend, opened: Open) -> None:
    await backend.put("a.jpg", BODY)
    bucket = await opened(backend.source)
    shift_clock(bucket, -10.0)
    assert (await ask(presigned(bucket, "a.jpg", lifetime_s=3600))).status_code == 200
    over = await ask(presigned(bucket, "a.jpg", lifetime_s=1))
    assert over.status_code == (400 if backend.name == "rclone" else 403)


async def test_the_bucket_says_what_the_url_asks_it_to(backend: Backend, opened: Open) -> None:
    for key in ("a.jpg", "é;\"'.html"):
        await backend.put(key, BODY, "text/html")
    bucket = await opened(backend.source)
    picture = await ask(presigned(bucket, "a.jpg"))
    active = await ask(presigned(bucket, "é;\"'.html"))
    assert picture.headers["content-type"] == "image/jpeg"
    assert picture.headers["cache-control"] == "private, no-cache"
    assert "content-disposition" not in picture.headers
    assert active.headers["content-type"] == "application/octet-stream"
    assert active.headers["content-disposition"].startswith("attachment; filename=")


async def test_a_hostile_key_gets_no_url(backend: Backend, opened: Open) -> None:
    bucket = await opened(backend.source)
    for key in ("../other/a.jpg", "a/./b", "a\r\nb", "", "x" * 1025):
        with pytest.raises(InvalidKeyError):
            presigned(bucket, key)


async def test_the_check_follows_a_url_and_says_what_is_refused(backend: Backend, opened: Open) -> None:
    await backend.put("a.jpg", BODY * 60)
    bucket = await opened(backend.source)
    await bucket.redirect_check("a.jpg")
    with pytest.raises(ObjectMissingError):
        await bucket.redirect_check("none.jpg")
    shift_clock(bucket, PAST_S)
    with pytest.raises(AccessDeniedError):
        await bucket.redirect_check("a.jpg")
    wrong = await opened(backend.wrong_secret)
    with pytest.raises(AccessDeniedError):
        await wrong.redirect_check("a.jpg")


async def test_a_probe_says_that_only_redirects_are_refused(backend: Backend, opened: Open) -> None:
    await backend.put("a.jpg", BODY)
    bucket = await opened(backend.source)
    assert (await probe(bucket, [], write=False, redirect=True)).ok
    provider: Any = bucket._provider
    presign = provider.presign
    provider.presign = lambda *how: SecretStr(presign(*how).get_secret_value() + "00")
    report = await probe(bucket, [], write=False, redirect=True)
    assert [check.name for check in report.checks if not check.ok] == ["redirect"]
    assert [fault.pointer for fault in report.faults] == ["/delivery"]
    assert report.state != "available"
    assert (await probe(bucket, [], write=False)).ok


async def test_a_public_bucket_gives_plain_urls(s3: S3Server, azurite: AzureServer, opened: Open) -> None:
    async with s3.bucket() as pets, azurite.container("container") as pics:
        await pets.publish()
        sources: list[Source] = [
            S3Source(pets.name, Anonymous(), endpoint_url=s3.endpoint_url),
            AzureSource(pics.name, Anonymous(), azurite.account_name, azurite.endpoint_url),
        ]
        for put, source in zip((pets.put, pics.put), sources, strict=True):
            await put("a b/é.jpg", BODY)
            bucket = await opened(source)
            url = presigned(bucket, "a b/é.jpg")
            assert "?" not in url.get_secret_value()
            assert (await ask(url)).content == BODY
            await bucket.redirect_check("a b/é.jpg")


# --- Azure's grants -------------------------------------------------------------------------------


KEY = base64.b64encode(b"planted account key" * 3).decode()
STRING = f"DefaultEndpointsProtocol=https;AccountName=acc;AccountKey={KEY}"
SAS = "sv=2025-05-05&sr=c&sp=rl&se=2099-01-01T00:00:00Z&sig=cGxhbnRlZA%3D%3D"


def container(auth: Any) -> AzureSource:
    return AzureSource("pics", auth, None if isinstance(auth, ConnectionString) else "acc")


@pytest.mark.parametrize("auth", [AccountKey(SecretStr(KEY)), ConnectionString(SecretStr(STRING))])
async def test_an_azure_url_grants_one_blob_for_minutes_over_https(opened: Open, auth: Any) -> None:
    bucket = await opened(container(auth))
    url = presigned(bucket, "a b/é+%.jpg").get_secret_value()
    assert url.partition("?")[0] == "https://acc.blob.core.windows.net/pics/a%20b/%C3%A9%2B%25.jpg"
    grants = query_of(url)
    assert (grants["sp"], grants["sr"], grants["spr"]) == ("r", "b", "https")
    start, end = datetime.fromisoformat(grants["st"]), datetime.fromisoformat(grants["se"])
    assert end - start == timedelta(minutes=20)
    assert timedelta(minutes=3) < end - datetime.now(UTC) <= timedelta(minutes=5)
    assert (grants["rsct"], grants["rscc"]) == ("image/jpeg", "private, no-cache")


@pytest.mark.parametrize(
    "auth",
    [
        SasToken(SecretStr(SAS)),
        ConnectionString(
            SecretStr(f"BlobEndpoint=https://acc.blob.core.windows.net/;SharedAccessSignature={SAS}")
        ),
    ],
)
async def test_a_given_sas_never_leaves(opened: Open, auth: Any) -> None:
    source = container(auth)
    refusal = redirect_refusal(source)
    assert refusal is not None
    assert "account_key" in refusal.remedy
    with pytest.raises(MisconfiguredError):
        presigned(await opened(source), "a.jpg")


def test_every_other_way_in_may_redirect() -> None:
    for auth in (AccountKey(SecretStr(KEY)), ConnectionString(SecretStr(STRING)), Anonymous()):
        assert redirect_refusal(container(auth)) is None
    source = S3Source("pets", KEYS)
    for keys in (KEYS, WITH_TOKEN, Anonymous()):
        assert redirect_refusal(replace(source, auth=keys)) is None
    broken = container(ConnectionString(SecretStr("no connection string")))
    assert redirect_refusal(broken) is None, "opening it says what is wrong, at its own field"
