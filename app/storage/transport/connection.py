"""One connection to a bucket: a request goes out, an answer comes back, and it is free again."""

import asyncio
import math
from typing import Protocol, cast

from app.errors import StorageError, UpstreamError
from app.storage.base import Answer, Piece
from app.storage.transport import faults
from app.storage.transport.body import BodyStream, WholeBody
from app.storage.transport.framing import Framing, framing_of
from app.storage.transport.head import MAX_HEAD_BYTES, Head, MalformedError, parse_head
from app.storage.transport.slabs import Filling, Slabs

NEVER = math.inf
"""A deadline that does not come."""
DRAIN_BYTES = 65_536
"""An abandoned body with at most this much left is received and dropped, so that its connection lives on."""
DRAIN_S = 2.0


class Owner(Protocol):
    """Who gets the connection back."""

    def released(self, connection: "Connection") -> None:
        """Take a connection that is ready for another request."""
        ...

    def lost(self, connection: "Connection") -> None:
        """Forget a connection that is closed."""
        ...


class Connection(asyncio.BufferedProtocol):
    """Carries one exchange at a time; every failure closes it.

    Time-outs are no timers: `deadline` is looked at by the transport's sweep, which calls `expire`.
    `scratch` receives heads, small and chunked bodies; connections of one loop share it, as a loop fills it
    and reports that in one step. A long body of known length is received into `slabs`.
    """

    __slots__ = (
        "_answer", "_filling", "_first_byte_s", "_framing", "_head", "_heard", "_idle_s", "_interim",
        "_is_head", "_keep", "_loop", "_owner", "_scratch", "_slabs", "_stream", "_transport", "_used",
        "_view", "_whole", "_whole_up_to",
        "closed", "deadline",
    )  # fmt: skip

    def __init__(
        self,
        owner: Owner,
        scratch: bytearray,
        slabs: Slabs,
        *,
        first_byte_timeout_s: float,
        idle_timeout_s: float,
    ) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._scratch = scratch
        self._view = memoryview(scratch)
        self._slabs = slabs
        self._filling: Filling | None = None
        self._first_byte_s = first_byte_timeout_s
        self._idle_s = idle_timeout_s
        self._transport: asyncio.Transport | None = None
        self.closed = False
        self.deadline = NEVER
        self._used = False
        self._keep = False
        self._is_head = False
        self._heard = False
        self._interim = 0
        self._whole_up_to = 0
        self._head = bytearray()
        self._answer: asyncio.Future[Answer | WholeBody] | None = None
        self._whole: WholeBody | None = None
        self._framing: Framing | None = None
        self._stream: BodyStream | None = None

    # --- for whoever wants an answer ------------------------------------------------------------

    async def exchange(self, request: bytes, *, is_head: bool, whole_up_to: int) -> Answer:
        """Send one request, as it stands on the wire, and give its answer.

        Raises `StaleConnectionError`, `UpstreamError`, `StorageTimeoutError`. Cancelled, or failed, it
        leaves the connection free or closed.
        """
        if self.closed or self._transport is None:
            raise faults.StaleConnectionError
        self._transport.write(request)
        answer = self._expect_answer(is_head, whole_up_to)
        try:
            got = await answer
        except asyncio.CancelledError:
            self._give_up(answer)
            raise
        return got if isinstance(got, Answer) else got.answer()

    def close(self, error: StorageError | None = None) -> None:
        """Close at once; whoever waits gets `error`."""
        self._lost(error or faults.cut_off())

    def expire(self) -> None:
        """Act on a deadline that is over."""
        if self._whole is not None:
            self._lost(faults.stalled(self._idle_s))
        elif self._answer is not None:
            self._lost(faults.silent(self._first_byte_s))
        else:
            self._lost(faults.stalled(self._idle_s), f"stopped coming for {self._idle_s:g} seconds")

    # --- for the body's reader --------------------------------------------------------------------

    def pause(self) -> None:
        """Receive no more for now."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Receive again."""
        if self._transport is not None:
            self._transport.resume_reading()

    def expect(self, waiting: bool) -> None:
        """Run the idle time-out while a reader waits, and only then."""
        self.deadline = self._loop.time() + self._idle_s if waiting else NEVER

    def abandon(self) -> None:
        """Drop the rest of the body if it is short, else the connection."""
        self._stream = None
        left = self._framing.left_bytes() if self._framing is not None else None
        if self.closed or not self._keep or left is None or left > DRAIN_BYTES:
            self.close()
            return
        self.deadline = self._loop.time() + min(DRAIN_S, self._idle_s)
        self.resume()

    # --- for the event loop -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by behaviour only

    def get_buffer(self, sizehint: int) -> memoryview:
        """Say where the next bytes go."""
        if self._filling is not None:
            return self._filling.room()
        return self._view if self._whole is None else self._whole.room()

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was received."""
        if self._whole is not None:
            self._receive_whole(self._whole, nbytes)
        elif self._filling is not None and self._framing is not None:
            self._receive_body(self._framing, self._filling.received(nbytes))
        elif self._framing is not None:
            self._receive_body(self._framing, bytes(self._view[:nbytes]))
        elif self._answer is not None:
            self._heard = True
            self._receive_head(nbytes)
        else:  # nobody asked: a surplus of the last answer, or the server's farewell
            self.close()

    def eof_received(self) -> None:
        """Take the server's end of sending as the end of the connection."""
        self._ended()

    def connection_lost(self, error: Exception | None) -> None:
        """Take the connection's end."""
        self._ended(error)

    # --- the request ----------------------------------------------------------------------------------

    def _expect_answer(self, is_head: bool, whole_up_to: int) -> "asyncio.Future[Answer | WholeBody]":
        self._is_head = is_head
        self._whole_up_to = whole_up_to
        self._heard = False
        self._interim = 0
        self.deadline = self._loop.time() + self._first_byte_s
        self._answer = answer = self._loop.create_future()
        return answer

    def _give_up(self, answer: "asyncio.Future[Answer | WholeBody]") -> None:
        if answer.cancelled() or not answer.done():
            self.close()
        elif answer.exception() is None:
            got = answer.result()
            if isinstance(got, Answer) and isinstance(got.body, BodyStream):
                got.body.discard()

    # --- the answer -----------------------------------------------------------------------------------

    def _receive_head(self, nbytes: int) -> None:
        """Find the answer's head, reading over 1xx answers (RFC 9110 section 15.2) before it."""
        source, searched, start = self._scratch, 0, 0
        if self._head:  # a head in pieces
            source, searched = self._head, max(0, len(self._head) - 3)
            source += self._view[:nbytes]
            nbytes = len(source)
        while (end := source.find(b"\r\n\r\n", searched, nbytes) + 4) >= 4:
            self._interim += end - start
            head = self._parsed(bytes(source[start:end]))
            if head is None:
                return
            if head.status >= 200:
                self._head = bytearray()
                self._begin_body(head, memoryview(source)[end:nbytes])
                return
            start = searched = end
        self._head = source[start:nbytes]
        if self._interim + len(self._head) > MAX_HEAD_BYTES:
            self._lost(faults.malformed())

    def _parsed(self, data: bytes) -> Head | None:
        try:
            if self._interim <= MAX_HEAD_BYTES:
                return parse_head(data)
        except MalformedError:
            pass
        self._lost(faults.malformed())
        return None

    def _begin_body(self, head: Head, rest: memoryview) -> None:
        self._keep = head.keep_alive
        if self._is_head or head.status in (204, 304):
            self._finish_at_once(head, b"", surplus=len(rest) > 0)
            return
        length = head.length_bytes
        if length is None or length > self._whole_up_to:
            self._begin_stream(head, rest)
        elif len(rest) >= length:
            self._finish_at_once(head, bytes(rest[:length]), surplus=len(rest) > length)
        else:
            self._whole = WholeBody(head.status, head.headers, length, rest)
            self.deadline = self._loop.time() + self._idle_s

    def _finish_at_once(self, head: Head, body: bytes, *, surplus: bool) -> None:
        self._resolve(Answer(head.status, head.headers, body, head.length_bytes))
        self._finish(surplus=surplus)

    def _receive_whole(self, whole: WholeBody, nbytes: int) -> None:
        missing = whole.filled(nbytes)
        if missing > 0:
            self.deadline = self._loop.time() + self._idle_s
            return
        self._whole = None
        self._resolve(whole)
        self._finish(surplus=missing < 0)

    def _begin_stream(self, head: Head, rest: memoryview) -> None:
        self.deadline = NEVER
        framing = self._framing = framing_of(head)
        self._stream = BodyStream(self)
        self._resolve(Answer(head.status, head.headers, self._stream, head.length_bytes))
        if len(rest) and not self.closed:
            self._receive_body(framing, bytes(rest))
        if head.length_bytes is not None and not (framing.done or self.closed):
            self._filling = Filling(self._slabs)

    def _receive_body(self, framing: Framing, data: Piece) -> None:
        try:
            piece = framing.feed(data)
        except MalformedError:
            self._lost(faults.malformed(), "is no valid HTTP/1.1")
            return
        stream = self._stream
        if stream is not None:
            stream.push(piece, last=framing.done)
        if framing.done:
            self._framing = self._stream = self._filling = None
            self._finish(surplus=framing.surplus)

    # --- the end ----------------------------------------------------------------------------------------

    def _resolve(self, got: Answer | WholeBody) -> None:
        answer, self._answer = self._answer, None
        if answer is None or answer.done():  # cancelled; its task closes the connection, but has not run yet
            self.close()
        else:
            answer.set_result(got)

    def _finish(self, *, surplus: bool) -> None:
        self.deadline = NEVER
        if surplus or not self._keep:
            self.close()
        elif not self.closed:
            self._used = True
            self._owner.released(self)

    def _ended(self, error: Exception | None = None) -> None:
        framing, stream = self._framing, self._stream
        if error is None and framing is not None and framing.ends_with_connection and not self.closed:
            self._framing = self._stream = self._filling = None
            if stream is not None:
                stream.end()
        fault = faults.cut_off() if self._heard else faults.unanswered()
        self._lost(fault)

    def _lost(self, fault: StorageError, reason: str = "broke off before its end") -> None:
        """Close, and tell whoever waits: `fault` before an answer was handed on, BrokenStream after."""
        if self.closed:
            return
        self.closed = True
        self.deadline = NEVER
        answer, stream = self._answer, self._stream
        self._answer = self._whole = self._framing = self._stream = self._filling = None
        if self._transport is not None:
            self._transport.abort()
        self._owner.lost(self)
        if stream is not None:
            stream.end(faults.broken(reason))
        elif answer is not None and not answer.done():
            stale = self._used and not self._heard and isinstance(fault, UpstreamError)
            answer.set_exception(faults.StaleConnectionError() if stale else fault)
