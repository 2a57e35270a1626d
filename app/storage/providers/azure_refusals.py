"""The one table that turns what Azure Blob Storage refuses into words: what happened, where, what to do.

https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes and .../common-rest-api-error-codes.
Nothing of an answer's text is repeated.
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
)
from app.storage.answers import retry_after_s
from app.storage.sas import REMEDY as SAS_REMEDY
from app.storage.source import AuthType

_CODE = re.compile(rb"<Code>\s*([A-Za-z0-9]{1,64})\s*</Code>")

_SECRET: Mapping[AuthType, str] = {
    "sas_token": "auth/sas_token",
    "account_key": "auth/account_key",
    "connection_string": "auth/connection_string",
    "anonymous": "auth",
    "key_pair": "auth",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """What Azure said when it refused, reduced to what the table asks for."""

    status: int
    code: str | None
    auth: AuthType
    retry_after_s: int = 1
    about_time: bool = False
    """Whether the answer speaks of a signature's time frame or of a request's date."""


class _Words(NamedTuple):
    kind: type[StorageError]
    at: str
    """A field, or `secret` for the credential's own field."""
    detail: str
    remedy: str


_NO_CONTAINER = _Words(
    BucketMissingError,
    "container",
    "There is no container of that name.",
    "Check the container and the account.",
)
_NO_RIGHT = _Words(
    AccessDeniedError, "secret", "The credential lacks a right that is needed here.", SAS_REMEDY
)
_NO_SERVICE = _Words(AccessDeniedError, "secret", "The SAS token is not for the Blob service.", SAS_REMEDY)
_FIREWALL = _Words(
    AccessDeniedError,
    "auth",
    "The account refuses this request: its firewall, a policy, or a right that the credential lacks.",
    "Let Framegate's address through the account's network rules, and grant Read and List.",
)
_NOT_COVERED = _Words(
    AccessDeniedError,
    "secret",
    "The SAS token does not cover this container, or the account's firewall refuses Framegate's address.",
    SAS_REMEDY,
)
_NOT_PUBLIC = _Words(
    AccessDeniedError,
    "auth",
    "The container does not exist, or does not let everybody list and read it.",
    "Attach it with a credential, or set its public access level to 'container'.",
)
_PUBLIC_FORBIDDEN = _Words(
    AccessDeniedError,
    "auth",
    "The storage account forbids public access.",
    "Attach it with a credential, or let its owner allow public access and make the container public.",
)
_KEYS_FORBIDDEN = _Words(
    AccessDeniedError,
    "auth",
    "The storage account forbids account keys and what is signed with them.",
    "Allow shared key access in the account's configuration, or use a SAS token signed by a user.",
)
_DISABLED = _Words(
    AccessDeniedError, "account_name", "The storage account is disabled.", "Ask the owner of the account."
)
_ARCHIVED = _Words(
    ObjectArchivedError,
    "",
    "The blob lies in the archive tier.",
    "Move it to an online tier (rehydrate it), then read it again.",
)
_CLOCK = _Words(
    MisconfiguredError,
    "",
    "The account refuses the time of our requests: its clock and this machine's are too far apart.",
    "Set this machine's clock (NTP).",
)
_EXPIRED = _Words(
    CredentialExpiredError,
    "auth/sas_token",
    "The SAS token is not valid at this time: it has expired or not begun.",
    f"{SAS_REMEDY} Let it begin now and end late.",
)
_NO_AZURE = _Words(
    MisconfiguredError,
    "endpoint_url",
    "The endpoint does not answer as Azure Blob Storage does.",
    "Check the endpoint: the account's blob address, with the account's path where an emulator wants one.",
)
_FAILED = _Words(UpstreamError, "", "The storage account's server failed.", "Try again later.")

_WRONG_SECRET: Mapping[AuthType, tuple[str, str]] = {
    "sas_token": ("The SAS token's signature is wrong, or its key was rotated.", SAS_REMEDY),
    "account_key": (
        "The account key does not belong to this account, or was rotated.",
        "Copy key1 or key2 of the account anew.",
    ),
    "connection_string": (
        "The key in the connection string does not belong to this account, or was rotated.",
        "Copy the connection string anew.",
    ),
}

_BY_CODE: Mapping[str, _Words] = {
    "ContainerNotFound": _NO_CONTAINER,
    "ContainerBeingDeleted": _NO_CONTAINER,
    "ContainerDisabled": _NO_CONTAINER,
    "InvalidResourceName": _NO_CONTAINER,
    "AuthorizationPermissionMismatch": _NO_RIGHT,
    "AuthorizationResourceTypeMismatch": _NO_RIGHT,
    "InsufficientAccountPermissions": _NO_RIGHT,
    "UnauthorizedBlobOverwrite": _NO_RIGHT,
    "AuthorizationServiceMismatch": _NO_SERVICE,
    "AuthorizationFailure": _FIREWALL,
    "AuthorizationSourceIPMismatch": _FIREWALL,
    "AuthorizationProtocolMismatch": _Words(
        AccessDeniedError, "secret", "The SAS token allows https alone.", "Use an https endpoint."
    ),
    "KeyBasedAuthenticationNotPermitted": _KEYS_FORBIDDEN,
    "PublicAccessNotPermitted": _PUBLIC_FORBIDDEN,
    "NoAuthenticationInformation": _NOT_PUBLIC,
    "AccountIsDisabled": _DISABLED,
    "BlobArchived": _ARCHIVED,
    "BlobBeingRehydrated": _ARCHIVED,
    "InternalError": _FAILED,
    "OperationTimedOut": _FAILED,
}


def explain(refusal: Refusal, key: str | None) -> StorageError:
    """Translate a refusal of reading `key`, or (None) of a listing, into the error to raise."""
    status, code = refusal.status, refusal.code
    if code == "ServerBusy" or status in {429, 503}:
        return ThrottledError("The account asks for fewer requests.", retry_after_s=refusal.retry_after_s)
    if key is not None and (code == "BlobNotFound" or (code is None and status == 404)):
        return ObjectMissingError(key)
    words = _words(refusal, reading=key is not None)
    at = _SECRET[refusal.auth] if words.at == "secret" else words.at
    return words.kind(words.detail, at=at, remedy=words.remedy)


def refusal_of(status: int, headers: Mapping[bytes, bytes], body: bytes, auth: AuthType) -> Refusal:
    """Reduce an answer of the data plane."""
    named = headers.get(b"x-ms-error-code", b"").decode("latin-1")
    found = _CODE.search(body)
    code = named if re.fullmatch(r"[A-Za-z0-9]{1,64}", named) else None
    retry = headers.get(b"retry-after", b"").decode("latin-1")
    return Refusal(
        status,
        code or (found[1].decode() if found else None),
        auth,
        retry_after_s(retry) or 1,
        speaks_of_time(body),
    )


def speaks_of_time(body: bytes) -> bool:
    """Tell whether a refusal's text is about when the request or its signature was made."""
    return b"time frame" in body or b"too old" in body or b"signed expiry" in body.lower()


def _words(refusal: Refusal, *, reading: bool) -> _Words:
    if refusal.code in {"AuthenticationFailed", "InvalidAuthenticationInfo"}:
        return _unauthenticated(refusal)
    if refusal.code == "ResourceNotFound":
        return _NOT_PUBLIC if refusal.auth == "anonymous" else _NO_CONTAINER
    if refusal.code == "AuthorizationFailure" and refusal.auth == "sas_token":
        return _NOT_COVERED
    return _BY_CODE.get(refusal.code or "") or _by_status(refusal, reading=reading)


def _unauthenticated(refusal: Refusal) -> _Words:
    if refusal.about_time:
        return _EXPIRED if refusal.auth == "sas_token" else _CLOCK
    wrong = _WRONG_SECRET.get(refusal.auth)
    return _NOT_PUBLIC if wrong is None else _Words(AccessDeniedError, "secret", *wrong)


def _by_status(refusal: Refusal, *, reading: bool) -> _Words:
    if refusal.status >= 500:
        return _FAILED
    if refusal.status in {401, 403} and (reading or refusal.code is not None):
        return _NOT_PUBLIC if refusal.auth == "anonymous" else _FIREWALL
    if refusal.code is None and not reading:
        return _NO_AZURE
    return _Words(
        UpstreamError,
        "",
        f"The storage account refused with status {refusal.status}.",
        "Run the storage's probe: it says which part is at fault.",
    )
