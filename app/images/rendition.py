"""What may be asked of a picture: a box to fit into and a format; no pixel is touched here."""

from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

PictureFormat = Literal["jpeg", "webp"]

LARGEST_SIDE_PX = 4096
"""The largest width or height that may be asked for."""
MOST_SOURCE_BYTES = 64 * 1024 * 1024
"""A longer object is not read for a rendition."""
MOST_RENDITION_BYTES = 64 * 1024 * 1024
"""A longer result is not given."""

READABLE_TYPES = frozenset(
    f"image/{kind}"
    for kind in (
        "jpeg",
        "png",
        "apng",
        "webp",
        "gif",
        "tiff",
        "bmp",
        "avif",
        "jp2",
        "vnd.microsoft.icon",
        "x-portable-anymap",
        "x-portable-bitmap",
        "x-portable-graymap",
        "x-portable-pixmap",
    )
)
"""Media types of what `app.images.render` reads, as `app.storage.media` names them."""

_REVISION = 1
"""Rises with every change of `app.images.render` that gives other bytes for the same picture."""
_EXTENSIONS: dict[PictureFormat, str] = {"jpeg": "jpg", "webp": "webp"}


@dataclass(frozen=True, slots=True)
class Rendition:
    """A picture within a box of pixels, never larger than it is; None leaves a side free."""

    width_px: int | None
    height_px: int | None
    format: PictureFormat = "jpeg"

    @property
    def name(self) -> str:
        """What tells it from the other renditions of the same picture, such as `256x0.jpeg`."""
        return f"{self.width_px or 0}x{self.height_px or 0}.{self.format}"

    @property
    def media_type(self) -> str:
        """What it is served as."""
        return f"image/{self.format}"

    def key_of(self, key: str) -> str:
        """Give the key of a picture with the extension of the rendition, for the name of a download."""
        folder, slash, name = key.rpartition("/")
        stem = name.rpartition(".")[0] or name
        return f"{folder}{slash}{stem}.{_EXTENSIONS[self.format]}"


def made_by() -> str:
    """Name the code that renders: two that differ here may give different bytes for one picture."""
    return f"{_REVISION}-{version('pillow')}"
