"""Azure: short-lived signatures, every way in, refusals in words, and no obedience to hostile servers."""

import asyncio
import base64
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs

import pytest
import pytest_asyncio
from aiohttp import web
from azure.storage.blob import generate_container_sas
from pydantic import SecretStr

from app.errors import (
    AccessDeniedError,
    AddressRefusedError,
    BucketMissingError,
    CredentialExpiredError,
    MisconfiguredError,
    ObjectArchivedError,
    ObjectMissingError,
    StorageError,
    ThrottledError,
    UnreachableError,
    UpstreamError,
)
from app.storage.base import ByteRange, ReadOptions, Suffix
from app.storage.bucket import Bucket
from app.storage.gate import Gate
from app.storage.guard import Guard
from app.storage.providers import open_provider
from app.storage.providers.azure import MAX_PAGE
from app.storage.sdk import SharedSession
from app.storage.source import AccountKey, Anonymous, AzureSource, ConnectionString, SasToken
from app.storage.tls import tls_context
from app.storage.transport import Transport

KEY = base64.b64encode(b"planted account key" * 3).decode()
Auth = AccountKey | Anonymous | ConnectionString | SasToken
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def account_key(key: str = KEY) -> AccountKey:
    return AccountKey(SecretStr(key))


def sas(permission: str = "rl", hours: float = 1) -> SasToken:
    expiry = datetime.now(UTC) + timedelta(hours=hours)
    start = expiry - timedelta(days=2)
    token = generate_container_sas(
        "acc", "pics", account_key=KEY, permission=permission, expiry=expiry, start=start
    )
    return SasToken(SecretStr(token))


def connection_string(endpoint: str = "") -> ConnectionString:
    named = f"BlobEndpoint={endpoint};" if endpoint else ""
    return ConnectionString(
        SecretStr(f"DefaultEndpointsProtocol=https;{named}AccountName=acc;AccountKey={KEY}")
    )


class Servers:
    """Opens containers over servers that answer whatever a test wants."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        guard, tls = Guard(["127.0.0.1"]), tls_context()
        self.shared = SharedSession(guard, tls)
        self.transport = Transport(guard, tls)
        self.seen: list[web.BaseRequest] = []

    async def answering(self, handler: Handler) -> str:
        async def noted(request: web.BaseRequest) -> web.StreamResponse:
            self.seen.append(request)
            return await handler(request)  # type: ignore[arg-type]

        runner = web.ServerRunner(web.Server(noted), shutdown_timeout=0.1)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}/acc"

    async def open(self, source: AzureSource) -> Bucket:
        bucket = Bucket(await open_provider(source, self.shared), self.transport, Gate(8, 8))
        self._stack.push_async_callback(bucket.aclose)
        return bucket

    async def container(self, handler: Handler, auth: Auth | None = None) -> Bucket:
        endpoint = await self.answering(handler)
        if isinstance(auth, ConnectionString):
            return await self.open(AzureSource("pics", connection_string(endpoint)))
        return await self.open(AzureSource("pics", auth or account_key(), "acc", endpoint))


@pytest_asyncio.fixture
async def servers() -> AsyncIterator[Servers]:
    async with AsyncExitStack() as stack:
        servers = Servers(stack)
        stack.push_async_callback(servers.shared.aclose)
        stack.push_async_callback(servers.transport.aclose)
        yield servers


def refusing(status: int, code: str = "", headers: dict[str, str] | None = None, detail: str = "") -> Handler:
    """Answer as Azure refuses; without a code, as something refuses that is no Azure."""

    async def handler(request: web.Request) -> web.StreamResponse:
        message = f"planted words of the server {detail}"
        xml = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
        named = {"x-ms-error-code": code} if code else {}
        body = xml if code else f"<html><body>{message}</body></html>"
        return web.Response(
            status=status, text=body, headers={**named, **(headers or {})}, content_type="application/xml"
        )

    return handler


async def target_of(servers: Servers, source: AzureSource, key: str = "a b/é+%.jpg") -> tuple[str, str, str]:
    provider = await open_provider(source, servers.shared)
    signed = provider.sign("GET", key)
    await provider.aclose()
    headers = dict(signed.headers)
    assert headers[b"x-ms-version"] == b"2021-12-02"
    path, _, query = signed.target.decode().partition("?")
    return f"{signed.origin.scheme}://{headers[b'host'].decode()}", path, query


async def test_a_read_carries_a_short_lived_signature_for_reading_this_container_alone(
    servers: Servers,
) -> None:
    for auth in (account_key(), connection_string()):
        origin, path, query = await target_of(servers, AzureSource("pics", auth, "acc"))
        assert (origin, path) == ("https://acc.blob.core.windows.net", "/pics/a%20b/%C3%A9%2B%25.jpg")
        grants = {name: values[0] for name, values in parse_qs(query).items()}
        assert (grants["sp"], grants["sr"], grants["spr"]) == ("r", "c", "https")
        end = datetime.fromisoformat(grants["se"])
        assert timedelta(minutes=55) < end - datetime.now(UTC) < timedelta(minutes=65)
        assert KEY not in query


async def test_every_way_in_has_its_own_query(servers: Servers) -> None:
    token = sas()
    given = token.sas_token.get_secret_value()
    for text in (given, "?" + given):
        source = AzureSource("pics", SasToken(SecretStr(text)), "acc")
        assert (await target_of(servers, source))[2] == given
    assert (await target_of(servers, AzureSource("pics", Anonymous(), "acc")))[2] == ""
    in_string = f"BlobEndpoint=https://acc.blob.core.windows.net/;SharedAccessSignature={given}"
    source = AzureSource("pics", ConnectionString(SecretStr(in_string)))
    assert (await target_of(servers, source))[::2] == ("https://acc.blob.core.windows.net", given)


async def test_an_emulators_endpoint_keeps_the_accounts_path(servers: Servers) -> None:
    source = AzureSource("pics", account_key(), "acc", "http://127.0.0.1:10000/acc/")
    origin, path, query = await target_of(servers, source, "k")
    assert (origin, path) == ("http://127.0.0.1:10000", "/acc/pics/k")
    assert "spr=" not in query


async def test_the_derived_signature_is_renewed_at_half_of_its_life(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = 1_700_000_000.0
    monkeypatch.setattr("app.storage.providers.azure_access.time", lambda: moment)
    provider = await open_provider(AzureSource("pics", account_key(), "acc"), servers.shared)
    first = provider.sign("GET", "k")
    moment += 1799
    assert provider.sign("GET", "k") == first
    moment += 2
    assert provider.sign("GET", "k") != first
    await provider.aclose()


async def test_an_expired_sas_is_known_without_a_request(servers: Servers) -> None:
    container = await servers.container(refusing(403), sas(hours=-1))
    for act in (container.open("k"), container.head("k"), container.list(), container.check_access()):
        with pytest.raises(CredentialExpiredError) as caught:
            await act
        assert caught.value.at == "auth/sas_token"
    assert servers.seen == []


@pytest.mark.parametrize(("permission", "word"), [("r", "List"), ("l", "Read"), ("w", "List")])
async def test_a_sas_that_says_it_lacks_a_right_is_refused_without_a_request(
    servers: Servers, permission: str, word: str
) -> None:
    container = await servers.container(refusing(403), sas(permission))
    with pytest.raises(AccessDeniedError, match=word) as caught:
        await container.check_access()
    assert caught.value.at == "auth/sas_token"
    assert "Read and List on Container and Object" in caught.value.remedy
    assert servers.seen == []


@pytest.mark.parametrize(
    ("source", "at"),
    [
        (AzureSource("pics", SasToken(SecretStr(KEY)), "acc"), "auth/sas_token"),
        (
            AzureSource("pics", SasToken(SecretStr("https://acc.blob.core.windows.net/?sig=x")), "acc"),
            "auth/sas_token",
        ),
        (AzureSource("pics", account_key("planted, no base64"), "acc"), "auth/account_key"),
        (AzureSource("pics", ConnectionString(SecretStr("planted")), "acc"), "auth/connection_string"),
        (
            AzureSource("pics", ConnectionString(SecretStr("AccountName=acc;AccountKey=planted!"))),
            "auth/connection_string",
        ),
        (AzureSource("pics", connection_string("http://user@planted"), "acc"), "auth/connection_string"),
        (AzureSource("pics", connection_string(), "other"), "account_name"),
        (AzureSource("Pics", account_key(), "acc"), "container"),
        (AzureSource("pics", account_key(), "ac"), "account_name"),
        (AzureSource("pics", account_key()), "account_name"),
        (AzureSource("pics", account_key(), "acc", "nonsense"), "endpoint_url"),
    ],
    ids=str,
)
async def test_what_cannot_be_right_is_refused_on_opening(
    servers: Servers, source: AzureSource, at: str
) -> None:
    with pytest.raises(MisconfiguredError) as caught:
        await servers.open(source)
    assert caught.value.at == at
    assert "planted" not in f"{caught.value} {caught.value.remedy}"
    assert KEY not in str(caught.value)


REFUSALS = [
    (403, "AuthenticationFailed", account_key(), AccessDeniedError, "auth/account_key"),
    (403, "AuthenticationFailed", sas(), AccessDeniedError, "auth/sas_token"),
    (403, "AuthenticationFailed", connection_string(), AccessDeniedError, "auth/connection_string"),
    (403, "AuthorizationPermissionMismatch", sas(), AccessDeniedError, "auth/sas_token"),
    (403, "AuthorizationResourceTypeMismatch", sas(), AccessDeniedError, "auth/sas_token"),
    (403, "AuthorizationServiceMismatch", sas(), AccessDeniedError, "auth/sas_token"),
    (403, "AuthorizationFailure", account_key(), AccessDeniedError, "auth"),
    (403, "KeyBasedAuthenticationNotPermitted", account_key(), AccessDeniedError, "auth"),
    (403, "AccountIsDisabled", account_key(), AccessDeniedError, "account_name"),
    (409, "PublicAccessNotPermitted", Anonymous(), AccessDeniedError, "auth"),
    (401, "NoAuthenticationInformation", Anonymous(), AccessDeniedError, "auth"),
    (404, "ResourceNotFound", Anonymous(), AccessDeniedError, "auth"),
    (404, "ResourceNotFound", account_key(), BucketMissingError, "container"),
    (404, "ContainerNotFound", account_key(), BucketMissingError, "container"),
    (503, "ServerBusy", account_key(), ThrottledError, ""),
    (500, "InternalError", account_key(), UpstreamError, ""),
    (400, "SomethingNew", account_key(), UpstreamError, ""),
]


@pytest.mark.parametrize("way", ["read", "list"])
@pytest.mark.parametrize(("status", "code", "auth", "kind", "at"), REFUSALS)
async def test_a_refusal_says_what_where_and_what_to_do(
    servers: Servers, way: str, status: int, code: str, auth: Auth, kind: type[StorageError], at: str
) -> None:
    if way == "list" and status in {500, 503}:
        status = 409  # the SDK waits seconds before it asks again; the code decides
        kind = ThrottledError if code == "ServerBusy" else kind
    container = await servers.container(refusing(status, code), auth)
    with pytest.raises(kind) as caught:
        await (container.open("k") if way == "read" else container.check_access())
    assert (type(caught.value), caught.value.at) == (kind, at)
    assert caught.value.remedy or kind is ThrottledError
    assert "planted" not in f"{caught.value} {caught.value.remedy}"


async def test_a_signature_out_of_its_time_is_expired_or_our_clock(servers: Servers) -> None:
    handler = refusing(403, "AuthenticationFailed", detail="Signature not valid in the specified time frame")
    for auth, kind in ((sas(), CredentialExpiredError), (account_key(), MisconfiguredError)):
        container = await servers.container(handler, auth)
        for act in (container.open("k"), container.list()):
            with pytest.raises(kind):
                await act


async def test_words_for_single_blobs(servers: Servers) -> None:
    for status, code, kind in (
        (404, "BlobNotFound", ObjectMissingError),
        (404, "", ObjectMissingError),
        (409, "BlobArchived", ObjectArchivedError),
    ):
        container = await servers.container(refusing(status, code))
        with pytest.raises(kind):
            await container.open("k")
        with pytest.raises(kind):
            await container.head("k")


@pytest.mark.parametrize("hours", [3, -3])
async def test_our_clock_is_learned_from_a_refusal_and_kept(servers: Servers, hours: int) -> None:
    ahead = timedelta(hours=hours)

    async def handler(request: web.Request) -> web.StreamResponse:
        now = datetime.now(UTC) + ahead
        begin, end = (datetime.fromisoformat(request.query[name]) for name in ("st", "se"))
        return web.Response(
            status=200 if begin <= now < end else 403,
            headers={"Date": format_datetime(now, usegmt=True)},
            text="x",
        )

    container = await servers.container(handler)
    await container.open("k")
    await container.open("k")
    assert len(servers.seen) == 3
    assert abs(container.clock_skew_s - ahead.total_seconds()) < 5


@pytest.mark.parametrize("status", [301, 302, 307])
async def test_a_redirect_is_not_followed(servers: Servers, status: int) -> None:
    async def elsewhere(request: web.Request) -> web.StreamResponse:
        return web.Response(text="stolen")

    target = await servers.answering(elsewhere)

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": target})

    container = await servers.container(handler)
    for act in (container.open("k"), container.check_access()):
        with pytest.raises(StorageError):
            await act
    assert len(servers.seen) == 2


@pytest.mark.parametrize("status", [200, 400, 404, 405])
async def test_an_endpoint_that_is_no_azure_is_named(servers: Servers, status: int) -> None:
    with pytest.raises(MisconfiguredError) as caught:
        await (await servers.container(refusing(status))).check_access()
    assert caught.value.at == "endpoint_url"


async def test_an_unknown_account_is_a_name_that_does_not_resolve(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nobody(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", nobody)
    for source, kind, at in (
        (AzureSource("pics", account_key(), "nobody"), BucketMissingError, "account_name"),
        (AzureSource("pics", connection_string()), BucketMissingError, "auth/connection_string"),
        (
            AzureSource("pics", account_key(), "acc", "http://blobs.example/acc"),
            UnreachableError,
            "endpoint_url",
        ),
    ):
        with pytest.raises(kind) as caught:
            await (await servers.open(source)).check_access()
        assert caught.value.at == at


async def test_a_connection_strings_endpoint_obeys_the_guard(servers: Servers) -> None:
    for endpoint in ("http://10.0.0.1/acc", "http://169.254.169.254/acc"):
        container = await servers.open(AzureSource("pics", connection_string(endpoint)))
        for act in (container.check_access(), container.open("k")):
            with pytest.raises(AddressRefusedError) as caught:
                await act
        assert "FRAMEGATE_ALLOWED_PRIVATE_ENDPOINTS" in caught.value.remedy
    with pytest.raises(AddressRefusedError) as caught:
        await container.check_access()
    assert caught.value.at == "auth/connection_string"


async def test_a_refused_connection_is_unreachable_at_its_field(servers: Servers) -> None:
    container = await servers.open(AzureSource("pics", account_key(), "acc", "http://127.0.0.1:1/acc"))
    for act in (container.check_access(), container.open("k")):
        with pytest.raises(UnreachableError) as caught:
            await act
        assert caught.value.at == "endpoint_url"


async def test_suffixes_are_asked_as_absolute_ranges_pinned_to_the_tag(servers: Servers) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        headers = {"ETag": '"e"', "Last-Modified": "Fri, 17 May 2024 10:30:00 GMT"}
        if request.method == "HEAD":
            return web.Response(headers=headers, body=b"0123456789")
        assert request.headers["Range"] == "bytes=7-9"
        assert request.headers["If-Match"] == '"e"'
        return web.Response(status=206, headers={**headers, "Content-Range": "bytes 7-9/10"}, body=b"789")

    read = await (await servers.container(handler)).open("k", ReadOptions(range=Suffix(3)))
    assert (read.body, read.part) == (b"789", (7, 10))


@pytest.mark.parametrize(
    ("permission", "kind", "types"),
    [("rl", "account", "co"), ("rl", "account", "sco"), ("rl", "container", ""), ("racwdl", "container", "")],
)
async def test_a_sufficient_sas_passes_the_check_and_reads(
    azurite: Any, azure_container: Any, servers: Servers, permission: str, kind: str, types: str
) -> None:
    await azure_container.put("k", b"0123456789")
    token = (
        azurite.account_sas(permission, resource_types=types)
        if kind == "account"
        else azurite.container_sas(azure_container.name, permission)
    )
    auth = SasToken(SecretStr(token))
    source = AzureSource(azure_container.name, auth, azurite.account_name, azurite.endpoint_url)
    container = await servers.open(source)
    await container.check_access()
    assert (await container.open("k", ReadOptions(range=ByteRange(2, 4)))).body == b"23"


async def test_a_sas_of_another_container_is_refused(
    azurite: Any, azure_container: Any, servers: Servers
) -> None:
    auth = SasToken(SecretStr(azurite.container_sas("other")))
    source = AzureSource(azure_container.name, auth, azurite.account_name, azurite.endpoint_url)
    container = await servers.open(source)
    for act in (container.check_access(), container.open("k")):
        with pytest.raises(AccessDeniedError) as caught:
            await act
        assert caught.value.at == "auth/sas_token"


async def test_public_containers_by_their_level(azurite: Any, servers: Servers) -> None:
    for level, lists, reads in (("container", True, True), ("blob", False, True), (None, False, False)):
        async with azurite.container(level) as made:
            await made.put("k", b"x")
            source = AzureSource(made.name, Anonymous(), azurite.account_name, azurite.endpoint_url)
            container = await servers.open(source)
            for allowed, act in ((lists, container.check_access()), (reads, container.open("k"))):
                if allowed:
                    await act
                    continue
                with pytest.raises(AccessDeniedError) as caught:
                    await act
                assert caught.value.at == "auth"


async def test_a_long_listing_comes_in_short_pages(
    azurite: Any, azure_container: Any, servers: Servers
) -> None:
    keys = [f"{number:04d}" for number in range(MAX_PAGE + 5)]
    for start in range(0, len(keys), 50):
        await asyncio.gather(*(azure_container.put(key, b"x") for key in keys[start : start + 50]))
    source = AzureSource(
        azure_container.name, account_key(azurite.account_key), azurite.account_name, azurite.endpoint_url
    )
    container = await servers.open(source)
    first = await container.list(limit=1000)
    second = await container.list(cursor=first.cursor, limit=1000)
    assert (len(first.items), len(second.items), second.cursor) == (MAX_PAGE, 5, None)
    assert [item.key for item in [*first.items, *second.items]] == keys


def test_no_secret_shows_in_any_repr() -> None:
    from app.storage.providers.azure_access import ReadSignature, access_to

    for auth in (account_key(), connection_string(), sas()):
        source = AzureSource("pics", auth, "acc")
        access = access_to(source)
        for thing in (source, access, replace(access), ReadSignature(access, "pics")):
            assert KEY not in repr(thing)
            assert "sig=" not in repr(thing)
