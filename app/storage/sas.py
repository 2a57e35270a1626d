"""What an Azure shared access signature (SAS) says of itself. Nothing here shows one, in a text or a repr.

https://learn.microsoft.com/rest/api/storageservices/create-service-sas, .../create-account-sas
"""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from urllib.parse import parse_qsl

OLDEST_VERSION = date(2015, 4, 5)
"""Before this service version a SAS decides how requests are read in ways that are not ours."""

REMEDY = "Make a SAS token with Read and List on Container and Object."


@dataclass(frozen=True, slots=True)
class Sas:
    """The grants of a SAS; None where it leaves them to a stored access policy (`si`)."""

    permissions: str | None
    resource_types: str | None
    """`srt` of an account SAS (`s`, `c`, `o`); None for a service SAS."""
    services: str | None
    """`ss` of an account SAS; None for a service SAS."""
    resource: str | None
    """`sr` of a service SAS: `c` a container, `b` a blob, `d` a directory."""
    expires_at: datetime | None

    def missing_right(self) -> str | None:
        """Say which right that Framegate needs is certainly not granted; None when all may be there."""
        if self.services is not None and "b" not in self.services:
            return "The SAS token is not for the Blob service."
        if self.resource in {"b", "bs", "bv"}:
            return "The SAS token is for a single blob, not for a container."
        for letter, word, kind in (("l", "List", "c"), ("r", "Read", "o")):
            if self.permissions is not None and letter not in self.permissions:
                return f"The SAS token has no {word} right."
            if self.resource_types is not None and kind not in self.resource_types:
                return (
                    f"The SAS token's allowed resource types lack {'Container' if kind == 'c' else 'Object'}."
                )
        return None


def sas_fault(token: str) -> str | None:
    """Say what is wrong with the text of a SAS token (a leading `?` is fine); None when it may be used."""
    text = clean_sas(token)
    if "://" in text:
        return "Give the SAS token alone: what stands behind the '?' of the URL."
    if not text.isascii() or not text.isprintable() or any(sign in text for sign in ' <>"{}|\\^`#'):
        return "A SAS token is a query string without blanks or line breaks; this one is malformed."
    if not _fields(text).get("sig"):
        return "A SAS token has a 'sig='. For the account's key use the auth type 'account_key'."
    version = _version(_fields(text).get("sv"))
    if version is None or version < OLDEST_VERSION:
        return f"A SAS token has a version 'sv=' of {OLDEST_VERSION} or later; make a new one."
    return None


def clean_sas(token: str) -> str:
    """Give the bare query string of a pasted SAS token."""
    return token.strip().removeprefix("?").strip("&")


def read_sas(token: str) -> Sas:
    """Read the grants of a SAS token that `sas_fault` let pass."""
    fields = _fields(clean_sas(token))
    return Sas(
        fields.get("sp"), fields.get("srt"), fields.get("ss"), fields.get("sr"), _moment(fields.get("se"))
    )


def sas_expires_at(token: str) -> datetime | None:
    """Give when a SAS token ends (UTC); None when it does not say so itself."""
    return _moment(_fields(clean_sas(token)).get("se"))


def _fields(text: str) -> dict[str, str]:
    return dict(parse_qsl(text, keep_blank_values=True))


def _version(text: str | None) -> date | None:
    if text is None or not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _moment(text: str | None) -> datetime | None:
    """Read one of the ISO 8601 forms that a SAS may have: a day, or a time in UTC down to fractions."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
