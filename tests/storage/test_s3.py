"""S3: signatures as botocore makes them, refusals in words, and no obedience to hostile or odd servers."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
from aiohttp import web
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from app.errors import (
    AccessDeniedError,
    AddressRefusedError,
    BucketMissingError,
    CredentialExpiredError,
    InvalidInputError,
    MisconfiguredError,
    ObjectArchivedError,
    ObjectMissingError,
    StorageError,
    ThrottledError,
    UnreachableError,
    UpstreamError,
    WrongRegionError,
)
from app.storage.base import Answer, Origin
from app.storage.bucket import Bucket
from app.storage.gate import Gate
from app.storage.guard import Guard
from app.storage.providers import open_provider
from app.storage.providers.s3_listing import read_listing
from app.storage.providers.s3_signature import S3Signer
from app.storage.sdk import SharedSession
from app.storage.source import Anonymous, KeyPair, S3Source
from app.storage.tls import tls_context
from app.storage.transport import Transport

SECRET = "planted/secret+key"
TOKEN = "planted-session-token=="
KEYS = KeyPair("AKIAPLANTED", SecretStr(SECRET))
WITH_TOKEN = replace(KEYS, session_token=SecretStr(TOKEN))
NOW = datetime(2024, 5, 17, 10, 30, 5, tzinfo=UTC)

key_text = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=40) | st.text(
    "ab/+%~'()* éß漢🐈\\^.?#&=;:@!$,[]{}|<>\"`", min_size=1, max_size=40
)


def expected(
    monkeypatch: pytest.MonkeyPatch, url: str, method: str, region: str, auth: KeyPair
) -> AWSRequest:
    """Sign a URL as botocore does, at the frozen time."""
    token = auth.session_token
    credentials = Credentials(
        auth.access_key_id, auth.secret_access_key.get_secret_value(), token and token.get_secret_value()
    )
    signer = S3SigV4Auth(credentials, "s3", region)
    request = AWSRequest(method, url, headers={"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"})
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: NOW.replace(tzinfo=None))
    monkeypatch.setattr(S3SigV4Auth, "payload", lambda self, request: "UNSIGNED-PAYLOAD")
    signer.add_auth(request)
    return request


@pytest.mark.parametrize("auth", [KEYS, WITH_TOKEN], ids=["key", "token"])
@pytest.mark.parametrize(
    ("host", "base", "region"),
    [
        ("pets.s3.eu-central-1.amazonaws.com", "/", "eu-central-1"),
        ("s3.amazonaws.com", "/my.pets/", "us-east-1"),
        ("127.0.0.1:9000", "/base/path/pets/", "us-east-1"),
    ],
)
@given(key=key_text, method=st.sampled_from(["GET", "HEAD"]))
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_signature_is_botocores(
    monkeypatch: pytest.MonkeyPatch, host: str, base: str, region: str, auth: KeyPair, key: str, method: Any
) -> None:
    monkeypatch.setattr("app.storage.providers.s3_signature.time", NOW.timestamp)
    signed = S3Signer(Origin("https", host, 443), host, base, region, auth).sign(method, key)
    headers = dict(signed.headers)
    reference = expected(monkeypatch, f"https://{host}{base}{quote(key, safe='/~')}", method, region, auth)
    assert headers[b"authorization"].decode() == reference.headers["Authorization"]
    assert headers[b"x-amz-date"].decode() == reference.headers["X-Amz-Date"]
    assert headers.get(b"x-amz-security-token", b"").decode() == reference.headers.get(
        "X-Amz-Security-Token", ""
    )


def test_the_days_key_is_renewed_and_the_skew_is_in_the_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = NOW.timestamp()
    monkeypatch.setattr("app.storage.providers.s3_signature.time", lambda: moment)
    signer = S3Signer(Origin("https", "h", 443), "h", "/b/", "eu-west-1", KEYS)
    assert dict(signer.sign("GET", "k").headers)[b"x-amz-date"] == b"20240517T103005Z"
    moment += 86400
    signer.skew_s = 3600
    later = signer.sign("GET", "k")
    fresh = S3Signer(Origin("https", "h", 443), "h", "/b/", "eu-west-1", KEYS)
    fresh.skew_s = 3600
    assert later == fresh.sign("GET", "k")
    assert dict(later.headers)[b"x-amz-date"] == b"20240518T113005Z"


def test_an_anonymous_read_is_unsigned_and_extra_headers_go_along() -> None:
    signer = S3Signer(Origin("https", "h", 443), "h", "/b/", "eu-west-1", Anonymous())
    signed = signer.sign("GET", "a b", [(b"range", b"bytes=0-1")])
    assert signed.target == b"/b/a%20b"
    assert {name for name, _ in signed.headers} == {b"host", b"accept", b"accept-encoding", b"range"}


def test_no_secret_shows_in_any_repr() -> None:
    for thing in (WITH_TOKEN, S3Signer(Origin("https", "h", 443), "h", "/", "r", WITH_TOKEN)):
        assert "planted" not in repr(thing).lower().replace("akiaplanted", "")


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Servers:
    """Opens buckets over servers that answer whatever a test wants."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        guard, tls = Guard(["127.0.0.1"]), tls_context()
        self.shared = SharedSession(guard, tls)
        self.transport = Transport(guard, tls)
        self.seen: list[web.Request] = []

    async def answering(self, handler: Handler) -> str:
        async def noted(request: web.BaseRequest) -> web.StreamResponse:
            assert isinstance(request, web.Request | web.BaseRequest)
            self.seen.append(request)  # type: ignore[arg-type]
            return await handler(request)  # type: ignore[arg-type]

        runner = web.ServerRunner(web.Server(noted), shutdown_timeout=0.1)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    async def open(self, source: S3Source) -> Bucket:
        bucket = Bucket(await open_provider(source, self.shared), self.transport, Gate(8, 8))
        self._stack.push_async_callback(bucket.aclose)
        return bucket

    async def bucket(self, handler: Handler, **changes: Any) -> Bucket:
        source = S3Source("pets", KEYS, endpoint_url=await self.answering(handler))
        return await self.open(replace(source, **changes))


@pytest_asyncio.fixture
async def servers() -> AsyncIterator[Servers]:
    async with AsyncExitStack() as stack:
        servers = Servers(stack)
        stack.push_async_callback(servers.shared.aclose)
        stack.push_async_callback(servers.transport.aclose)
        yield servers


def refusing(status: int, code: str = "", headers: dict[str, str] | None = None, more: str = "") -> Handler:
    """Answer as S3 refuses; without a code, as something refuses that is no S3."""

    async def handler(request: web.Request) -> web.StreamResponse:
        message = "planted words of the server"
        xml = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>"
        body = xml if code else f"<html><body>{message}</body></html>"
        return web.Response(status=status, text=body, headers=headers, content_type="application/xml")

    return handler


REFUSALS = [
    (403, "InvalidAccessKeyId", AccessDeniedError, "auth/access_key_id"),
    (403, "SignatureDoesNotMatch", AccessDeniedError, "auth/secret_access_key"),
    (400, "ExpiredToken", CredentialExpiredError, "auth/session_token"),
    (400, "InvalidToken", AccessDeniedError, "auth/session_token"),
    (403, "AccessDenied", AccessDeniedError, "auth"),
    (403, "RequestTimeTooSkewed", MisconfiguredError, ""),
    (404, "NoSuchBucket", BucketMissingError, "bucket"),
    (400, "AuthorizationHeaderMalformed", AccessDeniedError, "auth/access_key_id"),
    (301, "PermanentRedirect", WrongRegionError, "region"),
    (503, "SlowDown", ThrottledError, ""),
    (503, "", ThrottledError, ""),
    (429, "TooManyRequests", ThrottledError, ""),
    (500, "InternalError", UpstreamError, ""),
    (400, "SomethingNew", UpstreamError, ""),
]


@pytest.mark.parametrize(("status", "code", "kind", "at"), REFUSALS)
async def test_a_refused_read_says_what_where_and_what_to_do(
    servers: Servers, status: int, code: str, kind: type[StorageError], at: str
) -> None:
    bucket = await servers.bucket(refusing(status, code))
    with pytest.raises(kind) as caught:
        await bucket.open("k")
    assert type(caught.value) is kind
    assert caught.value.at == at
    assert caught.value.remedy or kind is ThrottledError
    assert "planted" not in f"{caught.value} {caught.value.remedy}"


@pytest.mark.parametrize(
    ("status", "code", "kind", "at"), [row for row in REFUSALS if row[0] not in {301, 500, 503, 429}]
)
async def test_a_refused_listing_says_the_same(
    servers: Servers, status: int, code: str, kind: type[StorageError], at: str
) -> None:
    bucket = await servers.bucket(refusing(status, code))
    with pytest.raises(kind) as caught:
        await bucket.check_access()
    assert (type(caught.value), caught.value.at) == (kind, at)
    assert "planted" not in f"{caught.value} {caught.value.remedy}"


async def test_words_for_single_objects(servers: Servers) -> None:
    for status, code, kind in (
        (404, "NoSuchKey", ObjectMissingError),
        (404, "", ObjectMissingError),
        (403, "InvalidObjectState", ObjectArchivedError),
    ):
        with pytest.raises(kind):
            await (await servers.bucket(refusing(status, code))).open("k")
    kms = refusing(403, "AccessDenied", more="<Extra>not authorized to perform: kms:Decrypt</Extra>")
    with pytest.raises(AccessDeniedError, match="KMS"):
        await (await servers.bucket(kms)).open("k")
    with pytest.raises(AccessDeniedError, match="everybody"):
        await (await servers.bucket(refusing(403, "AccessDenied"), auth=Anonymous())).open("k")


async def test_a_throttled_bucket_says_when_to_come_back(servers: Servers) -> None:
    bucket = await servers.bucket(refusing(503, "SlowDown", {"Retry-After": "7"}))
    with pytest.raises(ThrottledError) as caught:
        await bucket.open("k")
    assert caught.value.retry_after_s == 7
    assert len(servers.seen) == 1


@pytest.mark.parametrize(
    "handler",
    [
        refusing(301, "PermanentRedirect", {"x-amz-bucket-region": "eu-west-3"}),
        refusing(400, "AuthorizationHeaderMalformed", more="<Region>eu-west-3</Region>"),
        refusing(
            307, "TemporaryRedirect", {"x-amz-bucket-region": "eu-west-3", "Location": "http://127.0.0.1:1/"}
        ),
    ],
    ids=["301", "400", "307"],
)
async def test_a_bucket_of_another_region_says_which(servers: Servers, handler: Handler) -> None:
    bucket = await servers.bucket(handler, region="eu-central-1")
    for act in (bucket.open("k"), bucket.check_access(), bucket.list()):
        with pytest.raises(WrongRegionError) as caught:
            await act
        assert (caught.value.region, caught.value.at) == ("eu-west-3", "region")
        assert "This bucket lives in eu-west-3." in caught.value.detail
    assert len(servers.seen) < 20


async def test_botocore_does_not_hide_a_wrong_region_by_signing_anew(servers: Servers) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if "/eu-west-3/s3/" in request.headers["Authorization"]:
            return web.Response(text="<ListBucketResult/>", content_type="application/xml")
        return await refusing(400, "AuthorizationHeaderMalformed", more="<Region>eu-west-3</Region>")(request)

    with pytest.raises(WrongRegionError) as caught:
        await (await servers.bucket(handler)).check_access()
    assert caught.value.region == "eu-west-3"


async def test_a_wordless_head_of_another_region_says_which(servers: Servers) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(status=400, headers={"x-amz-bucket-region": "eu-west-3"})

    with pytest.raises(WrongRegionError) as caught:
        await (await servers.bucket(handler)).head("k")
    assert caught.value.region == "eu-west-3"


@pytest.mark.parametrize("status", [200, 301, 400, 403])
@pytest.mark.parametrize("auth", [KEYS, Anonymous()], ids=["key", "anonymous"])
async def test_on_aws_the_bucket_itself_is_asked_where_it_lives(
    servers: Servers, status: int, auth: KeyPair | Anonymous
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.method == "HEAD":
            return web.Response(status=status, headers={"x-amz-bucket-region": "eu-west-3"})
        return await refusing(403, "AccessDenied")(request)

    bucket = await servers.bucket(handler, auth=auth)
    bucket._provider._is_aws = True  # type: ignore[attr-defined]  # AWS itself is out of a test's reach
    with pytest.raises(WrongRegionError) as caught:
        await bucket.check_access()
    assert caught.value.region == "eu-west-3"
    assert len(servers.seen) < 5


async def test_a_bucket_in_the_given_region_is_listed(servers: Servers) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.method == "HEAD":
            return web.Response(headers={"x-amz-bucket-region": "eu-west-3"})
        return web.Response(text="<ListBucketResult/>", content_type="application/xml")

    bucket = await servers.bucket(handler, region="eu-west-3")
    bucket._provider._is_aws = True  # type: ignore[attr-defined]  # as above
    await bucket.check_access()
    assert [request.method for request in servers.seen] == ["HEAD", "GET"]


async def test_the_check_lists_below_the_storages_prefix_alone(servers: Servers) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.query.get("prefix") == "mine/":
            return web.Response(text="<ListBucketResult/>", content_type="application/xml")
        return await refusing(403, "AccessDenied")(request)

    await (await servers.bucket(handler, prefix="mine/")).check_access()
    with pytest.raises(AccessDeniedError):
        await (await servers.bucket(handler, prefix="")).check_access()


async def test_a_region_without_an_address_is_the_regions_fault(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nobody(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", nobody)
    bucket = await servers.open(S3Source("pets", KEYS, "nowhere-1"))
    with pytest.raises(MisconfiguredError) as caught:
        await bucket.check_access()
    assert caught.value.at == "region"


async def test_a_nonsense_region_hint_is_not_repeated(servers: Servers) -> None:
    handler = refusing(301, "PermanentRedirect", {"x-amz-bucket-region": "EU <b>"})
    with pytest.raises(WrongRegionError) as caught:
        await (await servers.bucket(handler)).open("k")
    assert caught.value.region is None
    assert "<b>" not in caught.value.detail


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(servers: Servers, status: int) -> None:
    async def elsewhere(request: web.Request) -> web.StreamResponse:
        return web.Response(text="stolen")

    target = await servers.answering(elsewhere)

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": target + "/pets/k"})

    bucket = await servers.bucket(handler)
    for act in (bucket.open("k"), bucket.check_access()):
        with pytest.raises(MisconfiguredError) as caught:
            await act
        assert caught.value.at == "endpoint_url"
    assert all(str(request.url.port) not in target for request in servers.seen)


@pytest.mark.parametrize("status", [200, 400, 403, 404, 405])
async def test_an_endpoint_that_is_no_s3_is_named(servers: Servers, status: int) -> None:
    with pytest.raises(MisconfiguredError) as caught:
        await (await servers.bucket(refusing(status))).check_access()
    assert caught.value.at == "endpoint_url"
    assert "S3" in caught.value.detail


async def test_an_error_inside_a_200_is_an_error(servers: Servers) -> None:
    with pytest.raises(StorageError) as caught:
        await (await servers.bucket(refusing(200, "InternalError"))).list()
    assert isinstance(caught.value, UpstreamError)


async def test_a_closed_connection_and_a_refused_one_are_unreachable(servers: Servers) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    bucket = await servers.bucket(handler)
    with pytest.raises(StorageError) as caught:
        await bucket.check_access()
    assert (caught.value.at, caught.value.state) == ("endpoint_url", "unreachable")
    closed = await servers.open(S3Source("pets", KEYS, endpoint_url="http://127.0.0.1:1"))
    for act in (closed.check_access(), closed.open("k")):
        with pytest.raises(UnreachableError) as refused:
            await act
        assert refused.value.at == "endpoint_url"


async def test_a_failure_to_reach_aws_is_at_no_field_that_was_not_given(servers: Servers) -> None:
    bucket = await servers.open(S3Source("pets", KEYS, endpoint_url="http://127.0.0.1:1"))
    bucket._provider._is_aws = True  # type: ignore[attr-defined]  # AWS itself is out of a test's reach
    with pytest.raises(UnreachableError) as caught:
        await bucket.list()
    assert caught.value.at == ""


async def test_an_endpoint_without_tls_is_said_so(servers: Servers) -> None:
    url = (await servers.answering(refusing(404))).replace("http:", "https:")
    bucket = await servers.open(S3Source("pets", KEYS, endpoint_url=url))
    for act in (bucket.check_access(), bucket.open("k")):
        with pytest.raises(UnreachableError, match="TLS") as caught:
            await act
        assert caught.value.at == "endpoint_url"


async def test_a_private_address_is_refused_before_any_connection(servers: Servers) -> None:
    for url in ("http://10.0.0.1", "http://[::1]:9000", "http://192.168.1.1"):
        bucket = await servers.open(S3Source("pets", KEYS, endpoint_url=url))
        for act in (bucket.check_access(), bucket.open("k")):
            with pytest.raises(AddressRefusedError) as caught:
                await act
            assert caught.value.at == "endpoint_url"
            assert "FRAMEGATE_ALLOWED_PRIVATE_ENDPOINTS" in caught.value.remedy


async def test_names_that_would_change_the_host_never_reach_botocore(servers: Servers) -> None:
    for source, at in (
        (S3Source("arn:aws:s3:::pets", KEYS), "bucket"),
        (S3Source("pets", KEYS, region="eu west"), "region"),
        (S3Source("pets", KEYS, endpoint_url="http://user@host"), "endpoint_url"),
    ):
        with pytest.raises(MisconfiguredError) as caught:
            await servers.open(source)
        assert caught.value.at == at


@pytest.mark.parametrize(
    ("source", "host", "path"),
    [
        (S3Source("pets", KEYS, "eu-central-1"), "pets.s3.eu-central-1.amazonaws.com", b"/a%2Bb"),
        (S3Source("pets", KEYS), "pets.s3.amazonaws.com", b"/a%2Bb"),
        (S3Source("my.pets", KEYS, "eu-central-1"), "s3.eu-central-1.amazonaws.com", b"/my.pets/a%2Bb"),
        (S3Source("pets", Anonymous(), "eu-central-1"), "pets.s3.eu-central-1.amazonaws.com", b"/a%2Bb"),
        (S3Source("pets", KEYS, "cn-north-1"), "pets.s3.cn-north-1.amazonaws.com.cn", b"/a%2Bb"),
        (S3Source("pets", KEYS, None, "https://minio.example/base/"), "minio.example", b"/base/pets/a%2Bb"),
        (S3Source("pets", KEYS, None, "https://minio.example:443"), "minio.example", b"/pets/a%2Bb"),
    ],
)
async def test_the_address_is_botocores(servers: Servers, source: S3Source, host: str, path: bytes) -> None:
    provider = await open_provider(source, servers.shared)
    signed = provider.sign("GET", "a+b")
    assert (signed.origin.host, signed.target) == (host, path)
    assert dict(signed.headers)[b"host"] == host.encode()
    await provider.aclose()


async def test_the_machines_environment_changes_nothing(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverting = {
        "AWS_PROFILE": "nobody",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "AWS_USE_FIPS_ENDPOINT": "true",
        "AWS_USE_DUALSTACK_ENDPOINT": "true",
        "AWS_MAX_ATTEMPTS": "nonsense",
        "AWS_RETRY_MODE": "nonsense",
        "AWS_SESSION_TOKEN": "somebody else's",
        "AWS_CONFIG_FILE": os.devnull + "/nothing",
        "HTTPS_PROXY": "http://127.0.0.1:1",
        "HTTP_PROXY": "http://127.0.0.1:1",
    }
    for name, value in diverting.items():
        monkeypatch.setenv(name, value)
    provider = await open_provider(S3Source("pets", KEYS, "eu-central-1"), servers.shared)
    assert provider.origin.host == "pets.s3.eu-central-1.amazonaws.com"
    assert b"x-amz-security-token" not in dict(provider.sign("GET", "k").headers)
    await provider.aclose()
    with pytest.raises(ThrottledError):
        await (await servers.bucket(refusing(503, "SlowDown"))).list()
    assert "X-Amz-Security-Token" not in servers.seen[-1].headers


async def test_a_session_token_goes_with_reads_and_listings(servers: Servers) -> None:
    bucket = await servers.bucket(refusing(403, "InvalidToken"), auth=WITH_TOKEN)
    for act in (bucket.open("k"), bucket.list()):
        with pytest.raises(AccessDeniedError):
            await act
    assert [request.headers["X-Amz-Security-Token"] for request in servers.seen] == [TOKEN, TOKEN]


async def test_the_clock_is_learned_from_a_refusal_once_and_kept(servers: Servers) -> None:
    ahead = timedelta(seconds=4000)

    async def handler(request: web.Request) -> web.StreamResponse:
        date = format_datetime(datetime.now(UTC) + ahead, usegmt=True)
        stamp = datetime.strptime(request.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        near = abs(datetime.now(UTC) + ahead - stamp) < timedelta(minutes=15)
        return web.Response(status=200 if near else 403, headers={"Date": date}, text="x")

    bucket = await servers.bucket(handler)
    await bucket.head("k")
    await bucket.open("k")
    assert len(servers.seen) == 3
    assert abs(bucket.clock_skew_s - 4000) < 5


async def test_a_wrong_secret_is_tried_once(servers: Servers) -> None:
    bucket = await servers.bucket(refusing(403, "SignatureDoesNotMatch"))
    with pytest.raises(AccessDeniedError):
        await bucket.open("k")
    assert len(servers.seen) == 1


LISTING = """<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
<EncodingType>{encoding}</EncodingType><IsTruncated>{truncated}</IsTruncated>
<NextContinuationToken>next+/=</NextContinuationToken>
<CommonPrefixes><Prefix>d%2B/</Prefix></CommonPrefixes>
<Contents><Key>a+b%2B%2525</Key><Size>7</Size><ETag>"e"</ETag><LastModified>2024-05-17T10:30:00.123Z</LastModified>
<Owner><ID>x</ID></Owner></Contents>
<Contents><Key>bare</Key><Size>many</Size><ETag>bare</ETag><LastModified>soon</LastModified></Contents>
</ListBucketResult>"""


def test_keys_of_a_listing_are_decoded_exactly_once_and_only_if_encoded() -> None:
    page = read_listing(LISTING.format(encoding="url", truncated="true").encode())
    assert [(item.key, item.is_prefix) for item in page.items] == [
        ("d+/", True),
        ("a b+%25", False),
        ("bare", False),
    ]
    assert page.cursor == "next+/="
    known, bare = page.items[1:]
    assert (known.size_bytes, known.etag) == (7, '"e"')
    assert known.last_modified == datetime(2024, 5, 17, 10, 30, 0, 123000, UTC)
    assert (bare.size_bytes, bare.etag, bare.last_modified) == (None, '"bare"', None)
    plain = read_listing(LISTING.format(encoding="", truncated="false").encode())
    assert ([item.key for item in plain.items], plain.cursor) == (["d%2B/", "a+b%2B%2525", "bare"], None)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"hello",
        b"<html><body>console</body></html>",
        b"<ListBucketResult>",
        b'<!DOCTYPE x [<!ENTITY e "e">]><ListBucketResult><Name>&e;</Name></ListBucketResult>',
    ],
)
def test_what_is_no_listing_is_a_wrong_endpoint(document: bytes) -> None:
    with pytest.raises(MisconfiguredError) as caught:
        read_listing(document)
    assert caught.value.at == "endpoint_url"


async def test_a_cursor_the_bucket_does_not_know_is_the_cursors_fault(servers: Servers) -> None:
    bucket = await servers.bucket(refusing(400, "InvalidArgument"))
    with pytest.raises(InvalidInputError) as caught:
        await bucket.list("", "", "forged", 10)
    assert [fault.pointer for fault in caught.value.faults] == ["query:cursor"]
    with pytest.raises(UpstreamError):
        await bucket.list("", "", None, 10)


async def test_identities_without_rights_are_told_apart(s3: Any, s3_bucket: Any, servers: Servers) -> None:
    await s3_bucket.put("k", b"x")

    def source(keys: Any) -> S3Source:
        pair = KeyPair(keys.access_key_id, SecretStr(keys.secret_access_key))
        return S3Source(s3_bucket.name, pair, endpoint_url=s3.endpoint_url)

    await (await servers.open(source(s3.reader))).check_access()
    for keys in (s3.unlisting, s3.stranger):
        with pytest.raises(AccessDeniedError) as caught:
            await (await servers.open(source(keys))).check_access()
        assert "s3:ListBucket" in caught.value.remedy
    unknown = replace(source(s3.reader), auth=KEYS)
    with pytest.raises(AccessDeniedError) as caught:
        await (await servers.open(unknown)).check_access()
    assert caught.value.at == "auth/access_key_id"


async def test_a_public_bucket_needs_no_credential(s3: Any, s3_bucket: Any, servers: Servers) -> None:
    await s3_bucket.put("k", b"x")
    source = S3Source(s3_bucket.name, Anonymous(), endpoint_url=s3.endpoint_url)
    bucket = await servers.open(source)
    with pytest.raises(AccessDeniedError, match="everybody"):
        await bucket.check_access()
    await s3_bucket.publish()
    await asyncio.sleep(0.2)
    await bucket.check_access()
    assert (await bucket.open("k")).body == b"x"


def test_a_refusal_at_another_clock_teaches_nothing_to_an_anonymous_reader() -> None:
    from app.storage.clock import learned_skew

    ahead = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True).encode()
    assert learned_skew(Answer(403, {b"date": ahead}, b"", 0), 0.0) == pytest.approx(3600, abs=2)
    assert learned_skew(Answer(403, {b"date": ahead}, b"", 0), 3600.0) is None
    assert learned_skew(Answer(404, {b"date": ahead}, b"", 0), 0.0) is None
    assert learned_skew(Answer(403, {b"date": b"soon"}, b"", 0), 0.0) is None
