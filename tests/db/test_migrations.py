"""Migrations: what they make is what the tables say, they go back and forth, and take turns."""

import asyncio

import pytest
from alembic import command
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from app.db.migrate import alembic_config, require_current, upgrade
from app.db.session import Database, engine_url
from app.errors import SchemaError


async def run_on(url: str, act: object) -> None:
    """Run a function on a connection of its own."""
    engine = create_async_engine(engine_url(url))
    async with engine.begin() as connection:
        await connection.run_sync(act)  # type: ignore[arg-type]
    await engine.dispose()


async def test_the_migrated_schema_is_what_the_tables_say(database_url: str) -> None:
    def check(connection: Connection) -> None:
        command.check(alembic_config(connection))

    await run_on(database_url, check)


async def test_migrations_go_up_down_and_up(empty_database_url: str) -> None:
    def down(connection: Connection) -> None:
        command.downgrade(alembic_config(connection), "base")

    await upgrade(empty_database_url)
    await require_current(empty_database_url)
    await run_on(empty_database_url, down)
    with pytest.raises(SchemaError, match="framegate migrate"):
        await require_current(empty_database_url)
    await upgrade(empty_database_url)
    await require_current(empty_database_url)


async def test_processes_that_migrate_at_once_take_turns(empty_database_url: str) -> None:
    await asyncio.gather(*(upgrade(empty_database_url) for _ in range(4)))
    await require_current(empty_database_url)


async def test_a_database_shows_no_password(database_url: str) -> None:
    database = Database(database_url)
    password = database_url.split(":")[2].split("@", maxsplit=1)[0]
    assert password not in repr(database) + repr(database.engine)
    await database.aclose()
