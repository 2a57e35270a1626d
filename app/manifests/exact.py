"""One line read slowly and strictly, to say exactly what is wrong with it and where.

Also the judge of what the fast path may accept: Python's own JSON reader with its leniences taken away
(NaN, keys that stand twice, lone surrogates, numbers without bound, nesting without bound).
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from app.manifests.problems import LineFault, shown

MAX_DEPTH = 64
"""Of arrays and objects in each other; more is no data, and would exhaust somebody's stack."""

# A string that is never closed goes to the end: to try again behind each of its quotes takes hours.
_TOKEN = re.compile(
    r'(?P<string>"(?:[^"\\]|\\.)*+"?)|(?P<constant>NaN|-?Infinity)'
    r"|(?P<number>-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)|(?P<mark>[\[\]{}:,])"
)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)")
_MAX_INT_DIGITS = 20


class _Odd(Exception):  # noqa: N818 - never leaves this file
    """Something that Python's reader takes and we do not; `_inspect` finds and places it."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line that is one sound JSON object."""

    text: str
    fields: Mapping[str, Any]

    def place(self, name: str) -> int:
        """Give the offset of a field's value; of the object itself where there is no such field."""
        return next((place for key, place in _members(self.text) if key == name), _start(self.text))


def read_line(line: bytes) -> Line:
    """Read a line; raises `LineFault` at the first thing that is wrong with it."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise LineFault("not-utf8", error.start, in_bytes=True) from None
    if (nul := text.find("\x00")) >= 0:
        raise LineFault("nul", nul)
    value = read_value(text)
    if not isinstance(value, dict):
        raise LineFault("not-an-object", _start(text))
    return Line(text, value)


def read_value(text: str) -> Any:
    """Read one JSON value; raises `LineFault`."""
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _inspect(text)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise LineFault("not-json", error.pos, _in_words(error)) from None
    except _Odd:
        _inspect(text)
        raise LineFault("not-json", 0, "it cannot be read") from None
    if "\\u" in text:
        _check_escapes(text)
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Odd
    return members


def _bounded_int(digits: str) -> int:
    if _number_is_odd(digits):
        raise _Odd
    return int(digits)


def _bounded_float(digits: str) -> float:
    if _number_is_odd(digits):
        raise _Odd
    return float(digits)


def _number_is_odd(digits: str) -> bool:
    if digits.lstrip("-").isdigit():
        return len(digits) > _MAX_INT_DIGITS or not -(2**63) <= int(digits) < 2**63
    return math.isinf(float(digits))


def _no_constant(name: str) -> NoReturn:
    raise _Odd(name)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_no_duplicates,
    parse_int=_bounded_int,
    parse_float=_bounded_float,
    parse_constant=_no_constant,
)


def _inspect(text: str) -> None:
    """Raise the `LineFault` of the first odd thing in the text; valid or not, it is read once, in order."""
    keys_of: list[set[str] | None] = []  # for each open object its keys, for each open array None
    mark = ""
    for token in _TOKEN.finditer(text):
        match token.lastgroup:
            case "mark":
                mark = token[0]
                _open_or_close(keys_of, mark, token.start())
            case "string" if mark in {"{", ","} and keys_of and (keys := keys_of[-1]) is not None:
                _note_key(keys, token)
            case "number" if _number_is_odd(token[0]):
                raise LineFault("number-out-of-range", token.start(), shown(token[0]))
            case "constant":
                raise LineFault("not-json", token.start(), f"{token[0]} is no JSON number")
            case _:
                pass


def _open_or_close(keys_of: list[set[str] | None], mark: str, offset: int) -> None:
    if mark in "{[":
        keys_of.append(set() if mark == "{" else None)
        if len(keys_of) > MAX_DEPTH:
            raise LineFault("too-deep", offset, MAX_DEPTH)
    elif mark in "}]" and keys_of:
        keys_of.pop()


def _note_key(keys: set[str], token: re.Match[str]) -> None:
    key = _unescaped(token[0])
    if key in keys:
        raise LineFault("duplicate-key", token.start(), shown(key))
    keys.add(key)


def _unescaped(token: str) -> str:
    try:
        return str(json.loads(token))
    except json.JSONDecodeError:
        return token


def _members(text: str) -> Iterator[tuple[str, int]]:
    """Give key and offset of the value of each member of an object that was read already."""
    depth, mark, key = 0, "", ""
    for token in _TOKEN.finditer(text):
        if token.lastgroup == "mark":
            mark = token[0]
            depth += (mark in "{[") - (mark in "}]")
            if mark == ":" and depth == 1:
                rest = text[token.end() :]
                yield key, token.end() + _start(rest)
        elif token.lastgroup == "string" and depth == 1 and mark in "{,":
            key = _unescaped(token[0])


def _check_escapes(text: str) -> None:
    """Refuse what JSON can escape and PostgreSQL, UTF-8 or a key cannot hold."""
    high: re.Match[str] | None = None
    for escape in _ESCAPE.finditer(text):
        code = int(escape[1], 16) if escape[1] else -1
        if high is not None:
            if escape.start() != high.end() or not 0xDC00 <= code < 0xE000:
                raise LineFault("lone-surrogate", high.start())
            high = None
        elif code == 0:
            raise LineFault("nul", escape.start())
        elif 0xD800 <= code < 0xDC00:
            high = escape
        elif 0xDC00 <= code < 0xE000:
            raise LineFault("lone-surrogate", escape.start())
    if high is not None:
        raise LineFault("lone-surrogate", high.start())


def _in_words(error: json.JSONDecodeError) -> str:
    message = error.msg[:1].lower() + error.msg[1:]
    return message.removesuffix(" at").removesuffix(" starting")


def _start(text: str) -> int:
    return len(text) - len(text.lstrip(" \t\r"))
