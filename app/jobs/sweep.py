"""Removes the frames of revisions that are gone, some at a time, behind everybody's back."""

from app.db.frames import sweep_frames
from app.db.session import Database

SLICE_FRAMES = 10_000


async def sweep(database: Database) -> int:
    """Remove what removed revisions left behind; gives how many frames. May be cancelled at any time.

    Processes that sweep at once take different revisions. Raises `DatabaseUnavailableError`.
    """
    swept = 0
    while True:
        async with database.session() as session:
            found = await sweep_frames(session, SLICE_FRAMES)
        if found is None:
            return swept
        swept += found
