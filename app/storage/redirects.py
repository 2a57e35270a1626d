"""What a URL at the bucket itself says and how long it lives, for storages that redirect."""

from urllib.parse import urlsplit

from pydantic import SecretStr

from app.storage.base import Origin, Overrides, SignedRequest
from app.storage.disposition import disposition
from app.storage.media import media_type

PRESIGNED_LIFE_S = 300
"""Long enough to begin a download over a bad line, short enough that a withdrawn right is soon withdrawn."""

_CACHE_CONTROL = "private, no-cache"
_MOST_NAMED = 1000
"""Characters of a Content-Disposition in a URL, where `%` takes three of them."""


def overrides_for(key: str, *, download: bool = False) -> Overrides:
    """Give what the bucket shall say of an object, by its key alone: nobody asked for its stored type.

    What is no picture, video or other harmless type by its ending comes as an attachment, as by proxy.
    """
    kind = media_type(None, key)
    saved = download or not kind.inline
    return Overrides(kind.content_type, _disposition(key) if saved else None, _CACHE_CONTROL)


def _disposition(key: str) -> str:
    """Name the file, unless that would make the URL too long for a header; browsers then name it by the URL."""
    named = disposition(key).decode()
    return named if len(named) <= _MOST_NAMED else "attachment"


def first_byte_of(url: SecretStr, origin: Origin) -> SignedRequest:
    """Make the request of a client that follows a redirection to `url`, for one byte."""
    parts = urlsplit(url.get_secret_value())
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    headers = ((b"host", parts.netloc.encode("ascii")), (b"accept", b"*/*"), (b"range", b"bytes=0-0"))
    return SignedRequest(origin, "GET", target.encode("ascii"), headers)
