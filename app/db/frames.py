"""Queries over frames, and the load of a whole revision of them by COPY."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg
from sqlalchemy import ColumnElement, Select, delete, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.globs import fixed_part, glob_pattern
from app.db.session import driver_connection
from app.db.tables import DISCARDED_REVISIONS, FRAMES
from app.errors import DatabaseUnavailableError

FrameRecord = tuple[int, int, str, int | None, int | None, str | None, str | None]
"""A row on its way in: revision id, number, key, width, height, checksum, meta as JSON text."""


@dataclass(frozen=True, slots=True)
class FrameRow:
    """One frame of a revision; `key` is the whole bucket key."""

    number: int
    key: str
    width_px: int | None
    height_px: int | None
    checksum: str | None
    meta: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class FrameFilter:
    """Which frames to list; None asks for nothing. Sizes include their bounds.

    `glob` is what `app.db.globs` reads.
    """

    prefix: str | None = None
    key: str | None = None
    glob: str | None = None
    min_width_px: int | None = None
    max_width_px: int | None = None
    min_height_px: int | None = None
    max_height_px: int | None = None


@dataclass(frozen=True, slots=True)
class FrameSlice:
    """A page of frames in manifest order; `seen` is the number to go on behind, None at the end.

    It may hold fewer frames than asked for, even none, with `seen` set.
    """

    frames: tuple[FrameRow, ...]
    seen: int | None


_COLUMNS = (
    FRAMES.c.number,
    FRAMES.c.key,
    FRAMES.c.width_px,
    FRAMES.c.height_px,
    FRAMES.c.checksum,
    FRAMES.c.meta,
)
_LAST_CHARACTER = "\U0010ffff"

# Of a revision that was just loaded the planner knows nothing and expects few rows: it would read all of it
# and sort. Every query here has an index whose order it can walk, and stops early.
_WALK_INDEXES = text("SELECT set_config('enable_sort', 'off', true)")
_RECORD = ("revision_id", "number", "key", "width_px", "height_px", "checksum", "meta")

LONGEST_LOAD_S = 24 * 3600.0
"""A load goes on for as long as the bucket gives the manifest."""
FEW = 2_000
"""A filter on keys that so many frames pass is answered from the index of keys, then sorted."""
MAX_SIZE_PX = 2**31 - 2
"""The largest that a manifest may give a picture; the column holds one more."""
WINDOW = 20_000
"""Any other filter looks at so many numbers for one page, so that no page takes long."""


async def list_frames(
    session: AsyncSession, revision_id: int, wanted: FrameFilter, after: int, limit: int
) -> FrameSlice:
    """List up to `limit` frames of a revision behind the number `after`, in manifest order.

    The cost of a page does not grow with its place. Raises `InvalidInputError` at `query:glob`.
    """
    of_key = _key_conditions(wanted)
    conditions = [*of_key, *_other_conditions(wanted)]
    await session.execute(_WALK_INDEXES)
    if not conditions:
        return await _page(session, _frames(revision_id), after, limit)
    if of_key and await _are_few(session, revision_id, of_key):
        # Materialized, or the planner may walk all numbers of the revision to save sorting a few rows.
        hits = _frames(revision_id, *conditions).order_by(FRAMES.c.key).cte("hits")
        return await _page(session, select(hits.prefix_with("MATERIALIZED")), after, limit)
    return await _scan(session, _frames(revision_id, *conditions), revision_id, after, limit)


async def frame_by_number(session: AsyncSession, revision_id: int, number: int) -> FrameRow | None:
    """Find one frame; None for a number that is not there, or whose line was set aside."""
    row = (await session.execute(_frames(revision_id, FRAMES.c.number == number))).one_or_none()
    return None if row is None else FrameRow(*row)


async def keys_between(session: AsyncSession, revision_id: int, start: int, stop: int) -> Mapping[int, str]:
    """Give number and key of the frames `[start, stop)`."""
    statement = select(FRAMES.c.number, FRAMES.c.key).where(
        FRAMES.c.revision_id == revision_id, FRAMES.c.number >= start, FRAMES.c.number < stop
    )
    return {row.number: row.key for row in await session.execute(statement)}


async def goes_on(session: AsyncSession, revision_id: int, seen: int) -> bool:
    """Tell whether there are frames behind the number `seen`."""
    behind = select(FRAMES.c.number).where(FRAMES.c.revision_id == revision_id, FRAMES.c.number > seen)
    return (await session.execute(behind.limit(1))).first() is not None


async def load_frames(session: AsyncSession, records: AsyncIterator[FrameRecord]) -> None:
    """Load frames by one COPY inside the session's transaction, as fast as they come.

    Whatever `records` raises leaves as it is, and the transaction can only be rolled back. Raises
    `DatabaseUnavailableError` when the server goes away meanwhile.
    """
    # The driver's own COPY does not begin SQLAlchemy's transaction; a statement does.
    await session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
    connection = await driver_connection(session)
    try:
        await connection.copy_records_to_table(
            FRAMES.name, records=records, columns=list(_RECORD), timeout=LONGEST_LOAD_S
        )
    except (asyncpg.AdminShutdownError, asyncpg.CrashShutdownError, asyncpg.InterfaceError) as error:
        raise DatabaseUnavailableError("The database went away while frames were loaded.") from error


def _frames(revision_id: int, *conditions: ColumnElement[bool]) -> Select[Any]:
    return select(*_COLUMNS).where(FRAMES.c.revision_id == revision_id, *conditions)


async def _page(session: AsyncSession, chosen: Select[Any], after: int, limit: int) -> FrameSlice:
    number = chosen.selected_columns["number"]
    statement = chosen.where(number > after).order_by(number).limit(limit + 1)
    frames = tuple(FrameRow(*row) for row in await session.execute(statement))
    page = frames[:limit]
    return FrameSlice(page, page[-1].number if len(frames) > limit else None)


async def _scan(
    session: AsyncSession, chosen: Select[Any], revision_id: int, after: int, limit: int
) -> FrameSlice:
    """Look at the next `WINDOW` numbers alone, or a filter that nothing passes would read everything."""
    stop = after + WINDOW
    window = FRAMES.c.number.between(after + 1, stop)
    statement = chosen.where(window).order_by(FRAMES.c.number).limit(limit)
    frames = tuple(FrameRow(*row) for row in await session.execute(statement))
    seen = frames[-1].number if len(frames) == limit else stop
    return FrameSlice(frames, seen if await goes_on(session, revision_id, seen) else None)


async def _are_few(session: AsyncSession, revision_id: int, of_key: list[ColumnElement[bool]]) -> bool:
    some = select(FRAMES.c.key).where(FRAMES.c.revision_id == revision_id, *of_key)
    some = some.order_by(FRAMES.c.key).limit(FEW + 1)
    found = (await session.execute(select(func.count()).select_from(some.subquery()))).scalar_one()
    return int(found) <= FEW


def _key_conditions(wanted: FrameFilter) -> list[ColumnElement[bool]]:
    """Give the conditions that the index of keys can answer."""
    conditions = [] if wanted.key is None else [FRAMES.c.key == wanted.key]
    for prefix in (wanted.prefix, None if wanted.glob is None else fixed_part(wanted.glob)):
        if prefix:
            conditions.append(FRAMES.c.key >= prefix)
            if following := _behind(prefix):
                conditions.append(FRAMES.c.key < following)
    return conditions


def _in_column(bound: int) -> int:
    """Give the bound of the column's type that means the same: no size is negative, and none as large."""
    return max(-1, min(bound, MAX_SIZE_PX + 1))


def _behind(prefix: str) -> str:
    """Give the first text, in the order of code points (collation C), behind all that begin with `prefix`."""
    stem = prefix.rstrip(_LAST_CHARACTER)
    if not stem:
        return ""
    following = ord(stem[-1]) + 1
    # Surrogates are no characters of a text.
    return stem[:-1] + chr(0xE000 if following == 0xD800 else following)


def _other_conditions(wanted: FrameFilter) -> list[ColumnElement[bool]]:
    bounds = (
        (wanted.min_width_px, FRAMES.c.width_px.__ge__),
        (wanted.max_width_px, FRAMES.c.width_px.__le__),
        (wanted.min_height_px, FRAMES.c.height_px.__ge__),
        (wanted.max_height_px, FRAMES.c.height_px.__le__),
    )
    conditions = [compare(_in_column(bound)) for bound, compare in bounds if bound is not None]
    if wanted.glob is not None:
        conditions.append(FRAMES.c.key.regexp_match(glob_pattern(wanted.glob)))
    return conditions


_NEXT_DISCARDED = (
    select(DISCARDED_REVISIONS.c.revision_id)
    .order_by(DISCARDED_REVISIONS.c.revision_id)
    .limit(1)
    .with_for_update(skip_locked=True)
)


async def sweep_frames(session: AsyncSession, limit: int) -> int | None:
    """Remove about `limit` frames of one revision that is gone; None when there is nothing to remove.

    The revision stays locked, and so out of everybody else's sight, until the transaction ends.
    """
    revision_id = (await session.execute(_NEXT_DISCARDED)).scalar_one_or_none()
    if revision_id is None:
        return None
    of_revision = FRAMES.c.revision_id == revision_id
    first = (await session.execute(select(func.min(FRAMES.c.number)).where(of_revision))).scalar_one()
    if first is None:
        done = delete(DISCARDED_REVISIONS).where(DISCARDED_REVISIONS.c.revision_id == revision_id)
        await session.execute(done)
        return 0
    # By number, not by LIMIT: that would walk over all the dead rows of the slices before.
    removed = delete(FRAMES).where(of_revision, FRAMES.c.number < first + limit).returning(FRAMES.c.number)
    return int((await session.execute(select(func.count()).select_from(removed.cte()))).scalar_one())
