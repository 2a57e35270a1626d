"""Keeps what a process remembers of the database true: LISTEN on one channel, and caches that obey it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Hashable
from contextlib import suppress
from typing import Generic, TypeVar, cast

import asyncpg
import structlog
from sqlalchemy import text

from app.db.session import Database
from app.errors import DatabaseUnavailableError

CHANNEL = "framegate"
_OBJECTS = "objects"
"""No table: what was written through us to a bucket."""
TRUST_S = 15.0
"""How long what is remembered may still be served after the channel was lost."""
_PING_EVERY_S = 5.0
_RETRY_EVERY_S = 1.0

_LOST = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)
"""What a connection of our own says that is dead, or that the server sends away."""

_log = structlog.get_logger(__name__)

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Changes:
    """Listens to the database's own word on changed rows ("<table> <id>", sent by triggers)."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listeners: list[Callable[[str, int], None]] = []
        self._object_listeners: list[Callable[[int, str], None]] = []
        self._resets: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None
        self._trusted_until = 0.0
        self._connected = False

    def subscribe(self, on_change: Callable[[str, int], None], on_reset: Callable[[], None]) -> None:
        """Call `on_change(table, id)` for each change, `on_reset()` when changes may have been missed."""
        self._listeners.append(on_change)
        self._resets.append(on_reset)

    def subscribe_objects(self, on_object: Callable[[int, str], None]) -> None:
        """Call `on_object(storage_id, key)` for each object that any process wrote or deleted."""
        self._object_listeners.append(on_object)

    async def announce_object(self, storage_id: int, key: str) -> None:
        """Tell every process that an object was written or deleted; raises `DatabaseUnavailableError`."""
        async with self._database.session() as session:
            words = {"channel": CHANNEL, "payload": f"{_OBJECTS} {storage_id} {key}"}
            await session.execute(text("SELECT pg_notify(:channel, :payload)"), words)

    async def start(self) -> None:
        """Listen from now on, whatever happens to the connection; raises `DatabaseUnavailableError`."""
        connection = await self._listen()
        self._task = asyncio.create_task(self._keep_listening(connection), name="changes")

    async def aclose(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def require_fresh(self) -> None:
        """Raise `DatabaseUnavailableError` once changes may have been missed for longer than `TRUST_S`."""
        if not self._connected and time.monotonic() > self._trusted_until:
            raise DatabaseUnavailableError("The database does not answer.")

    @property
    def connected(self) -> bool:
        """Whether changes are being heard right now; nothing new may be remembered while they are not."""
        return self._connected

    async def _listen(self) -> asyncpg.Connection:
        connection = await self._database.connect()
        try:
            await connection.add_listener(CHANNEL, self._hear)
        except BaseException:
            connection.terminate()
            raise
        for reset in self._resets:
            reset()
        self._connected = True
        return connection

    def _hear(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        table, _, row_id = str(payload).partition(" ")
        if table == _OBJECTS:
            storage_id, _, key = row_id.partition(" ")
            for on_object in self._object_listeners:
                on_object(int(storage_id), key)
            return
        for listener in self._listeners:
            listener(table, int(row_id))

    async def _keep_listening(self, connection: asyncpg.Connection | None) -> None:
        while True:
            try:
                connection = connection or await self._listen()
                await _ping_until_lost(connection)
                self._note_loss()
            except (DatabaseUnavailableError, *_LOST):
                await asyncio.sleep(_RETRY_EVERY_S)
            finally:
                if connection is not None:
                    connection.terminate()
                connection = None

    def _note_loss(self) -> None:
        self._connected = False
        self._trusted_until = time.monotonic() + TRUST_S
        _log.warning("changes_lost")


async def _ping_until_lost(connection: asyncpg.Connection) -> None:
    """Return when the connection is dead; a silent one (a pulled cable) is found by asking."""
    lost = asyncio.Event()
    connection.add_termination_listener(lambda _: lost.set())
    while not lost.is_set() and not connection.is_closed():
        try:
            await connection.execute("SELECT 1", timeout=_PING_EVERY_S)
        except _LOST:
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(lost.wait(), _PING_EVERY_S)


class Remembered(Generic[K, V]):
    """Rows kept in memory for as long as the database has not said that they changed."""

    def __init__(
        self,
        changes: Changes,
        tables: Collection[str],
        load: Callable[[K], Awaitable[V | None]],
        *,
        clear_all: bool = False,
        most: int = 50_000,
    ) -> None:
        self._changes = changes
        self._tables = frozenset(tables)
        self._load = load
        self._clear_all = clear_all
        self._most = most
        self._rows: dict[K, V] = {}
        self._generation = 0
        changes.subscribe(self._on_change, self.clear)

    def at_hand(self, key: K) -> V | None:
        """Give the row of `key` if it is in memory; raises `DatabaseUnavailableError` if it may be outdated."""
        self._changes.require_fresh()
        return self._rows.get(key)

    async def get(self, key: K) -> V | None:
        """Give the row of `key`, from memory or by one load; None is never remembered."""
        row = self.at_hand(key)
        return row if row is not None else await self._load_and_keep(key)

    def forget(self, key: K) -> None:
        """Drop one row at once: whoever changed it must not read the old one before the database speaks."""
        self._generation += 1
        self._rows.pop(key, None)

    def clear(self) -> None:
        """Drop every row."""
        self._generation += 1
        self._rows.clear()

    async def _load_and_keep(self, key: K) -> V | None:
        generation = self._generation
        row = await self._load(key)
        # A change that was heard during the load may be newer than what the load saw.
        if row is not None and generation == self._generation and self._changes.connected:
            if len(self._rows) >= self._most:  # so seldom that the next ones may all be loaded anew
                self._rows.clear()
            self._rows[key] = row
        return row

    def _on_change(self, table: str, row_id: int) -> None:
        if table not in self._tables:
            return
        self._generation += 1
        if self._clear_all:
            self._rows.clear()
        else:
            self._rows.pop(cast("K", row_id), None)  # such caches are keyed by the row's id
