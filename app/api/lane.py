"""The short way for byte requests: recognised on the wire, answered by the same functions as FastAPI's routes."""

import re
from collections.abc import Sequence
from urllib.parse import unquote_to_bytes

from app.api.delivery import (
    IMAGE_PATH,
    LARGEST_ID,
    OBJECT_PATH,
    ByteRequest,
    image_reply,
    object_reply,
    object_reply_at_hand,
)
from app.api.edge import Edge, Passage
from app.api.failures import problem_of
from app.api.replies import Reply
from app.lifespan import Services
from app.storage.base import Method

_WITH_BODY = frozenset({b"content-length", b"transfer-encoding", b"expect"})


class Errand:
    """One byte request that the lane took: what was asked, and its passage through the edge."""

    __slots__ = ("found", "is_object", "passage", "path", "refusal", "request")

    def __init__(
        self, request: ByteRequest, found: re.Match[bytes], is_object: bool, passage: Passage
    ) -> None:
        self.request = request
        self.found = found
        self.is_object = is_object
        self.passage = passage
        self.refusal: Reply | None = None
        """What the edge answers in place of the lane."""
        raw = found[0]
        self.path = (unquote_to_bytes(raw) if b"%" in raw else raw).decode("utf-8", "replace")


class Lane:
    """Answers GET and HEAD of objects and images by itself; everything else is for the ASGI app."""

    def __init__(self, edge: Edge, services: Services) -> None:
        self._edge = edge
        self._services = services

    def take(self, method: Method, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Errand | None:
        """Take a request that is the lane's, None for any other; `target` and `headers` as they were sent.

        Whoever gets an errand gives it back to `leave`, whatever comes of it.
        """
        path, _, query = target.partition(b"?")
        is_object = True
        found = OBJECT_PATH.fullmatch(path)
        if found is None:
            is_object = False
            found = IMAGE_PATH.fullmatch(path)
        if found is None or not 0 < int(found[1]) <= LARGEST_ID or b"#" in target:
            return None
        named = dict(headers)
        if not _WITH_BODY.isdisjoint(named):
            return None  # a body that nobody asked for: the server reads over it on the long way
        passage = self._edge.enter(named)
        errand = Errand(ByteRequest(method, named, query), found, is_object, passage)
        errand.refusal = self._edge.refusal(passage, method, errand.path, named)
        return errand

    def at_hand(self, errand: Errand) -> Reply | None:
        """Give an answer that nothing must be waited for, else None: then `reply` gives it. Raises nothing."""
        if errand.refusal is not None or not (errand.is_object and self._services.objects.any_at_hand):
            return errand.refusal
        found = errand.found
        try:
            return object_reply_at_hand(self._services, errand.request, int(found[1]), found[2])
        except Exception as error:
            return problem_of(error, errand.passage.request_id, self._services)

    async def reply(self, errand: Errand) -> Reply:
        """Give the answer; the caller sends it and closes its stream. Only cancellation is raised."""
        if errand.refusal is not None:
            return errand.refusal
        found = errand.found
        try:
            if errand.is_object:
                return await object_reply(self._services, errand.request, int(found[1]), found[2])
            return await image_reply(self._services, errand.request, int(found[1]), int(found[2]))
        except Exception as error:
            return problem_of(error, errand.passage.request_id, self._services)

    def abort(self, errand: Errand, error: Exception) -> None:
        """Note why an answer is cut off after its head was sent."""
        self._edge.note_abort(errand.passage, error)

    def leave(self, errand: Errand) -> None:
        """Note the end of an errand."""
        route = "object" if errand.is_object else "image"
        self._edge.leave(errand.passage, route, errand.request.method, errand.path)
