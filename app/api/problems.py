"""The only table from what went wrong to what is answered: RFC 9457 problems."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from app.api.replies import Headers, Reply
from app.errors import (
    AccessDeniedError,
    AddressRefusedError,
    BodyTooLargeError,
    BrokenStreamError,
    BucketMissingError,
    ConflictError,
    CredentialExpiredError,
    CredentialUnreadableError,
    DatabaseUnavailableError,
    ForbiddenError,
    FramegateError,
    IncompleteBodyError,
    InvalidInputError,
    InvalidKeyError,
    MalformedRequestError,
    MisconfiguredError,
    MissingError,
    NoImageError,
    NotAPictureError,
    NotReadyError,
    ObjectArchivedError,
    ObjectMissingError,
    ObjectTooLargeError,
    PictureTooLargeError,
    PreconditionFailedError,
    ProbeRefusedError,
    RangeNotSatisfiableError,
    ReadOnlyCredentialError,
    RenditionsBusyError,
    SchemaError,
    ShareUsedUpError,
    SignedUrlError,
    StaleRevisionError,
    StorageError,
    StorageTimeoutError,
    ThrottledError,
    UnauthenticatedError,
    UnreachableError,
    UnsupportedCodingError,
    UpstreamError,
    WriteRefusedError,
    WrongRegionError,
)

MEDIA_TYPE = "application/problem+json"
DATABASE_RETRY_AFTER_S = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One kind of problem: where it is documented, what it is called, what status it answers."""

    slug: str
    title: str
    status: int
    extras: Callable[[Any], Mapping[str, object]] = field(default=lambda _: {})
    headers: Callable[[Any], Headers] = field(default=lambda _: [])


def _errors(error: InvalidInputError) -> Mapping[str, object]:
    return {"errors": [{"pointer": fault.pointer, "detail": fault.detail} for fault in error.faults]}


def _checklist(error: ProbeRefusedError) -> Mapping[str, object]:
    checks = [
        {"name": check.name, "ok": check.ok, "detail": check.detail, "remedy": check.remedy}
        for check in error.checks
    ]
    return {**_errors(error), "ok": False, "checks": checks}


def _remedy(error: StorageError) -> Mapping[str, object]:
    return {"remedy": error.remedy} if error.remedy else {}


def _challenge(error: UnauthenticatedError) -> Headers:
    # RFC 6750 section 3.1: no error code where no credential was presented.
    invalid = b', error="invalid_token"' if error.presented else b""
    return [(b"www-authenticate", b'Bearer realm="framegate"' + invalid)]


def _retry_after(seconds: int) -> Headers:
    return [(b"retry-after", b"%d" % seconds)]


def _unsatisfied(error: RangeNotSatisfiableError) -> Headers:
    tag = [] if error.etag is None else [(b"etag", error.etag.encode("latin-1"))]
    return [(b"content-range", b"bytes */%d" % error.size_bytes), (b"accept-ranges", b"bytes"), *tag]


_STORAGE_ERROR = Problem("storage-error", "The bucket failed", 502, _remedy)
_ACCESS_DENIED = Problem("storage-access-denied", "The bucket refused our credential", 502, _remedy)

PROBLEMS: Mapping[type[FramegateError], Problem] = {
    InvalidInputError: Problem("invalid-request", "The request is not valid", 422, _errors),
    ProbeRefusedError: Problem("invalid-request", "The bucket refused", 422, _checklist),
    MalformedRequestError: Problem("malformed-request", "The request cannot be read", 400),
    InvalidKeyError: Problem("invalid-key", "No object can have this key", 400),
    UnauthenticatedError: Problem("unauthenticated", "A valid token is needed", 401, headers=_challenge),
    ForbiddenError: Problem("forbidden", "This is not allowed", 403),
    SignedUrlError: Problem("signed-url-invalid", "This signed URL is not valid", 403),
    ShareUsedUpError: Problem(
        "share-used-up",
        "Your share of the service is used up",
        429,
        headers=lambda error: _retry_after(error.retry_after_s),
    ),
    MissingError: Problem("not-found", "There is no such thing", 404),
    ConflictError: Problem("conflict", "This contradicts the present state", 409),
    NotReadyError: Problem(
        "manifest-not-ready", "The manifest is not registered", 409, lambda error: {"state": error.state}
    ),
    StaleRevisionError: Problem(
        "revision-gone",
        "The manifest has a newer revision",
        410,
        lambda error: {"current_revision": error.current_revision},
    ),
    PreconditionFailedError: Problem("precondition-failed", "A condition of the request does not hold", 412),
    RangeNotSatisfiableError: Problem(
        "range-not-satisfiable",
        "No byte of that range exists",
        416,
        lambda error: {"size_bytes": error.size_bytes},
        _unsatisfied,
    ),
    BodyTooLargeError: Problem("body-too-large", "The request's body is too large", 413),
    IncompleteBodyError: Problem(
        "body-incomplete",
        "The body did not come to its end",
        408,
        headers=lambda _: [(b"connection", b"close")],
    ),
    UnsupportedCodingError: Problem(
        "unsupported-coding",
        "A coded body is not taken",
        415,
        headers=lambda _: [(b"accept-encoding", b"identity")],
    ),
    NoImageError: Problem("no-image", "This frame has no image", 422),
    NotAPictureError: Problem("not-a-picture", "The object is no picture that can be read", 422),
    PictureTooLargeError: Problem("picture-too-large", "The picture is too large to be made smaller", 422),
    ObjectMissingError: Problem("object-not-found", "There is no such object", 404),
    ObjectTooLargeError: Problem("object-too-large", "The object is too large for this", 422),
    ObjectArchivedError: Problem("object-archived", "The object lies in an archive", 502, _remedy),
    AccessDeniedError: _ACCESS_DENIED,
    CredentialExpiredError: _ACCESS_DENIED,
    ReadOnlyCredentialError: Problem(
        "storage-read-only", "The storage's credential may only read", 403, _remedy
    ),
    WriteRefusedError: Problem("write-refused", "The bucket does not take this", 409, _remedy),
    CredentialUnreadableError: Problem(
        "credential-unreadable", "Our key to this credential is gone", 502, _remedy
    ),
    BucketMissingError: Problem("storage-not-found", "The bucket is gone", 502, _remedy),
    MisconfiguredError: _STORAGE_ERROR,
    WrongRegionError: _STORAGE_ERROR,
    UnreachableError: _STORAGE_ERROR,
    AddressRefusedError: _STORAGE_ERROR,
    UpstreamError: _STORAGE_ERROR,
    BrokenStreamError: _STORAGE_ERROR,
    StorageTimeoutError: Problem("storage-timeout", "The bucket did not answer in time", 504, _remedy),
    ThrottledError: Problem(
        "storage-throttled",
        "The bucket is too busy",
        503,
        headers=lambda error: _retry_after(error.retry_after_s),
    ),
    RenditionsBusyError: Problem(
        "renditions-busy",
        "Too many pictures wait to be made smaller",
        503,
        headers=lambda error: _retry_after(error.retry_after_s),
    ),
    SchemaError: Problem("database-unavailable", "The database's schema does not fit", 503),
    DatabaseUnavailableError: Problem(
        "database-unavailable",
        "The database does not answer",
        503,
        headers=lambda _: _retry_after(DATABASE_RETRY_AFTER_S),
    ),
}

# A missing thing of these kinds has a problem of its own; all others are `not-found`.
_MISSING_SLUGS = {"frame": "frame-not-found", "object": "object-not-found"}

HTTP_PROBLEMS: Mapping[int, Problem] = {
    400: Problem("malformed-request", "The request cannot be read", 400),
    404: Problem("not-found", "There is no such thing", 404),
    405: Problem("method-not-allowed", "This method is not served here", 405),
    413: Problem("body-too-large", "The request's body is too large", 413),
    415: Problem("unsupported-media-type", "The request's body must be JSON", 415),
    500: Problem("internal-error", "Something went wrong in Framegate", 500),
}
HOST_NOT_ALLOWED = Problem("host-not-allowed", "This host name is not served here", 400)


def reply_to(error: FramegateError, request_id: str, extras: Mapping[str, object] | None = None) -> Reply:
    """Give the answer to a domain error."""
    problem = PROBLEMS[type(error)]
    detail = str(error)
    more = {**problem.extras(error), **(extras or {})}
    return _render(_slug(error), problem, detail, request_id, more, problem.headers(error))


def members_of(error: FramegateError) -> Mapping[str, object]:
    """Give what an answer to a domain error would say, for an error that is only a part of an answer."""
    problem = PROBLEMS[type(error)]
    return {
        "type": f"/problems/{_slug(error)}",
        "title": problem.title,
        "status": problem.status,
        "detail": str(error),
        **problem.extras(error),
    }


def _slug(error: FramegateError) -> str:
    slug = PROBLEMS[type(error)].slug
    return _MISSING_SLUGS.get(error.what, slug) if isinstance(error, MissingError) else slug


def reply_with(problem: Problem, detail: str, request_id: str, headers: Headers | None = None) -> Reply:
    """Give the answer of a problem that HTTP itself has."""
    return _render(problem.slug, problem, detail, request_id, {}, headers or [])


def _render(
    slug: str,
    problem: Problem,
    detail: str,
    request_id: str,
    extras: Mapping[str, object],
    headers: Headers,
) -> Reply:
    body = orjson.dumps(
        {
            "type": f"/problems/{slug}",
            "title": problem.title,
            "status": problem.status,
            "detail": detail,
            "instance": f"urn:framegate:request:{request_id}",
            **extras,
        }
    )
    return Reply(
        problem.status,
        [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
            *headers,
        ],
        body,
    )


def all_slugs() -> Sequence[str]:
    """Give every slug that an answer can carry, each documented in `docs/problems.md`."""
    kinds = (*PROBLEMS.values(), *HTTP_PROBLEMS.values(), HOST_NOT_ALLOWED)
    return sorted({kind.slug for kind in kinds} | set(_MISSING_SLUGS.values()))
