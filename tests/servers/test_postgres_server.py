"""Each test has a database of its own, with the newest schema."""

import asyncpg
import pytest

from tests.servers.postgres import PostgresServer


async def tables(url: str) -> set[str]:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    finally:
        await connection.close()
    return {row["tablename"] for row in rows}


async def test_database_is_migrated(database_url: str) -> None:
    assert "alembic_version" in await tables(database_url)


async def test_empty_database_is_empty(empty_database_url: str) -> None:
    assert await tables(empty_database_url) == set()


async def test_database_is_dropped_though_somebody_is_connected(postgres: PostgresServer) -> None:
    async with postgres.database() as url:
        connection = await asyncpg.connect(url)
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(url)
    connection.terminate()
