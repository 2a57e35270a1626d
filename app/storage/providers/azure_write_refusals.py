"""What Azure Blob Storage refuses when it is written to, beside what it refuses anyway (`azure_refusals`)."""

from collections.abc import Mapping

from app.errors import (
    AccessDeniedError,
    FramegateError,
    PreconditionFailedError,
    ReadOnlyCredentialError,
    WriteRefusedError,
)
from app.storage.providers.azure_refusals import Refusal, explain

_RIGHTS = "Make a SAS token with Read, List, Create, Write and Delete on Container and Object."

_NO_RIGHT = frozenset({
    "AuthorizationPermissionMismatch",
    "InsufficientAccountPermissions",
    "UnauthorizedBlobOverwrite",
})  # fmt: skip
_ANOTHER_STATE = frozenset({"ConditionNotMet", "TargetConditionNotMet", "BlobAlreadyExists"})

_TOO_LARGE = ("The container takes no blob of this size.", "Store it in smaller pieces.")
_OTHER_TYPE = (
    "A blob of this key exists and is no block blob (it is an append or a page blob).",
    "Delete it first, or choose another key.",
)
_LEASED = ("The blob is leased: somebody keeps it from being changed.", "End the lease, or wait for its end.")
_IMMUTABLE = ("The blob may not be changed: an immutability policy or a legal hold is on it.", "")
_SNAPSHOTS = ("The blob has snapshots, which would be lost with it.", "Delete its snapshots first.")

_BY_CODE: Mapping[str, tuple[str, str]] = {
    "RequestBodyTooLarge": _TOO_LARGE,
    "BlockCountExceedsLimit": _TOO_LARGE,
    "InvalidBlobType": _OTHER_TYPE,
    "LeaseIdMissing": _LEASED,
    "BlobImmutableDueToPolicy": _IMMUTABLE,
    "BlobImmutableDueToLegalHold": _IMMUTABLE,
    "SnapshotsPresent": _SNAPSHOTS,
}


def explain_write(refusal: Refusal, key: str | None) -> FramegateError:
    """Translate a refusal of writing or deleting `key` into the error to raise."""
    code = refusal.code or ""
    if words := _BY_CODE.get(code):
        return WriteRefusedError(words[0], remedy=words[1])
    if code in _ANOTHER_STATE or refusal.status == 412:
        return PreconditionFailedError()
    error = explain(refusal, key)
    if code in _NO_RIGHT:
        return ReadOnlyCredentialError(
            "The storage's credential may not write to its container.", at=error.at, remedy=_RIGHTS
        )
    if refusal.auth == "anonymous" and isinstance(error, AccessDeniedError):
        return ReadOnlyCredentialError(
            "The storage has no credential, and nobody may write to a container without one.",
            at="auth",
            remedy="Give the storage a credential that may write.",
        )
    return error
