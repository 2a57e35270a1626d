"""A reader of ZIPs that takes them as they come, from the local headers alone, as readers of streams do."""

import struct
import zlib
from collections.abc import Iterator

_HEADER = struct.Struct("<4s5H3I2H")
_LENGTHS_FOLLOW = 0x0008
_DIRECTORY = (b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06")


def read_as_stream(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Give name and bytes of each entry; what only the directory could tell is refused."""
    place = 0
    while data[place : place + 4] not in _DIRECTORY:
        signature, _, flags, method, _, _, crc, stored, size, name, extra = _HEADER.unpack_from(data, place)
        assert signature == b"PK\x03\x04"
        assert (flags & _LENGTHS_FOLLOW, method, stored) == (0, 0, size)
        start = place + _HEADER.size + name + extra
        body = data[start : start + size]
        assert (len(body), zlib.crc32(body)) == (size, crc)
        yield data[place + _HEADER.size :][:name].decode("ascii"), body
        place = start + size
