"""From a byte request's query to the rendition that it asks for; nothing where it asks for the object itself."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from app.errors import Fault, InvalidInputError
from app.images.rendition import LARGEST_SIDE_PX, PictureFormat, Rendition

_FORMATS: Mapping[str | None, PictureFormat] = {None: "jpeg", "jpeg": "jpeg", "webp": "webp"}


def rendition_of(query: Mapping[str, str]) -> Rendition | None:
    """Give what `width`, `height` and `format` ask for; None without any of them.

    Raises `InvalidInputError` at each that is at fault.
    """
    width, height, form = query.get("width"), query.get("height"), query.get("format")
    if width is None and height is None and form is None:
        return None
    return _rendition(width, height, form)


@lru_cache(256)
def _rendition(width: str | None, height: str | None, form: str | None) -> Rendition:
    faults = [
        Fault(f"query:{name}", f"This is a whole number from 1 to {LARGEST_SIDE_PX}, in pixels.")
        for name, text in (("width", width), ("height", height))
        if not _is_side(text)
    ]
    if form not in _FORMATS:
        faults.append(Fault("query:format", "This is jpeg or webp."))
    if faults:
        raise InvalidInputError(*faults)
    sides = [None if text is None else int(text) for text in (width, height)]
    return Rendition(sides[0], sides[1], _FORMATS[form])


def _is_side(text: str | None) -> bool:
    return text is None or (
        re.fullmatch(r"[0-9]{1,4}", text) is not None and 1 <= int(text) <= LARGEST_SIDE_PX
    )


def _side(name: str) -> dict[str, Any]:
    return {
        "in": "query",
        "name": name,
        "required": False,
        "schema": {"type": "integer", "minimum": 1, "maximum": LARGEST_SIDE_PX},
        "description": f"A smaller picture of at most so many pixels in {name}; its shape is kept.",
    }


PARAMETERS: list[dict[str, Any]] = [
    _side("width"),
    _side("height"),
    {
        "in": "query",
        "name": "format",
        "required": False,
        "schema": {"type": "string", "enum": ["jpeg", "webp"]},
        "description": "What the smaller picture is encoded as: `jpeg` unless said otherwise.",
    },
]
"""How the OpenAPI document describes them."""
