"""Manifests of a storage, as their owner, a stranger and an admin see them."""

import asyncio
import base64
from uuid import uuid4

import pytest
from sqlalchemy import text

from app.db.frames import FrameFilter
from app.db.manifests import attached_keys
from app.errors import (
    AccessDeniedError,
    InvalidInputError,
    MissingError,
    NotReadyError,
    StaleRevisionError,
)
from app.services.access import Principal
from app.services.manifests import attach_all
from tests.jobs.conftest import HEADER, World, lines, make_storage
from tests.services.conftest import Services

KEY = "set/manifest.jsonl"
ALL = FrameFilter()


@pytest.fixture(autouse=True)
def manifest(world: World) -> None:
    """Something to register."""
    world.bucket.put(KEY, lines("a", "b"), '"e1"')


async def attach_keys(world: World, *keys: str) -> None:
    async with world.database.session() as session:
        await attach_all(session, world.storage_id, keys, world.owner_id)


async def keys_attached(world: World) -> tuple[str, ...]:
    async with world.database.session() as session:
        return (await attached_keys(session, [world.storage_id])).get(world.storage_id, ())


async def test_attaching_queues_a_registration(services: Services, world: World, ann: Principal) -> None:
    made = await services.manifests.attach(ann, world.storage_id, KEY)
    assert (made.created, made.finished, made.manifest.state, made.manifest.attached) == (
        True,
        False,
        "pending",
        True,
    )
    assert made.job is not None
    assert (made.job.kind, made.job.state, made.job.owner_id) == ("register", "queued", ann.user_id)
    assert (made.job.storage_id, made.job.manifest_id) == (world.storage_id, made.manifest.id)
    assert made.manifest.job_id == made.job.id
    with pytest.raises(NotReadyError) as caught:
        await services.frames.list(ann, made.manifest.id, ALL, None, 10)
    assert caught.value.state == "pending"


async def test_attaching_waits_for_the_registration_if_asked_to(
    services: Services, world: World, ann: Principal
) -> None:
    async with world.running():
        made = await services.manifests.attach(ann, world.storage_id, KEY, wait_s=10)
    assert (made.created, made.finished, made.manifest.state) == (True, True, "ready")
    assert made.job is not None
    assert made.job.state == "succeeded"


async def test_waiting_ends_when_the_time_is_over(services: Services, world: World, ann: Principal) -> None:
    async with asyncio.timeout(5):
        made = await services.manifests.attach(ann, world.storage_id, KEY, wait_s=0.2)
    assert (made.finished, made.manifest.state) == (False, "pending")


async def test_a_failed_registration_has_finished_too(
    services: Services, world: World, ann: Principal
) -> None:
    world.bucket.put(KEY, b"broken")
    async with world.running():
        made = await services.manifests.attach(ann, world.storage_id, KEY, wait_s=10)
    assert (made.finished, made.manifest.state) == (True, "failed")
    problems = await services.manifests.problems(ann, made.manifest.id, None, 10)
    assert [(found.line, found.code) for found in problems.items] == [(1, "header-missing")]
    with pytest.raises(NotReadyError):
        await services.frames.get(ann, made.manifest.id, 0)


async def test_attaching_again_gives_what_is_there(services: Services, world: World, ann: Principal) -> None:
    first = await services.manifests.attach(ann, world.storage_id, KEY)
    again = await services.manifests.attach(ann, world.storage_id, KEY)
    assert (again.created, again.manifest, again.job) == (False, first.manifest, first.job)
    assert await world.count("jobs") == 1


async def test_attaching_at_once_makes_one_manifest_and_one_job(
    services: Services, world: World, ann: Principal
) -> None:
    await asyncio.gather(*(services.manifests.attach(ann, world.storage_id, KEY) for _ in range(8)))
    assert await world.count("manifests") == await world.count("jobs") == 1


@pytest.mark.parametrize("key", ["nowhere.jsonl", "../manifest.jsonl", "a\x00b"])
async def test_a_key_that_is_no_object_is_refused_at_its_field(
    services: Services, world: World, ann: Principal, key: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        await services.manifests.attach(ann, world.storage_id, key)
    assert [fault.pointer for fault in caught.value.faults] == ["/key"]
    assert await world.count("manifests") == 0


async def test_a_bucket_that_refuses_is_passed_on(services: Services, world: World, ann: Principal) -> None:
    world.bucket.head_error = AccessDeniedError("No.")
    with pytest.raises(AccessDeniedError):
        await services.manifests.attach(ann, world.storage_id, KEY)
    assert await world.count("manifests") == 0


async def test_a_stranger_sees_nothing_and_an_admin_all(
    services: Services, world: World, ann: Principal, bob: Principal, root: Principal
) -> None:
    async with world.running():
        made = await services.manifests.attach(ann, world.storage_id, KEY, wait_s=10)
    assert made.job is not None
    manifest_id, job_id = made.manifest.id, made.job.id

    def asked(caller: Principal):  # type: ignore[no-untyped-def]
        return [
            services.manifests.get(caller, manifest_id),
            services.manifests.list(caller, world.storage_id, None, 10),
            services.manifests.problems(caller, manifest_id, None, 10),
            services.frames.list(caller, manifest_id, ALL, None, 10),
            services.frames.get(caller, manifest_id, 0),
            services.frames.locate(caller, manifest_id, 0),
            services.jobs.get(caller, job_id),
            services.manifests.attach(caller, world.storage_id, KEY),
        ]

    changing = [
        services.jobs.cancel(bob, job_id),
        services.manifests.sync(bob, manifest_id),
        services.manifests.delete(bob, manifest_id),
    ]
    for call in [*asked(bob), *changing]:
        with pytest.raises(MissingError):
            await call
    assert (await services.jobs.list(bob, None, 10)).items == []
    for call in asked(root):
        assert await call
    assert [job.id for job in (await services.jobs.list(root, None, 10)).items] == [job_id]
    assert await world.count("manifests") == 1


async def test_what_is_not_there_is_missing(services: Services, world: World, ann: Principal) -> None:
    for call in (
        services.manifests.get(ann, 1),
        services.manifests.list(ann, 2**62, None, 10),
        services.manifests.sync(ann, 2**62),
        services.manifests.delete(ann, 7),
        services.frames.locate(ann, 7, 0),
        services.jobs.get(ann, uuid4()),
    ):
        with pytest.raises(MissingError):
            await call


async def test_manifests_come_by_pages(services: Services, world: World, ann: Principal) -> None:
    await attach_keys(world, *(f"{number}.jsonl" for number in range(5)))
    keys, cursor = [], None
    while True:
        page = await services.manifests.list(ann, world.storage_id, cursor, 2)
        keys += [manifest.key for manifest in page.items]
        if (cursor := page.next_cursor) is None:
            break
    assert keys == [f"{number}.jsonl" for number in range(5)]


@pytest.mark.parametrize(
    "cursor", ["", "x", "bnVsbA", "WzFd", "WzEsMl0", "é", "W10", "WzFlOTlsMV0", "WyJhIiwxXQ"]
)
async def test_a_bent_cursor_is_refused(
    services: Services, world: World, ann: Principal, cursor: str
) -> None:
    async with world.running():
        made = await services.manifests.attach(ann, world.storage_id, KEY, wait_s=10)
    calls = {
        "manifests": services.manifests.list(ann, world.storage_id, cursor, 2),
        "frames": services.frames.list(ann, made.manifest.id, ALL, cursor, 2),
        "problems": services.manifests.problems(ann, made.manifest.id, cursor, 2),
        "jobs": services.jobs.list(ann, cursor, 2),
    }
    fitting = {"WzFd": {"manifests"}, "WzEsMl0": {"frames", "problems"}}.get(cursor, set())
    for name, call in calls.items():
        if name in fitting:
            continue
        with pytest.raises(InvalidInputError, match="query:cursor"):
            await call
    for name in fitting:
        calls[name].close()


@pytest.mark.parametrize("place", [-1, 2**31, 2**63, 2**64])
async def test_a_cursor_behind_all_numbers_is_refused(
    services: Services, world: World, ann: Principal, place: int
) -> None:
    async with world.running():
        manifest = (await services.manifests.attach(ann, world.storage_id, KEY, wait_s=10)).manifest
    assert manifest.revision_id is not None
    cursor = base64.urlsafe_b64encode(f"[{manifest.revision_id},{place}]".encode()).decode()
    for call in (
        services.frames.list(ann, manifest.id, ALL, cursor, 2),
        services.manifests.problems(ann, manifest.id, cursor, 2),
    ):
        with pytest.raises(InvalidInputError, match="query:cursor"):
            await call


async def test_problems_come_by_pages_and_in_the_order_of_the_file(
    services: Services, world: World, ann: Principal
) -> None:
    world.bucket.put(KEY, HEADER + b"bad\n" * 7)
    async with world.running():
        made = await services.manifests.attach(ann, world.storage_id, KEY, wait_s=10)
    found, cursor = [], None
    while True:
        page = await services.manifests.problems(ann, made.manifest.id, cursor, 3)
        assert len(page.items) <= 3
        found += [problem.line for problem in page.items]
        if (cursor := page.next_cursor) is None:
            break
    assert found == [3, 4, 5, 6, 7, 8, 9]
    assert made.manifest.problem_count == 7


async def test_a_cursor_of_an_old_revision_is_stale(services: Services, world: World, ann: Principal) -> None:
    world.bucket.put(KEY, HEADER + b"bad\n" * 3 + lines("a", "b", "c").removeprefix(HEADER), '"e1"')
    async with world.running():
        manifest = (await services.manifests.attach(ann, world.storage_id, KEY, wait_s=10)).manifest
        frames = await services.frames.list(ann, manifest.id, ALL, None, 1)
        problems = await services.manifests.problems(ann, manifest.id, None, 1)
        world.bucket.put(KEY, lines("c"), '"e2"')
        synced = await services.manifests.sync(ann, manifest.id, wait_s=10)
    assert (synced.created, synced.finished, synced.manifest.revision) == (False, True, 2)
    for call in (
        services.frames.list(ann, manifest.id, ALL, frames.next_cursor, 1),
        services.manifests.problems(ann, manifest.id, problems.next_cursor, 1),
        services.frames.list(ann, manifest.id, ALL, None, 1, revision=1),
        services.frames.get(ann, manifest.id, 0, revision=1),
        services.frames.locate(ann, manifest.id, 0, revision=1),
    ):
        with pytest.raises(StaleRevisionError) as caught:
            await call
        assert caught.value.current_revision == 2


async def test_deleting_answers_at_once_and_the_frames_go_later(
    services: Services, world: World, ann: Principal
) -> None:
    async with world.running():
        made = await services.manifests.attach(ann, world.storage_id, KEY, wait_s=10)
    await services.manifests.delete(ann, made.manifest.id)
    with pytest.raises(MissingError):
        await services.manifests.get(ann, made.manifest.id)
    assert await world.count("frames") == 2
    async with world.running():

        async def swept() -> bool:
            return await world.count("frames") == 0

        await world.until(swept)


async def test_a_list_of_keys_is_attached_in_its_order(world: World) -> None:
    await attach_keys(world, "b", "a", "b")
    assert await keys_attached(world) == ("b", "a")
    assert await world.count("jobs") == 2
    async with world.database.session() as session:
        await session.execute(text("UPDATE jobs SET state = 'succeeded'"))
    await attach_keys(world, "a", "b")
    assert await keys_attached(world) == ("a", "b")
    assert await world.count("jobs") == 2


async def test_what_a_list_leaves_out_is_detached_and_keeps_its_frames(
    services: Services, world: World, ann: Principal
) -> None:
    async with world.running():
        made = await services.manifests.attach(ann, world.storage_id, KEY, wait_s=10)
        await attach_keys(world, "other.jsonl")
        assert await keys_attached(world) == ("other.jsonl",)
        detached = await services.manifests.get(ann, made.manifest.id)
        assert (detached.attached, detached.state, detached.frame_count) == (False, "ready", 2)
        again = await services.manifests.attach(ann, world.storage_id, KEY, wait_s=10)
    assert (again.created, again.manifest.id, again.manifest.revision) == (True, made.manifest.id, 1)
    assert await keys_attached(world) == ("other.jsonl", KEY)
    assert again.job is not None
    assert again.job.result == {"revision": 1, "changed": False}


async def test_other_storages_manifests_are_their_own(world: World) -> None:
    _, other = await make_storage(world.database, "eve")
    await attach_keys(world, "a")
    async with world.database.session() as session:
        await attach_all(session, other, ["x", "y"], world.owner_id)
        assert await attached_keys(session, [world.storage_id, other]) == {
            world.storage_id: ("a",),
            other: ("x", "y"),
        }
        await attach_all(session, other, [], world.owner_id)
        assert await attached_keys(session, [world.storage_id, other]) == {world.storage_id: ("a",)}


async def test_a_manifest_that_vanishes_while_one_waits_is_missing(
    services: Services, world: World, ann: Principal
) -> None:
    waiting = asyncio.create_task(services.manifests.attach(ann, world.storage_id, KEY, wait_s=10))

    async def queued() -> bool:
        return await world.count("jobs") == 1

    await world.until(queued)
    async with world.database.session() as session:
        await session.execute(text("DELETE FROM manifests"))
    with pytest.raises(MissingError):
        await waiting


async def test_a_job_is_cancelled_by_its_owner(services: Services, world: World, ann: Principal) -> None:
    made = await services.manifests.attach(ann, world.storage_id, KEY)
    assert made.job is not None
    assert (await services.jobs.cancel(ann, made.job.id)).state == "cancelled"
    assert (await services.manifests.get(ann, made.manifest.id)).state == "failed"


async def test_jobs_come_newest_first_and_by_pages(services: Services, world: World, ann: Principal) -> None:
    for number in range(5):
        await attach_keys(world, *(f"{index}.jsonl" for index in range(number + 1)))
    found, cursor = [], None
    while True:
        page = await services.jobs.list(ann, cursor, 2)
        found += page.items
        if (cursor := page.next_cursor) is None:
            break
    assert len({job.id for job in found}) == 5
    assert (await services.jobs.list(ann, None, 5)).next_cursor is None
    assert [job.created_at for job in found] == sorted((job.created_at for job in found), reverse=True)
    await services.jobs.cancel(ann, found[1].id)
    cancelled = await services.jobs.list(ann, None, 10, state="cancelled")
    assert [job.id for job in cancelled.items] == [found[1].id]
