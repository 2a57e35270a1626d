"""One read of one object: from what the reader asked to exact bytes, whatever the bucket makes of it.

The decisions are pure (`_interpret`): an answer becomes an `ObjectRead`, or the word for what to try next.
`Reading` does the asking, and closes every answer whose body is not handed on.
"""

from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import assert_never

from msgspec import structs

from app.errors import PreconditionFailedError, RangeNotSatisfiableError, UpstreamError
from app.storage.answers import (
    body_length,
    content_range,
    declared_length,
    entity_tag,
    object_meta,
    range_header,
    text_header,
)
from app.storage.base import (
    PLAIN_READ,
    Answer,
    ByteRange,
    Method,
    ObjectMeta,
    ObjectRead,
    ReadOptions,
    Suffix,
)
from app.storage.preconditions import (
    evaluate,
    forwardable_tag,
    if_range_holds,
    is_strong,
    resolve_range,
    weak_match,
)
from app.storage.streams import close_body, cut
from app.storage.upstream import Upstream

MAX_STEPS = 5
"""Requests that one read may take: two and a fallback are normal, more only while an object is replaced."""


class _Next(Enum):
    """What to try after an answer that is no result."""

    WHOLE = auto()
    """The part is not to be had, or not wanted any more: get the whole object."""
    SIZE = auto()
    """The bucket did not say how long the body is: ask by HEAD."""
    REFUSED_RANGE = auto()
    """416: learn size and validators by HEAD, then decide conditions first."""
    UNPINNED = auto()
    """412 to our own If-Match: ask without it, since some servers find no match for their own tag."""
    CHANGED = auto()
    """The object was replaced between two requests: begin again."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """How to ask: a range to send, a tag to send as If-None-Match, and what a HEAD before has told."""

    wanted: ByteRange | Suffix | None
    tag: str | None = None
    known: ObjectMeta | None = None
    pinned: bool = True

    def headers(self) -> list[tuple[bytes, bytes]]:
        headers = []
        if self.wanted is not None:
            headers.append((b"range", range_header(self.wanted)))
        if self.tag is not None:
            headers.append((b"if-none-match", self.tag.encode("ascii")))
        if (pin := self.pin) is not None:
            headers.append((b"if-match", pin.encode("latin-1")))
        return headers

    @property
    def pin(self) -> str | None:
        """The tag to send as If-Match, where the object has one that may be compared."""
        etag = self.known.etag if self.known is not None and self.pinned else None
        return etag if etag is not None and is_strong(etag) else None


class Reading:
    """One read of `key`; used once. Raises `StorageError` and what `get` and `head` name."""

    def __init__(self, upstream: Upstream, key: str, options: ReadOptions) -> None:
        self._upstream = upstream
        self._key = key
        self._options = options

    async def head(self) -> ObjectRead:
        """Answer a HEAD: the object's facts, its conditions decided, its range ignored.

        Raises `PreconditionFailedError`.
        """
        meta = await self._facts()
        return _judged(meta, self._options) or ObjectRead(meta)

    async def get(self) -> ObjectRead:
        """Answer a GET before the first byte of a long body; the caller closes the body.

        Raises `PreconditionFailedError`, `RangeNotSatisfiableError`.
        """
        step: _Plan | ObjectRead
        if self._options is PLAIN_READ:
            answer = await self._upstream.ask("GET", self._key)
            size_bytes = body_length(answer)
            if answer.status == 200 and size_bytes is not None:
                return ObjectRead(object_meta(self._key, answer, size_bytes), answer.body)
            step = await self._next(_Plan(None), await self._outcome(_Plan(None), answer))
        else:
            step = await self._begin()
        for _ in range(MAX_STEPS):
            if isinstance(step, ObjectRead):
                return step
            step = await self._follow(step)
        if isinstance(step, ObjectRead):
            return step
        raise UpstreamError(
            "The object changes faster than it can be read, or the bucket contradicts itself."
        )

    async def _begin(self) -> _Plan | ObjectRead:
        suffixes = self._upstream.provider.capabilities.suffix_ranges
        if isinstance(self._options.range, Suffix) and not suffixes:
            return await self._from_facts(in_part=True)
        return _Plan(self._options.range, tag=forwardable_tag(self._options))

    async def _follow(self, plan: _Plan) -> _Plan | ObjectRead:
        answer = await self._upstream.ask("GET", self._key, plan.headers())
        return await self._next(plan, await self._outcome(plan, answer))

    async def _next(self, plan: _Plan, outcome: "ObjectRead | _Next") -> _Plan | ObjectRead:
        match outcome:
            case ObjectRead():
                return outcome
            case _Next.WHOLE:
                return _Plan(None)
            case _Next.SIZE:
                return replace(plan, known=await self._facts())
            case _Next.REFUSED_RANGE:
                return await self._from_facts(in_part=False)
            case _Next.UNPINNED:
                return replace(plan, pinned=False)
            case _Next.CHANGED:
                return await self._begin()
            case _:
                assert_never(outcome)

    async def _outcome(self, plan: _Plan, answer: Answer) -> ObjectRead | _Next:
        """Make what can be made of an answer; one that is no result is closed."""
        outcome: ObjectRead | _Next | None = None
        try:
            outcome = _interpret(self._key, self._options, plan, answer)
        finally:
            if not isinstance(outcome, ObjectRead) or not outcome.body:
                await close_body(answer.body)
        return outcome

    async def _from_facts(self, *, in_part: bool) -> _Plan | ObjectRead:
        """Decide by a HEAD; where bytes are wanted after all, plan to get the part (pinned) or the whole."""
        meta = await self._facts()
        if (judged := _judged(meta, self._options)) is not None:
            return judged
        part = _part(self._options, meta)
        if part is None and meta.size_bytes == 0:
            return ObjectRead(meta)
        return _Plan(ByteRange(*part), known=meta) if part and in_part else _Plan(None)

    async def _facts(self) -> ObjectMeta:
        answer = await self._upstream.ask("HEAD", self._key)
        await close_body(answer.body)
        size_bytes = declared_length(answer)
        if answer.status == 200 and size_bytes is None:
            return await self._facts_of_first_byte()
        if answer.status != 200 or size_bytes is None:
            raise _no_length()
        return object_meta(self._key, answer, size_bytes)

    async def _facts_of_first_byte(self) -> ObjectMeta:
        """Ask a server whose HEAD tells no length for one byte, and so for a Content-Range."""
        answer = await self._upstream.ask("GET", self._key, [(b"range", range_header(ByteRange(0, 1)))])
        await close_body(answer.body)
        given = content_range(answer)
        if answer.status == 200 and given is None and body_length(answer) is not None:
            return object_meta(self._key, answer, body_length(answer) or 0)
        if answer.status not in (200, 206) or given is None:
            raise _no_length()
        return object_meta(self._key, answer, given.size_bytes)


def from_memory(whole: ObjectRead, body: bytes, method: Method, options: ReadOptions) -> ObjectRead:
    """Answer a read from an object that is here as a whole: conditions first, then the range.

    Raises `PreconditionFailedError`, `RangeNotSatisfiableError`.
    """
    if (judged := _judged(whole.meta, options)) is not None:
        return judged
    if method == "HEAD":
        return ObjectRead(whole.meta)
    part = _part(options, whole.meta)
    return whole if part is None else ObjectRead(whole.meta, body[part[0] : part[1]], part)


def _interpret(key: str, options: ReadOptions, plan: _Plan, answer: Answer) -> ObjectRead | _Next:
    match answer.status:
        case 200:
            return _from_whole(key, options, plan, answer)
        case 206 if plan.wanted is not None:
            return _from_part(key, options, plan, answer)
        case 304 if plan.tag is not None:
            return _from_unmodified(key, plan.tag, answer)
        case 412 if plan.pin is not None:
            return _Next.UNPINNED
        case 416 if plan.wanted is not None:
            return _Next.REFUSED_RANGE
    raise UpstreamError(f"The bucket answered {answer.status} to a request that cannot have that answer.")


def _from_whole(key: str, options: ReadOptions, plan: _Plan, answer: Answer) -> ObjectRead | _Next:
    # `rclone serve s3` answers a range with its bytes and its Content-Range, but with status 200.
    if plan.wanted is not None and content_range(answer) is not None:
        return _from_part(key, options, plan, answer)
    size_bytes = body_length(answer)
    if size_bytes is None:
        if plan.known is None:
            return _Next.SIZE
        size_bytes = plan.known.size_bytes
    meta = object_meta(key, answer, size_bytes)
    if _contradicts(plan.known, meta) or _unpacked(plan.known, meta):
        return _Next.CHANGED
    if (judged := _judged(meta, options)) is not None:
        return judged
    part = _part(options, meta)
    if part is None and body_length(answer) is not None:
        return ObjectRead(meta, answer.body)
    return ObjectRead(meta, cut(answer.body, *(part or (0, size_bytes))), part)


def _from_part(key: str, options: ReadOptions, plan: _Plan, answer: Answer) -> ObjectRead | _Next:
    given = content_range(answer)
    if given is None:
        return _Next.WHOLE
    meta = object_meta(key, answer, given.size_bytes)
    if _contradicts(plan.known, meta):
        return _Next.CHANGED
    if (judged := _judged(meta, options)) is not None:
        return judged
    part = _part(options, meta)
    # Another part than the asked one is no answer; no part at all is wanted when If-Range does not hold.
    if part is None or part != (given.start, given.stop):
        return _Next.WHOLE
    if body_length(answer) is None:  # what ends somewhere is held against what was told
        return ObjectRead(meta, cut(answer.body, 0, part[1] - part[0]), part)
    return ObjectRead(meta, answer.body, part)


def _from_unmodified(key: str, tag: str, answer: Answer) -> ObjectRead | _Next:
    etag = entity_tag(text_header(answer, b"etag")) or tag
    if not weak_match(etag, tag):
        return _Next.WHOLE
    return ObjectRead(structs.replace(object_meta(key, answer, 0), etag=etag), not_modified=True)


def _no_length() -> UpstreamError:
    return UpstreamError("The bucket does not say how long the object is.")


def _judged(meta: ObjectMeta, options: ReadOptions) -> ObjectRead | None:
    verdict = evaluate(options, meta)
    match verdict:
        case "proceed":
            return None
        case "not_modified":
            return ObjectRead(meta, not_modified=True)
        case "failed":
            raise PreconditionFailedError
        case _:
            assert_never(verdict)


def _part(options: ReadOptions, meta: ObjectMeta) -> tuple[int, int] | None:
    """Give the bytes to answer as a part; None: the whole. Raises `RangeNotSatisfiableError`."""
    if options.range is None:
        return None
    if options.if_range is not None and not if_range_holds(options.if_range, meta):
        return None
    part = resolve_range(options.range, meta.size_bytes)
    if part is None:
        raise RangeNotSatisfiableError(meta.size_bytes, meta.etag)
    return part if part[0] < part[1] else None


def _contradicts(known: ObjectMeta | None, meta: ObjectMeta) -> bool:
    """Tell whether two answers speak of different objects under one key."""
    return known is not None and (
        known.size_bytes != meta.size_bytes
        or _differ(known.etag, meta.etag)
        or _differ(known.last_modified, meta.last_modified)
    )


def _unpacked(known: ObjectMeta | None, meta: ObjectMeta) -> bool:
    """Tell whether somebody on the way decodes what is stored: the size that we know is not these bytes'."""
    return known is not None and known.content_encoding is not None and meta.content_encoding is None


def _differ(one: object | None, other: object | None) -> bool:
    return one is not None and other is not None and one != other
