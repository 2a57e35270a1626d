"""The plain functions behind every byte route: from request facts to a Reply, whichever way they came in."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from urllib.parse import parse_qsl, unquote_to_bytes

from starlette.types import Scope

from app.api import conditional
from app.api.redirects import redirection_reply
from app.api.renditions import RENDITION_PARAMETERS, rendition_of
from app.api.replies import Headers, Reply
from app.api.safe_headers import safe_headers
from app.errors import Fault, InvalidInputError, MalformedRequestError, SignedUrlError, UnauthenticatedError
from app.images.rendition import Rendition
from app.lifespan import Services
from app.services.access import Principal
from app.services.signed_urls import Signature, object_path
from app.storage.base import Method, ObjectRead, Redirection
from app.storage.disposition import disposition
from app.storage.media import media_type

OBJECT_PATH = re.compile(rb"/v1/storages/([0-9]{1,19})/objects/(.+)", re.DOTALL)
IMAGE_PATH = re.compile(rb"/v1/manifests/([0-9]{1,19})/frames/([0-9]{1,19})/image")
LARGEST_ID = 2**63 - 1

_SIGNATURE = frozenset({"expires", "token_id", "signature"})
SAME_ORIGIN, _CROSS_ORIGIN = safe_headers(b"private, no-cache")


_NO_QUERY: Mapping[str, str] = {}


class ByteRequest:
    """What a byte route needs to know of a request; `headers` by lower-case name, the last of repeated ones."""

    __slots__ = ("_query", "headers", "method", "options", "principal", "raw_query")

    def __init__(self, method: Method, headers: Mapping[bytes, bytes], raw_query: bytes) -> None:
        self.method = method
        self.headers = headers
        self.raw_query = raw_query
        self.principal: Principal | None = None
        """Who asks, once it is known."""
        self.options = conditional.parse(headers, method)
        self._query = None if raw_query else _NO_QUERY

    @property
    def query(self) -> Mapping[str, str]:
        """The decoded parameters; raises `SignedUrlError` for a signed query that could be read in two ways."""
        if self._query is None:
            self._query = _parameters(self.raw_query)
        return self._query

    @property
    def asks_anew(self) -> bool:
        """Whether the reader will not have what was not asked for again (RFC 9111 section 5.2.1)."""
        directives = self.headers.get(b"cache-control")
        return directives is not None and _ASKS_ANEW.search(directives) is not None

    @property
    def signed(self) -> bool:
        """Whether the request carries a signed URL's signature."""
        return bool(self.raw_query) and "signature" in self.query


_ASKS_ANEW = re.compile(
    rb"(?:^|[\s,])(?:no-cache|no-store|max-age\s*=\s*\"?0+\"?)(?:$|[\s,;=])", re.IGNORECASE
)


def request_in(scope: Scope) -> ByteRequest:
    """Gather what byte routes read out of an ASGI scope."""
    method: Method = "HEAD" if scope["method"] == "HEAD" else "GET"
    return ByteRequest(method, dict(scope["headers"]), scope["query_string"])


def raw_key_of(scope: Scope) -> bytes:
    """Give the percent-encoded key of an object's path."""
    found = OBJECT_PATH.search(scope["raw_path"])
    return found[2] if found else b""


def key_of(scope: Scope) -> str:
    """Give the key of an object's path; raises `MalformedRequestError`."""
    return _decoded(raw_key_of(scope))


async def object_reply(services: Services, request: ByteRequest, storage_id: int, raw_key: bytes) -> Reply:
    """Answer a GET or HEAD of an object; `raw_key` is percent-encoded, as it came.

    Raises every error of `ObjectService.deliver` and `RenditionService.read`, `UnauthenticatedError`,
    `SignedUrlError`, `MalformedRequestError`.
    """
    key = _decoded(raw_key)
    principal = await _principal(services, request, object_path(storage_id, key))
    return await _reply(services, principal, request, storage_id, key)


def object_reply_at_hand(
    services: Services, request: ByteRequest, storage_id: int, raw_key: bytes
) -> Reply | None:
    """Answer as `object_reply` does from memory alone; None where anything must be waited for."""
    wanted = _rendition_alone(request.raw_query) if request.raw_query else None
    if request.asks_anew or (request.raw_query and wanted is None):
        return None
    principal = request.principal = services.access.at_hand(bearer(request.headers))
    if principal is None:
        return None
    key, method, options = _decoded(raw_key), request.method, request.options
    if wanted is None:
        read = services.objects.at_hand(principal, storage_id, key, method, options)
    else:
        read = services.renditions.at_hand(principal, storage_id, key, wanted, method, options)
    return None if read is None else shaped(read, download=False, signed=False)


@lru_cache(1024)
def _rendition_alone(query: bytes) -> Rendition | None:
    """Give the rendition that a query asks for and nothing else; None for any other query."""
    parameters = _parameters(query)
    return rendition_of(parameters) if parameters.keys() <= RENDITION_PARAMETERS else None


async def image_reply(services: Services, request: ByteRequest, manifest_id: int, number: int) -> Reply:
    """Answer a GET or HEAD of a frame's image; raises also `StaleRevisionError`, `NoImageError`."""
    principal = await _principal(services, request, None)
    revision = _revision(request.query.get("revision"))
    place = await services.frames.locate(principal, manifest_id, number, revision=revision)
    return await _reply(services, principal, request, place.storage_id, place.key)


async def _reply(
    services: Services, principal: Principal, request: ByteRequest, storage_id: int, key: str
) -> Reply:
    download = bool(request.raw_query) and _flag(request.query, "download")
    wanted = rendition_of(request.query) if request.raw_query else None
    if wanted is not None:
        made = await services.renditions.read(
            principal, storage_id, key, wanted, request.method, request.options, revalidate=request.asks_anew
        )
        return shaped(made, download=download, signed=request.signed)
    read = await services.objects.deliver(
        principal,
        storage_id,
        key,
        request.method,
        request.options,
        revalidate=request.asks_anew,
        download=download,
    )
    if isinstance(read, Redirection):
        return redirection_reply(read, signed=request.signed)
    return shaped(read, download=download, signed=request.signed)


def shaped(read: ObjectRead, *, download: bool, signed: bool) -> Reply:
    """Give status and headers of a read: 200, 206 or 304."""
    headers = [*(_CROSS_ORIGIN if signed else SAME_ORIGIN), *_validators(read)]
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
    if request.principal is not None:
        return request.principal
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
