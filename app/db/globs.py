"""Patterns over keys, as shells know them, in the words of PostgreSQL.

`*` and `?` stay within one folder, `**` does not; `[a-c]` and `[!a-c]` are one character out of a set, or
not out of it. A pattern matches whole keys.
"""

import re

from app.errors import Fault, InvalidInputError

MAX_GLOB_CHARACTERS = 256
MAX_WILDCARDS = 16
"""Each wildcard multiplies the states that PostgreSQL's matcher may have to go through."""

_PART = re.compile(
    r"(?P<all>\*\*+)|(?P<star>\*)|(?P<one>\?)|\[(?P<not>!?)(?P<set>\]?[^\]]*)\]|(?P<text>.)", re.DOTALL
)
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_WORD = re.compile(r"[0-9A-Za-z]|[^\x00-\x7f]")


def glob_pattern(glob: str) -> str:
    """Give the POSIX regular expression of a glob; raises `InvalidInputError` at `query:glob`."""
    if len(glob) > MAX_GLOB_CHARACTERS:
        raise _bad(f"A pattern has at most {MAX_GLOB_CHARACTERS} characters.")
    if _UNPRINTABLE.search(glob):
        raise _bad("A pattern has no control character.")
    parts = list(_PART.finditer(glob))
    if sum(part["text"] is None for part in parts) > MAX_WILDCARDS:
        raise _bad(f"A pattern has at most {MAX_WILDCARDS} wildcards.")
    return "^(?:" + "".join(map(_expression, parts)) + ")$"


def fixed_part(glob: str) -> str:
    """Give what every match begins with: the text before the first wildcard."""
    return re.split(r"[*?\[]", glob, maxsplit=1)[0]


def _expression(part: re.Match[str]) -> str:
    if part["all"]:
        return ".*"
    if part["star"]:
        return "[^/]*"
    if part["one"]:
        return "[^/]"
    if part["set"] is not None:
        return _set(part["set"], negated=bool(part["not"]))
    return _literal(part["text"])


def _set(members: str, *, negated: bool) -> str:
    """Write a set; one that is not closed is no set (its `[` came here as text)."""
    if not members:
        raise _bad("A set in a pattern names at least one character: [abc], [a-z], [!0-9].")
    written = []
    for low, high in re.findall(r"(.)(?:-(.))?", members, re.DOTALL):
        if high and low > high:
            raise _bad(f"The range {low}-{high} in the pattern is the wrong way round.")
        written.append(_literal(low) + (f"-{_literal(high)}" if high else ""))
    return f"[^/{''.join(written)}]" if negated else f"[{''.join(written)}]"


def _literal(character: str) -> str:
    return character if _WORD.fullmatch(character) else "\\" + character


def _bad(detail: str) -> InvalidInputError:
    return InvalidInputError(Fault("query:glob", detail))
