"""The one table that turns what S3 refuses into words: what happened, which field is at fault, what to do.

https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html. Nothing of an answer's text is repeated.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from app.errors import (
    AccessDeniedError,
    BucketMissingError,
    CredentialExpiredError,
    MisconfiguredError,
    ObjectArchivedError,
    ObjectMissingError,
    StorageError,
    ThrottledError,
    UpstreamError,
    WrongRegionError,
)
from app.storage.answers import retry_after_s

_CODE = re.compile(rb"<Code>\s*([A-Za-z0-9_.]{1,64})\s*</Code>")
_REGION = re.compile(rb"<Region>\s*([a-z0-9-]{1,63})\s*</Region>")
_REGION_NAME = re.compile(r"[a-z0-9-]{1,63}")


@dataclass(frozen=True, slots=True)
class Refusal:
    """What an S3 server said when it refused, reduced to what the table asks for."""

    status: int
    code: str | None
    """None where the answer had no words: every HEAD, and whatever is no S3."""
    region: str | None = None
    """Where the answer says that the bucket lives."""
    signed_region: str | None = None
    retry_after_s: int = 1
    about_kms: bool = False
    anonymous: bool = False


class _Words(NamedTuple):
    kind: type[StorageError]
    at: str
    detail: str
    remedy: str


_RIGHTS = (
    "Let it list the bucket and read its objects (s3:ListBucket, s3:GetObject); objects under a KMS key need "
    "kms:Decrypt too, and requester-pays buckets are not read."
)
_CLOCK = _Words(
    MisconfiguredError,
    "",
    "The bucket refuses the time of our requests: its clock and this machine's are too far apart.",
    "Set this machine's clock (NTP).",
)
_NO_S3 = _Words(
    MisconfiguredError,
    "endpoint_url",
    "The endpoint does not answer as an S3 server does.",
    "Check the endpoint: the server's S3 address, not its console or a web page.",
)
_REDIRECTS = _Words(
    MisconfiguredError,
    "endpoint_url",
    "The endpoint redirects elsewhere, which Framegate does not follow.",
    "Give the address that the bucket itself answers at (https instead of http, for example).",
)
_ARCHIVED = _Words(
    ObjectArchivedError,
    "",
    "The object lies in an archive tier of the bucket (Glacier).",
    "Restore it in the bucket, then read it again.",
)
_NO_BUCKET = _Words(
    BucketMissingError,
    "bucket",
    "There is no bucket of that name.",
    "Check the bucket's name, and the endpoint if there is one.",
)
_EXPIRED = _Words(
    CredentialExpiredError,
    "auth/session_token",
    "The session token has expired.",
    "Attach a fresh set of access key, secret and session token.",
)
_BAD_TOKEN = _Words(
    AccessDeniedError,
    "auth/session_token",
    "The session token is malformed or belongs to another access key.",
    "Give access key, secret and session token of one and the same set; none for a lasting key.",
)
_BAD_KEY_ID = _Words(
    AccessDeniedError,
    "auth/access_key_id",
    "The bucket does not know this access key id.",
    "Check the access key id, and that the key is active; a temporary one (ASIA...) needs its session token.",
)
_BAD_SECRET = _Words(
    AccessDeniedError,
    "auth/secret_access_key",
    "The secret does not belong to the access key id.",
    "Give the secret access key that was shown when this access key was made.",
)
_DENIED = _Words(
    AccessDeniedError,
    "auth",
    "The credential is known, but lacks a right that is needed here.",
    _RIGHTS,
)
_DENIED_KMS = _Words(
    AccessDeniedError,
    "auth",
    "The object is encrypted with a KMS key that the credential may not use.",
    "Let it use the key (kms:Decrypt), and check that the key is enabled.",
)
_DENIED_ANYBODY = _Words(
    AccessDeniedError,
    "auth",
    "The bucket does not let everybody do this.",
    "Attach it with an access key, or let everybody list and read it (s3:ListBucket, s3:GetObject).",
)
_DENIED_ACCOUNT = _Words(
    AccessDeniedError,
    "auth",
    "The account of this bucket or credential is suspended or closed to such requests.",
    "Ask the owner of the account.",
)
_FAILED = _Words(UpstreamError, "", "The bucket's server failed.", "Try again later.")

_BY_CODE: Mapping[str, _Words] = {
    "InvalidAccessKeyId": _BAD_KEY_ID,
    "InvalidSecurity": _BAD_KEY_ID,
    "SignatureDoesNotMatch": _BAD_SECRET,
    "InvalidToken": _BAD_TOKEN,
    "ExpiredToken": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "RequestTimeTooSkewed": _CLOCK,
    "RequestExpired": _CLOCK,
    "AccessDenied": _DENIED,
    "AccessForbidden": _DENIED,
    "UnauthorizedAccess": _DENIED,
    "AllAccessDisabled": _DENIED_ACCOUNT,
    "AccountProblem": _DENIED_ACCOUNT,
    "NotSignedUp": _DENIED_ACCOUNT,
    "KMS.DisabledException": _DENIED_KMS,
    "KMS.NotFoundException": _DENIED_KMS,
    "KMS.KMSInvalidStateException": _DENIED_KMS,
    "NoSuchBucket": _NO_BUCKET,
    "InvalidBucketName": _NO_BUCKET,
    "InvalidObjectState": _ARCHIVED,
    "InternalError": _FAILED,
}

_REGIONAL = frozenset({
    "PermanentRedirect",
    "TemporaryRedirect",
    "Redirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
})  # fmt: skip
_WORDLESS_REGIONAL = frozenset({301, 307, 308, 400})
_SLOW = frozenset({
    "SlowDown",
    "SlowDownRead",
    "ServiceUnavailable",
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "Busy",
    "ServerBusy",
})  # fmt: skip


def explain(refusal: Refusal, key: str | None) -> StorageError:
    """Translate a refusal of reading `key`, or (None) of a listing, into the error to raise."""
    status, code = refusal.status, refusal.code
    if code in _SLOW or status in {429, 503}:
        return ThrottledError("The bucket asks for fewer requests.", retry_after_s=refusal.retry_after_s)
    if _is_regional(refusal):
        return _moved(refusal)
    if key is not None and (code == "NoSuchKey" or (code is None and status == 404)):
        return ObjectMissingError(key)
    words = _words(refusal, reading=key is not None)
    return words.kind(words.detail, at=words.at, remedy=words.remedy)


def wrong_region(region: str | None) -> WrongRegionError:
    """Say where the bucket lives."""
    if region is None:
        return WrongRegionError(
            "The bucket lives in another region.", region=None, remedy="Look its region up and give it."
        )
    return WrongRegionError(
        f"This bucket lives in {region}.", region=region, remedy=f"Set the region to {region}."
    )


def refusal_of(
    status: int, headers: Mapping[bytes, bytes], body: bytes, *, signed_region: str, anonymous: bool
) -> Refusal:
    """Reduce an answer of the data plane."""
    code, region = _CODE.search(body), _REGION.search(body)
    hint = headers.get(b"x-amz-bucket-region") or (region[1] if region else b"")
    return Refusal(
        status,
        code[1].decode() if code else None,
        region_name(hint.decode("latin-1")),
        signed_region,
        retry_after_s(headers.get(b"retry-after", b"").decode("latin-1")) or 1,
        b"kms" in body.lower(),
        anonymous,
    )


def region_name(text: object) -> str | None:
    """Give a region's name if it can be one; hints come from servers that anybody may run."""
    return text if isinstance(text, str) and _REGION_NAME.fullmatch(text) else None


def _is_regional(refusal: Refusal) -> bool:
    elsewhere = refusal.region is not None and refusal.region != refusal.signed_region
    # A HEAD has no words: 301 and 400 beside another region's name are all it can say.
    return refusal.code in _REGIONAL or (
        refusal.code is None and refusal.status in _WORDLESS_REGIONAL and elsewhere
    )


def _moved(refusal: Refusal) -> StorageError:
    if refusal.code == "AuthorizationHeaderMalformed" and refusal.region is None:
        return AccessDeniedError(_BAD_KEY_ID.detail, at=_BAD_KEY_ID.at, remedy=_BAD_KEY_ID.remedy)
    return wrong_region(refusal.region)


def _words(refusal: Refusal, *, reading: bool) -> _Words:
    words = _BY_CODE.get(refusal.code or "") or _by_status(refusal, reading=reading)
    if words is not _DENIED:
        return words
    if refusal.anonymous:
        return _DENIED_ANYBODY
    return _DENIED_KMS if refusal.about_kms else _DENIED


def _by_status(refusal: Refusal, *, reading: bool) -> _Words:
    wordless = refusal.code is None
    if refusal.status >= 500:
        return _FAILED
    if 300 <= refusal.status < 400:
        return _REDIRECTS
    if refusal.status in {401, 403} and (reading or not wordless):
        return _DENIED
    if wordless and not reading:
        return _NO_S3
    return _Words(
        UpstreamError,
        "",
        f"The bucket refused with status {refusal.status}.",
        "Run the storage's probe: it says which part is at fault.",
    )
