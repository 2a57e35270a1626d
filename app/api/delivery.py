"""The plain functions behind every byte route: from request facts to a Reply, whichever way they came in."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from urllib.parse import parse_qsl, quote, unquote_to_bytes

from starlette.types import Scope

from app.api import conditional
from app.api.replies import Headers, Reply
from app.errors import Fault, InvalidInputError, MalformedRequestError, SignedUrlError, UnauthenticatedError
from app.lifespan import Services
from app.services.access import Principal
from app.services.signed_urls import Signature, object_path
from app.storage.base import Method, ObjectRead
from app.storage.media import media_type

OBJECT_PATH = re.compile(rb"/v1/storages/([0-9]{1,19})/objects/(.+)", re.DOTALL)
IMAGE_PATH = re.compile(rb"/v1/manifests/([0-9]{1,19})/frames/([0-9]{1,19})/image")
LARGEST_ID = 2**63 - 1

_SIGNATURE = frozenset({"expires", "token_id", "signature"})
_SAFE: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; sandbox"),
    (b"cache-control", b"private, no-cache"),
    (b"vary", b"Authorization, Cookie"),
]
_SAME_ORIGIN: Headers = [*_SAFE, (b"cross-origin-resource-policy", b"same-origin")]
_CROSS_ORIGIN: Headers = [*_SAFE, (b"cross-origin-resource-policy", b"cross-origin")]


@dataclass(frozen=True, slots=True)
class ByteRequest:
    """What a byte route needs to know of a request."""

    method: Method
    headers: Mapping[bytes, bytes]
    """Only those that byte routes read, lower-case; the last of repeated ones."""
    query: Mapping[str, str]

    @property
    def asks_anew(self) -> bool:
        """Whether the reader will not have what was not asked for again (RFC 9111 section 5.2.1)."""
        directives = self.headers.get(b"cache-control")
        return directives is not None and _ASKS_ANEW.search(directives) is not None

    @property
    def signed(self) -> bool:
        """Whether the request carries a signed URL's signature."""
        return "signature" in self.query


_READ_HEADERS = conditional.CONDITIONAL | {b"authorization", b"cache-control"}
_ASKS_ANEW = re.compile(
    rb"(?:^|[\s,])(?:no-cache|no-store|max-age\s*=\s*\"?0+\"?)(?:$|[\s,;=])", re.IGNORECASE
)


def request_of(scope: Scope) -> ByteRequest:
    """Pick out of an ASGI scope what byte routes read."""
    headers = {name: value for name, value in scope["headers"] if name in _READ_HEADERS}
    query = scope["query_string"]
    method: Method = "HEAD" if scope["method"] == "HEAD" else "GET"
    return ByteRequest(method, headers, _parameters(query) if query else {})


def raw_key_of(scope: Scope) -> bytes:
    """Give the percent-encoded key of an object's path."""
    found = OBJECT_PATH.search(scope["raw_path"])
    return found[2] if found else b""


def key_of(scope: Scope) -> str:
    """Give the key of an object's path; raises `MalformedRequestError`."""
    return _decoded(raw_key_of(scope))


async def object_reply(services: Services, request: ByteRequest, storage_id: int, raw_key: bytes) -> Reply:
    """Answer a GET or HEAD of an object; `raw_key` is percent-encoded, as it came.

    Raises every error of `ObjectService.read`, `UnauthenticatedError`, `SignedUrlError`, `MalformedRequestError`.
    """
    key = _decoded(raw_key)
    principal = await _principal(services, request, object_path(storage_id, key))
    return await _reply(services, principal, request, storage_id, key)


async def image_reply(services: Services, request: ByteRequest, manifest_id: int, number: int) -> Reply:
    """Answer a GET or HEAD of a frame's image; raises also `StaleRevisionError`, `NoImageError`."""
    principal = await _principal(services, request, None)
    revision = _revision(request.query.get("revision"))
    place = await services.frames.locate(principal, manifest_id, number, revision=revision)
    return await _reply(services, principal, request, place.storage_id, place.key)


async def _reply(
    services: Services, principal: Principal, request: ByteRequest, storage_id: int, key: str
) -> Reply:
    download = _flag(request.query, "download")
    options = conditional.parse(request.headers, request.method)
    read = await services.objects.read(
        principal, storage_id, key, request.method, options, revalidate=request.asks_anew
    )
    return shaped(read, download=download, signed=request.signed)


def shaped(read: ObjectRead, *, download: bool, signed: bool) -> Reply:
    """Give status and headers of a read: 200, 206 or 304."""
    headers = [*(_CROSS_ORIGIN if signed else _SAME_ORIGIN), *_validators(read)]
    if read.not_modified:
        return Reply(304, headers)
    headers += _description(read, download=download)
    if read.part is None:
        headers.append((b"content-length", b"%d" % read.meta.size_bytes))
        return Reply(200, headers, read.body)
    start, stop = read.part
    headers.append((b"content-range", b"bytes %d-%d/%d" % (start, stop - 1, read.meta.size_bytes)))
    headers.append((b"content-length", b"%d" % (stop - start)))
    return Reply(206, headers, read.body)


def _validators(read: ObjectRead) -> Headers:
    found: Headers = []
    if read.meta.etag is not None:
        found.append((b"etag", read.meta.etag.encode("latin-1")))
    if read.meta.last_modified is not None:
        found.append((b"last-modified", http_date(read.meta.last_modified)))
    return found


def _description(read: ObjectRead, *, download: bool) -> Headers:
    kind = media_type(read.meta.media_type, read.meta.key)
    found: Headers = [(b"accept-ranges", b"bytes"), (b"content-type", kind.content_type.encode())]
    if read.meta.content_encoding:
        found.append((b"content-encoding", read.meta.content_encoding.encode("latin-1")))
    if download or not kind.inline:
        found.append((b"content-disposition", disposition(read.meta.key)))
    return found


def disposition(key: str) -> bytes:
    """Give `attachment` with the key's last segment as name, plain and extended (RFC 6266 section 4.3)."""
    name = key.rstrip("/").rpartition("/")[2] or "object"
    plain = re.sub(r'[^\x20-\x7e]|["\\%/;]', "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}".encode()


@lru_cache(4096)
def http_date(moment: datetime) -> bytes:
    """Give a time as HTTP writes it (RFC 9110 section 5.6.7)."""
    return format_datetime(moment.astimezone(UTC), usegmt=True).encode()


def bearer(headers: Mapping[bytes, bytes]) -> str:
    """Give the presented token; raises `UnauthenticatedError` where there is none."""
    scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise UnauthenticatedError("This needs a token: Authorization: Bearer fg_...")
    return token.strip()


async def _principal(services: Services, request: ByteRequest, path: str | None) -> Principal:
    if not request.signed:
        return await services.access.authenticate(bearer(request.headers))
    if path is None:
        raise SignedUrlError("Signed URLs are for objects; sign a frame and its object's URL comes back.")
    others = {name: value for name, value in request.query.items() if name not in _SIGNATURE}
    return await services.signer.verify(path, others, _signature(request.query))


def _signature(query: Mapping[str, str]) -> Signature:
    expires, token_id = query.get("expires", ""), query.get("token_id", "")
    if not (_is_count(expires) and _is_count(token_id)):
        raise SignedUrlError("The signature does not fit this URL.")
    return Signature(int(expires), int(token_id), query["signature"])


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18


def _parameters(query: bytes) -> dict[str, str]:
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, errors="surrogateescape")
    parameters = dict(pairs)
    # A repeated parameter could be signed in one meaning and read in another.
    if len(parameters) != len(pairs) and "signature" in parameters:
        raise SignedUrlError("The signature does not fit this URL.")
    return parameters


def _decoded(raw_key: bytes) -> str:
    try:
        return unquote_to_bytes(raw_key).decode()
    except UnicodeDecodeError:
        raise MalformedRequestError("The key in the path is not UTF-8.") from None


def _flag(query: Mapping[str, str], name: str) -> bool:
    text = query.get(name, "false").lower()
    if text not in {"true", "false", "1", "0"}:
        raise InvalidInputError(Fault(f"query:{name}", "This is true or false."))
    return text in {"true", "1"}


def _revision(text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,19}", text) or not 1 <= int(text) <= LARGEST_ID:
        raise InvalidInputError(Fault("query:revision", "A revision is a whole number from 1."))
    return int(text)
