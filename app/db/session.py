"""The way to PostgreSQL: one engine for each process, short transactions, and one error when it is gone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import asyncpg
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from app.errors import DatabaseUnavailableError

CONNECT_TIMEOUT_S = 5
QUERY_TIMEOUT_S = 20
"""No statement takes so long but COPY; a server that hangs, or is cut off without a word, is found by it."""
POOL_SIZE = 10

# PostgreSQL's own words for "not now": class 57 (shutdown), 53300 (too many connections), 08 (connection).
_GONE_STATES = ("57P", "53300", "08")
# And for "not you": class 28 (wrong user or password), 3D000 (no such database).
_REFUSED_STATES = ("28", "3D000")


def engine_url(url: str) -> URL:
    """Turn `postgresql://…` into the URL of SQLAlchemy's asyncpg dialect."""
    return make_url(url).set(drivername="postgresql+asyncpg")


class Database:
    """A pool of connections; opened with the service, closed with it."""

    def __init__(self, url: str, *, pool_size: int = POOL_SIZE) -> None:
        self.url = url
        self.engine: AsyncEngine = create_async_engine(
            engine_url(url),
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_timeout=CONNECT_TIMEOUT_S,
            pool_pre_ping=True,
            hide_parameters=True,  # an error's text must not carry what was to be stored
            connect_args={
                "timeout": CONNECT_TIMEOUT_S,
                "command_timeout": QUERY_TIMEOUT_S,
                "server_settings": {"application_name": "framegate"},
            },
        )
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)

    def __repr__(self) -> str:
        return f"Database({make_url(self.url).render_as_string(hide_password=True)})"

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """Give one transaction: committed at the end, rolled back on an error.

        Raises `DatabaseUnavailableError` when PostgreSQL cannot be reached or goes away meanwhile.
        """
        with_errors = translating_errors()
        async with with_errors, self._sessions() as session, session.begin():
            yield session

    async def connect(self) -> asyncpg.Connection:
        """Open a connection of one's own outside the pool (for LISTEN); the caller closes it."""
        async with translating_errors():
            return await asyncpg.connect(self.url, timeout=CONNECT_TIMEOUT_S)

    async def aclose(self) -> None:
        """Close every pooled connection."""
        await self.engine.dispose()


@asynccontextmanager
async def translating_errors() -> AsyncIterator[None]:
    """Turn every way in which a database can be gone into `DatabaseUnavailableError`."""
    try:
        yield
    except (TimeoutError, PoolTimeoutError, OSError, asyncpg.PostgresConnectionError) as error:
        raise DatabaseUnavailableError("The database does not answer.") from error
    except asyncpg.CannotConnectNowError as error:
        raise DatabaseUnavailableError("The database is starting or stopping.") from error
    except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError) as error:
        raise DatabaseUnavailableError(_REFUSED) from error
    except DBAPIError as error:
        if _state(error).startswith(_REFUSED_STATES):
            raise DatabaseUnavailableError(_REFUSED) from error
        if is_gone(error):
            raise DatabaseUnavailableError("The database does not answer.") from error
        raise


_REFUSED = "The database refuses the user, the password or the database's name."


def is_gone(error: DBAPIError) -> bool:
    """Tell whether the database itself is at fault, rather than what it was asked."""
    if error.connection_invalidated or isinstance(error, InterfaceError | OperationalError):
        return True
    return _state(error).startswith(_GONE_STATES)


def _state(error: DBAPIError) -> str:
    return str(getattr(error.orig, "sqlstate", None) or "")


async def driver_connection(session: AsyncSession) -> asyncpg.Connection:
    """Give the asyncpg connection of a session's transaction, for COPY."""
    raw = await (await session.connection()).get_raw_connection()
    return cast("asyncpg.Connection", raw.driver_connection)
