"""Structured logs: one line for each event, in JSON or for a console; access lines are written in batches."""

import asyncio
import logging
import re
import sys
import time
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, TextIO

import orjson
import structlog

from app.errors import AnswerAbortedError

FLUSH_EVERY_S = 0.1
_HIDDEN = re.compile(
    r"(?i)((?:sig|signature|x-amz-signature|x-amz-security-token|x-amz-credential|accountkey)=)[^&;\s\"']+"
)
_TOKEN = re.compile(r"fg_[A-Za-z0-9_-]{20,37}")


def configure(level: str, form: Literal["console", "json"]) -> None:
    """Send every logger's lines, our own and the libraries', to stderr in one form."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _renderer(form)],
        )
    )
    logging.root.handlers = [handler]
    logging.root.setLevel(level.upper())
    _quiet_libraries()


def _renderer(form: str) -> structlog.types.Processor:
    if form == "json":
        return structlog.processors.JSONRenderer(
            serializer=lambda value, **_: orjson.dumps(value, default=str).decode()
        )
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())


def _quiet_libraries() -> None:
    # These print URLs with signatures in them at their lower levels.
    for name in (
        "azure",
        "botocore",
        "aiobotocore",
        "aiohttp",
        "urllib3",
        "asyncio",
        "PIL",
        "alembic",
        "httpx",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)
    # uvicorn's own access log prints query strings; ours does not.
    logging.getLogger("uvicorn.access").disabled = True
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True
    logging.getLogger("uvicorn.error").addFilter(_not_aborted)


def _not_aborted(record: logging.LogRecord) -> bool:
    """Drop the server's traceback of an answer that ended on purpose.

    One that we aborted: we logged why already. One that outlived the grace time: the server says that, too.
    """
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, AnswerAbortedError | asyncio.CancelledError)


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Take signatures and tokens out of every text of an event: a last net, below the design that keeps them out."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = hide(value)
    return event


def hide(text: str) -> str:
    """Give a text without signatures and tokens."""
    return _TOKEN.sub("fg_***", _HIDDEN.sub(r"\1***", text))


class _Finished(NamedTuple):
    """One answered request; `at` is the Unix time of its end."""

    at: float
    request_id: str
    method: str
    path: str
    status: int
    sent_bytes: int
    seconds: float
    aborted: bool


class AccessLog:
    """One line for each request, written in batches: a handler called for each doubles a request's cost."""

    def __init__(self, level: str, form: Literal["console", "json"], stream: TextIO | None = None) -> None:
        self._on = level in {"debug", "info"}
        self._written = _json_line if form == "json" else _console_line
        self._stream = stream or sys.stderr
        self._lines: list[_Finished] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(
        self,
        request_id: str,
        method: str,
        path: str,
        status: int,
        sent_bytes: int,
        seconds: float,
        *,
        aborted: bool,
    ) -> None:
        """Note a finished request; written within `FLUSH_EVERY_S`, or not at all above the level info."""
        if not self._on:
            return
        self._lines.append(
            _Finished(time.time(), request_id, method, path, status, sent_bytes, seconds, aborted)
        )
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_EVERY_S, self.flush)

    def flush(self) -> None:
        """Write what is waiting."""
        self._timer = None
        lines, self._lines = self._lines, []
        if lines:
            self._stream.write("".join([self._written(line) for line in lines]))
            self._stream.flush()


def _json_line(done: _Finished) -> str:
    line = {
        "event": "request",
        "level": "info",
        "timestamp": datetime.fromtimestamp(done.at, UTC),
        "request_id": done.request_id,
        "method": done.method,
        "path": done.path,
        "status": done.status,
        "bytes": done.sent_bytes,
        "ms": round(done.seconds * 1000, 2),
    }
    if done.aborted:
        line["aborted"] = True
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z).decode()


def _console_line(done: _Finished) -> str:
    shown = done.path if done.path.isprintable() else ascii(done.path)
    end = " aborted" if done.aborted else ""
    ms = done.seconds * 1000
    return f"{done.request_id} {done.method} {shown} {done.status} {done.sent_bytes} B {ms:.1f} ms{end}\n"
