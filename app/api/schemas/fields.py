"""The kinds of fields that bodies and queries share, and the page that lists answer with."""

from collections.abc import Callable
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

T = TypeVar("T")


class Body(BaseModel):
    """A request body: nothing is coerced, and no field is ignored."""

    model_config = ConfigDict(
        extra="forbid", strict=True, hide_input_in_errors=True, use_attribute_docstrings=True
    )


class View(BaseModel):
    """An answer."""

    model_config = ConfigDict(from_attributes=True, use_attribute_docstrings=True)


def shown_as(**values: Any) -> ConfigDict:
    """Make the configuration of an answer whose example in the documents has these values."""
    return ConfigDict(json_schema_extra={"examples": [values]})


class Page(View, Generic[T]):
    """One page of a list; it may be short with a cursor left."""

    items: list[T]
    next_cursor: str | None
    """Hand it back as `cursor` for the next page; null at the end."""


def checked(fault: Callable[[str], str | None]) -> AfterValidator:
    """Make a validator of a function that gives what is wrong with a text, or None."""

    def check(value: str) -> str:
        found = fault(value)
        if found is not None:
            raise ValueError(found)
        return value

    return AfterValidator(check)


def _control_fault(text: str) -> str | None:
    bad = any((character < " " and character not in "\t\r\n") or character == "\x7f" for character in text)
    return "This text has control characters." if bad else None


def _line_fault(text: str) -> str | None:
    return "This text has control characters." if any(c < " " or c == "\x7f" for c in text) else None


Prose = Annotated[str, StringConstraints(max_length=10_000), checked(_control_fault)]
DisplayName = Annotated[str, StringConstraints(min_length=1, max_length=63), checked(_line_fault)]
Line = Annotated[str, StringConstraints(max_length=1024), checked(_line_fault)]
Id = Annotated[int, Field(ge=1, le=2**63 - 1)]
