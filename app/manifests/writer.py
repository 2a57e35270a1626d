"""Writes manifests of pictures exactly as CVAT's own tool does: compact, ASCII, one `\\n` after each line."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

VERSION = "1.1"


@dataclass(frozen=True, slots=True)
class Picture:
    """One frame to write; `name` is its path from the manifest's folder, without `extension`.

    Sizes are pixels after EXIF rotation; what is None is left out of the line.
    """

    name: str
    extension: str
    width_px: int | None = None
    height_px: int | None = None
    meta: Mapping[str, Any] | None = None
    checksum: str | None = None


def write_images(pictures: Iterable[Picture]) -> Iterator[bytes]:
    """Give the lines of a manifest of pictures, the two header lines first."""
    yield _line({"version": VERSION})
    yield _line({"type": "images"})
    for picture in pictures:
        yield _line(_fields(picture))


def split_name(name: str) -> tuple[str, str]:
    """Split a path into name and extension, as Python's `splitext` (and so CVAT) does."""
    stem_start = name.rfind("/") + 1
    leading_dots = len(name) - stem_start - len(name[stem_start:].lstrip("."))
    dot = name.rfind(".", stem_start + leading_dots)
    return (name, "") if dot < 0 else (name[:dot], name[dot:])


def _fields(picture: Picture) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": picture.name,
        "extension": picture.extension,
        "width": picture.width_px,
        "height": picture.height_px,
        "meta": picture.meta,
        "checksum": picture.checksum,
    }
    return {field: value for field, value in fields.items() if value is not None}


def _line(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"
