"""Alembic's entry: on the connection that `app.db.migrate` hands over, else on one of its own."""

import asyncio

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.db.session import engine_url
from app.db.tables import metadata
from app.errors import CommandError
from app.settings import Settings


def run(connection: Connection) -> None:
    """Run the migrations in one transaction: a failed one leaves the schema as it was."""
    context.configure(connection=connection, target_metadata=metadata, compare_server_default=False)
    with context.begin_transaction():
        context.run_migrations()


async def run_alone() -> None:
    """Serve `alembic` called by hand."""
    url = Settings.read().database_url
    if url is None:
        raise CommandError("Set FRAMEGATE_DATABASE_URL to the database to migrate.")
    engine = create_async_engine(engine_url(url), poolclass=NullPool)
    async with engine.begin() as connection:
        await connection.run_sync(run)
    await engine.dispose()


handed_over = context.config.attributes.get("connection")
if handed_over is not None:
    run(handed_over)
else:
    asyncio.run(run_alone())
