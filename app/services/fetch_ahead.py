"""Objects of frames, read whole: a bounded number of them is fetched ahead, and they are given in order."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from app.errors import (
    FramegateError,
    InvalidKeyError,
    MissingError,
    NotAPictureError,
    ObjectArchivedError,
    ObjectMissingError,
    ObjectTooLargeError,
    PictureTooLargeError,
    RenditionsBusyError,
    ShareUsedUpError,
    ThrottledError,
)
from app.services.room import Room
from app.storage.base import ObjectMeta, ObjectRead
from app.storage.cache import MOST_OBJECT_BYTES

AHEAD = 8
"""So many frames at most are being fetched, or wait to be taken, at a time."""
LARGEST_FRAME_BYTES = 64 * 1024 * 1024

_OF_ONE_FRAME = (
    InvalidKeyError,
    ObjectMissingError,
    ObjectArchivedError,
    ObjectTooLargeError,
    NotAPictureError,
    PictureTooLargeError,
)
_TOO_MUCH = (ThrottledError, ShareUsedUpError, RenditionsBusyError)

Read = Callable[[str], Awaitable[ObjectRead]]
"""Answers a GET of a key before its first byte is taken."""


@dataclass(frozen=True, slots=True)
class Content:
    """A whole object, in the pieces in which it came."""

    pieces: Sequence[bytes]
    last_modified: datetime | None


@dataclass(frozen=True, slots=True)
class FetchedFrame:
    """One frame: what is in it, or what kept it away. `key` is None where its line was set aside."""

    number: int
    key: str | None
    content: Content | FramegateError


@dataclass(slots=True)
class _Fetch:
    """One frame under way. `needs_bytes` says what to take for it when it is fetched anew."""

    place: int
    key: str | None
    held_bytes: int
    needs_bytes: int = 0


_Outcome = Content | FramegateError | None
"""None: it is to be fetched anew in its turn, for want of room or of a place elsewhere."""


def concerns_bucket(error: FramegateError) -> bool:
    """Tell whether other frames may be expected to fail in the same way."""
    if isinstance(error, MissingError):
        return error.what != "frame"
    return not isinstance(error, _OF_ONE_FRAME)


class FetchAhead:
    """Gives the frames from the number `start` on, each read whole, in order. One reader, who closes it.

    A frame that cannot be had is given as its error, and the others go on; after `AHEAD` failures of the
    bucket in a row no further frame is asked for. A frame's memory is given back when the next one is asked
    for. One that finds no room is let go of before its bytes and fetched anew in its turn, so that no place
    at a bucket is held while a slow client takes his time; and so is one that was too much for the bucket or
    for those who make pictures smaller.
    """

    def __init__(self, read: Read, room: Room, user_id: int, start: int, keys: Sequence[str | None]) -> None:
        self._read = read
        self._room = room
        self._user_id = user_id
        self._start = start
        self._keys = keys
        self._next = 0
        self._window: deque[tuple[_Fetch, asyncio.Task[_Outcome]]] = deque()
        self._given_bytes = 0
        self._most_bytes = min(LARGEST_FRAME_BYTES, room.share_bytes)
        self._expected_bytes = self._expected(0)
        self._failures = 0
        self._given_up: FramegateError | None = None

    def __aiter__(self) -> "FetchAhead":
        """Give itself."""
        return self

    async def __anext__(self) -> FetchedFrame:
        """Give the next frame. Cancelled while it waits it can only be closed."""
        self._take_back()
        self._fetch_ahead()
        if not self._window:
            await self._fetch_one()
        if not self._window:
            return self._unasked()
        fetch, task = self._window[0]
        outcome = await task
        while outcome is None:
            outcome = await self._again(fetch)
        self._window.popleft()
        self._given_bytes = fetch.held_bytes
        self._judge(outcome)
        return FetchedFrame(self._start + fetch.place, fetch.key, outcome)

    async def aclose(self) -> None:
        """Stop whatever is under way and give all memory back; closing twice does nothing."""
        self._next = len(self._keys)
        await self._drop(0)
        self._take_back()

    def _fetch_ahead(self) -> None:
        while self._goes_on() and len(self._window) < AHEAD:
            if not self._room.take(self._user_id, self._expected_bytes):
                return
            self._begin()

    async def _fetch_one(self) -> None:
        """Begin with the frame that is wanted now, although there is no room to spare."""
        if self._goes_on():
            try:
                await self._room.wait(self._user_id, self._expected_bytes)
            except ThrottledError as error:
                self._given_up = error
            else:
                self._begin()

    def _goes_on(self) -> bool:
        return self._given_up is None and self._next < len(self._keys)

    def _begin(self) -> None:
        fetch = _Fetch(self._next, self._keys[self._next], self._expected_bytes)
        self._next += 1
        self._window.append((fetch, asyncio.create_task(self._fetch(fetch))))

    def _unasked(self) -> FetchedFrame:
        """Give the next frame with what kept all from being asked for."""
        if self._given_up is None or self._next >= len(self._keys):
            raise StopAsyncIteration
        place, self._next = self._next, self._next + 1
        key = self._keys[place]
        return FetchedFrame(self._start + place, key, _set_aside() if key is None else self._given_up)

    async def _again(self, fetch: _Fetch) -> _Outcome:
        """Fetch the first frame of the window anew, now that it is the next one and its size is known."""
        if not self._room.take(self._user_id, fetch.needs_bytes, urgent=True):
            self._next = fetch.place + 1
            await self._drop(1)
            try:
                await self._room.wait(self._user_id, fetch.needs_bytes)
            except ThrottledError as error:
                self._given_up = error
                return error
        fetch.held_bytes = fetch.needs_bytes
        return await self._fetch(fetch)

    async def _fetch(self, fetch: _Fetch) -> _Outcome:
        try:
            if fetch.key is None:
                raise _set_aside()
            return await self._whole(fetch, await self._read(fetch.key))
        except FramegateError as error:
            self._settle(fetch, 0)
            if isinstance(error, _TOO_MUCH) and not self._is_next(fetch):
                fetch.needs_bytes = self._expected_bytes
                return None
            return error

    def _is_next(self, fetch: _Fetch) -> bool:
        return fetch is self._window[0][0]

    async def _whole(self, fetch: _Fetch, read: ObjectRead) -> Content | None:
        body = read.body
        if isinstance(body, bytes):
            self._settle(fetch, len(body))
            self._expected_bytes = self._expected(len(body))
            return Content((body,), read.meta.last_modified)
        try:
            if not self._has_room(fetch, read.meta):
                return None
            return Content([bytes(piece) async for piece in body], read.meta.last_modified)
        finally:
            await body.aclose()

    def _has_room(self, fetch: _Fetch, meta: ObjectMeta) -> bool:
        if meta.size_bytes > self._most_bytes:
            raise ObjectTooLargeError(meta.key, meta.size_bytes, self._most_bytes)
        self._expected_bytes = self._expected(meta.size_bytes)
        more_bytes = meta.size_bytes - fetch.held_bytes
        urgent = self._is_next(fetch)
        if more_bytes > 0 and not self._room.take(self._user_id, more_bytes, urgent=urgent):
            fetch.needs_bytes = meta.size_bytes
            self._settle(fetch, 0)
            return False
        fetch.held_bytes += max(more_bytes, 0)
        self._settle(fetch, meta.size_bytes)
        return True

    def _expected(self, size_bytes: int) -> int:
        """Give what to reserve for the next frame: as much as the last one took, but what may come unannounced."""
        return min(max(size_bytes, MOST_OBJECT_BYTES), self._most_bytes)

    def _settle(self, fetch: _Fetch, size_bytes: int) -> None:
        """Hold what a frame takes instead of what was reserved for it."""
        self._room.give(self._user_id, fetch.held_bytes - size_bytes)
        fetch.held_bytes = size_bytes

    def _judge(self, outcome: Content | FramegateError) -> None:
        if not isinstance(outcome, FramegateError) or not concerns_bucket(outcome):
            self._failures = 0
            return
        self._failures += 1
        if self._failures >= AHEAD:
            self._given_up = outcome

    async def _drop(self, kept: int) -> None:
        """Stop all fetches of the window but the first `kept`."""
        dropped = list(self._window)[kept:]
        for _, task in dropped:
            task.cancel()
        await asyncio.gather(*(task for _, task in dropped), return_exceptions=True)
        for fetch, _ in dropped:
            self._settle(fetch, 0)
            self._window.pop()

    def _take_back(self) -> None:
        given_bytes, self._given_bytes = self._given_bytes, 0
        self._room.give(self._user_id, given_bytes)


def _set_aside() -> MissingError:
    return MissingError("frame", "The manifest has no such frame: its line was set aside.")
