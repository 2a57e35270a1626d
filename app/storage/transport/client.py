"""The front of the data plane: a signed request in, an answer out."""

import asyncio
import ssl

from app.errors import UpstreamError
from app.storage.base import Answer, Origin, SignedRequest
from app.storage.guard import Guard
from app.storage.transport import faults
from app.storage.transport.connection import Connection
from app.storage.transport.head import request_bytes
from app.storage.transport.pool import Pool
from app.storage.transport.slabs import Slabs

_SCRATCH_BYTES = 262_144
_LONGEST_SWEEP_S = 0.25


class Transport:
    """An HTTP/1.1 client for GET and HEAD over pooled keep-alive connections to guarded addresses.

    Make it inside the running loop; `aclose` it when no answer is in use any more. Time-outs are seconds
    and come up to a quarter of a second late: one sweep over all connections looks after them.
    It never decompresses, follows no redirect, and never repeats a request but one that a dead pooled
    connection swallowed.
    """

    def __init__(
        self,
        guard: Guard,
        tls: ssl.SSLContext,
        *,
        first_byte_timeout_s: float = 20.0,
        idle_timeout_s: float = 30.0,
        keep_alive_s: float = 60.0,
        max_connections_per_origin: int = 256,
    ) -> None:
        self._guard = guard
        self._tls = tls
        self._first_byte_s = first_byte_timeout_s
        self._idle_s = idle_timeout_s
        self._keep_alive_s = keep_alive_s
        self._limit = max_connections_per_origin
        self._loop = asyncio.get_running_loop()
        self._pools: dict[Origin, Pool] = {}
        self._scratch = bytearray(_SCRATCH_BYTES)
        self._slabs = Slabs()
        self._sweep_s = min(_LONGEST_SWEEP_S, first_byte_timeout_s / 4, idle_timeout_s / 4, keep_alive_s / 4)
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    async def send(self, request: SignedRequest, *, whole_up_to: int = 262_144) -> Answer:
        """Send one read and give its answer before the first byte of a long body is taken.

        A body of known length up to `whole_up_to` bytes is read whole (`bytes`) and its connection is free
        again; any other is a `ByteStream`, which the caller closes. An answer to HEAD, a 204 and a 304
        have no body, whatever length they tell. Raises `UnreachableError`, `AddressRefusedError`,
        `StorageTimeoutError`, `ThrottledError`, `UpstreamError`. Cancelled it leaves nothing open.
        """
        data, is_head = request_bytes(request), request.method == "HEAD"
        pool = self._pool(request.origin)
        connection = pool.take() or await pool.acquire()
        try:
            return await connection.exchange(data, is_head=is_head, whole_up_to=whole_up_to)
        except faults.StaleConnectionError:
            # The server closed a kept connection while our request was on its way (RFC 9112 section 9.3.1).
            connection = await self._pool(request.origin).acquire(fresh=True)
        try:
            return await connection.exchange(data, is_head=is_head, whole_up_to=whole_up_to)
        except faults.StaleConnectionError:
            raise faults.unanswered() from None

    async def connect_check(self, origin: Origin) -> None:
        """Resolve, connect and shake hands anew; raises what `send` raises before a request is out."""
        pool = self._pool(origin)
        connection = await pool.acquire(fresh=True)
        if not connection.closed:
            pool.released(connection)

    async def aclose(self) -> None:
        """Close every connection; unfinished bodies break. Closing twice does nothing."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for pool in tuple(self._pools.values()):
            pool.close(UpstreamError("Framegate is stopping."))
        self._pools.clear()
        await asyncio.sleep(0)  # the loop closes the sockets in its next step

    def connection_counts(self) -> dict[Origin, tuple[int, int]]:
        """Give, for each origin, how many connections are open and how many of them wait for work."""
        return {origin: (len(pool.connections), pool.idle_count) for origin, pool in self._pools.items()}

    def _pool(self, origin: Origin) -> Pool:
        pool = self._pools.get(origin)
        if pool is None:
            if self._closed:
                raise UpstreamError("Framegate is stopping.")
            pool = self._pools[origin] = self._new_pool(origin)
        if self._timer is None:
            self._timer = self._loop.call_later(self._sweep_s, self._sweep)
        return pool

    def _new_pool(self, origin: Origin) -> Pool:
        tls = self._tls if origin.scheme == "https" else None

        async def connect(pool: Pool) -> Connection:
            _, connection = await self._guard.open(
                lambda: self._connection(pool), origin.host, origin.port, tls=tls
            )
            return connection

        return Pool(connect, limit=self._limit, wait_s=self._first_byte_s, keep_alive_s=self._keep_alive_s)

    def _connection(self, pool: Pool) -> Connection:
        return Connection(
            pool,
            self._buffer(),
            self._slabs,
            first_byte_timeout_s=self._first_byte_s,
            idle_timeout_s=self._idle_s,
        )

    def _buffer(self) -> bytearray:
        """One buffer for all, except on Windows' loop, which fills buffers of many connections at a time."""
        proactor = getattr(asyncio, "ProactorEventLoop", None)
        if proactor is not None and isinstance(self._loop, proactor):
            return bytearray(_SCRATCH_BYTES)
        return self._scratch

    def _sweep(self) -> None:
        """Act on every deadline that is over, and forget origins that nothing is open to."""
        self._timer = None
        now = self._loop.time()
        for origin, pool in tuple(self._pools.items()):
            for connection in tuple(pool.connections):
                if connection.deadline <= now:
                    connection.expire()
            if pool.unused:
                del self._pools[origin]
        if self._pools:
            self._timer = self._loop.call_later(self._sweep_s, self._sweep)
