"""The answer of a storage that redirects: 307 to a URL at the bucket, which stands nowhere but in `Location`."""

from app.api.replies import Headers, Reply
from app.storage.base import Redirection

_SAFE: Headers = [
    (b"content-length", b"0"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; sandbox"),
    # A kept redirection would outlive the right that it was given for.
    (b"cache-control", b"private, no-store"),
    (b"vary", b"Authorization, Cookie"),
    # Where a signed URL stands on a page, the bucket's log must not learn of it.
    (b"referrer-policy", b"no-referrer"),
]
_SAME_ORIGIN: Headers = [*_SAFE, (b"cross-origin-resource-policy", b"same-origin")]
_CROSS_ORIGIN: Headers = [*_SAFE, (b"cross-origin-resource-policy", b"cross-origin")]


def redirection_reply(redirection: Redirection, *, signed: bool) -> Reply:
    """Give status and headers of a redirection; method, range and conditions travel on with the client."""
    location = redirection.location.get_secret_value().encode("ascii")
    return Reply(307, [(b"location", location), *(_CROSS_ORIGIN if signed else _SAME_ORIGIN)])
