"""Buckets on S3 and on servers that speak it: reads signed by ourselves, all else by aiobotocore."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import SplitResult, urlsplit

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    InvalidRegionError,
    ReadTimeoutError,
)
from botocore.parsers import ResponseParserError
from pydantic import SecretStr

from app.errors import (
    Fault,
    FramegateError,
    InvalidInputError,
    MisconfiguredError,
    StorageError,
    StorageTimeoutError,
    UnreachableError,
)
from app.storage.answers import entity_tag, retry_after_s
from app.storage.base import (
    ANYTHING,
    Answer,
    Capabilities,
    ListPage,
    Method,
    Origin,
    Overrides,
    Pin,
    SignedRequest,
)
from app.storage.clock import learned_skew
from app.storage.failures import failure_behind, unknown_name
from app.storage.providers.s3_client import DEFAULT_REGION, LISTING, PROBE_KEY, open_client
from app.storage.providers.s3_listing import no_listing, read_listing
from app.storage.providers.s3_refusals import (
    Refusal,
    explain,
    refusal_of,
    region_name,
    wrong_region,
)
from app.storage.providers.s3_signature import S3Signer
from app.storage.providers.s3_upload import S3Upload, delete_object, put_object
from app.storage.providers.s3_write_refusals import explain_write
from app.storage.sdk import Redirected, SharedSession
from app.storage.source import Anonymous, KeyPair, S3Source

MAX_PAGE = 1000


class S3Provider:
    """One bucket, opened with one credential; see `app.storage.base.Provider`."""

    capabilities = Capabilities(suffix_ranges=True)

    def __init__(self, source: S3Source, client: Any, address: str, stack: AsyncExitStack) -> None:
        parts = urlsplit(address)
        secure = parts.scheme == "https"
        host = parts.hostname or ""
        self.origin = Origin("https" if secure else "http", host, parts.port or (443 if secure else 80))
        self._region = source.region or DEFAULT_REGION
        self._signer = S3Signer(
            self.origin, _host_header(parts), parts.path.removesuffix(PROBE_KEY), self._region, source.auth
        )
        self._client = client
        self._stack = stack
        self._bucket = source.bucket
        self._prefix = source.prefix
        self._is_aws = source.endpoint_url is None
        self._anonymous = isinstance(source.auth, Anonymous)
        self._has_token = isinstance(source.auth, KeyPair) and source.auth.session_token is not None

    @property
    def clock_skew_s(self) -> float:
        """Seconds that the bucket's clock is ahead of ours, as far as a refusal told it."""
        return self._signer.skew_s

    def sign(self, method: Method, key: str, extra: Sequence[tuple[bytes, bytes]] = ()) -> SignedRequest:
        """Sign one read of `key`."""
        return self._signer.sign(method, key, extra)

    def presign(self, method: Method, key: str, lifetime_s: int, overrides: Overrides) -> SecretStr:
        """Give a URL that reads `key`."""
        return self._signer.presign(method, key, lifetime_s, overrides)

    def adjust_clock(self, answer: Answer) -> bool:
        """Learn the skew from a 403's Date, whatever its code, so that HEAD is helped too."""
        skew_s = None if self._anonymous else learned_skew(answer, self._signer.skew_s)
        if skew_s is not None:
            self._signer.skew_s = skew_s
        return skew_s is not None

    def explain(self, status: int, headers: Mapping[bytes, bytes], body: bytes, key: str) -> StorageError:
        """Translate a refused read."""
        refusal = refusal_of(status, headers, body, signed_region=self._region, anonymous=self._anonymous)
        return explain(refusal, key)

    async def list(self, prefix: str, delimiter: str, cursor: str | None, limit: int) -> ListPage:
        """List one page in the bucket's own order."""
        asked = {"Prefix": prefix, "Delimiter": delimiter, "ContinuationToken": cursor}
        given = {name: value for name, value in asked.items() if value}
        try:
            async with self._explained():
                answer = await self._client.list_objects_v2(
                    Bucket=self._bucket, MaxKeys=min(limit, MAX_PAGE), EncodingType="url", **given
                )
        except StorageError as error:
            if cursor and self._refuses_cursor(error.__cause__):
                raise InvalidInputError(
                    Fault("query:cursor", "The bucket does not know this cursor.")
                ) from error
            raise
        return read_listing(answer[LISTING])

    async def check_access(self) -> None:
        """List one key below the source's prefix; on AWS ask where the bucket lives before.

        Policies may grant listings of a prefix alone, so no other place is asked for.
        """
        if self._is_aws:
            await self._check_region()
        await self.list(self._prefix, "", None, 1)

    async def put(
        self, key: str, body: bytes, media_type: str | None = None, pin: Pin = ANYTHING
    ) -> str | None:
        """Store an object in one request."""
        async with self._explained(key, explain_write):
            etag = await put_object(self._client, self._bucket, key, body, media_type, pin)
        return entity_tag(etag)

    async def begin(self, key: str, media_type: str | None = None) -> S3Upload:
        """Begin a multipart upload."""
        return await S3Upload.begin(
            self._client, self._bucket, key, media_type, lambda: self._explained(key, explain_write)
        )

    async def delete(self, key: str, pin: Pin = ANYTHING) -> None:
        """Delete an object."""
        async with self._explained(key, explain_write):
            await delete_object(self._client, self._bucket, key, pin)

    async def aclose(self) -> None:
        """Close the SDK's client."""
        await self._stack.aclose()

    async def _check_region(self) -> None:
        """Compare our region with the one that HEAD bucket names, in refusals too; raises `WrongRegionError`."""
        async with self._explained():
            try:
                answer = await self._client.head_bucket(Bucket=self._bucket)
            except ClientError as error:
                answer = error.response
        hint = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("x-amz-bucket-region")
        region = region_name(hint)
        if region is not None and region != self._region:
            raise wrong_region(region)

    @asynccontextmanager
    async def _explained(
        self, key: str | None = None, words: Callable[[Refusal, str | None], FramegateError] | None = None
    ) -> AsyncIterator[None]:
        try:
            yield
        except ClientError as error:
            raise (words or explain)(self._refusal(error), key) from error
        except Redirected as error:
            raise explain(self._redirection(error), key) from error
        except StorageError as error:
            raise self._moved(error) from error
        except (BotoCoreError, ResponseParserError, OSError, ValueError) as error:
            raise self._failure(error) from error

    def _refuses_cursor(self, error: BaseException | None) -> bool:
        if not isinstance(error, ClientError):
            return False
        code = error.response.get("Error", {}).get("Code")
        return code == "InvalidArgument" or (code == "InvalidToken" and not self._has_token)

    def _refusal(self, error: ClientError) -> Refusal:
        facts, metadata = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
        headers = metadata.get("HTTPHeaders", {})
        code = str(facts.get("Code", ""))
        return Refusal(
            int(metadata.get("HTTPStatusCode", 0)),
            None if not code or code.isdecimal() else code,
            region_name(headers.get("x-amz-bucket-region")) or region_name(facts.get("Region")),
            self._region,
            retry_after_s(headers.get("retry-after")) or 1,
            "kms" in str(facts.get("Message", "")).lower(),
            self._anonymous,
        )

    def _redirection(self, error: Redirected) -> Refusal:
        return Refusal(error.status, None, error.region, self._region, anonymous=self._anonymous)

    def _failure(self, error: Exception) -> StorageError:
        where = f"{self.origin.host}:{self.origin.port}"
        if isinstance(error, ResponseParserError):
            return no_listing()
        if isinstance(error, InvalidRegionError):
            return MisconfiguredError("That is no region's name.", at="region", remedy="Correct it.")
        if isinstance(error, ReadTimeoutError | ConnectTimeoutError):
            return StorageTimeoutError(f"{where} did not answer in time.", at="endpoint_url")
        if (behind := failure_behind(error, where)) is not None:
            return self._moved(behind)
        return UnreachableError(
            f"The connection to {where} broke off.",
            at="endpoint_url" if not self._is_aws else "",
            remedy="Check the endpoint's host, port and scheme, and that its server runs.",
        )

    def _moved(self, error: StorageError) -> StorageError:
        """Put a failure to connect to AWS at the region: its host name is made of nothing else of ours."""
        if not self._is_aws or error.at != "endpoint_url":
            return error
        if error.detail == unknown_name(self.origin.host).detail:
            return MisconfiguredError(
                f"S3 has no address for the region {self._region}.", at="region", remedy="Correct the region."
            )
        error.at = ""
        return error


async def open_s3(
    source: S3Source, shared: SharedSession, *, connect_timeout_s: float, read_timeout_s: float
) -> S3Provider:
    """Open a bucket; makes no request. The caller closes the provider."""
    async with AsyncExitStack() as stack:
        client, address = await open_client(
            source, shared, stack, connect_timeout_s=connect_timeout_s, read_timeout_s=read_timeout_s
        )
        return S3Provider(source, client, address, stack.pop_all())
    raise AssertionError  # the stack swallows nothing; mypy cannot know


def _host_header(parts: SplitResult) -> str:
    """Give Host as clients send it: without the scheme's own port."""
    default = ":443" if parts.scheme == "https" else ":80"
    return parts.netloc.removesuffix(default)
