"""`Content-MD5`, `Repr-Digest` and `Content-Digest` to digests; pure functions (RFC 1864, RFC 9530)."""

import base64
import binascii
import re
from collections.abc import Mapping

from app.errors import Fault, InvalidInputError
from app.storage.digests import LENGTHS, Algorithm, Digest

# The active algorithms of RFC 9530; it has the others ignored, whether unknown or too weak to be trusted.
_ALGORITHMS: dict[str, Algorithm] = {"sha-256": "sha256", "sha-512": "sha512"}

# A dictionary of byte sequences (RFC 9651 sections 3.2 and 3.3.5); parameters mean nothing here.
_PARAMETERS = r'(?:;[ ]*[a-z*][a-z0-9_.*-]*(?:=(?:"[^"\\]*"|[^\s,;"]+))?)*'
_MEMBER = re.compile(rf"([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/=]*):{_PARAMETERS}")
_DICTIONARY = re.compile(rf"{_MEMBER.pattern}(?:[ \t]*,[ \t]*{_MEMBER.pattern})*")


def digests_of(headers: Mapping[bytes, bytes]) -> tuple[Digest, ...]:
    """Give what headers (lower-case names, repeated ones joined) say of their body.

    Bodies have no content coding here, so a digest of the content is one of the representation. Raises
    `InvalidInputError` for a header that cannot be read: who sends one wants it to be checked.
    """
    found: list[Digest] = []
    if (text := headers.get(b"content-md5")) is not None:
        value = _decoded("Content-MD5", "md5", text.decode("latin-1").strip())
        found.append(Digest("Content-MD5", "md5", value))
    for header in ("Repr-Digest", "Content-Digest"):
        if (text := headers.get(header.lower().encode())) is not None:
            found += _dictionary(header, text.decode("latin-1").strip(" "))
    return tuple(found)


def _dictionary(header: str, text: str) -> list[Digest]:
    if not _DICTIONARY.fullmatch(text):
        raise InvalidInputError(Fault(f"header:{header}", "This is no list such as sha-256=:BASE64:."))
    members = dict(_MEMBER.findall(text))  # of a repeated key the last counts
    return [
        Digest(header, _ALGORITHMS[name], _decoded(header, _ALGORITHMS[name], encoded))
        for name, encoded in members.items()
        if name in _ALGORITHMS
    ]


def _decoded(header: str, algorithm: Algorithm, encoded: str) -> bytes:
    try:
        value = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        value = b""
    if len(value) != LENGTHS[algorithm]:
        detail = f"This is no base64 of an {algorithm} digest's {LENGTHS[algorithm]} bytes."
        raise InvalidInputError(Fault(f"header:{header}", detail))
    return value
