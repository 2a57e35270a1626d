"""How the service and a rendering process speak: a fixed head and that many bytes, both ways."""

import struct
from enum import IntEnum

from app.images.rendition import PictureFormat, Rendition

READY = b"\x06"
"""What a process sends once it can render."""

_REQUEST = struct.Struct("!HHBI")
_ANSWER = struct.Struct("!BI")
REQUEST_HEAD_BYTES = _REQUEST.size
ANSWER_HEAD_BYTES = _ANSWER.size
_FORMATS: tuple[PictureFormat, ...] = ("jpeg", "webp")


class Outcome(IntEnum):
    """What an answer's bytes are: a picture, or a sentence on why there is none."""

    MADE = 0
    NO_PICTURE = 1
    TOO_LARGE = 2


def request_head(wanted: Rendition, length_bytes: int) -> bytes:
    """Give the head of a request, before the picture's bytes."""
    form = _FORMATS.index(wanted.format)
    return _REQUEST.pack(wanted.width_px or 0, wanted.height_px or 0, form, length_bytes)


def read_request_head(head: bytes) -> tuple[Rendition, int]:
    """Give what is wanted, and how many bytes follow."""
    width, height, form, length_bytes = _REQUEST.unpack(head)
    return Rendition(width or None, height or None, _FORMATS[form]), length_bytes


def answer_head(outcome: Outcome, length_bytes: int) -> bytes:
    """Give the head of an answer."""
    return _ANSWER.pack(outcome, length_bytes)


def read_answer_head(head: bytes) -> tuple[Outcome, int]:
    """Give what an answer is, and how many bytes follow; raises ValueError for what is none."""
    outcome, length_bytes = _ANSWER.unpack(head)
    return Outcome(outcome), length_bytes
