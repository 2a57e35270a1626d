"""What tests of services share: the services over a real database and toy buckets, and three callers."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import cast

import pytest
import pytest_asyncio

from app.db.changes import Changes
from app.db.session import Database
from app.secrets import Sealer
from app.services.access import Principal
from app.services.buckets import Buckets, OpenBucket
from app.services.frames import FrameService
from app.services.jobs import JobService
from app.services.manifests import ManifestService
from tests.jobs.conftest import ToyBucket, World, database, gate, lines, make_storage, world

__all__ = ["World", "database", "gate", "lines", "make_storage", "world"]


@dataclass
class Services:
    """The services of one process."""

    manifests: ManifestService
    frames: FrameService
    jobs: JobService
    buckets: Buckets
    changes: Changes


@pytest_asyncio.fixture
async def services(world: World, database: Database) -> AsyncIterator[Services]:
    """The services; every storage has the world's own bucket."""

    async def open_bucket(_: object) -> ToyBucket:
        return world.bucket

    async with AsyncExitStack() as stack:
        changes = Changes(database)
        buckets = Buckets(database, changes, cast("Sealer", None), cast("OpenBucket", open_bucket))
        stack.push_async_callback(buckets.aclose)
        stack.push_async_callback(changes.aclose)
        await changes.start()
        jobs = JobService(database)
        yield Services(
            ManifestService(database, buckets, jobs), FrameService(database, changes), jobs, buckets, changes
        )


@pytest.fixture
def ann(world: World) -> Principal:
    """The owner of the storage."""
    return Principal(world.owner_id, "ann", "user", 1)


@pytest.fixture
def bob(world: World) -> Principal:
    """A stranger."""
    return Principal(world.owner_id + 1000, "bob", "user", 2)


@pytest.fixture
def root(world: World) -> Principal:
    """An admin who owns nothing."""
    return Principal(world.owner_id + 2000, "root", "admin", 3)
