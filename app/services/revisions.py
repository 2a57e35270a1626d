"""Cursors into one revision of a manifest: a page of another revision is refused, never mixed in."""

from app.errors import StaleRevisionError
from app.services import cursors

BEFORE_ALL = -1
_MOST = 2**31 - 1


def place_in_revision(cursor: str | None, revision_id: int | None, number: int | None) -> int:
    """Give the place that a cursor of `revision_id` goes on behind.

    Raises `StaleRevisionError` naming the current `number` for another revision's, `InvalidInputError` at
    `query:cursor` for a bent one.
    """
    if cursor is None:
        return BEFORE_ALL
    of_revision, place = cursors.decode(cursor, int, int)
    if not 0 <= place <= _MOST:
        raise cursors.bent()
    if of_revision != revision_id:
        raise StaleRevisionError(number)
    return int(place)
