"""One guarded aiohttp session under both SDKs.

Left to themselves the SDKs follow redirects (aiobotocore sends the session token along), read proxies and
endpoints from the environment, and build a TLS context per client. Here all of that is decided once.
"""

import asyncio
import io
import re
import ssl
from contextlib import suppress
from typing import Any, Self

import aiohttp
from aiobotocore.awsrequest import AioAWSResponse
from aiobotocore.httpsession import AIOHTTPSession
from azure.core.pipeline.transport import AioHttpTransport

from app.errors import StorageError, UpstreamError
from app.storage.failures import AT, chain
from app.storage.guard import Guard, refusal

_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_REGION = re.compile(r"[a-z0-9-]{1,32}")
_IN_ONE_PIECE = 64 * 1024


class Redirected(UpstreamError):  # noqa: N818 - it is the answer's name, and the provider turns it into words
    """The bucket's server answered with a redirect, which nobody follows.

    `region` is S3's hint (`x-amz-bucket-region`) where one was given that can be a region's name.
    """

    def __init__(self, status: int, region: str | None) -> None:
        super().__init__(
            f"The bucket's server answered with a redirect ({status}), which Framegate does not follow.",
            at=AT,
            remedy="Give the endpoint and region that the bucket itself answers at.",
        )
        self.status = status
        self.region = region if region and _REGION.fullmatch(region) else None


class SharedSession:
    """The control plane's connections; make it inside the running loop, close it after the SDK's clients.

    `limit` bounds the connections of all storages together.
    """

    def __init__(self, guard: Guard, tls: ssl.SSLContext, *, limit: int = 100) -> None:
        connector = aiohttp.TCPConnector(resolver=guard, socket_factory=guard.socket, ssl=tls, limit=limit)
        self._session = aiohttp.ClientSession(
            connector=connector,
            trust_env=False,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers={"Content-Type"},
            requote_redirect_url=False,
        )
        self.http_session_cls = _bound_session(self._session)
        """For `AioConfig(http_session_cls=..., ignore_configured_endpoint_urls=True)`; its clients obey the
        config's connect and read time-outs, and ignore `verify`, proxies and `max_pool_connections`."""

    def azure_transport(
        self, *, connect_timeout_s: float = 5.0, read_timeout_s: float = 20.0
    ) -> AioHttpTransport:
        """Make the transport of one Azure client; closing the client leaves the session open.

        The time-outs are given here: a client with a transport of its own passes none on.
        """
        return _AzureTransport(
            session=_Direct(self._session, self._session.timeout),
            session_owner=False,
            use_env_settings=False,
            connection_timeout=connect_timeout_s,
            read_timeout=read_timeout_s,
        )

    async def aclose(self) -> None:
        """Close every connection; closing twice does nothing."""
        await self._session.close()


class _Direct:
    """The part of aiohttp's session that the SDKs call, without redirects and proxies, and with a patience.

    aiohttp waits for ever for a server that takes no more of a body, or never says 100; here that ends after
    the time that an answer may take.
    """

    auto_decompress = False

    def __init__(self, session: aiohttp.ClientSession, timeout: aiohttp.ClientTimeout) -> None:
        self._session = session
        self._timeout = timeout

    async def __aenter__(self) -> Self:
        """Be opened by an SDK; the session is open already."""
        return self

    async def request(self, method: str, url: Any, **kwargs: Any) -> aiohttp.ClientResponse:
        timeout: aiohttp.ClientTimeout = kwargs.setdefault("timeout", self._timeout)
        kwargs.update(allow_redirects=False, proxy=None, proxy_headers=None)
        body = _long_body(kwargs.get("data"))
        if body is None or timeout.sock_read is None:
            return await self._session.request(method, url, **kwargs)
        async with asyncio.timeout(timeout.sock_read + (timeout.sock_connect or 0)) as deadline:
            kwargs["data"] = _Taken(body, deadline, timeout.sock_read)
            return await self._session.request(method, url, **kwargs)
        raise AssertionError  # the deadline swallows nothing; mypy cannot know


class _Taken(io.BytesIO):
    """A body that puts its deadline off for as long as the server goes on taking it."""

    def __init__(self, body: bytes, deadline: asyncio.Timeout, patience_s: float) -> None:
        super().__init__(body)
        self._deadline = deadline
        self._patience_s = patience_s

    def read(self, size: int | None = -1, /) -> bytes:
        """Give the next piece, which is asked for when the last one is on its way."""
        with suppress(RuntimeError):  # its time is over, or its answer came before its end
            self._deadline.reschedule(asyncio.get_running_loop().time() + self._patience_s)
        return super().read(size)


def _long_body(data: object) -> bytes | None:
    """Give a body that is worth watching: aiohttp sends bytes in one piece, however many they are."""
    if isinstance(data, io.BytesIO):
        return data.getvalue()
    return data if isinstance(data, bytes) and len(data) > _IN_ONE_PIECE else None


def _bound_session(shared: aiohttp.ClientSession) -> type[AIOHTTPSession]:
    class Session(AIOHTTPSession):  # type: ignore[misc]  # aiobotocore has no types
        """aiobotocore's session over the shared one."""

        async def _get_session(self, proxy_url: str | None) -> _Direct:
            return _Direct(shared, self._timeout)

        async def send(self, request: Any) -> AioAWSResponse:
            """Send one request; raises the guard's own errors bare, since botocore retries wrapped ones."""
            try:
                response = await super().send(request)
            except Exception as error:
                if (ours := _guard_error(error)) is None:
                    raise
                raise ours from None
            # Else botocore's region redirector asks HEAD bucket, is redirected again, and so on for ever.
            if response.status_code in _REDIRECTS:
                response.raw.release()
                raise Redirected(response.status_code, response.headers.get("x-amz-bucket-region"))
            return response

    return Session


def _guard_error(error: Exception) -> StorageError | None:
    for link in chain(error):
        if isinstance(link, StorageError):
            return link
        if isinstance(link, aiohttp.InvalidURL):  # 2130706433, 127.1: refused before the guard is asked
            return refusal(str(link.url))
    return None


class _AzureTransport(AioHttpTransport):  # type: ignore[misc]  # azure-core exports it untyped
    """Azure's transport, without redirects (azure-core's own policy follows them) and proxies."""

    async def send(self, request: Any, **config: Any) -> Any:
        """Send one request; raises `Redirected` and the guard's own errors."""
        config.update(proxies=None, proxy=None)
        try:
            response = await super().send(request, **config)
        except Exception as error:
            if (ours := _guard_error(error)) is None:
                raise
            raise ours from None
        if response.status_code in _REDIRECTS:
            response.internal_response.release()
            raise Redirected(response.status_code, None)
        return response
