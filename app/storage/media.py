"""Which media types Framegate serves, and which of them a browser may show in place. Never sniffed.

One table for stored types and for keys: a stored `Content-Type` is believed only if it stands here, else the
key's extension decides by the same table, else the bytes are an attachment of no particular type.
"""

import re
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class MediaType:
    """What to send as `Content-Type`, and whether a browser may show it in place."""

    content_type: str
    inline: bool


# Point clouds have no registered type. `application/pcd` would be unregistered as well, `application/x-pcd`
# says so; annotation clients fetch them as bytes, and no browser shows one.
_EXTENSIONS: dict[str, tuple[str, ...]] = {
    "image/jpeg": ("jpg", "jpeg", "jpe", "jfif"),
    "image/png": ("png",),
    "image/apng": ("apng",),
    "image/gif": ("gif",),
    "image/webp": ("webp",),
    "image/avif": ("avif",),
    "image/bmp": ("bmp", "dib"),
    "image/tiff": ("tif", "tiff"),
    "image/heic": ("heic",),
    "image/heif": ("heif",),
    "image/jp2": ("jp2",),
    "image/jxl": ("jxl",),
    "image/vnd.microsoft.icon": ("ico",),
    "image/x-portable-anymap": ("pnm",),
    "image/x-portable-bitmap": ("pbm",),
    "image/x-portable-graymap": ("pgm",),
    "image/x-portable-pixmap": ("ppm",),
    "image/x-tga": ("tga",),
    "video/mp4": ("mp4", "m4v"),
    "video/webm": ("webm",),
    "video/ogg": ("ogv",),
    "video/quicktime": ("mov", "qt"),
    "video/x-matroska": ("mkv",),
    "video/x-msvideo": ("avi",),
    "video/mpeg": ("mpg", "mpeg"),
    "video/mp2t": ("ts", "m2ts"),
    "video/x-ms-wmv": ("wmv",),
    "video/x-flv": ("flv",),
    "video/3gpp": ("3gp",),
    "application/x-pcd": ("pcd",),
    "application/pdf": ("pdf",),
    "text/plain": ("txt", "log"),
    "application/json": ("json", "geojson"),
    "application/x-ndjson": ("jsonl", "ndjson"),
    "application/zip": ("zip",),
}

# Spellings that buckets hold, and the type of the table that they mean.
_SYNONYMS = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
    "image/x-ms-bmp": "image/bmp",
    "image/x-icon": "image/vnd.microsoft.icon",
    "video/avi": "video/x-msvideo",
    "video/x-m4v": "video/mp4",
    "application/pcd": "application/x-pcd",
    "application/x-zip-compressed": "application/zip",
    "application/jsonl": "application/x-ndjson",
}

# RFC 8259 and its line-wise kin are UTF-8 by definition and take no charset parameter.
_CHARSET = frozenset({"text/plain"})
_BY_EXTENSION = {extension: essence for essence, all_of in _EXTENSIONS.items() for extension in all_of}

# HTML, SVG and XML run scripts in whoever shows them: known by name or ending, they are never shown in place,
# and a harmless extension does not rescue a stored type that says what they are.
_ACTIVE_ESSENCE = re.compile(r"text/html|.*[/+]xml(?:[+-].*)?|image/svg.*|application/xhtml.*|text/xsl")
_CHARSET_PARAMETER = re.compile(r";\s*charset\s*=\s*\"?([A-Za-z0-9_.:-]{1,40})\"?\s*(?:;|$)", re.IGNORECASE)

UNKNOWN = MediaType("application/octet-stream", inline=False)


@lru_cache(4096)
def media_type(stored: str | None, key: str) -> MediaType:
    """Give what an object is served as, from its stored `Content-Type` and its key."""
    essence, parameters = _split(stored or "")
    essence = _SYNONYMS.get(essence, essence)
    if essence in _EXTENSIONS:
        return MediaType(essence + _charset(essence, parameters), inline=True)
    if _ACTIVE_ESSENCE.fullmatch(essence):
        return UNKNOWN
    by_key = _BY_EXTENSION.get(_extension(key))
    return MediaType(by_key, inline=True) if by_key else UNKNOWN


def _split(stored: str) -> tuple[str, str]:
    essence, semicolon, parameters = stored.partition(";")
    return essence.strip().lower(), semicolon + parameters


def _charset(essence: str, parameters: str) -> str:
    """Keep a text's charset, drop every other parameter: no type of the table needs one to be read."""
    found = _CHARSET_PARAMETER.search(parameters) if essence in _CHARSET else None
    return f"; charset={found[1].lower()}" if found else ""


def _extension(key: str) -> str:
    return key.rpartition("/")[2].rpartition(".")[2].lower() if "." in key.rpartition("/")[2] else ""
