"""uvicorn's HTTP/1.1 protocol with a lane, and with bounds that uvicorn does not set.

Byte requests are answered without ASGI's messages and scopes; where the lane takes a request is a matter of
speed alone (ADR 16). The parser, pipelining and shutdown stay uvicorn's: what it asks of a running request,
`Carriage` gives as well. A request's head is bounded in size and time, and its body may not stand still.
"""

import asyncio
import math
from collections.abc import Mapping
from typing import cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from app.api.lane import Errand, Lane
from app.api.replies import Reply, Stream
from app.errors import BrokenStreamError
from app.storage.base import Method

MAX_HEAD_BYTES = 65_536
"""Request line and headers together, about."""

_METHODS: Mapping[bytes, Method] = {b"GET": "GET", b"HEAD": "HEAD"}
_WITHOUT_BODY = frozenset({204, 304})


class LaneProtocol(HttpToolsProtocol):
    """One client's connection; the lane is found in the lifespan's state, and without one all is uvicorn's.

    uvicorn arms and cancels a timer for each request on a kept connection. Here one timer looks now and then
    how long nothing was asked or finished.
    """

    carriage: "Carriage | None" = None
    """The lane's request that is being answered now; uvicorn's `cycle` may be a pipelined one behind it."""
    _since = math.inf
    """When the connection began to wait for a request, or a request's head to come in; infinite while one runs."""
    _head_bytes = 0
    _heard = 0.0
    """When the last byte came."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request."""
        super().connection_made(cast("asyncio.Transport", transport))  # uvloop's is one by behaviour only
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop what is being answered: nobody is there any more."""
        super().connection_lost(exc)
        super()._unset_keepalive_if_required()
        if self.carriage is not None:
            self.carriage.disconnect()

    def data_received(self, data: bytes) -> None:
        """Take bytes of requests; a head that does not end is refused."""
        self._head_bytes += len(data)
        self._heard = self.loop.time()
        super().data_received(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("Request head too large.")

    def on_message_begin(self) -> None:
        """Begin a request: from its first byte on its head has as long as an idle connection has."""
        self.url = b""
        self.headers = []
        if self._since != math.inf:
            self._since = self.loop.time()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        """Take bytes of a request's body."""
        self._head_bytes = 0
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """Begin to answer: by the lane if the request is the lane's, else as uvicorn does."""
        self._head_bytes = 0
        errand = self._errand()
        self._since = math.inf
        if errand is None:
            self._go_the_long_way()
            return
        lane = cast("Lane", self.app_state["lane"])
        self.carriage = carriage = Carriage(self, lane, errand, self.parser.should_keep_alive())
        self.cycle = cast("RequestResponseCycle", carriage)
        carriage.start()

    def _go_the_long_way(self) -> None:
        """Let uvicorn begin a request, whose scope and expectation are made only now."""
        url, headers = self.url, self.headers
        super().on_message_begin()
        for name, value in headers:
            super().on_header(name, value)
        self.url = url
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Go on with a pipelined request, else wait for the next."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        else:
            self._wait()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that waited too long, but not while its client still takes an answer."""
        self.timeout_keep_alive_task = None
        since = self._heard if self._lacks_body() else self._since
        left_s = since + self.timeout_keep_alive - self.loop.time()
        if left_s > 0 or self.transport.get_write_buffer_size():
            self._look_again(min(max(left_s, 1.0), self.timeout_keep_alive))
        elif not self.transport.is_closing():
            self.transport.close()

    def _lacks_body(self) -> bool:
        """Whether a request runs whose body is still to come, and it is not we who hold it up."""
        running = cast("RequestResponseCycle | None", self.cycle)
        return (
            running is not None
            and running.more_body
            and not running.response_complete
            and not self.flow.read_paused
        )

    def _wait(self) -> None:
        self._since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_again(self.timeout_keep_alive)

    def _look_again(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _unset_keepalive_if_required(self) -> None:
        """Leave the timer alone: uvicorn would cancel it with every piece of a request."""

    def _errand(self) -> Errand | None:
        lane = self.app_state.get("lane")
        method = _METHODS.get(self.parser.get_method())
        running = cast("RequestResponseCycle | None", self.cycle)
        free = running is None or running.response_complete
        if lane is None or method is None or not free or self.root_path:
            return None
        if self.parser.get_http_version() != "1.1" or self.parser.should_upgrade():
            return None
        return cast("Lane", lane).take(method, self.url, self.headers)


class Carriage:
    """Carries one answer of the lane to its client, with backpressure; what `RequestResponseCycle` is to ASGI."""

    __slots__ = (
        "_began", "_errand", "_lane", "_protocol", "_task", "body", "disconnected", "keep_alive", "more_body",
        "response_complete",
    )  # fmt: skip

    def __init__(self, protocol: LaneProtocol, lane: Lane, errand: Errand, keep_alive: bool) -> None:
        self._protocol = protocol
        self._lane = lane
        self._errand = errand
        self._task: asyncio.Task[None] | None = None
        self._began = False
        self.keep_alive = keep_alive
        self.response_complete = False
        self.disconnected = False
        self.body = b""
        self.more_body = False

    @property
    def message_event(self) -> "Carriage":
        """What uvicorn sets when the request is complete or the client gone; both are seen otherwise here."""
        return self

    def set(self) -> None:
        """Do nothing."""

    def start(self) -> None:
        """Begin to answer."""
        protocol = self._protocol
        if not protocol.flow.write_paused:
            reply = self._lane.at_hand(self._errand)
            if reply is not None and isinstance(reply.body, bytes):
                self._answer_at_once(reply, reply.body)
                return
        self._task = task = protocol.loop.create_task(self._run())
        protocol.tasks.add(task)
        task.add_done_callback(self._ended)

    def disconnect(self) -> None:
        """Give up: the client is gone."""
        self.disconnected = True
        if self._task is not None:
            self._task.cancel()

    def _answer_at_once(self, reply: Reply, body: bytes) -> None:
        passage = self._errand.passage
        passage.status = reply.status
        try:
            self._write(self._head(reply), b"" if self._is_silent(reply.status) else body)
            passage.complete = self.response_complete = True
        except ValueError as error:
            self._lane.abort(self._errand, error)
            self._protocol.transport.close()
        self._lane.leave(self._errand)
        self._end()

    async def _run(self) -> None:
        self._began = True
        try:
            await self._answer(await self._lane.reply(self._errand))
        except Exception as error:
            self._lane.abort(self._errand, error)
            self._protocol.transport.close()
        except asyncio.CancelledError:
            self._protocol.transport.abort()  # the client is gone, or the time of grace is over
            raise
        finally:
            self._lane.leave(self._errand)
            self._end()

    async def _answer(self, reply: Reply) -> None:
        body = reply.body
        passage = self._errand.passage
        try:
            if self._protocol.flow.write_paused:
                await self._protocol.flow.drain()
            passage.status = reply.status
            if isinstance(body, bytes):
                self._write(self._head(reply), b"" if self._is_silent(reply.status) else body)
            elif self._is_silent(reply.status):
                self._write(self._head(reply), b"")
            else:
                await self._relay(self._head(reply), body, _promised(reply))
        finally:
            if not isinstance(body, bytes):
                await body.aclose()
        passage.complete = True
        self.response_complete = True

    def _is_silent(self, status: int) -> bool:
        """Whether an answer has no body, whatever its headers say of one."""
        return self._errand.request.method == "HEAD" or status in _WITHOUT_BODY

    def _write(self, head: bytes, body: bytes) -> None:
        self._protocol.transport.writelines((head, body) if body else (head,))
        self._errand.passage.sent_bytes = len(body)

    async def _relay(self, head: bytes, stream: Stream, promised: int) -> None:
        transport, flow, passage = self._protocol.transport, self._protocol.flow, self._errand.passage
        transport.write(head)
        async for chunk in stream:
            transport.write(chunk)
            passage.sent_bytes += len(chunk)
            if flow.write_paused:
                await flow.drain()
        if passage.sent_bytes != promised:
            raise BrokenStreamError("The body's length is not the promised one.")

    def _head(self, reply: Reply) -> bytes:
        """Write status line and headers down; raises ValueError where one would smuggle a line in."""
        lines = [STATUS_LINE[reply.status]]
        headers = (*self._protocol.server_state.default_headers, *reply.headers, *self._errand.passage.extra)
        lines += [b"%b: %b\r\n" % header for header in headers]
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        head = b"".join(lines)
        if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines):
            raise ValueError("a header of the answer holds a line break")
        return head

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._protocol.tasks.discard(task)
        if not self._began:  # the client was gone before the task's first step, and so is its `finally`
            self._lane.leave(self._errand)

    def _end(self) -> None:
        protocol = self._protocol
        protocol.carriage = None
        if not self.response_complete or protocol.transport.is_closing():
            return
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()


def _promised(reply: Reply) -> int:
    return next(int(value) for name, value in reply.headers if name == b"content-length")
