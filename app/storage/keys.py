"""Which object keys and prefixes may reach a bucket at all.

Keys are hostile: they come from clients and from manifests. A `..` segment let one SDK read another
container, a control character splits a log line or a header; both are refused here, before any provider.
"""

import re

from app.errors import Fault, InvalidInputError, InvalidKeyError

MAX_KEY_BYTES = 1024
"""S3's limit in UTF-8 bytes (https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html).

Azure counts 1,024 characters; the smaller of the two holds for both.
"""

# C0, DEL, C1, and lone surrogates, which are no text and have no UTF-8 form.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_DOT_SEGMENT = re.compile(r"(?:^|/)\.\.?(?:/|$)")
_CLOSED_DOT_SEGMENT = re.compile(r"(?:^|/)\.\.?/")


def key_fault(key: str) -> str | None:
    """Say what is wrong with an object key; None when it may be asked for."""
    if not key:
        return "A key has at least one character."
    if ("/." in key or key[0] == ".") and _DOT_SEGMENT.search(key):
        return "A key has no segment that is '.' or '..'."
    return _text_fault("A key", key)


def prefix_fault(prefix: str) -> str | None:
    """Say what is wrong with a prefix of keys; None when it may be listed. The empty one is fine.

    Its last segment is not finished, so it may be `.` or `..`: keys that begin so (`..notes`) are fine.
    """
    if _CLOSED_DOT_SEGMENT.search(prefix):
        return "A prefix has no segment that is '.' or '..'."
    return _text_fault("A prefix", prefix)


def check_key(key: str) -> None:
    """Let a key pass or raise `InvalidKeyError`."""
    if fault := key_fault(key):
        raise InvalidKeyError(fault)


def check_prefix(prefix: str, pointer: str = "query:prefix") -> None:
    """Let a prefix pass or raise `InvalidInputError` at `pointer`."""
    if fault := prefix_fault(prefix):
        raise InvalidInputError(Fault(pointer, fault))


def _text_fault(subject: str, text: str) -> str | None:
    if found := _UNPRINTABLE.search(text):
        return f"{subject} has no control character (U+{ord(found[0]):04X} at character {found.start() + 1})."
    if len(text) > MAX_KEY_BYTES or (not text.isascii() and len(text.encode()) > MAX_KEY_BYTES):
        return f"{subject} has at most {MAX_KEY_BYTES} bytes in UTF-8."
    return None
