"""One guarded aiohttp session under both SDKs.

Left to themselves the SDKs follow redirects (aiobotocore sends the session token along), read proxies and
endpoints from the environment, and build a TLS context per client. Here all of that is decided once.
"""

import re
import ssl
from typing import Any

import aiohttp
from aiobotocore.awsrequest import AioAWSResponse
from aiobotocore.httpsession import AIOHTTPSession
from azure.core.pipeline.transport import AioHttpTransport

from app.errors import StorageError, UpstreamError
from app.storage.failures import AT, chain
from app.storage.guard import Guard, refusal

_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_REGION = re.compile(r"[a-z0-9-]{1,32}")


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

    def azure_transport(self) -> AioHttpTransport:
        """Make the transport of one Azure client; closing the client leaves the session open."""
        return _AzureTransport(session=self._session, session_owner=False, use_env_settings=False)

    async def aclose(self) -> None:
        """Close every connection; closing twice does nothing."""
        await self._session.close()


class _Direct:
    """The part of aiohttp's session that aiobotocore calls, without redirects and proxies."""

    def __init__(self, session: aiohttp.ClientSession, timeout: aiohttp.ClientTimeout) -> None:
        self._session = session
        self._timeout = timeout

    async def request(self, method: str, **kwargs: Any) -> aiohttp.ClientResponse:
        kwargs.setdefault("timeout", self._timeout)
        kwargs.update(allow_redirects=False, proxy=None, proxy_headers=None)
        return await self._session.request(method, kwargs.pop("url"), **kwargs)


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
