"""Signed URLs: a read of one object, for whoever holds the link, until it expires or its token is revoked."""

import hashlib
import hmac
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, urlencode

from app.errors import SignedUrlError, UnauthenticatedError
from app.secrets import Sealer
from app.services.access import AccessService, Principal

SHORTEST_S, LONGEST_S = 1, 604_800


@dataclass(frozen=True, slots=True)
class Signature:
    """The three parameters that make a URL a signed one, as they stand in its query."""

    expires: int
    """Unix seconds."""
    token_id: int
    signature: str


class UrlSigner:
    """Signs and verifies; knows the installation's keys, and asks whether the maker's token still stands."""

    def __init__(self, sealer: Sealer, access: AccessService) -> None:
        self._keys = sealer.derive_keys("framegate signed urls v1")
        self._access = access

    def sign(
        self, principal: Principal, path: str, parameters: Mapping[str, str], expires_at: datetime
    ) -> Signature:
        """Sign a decoded path and its other parameters for the principal's token."""
        expires = math.ceil(expires_at.timestamp())
        text = _canonical(path, parameters, expires, principal.token_id)
        return Signature(expires, principal.token_id, _mac(self._keys[0], text))

    def sign_object(
        self,
        principal: Principal,
        storage_id: int,
        key: str,
        expires_at: datetime,
        parameters: Mapping[str, str] | None = None,
    ) -> tuple[str, Signature]:
        """Give path and query of a signed read of one object, percent-encoded, and the signature in them.

        `parameters` say which rendition of it is to be read; the signature is for that one alone.
        """
        path = object_path(storage_id, key)
        wanted = parameters or {}
        signed = self.sign(principal, path, wanted, expires_at)
        query = {"expires": signed.expires, "token_id": signed.token_id, "signature": signed.signature}
        return f"{quote(path)}?{urlencode({**wanted, **query})}", signed

    async def verify(self, path: str, parameters: Mapping[str, str], given: Signature) -> Principal:
        """Give the principal whose token signed it.

        Raises `SignedUrlError` when the URL is bent or expired, or the token was revoked or has expired.
        """
        text = _canonical(path, parameters, given.expires, given.token_id)
        if not _matches(self._keys, text, given.signature):
            raise SignedUrlError("The signature does not fit this URL.")
        if given.expires <= time.time():
            raise SignedUrlError("This URL has expired.")
        try:
            return await self._access.principal_of_token(given.token_id)
        except UnauthenticatedError:
            raise SignedUrlError("The token that signed this URL is no longer valid.") from None


def object_path(storage_id: int, key: str) -> str:
    """Give the decoded path of an object: what is signed, and what a signature is held against."""
    return f"/v1/storages/{storage_id}/objects/{key}"


def expiry(signature: Signature) -> datetime:
    """Give when a signature expires, in UTC."""
    return datetime.fromtimestamp(signature.expires, UTC)


def _canonical(path: str, parameters: Mapping[str, str], expires: int, token_id: int) -> bytes:
    # Lengths before texts: no two different URLs share one canonical form.
    parts = [path, str(expires), str(token_id)]
    for name in sorted(parameters):
        parts += [name, parameters[name]]
    encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
    return b"".join(b"%d:%s," % (len(part), part) for part in encoded)


def _mac(key: bytes, text: bytes) -> str:
    return hmac.new(key, text, hashlib.sha256).hexdigest()


def _matches(keys: Sequence[bytes], text: bytes, signature: str) -> bool:
    given = signature.encode("utf-8", "surrogatepass")
    return any(hmac.compare_digest(_mac(key, text).encode(), given) for key in keys)
