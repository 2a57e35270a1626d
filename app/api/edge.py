"""What every request passes, byte or JSON: its id, host, CORS, size, and the log line and metrics of its end."""

import itertools
import re
import secrets
import time
from collections.abc import Iterator, Mapping

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.limits import is_upload
from app.api.problems import HOST_NOT_ALLOWED, HTTP_PROBLEMS, reply_with
from app.api.replies import BROKEN_BY, Headers, Reply, send_reply
from app.errors import AnswerAbortedError, FramegateError, StorageError
from app.log import AccessLog
from app.metrics import Metrics
from app.settings import Settings

_GIVEN_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_OPEN_TO_ANY_HOST = frozenset({"/livez", "/readyz", "/metrics"})
_MOST_KNOWN_HOSTS = 1024
_EXPOSED = b"ETag, Content-Range, Accept-Ranges, X-Request-Id"
_PREFLIGHT: Headers = [
    (b"access-control-allow-methods", b"GET, HEAD, POST, PUT, PATCH, DELETE"),
    (
        b"access-control-allow-headers",
        b", ".join(
            (
                b"Authorization, Content-Type, Range, If-Match, If-None-Match, If-Modified-Since",
                b"If-Unmodified-Since, If-Range, Cache-Control, Prefer, X-Request-Id",
                b"Content-MD5, Repr-Digest, Content-Digest",
            )
        ),
    ),
    (b"access-control-max-age", b"600"),
]

_log = structlog.get_logger(__name__)


class Passage:
    """One request on its way through: its id, the headers that its answer gets, and what was sent so far."""

    __slots__ = ("complete", "extra", "request_id", "sent_bytes", "started", "status")

    def __init__(self, request_id: str, extra: Headers) -> None:
        self.request_id = request_id
        self.extra = extra
        self.started = time.perf_counter()
        self.status = 0
        self.sent_bytes = 0
        self.complete = False


class Edge:
    """What stands around both ways in: the lane on the wire, and the ASGI app; keeps nothing but counters.

    As an ASGI app it is the outermost one. The lane calls `enter`, `refusal` and `leave` by itself.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics, access_log: AccessLog) -> None:
        self._app = app
        self._metrics = metrics
        self._access_log = access_log
        self._hosts = _Hosts(settings)
        self._origins = frozenset(origin.encode("latin-1") for origin in settings.cors_origins)
        self._max_body_bytes = settings.max_body_bytes
        self._ids = _ids()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or pass on lifespan messages."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = dict(scope["headers"])
        passage = self.enter(headers)
        scope["request_id"] = passage.request_id
        counted = _counted(passage, send)
        try:
            reply = self.refusal(passage, scope["method"], scope["path"], headers)
            if reply is not None:
                await send_reply(reply, receive, counted)
            else:
                await self._app(scope, receive, counted)
            if BROKEN_BY in scope:
                raise scope[BROKEN_BY]  # noqa: TRY301 - to end as an error that came up by the lane
        except Exception as error:
            if passage.complete:
                return None  # the answer to a fault of ours was sent, and the fault was logged with it
            if not passage.status:
                raise
            self.note_abort(passage, error)
            raise AnswerAbortedError from error
        finally:
            self.leave(passage, _route(scope), scope["method"], scope["path"])

    def enter(self, headers: Mapping[bytes, bytes]) -> Passage:
        """Begin a request; `headers` have lower-case names. Whoever enters leaves."""
        given = headers.get(b"x-request-id")
        request_id = given.decode() if given and _GIVEN_ID.fullmatch(given) else next(self._ids)
        extra: Headers = [(b"x-request-id", request_id.encode())]
        if self._origins:
            extra += self._cors(headers.get(b"origin"))
        self._metrics.entered()
        return Passage(request_id, extra)

    def refusal(
        self, passage: Passage, method: str, path: str, headers: Mapping[bytes, bytes]
    ) -> Reply | None:
        """Answer what is answered here: hosts that are not ours, preflights, bodies that are too large."""
        if not self._hosts.allow(headers.get(b"host", b"")) and path not in _OPEN_TO_ANY_HOST:
            detail = "Add the host to FRAMEGATE_ALLOWED_HOSTS to serve it."
            return reply_with(HOST_NOT_ALLOWED, detail, passage.request_id)
        if method == "OPTIONS" and b"access-control-request-method" in headers:
            return Reply(204, _PREFLIGHT if self._allows(headers.get(b"origin")) else [])
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > self._max_body_bytes and not is_upload(method, path):
            return reply_with(HTTP_PROBLEMS[413], self._too_large(), passage.request_id)
        return None

    def leave(self, passage: Passage, route: str, method: str, path: str) -> None:
        """End a request: its metrics and its line in the log."""
        seconds = time.perf_counter() - passage.started
        self._metrics.answered(route, method, passage.status, passage.sent_bytes, seconds)
        self._access_log.add(
            passage.request_id,
            method,
            path,
            passage.status,
            passage.sent_bytes,
            seconds,
            aborted=not passage.complete,
        )

    def note_abort(self, passage: Passage, error: Exception) -> None:
        """Say why an answer is cut off."""
        if isinstance(error, StorageError):
            self._metrics.refused(error)
        _log.warning("answer_aborted", request_id=passage.request_id, error=_described(error))

    def _too_large(self) -> str:
        return f"A body has at most {self._max_body_bytes} bytes (FRAMEGATE_MAX_BODY_BYTES)."

    def _cors(self, origin: bytes | None) -> Headers:
        vary = (b"vary", b"Origin")
        if origin is None or not self._allows(origin):
            return [vary]
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", _EXPOSED),
            vary,
        ]

    def _allows(self, origin: bytes | None) -> bool:
        return origin is not None and (origin in self._origins or b"*" in self._origins)


def _ids() -> Iterator[str]:
    """Give ids that no other process gives, without asking for randomness each time."""
    prefix = secrets.token_hex(4)
    return (f"{prefix}-{count:x}" for count in itertools.count(1))


def _counted(passage: Passage, send: Send) -> Send:
    """Give the way out of one answer: it adds headers to its head, and counts what passes."""

    async def counted(message: Message) -> None:
        if message["type"] == "http.response.start":
            passage.status = message["status"]
            message["headers"] = [*message["headers"], *passage.extra]
        elif message["type"] == "http.response.body":
            passage.sent_bytes += len(message.get("body", b""))
            passage.complete = not message.get("more_body", False)
        await send(message)

    return counted


class _Hosts:
    """The host names that may be asked for: absolute links are made from them."""

    def __init__(self, settings: Settings) -> None:
        names = [name.lower() for name in settings.allowed_hosts]
        if settings.public_url:
            names.append(_host_of_url(settings.public_url))
        self._any = "*" in names
        self._exact = frozenset(name.encode() for name in names)
        self._suffixes = tuple(name[1:].encode() for name in names if name.startswith("*."))
        self._known: set[bytes] = set()

    def allow(self, host: bytes) -> bool:
        """Tell whether a Host header names one of ours; its port does not matter."""
        if self._any or host in self._known:
            return True
        name = re.sub(rb":[0-9]{1,5}\Z", b"", host.lower())
        allowed = name in self._exact or bool(self._suffixes and name.endswith(self._suffixes))
        if allowed and len(self._known) < _MOST_KNOWN_HOSTS:
            self._known.add(host)
        return allowed


def _host_of_url(url: str) -> str:
    return re.sub(r":[0-9]+\Z", "", url.split("://", 1)[1].split("/", 1)[0]).lower()


def _route(scope: Scope) -> str:
    route = scope.get("route")
    return str(getattr(route, "name", None) or "unmatched")


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if isinstance(error, FramegateError) else type(error).__name__
