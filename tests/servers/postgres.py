"""One PostgreSQL cluster per test process, and a copy of a migrated database for each test that wants one."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg

from app.db import migrate
from app.embedded.postgres import EmbeddedPostgres

TEMPLATE = "template_migrated"


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A running server; `url` has a superuser's password and names a database that tests leave alone."""

    url: str

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1."""
        return urlsplit(self.url).port or 0

    def url_of(self, database: str) -> str:
        """The same server's URL for another database."""
        return self.url.rpartition("/")[0] + "/" + database

    async def run(self, statement: str) -> None:
        """Run one statement outside of a transaction."""
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    @asynccontextmanager
    async def database(self, template: str = "template0") -> AsyncIterator[str]:
        """A database made from a template; gives its URL, and drops it whoever is still connected."""
        name = f"test_{uuid4().hex[:12]}"
        await self.run(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        try:
            yield self.url_of(name)
        finally:
            await self.run(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def postgres(folder: Path) -> Iterator[PostgresServer]:
    """A cluster that forgets everything in a crash, for speed."""
    with EmbeddedPostgres(folder, durable=False) as url:
        yield PostgresServer(url)


async def make_template(server: PostgresServer) -> str:
    """Make the migrated database that others are copied from; gives its name."""
    await server.run(f"CREATE DATABASE {TEMPLATE} TEMPLATE template0 STRATEGY FILE_COPY")
    await migrate.upgrade(server.url_of(TEMPLATE))
    return TEMPLATE
