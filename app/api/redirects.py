"""The answer of a storage that redirects: 307 to a URL at the bucket, which stands nowhere but in `Location`."""

from app.api.replies import Reply
from app.api.safe_headers import safe_headers
from app.storage.base import Redirection

# A kept redirection would outlive the right that it was given for; and where a signed URL stands on a page, the
# bucket's log must not learn of it.
_SAME_ORIGIN, _CROSS_ORIGIN = safe_headers(
    b"private, no-store", (b"content-length", b"0"), (b"referrer-policy", b"no-referrer")
)


def redirection_reply(redirection: Redirection, *, signed: bool) -> Reply:
    """Give status and headers of a redirection; method, range and conditions travel on with the client."""
    location = redirection.location.get_secret_value().encode("ascii")
    return Reply(307, [(b"location", location), *(_CROSS_ORIGIN if signed else _SAME_ORIGIN)])
