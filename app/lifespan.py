"""Opens everything that a process holds, in one stack, and hands it over as one typed value."""

import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import cast

from starlette.types import Scope

from app.db.changes import Changes
from app.db.migrate import require_schema
from app.db.session import Database
from app.errors import CommandError
from app.images.pool import RenderPool
from app.jobs.runner import JobRunner
from app.metrics import Metrics
from app.secrets import Sealer, load_keys
from app.services.access import AccessService
from app.services.buckets import Buckets, OpenBucket
from app.services.chunks import ChunkService
from app.services.frames import FrameService
from app.services.jobs import JobService
from app.services.manifests import ManifestService
from app.services.objects import ObjectService
from app.services.previews import PreviewService
from app.services.renditions import RenditionService
from app.services.room import Room
from app.services.signed_urls import UrlSigner
from app.services.storages import StorageService
from app.services.uploads import UploadService
from app.settings import Settings
from app.storage.bucket import Bucket
from app.storage.cache import ObjectCache
from app.storage.gate import Gate, Tally
from app.storage.guard import Guard
from app.storage.providers import open_provider
from app.storage.retries import RetryPolicy
from app.storage.sdk import SharedSession
from app.storage.source import Source
from app.storage.tls import tls_context
from app.storage.transport import Transport


@dataclass(frozen=True, slots=True)
class Services:
    """What handlers may ask for; opened with the process, closed with it."""

    settings: Settings
    metrics: Metrics
    database: Database
    access: AccessService
    signer: UrlSigner
    storages: StorageService
    objects: ObjectService
    renditions: RenditionService
    previews: PreviewService
    uploads: UploadService
    manifests: ManifestService
    frames: FrameService
    chunks: ChunkService
    jobs: JobService
    buckets: Buckets


def services_of(scope: Scope) -> Services:
    """Give the services of the process that answers a request."""
    return cast("Services", scope["state"]["services"])


@asynccontextmanager
async def open_services(settings: Settings, metrics: Metrics) -> AsyncIterator[Services]:
    """Open the services of a process that answers requests, in the order in which they need each other.

    Raises `CommandError` (settings), `SchemaError` (run `framegate migrate`), `DatabaseUnavailableError`.
    """
    async with AsyncExitStack() as stack:
        services = await _opened(stack, settings, metrics)
        if settings.inline_jobs:
            await _run_jobs(stack, services)
        yield services


@asynccontextmanager
async def open_worker(settings: Settings) -> AsyncIterator[Services]:
    """Open the services of a process that runs background jobs and answers nothing."""
    async with AsyncExitStack() as stack:
        services = await _opened(stack, settings, Metrics())
        await _run_jobs(stack, services)
        yield services


async def _opened(stack: AsyncExitStack, settings: Settings, metrics: Metrics) -> Services:
    database = await _open_database(stack, settings)
    changes = Changes(database)
    sealer = Sealer(load_keys(settings))
    access = AccessService(database, changes)
    buckets = Buckets(database, changes, sealer, _bucket_opener(stack, settings, metrics))
    stack.push_async_callback(buckets.aclose)
    cache = ObjectCache(settings.cache_bytes, settings.cache_max_age_s, metrics.cached)
    changes.subscribe(_forgetting(cache), cache.clear)
    changes.subscribe_objects(cache.forget)
    jobs = JobService(database)
    objects = ObjectService(buckets, cache)
    renditions = RenditionService(buckets, cache, _render_pool(stack, settings, metrics))
    manifests, frames = ManifestService(database, buckets, jobs), FrameService(database, changes)
    services = Services(
        settings=settings,
        metrics=metrics,
        database=database,
        access=access,
        signer=UrlSigner(sealer, access),
        storages=StorageService(database, sealer, buckets),
        objects=objects,
        renditions=renditions,
        previews=PreviewService(manifests, frames, objects, renditions),
        manifests=manifests,
        frames=frames,
        chunks=ChunkService(frames, objects, renditions, Room(settings.chunk_bytes)),
        uploads=UploadService(buckets, cache, changes, settings.max_upload_bytes),
        jobs=jobs,
        buckets=buckets,
    )
    stack.push_async_callback(changes.aclose)
    await changes.start()
    return services


def _render_pool(stack: AsyncExitStack, settings: Settings, metrics: Metrics) -> RenderPool:
    processes = settings.rendition_workers or len(os.sched_getaffinity(0))
    pool = RenderPool(processes, settings.rendition_queue, metrics.rendered)
    stack.push_async_callback(pool.aclose)
    return pool


def _forgetting(cache: ObjectCache) -> Callable[[str, int], None]:
    def forget(table: str, row_id: int) -> None:
        if table == "storages":
            cache.forget(row_id)

    return forget


async def _open_database(stack: AsyncExitStack, settings: Settings) -> Database:
    if settings.database_url is None:
        raise CommandError("FRAMEGATE_DATABASE_URL: is needed here; `framegate serve` starts one by itself.")
    database = Database(settings.database_url)
    stack.push_async_callback(database.aclose)
    await require_schema(database)
    return database


def way_out(settings: Settings) -> tuple[Guard, ssl.SSLContext]:
    """Make the guard and the TLS context of all ways to buckets; opens nothing.

    Raises `CommandError` naming the setting that is at fault.
    """
    try:
        guard = Guard(settings.allowed_private_endpoints, connect_timeout_s=settings.connect_timeout_s)
    except ValueError as error:
        name = "FRAMEGATE_ALLOWED_PRIVATE_ENDPOINTS"
        raise CommandError(f"{name}: {error}. Example: {name}=minio.internal:9000,10.0.0.0/8") from None
    return guard, tls_context(settings.ca_file)


def _bucket_opener(stack: AsyncExitStack, settings: Settings, metrics: Metrics) -> OpenBucket:
    guard, tls = way_out(settings)
    shared = SharedSession(guard, tls)
    stack.push_async_callback(shared.aclose)
    transport = Transport(
        guard,
        tls,
        first_byte_timeout_s=settings.first_byte_timeout_s,
        idle_timeout_s=settings.idle_timeout_s,
        max_connections_per_origin=4 * settings.upstream_concurrency,
    )
    stack.push_async_callback(transport.aclose)
    policy = RetryPolicy(settings.first_byte_timeout_s, metrics.retried, metrics.resumed)

    tally = Tally(2 * (settings.upstream_concurrency + settings.upstream_queue))

    async def open_bucket(source: Source) -> Bucket:
        provider = await open_provider(
            source,
            shared,
            connect_timeout_s=settings.connect_timeout_s,
            read_timeout_s=settings.first_byte_timeout_s,
        )
        return Bucket(
            provider,
            transport,
            Gate(settings.upstream_concurrency, settings.upstream_queue, tally),
            source.prefix,
            policy,
        )

    return open_bucket


async def _run_jobs(stack: AsyncExitStack, services: Services) -> None:
    runner = JobRunner(services.database, services.buckets.open_stored, services.settings)
    stack.push_async_callback(runner.aclose)
    await runner.start()
