"""From pydantic's errors to faults with RFC 6901 pointers into what the caller sent."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from app.errors import Fault
from app.storage.source import AuthType, ProviderName

# A union's tag stands in pydantic's location, but not in the body.
_TAGS = {"source": frozenset(get_args(ProviderName)), "auth": frozenset(get_args(AuthType))}
_SINGULAR = {"extra_forbidden": "There is no such field.", "missing": "This field is required."}


def faults_of(errors: Iterable[Mapping[str, Any]]) -> list[Fault]:
    """Give a fault for each of pydantic's errors (`loc`, `type`, `msg`); no value is quoted."""
    return [Fault(pointer(error["loc"]), _text(error)) for error in errors]


def pointer(location: Sequence[Any]) -> str:
    """Give `/source/bucket`, `query:limit` or `header:if-match` for a location."""
    place, *path = location or ("body",)
    if place in {"query", "header", "path", "cookie"}:
        return f"{place}:{'/'.join(str(part) for part in path)}"
    if place != "body":
        path = [place, *path]
    return "".join(f"/{_escaped(part)}" for part in _without_tags(path))


def _without_tags(path: Sequence[Any]) -> list[Any]:
    return [
        part for before, part in zip([None, *path], path, strict=False) if part not in _TAGS.get(before, ())
    ]


def _escaped(part: Any) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")


def _text(error: Mapping[str, Any]) -> str:
    fixed = _SINGULAR.get(error["type"])
    if fixed:
        return fixed
    text = re.sub(r"^Value error, ", "", str(error["msg"]))
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "'")) else ".")
