"""The connections to one origin: kept, shared, bounded, in the order of asking."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from app.errors import StorageError, ThrottledError
from app.storage.transport.connection import Connection

Connect = Callable[["Pool"], Awaitable[Connection]]


class Pool:
    """At most `limit` connections; who finds none free waits his turn, up to `wait_s` seconds.

    A connection that comes free goes to whoever has waited longest, so does the place of a closed one.
    """

    def __init__(self, connect: Connect, *, limit: int, wait_s: float, keep_alive_s: float) -> None:
        self._connect = connect
        self._limit = limit
        self._wait_s = wait_s
        self._keep_alive_s = keep_alive_s
        self._loop = asyncio.get_running_loop()
        self.connections: set[Connection] = set()
        self._opening = 0
        self._closed: StorageError | None = None
        self._idle: list[Connection] = []
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()

    @property
    def unused(self) -> bool:
        """True: nothing is open and nobody waits."""
        return not (self.connections or self._opening or self._waiters)

    @property
    def idle_count(self) -> int:
        """How many connections wait for a request."""
        return len(self._idle)

    def take(self) -> Connection | None:
        """Give the connection used last, if one is free."""
        return self._idle.pop() if self._idle else None

    async def acquire(self, *, fresh: bool = False) -> Connection:
        """Give a free connection or open one; `fresh` prefers a new one.

        Raises what `Guard.open` raises, and `ThrottledError` when none came free in time. The caller has
        an exchange on it at once.
        """
        connection = None if fresh else self.take()
        if connection is not None:
            return connection
        if fresh and self._idle and self._full:
            self._idle[0].close()
        if self._full:
            connection = await self._turn()
        else:
            self._opening += 1
        return connection or await self._open()

    def released(self, connection: Connection) -> None:
        """Hand a free connection on, or keep it."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(connection)
                return
        connection.deadline = self._loop.time() + self._keep_alive_s
        self._idle.append(connection)

    def lost(self, connection: Connection) -> None:
        """Forget a closed connection and give its place away."""
        if connection in self.connections:
            self.connections.remove(connection)
            if connection in self._idle:
                self._idle.remove(connection)
            self._pass_place()

    def close(self, error: StorageError) -> None:
        """Close every connection, those being opened too, and send everybody away."""
        self._closed = error
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(error)
        self._waiters.clear()
        for connection in tuple(self.connections):
            connection.close(error)

    @property
    def _full(self) -> bool:
        return len(self.connections) + self._opening >= self._limit

    async def _open(self) -> Connection:
        """Open a connection at the place that `_opening` counts already."""
        try:
            connection = await self._connect(self)
        except BaseException:
            self._opening -= 1
            self._pass_place()
            raise
        self._opening -= 1
        if self._closed is not None:
            connection.close(self._closed)
            raise self._closed
        if connection.closed:  # the server hung up at once: the exchange will tell
            self._pass_place()
        else:
            self.connections.add(connection)
        return connection

    async def _turn(self) -> Connection | None:
        """Wait for a connection, or None: the place of one, counted in `_opening`."""
        waiter: asyncio.Future[Connection | None] = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(self._wait_s):
                return await waiter
        except TimeoutError:
            self._leave(waiter)
            raise ThrottledError("Every connection to the bucket's server is in use.") from None
        except asyncio.CancelledError:
            self._leave(waiter)
            raise

    def _leave(self, waiter: "asyncio.Future[Connection | None]") -> None:
        if waiter.cancelled():
            if waiter in self._waiters:
                self._waiters.remove(waiter)
        elif waiter.exception() is None:  # it got something in the last moment
            connection = waiter.result()
            if connection is None:
                self._opening -= 1
                self._pass_place()
            elif not connection.closed:
                self.released(connection)

    def _pass_place(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._opening += 1
                waiter.set_result(None)
                return
