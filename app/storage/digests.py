"""Digests that a client states of what it sends, and the comparison with what came."""

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal

from app.errors import Fault, InvalidInputError

Algorithm = Literal["md5", "sha256", "sha512"]
LENGTHS: dict[Algorithm, int] = {"md5": 16, "sha256": 32, "sha512": 64}


@dataclass(frozen=True, slots=True)
class Digest:
    """What a body's digest is said to be, and the header that says it."""

    header: str
    algorithm: Algorithm
    value: bytes


async def verified(body: AsyncIterator[bytes], digests: Sequence[Digest]) -> AsyncGenerator[bytes]:
    """Pass a body on, and raise `InvalidInputError` at its end if it is another than its digests say.

    Pieces are hashed as they come: those of a server are small enough not to stop the loop.
    """
    hashes = [hashlib.new(digest.algorithm, usedforsecurity=False) for digest in digests]
    async for piece in body:
        for one in hashes:
            one.update(piece)
        yield piece
    faults = [
        Fault(f"header:{digest.header}", f"The body that came has another {digest.algorithm} digest.")
        for digest, one in zip(digests, hashes, strict=True)
        if one.digest() != digest.value
    ]
    if faults:
        raise InvalidInputError(*faults)
