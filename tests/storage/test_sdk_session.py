"""Both SDKs over the shared session: no private address, no redirect, no proxy, no endpoint from outside."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import cache

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession, get_session
from azure.core.exceptions import AzureError, ServiceResponseTimeoutError
from azure.storage.blob.aio import BlobServiceClient
from botocore.exceptions import BotoCoreError, ReadTimeoutError

from app.errors import AddressRefusedError, CommandError, StorageError, StorageTimeoutError, UnreachableError
from app.storage.base import Origin
from app.storage.failures import failure_behind
from app.storage.guard import Guard
from app.storage.providers.azure import open_azure
from app.storage.sdk import Redirected, SharedSession
from app.storage.source import Anonymous, AzureSource
from app.storage.tls import tls_context
from app.storage.transport import Transport
from tests.storage.raw_server import RawServer, system_tls

Start = Callable[..., Awaitable[RawServer]]
Shared = Callable[..., SharedSession]
MIB = 1024 * 1024
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
SECRETS = (b"planted-session-token", b"planted-signature")

S3_LIST = b"""<?xml version="1.0"?><ListBucketResult><Name>pics</Name></ListBucketResult>"""
AZURE_LIST = b"""<?xml version="1.0"?><EnumerationResults><Blobs/><NextMarker/></EnumerationResults>"""


def ok(body: bytes) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )


@pytest.fixture
async def shared() -> AsyncIterator[Shared]:
    sessions: list[SharedSession] = []

    def make(*allowed: str) -> SharedSession:
        sessions.append(SharedSession(Guard(allowed), system_tls()))
        return sessions[-1]

    yield make
    for session in sessions:
        await session.aclose()


@cache
def aws() -> AioSession:
    return get_session()  # one for all: each loads the service's model anew


def s3(session: SharedSession, url: str | None, **config: object) -> AbstractAsyncContextManager[object]:
    return aws().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id="AKIAEXAMPLE",
        aws_secret_access_key="planted-secret",
        aws_session_token="planted-session-token",
        config=AioConfig(
            http_session_cls=session.http_session_cls, ignore_configured_endpoint_urls=True, **config
        ),
    )


async def s3_list(session: SharedSession, url: str, **config: object) -> None:
    async with s3(session, url, **config) as client:
        await client.list_objects_v2(Bucket="pics")


async def s3_get(session: SharedSession, url: str) -> None:
    async with s3(session, url) as client:
        await client.get_object(Bucket="pics", Key="a.jpg")


async def azure_list(session: SharedSession, url: str) -> None:
    credential, transport = "sv=2024-01-01&sig=planted-signature", session.azure_transport()
    async with BlobServiceClient(url + "/acc", credential, transport=transport, retry_total=0) as c:
        async for _ in c.get_container_client("pics").list_blobs():
            pass


async def azure_get(session: SharedSession, url: str) -> None:
    credential = "sv=2024-01-01&sig=planted-signature"
    async with BlobServiceClient(
        url + "/acc", credential=credential, transport=session.azure_transport()
    ) as c:
        await c.get_blob_client("pics", "a.jpg").download_blob()


async def azure_connection_string(session: SharedSession, url: str) -> None:
    text = f"BlobEndpoint={url}/acc;AccountName=acc;AccountKey=cGxhbnRlZA=="
    async with BlobServiceClient.from_connection_string(text, transport=session.azure_transport()) as client:
        async for _ in client.get_container_client("pics").list_blobs():
            pass


async def transport_check(session: SharedSession, url: str) -> None:
    scheme, _, rest = url.partition("://")
    host, _, port = rest.rpartition(":")
    transport = Transport(Guard(), system_tls())
    try:
        origin = Origin("https" if scheme == "https" else "http", host.strip("[]"), int(port))
        await transport.connect_check(origin)
    finally:
        await transport.aclose()


SPELLINGS = [
    "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0.0.0.0", "[::]", "2130706433", "0x7f.1",
    "0177.0.0.1", "127.1", "[fe80::1%25lo]", "[::1%25lo]", "１２７.０.０.１", "localhost", "[64:ff9b::7f00:1]",  # noqa: RUF001
    "[2002:7f00:1::]", "168.63.129.16", "169.254.169.254", "[fd00:ec2::254]", "192.0.0.192", "100.100.100.200",
]  # fmt: skip
CLIENTS = [s3_list, azure_list, azure_connection_string, transport_check]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("host", SPELLINGS)
async def test_no_client_connects_to_a_private_address(
    raw_server: Start, shared: Shared, client: Callable[..., Awaitable[None]], host: str
) -> None:
    trap = await raw_server(ok(S3_LIST))
    # What an SDK cannot even parse it may refuse in its own words, without asking anybody.
    with pytest.raises((AddressRefusedError, UnreachableError, ValueError, BotoCoreError, AzureError)):
        async with asyncio.timeout(10):  # a refused address is not tried again
            await client(shared(), f"http://{host}:{trap.port}")
    assert trap.connections == 0


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_refusal_arrives_bare_after_one_look_up(
    shared: Shared, client: Callable[..., Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    async def answer(host: str, port: int, **_: object) -> list[object]:
        asked.append(host)
        return [(2, 1, 6, "", ("10.0.0.5", port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", answer)
    with pytest.raises(AddressRefusedError):
        await client(shared(), "http://bucket.example:80")
    assert asked == ["bucket.example"]


@pytest.mark.parametrize(("client", "body"), [(s3_list, S3_LIST), (azure_list, AZURE_LIST)])
@pytest.mark.parametrize("allowed", ["localhost", "localhost:{port}"])
async def test_an_allowed_endpoint_is_reached(
    raw_server: Start, shared: Shared, client: Callable[..., Awaitable[None]], body: bytes, allowed: str
) -> None:
    server = await raw_server(ok(body))
    session = shared(allowed.format(port=server.port))
    for _ in range(2):  # a closed client leaves the session open, and its connections
        await client(session, f"http://localhost:{server.port}")
    assert (len(server.requests), server.connections) == (2, 1)
    with pytest.raises(AddressRefusedError):  # the name is allowed, the number is not
        await client(session, f"http://127.0.0.1:{server.port}")


async def test_cidr_and_both_sdks_over_one_session(raw_server: Start, shared: Shared) -> None:
    session = shared("127.0.0.0/8")
    for client, body in ((s3_list, S3_LIST), (azure_list, AZURE_LIST)):
        server = await raw_server(ok(body))
        await client(session, f"http://127.0.0.1:{server.port}")
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("client", [s3_list, s3_get, azure_list, azure_get])
async def test_no_redirect_is_followed(
    raw_server: Start, shared: Shared, client: Callable[..., Awaitable[None]], status: int
) -> None:
    trap = await raw_server(ok(S3_LIST))
    server = await raw_server(
        b"HTTP/1.1 %d Elsewhere\r\nLocation: http://127.0.0.1:%d/pics\r\nx-amz-bucket-region: eu-west-1\r\n"
        b"Content-Length: 0\r\n\r\n" % (status, trap.port)
    )
    with pytest.raises(Redirected) as caught:
        await client(shared("127.0.0.1"), f"http://127.0.0.1:{server.port}")
    assert caught.value.status == status
    assert caught.value.region == ("eu-west-1" if client in {s3_list, s3_get} else None)
    assert (len(server.requests), trap.connections) == (1, 0)
    assert any(secret in server.requests[0] for secret in SECRETS)  # so it could have leaked


@pytest.mark.parametrize("hint", ["", "x-amz-bucket-region: ../evil\r\n"])
async def test_a_redirect_without_a_sane_region_has_none_and_loops_nowhere(
    raw_server: Start, shared: Shared, hint: str
) -> None:
    server = await raw_server(f"HTTP/1.1 301 Moved\r\n{hint}Content-Length: 0\r\n\r\n".encode())
    with pytest.raises(Redirected) as caught:
        await s3_list(shared("127.0.0.1"), f"http://127.0.0.1:{server.port}")
    assert caught.value.region is None
    assert len(server.requests) == 1


@pytest.mark.parametrize(("client", "body"), [(s3_list, S3_LIST), (azure_list, AZURE_LIST)])
async def test_the_environment_diverts_nothing(
    raw_server: Start,
    shared: Shared,
    client: Callable[..., Awaitable[None]],
    body: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trap, server = await raw_server(ok(body)), await raw_server(ok(body))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{trap.port}")
        monkeypatch.setenv(name.lower(), f"http://127.0.0.1:{trap.port}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    await client(shared("127.0.0.1"), f"http://127.0.0.1:{server.port}")
    assert (trap.connections, len(server.requests)) == (0, 1)


async def test_no_endpoint_is_taken_from_the_environment(
    raw_server: Start, shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = await raw_server(ok(S3_LIST))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{trap.port}")
    async with s3(shared("127.0.0.1"), None) as client:
        assert client.meta.endpoint_url == "https://s3.amazonaws.com"


async def test_the_config_of_a_client_sets_its_time_outs(raw_server: Start, shared: Shared) -> None:
    async def silence(writer: asyncio.StreamWriter, number: int) -> None:
        await asyncio.sleep(60)

    server = await raw_server(silence)
    with pytest.raises(ReadTimeoutError) as caught:
        await s3_list(
            shared("127.0.0.1"),
            f"http://127.0.0.1:{server.port}",
            read_timeout=0.1,
            retries={"total_max_attempts": 1},
        )
    assert isinstance(failure_behind(caught.value, "bucket.example:80"), StorageTimeoutError)


async def s3_put(session: SharedSession, url: str, size_bytes: int, patience_s: float) -> None:
    config = {"connect_timeout": 1, "read_timeout": patience_s, "retries": {"total_max_attempts": 1}}
    async with s3(session, url, **config) as client:
        await client.put_object(Bucket="pics", Key="a.jpg", Body=bytes(size_bytes))


async def azure_put(session: SharedSession, url: str, size_bytes: int, patience_s: float) -> None:
    credential = "sv=2024-01-01&sig=planted-signature"
    transport = session.azure_transport(connect_timeout_s=1, read_timeout_s=patience_s)
    async with BlobServiceClient(url + "/acc", credential, transport=transport, retry_total=0) as client:
        await client.get_blob_client("pics", "a.jpg").upload_blob(bytes(size_bytes))


@pytest.mark.parametrize("says_100", [True, False])
@pytest.mark.parametrize("put", [s3_put, azure_put])
async def test_a_server_that_takes_no_more_of_a_body_is_not_waited_for(
    raw_server: Start, shared: Shared, put: Callable[..., Awaitable[None]], says_100: bool
) -> None:
    async def silence(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(CONTINUE if says_100 else b"")
        await asyncio.sleep(60)

    server = await raw_server(silence)
    with pytest.raises((ReadTimeoutError, ServiceResponseTimeoutError)):
        async with asyncio.timeout(20):
            await put(shared("127.0.0.1"), f"http://127.0.0.1:{server.port}", 16 * MIB, 0.2)


@pytest.mark.parametrize("put", [s3_put, azure_put])
async def test_a_server_that_takes_a_body_slowly_is_waited_for(
    raw_server: Start, shared: Shared, put: Callable[..., Awaitable[None]]
) -> None:
    """Twice as long as the patience in all, and never so long between two pieces."""

    async def slowness(writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(CONTINUE if put is s3_put else b"")
        for _ in range(64):
            await asyncio.sleep(0.06)
            await writer.reader.readexactly(MIB)  # type: ignore[attr-defined]  # set by the server
        writer.write(b'HTTP/1.1 201 Created\r\nETag: "1"\r\nContent-Length: 0\r\n\r\n')

    server = await raw_server(slowness)
    await put(shared("127.0.0.1"), f"http://127.0.0.1:{server.port}", 64 * MIB, 2)


async def test_an_azure_client_has_the_time_outs_of_its_transport(raw_server: Start, shared: Shared) -> None:
    async def silence(writer: asyncio.StreamWriter, number: int) -> None:
        await asyncio.sleep(60)

    server = await raw_server(silence)
    provider = open_azure(
        AzureSource("pics", Anonymous(), "acc", f"http://127.0.0.1:{server.port}/acc"),
        shared("127.0.0.1"),
        connect_timeout_s=1,
        read_timeout_s=0.1,
    )
    with pytest.raises(StorageTimeoutError):
        async with asyncio.timeout(20):
            await provider.list("", "", None, 1)
    await provider.aclose()


@pytest.mark.parametrize("client", [s3_list, azure_list])
async def test_a_refused_connection_is_found_behind_the_sdks_error(
    shared: Shared, client: Callable[..., Awaitable[None]], unused_tcp_port: int
) -> None:
    config = {"retries": {"total_max_attempts": 1}} if client is s3_list else {}
    with pytest.raises((BotoCoreError, AzureError)) as caught:
        await client(shared("127.0.0.1"), f"http://127.0.0.1:{unused_tcp_port}", **config)
    failure = failure_behind(caught.value, "bucket.example:80")
    assert isinstance(failure, UnreachableError)
    assert failure.detail == "bucket.example:80 refuses connections."


def test_an_error_of_another_kind_hides_no_failure() -> None:
    assert failure_behind(ValueError("x"), "bucket.example:80") is None


def test_redirected_is_an_error_in_words() -> None:
    assert isinstance(Redirected(307, "eu-west-1"), StorageError)


def test_a_ca_file_without_certificate_is_named(tmp_path: object) -> None:
    path = tmp_path / "ca.pem"  # type: ignore[operator]
    path.write_text("nothing")
    with pytest.raises(CommandError, match="FRAMEGATE_CA_FILE"):
        tls_context(path)
