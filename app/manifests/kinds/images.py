"""Manifests of pictures and point clouds (`{"type":"images"}`), versions 1.0 and 1.1."""

import json
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from app.manifests.exact import MAX_DEPTH, Line, read_line, read_value
from app.manifests.names import MAX_KEY_BYTES, is_plain, name_fault
from app.manifests.problems import LineFault, shown

MAX_PIXELS = 2**31 - 2
"""One less than the column holds, so that every bound that lies above all pictures has a value."""
MAX_META_BYTES = 64 * 1024
"""A page has up to 1,000 frames, and is answered from memory."""
MAX_CHECKSUM_CHARACTERS = 128
_METAS_KEPT = 1024
_KEPT_META_BYTES = 256


class Item(msgspec.Struct, frozen=True, gc=False):
    """One frame of a manifest; `key` is the whole bucket key, `meta` a JSON object as text.

    A struct and no dataclass: there are a million of them, and they are made in a sixth of the time.
    """

    number: int
    key: str
    width_px: int | None
    height_px: int | None
    checksum: str | None
    meta: str | None


class _Fields(msgspec.Struct, gc=False):
    name: str
    extension: str
    width: int | UnsetType | None = UNSET
    height: int | UnsetType | None = UNSET
    meta: Raw = Raw()
    checksum: str | UnsetType | None = UNSET


class ImageLines:
    """Reads item lines; names are relative to `folder`, which is empty or ends with a slash."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._room_bytes = MAX_KEY_BYTES - len(folder.encode())
        self._decode = msgspec.json.Decoder(_Fields).decode
        self._metas: dict[bytes, str | None] = {b"": None}

    def read(self, line: bytes, number: int) -> Item:
        """Read the line of frame `number`; raises the `LineFault` that is found first."""
        return self._read_fast(line, number) or self._read_exactly(line, number)

    def _read_fast(self, line: bytes, number: int) -> Item | None:
        """Read an ordinary line; None for one that has, or only may have, anything odd in it."""
        try:
            fields = self._decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        name = fields.name + fields.extension
        checksum = fields.checksum or None
        ordinary = (
            is_plain(name)
            and 4 * len(name) <= self._room_bytes  # no character has more than four bytes
            and fields.name
            and fields.extension[:1] == "."
            and "/" not in fields.extension
            and _has_distinct_keys(line, fields)
            and _is_plain_size(fields.width)
            and _is_plain_size(fields.height)
            and (checksum is None or _is_plain_checksum(checksum))
        )
        if not ordinary:
            return None
        try:
            meta = self._meta(bytes(fields.meta))
        except (LineFault, UnicodeDecodeError):
            return None
        return Item(number, self._folder + name, fields.width or None, fields.height or None, checksum, meta)

    def _meta(self, raw: bytes) -> str | None:
        """Give a meta as it is stored; most of them are the same few, which are read once."""
        if raw in self._metas:
            return self._metas[raw]
        if raw.count(b"[") + raw.count(b"{") >= MAX_DEPTH:
            raise LineFault("too-deep", 0, MAX_DEPTH)  # perhaps; the exact way counts
        meta = _stored(read_value(raw.decode()))
        if len(raw) <= _KEPT_META_BYTES and len(self._metas) < _METAS_KEPT:
            self._metas[raw] = meta
        return meta

    def _read_exactly(self, line: bytes, number: int) -> Item:
        found = read_line(line)
        key = self._folder + self._name(found)
        width, height = _size(found, "width"), _size(found, "height")
        checksum = _checksum(found)
        try:
            meta = _stored(found.fields.get("meta"))
        except LineFault as fault:
            raise LineFault(fault.code, found.place("meta"), *fault.facts) from None
        return Item(number, key, width, height, checksum, meta)

    def _name(self, line: Line) -> str:
        name, extension = _text(line, "name"), _text(line, "extension")
        if extension and (not extension.startswith(".") or "/" in extension):
            raise LineFault("bad-extension", line.place("extension"), shown(extension))
        whole = name and name + extension
        if fault := name_fault(whole):
            raise LineFault(fault, line.place("name"))
        if len(whole.encode()) > self._room_bytes:
            raise LineFault("name-too-long", line.place("name"), MAX_KEY_BYTES)
        return whole


def _has_distinct_keys(line: bytes, fields: _Fields) -> bool:
    """Tell that a line holds each known key once and no other, by counting; False says nothing.

    Each key has a colon of its own, and colons within texts only make the count too high. The decoder alone
    would let the last of two equal keys win.
    """
    known = 2 + (fields.width is not UNSET) + (fields.height is not UNSET) + (fields.checksum is not UNSET)
    raw = bytes(fields.meta)
    return line.count(b":") == known + (raw != b"") + raw.count(b":")


def _is_plain_size(value: int | UnsetType | None) -> bool:
    return value is None or value is UNSET or 0 < value <= MAX_PIXELS


def _is_plain_checksum(checksum: str) -> bool:
    return len(checksum) <= MAX_CHECKSUM_CHARACTERS and checksum.isprintable()


def _text(line: Line, field: str) -> str:
    if field not in line.fields:
        raise LineFault("missing-field", line.place(field), field)
    value = line.fields[field]
    if not isinstance(value, str):
        raise LineFault("wrong-type", line.place(field), field, "text")
    return value


def _checksum(line: Line) -> str | None:
    if line.fields.get("checksum") is None:
        return None
    checksum = _text(line, "checksum")
    if len(checksum) > MAX_CHECKSUM_CHARACTERS:
        raise LineFault("checksum-too-long", line.place("checksum"), MAX_CHECKSUM_CHARACTERS)
    return checksum or None


def _size(line: Line, field: str) -> int | None:
    value = line.fields.get(field)
    if value is None:
        return None
    if type(value) is not int or not 0 < value <= MAX_PIXELS:
        raise LineFault("bad-size", line.place(field), field)
    return value


def _stored(meta: Any) -> str | None:
    """Write a meta as it is stored: JSON text in ASCII, which jsonb takes whatever it holds."""
    if meta is None:
        return None
    if not isinstance(meta, dict):
        raise LineFault("wrong-type", 0, "meta", "object")
    text = json.dumps(meta, separators=(",", ":"))
    if len(text) > MAX_META_BYTES:
        raise LineFault("meta-too-large", 0, MAX_META_BYTES)
    return text
