"""What S3 refuses when it is written to, beside what it refuses anyway (`s3_refusals`)."""

from collections.abc import Mapping

from app.errors import (
    FramegateError,
    PreconditionFailedError,
    ReadOnlyCredentialError,
    ThrottledError,
    WriteRefusedError,
)
from app.storage.providers.s3_refusals import Refusal, explain

_RIGHTS = (
    "Let it write and delete the bucket's objects (s3:PutObject, s3:DeleteObject, s3:AbortMultipartUpload); "
    "under a KMS key it needs kms:GenerateDataKey and kms:Decrypt too."
)

_DENIALS = frozenset({"AccessDenied", "AccessForbidden", "UnauthorizedAccess"})
_OVERTAKEN = frozenset({"ConditionalRequestConflict", "OperationAborted"})

_TOO_LARGE = ("The bucket takes no object of this size.", "Store it in smaller pieces.")
_FULL = ("The bucket is full, or its quota is used up.", "Make room in it, or raise its quota.")
_BAD_KEY = (
    "The bucket takes no object of this key, or another object stands in its way ('a' beside 'a/b').",
    "Choose another key.",
)
_LOCKED = ("The object is locked in the bucket.", "Ask the owner of the bucket.")

_BY_CODE: Mapping[str, tuple[str, str]] = {
    "EntityTooLarge": _TOO_LARGE,
    "QuotaExceeded": _FULL,
    "XMinioStorageFull": _FULL,
    "XMinioAdminBucketQuotaExceeded": _FULL,
    "KeyTooLongError": _BAD_KEY,
    "XMinioInvalidObjectName": _BAD_KEY,
    "XMinioParentIsObject": _BAD_KEY,
    "XMinioObjectExistsAsDirectory": _BAD_KEY,
    "ExistingObjectIsDirectory": _BAD_KEY,
    "ExistingObjectIsFile": _BAD_KEY,
    "ObjectLocked": _LOCKED,
}


def explain_write(refusal: Refusal, key: str | None) -> FramegateError:
    """Translate a refusal of writing or deleting `key` into the error to raise."""
    code = refusal.code
    if code == "PreconditionFailed" or refusal.status == 412:
        return PreconditionFailedError()
    if code in _OVERTAKEN:
        return ThrottledError("Another write of this object is under way.")
    if code in _DENIALS or (code is None and refusal.status in {401, 403}):
        return _denied(refusal)
    words = _BY_CODE.get(code or "")
    return explain(refusal, key) if words is None else WriteRefusedError(words[0], remedy=words[1])


def _denied(refusal: Refusal) -> ReadOnlyCredentialError:
    if refusal.anonymous:
        return ReadOnlyCredentialError(
            "The storage has no credential, and the bucket does not let everybody write.",
            at="auth",
            remedy="Give the storage an access key that may write.",
        )
    return ReadOnlyCredentialError(
        "The storage's credential may not write to its bucket.", at="auth", remedy=_RIGHTS
    )
