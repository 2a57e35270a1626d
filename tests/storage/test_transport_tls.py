"""TLS of the data plane: the certificate is checked by name, the connection goes by address."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trustme
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError

from app.errors import StorageTimeoutError, UnreachableError, UpstreamError
from app.storage.base import Origin, SignedRequest
from app.storage.failures import failure_behind
from app.storage.guard import Guard
from app.storage.sdk import SharedSession
from app.storage.tls import tls_context
from app.storage.transport import Transport, read_up_to
from tests.storage.raw_server import RawServer, system_tls

Start = Callable[..., Awaitable[RawServer]]
NAME = "bucket.example.test"
MIB = 2**20


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusting(authority: trustme.CA, tmp_path: Path) -> ssl.SSLContext:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return tls_context(path)


def serving(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


class NamedGuard(Guard):
    """Knows one name more than the resolver: the server on loopback."""

    async def _look_up(self, host: str, port: int) -> list[tuple[int, int, int, str, tuple[str | int, ...]]]:
        return await super()._look_up("127.0.0.1" if host.endswith(".example.test") else host, port)


def answer_of(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def request(server: RawServer, host: str = NAME) -> SignedRequest:
    return SignedRequest(Origin("https", host, server.port), "GET", b"/", ((b"Host", host.encode()),))


def transport_of(context: ssl.SSLContext, **options: float) -> Transport:
    return Transport(
        NamedGuard(["127.0.0.0/8"], connect_timeout_s=options.pop("connect_timeout_s", 5)), context
    )


@pytest.mark.parametrize("whole_up_to", [0, 4 * MIB])
@pytest.mark.parametrize("size", [5, 200_000, 3 * MIB])
def test_bodies_come_over_tls(
    run: Callable[[Awaitable[None]], None],
    authority: trustme.CA,
    trusting: ssl.SSLContext,
    size: int,
    whole_up_to: int,
) -> None:
    async def scenario() -> None:
        transport = transport_of(trusting)
        async with RawServer(answer_of(b"ab" * size), tls=serving(authority, "*.example.test")) as server:
            for _ in range(3):
                answer = await transport.send(request(server), whole_up_to=whole_up_to)
                assert await read_up_to(answer.body, 2**40) == b"ab" * size
            assert server.connections == 1
            await transport.aclose()

    run(scenario())


def test_a_slow_reader_over_tls_gets_every_byte(
    run: Callable[[Awaitable[None]], None], authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    async def scenario() -> None:
        transport, size, naps = transport_of(trusting), 0, 0
        async with RawServer(answer_of(bytes(8 * MIB)), tls=serving(authority, NAME)) as server:
            answer = await transport.send(request(server))
            assert not isinstance(answer.body, bytes)
            async for piece in answer.body:
                size, naps = size + len(piece), naps + 1
                await asyncio.sleep(0.05 if naps < 5 else 0)
            assert size == 8 * MIB
            await answer.body.aclose()
            await transport.aclose()

    run(scenario())


@pytest.mark.parametrize(
    ("names", "host", "trusted", "words"),
    [
        (["other.example.test"], NAME, True, "not valid for 'bucket.example.test'"),
        (["*.example.test"], "a.b.example.test", True, "not valid for 'a.b.example.test'"),
        ([NAME], "127.0.0.1", True, "not valid for '127.0.0.1'"),
        ([NAME], NAME, False, "unable to get local issuer certificate"),
    ],
)
def test_a_wrong_certificate_is_told_in_words(
    run: Callable[[Awaitable[None]], None],
    authority: trustme.CA,
    trusting: ssl.SSLContext,
    names: list[str],
    host: str,
    trusted: bool,
    words: str,
) -> None:
    async def scenario() -> None:
        transport = transport_of(trusting if trusted else system_tls())
        async with RawServer(answer_of(b"x"), tls=serving(authority, *names)) as server:
            for attempt in (
                transport.send(request(server, host)),
                transport.connect_check(request(server, host).origin),
            ):
                with pytest.raises(UnreachableError) as caught:
                    await attempt
                assert caught.value.detail.startswith(f"TLS: the certificate of {host}:{server.port}")
                assert words in caught.value.detail
                assert caught.value.at == "endpoint_url"
                assert "FRAMEGATE_CA_FILE" in caught.value.remedy
            assert server.requests == []
            assert transport.connection_counts() == {request(server, host).origin: (0, 0)}
            await transport.aclose()

    run(scenario())


def test_https_to_a_plain_port_and_http_to_a_tls_port_are_told_in_words(
    run: Callable[[Awaitable[None]], None], authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    async def blurt(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def scenario() -> None:
        transport = transport_of(trusting)
        plain = await asyncio.start_server(blurt, "127.0.0.1", 0)
        async with RawServer(b"", serving(authority, NAME)) as tls:
            with pytest.raises(UnreachableError, match="TLS"):
                await transport.connect_check(Origin("https", NAME, plain.sockets[0].getsockname()[1]))
            with pytest.raises(UpstreamError) as caught:
                await transport.send(SignedRequest(Origin("http", NAME, tls.port), "GET", b"/", ()))
            assert "scheme" in caught.value.remedy
        plain.close()
        await transport.aclose()

    run(scenario())


def test_a_handshake_that_hangs_is_a_time_out(run: Callable[[Awaitable[None]], None]) -> None:
    async def scenario() -> None:
        silent = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
        transport = transport_of(system_tls(), connect_timeout_s=0.1)
        with pytest.raises(StorageTimeoutError):
            await transport.connect_check(Origin("https", NAME, silent.sockets[0].getsockname()[1]))
        await transport.aclose()
        silent.close()

    run(scenario())


async def test_the_sdks_trust_and_distrust_the_same(
    raw_server: Start, authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    body = b"<ListBucketResult><Name>pics</Name></ListBucketResult>"
    server = await raw_server(answer_of(body), tls=serving(authority, NAME))
    for context in (trusting, system_tls()):
        shared = SharedSession(NamedGuard(["127.0.0.1"]), context)
        config = AioConfig(http_session_cls=shared.http_session_cls, retries={"total_max_attempts": 1})
        async with get_session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=f"https://{NAME}:{server.port}",
            aws_access_key_id="AKIAEXAMPLE",
            aws_secret_access_key="planted-secret",
            config=config,
        ) as client:
            if context is trusting:
                await client.list_objects_v2(Bucket="pics")
            else:
                with pytest.raises(BotoCoreError) as caught:
                    await client.list_objects_v2(Bucket="pics")
                failure = failure_behind(caught.value, NAME)
                assert isinstance(failure, UnreachableError)
                assert failure.detail.startswith(f"TLS: the certificate of {NAME} is not trusted")
        await shared.aclose()
    assert len(server.requests) == 1
