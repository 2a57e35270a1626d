"""Containers of Azure Blob Storage: reads carry a signature in their query, all else is the SDK's."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from time import time
from typing import Any
from urllib.parse import quote

from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import (
    AzureError,
    DecodeError,
    HttpResponseError,
    ServiceRequestTimeoutError,
    ServiceResponseTimeoutError,
)
from azure.storage.blob.aio import BlobPrefix, ContainerClient, ExponentialRetry
from pydantic import SecretStr

from app.errors import (
    AccessDeniedError,
    BucketMissingError,
    Fault,
    FramegateError,
    InvalidInputError,
    ObjectMissingError,
    StorageError,
    StorageTimeoutError,
    UnreachableError,
    UpstreamError,
)
from app.storage.answers import entity_tag, retry_after_s
from app.storage.base import (
    ANYTHING,
    Answer,
    Capabilities,
    ListedObject,
    ListPage,
    Method,
    Overrides,
    Pin,
    SignedRequest,
)
from app.storage.clock import learned_skew
from app.storage.failures import chain, failure_behind, unknown_name
from app.storage.names import endpoint_origin
from app.storage.providers.azure_access import Access, ReadSignature, access_to
from app.storage.providers.azure_presigned import presigned_query
from app.storage.providers.azure_refusals import Refusal, explain, refusal_of, speaks_of_time
from app.storage.providers.azure_upload import AzureUpload, delete_blob, put_blob
from app.storage.providers.azure_write_refusals import explain_write
from app.storage.sas import REMEDY, read_sas
from app.storage.sdk import Redirected, SharedSession
from app.storage.source import AzureSource

API_VERSION = b"2021-12-02"
"""Sent with every read; a SAS's own `sv` may overrule it, and nothing here depends on which of them wins."""

MAX_PAGE = 200
"""The SDK takes 180 us of the event loop for each blob of a listing, so a page of 1,000 would stop everybody
else for a fifth of a second; pages are short instead, with a cursor left."""

_ALWAYS = ((b"x-ms-version", API_VERSION), (b"accept", b"*/*"), (b"accept-encoding", b"identity"))


class AzureProvider:
    """One container, opened with one credential; see `app.storage.base.Provider`."""

    # `bytes=-n` is unknown to the service (and breaks Azurite):
    # https://learn.microsoft.com/rest/api/storageservices/specifying-the-range-header-for-blob-service-operations
    capabilities = Capabilities(suffix_ranges=False)

    def __init__(self, source: AzureSource, access: Access, client: ContainerClient) -> None:
        self.origin, path = endpoint_origin(access.endpoint)
        self._base_path = f"{path}/{quote(source.container, safe='$')}/"
        self._host = access.endpoint.partition("://")[2].partition("/")[0].encode("ascii")
        self._container = source.container
        self._signature = ReadSignature(access, source.container)
        self._access = access
        self._client = client
        self._prefix = source.prefix
        self._at_account = "endpoint_url" if source.endpoint_url else "account_name"
        if access.auth == "connection_string":
            self._at_account = "auth/connection_string"

    @property
    def clock_skew_s(self) -> float:
        """Seconds that the account's clock is ahead of ours, as far as a refusal told it."""
        return self._signature.skew_s

    def sign(self, method: Method, key: str, extra: Sequence[tuple[bytes, bytes]] = ()) -> SignedRequest:
        """Sign one read of `key`; raises `CredentialExpiredError` for a SAS that is over."""
        query = self._signature.query
        target = self._base_path + quote(key, safe="/~") + (f"?{query}" if query else "")
        headers = ((b"host", self._host), *_ALWAYS, *extra)
        return SignedRequest(self.origin, method, target.encode("ascii"), headers)

    def presign(self, method: Method, key: str, lifetime_s: int, overrides: Overrides) -> SecretStr:
        """Give a URL that reads `key`, by GET and HEAD alike: a SAS binds no method."""
        now = time() + self._signature.skew_s
        query = presigned_query(self._access, self._container, key, now, lifetime_s, overrides)
        url = f"{self.origin.scheme}://{self._host.decode()}{self._base_path}{quote(key, safe='/~')}"
        return SecretStr(f"{url}?{query}" if query else url)

    def adjust_clock(self, answer: Answer) -> bool:
        """Learn the skew from a 403's Date, where we made the signature and can make another."""
        skew_s = learned_skew(answer, self._signature.skew_s) if self._access.key is not None else None
        if skew_s is not None:
            self._signature.skew_s = skew_s
            self._signature.forget()
        return skew_s is not None

    def explain(self, status: int, headers: Mapping[bytes, bytes], body: bytes, key: str) -> StorageError:
        """Translate a refused read."""
        return explain(refusal_of(status, headers, body, self._access.auth), key)

    async def list(self, prefix: str, delimiter: str, cursor: str | None, limit: int) -> ListPage:
        """List one page; it has at most `MAX_PAGE` keys, whatever `limit` is."""
        self._signature.check_time()
        pages = self._pages(prefix, delimiter, min(limit, MAX_PAGE)).by_page(cursor)
        try:
            async with self._explained():
                blobs = [blob async for blob in await anext(pages)]
        except UpstreamError as error:
            if (
                cursor
                and isinstance(error.__cause__, HttpResponseError)
                and error.__cause__.status_code == 400
            ):
                raise InvalidInputError(
                    Fault("query:cursor", "The container does not know this cursor.")
                ) from error
            raise
        return ListPage([_listed(blob) for blob in blobs], pages.continuation_token or None)

    async def check_access(self) -> None:
        """List one blob below the source's prefix; a SAS that says itself that it may not is refused without asking."""
        if self._access.sas is not None:
            missing = read_sas(self._access.sas.get_secret_value()).missing_right()
            if missing is not None:
                at = "auth/sas_token" if self._access.auth == "sas_token" else "auth/connection_string"
                raise AccessDeniedError(missing, at=at, remedy=REMEDY)
        await self.list(self._prefix, "", None, 1)

    async def put(
        self, key: str, body: bytes, media_type: str | None = None, pin: Pin = ANYTHING
    ) -> str | None:
        """Store a blob in one request."""
        self._signature.check_time()
        async with self._explained(key, explain_write):
            etag = await put_blob(self._client, key, body, media_type, pin)
        return entity_tag(etag)

    async def begin(self, key: str, media_type: str | None = None) -> AzureUpload:
        """Begin a blob made of blocks; asks nothing."""
        self._signature.check_time()
        blob = self._client.get_blob_client(key)
        return AzureUpload(blob, media_type, lambda: self._explained(key, explain_write))

    async def delete(self, key: str, pin: Pin = ANYTHING) -> None:
        """Delete a blob."""
        self._signature.check_time()
        with suppress(ObjectMissingError):
            async with self._explained(key, explain_write):
                await delete_blob(self._client, key, pin)

    async def aclose(self) -> None:
        """Close the SDK's client; the shared session stays."""
        await self._client.close()

    def _pages(self, prefix: str, delimiter: str, size: int) -> Any:
        if delimiter:
            return self._client.walk_blobs(
                name_starts_with=prefix, delimiter=delimiter, results_per_page=size
            )
        return self._client.list_blobs(name_starts_with=prefix or None, results_per_page=size)

    @asynccontextmanager
    async def _explained(
        self, key: str | None = None, words: Callable[[Refusal, str | None], FramegateError] | None = None
    ) -> AsyncIterator[None]:
        try:
            yield
        except DecodeError as error:
            raise explain(Refusal(200, None, self._access.auth), key) from error
        except HttpResponseError as error:
            raise (words or explain)(self._refusal(error), key) from error
        except Redirected as error:
            raise explain(Refusal(error.status, None, self._access.auth), None) from error
        except StorageError as error:
            raise self._unreached(error) from error
        except (AzureError, OSError) as error:
            raise self._failure(error) from error
        except (AttributeError, TypeError, ValueError) as error:
            # What the SDK stumbles over when the answer is a web page (azure-storage-blob 12.31).
            refused = next((link for link in chain(error) if isinstance(link, HttpResponseError)), None)
            refusal = Refusal(200, None, self._access.auth) if refused is None else self._refusal(refused)
            raise explain(refusal, key) from error

    def _refusal(self, error: HttpResponseError) -> Refusal:
        code = getattr(error, "error_code", None)
        headers = getattr(error.response, "headers", {})
        text = str(error.message or "").encode(errors="replace")
        return Refusal(
            error.status_code or 0,
            None if code is None else str(getattr(code, "value", code)),
            self._access.auth,
            retry_after_s(headers.get("Retry-After")) or 1,
            speaks_of_time(text),
        )

    def _failure(self, error: Exception) -> StorageError:
        where = f"{self.origin.host}:{self.origin.port}"
        if isinstance(error, ServiceRequestTimeoutError | ServiceResponseTimeoutError):
            return StorageTimeoutError(f"{where} did not answer in time.", at=self._at_account)
        if (behind := failure_behind(error, where)) is not None:
            return self._unreached(behind)
        return UnreachableError(
            f"The connection to {where} broke off.",
            at=self._at_account,
            remedy="Check the endpoint's host, port and scheme, and that its server runs.",
        )

    def _unreached(self, error: StorageError) -> StorageError:
        """Put a failure to connect at the field that named the host; an unknown account is an unknown name."""
        if error.at != "endpoint_url":
            return error
        unknown = error.detail == unknown_name(self.origin.host).detail
        if unknown and self._at_account != "endpoint_url":
            return BucketMissingError(
                f"There is no storage account at {self.origin.host}: the name does not resolve.",
                at=self._at_account,
                remedy="Check the account's name.",
            )
        error.at = self._at_account
        return error


def open_azure(
    source: AzureSource, shared: SharedSession, *, connect_timeout_s: float, read_timeout_s: float
) -> AzureProvider:
    """Open a container; makes no request. The caller closes the provider. Raises `MisconfiguredError`."""
    access = access_to(source)
    client = ContainerClient(
        access.endpoint,
        source.container,
        credential=_credential(access),
        transport=shared.azure_transport(connect_timeout_s=connect_timeout_s, read_timeout_s=read_timeout_s),
        permit_redirects=False,
        retry_policy=ExponentialRetry(
            initial_backoff=1, increment_base=1, retry_total=1, random_jitter_range=1
        ),
    )
    return AzureProvider(source, access, client)


def _credential(access: Access) -> AzureNamedKeyCredential | str | None:
    if access.key is not None:
        return AzureNamedKeyCredential(access.account or "", access.key.get_secret_value())
    return None if access.sas is None else access.sas.get_secret_value()


def _listed(blob: Any) -> ListedObject:
    if isinstance(blob, BlobPrefix):
        return ListedObject(str(blob.name), is_prefix=True)
    modified = blob.last_modified
    return ListedObject(
        str(blob.name),
        size_bytes=blob.size,
        etag=entity_tag(blob.etag),
        last_modified=modified.astimezone(UTC) if isinstance(modified, datetime) else None,
        media_type=blob.content_settings.content_type,
    )
