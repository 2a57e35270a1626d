"""Frames of a manifest: pages of them, one of them, and the way from a number to its object's key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cachetools import LRUCache

from app.db import frames as queries
from app.db.changes import Changes, Remembered
from app.db.frames import FrameFilter, FrameRow
from app.db.manifests import ManifestRow, manifest_by_id, revision_exists
from app.db.session import Database
from app.errors import MissingError, NoImageError, NotReadyError, StaleRevisionError
from app.services import cursors
from app.services.access import Principal
from app.services.manifests import seen
from app.services.revisions import place_in_revision
from app.storage.keys import check_prefix

BLOCK = 128
"""So many neighbours are read with one frame's key: who shows one picture shows the next ones soon."""
BLOCKS_KEPT = 1024
MAX_NUMBER = 2**31 - 1


@dataclass(frozen=True, slots=True)
class FrameList:
    """One page of frames in manifest order, and the number of the revision that it is a page of.

    A filtered page may be short, even empty, with a cursor left.
    """

    items: Sequence[FrameRow]
    next_cursor: str | None
    revision: int


@dataclass(frozen=True, slots=True)
class FramePlace:
    """Where the object of a frame lies."""

    storage_id: int
    key: str


@dataclass(frozen=True, slots=True)
class FrameRange:
    """Where the objects of neighbouring frames lie, from the number `start` on, all of one revision."""

    storage_id: int
    start: int
    keys: Sequence[str | None]
    """None where the manifest's line was set aside."""


class FrameService:
    """Gives frames of ready manifests to those who may see them."""

    def __init__(self, database: Database, changes: Changes) -> None:
        self._database = database
        self._manifests: Remembered[int, ManifestRow] = Remembered(changes, {"manifests"}, self._load)
        self._blocks: LRUCache[tuple[int, int], Mapping[int, str]] = LRUCache(BLOCKS_KEPT)

    async def list(
        self,
        principal: Principal,
        manifest_id: int,
        wanted: FrameFilter,
        cursor: str | None,
        limit: int,
        *,
        revision: int | None = None,
    ) -> FrameList:
        """List one page of frames.

        Raises `MissingError`, `NotReadyError`, `StaleRevisionError` when `revision` or the cursor's own is no
        longer the current one, `InvalidInputError` at `query:cursor`, `query:prefix`, `query:glob`.
        """
        check_prefix(wanted.prefix or "")
        check_prefix(wanted.key or "", "query:key")
        while True:
            async with self._database.session() as session:
                manifest = seen(principal, await manifest_by_id(session, manifest_id))
                revision_id, number = _current(manifest, revision)
                after = place_in_revision(cursor, revision_id, number)
                page = await queries.list_frames(session, revision_id, wanted, after, limit)
                # Looked at last: while the revision is there, none of its frames has been swept.
                if await revision_exists(session, revision_id):
                    break
        following = None if page.seen is None else cursors.encode(revision_id, page.seen)
        return FrameList(page.frames, following, number)

    async def get(
        self, principal: Principal, manifest_id: int, number: int, *, revision: int | None = None
    ) -> FrameRow:
        """Give one frame.

        Raises `MissingError` (for a set-aside line too), `NotReadyError`, `StaleRevisionError`.
        """
        if not 0 <= number <= MAX_NUMBER:
            raise _no_frame(number)
        while True:
            async with self._database.session() as session:
                manifest = seen(principal, await manifest_by_id(session, manifest_id))
                revision_id, _ = _current(manifest, revision)
                frame = await queries.frame_by_number(session, revision_id, number)
                if frame is not None:
                    return frame
                if await revision_exists(session, revision_id):
                    raise _no_frame(number)

    async def locate(
        self, principal: Principal, manifest_id: int, number: int, *, revision: int | None = None
    ) -> FramePlace:
        """Give the key of a frame's object; no query while its block and its manifest are remembered.

        Raises `MissingError`, `NotReadyError`, `StaleRevisionError`, `NoImageError` for a video.
        """
        if not 0 <= number <= MAX_NUMBER:
            raise _no_frame(number)
        while True:
            manifest = seen(principal, await self._manifests.get(manifest_id))
            revision_id, _ = _current(manifest, revision)
            if manifest.kind == "video":
                raise NoImageError
            block = await self._block(revision_id, number // BLOCK)
            if block is None:
                self._manifests.forget(manifest_id)
            elif number in block:
                return FramePlace(manifest.storage_id, block[number])
            else:
                raise _no_frame(number)

    async def locate_range(
        self, principal: Principal, manifest_id: int, start: int, stop: int, *, revision: int | None = None
    ) -> FrameRange:
        """Give the keys of the frames `[start, stop)`; fewer where the manifest ends before.

        No query while their blocks and the manifest are remembered, but for one at the manifest's end. Raises
        `MissingError` where it ends before `start`, and what `locate` raises.
        """
        while True:
            manifest = seen(principal, await self._manifests.get(manifest_id))
            revision_id, _ = _current(manifest, revision)
            if manifest.kind == "video":
                raise NoImageError
            keys = await self._keys(revision_id, start, min(stop, MAX_NUMBER))
            if keys is None:
                self._manifests.forget(manifest_id)
            elif keys:
                return FrameRange(manifest.storage_id, start, keys)
            else:
                raise MissingError("frame", f"The manifest has no frame {start}, and none behind it.")

    async def _keys(self, revision_id: int, start: int, stop: int) -> Sequence[str | None] | None:
        """Give the keys of `[start, stop)` up to the last frame, None for a gap; None when the revision is gone."""
        found: dict[int, str] = {}
        for index in range(start // BLOCK, -(-stop // BLOCK)):
            block = await self._block(revision_id, index)
            if block is None:
                return None
            found.update(block)
        last = max((number for number in found if number < stop), default=-1)
        if last < stop - 1:
            async with self._database.session() as session:
                behind = await queries.goes_on(session, revision_id, stop - 1)
                if not await revision_exists(session, revision_id):
                    return None
            stop = stop if behind else last + 1
        return [found.get(number) for number in range(start, stop)]

    async def _block(self, revision_id: int, index: int) -> Mapping[int, str] | None:
        """Give the keys of a block by number; None when the revision is gone."""
        block = self._blocks.get((revision_id, index))
        if block is not None:
            return block
        start = index * BLOCK
        stop = min(start + BLOCK, MAX_NUMBER)
        async with self._database.session() as session:
            block = await queries.keys_between(session, revision_id, start, stop)
            if not await revision_exists(session, revision_id):
                return None
        self._blocks[revision_id, index] = block
        return block

    async def _load(self, manifest_id: int) -> ManifestRow | None:
        async with self._database.session() as session:
            return await manifest_by_id(session, manifest_id)


def _current(manifest: ManifestRow, revision: int | None) -> tuple[int, int]:
    """Give id and number of the revision that is served."""
    if manifest.state != "ready" or manifest.revision_id is None or manifest.revision is None:
        raise NotReadyError(manifest.state, _NOT_READY[manifest.state])
    if revision is not None and revision != manifest.revision:
        raise StaleRevisionError(manifest.revision)
    return manifest.revision_id, manifest.revision


_NOT_READY: Mapping[str, str] = {
    "pending": "The manifest is being registered; look at its job.",
    "failed": "The manifest could not be registered; look at its problems and its job.",
    "ready": "The manifest has no frames to show.",
}


def _no_frame(number: int) -> MissingError:
    return MissingError("frame", f"The manifest has no frame {number}, or its line was set aside.")
