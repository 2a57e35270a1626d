"""Builds the manifest of a local folder of pictures, byte for byte as CVAT's own tool does."""

import hashlib
import mimetypes
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, assert_never

from natsort import os_sorted
from PIL import ExifTags, Image

from app.manifests.names import name_fault
from app.manifests.problems import PROBLEMS
from app.manifests.writer import Picture, split_name, write_images

Sorting = Literal["lexicographical", "natural"]
"""By code points of the absolute path (capitals first), or as file managers show it."""

RELATED = "related_images"
_SIDEWAYS = frozenset({5, 6, 7, 8})
"""EXIF orientations that swap width and height."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that looks like a picture by its name and was left out."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class FolderManifest:
    """A manifest; `paths` are its pictures and their related ones, relative to the folder."""

    text: bytes
    paths: Sequence[PurePosixPath]
    skipped: Sequence[Skipped]


def build(folder: Path, *, sorting: Sorting = "lexicographical", checksum: bool = True) -> FolderManifest:
    """Build the manifest of all pictures below a folder; reads each whole for its checksum.

    Blocks: call it in a thread. Pictures that cannot be read are left out. Raises `OSError` when the folder
    itself cannot be read.
    """
    found = list(_pictures_below(folder))
    related = _related(found)
    items = [path for path in _sorted(folder, found, sorting) if RELATED not in path.parts[:-1]]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        read = list(pool.map(lambda path: _picture(folder, path, related, checksum=checksum), items))
    pictures = [picture for picture in read if isinstance(picture, Picture)]
    kept = {path for path, picture in zip(items, read, strict=True) if isinstance(picture, Picture)}
    return FolderManifest(
        text=b"".join(write_images(pictures)),
        paths=[path for path in found if path in kept or RELATED in path.parts[:-1]],
        skipped=[skipped for skipped in read if isinstance(skipped, Skipped)],
    )


def _pictures_below(folder: Path) -> Iterator[PurePosixPath]:
    """Give the files that are pictures by their extension (no SVG, which is a program); links are no folders."""

    def refuse(error: OSError) -> None:
        if error.filename == os.fspath(folder):
            raise error

    types = mimetypes.MimeTypes()
    for parent, _, names in os.walk(folder, onerror=refuse):
        for name in names:
            kind, encoding = types.guess_type(name)
            if encoding is None and (kind or "").startswith("image/") and kind != "image/svg+xml":
                yield PurePosixPath(Path(parent, name).relative_to(folder).as_posix())


def _sorted(folder: Path, paths: Sequence[PurePosixPath], sorting: Sorting) -> Sequence[PurePosixPath]:
    root = folder.absolute().as_posix()
    match sorting:
        case "lexicographical":
            return sorted(paths, key=lambda path: f"{root}/{path}")
        case "natural":
            by_name = {f"{root}/{path}": path for path in paths}
            return [by_name[name] for name in os_sorted(by_name)]
        case _:
            assert_never(sorting)


def _related(paths: Sequence[PurePosixPath]) -> Mapping[str, list[str]]:
    """Give the pictures in `<dir>/related_images/<stem>_<ext>/` by `<dir>/<stem>_<ext>`."""
    related: dict[str, list[str]] = {}
    for path in sorted(map(str, paths)):
        holder = PurePosixPath(path).parent
        if holder.parent.name == RELATED:
            related.setdefault(str(holder.parent.parent / holder.name), []).append(path)
    return related


def _picture(
    folder: Path, path: PurePosixPath, related: Mapping[str, list[str]], *, checksum: bool
) -> Picture | Skipped:
    name, extension = split_name(str(path))
    if fault := name_fault(str(path)):
        return Skipped(ascii(str(path)), PROBLEMS[fault].message)
    try:
        width_px, height_px, digest = _look(folder / path, checksum=checksum)
    except Exception as error:  # Pillow's readers raise whatever a broken file makes them raise
        return Skipped(str(path), f"It cannot be read as a picture ({type(error).__name__}).")
    meta = {RELATED: related.get(f"{name}_{extension[1:]}", [])}
    return Picture(name, extension, width_px, height_px, meta, digest)


def _look(file: Path, *, checksum: bool) -> tuple[int, int, str | None]:
    """Give width and height after EXIF rotation, and the MD5 of the decoded bytes in the file's own mode."""
    with Image.open(file) as image:
        width_px, height_px = image.size
        if image.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS:
            width_px, height_px = height_px, width_px
        if not checksum:
            return width_px, height_px, None
        return width_px, height_px, hashlib.md5(image.tobytes(), usedforsecurity=False).hexdigest()
