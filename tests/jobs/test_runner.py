"""The runner: every job ends, once, whatever dies meanwhile."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy import text

from app.db import jobs as job_queries
from app.db.jobs import JobRow
from app.db.session import Database
from app.jobs import queue
from app.jobs.runner import JobRunner
from tests.jobs.conftest import IMPATIENT, QUICK, World, lines
from tests.servers.fixtures import OpenProxy

MANY = lines(*map(str, range(400)))


@pytest.fixture(autouse=True)
def manifest(world: World) -> None:
    """Something to register."""
    world.bucket.put("set/manifest.jsonl", MANY)


async def cancel(world: World, job: JobRow) -> None:
    async with world.database.session() as session:
        await queue.cancel(session, job)


async def run_sql(world: World, statement: str, **values: object) -> None:
    async with world.database.session() as session:
        await session.execute(text(statement), values)


async def assert_untouched(world: World, state: str) -> None:
    """Nothing of the stopped registration is left."""
    assert await world.count("frames") == await world.count("revisions") == 0
    assert await world.count(f"manifests WHERE state = '{state}'") == 1


async def test_a_queued_job_is_heard_of_at_once(world: World) -> None:
    async with world.running(replace(QUICK, poll_s=60)):
        await asyncio.sleep(0.3)
        job = await world.attach()
        await world.ended(job, 3)


async def test_a_job_is_found_without_having_been_heard_of(world: World) -> None:
    async with world.running():
        await asyncio.sleep(0.3)
        job = await world.attach()
        await run_sql(world, "UPDATE jobs SET state = 'cancelled'")
        await asyncio.sleep(0.3)
        await run_sql(world, "UPDATE jobs SET state = 'queued'")
        await world.ended(job, 3)


async def test_a_killed_process_leaves_nothing_and_its_job_is_taken_up_again(
    world: World, database_url: str
) -> None:
    job = await world.attach()
    command = ("-m", "tests.jobs.worker_process", database_url, str(world.storage_id))
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == b"loading\n"
        assert (await world.job(job)).state == "running"
    finally:
        process.kill()
        await process.wait()
    await assert_untouched(world, "pending")
    async with world.running(IMPATIENT):
        ended = await world.ended(job)
    assert (ended.state, ended.starts) == ("succeeded", 2)
    assert len(await world.keys(job)) == 400
    assert await world.count("frames") == 400


async def test_a_job_whose_processes_keep_dying_is_given_up(world: World) -> None:
    job = await world.attach()
    await run_sql(
        world, "UPDATE jobs SET state = 'running', starts = 3, beat_at = now() - interval '1 minute'"
    )
    async with world.running():
        ended = await world.ended(job)
    assert (ended.state, ended.errors) == ("failed", ["Given up: its process died 3 times while it ran."])
    await assert_untouched(world, "failed")


async def test_a_job_that_lives_elsewhere_is_left_alone(world: World) -> None:
    job = await world.attach()
    await run_sql(
        world, "UPDATE jobs SET state = 'running', starts = 1, beat_at = now() + interval '1 minute'"
    )
    async with world.running():
        await asyncio.sleep(0.5)
    assert (await world.job(job)).starts == 1
    assert world.bucket.reads == []


async def test_a_running_job_keeps_showing_that_it_lives(world: World, gate: asyncio.Semaphore) -> None:
    job = await world.attach()
    async with world.running(IMPATIENT), world.running(IMPATIENT):
        gate.release()
        await world.taken_up(job)
        await asyncio.sleep(2 * IMPATIENT.stale_s)  # the second runner would have taken it by now
        assert (await world.job(job)).starts == 1
        for _ in range(50):
            gate.release()
        assert (await world.ended(job)).state == "succeeded"
    assert len(world.bucket.reads) == 1


async def test_a_stopped_runner_gives_its_job_back_at_once(world: World, gate: asyncio.Semaphore) -> None:
    job = await world.attach()
    async with world.running():
        gate.release()
        await world.taken_up(job)
    stopped = await world.job(job)
    assert (stopped.state, stopped.starts) == ("queued", 0)
    await assert_untouched(world, "pending")
    assert world.bucket.streams[0].closed
    world.bucket.gate = None
    async with world.running():
        assert (await world.ended(job)).state == "succeeded"


async def test_a_queued_job_is_cancelled_at_once(world: World) -> None:
    job = await world.attach()
    await cancel(world, job)
    cancelled = await world.job(job)
    assert cancelled.state == "cancelled"
    assert cancelled.finished_at is not None
    async with world.running():
        await asyncio.sleep(0.3)
    await assert_untouched(world, "failed")


async def test_a_running_job_is_cancelled_soon(world: World, gate: asyncio.Semaphore) -> None:
    job = await world.attach()
    async with world.running():
        gate.release()
        await world.taken_up(job)
        await cancel(world, job)
        assert (await world.ended(job)).state == "cancelled"
    await assert_untouched(world, "failed")
    assert world.bucket.streams[0].closed


async def test_cancelling_a_sync_leaves_what_is_shown(world: World, gate: asyncio.Semaphore) -> None:
    world.bucket.gate = None
    async with world.running():
        await world.ended(await world.attach())
        world.bucket.put("set/manifest.jsonl", lines("new"))
        world.bucket.gate = gate
        job = await world.attach(kind="sync")
        await world.taken_up(job, streams=2)
        await cancel(world, job)
        assert (await world.ended(job)).state == "cancelled"
    assert len(await world.keys(job)) == 400
    assert (await world.manifest(job)).state == "ready"


async def test_a_cancelled_job_of_a_dead_process_ends(world: World) -> None:
    job = await world.attach()
    await run_sql(
        world, "UPDATE jobs SET state = 'running', starts = 1, beat_at = now() - interval '1 minute'"
    )
    await cancel(world, job)
    async with world.running():
        assert (await world.ended(job)).state == "cancelled"
    assert world.bucket.reads == []


async def test_an_ended_job_stays_as_it_ended(world: World) -> None:
    job = await world.attach()
    async with world.running():
        await world.ended(job)
    await cancel(world, job)
    assert (await world.job(job)).state == "succeeded"


async def test_a_run_that_was_given_to_another_process_stops(world: World, gate: asyncio.Semaphore) -> None:
    job = await world.attach()
    async with world.running():
        gate.release()
        await world.taken_up(job)
        await run_sql(world, "UPDATE jobs SET starts = starts + 1")

        async def closed() -> bool:
            return world.bucket.streams[0].closed

        await world.until(closed)
    assert (await world.job(job)).state == "running"
    await assert_untouched(world, "pending")


async def test_a_run_that_was_given_to_another_process_cannot_show_its_revision(
    world: World, gate: asyncio.Semaphore
) -> None:
    job = await world.attach()
    async with world.running(replace(QUICK, beat_s=60)):
        gate.release()
        await world.taken_up(job)
        await run_sql(world, "UPDATE jobs SET starts = starts + 1")
        for _ in range(50):
            gate.release()

        async def closed() -> bool:
            return world.bucket.streams[0].closed

        await world.until(closed)
        await asyncio.sleep(0.1)
    assert (await world.job(job)).state == "running"
    await assert_untouched(world, "pending")


async def test_an_error_of_our_own_ends_the_job_and_tells_no_detail(world: World) -> None:
    world.bucket.error = ValueError("secret")
    job = await world.attach()
    async with world.running():
        ended = await world.ended(job)
    assert ended.state == "failed"
    assert "secret" not in ended.errors[0]
    assert str(job.id) in ended.errors[0]


async def test_so_many_jobs_run_at_once_and_no_more(world: World, gate: asyncio.Semaphore) -> None:
    for name in "abcd":
        world.bucket.put(f"{name}/manifest.jsonl", MANY)
    jobs = [await world.attach(f"{name}/manifest.jsonl") for name in "abcd"]
    async with world.running(replace(QUICK, concurrency=3)):
        await asyncio.sleep(0.5)
        assert [(await world.job(job)).state for job in jobs] == ["running"] * 3 + ["queued"]
        for _ in range(200):
            gate.release()
        for job in jobs:
            assert (await world.ended(job)).state == "succeeded"


async def test_two_jobs_of_one_manifest_take_turns(world: World, gate: asyncio.Semaphore) -> None:
    first = await world.attach()
    async with world.running(replace(QUICK, poll_s=60)):
        gate.release()
        await world.taken_up(first)
        second = await world.attach(kind="sync")
        assert second.id != first.id
        await asyncio.sleep(0.3)
        assert (await world.job(second)).state == "queued"
        for _ in range(200):
            gate.release()
        await world.ended(first)
        assert (await world.ended(second)).result == {"revision": 1, "changed": False}


async def test_a_job_that_nobody_took_up_yet_is_not_queued_twice(world: World) -> None:
    first = await world.attach()
    assert (await world.attach(kind="sync")).id == first.id


async def test_a_connection_that_is_cut_while_loading_is_no_end(
    world: World, gate: asyncio.Semaphore
) -> None:
    job = await world.attach()
    async with world.running():
        gate.release()
        await world.taken_up(job)
        await run_sql(
            world,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        for _ in range(200):
            gate.release()
        ended = await world.ended(job)
    assert (ended.state, ended.starts) == ("succeeded", 1)
    assert len(await world.keys(job)) == await world.count("frames") == 400


@asynccontextmanager
async def through(world: World, url: str) -> AsyncIterator[JobRunner]:
    database = Database(url)
    runner = world.runner(database=database)
    await runner.start()
    try:
        yield runner
    finally:
        await runner.aclose()
        await database.aclose()


async def test_a_database_that_goes_away_and_comes_back_is_waited_for(
    world: World, database_url: str, gate: asyncio.Semaphore, fault_proxy: OpenProxy
) -> None:
    proxy = await fault_proxy(database_url, raw=True)
    first = await world.attach()
    async with through(world, proxy.url(database_url)):
        gate.release()
        await world.taken_up(first)
        await proxy.refuse()
        await proxy.drop()
        await asyncio.sleep(0.3)
        second = await world.attach()
        await proxy.admit()
        for _ in range(200):
            gate.release()
        assert (await world.ended(first)).state == "succeeded"
        assert (await world.ended(second)).state == "succeeded"


async def test_a_runner_starts_and_stops_without_a_database(
    world: World, database_url: str, fault_proxy: OpenProxy
) -> None:
    proxy = await fault_proxy(database_url, raw=True)
    await proxy.refuse()
    job = await world.attach()
    async with through(world, proxy.url(database_url)):
        await asyncio.sleep(0.2)
        assert (await world.job(job)).state == "queued"


async def test_jobs_of_a_kind_that_is_not_known_here_are_left_alone(world: World) -> None:
    job = await world.attach()
    await run_sql(world, "UPDATE jobs SET kind = 'build'")
    async with world.running():
        await asyncio.sleep(0.3)
    assert (await world.job(job)).state == "queued"


async def test_a_job_is_claimed_by_one_process_alone(world: World) -> None:
    jobs = {(await world.attach(f"{number}/manifest.jsonl")).id for number in range(20)}

    async def claim() -> UUID:
        async with world.database.session() as session:
            found = await job_queries.claim_job(session, ("register",), 15)
        assert found is not None
        return found.id

    assert set(await asyncio.gather(*(claim() for _ in range(20)))) == jobs


async def test_a_runner_stops_although_work_is_announced_just_then(world: World) -> None:
    """asyncio.wait_for swallowed the cancellation when both came together (before Python 3.12)."""
    runner = world.runner(replace(QUICK, poll_s=60, sweep_s=60))
    await runner.start()
    await asyncio.sleep(0.3)
    runner._wake.set()
    runner._sweep_wake.set()
    async with asyncio.timeout(3):
        await runner.aclose()
