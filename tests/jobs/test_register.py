"""Registering: all of a revision is shown or nothing, and what was shown goes on until then."""

import asyncio
import threading

import pytest
from sqlalchemy import text

from app.errors import AccessDeniedError, BrokenStreamError
from app.jobs.register import LEAST_BYTES, MOST_BYTES, TURN_S, Turns
from app.manifests.kinds import Item
from app.manifests.reader import ManifestReader
from tests.jobs.conftest import HEADER, World, lines


async def test_a_manifest_is_registered(world: World) -> None:
    good = b'{"name":"a","extension":".jpg","width":4,"height":3,"meta":{"related_images":["x"]},"checksum":"c"}\n'
    world.bucket.put(
        "set/manifest.jsonl", HEADER + good + b"bad\n" + b'{"name":"b","extension":".png"}\n', '"e1"'
    )
    job = await world.attach()
    async with world.running():
        ended = await world.ended(job)
    assert (ended.state, ended.errors, ended.result) == ("succeeded", [], {"revision": 1, "changed": True})
    assert ended.done == ended.total == len(world.bucket.objects["set/manifest.jsonl"][0])
    manifest = await world.manifest(job)
    assert (manifest.state, manifest.kind, manifest.version) == ("ready", "images", "1.1")
    assert (manifest.frame_count, manifest.problem_count, manifest.revision) == (2, 1, 1)
    assert (manifest.etag, manifest.job_id) == ('"e1"', job.id)
    assert manifest.synced_at is not None
    first, second = await world.frames(job)
    assert (first.number, first.key, first.width_px, first.height_px) == (0, "set/a.jpg", 4, 3)
    assert (first.checksum, first.meta) == ("c", {"related_images": ["x"]})
    assert (second.number, second.key, second.width_px, second.meta) == (2, "set/b.png", None, None)
    assert await world.problems(job) == [(4, 1, "not-json")]
    assert all(stream.closed for stream in world.bucket.streams)


async def test_a_manifest_that_came_whole_is_registered_too(world: World) -> None:
    world.bucket.put("set/manifest.jsonl", lines(*map(str, range(3000))))
    world.bucket.chunk = 10**9
    job = await world.attach()
    async with world.running():
        assert (await world.ended(job)).state == "succeeded"
    assert (await world.manifest(job)).frame_count == 3000


@pytest.mark.parametrize("heeds_conditions", [True, False])
async def test_a_sync_of_an_unchanged_manifest_does_nothing(world: World, heeds_conditions: bool) -> None:
    world.bucket.heeds_conditions = heeds_conditions
    world.bucket.put("set/manifest.jsonl", lines("a"), '"e1"')
    async with world.running():
        first = await world.ended(await world.attach())
        before = await world.manifest(first)
        second = await world.ended(await world.attach(kind="sync"))
    assert world.bucket.reads[-1].if_none_match == ('"e1"',)
    assert (second.state, second.result) == ("succeeded", {"revision": 1, "changed": False})
    after = await world.manifest(second)
    assert after.revision_id == before.revision_id
    assert after.synced_at is not None
    assert before.synced_at is not None
    assert after.synced_at > before.synced_at
    assert all(stream.closed for stream in world.bucket.streams)


async def test_a_sync_replaces_the_revision_and_its_frames_are_swept(world: World) -> None:
    world.bucket.put("set/manifest.jsonl", lines("a", "b"), '"e1"')
    async with world.running():
        await world.ended(await world.attach())
        world.bucket.put("set/manifest.jsonl", lines("c"), '"e2"')
        job = await world.ended(await world.attach(kind="sync"))
        assert job.result == {"revision": 2, "changed": True}
        assert await world.keys(job) == ["set/c.jpg"]

        async def swept() -> bool:
            return await world.count("frames") == 1 and await world.count("discarded_revisions") == 0

        await world.until(swept)
    assert await world.count("revisions") == 1


@pytest.mark.parametrize("etag", [None, '"e1"'])
async def test_without_an_etag_a_sync_reads_again(world: World, etag: str | None) -> None:
    world.bucket.put("set/manifest.jsonl", lines("a"), '"e0"')
    world.bucket.objects["set/manifest.jsonl"] = (lines("a"), etag)
    async with world.running():
        await world.ended(await world.attach())
        job = await world.ended(await world.attach(kind="sync"))
    assert job.result == {"revision": 2 if etag is None else 1, "changed": etag is None}


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"", "empty-file"), (b"no manifest", "header-missing"), (b'{"version":"9"}\n', "unknown-version")],
)
async def test_a_refused_manifest_is_failed_and_its_problems_are_kept(
    world: World, body: bytes, code: str
) -> None:
    world.bucket.put("set/manifest.jsonl", body)
    job = await world.attach()
    async with world.running():
        ended = await world.ended(job)
    assert ended.state == "failed"
    assert ended.errors[0].startswith("Line 1, column ")
    manifest = await world.manifest(job)
    assert (manifest.state, manifest.frame_count, manifest.problem_count) == ("failed", 0, 1)
    assert [found for _, _, found in await world.problems(job)] == [code]
    assert await world.count("frames") == 0


async def test_a_manifest_over_the_limit_is_refused_unread(world: World) -> None:
    world.bucket.put("set/manifest.jsonl", lines(*map(str, range(100))))
    job = await world.attach()
    async with world.running(max_manifest_bytes=1000):
        assert (await world.ended(job)).state == "failed"
    assert await world.problems(job) == [(1, 1, "file-too-large")]
    assert world.bucket.streams[0].closed


async def test_a_manifest_that_grows_over_the_limit_is_refused_with_all_its_frames(world: World) -> None:
    body = lines(*map(str, range(100)))
    world.bucket.put("set/manifest.jsonl", body)
    world.bucket.size_bytes = 500
    job = await world.attach()
    async with world.running(max_manifest_bytes=1000):
        assert (await world.ended(job)).state == "failed"
    assert (await world.manifest(job)).frame_count == 0
    assert await world.count("frames") == 0


async def test_a_sync_that_fails_leaves_what_is_shown(world: World) -> None:
    world.bucket.put("set/manifest.jsonl", lines("a"), '"e1"')
    async with world.running():
        await world.ended(await world.attach())
        world.bucket.put("set/manifest.jsonl", b"broken", '"e2"')
        job = await world.ended(await world.attach(kind="sync"))
        assert (job.state, len(job.errors)) == ("failed", 1)
        manifest = await world.manifest(job)
        assert (manifest.state, manifest.revision, manifest.etag) == ("ready", 1, '"e1"')
        assert await world.keys(job) == ["set/a.jpg"]


async def test_a_failed_manifest_is_ready_once_a_sync_succeeds(world: World) -> None:
    world.bucket.put("set/manifest.jsonl", b"broken", '"e1"')
    async with world.running():
        await world.ended(await world.attach())
        world.bucket.put("set/manifest.jsonl", lines("a"), '"e1"')  # the same ETag must not stop it
        job = await world.ended(await world.attach(kind="sync"))
    assert job.state == "succeeded"
    manifest = await world.manifest(job)
    assert (manifest.state, manifest.revision, manifest.problem_count) == ("ready", 2, 0)


async def test_a_missing_object_fails_the_job_and_the_manifest(world: World) -> None:
    job = await world.attach()
    async with world.running():
        ended = await world.ended(job)
    assert (ended.state, ended.errors) == ("failed", ["There is no object of that key in the bucket."])
    assert (await world.manifest(job)).state == "failed"


@pytest.mark.parametrize(
    "error",
    [BrokenStreamError("It broke off.", remedy="Try again."), AccessDeniedError("It broke off. Try again.")],
)
async def test_a_stream_that_breaks_leaves_nothing(world: World, error: Exception) -> None:
    world.bucket.put("set/manifest.jsonl", lines(*map(str, range(2000))))
    world.bucket.error = error
    job = await world.attach()
    async with world.running():
        ended = await world.ended(job)
    assert (ended.state, ended.errors) == ("failed", ["It broke off. Try again."])
    assert (await world.manifest(job)).state == "failed"
    assert await world.count("frames") == await world.count("revisions") == 0
    assert world.bucket.streams[0].closed


async def test_nothing_of_a_revision_is_seen_before_all_of_it(world: World, gate: asyncio.Semaphore) -> None:
    world.bucket.gate = None
    world.bucket.put("set/manifest.jsonl", lines("old"), '"e1"')
    async with world.running():
        await world.ended(await world.attach())
        world.bucket.gate = gate
        world.bucket.put("set/manifest.jsonl", lines(*map(str, range(400))), '"e2"')
        job = await world.attach(kind="sync")
        for _ in range(13):
            gate.release()
            await asyncio.sleep(0.01)
            assert await world.keys(job) == ["set/old.jpg"]
            assert await world.count("frames") == 1
        assert (await world.job(job)).state == "running"
        gate.release()
        await world.ended(job)
        assert len(await world.keys(job)) == 400


async def test_progress_is_seen_while_it_runs(world: World, gate: asyncio.Semaphore) -> None:
    body = lines(*map(str, range(400)))
    world.bucket.put("set/manifest.jsonl", body)
    job = await world.attach()
    async with world.running():
        gate.release()

        async def seen() -> bool:
            found = await world.job(job)
            return (found.done, found.total) == (1000, len(body))

        await world.until(seen)
        for _ in range(20):
            gate.release()
        await world.ended(job)


async def test_a_manifest_removed_meanwhile_takes_its_job_along(
    world: World, gate: asyncio.Semaphore
) -> None:
    world.bucket.put("set/manifest.jsonl", lines(*map(str, range(400))))
    job = await world.attach()
    async with world.running():
        gate.release()
        await world.taken_up(job)
        async with asyncio.timeout(2), world.database.session() as session:
            await session.execute(text("DELETE FROM manifests"))

        async def stopped() -> bool:
            return world.bucket.streams[0].closed

        await world.until(stopped)
    assert await world.count("frames") == await world.count("jobs") == await world.count("revisions") == 0


async def test_the_event_loop_goes_on_while_a_manifest_is_read(world: World) -> None:
    world.bucket.chunk = 256 * 1024
    world.bucket.put("set/manifest.jsonl", lines(*(f"folder/name_{number:07d}" for number in range(30_000))))
    turns = 0
    job = await world.attach()
    async with world.running():
        while not (await world.job(job)).finished_at:
            turns += 1
    assert turns > 10
    assert (await world.manifest(job)).frame_count == 30_000


def test_turns_are_short_after_a_slow_part_and_long_after_a_quick_one() -> None:
    turns = Turns()
    for _ in range(20):
        turns.adapt(0)
    assert turns.size_bytes == MOST_BYTES
    turns.adapt(TURN_S)
    assert turns.size_bytes == MOST_BYTES
    turns.adapt(2 * TURN_S)
    assert turns.size_bytes == MOST_BYTES // 2
    for _ in range(20):
        turns.adapt(1)
    assert turns.size_bytes == LEAST_BYTES


async def test_a_line_that_takes_long_is_read_in_a_thread() -> None:
    class Reader(ManifestReader):
        def feed(self, chunk: bytes) -> list[Item]:
            threads.append(threading.current_thread() is threading.main_thread())
            return super().feed(chunk)

    threads: list[bool] = []
    turns, reader = Turns(), Reader("m.jsonl")
    await turns.feed(reader, HEADER + b'{"name":"' + b"x" * 60_000)
    await turns.feed(reader, b"x" * 60_000)
    await turns.feed(reader, b'"}\n')
    await turns.feed(reader, b'{"name":"a","extension":".j"}\n')
    assert threads == [True, True, False, True]
    assert (reader.frame_count, reader.problem_count) == (1, 1)


async def test_other_work_goes_on_while_long_and_bad_lines_are_read(world: World) -> None:
    long_line = b'{"meta":[' + b"[]," * 300_000 + b"]}\n"
    world.bucket.put("set/manifest.jsonl", HEADER + long_line * 3 + b"x\n" * 20_000)
    world.bucket.chunk = 256 * 1024
    turns = 0
    job = await world.attach()
    async with world.running():
        while not (await world.job(job)).finished_at:
            turns += 1
    assert turns > 20
    assert (await world.manifest(job)).problem_count == 20_003
