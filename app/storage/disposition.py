"""How an object is named where it is saved as a file."""

import re
from urllib.parse import quote


def disposition(key: str) -> bytes:
    """Give `attachment` with the key's last segment as name, plain and extended (RFC 6266 section 4.3)."""
    name = key.rstrip("/").rpartition("/")[2] or "object"
    plain = re.sub(r'[^\x20-\x7e]|["\\%/;]', "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}".encode()
