"""Answers of object listings."""

from datetime import datetime
from typing import Literal

from app.api.schemas.fields import View, shown_as
from app.storage.base import ListedObject


class ObjectAnswer(View):
    """One entry of a listing; the facts are null on prefixes."""

    model_config = shown_as(
        key="pets/beagle.jpg",
        type="object",
        size_bytes=199_680,
        etag='"9b2cf535f27731c974343645a3985328"',
        last_modified="2026-03-01T09:30:00Z",
        media_type="image/jpeg",
    )

    key: str
    type: Literal["object", "prefix"]
    size_bytes: int | None
    etag: str | None
    """As in the header, quotes included."""
    last_modified: datetime | None
    media_type: str | None
    """What it would be served as."""

    @classmethod
    def of(cls, item: ListedObject) -> "ObjectAnswer":
        """Show an entry."""
        return cls(
            key=item.key,
            type="prefix" if item.is_prefix else "object",
            size_bytes=item.size_bytes,
            etag=item.etag,
            last_modified=item.last_modified,
            media_type=item.media_type,
        )
