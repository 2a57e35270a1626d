"""What can go wrong, in the words of the domain; nothing here knows HTTP.

Every text in these errors is safe to show to the caller: no credential, no upstream body, no signed URL.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

HealthState = Literal[
    "available",
    "forbidden",
    "not_found",
    "unreachable",
    "throttled",
    "misconfigured",
    "credential_expired",
]

Passing = Literal["refused", "connect_timeout", "no_answer", "cut_off", "stalled"]
"""What kept an answer from coming, and may be gone a moment later."""


class FramegateError(Exception):
    """Base of everything that Framegate raises on purpose."""


class Checked(Protocol):
    """One line of a checklist."""

    @property
    def name(self) -> str:
        """What was tried."""

    @property
    def ok(self) -> bool:
        """Whether it worked."""

    @property
    def detail(self) -> str:
        """What happened."""

    @property
    def remedy(self) -> str:
        """What to do; empty when there is nothing to do."""


# --- what the caller asked for ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a request.

    `pointer` is an RFC 6901 pointer into the body (`/source/bucket`), or `query:NAME`, `header:NAME`.
    """

    pointer: str
    detail: str


class InvalidInputError(FramegateError):
    """The request is understood but not valid; one fault for each thing at fault."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__("; ".join(f"{fault.pointer}: {fault.detail}" for fault in faults))
        self.faults = faults


class ProbeRefusedError(InvalidInputError):
    """A bucket that was only tried refused something; `checks` is the whole checklist."""

    def __init__(self, checks: Sequence[Checked], *faults: Fault) -> None:
        super().__init__(*faults)
        self.checks = checks


class InvalidKeyError(FramegateError):
    """An object key that no provider may be asked for (control characters, `..` segments, too long)."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class MalformedRequestError(FramegateError):
    """The request cannot be read at all: broken JSON, a path or query that is no UTF-8."""


class UnauthenticatedError(FramegateError):
    """No token, or one that is unknown, expired or revoked."""

    def __init__(self, detail: str, *, presented: bool = False) -> None:
        super().__init__(detail)
        self.detail = detail
        self.presented = presented
        """Whether a credential was presented at all (RFC 6750 section 3.1 answers the two apart)."""


class ForbiddenError(FramegateError):
    """The caller is known, may know that the thing exists, and may not do this."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class MissingError(FramegateError):
    """A thing that does not exist, or that the caller may not know to exist."""

    def __init__(
        self, what: Literal["storage", "manifest", "frame", "object", "job", "token", "path"], detail: str
    ) -> None:
        super().__init__(detail)
        self.what = what
        self.detail = detail


class ConflictError(FramegateError):
    """The request contradicts the present state."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class StaleRevisionError(FramegateError):
    """A cursor or `revision` names a manifest revision that is no longer the current one."""

    def __init__(self, current_revision: int | None) -> None:
        super().__init__("That revision of the manifest is no longer the current one.")
        self.current_revision = current_revision


class NotReadyError(FramegateError):
    """The manifest has no registered revision to answer from (still pending, or it failed)."""

    def __init__(self, state: str, detail: str) -> None:
        super().__init__(detail)
        self.state = state
        self.detail = detail


class NoImageError(FramegateError):
    """This frame has no image of its own (a video's key frame)."""


class NotAPictureError(FramegateError):
    """The object is no picture that can be decoded: another kind of file, truncated, or damaged."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class PictureTooLargeError(FramegateError):
    """A picture of more bytes, pixels, memory or time than decoding one may take."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class PreconditionFailedError(FramegateError):
    """An `If-Match` or `If-Unmodified-Since` did not hold (RFC 9110 section 13.1)."""

    def __init__(self, detail: str = "The object is not the one that the condition names.") -> None:
        super().__init__(detail)
        self.detail = detail


class BodyTooLargeError(FramegateError):
    """The body of an upload is longer than this installation takes."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"An upload has at most {limit_bytes} bytes (FRAMEGATE_MAX_UPLOAD_BYTES).")
        self.limit_bytes = limit_bytes


class IncompleteBodyError(FramegateError):
    """The client went away in the middle of its body, or sent nothing of it for too long."""


class UnsupportedCodingError(FramegateError):
    """The body is compressed or otherwise coded (`Content-Encoding`)."""


class RangeNotSatisfiableError(FramegateError):
    """No byte of the asked range exists (RFC 9110 section 15.5.17); `size_bytes` is the whole object's."""

    def __init__(self, size_bytes: int, etag: str | None = None) -> None:
        super().__init__(f"The object has {size_bytes} bytes; none of them is in the range.")
        self.size_bytes = size_bytes
        self.etag = etag


class ShareUsedUpError(FramegateError):
    """The caller has as many requests under way as one caller may have; others are still served."""

    def __init__(self) -> None:
        super().__init__("Too many of your own requests are under way or wait already.")
        self.retry_after_s = 1


class SignedUrlError(FramegateError):
    """A signed URL that is bent, expired, or whose token was revoked."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


# --- what a bucket, or the way to it, answered ---------------------------------------------------


class StorageError(FramegateError):
    """A bucket, or the way to it, did not give what was asked.

    `at` names the field of the storage's `source` at fault (`auth/secret_access_key`, `bucket`, ...);
    `detail` says what happened and `remedy` what to do, both in words for the caller. `passing` names what
    may be gone when the same is asked again at once; None where asking again cannot help.
    """

    state: ClassVar[HealthState] = "unreachable"

    def __init__(
        self, detail: str, *, at: str = "", remedy: str = "", passing: Passing | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.at = at
        self.remedy = remedy
        self.passing: Passing | None = passing


class AccessDeniedError(StorageError):
    """The bucket knows the credential's fault or lacks a right for it: wrong key, secret, SAS, policy."""

    state: ClassVar[HealthState] = "forbidden"


class CredentialExpiredError(AccessDeniedError):
    """The credential itself says, or the bucket says, that its time is over."""

    state: ClassVar[HealthState] = "credential_expired"


class ReadOnlyCredentialError(AccessDeniedError):
    """The bucket knows the credential and does not let it write."""


class CredentialUnreadableError(StorageError):
    """The key that sealed this storage's credential is gone, or the sealed text was altered."""

    state: ClassVar[HealthState] = "misconfigured"


class BucketMissingError(StorageError):
    """There is no such bucket, container or account."""

    state: ClassVar[HealthState] = "not_found"


class MisconfiguredError(StorageError):
    """The storage's description is at fault: region, endpoint, a name against its grammar."""

    state: ClassVar[HealthState] = "misconfigured"


class WrongRegionError(MisconfiguredError):
    """The bucket lives in another region; `region` says which, when the bucket said so."""

    def __init__(self, detail: str, *, region: str | None, remedy: str = "") -> None:
        super().__init__(detail, at="region", remedy=remedy)
        self.region = region


class UnreachableError(StorageError):
    """No connection could be made: name resolution, refusal, TLS."""


class AddressRefusedError(UnreachableError):
    """The network guard refuses the address; the setting that could allow it is named in `remedy`."""

    state: ClassVar[HealthState] = "misconfigured"


class StorageTimeoutError(StorageError):
    """The bucket did not answer in time."""


class ThrottledError(StorageError):
    """The bucket asked us to slow down, or too many requests wait for it already."""

    state: ClassVar[HealthState] = "throttled"

    def __init__(self, detail: str, *, retry_after_s: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class UpstreamError(StorageError):
    """The bucket failed, or answered what no bucket answers."""


class ObjectMissingError(StorageError):
    """There is no object of that key."""

    state: ClassVar[HealthState] = "available"

    def __init__(self, key: str) -> None:
        super().__init__("There is no object of that key in the bucket.")
        self.key = key


class ObjectArchivedError(StorageError):
    """The object lies in an archive tier and must be restored before it can be read."""

    state: ClassVar[HealthState] = "available"


class ObjectTooLargeError(StorageError):
    """The object is longer than what may be read into memory for this purpose."""

    state: ClassVar[HealthState] = "available"

    def __init__(self, key: str, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(f"The object has {size_bytes} bytes; at most {limit_bytes} are read here.")
        self.key = key
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class WriteRefusedError(StorageError):
    """The bucket does not take this write, whoever asks: its quota, a lock on the object, the object's key."""

    state: ClassVar[HealthState] = "available"


class BrokenStreamError(StorageError):
    """The bucket broke off after the first byte; the client's connection must be aborted, never ended."""


# --- the service itself ----------------------------------------------------------------------------


class RenditionsBusyError(FramegateError):
    """So many renditions wait to be made that no further one may."""

    def __init__(self, *, retry_after_s: int = 2) -> None:
        super().__init__("Too many smaller pictures wait to be made already.")
        self.retry_after_s = retry_after_s


class DatabaseUnavailableError(FramegateError):
    """PostgreSQL does not answer."""


class AnswerAbortedError(FramegateError):
    """An answer could not be finished; raised to the server so that it cuts the connection."""


class SchemaError(FramegateError):
    """The database's schema is older or newer than this program."""


class CommandError(FramegateError):
    """A command could not be done; its one line says why and what to do."""
