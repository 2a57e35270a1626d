"""Brings a database to the newest schema, and tells whether it is there."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.db.session import CONNECT_TIMEOUT_S, Database, engine_url, translating_errors
from app.errors import SchemaError

_SCRIPTS = Path(__file__).resolve().parents[2] / "migrations"
Runner = Callable[[Connection], None]

_LOCK_ID = 0x6672616D65  # "frame": any number that nothing else in this database locks


def alembic_config(connection: Connection | None = None) -> Config:
    """Give Alembic's configuration, bound to an open connection where there is one."""
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    config.attributes["connection"] = connection
    return config


async def upgrade(url: str, revision: str = "head") -> None:
    """Bring the database at `url` to `revision`; processes that ask at once take turns (advisory lock).

    Raises `DatabaseUnavailableError`, and `SchemaError` for a schema newer than this program.
    """

    def run(connection: Connection) -> None:
        connection.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _LOCK_ID})
        _refuse_newer(_current(connection))
        command.upgrade(alembic_config(connection), revision)

    await _with_connection(url, run)


async def require_current(url: str) -> None:
    """Raise `SchemaError` unless the schema is exactly this program's newest; says what to do."""
    await _with_connection(url, _require_current)


async def require_schema(database: Database) -> None:
    """Raise `SchemaError` unless the schema is this program's newest, by one query on an open pool."""
    async with database.session() as session:
        connection = await session.connection()
        await connection.run_sync(_require_current)


def _require_current(connection: Connection) -> None:
    current = _current(connection)
    _refuse_newer(current)
    if current != _revisions()[0]:
        raise SchemaError("The database's schema is not up to date. Run: framegate migrate")


async def _with_connection(url: str, run: Runner) -> None:
    engine = create_async_engine(
        engine_url(url), poolclass=NullPool, connect_args={"timeout": CONNECT_TIMEOUT_S}
    )
    try:
        async with translating_errors(), engine.begin() as connection:
            await connection.run_sync(run)
    finally:
        await engine.dispose()


@cache
def _revisions() -> Sequence[str]:
    """Give the revisions that this program knows, the newest first."""
    return tuple(script.revision for script in ScriptDirectory(str(_SCRIPTS)).walk_revisions())


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _refuse_newer(current: str | None) -> None:
    if current is not None and current not in _revisions():
        raise SchemaError(
            f"The database's schema ({current}) is newer than this program. Use the version that wrote it."
        )
