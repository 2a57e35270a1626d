"""Memory that bodies are received into and handed on from without a copy, used again when nobody looks at it.

A piece of a body is a view into a slab. A slab is free when no view of it is left, which its reference count
tells: whoever holds a piece, or a part of one, holds the slab through it, even if it is a server's write queue.
"""

import sys
from collections import deque

SLAB_BYTES = 262_144
_KEPT = 64
"""So many slabs are kept, used or not; beyond that they are made anew and left to Python."""
_LOOKED_AT = 4
_OURS = 2
"""References to a free slab: the pool's, and the one that counts them."""


class Slabs:
    """The slabs of one event loop."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: deque[bytearray] = deque()

    def take(self) -> bytearray:
        """Give a slab that nobody looks at; its bytes are what they were."""
        for _ in range(min(_LOOKED_AT, len(self._kept))):
            self._kept.rotate(-1)
            if sys.getrefcount(self._kept[-1]) == _OURS:
                return self._kept[-1]
        slab = bytearray(SLAB_BYTES)
        if len(self._kept) < _KEPT:
            self._kept.append(slab)
        return slab


class Filling:
    """A slab that one connection receives into, piece behind piece, until it is full."""

    __slots__ = ("_at", "_slabs", "_view")

    def __init__(self, slabs: Slabs) -> None:
        self._slabs = slabs
        self._view = memoryview(slabs.take())
        self._at = 0

    def room(self) -> memoryview:
        """Give the place for the next bytes, a quarter of a slab at least."""
        if self._at > SLAB_BYTES * 3 // 4:
            self._view = memoryview(self._slabs.take())
            self._at = 0
        return self._view[self._at :]

    def received(self, count: int) -> memoryview:
        """Give the piece of `count` bytes that was just received."""
        start, self._at = self._at, self._at + count
        return self._view[start : self._at].toreadonly()
