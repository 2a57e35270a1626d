"""Frames for those who may see them: pages, single ones, and the way to their objects."""

import asyncio

import pytest
from sqlalchemy import event, text

from app.db import frames as queries
from app.db.frames import FrameFilter
from app.errors import InvalidInputError, MissingError, NoImageError, StaleRevisionError
from app.jobs.sweep import sweep
from app.services.access import Principal
from app.services.frames import BLOCK, FramePlace
from tests.jobs.conftest import HEADER, World, lines
from tests.services.conftest import Services

ALL = FrameFilter()
KEY = "set/manifest.jsonl"
NAMES = [f"{number:04}" for number in range(300)]


async def register(
    services: Services, world: World, caller: Principal, body: bytes, etag: str = '"e1"'
) -> int:
    """Register a manifest and give its id."""
    world.bucket.put(KEY, body, etag)
    async with world.running():
        made = await services.manifests.attach(caller, world.storage_id, KEY, wait_s=10)
        if not made.created:
            made = await services.manifests.sync(caller, made.manifest.id, wait_s=10)
    assert made.manifest.state == "ready"
    return made.manifest.id


async def test_all_frames_come_once_by_pages(services: Services, world: World, ann: Principal) -> None:
    manifest_id = await register(services, world, ann, lines(*NAMES))
    keys, cursor = [], None
    while True:
        page = await services.frames.list(ann, manifest_id, ALL, cursor, 70, revision=1)
        assert page.revision == 1
        keys += [frame.key for frame in page.items]
        if (cursor := page.next_cursor) is None:
            break
    assert keys == [f"set/{name}.jpg" for name in NAMES]


async def test_filters_are_passed_on(services: Services, world: World, ann: Principal) -> None:
    manifest_id = await register(services, world, ann, lines(*NAMES))
    page = await services.frames.list(ann, manifest_id, FrameFilter(prefix="set/02", glob="**7.jpg"), None, 4)
    assert [frame.number for frame in page.items] == [207, 217, 227, 237]


@pytest.mark.parametrize(
    ("wanted", "pointer"),
    [
        (FrameFilter(prefix="a\x00"), "query:prefix"),
        (FrameFilter(prefix="\ud800"), "query:prefix"),
        (FrameFilter(key="a\x00"), "query:key"),
        (FrameFilter(glob="a\x00"), "query:glob"),
        (FrameFilter(glob="[z-a]"), "query:glob"),
    ],
)
async def test_filters_that_mean_nothing_are_refused(
    services: Services, world: World, ann: Principal, wanted: FrameFilter, pointer: str
) -> None:
    manifest_id = await register(services, world, ann, lines("a"))
    with pytest.raises(InvalidInputError) as caught:
        await services.frames.list(ann, manifest_id, wanted, None, 10)
    assert [fault.pointer for fault in caught.value.faults] == [pointer]


async def test_sizes_beyond_all_pictures_are_no_error(
    services: Services, world: World, ann: Principal
) -> None:
    manifest_id = await register(services, world, ann, HEADER + b'{"name":"a","extension":".j","width":5}\n')
    for bound, expected in ((2**31, 0), (2**63, 0), (-(2**70), 1)):
        page = await services.frames.list(ann, manifest_id, FrameFilter(min_width_px=bound), None, 10)
        assert len(page.items) == expected


async def test_a_set_aside_line_keeps_its_number_and_is_missing(
    services: Services, world: World, ann: Principal
) -> None:
    manifest_id = await register(
        services, world, ann, lines("a") + b"bad\n" + lines("c").removeprefix(HEADER)
    )
    assert (await services.frames.get(ann, manifest_id, 2)).key == "set/c.jpg"
    assert await services.frames.locate(ann, manifest_id, 2) == FramePlace(world.storage_id, "set/c.jpg")
    for number in (1, 3, BLOCK, -1, 2**31 - 1, 2**31, 2**70):
        for call in (services.frames.get, services.frames.locate):
            with pytest.raises(MissingError) as caught:
                await call(ann, manifest_id, number)
            assert caught.value.what == "frame"


async def test_neighbours_are_located_without_a_query(
    services: Services, world: World, ann: Principal
) -> None:
    manifest_id = await register(services, world, ann, lines(*NAMES))
    await services.frames.locate(ann, manifest_id, BLOCK)
    statements: list[str] = []
    event.listen(
        world.database.engine.sync_engine, "before_cursor_execute", lambda *told: statements.append(told[2])
    )
    for number in range(BLOCK, 2 * BLOCK):
        place = await services.frames.locate(ann, manifest_id, number, revision=1)
        assert place.key == f"set/{NAMES[number]}.jpg"
    assert statements == []
    assert (await services.frames.locate(ann, manifest_id, 299)).key == "set/0299.jpg"
    assert statements


async def test_a_located_frame_follows_its_manifests_revision(
    services: Services, world: World, ann: Principal
) -> None:
    manifest_id = await register(services, world, ann, lines("old"))
    assert (await services.frames.locate(ann, manifest_id, 0)).key == "set/old.jpg"
    await register(services, world, ann, lines("new"), '"e2"')

    async def heard() -> bool:
        return (await services.frames.locate(ann, manifest_id, 0)).key == "set/new.jpg"

    await world.until(heard)
    with pytest.raises(StaleRevisionError):
        await services.frames.locate(ann, manifest_id, 0, revision=1)


async def test_a_revision_that_is_gone_is_never_answered_from(
    services: Services, world: World, ann: Principal
) -> None:
    """A process that has not heard of a new revision yet must not take the swept one's gaps for its own."""
    manifest_id = await register(services, world, ann, lines(*NAMES))
    await services.frames.locate(ann, manifest_id, 0)
    services.changes._listeners.clear()  # deaf, but connected
    await register(services, world, ann, lines(*NAMES[:200], "new"), '"e2"')
    async with world.running():

        async def swept() -> bool:
            return await world.count("frames") == 201

        await world.until(swept)
    assert (await services.frames.locate(ann, manifest_id, 200)).key == "set/new.jpg"


@pytest.mark.parametrize("query", ["list_frames", "frame_by_number"])
async def test_frames_that_are_swept_between_two_queries_are_not_missed(
    services: Services, world: World, ann: Principal, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    manifest_id = await register(services, world, ann, lines("old"))
    real, calls = getattr(queries, query), []

    async def late(*asked: object) -> object:
        calls.append(asked)
        if len(calls) == 1:
            await register(services, world, ann, lines("new"), '"e2"')
            await sweep(world.database)
        return await real(*asked)

    monkeypatch.setattr(queries, query, late)
    if query == "list_frames":
        page = await services.frames.list(ann, manifest_id, ALL, None, 10)
        assert ([frame.key for frame in page.items], page.revision) == (["set/new.jpg"], 2)
    else:
        assert (await services.frames.get(ann, manifest_id, 0)).key == "set/new.jpg"
    assert len(calls) == 2


async def test_a_page_is_never_mixed_of_two_revisions(
    services: Services, world: World, ann: Principal
) -> None:
    manifest_id = await register(services, world, ann, lines(*NAMES), '"e0"')
    stop = asyncio.Event()
    seen: set[int] = set()

    async def look() -> None:
        while not stop.is_set():
            page = await services.frames.list(ann, manifest_id, ALL, None, 1000)
            letters = {frame.key.split("/")[1][0] for frame in page.items}
            assert len(page.items) == 300
            assert len(letters) == 1
            seen.add(page.revision)

    async with world.running():
        looking = asyncio.create_task(look())
        for turn, letter in enumerate("abcdef"):
            world.bucket.put(KEY, lines(*(letter + name for name in NAMES)), f'"e{turn + 1}"')
            await services.manifests.sync(ann, manifest_id, wait_s=10)
        stop.set()
        await looking
    assert len(seen) > 1


async def test_a_key_frame_of_a_video_has_no_image(services: Services, world: World, ann: Principal) -> None:
    manifest_id = await register(services, world, ann, lines("a"))
    async with world.database.session() as session:
        await session.execute(text("UPDATE revisions SET kind = 'video'"))
    with pytest.raises(NoImageError):
        await services.frames.locate(ann, manifest_id, 0)


@pytest.mark.parametrize(
    ("start", "stop", "found"),
    [
        (0, 1, (0, 1)),
        (0, 36, (0, 36)),
        (100, 200, (100, 200)),
        (BLOCK - 1, 2 * BLOCK + 1, (BLOCK - 1, 2 * BLOCK + 1)),
        (0, 500, (0, 300)),
        (290, 310, (290, 300)),
        (299, 300, (299, 300)),
    ],
)
async def test_neighbours_are_located_together(
    services: Services, world: World, ann: Principal, start: int, stop: int, found: tuple[int, int]
) -> None:
    manifest_id = await register(services, world, ann, lines(*NAMES))
    located = await services.frames.locate_range(ann, manifest_id, start, stop, revision=1)
    assert (located.storage_id, located.start) == (world.storage_id, start)
    assert list(located.keys) == [f"set/{name}.jpg" for name in NAMES[slice(*found)]]


async def test_neighbours_are_located_together_without_a_query(
    services: Services, world: World, ann: Principal
) -> None:
    manifest_id = await register(services, world, ann, lines(*NAMES))
    await services.frames.locate_range(ann, manifest_id, 0, 250)
    statements: list[str] = []
    event.listen(
        world.database.engine.sync_engine, "before_cursor_execute", lambda *told: statements.append(told[2])
    )
    await services.frames.locate_range(ann, manifest_id, 36, 250)
    assert statements == []


async def test_lines_set_aside_are_gaps_and_only_the_last_frame_is_the_end(
    services: Services, world: World, ann: Principal
) -> None:
    body = lines("a") + b"bad\n" * (BLOCK + 5) + lines("z").removeprefix(HEADER) + b"bad\n"
    manifest_id = await register(services, world, ann, body)
    last = BLOCK + 6
    for start, stop, keys in (
        (0, 3, ["set/a.jpg", None, None]),
        (5, 8, [None] * 3),
        (BLOCK - 1, BLOCK, [None]),
        (last - 1, last + 9, [None, "set/z.jpg"]),
    ):
        assert list((await services.frames.locate_range(ann, manifest_id, start, stop)).keys) == keys
    for start in (last + 1, last + 2, 2**31 - 2, 2**31 - 1, 2**31, 2**70):
        with pytest.raises(MissingError) as caught:
            await services.frames.locate_range(ann, manifest_id, start, start + 500)
        assert caught.value.what == "frame"


async def test_located_neighbours_are_of_one_revision_that_is_not_gone(
    services: Services, world: World, ann: Principal
) -> None:
    manifest_id = await register(services, world, ann, lines(*NAMES))
    await services.frames.locate_range(ann, manifest_id, 0, 36)
    services.changes._listeners.clear()  # deaf, but connected
    await register(services, world, ann, lines(*(f"new{name}" for name in NAMES[:140])), '"e2"')
    async with world.running():

        async def swept() -> bool:
            return await world.count("frames") == 140

        await world.until(swept)
    located = await services.frames.locate_range(ann, manifest_id, 100, 200)
    assert list(located.keys) == [f"set/new{name}.jpg" for name in NAMES[100:140]]


async def test_nobody_locates_neighbours_that_he_may_not_see_or_that_are_no_pictures(
    services: Services, world: World, ann: Principal, bob: Principal, root: Principal
) -> None:
    manifest_id = await register(services, world, ann, lines("a"))
    assert (await services.frames.locate_range(root, manifest_id, 0, 36)).keys == ["set/a.jpg"]
    with pytest.raises(MissingError):
        await services.frames.locate_range(bob, manifest_id, 0, 36)
    with pytest.raises(StaleRevisionError):
        await services.frames.locate_range(ann, manifest_id, 0, 36, revision=2)
    async with world.database.session() as session:
        await session.execute(text("UPDATE revisions SET kind = 'video'"))
    for reset in services.changes._resets:
        reset()
    with pytest.raises(NoImageError):
        await services.frames.locate_range(ann, manifest_id, 0, 36)
