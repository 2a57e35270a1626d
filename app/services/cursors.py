"""Opaque cursors: a page's last place, as a text that clients hand back unread."""

import base64
import binascii
from typing import Any

import orjson

from app.errors import Fault, InvalidInputError

LONGEST_CURSOR = 4096
"""Characters; the longest place is a key of 1,024 bytes."""


def encode(*place: Any) -> str:
    """Give the cursor of a place (JSON values)."""
    return base64.urlsafe_b64encode(orjson.dumps(place)).decode().rstrip("=")


def decode(cursor: str, *types: type) -> list[Any]:
    """Read a cursor whose place has these types; raises `InvalidInputError` at `query:cursor`."""
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        place = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (UnicodeEncodeError, binascii.Error, orjson.JSONDecodeError):
        raise bent() from None
    fits = isinstance(place, list) and len(place) == len(types)
    if not fits or not all(type(value) is kind for value, kind in zip(place, types, strict=True)):
        raise bent()
    return list(place)


def decode_id(cursor: str) -> int:
    """Read a cursor that is one row id; raises `InvalidInputError` at `query:cursor`."""
    row_id = int(decode(cursor, int)[0])
    if not 0 <= row_id < 2**63:
        raise bent()
    return row_id


def bent() -> InvalidInputError:
    """Give the error of a cursor that was not made here, or not for this list."""
    return InvalidInputError(Fault("query:cursor", "This cursor was not given by this list."))
