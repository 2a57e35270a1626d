"""Bodies and answers of users, tokens and signed URLs."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from app.api.schemas.fields import Body, DisplayName, Id, View, shown_as
from app.api.schemas.storages import Key
from app.db.access import TokenRow
from app.images.rendition import LARGEST_SIDE_PX, PictureFormat
from app.services.access import NewToken
from app.services.signed_urls import LONGEST_S, SHORTEST_S


class MeAnswer(View):
    """The caller."""

    model_config = shown_as(id=1, name="ada", role="user", token_id=1)

    id: int
    name: str
    role: Literal["admin", "user", "worker"]
    token_id: int


class TokenBody(Body):
    """A further token of the caller's own."""

    name: DisplayName | None = None
    """What it is for; shown in lists."""
    expires: Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,8}[smhd]$")] | None = None
    """How long it lives, such as `30d` or `12h`; null: until it is revoked."""


class TokenAnswer(View):
    """A token as lists show it; the token itself was shown once."""

    model_config = shown_as(
        id=2, name="laptop", created_at="2026-03-01T09:30:00Z", expires_at="2026-03-31T09:30:00Z"
    )

    id: int
    name: str
    created_at: datetime
    expires_at: datetime | None


class NewTokenAnswer(TokenAnswer):
    """A token just made."""

    model_config = shown_as(
        id=2,
        name="laptop",
        created_at="2026-03-01T09:30:00Z",
        expires_at="2026-03-31T09:30:00Z",
        token="fg_...",  # noqa: S106 - none, but where one stands
    )

    token: str
    """Shown this once."""

    @classmethod
    def made(cls, new: NewToken) -> "NewTokenAnswer":
        """Show a new token."""
        return cls.model_validate({**token_facts(new.row), "token": new.text})


def token_facts(row: TokenRow) -> dict[str, Any]:
    """Give what lists show of a token."""
    return {
        "id": row.id,
        "name": row.name,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
    }


_Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE_PX)]


class SignedUrlBody(Body):
    """An object to sign a read of, whole or as a smaller picture: by storage and key, or by manifest and number."""

    storage_id: Id | None = None
    key: Key | None = None
    manifest_id: Id | None = None
    number: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    expires_in_s: Annotated[int, Field(ge=SHORTEST_S, le=LONGEST_S)] = 3600
    """Seconds until it ends."""
    width: _Side | None = None
    """A smaller picture of at most so many pixels in width."""
    height: _Side | None = None
    """A smaller picture of at most so many pixels in height."""
    format: PictureFormat | None = None
    """What the smaller picture is encoded as."""

    def rendition(self) -> dict[str, str]:
        """Give the parameters of the smaller picture that is asked for; none for the object itself."""
        asked = {"width": self.width, "height": self.height, "format": self.format}
        return {name: str(value) for name, value in asked.items() if value is not None}

    @model_validator(mode="after")
    def _one_way(self) -> "SignedUrlBody":
        by_key = (self.storage_id is not None, self.key is not None)
        by_frame = (self.manifest_id is not None, self.number is not None)
        if not (all(by_key) and not any(by_frame)) and not (all(by_frame) and not any(by_key)):
            raise ValueError("give storage_id and key, or manifest_id and number")
        return self


class SignedUrlAnswer(View):
    """A URL that reads one object without a token."""

    model_config = shown_as(
        url="https://frames.example.org/v1/storages/1/objects/pets/beagle.jpg"
        "?expires=1772361000&token_id=2&signature=...",
        expires_at="2026-03-01T10:30:00Z",
    )

    url: str
    expires_at: datetime


SIGNED_URL_EXAMPLES: dict[str, Any] = {
    "object": {"summary": "An object by its key", "value": {"storage_id": 1, "key": "pets/beagle.jpg"}},
    "frame": {
        "summary": "A frame by its number, for ten minutes",
        "value": {"manifest_id": 1, "number": 0, "expires_in_s": 600},
    },
    "thumbnail": {
        "summary": "A thumbnail of a frame",
        "value": {"manifest_id": 1, "number": 0, "width": 256, "height": 256},
    },
}
