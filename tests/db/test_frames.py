"""Pages of frames: complete, in order, and of the same cost at the end as at the start."""

import asyncio
import fnmatch
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from sqlalchemy import text

from app.db import frames as queries
from app.db.frames import FrameFilter, FrameRow, load_frames
from app.db.globs import glob_pattern
from app.db.manifests import reserve_revision
from app.db.session import Database
from app.errors import InvalidInputError

KEYS = [
    "a/1.jpg", "a/10.jpg", "a/2.jpg", "a/b/1.png", "A/1.jpg", "ab.jpg", "b/ä.jpg", "b/%_x.jpg", "b/[1].jpg",
    "b/\U0010ffff.jpg", "a", "z.jpg", "b/\\d.jpg", "b/a.b^c$.jpg", "c d/e-f.jpg", "c d/e+f.jpg",
]  # fmt: skip
ROWS_READ = text("SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'frames'")
GAP = 3
"""The line of this number was set aside."""


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A pool on this test's own database."""
    database = Database(database_url)
    yield database
    await database.aclose()


async def load(database: Database, keys: list[str], skip: int = -1) -> int:
    """Load frames of these keys as a revision; every number has its own size."""
    async with database.session() as session:
        revision_id = await reserve_revision(session)

        async def records() -> AsyncIterator[queries.FrameRecord]:
            for number, key in enumerate(keys):
                if number != skip:
                    yield (revision_id, number, key, number + 1, 2 * number + 1, None, f'{{"n":{number}}}')

        await load_frames(session, records())
    return revision_id


@pytest_asyncio.fixture
async def revision(database: Database) -> int:
    """Few frames with strange keys, between two other revisions with the same ones."""
    await load(database, KEYS)
    revision_id = await load(database, KEYS, skip=GAP)
    await load(database, KEYS)
    return revision_id


async def pages(
    database: Database, revision_id: int, wanted: FrameFilter, limit: int
) -> list[tuple[FrameRow, ...]]:
    after, found = -1, []
    while True:
        async with database.session() as session:
            page = await queries.list_frames(session, revision_id, wanted, after, limit)
        assert len(page.frames) <= limit
        found.append(page.frames)
        if page.seen is None:
            return found
        assert page.seen > after
        after = page.seen


async def numbers(
    database: Database,
    revision_id: int,
    wanted: FrameFilter,
    limit: int = 3,
) -> list[int]:
    return [frame.number for page in await pages(database, revision_id, wanted, limit) for frame in page]


def matching(test: "re.Pattern[str] | str") -> list[int]:
    return [
        number
        for number, key in enumerate(KEYS)
        if number != GAP and (key.startswith(test) if isinstance(test, str) else test.fullmatch(key))
    ]


async def test_all_frames_come_once_and_in_order(database: Database, revision: int) -> None:
    for limit in (1, 3, 14, 15, 16, 1000):
        found = await pages(database, revision, FrameFilter(), limit)
        assert [frame.number for page in found for frame in page] == [n for n in range(len(KEYS)) if n != GAP]
        assert all(found), "no page is empty"


async def test_a_frame_has_all_that_was_loaded(database: Database, revision: int) -> None:
    async with database.session() as session:
        found = await queries.frame_by_number(session, revision, 5)
        missing = await queries.frame_by_number(session, revision, GAP)
    assert found == FrameRow(5, "ab.jpg", 6, 11, None, {"n": 5})
    assert missing is None


async def test_keys_of_neighbours_come_by_number(database: Database, revision: int) -> None:
    async with database.session() as session:
        assert await queries.keys_between(session, revision, 2, 5) == {2: "a/2.jpg", 4: "A/1.jpg"}


@pytest.mark.parametrize("few", [0, 5, 2000])
async def test_a_prefix_is_taken_by_the_letter(
    database: Database, revision: int, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(queries, "FEW", few)
    monkeypatch.setattr(queries, "WINDOW", 4)
    for prefix in (
        "a",
        "a/",
        "A/",
        "b/",
        "b/%",
        "b/ä",
        "b/\U0010ffff",
        "\U0010ffff",
        "c d/e",
        "zz",
        "",
        "b/\\",
        "\ud7ff",
    ):
        assert await numbers(database, revision, FrameFilter(prefix=prefix)) == matching(prefix), prefix


async def test_a_key_is_found_whole(database: Database, revision: int) -> None:
    assert await numbers(database, revision, FrameFilter(key="a")) == [10]
    assert await numbers(database, revision, FrameFilter(key="a/")) == []


GLOBS = (
    ("*.jpg", "[^/]*\\.jpg"),
    ("**.jpg", ".*\\.jpg"),
    ("a/*.jpg", "a/[^/]*\\.jpg"),
    ("a/?.jpg", "a/[^/]\\.jpg"),
    ("a/**", "a/.*"),
    ("**/[0-9].*", ".*/[0-9]\\.[^/]*"),
    ("**/[!0-9]*", ".*/[^0-9][^/]*"),
    ("b/[[]1].jpg", "b/\\[1\\]\\.jpg"),
    ("b/[^$.]*", "b/[\\^$.].*"),
    ("b/a.b^c$.jpg", "b/a\\.b\\^c\\$\\.jpg"),
    ("b/\\d.jpg", "b/\\\\d\\.jpg"),
    ("c d/e[+-]f.jpg", "c d/e[+-]f\\.jpg"),
    ("c d/e(f|+).jpg", "none"),
    ("b/[ä-ü].jpg", "b/[ä-ü]\\.jpg"),
    ("b/[1.jpg", "none"),
    ("a", "a"),
    ("a[!x]1.jpg", "none"),
    ("A*", "A[^/]*"),
)


@pytest.mark.parametrize("few", [0, 2000])
async def test_a_glob_matches_whole_keys_as_a_shell_does(
    database: Database, revision: int, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(queries, "FEW", few)
    for glob, pattern in GLOBS:
        found = await numbers(database, revision, FrameFilter(glob=glob))
        assert found == matching(re.compile(pattern)), glob


def test_globs_without_folders_are_those_of_the_shell() -> None:
    names = [key for key in KEYS if "/" not in key]
    for glob in ("*", "a*", "?", "[a-b]*", "[!z]*"):
        expected = [name for name in names if fnmatch.fnmatchcase(name, glob)]
        assert [name for name in names if re.fullmatch(glob_pattern(glob)[1:-1], name)] == expected


@pytest.mark.parametrize("glob", ["[]", "[!]", "a[z-a]", "?" * 17, "x" * 257, "a\x00", "\ud800"])
def test_a_glob_that_means_nothing_is_refused(glob: str) -> None:
    with pytest.raises(InvalidInputError, match="query:glob"):
        glob_pattern(glob)


async def test_sizes_are_bounds_that_include_themselves(database: Database, revision: int) -> None:
    wanted = FrameFilter(min_width_px=3, max_width_px=9, min_height_px=9, max_height_px=13)
    assert await numbers(database, revision, wanted) == [4, 5, 6]


async def test_filters_hold_together(database: Database, revision: int) -> None:
    wanted = FrameFilter(prefix="a", glob="**.jpg", min_width_px=3)
    assert await numbers(database, revision, wanted) == [2, 5]


async def test_a_filter_that_little_passes_looks_at_a_bounded_part_for_each_page(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "WINDOW", 10)
    revision_id = await load(database, [f"{number}.jpg" for number in range(95)])
    found = await pages(database, revision_id, FrameFilter(min_width_px=91), 100)
    assert [len(page) for page in found] == [0] * 9 + [5]


async def test_a_page_reads_its_own_part_alone_even_right_after_the_load(database: Database) -> None:
    """Without statistics the planner read the whole revision and sorted it."""
    revision_id = await load(database, [f"{number % 100:03}/{number:06}.jpg" for number in range(30_000)])
    bounds = {
        FrameFilter(): 101,
        FrameFilter(key="055/025055.jpg"): 2,
        FrameFilter(prefix="099/"): 2 * 300,
        FrameFilter(prefix="0"): queries.FEW + queries.WINDOW + 2,
        FrameFilter(glob="**/*7.jpg", min_width_px=5): queries.WINDOW + 2,
    }
    for wanted, bound in bounds.items():
        for after in (-1, 15_000, 29_800):
            async with database.session() as session:
                before = (await session.execute(ROWS_READ)).scalar_one()
                await queries.list_frames(session, revision_id, wanted, after, 100)
                assert (await session.execute(ROWS_READ)).scalar_one() - before <= bound, (wanted, after)


async def test_frames_that_cannot_be_loaded_leave_none(database: Database) -> None:
    async def records() -> AsyncIterator[queries.FrameRecord]:
        for number in range(10_000):
            yield (1, number, "k", None, None, None, None)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        async with database.session() as session:
            await load_frames(session, records())
    async with database.session() as session:
        assert (await session.execute(text("SELECT count(*) FROM frames"))).scalar_one() == 0


async def test_sweeping_takes_discarded_revisions_alone_and_slice_by_slice(database: Database) -> None:
    gone, kept = await load(database, KEYS), await load(database, KEYS)
    async with database.session() as session:
        await session.execute(
            text("INSERT INTO discarded_revisions VALUES (:id), (:id + 1000)"), {"id": gone}
        )
    swept = []
    while True:
        async with database.session() as session:
            found = await queries.sweep_frames(session, 5)
        if found is None:
            break
        swept.append(found)
    assert swept == [5, 5, 5, 1, 0, 0]
    assert await numbers(database, gone, FrameFilter()) == []
    assert len(await numbers(database, kept, FrameFilter())) == len(KEYS)
    async with database.session() as session:
        assert (await session.execute(text("SELECT count(*) FROM discarded_revisions"))).scalar_one() == 0


async def test_who_sweeps_leaves_to_others_what_is_being_swept(database: Database) -> None:
    for _ in range(2):
        gone = await load(database, KEYS)
        async with database.session() as session:
            await session.execute(text("INSERT INTO discarded_revisions VALUES (:id)"), {"id": gone})
    async with asyncio.timeout(5), database.session() as first, database.session() as second:
        assert await queries.sweep_frames(first, 100) == len(KEYS)
        assert await queries.sweep_frames(second, 100) == len(KEYS)
        assert await queries.sweep_frames(second, 100) == 0
        assert await queries.sweep_frames(second, 100) is None
