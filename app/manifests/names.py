"""Which names a manifest may give its frames, and the key that a name becomes."""

import re
from array import array

MAX_KEY_BYTES = 1024
"""S3's limit in UTF-8 bytes; see `app.storage.keys`, which asks the same of every key."""

# C0, DEL, C1, and lone surrogates, which are no text and have no UTF-8 form.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_DOT_SEGMENT = re.compile(r"(?:^|/)\.\.?(?:/|$)")


def folder_of(manifest_key: str) -> str:
    """Give what names are relative to: the manifest's own folder with its final slash, or nothing."""
    return manifest_key[: manifest_key.rfind("/") + 1]


def is_plain(name: str) -> bool:
    """Tell quickly that a name has no fault; False says nothing."""
    return name.isprintable() and "\\" not in name and "/." not in name and name[:1] not in {".", "/", ""}


def name_fault(name: str) -> str | None:
    """Give the code of what is wrong with a name (extension included), None when it can be asked for."""
    if not name:
        return "empty-name"
    if _UNPRINTABLE.search(name):
        return "control-character"
    if "\\" in name:
        return "backslash"
    if name.startswith("/"):
        return "absolute-name"
    return "dot-segment" if _DOT_SEGMENT.search(name) else None


class DistinctNames:
    """Remembers which names were seen, in about 16 bytes for each.

    Names are told apart by 64 bits of Python's keyed hash: among a million names the chance that any new one
    is taken for an old one is below one in ten million. Many small tables, so that none takes long to grow.
    """

    _TABLES = 256
    _FIRST_SLOTS = 16

    def __init__(self) -> None:
        self._tables = [array("Q", bytes(8 * self._FIRST_SLOTS)) for _ in range(self._TABLES)]
        self._counts = [0] * self._TABLES

    def add(self, name: str) -> bool:
        """Remember a name; False when it was seen before."""
        digest = hash(name) & 0xFFFF_FFFF_FFFF_FFFF or 1
        table = self._tables[digest >> 56]
        last = len(table) - 1
        slot = digest & last
        while held := table[slot]:
            if held == digest:
                return False
            slot = (slot + 1) & last
        table[slot] = digest
        self._note(digest >> 56)
        return True

    def _note(self, index: int) -> None:
        self._counts[index] += 1
        if self._counts[index] * 3 > len(self._tables[index]) * 2:
            self._tables[index] = _grown(self._tables[index])


def _grown(table: "array[int]") -> "array[int]":
    larger = array("Q", bytes(16 * len(table)))
    last = len(larger) - 1
    for digest in filter(None, table):
        slot = digest & last
        while larger[slot]:
            slot = (slot + 1) & last
        larger[slot] = digest
    return larger
