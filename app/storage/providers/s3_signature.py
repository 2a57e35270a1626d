"""Signature Version 4, for reads only: the one part of an SDK that every byte request needs.

In headers: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html. In a URL:
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html. The day's key is kept, the body
stays unsigned, and so do Range and the conditions; tests compare thousands of signatures with botocore's.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from time import gmtime, strftime, time
from urllib.parse import quote

from pydantic import SecretStr

from app.storage.base import Method, Origin, Overrides, SignedRequest
from app.storage.source import Anonymous, KeyPair

_UNSIGNED = "UNSIGNED-PAYLOAD"
_CONTENT = (b"x-amz-content-sha256", _UNSIGNED.encode())
_ALWAYS = ((b"accept", b"*/*"), (b"accept-encoding", b"identity"))
"""Without the second, servers that compress on the way would change lengths and ranges."""


@dataclass(frozen=True, slots=True, repr=False)
class _Moment:
    """What the signatures of one second have in common; the key is the day's."""

    second: int
    scope: str
    canonical: str
    """The canonical request from its headers on."""
    stamp: bytes
    to_sign: bytes
    """The string to sign up to the request's hash."""
    authorization: bytes
    """The header up to the signature."""
    key: bytes
    day: str

    def seal(self, canonical: str) -> bytes:
        """Give the signature of a canonical request, in hex."""
        to_sign = self.to_sign + sha256(canonical.encode()).hexdigest().encode()
        return hmac.digest(self.key, to_sign, "sha256").hex().encode()


class S3Signer:
    """Signs reads of one bucket with one credential; an anonymous one only addresses them.

    `base_path` is what stands before a key on the wire, percent-encoded: `/` or `/base/bucket/`.
    """

    def __init__(
        self, origin: Origin, host: str, base_path: str, region: str, auth: KeyPair | Anonymous
    ) -> None:
        self.skew_s = 0.0
        self._origin = origin
        self._host = host
        self._base_path = base_path
        self._region = region
        self._keys = auth if isinstance(auth, KeyPair) else None
        self._token = _token_of(auth)
        self._names = "host;x-amz-content-sha256;x-amz-date" + (
            ";x-amz-security-token" if self._token else ""
        )
        self._common = ((b"host", host.encode("ascii")), *_ALWAYS)
        self._moment = _Moment(-1, "", "", b"", b"", b"", b"", "")

    def sign(self, method: Method, key: str, extra: Sequence[tuple[bytes, bytes]] = ()) -> SignedRequest:
        """Sign one read of `key`; `extra` headers go along unsigned. No I/O."""
        path = self._base_path + quote(key, safe="/~")
        signed = () if self._keys is None else self._signature(self._keys, method, path)
        return SignedRequest(self._origin, method, path.encode("ascii"), (*self._common, *extra, *signed))

    def presign(self, method: Method, key: str, lifetime_s: int, overrides: Overrides) -> SecretStr:
        """Give a URL that reads `key` by `method` for `lifetime_s` seconds; a plain one where nothing is signed.

        S3 refuses overrides of an anonymous reader ("response-*" needs a signature), so he gets none. No I/O.
        """
        path = self._base_path + quote(key, safe="/~")
        url = f"{self._origin.scheme}://{self._host}{path}"
        if self._keys is None:
            return SecretStr(url)
        return SecretStr(f"{url}?{self._signed_query(self._keys, method, path, lifetime_s, overrides)}")

    def _signed_query(
        self, keys: KeyPair, method: Method, path: str, lifetime_s: int, overrides: Overrides
    ) -> str:
        moment = self._now(keys)
        parameters = {
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Credential": f"{keys.access_key_id}/{moment.scope}",
            "X-Amz-Date": moment.stamp.decode(),
            "X-Amz-Expires": str(lifetime_s),
            "X-Amz-SignedHeaders": "host",
            "X-Amz-Security-Token": self._token,
            "response-cache-control": overrides.cache_control,
            "response-content-disposition": overrides.content_disposition,
            "response-content-type": overrides.content_type,
        }
        query = "&".join(
            sorted(f"{name}={quote(text, safe='')}" for name, text in parameters.items() if text)
        )
        canonical = f"{method}\n{path}\n{query}\nhost:{self._host}\n\nhost\n{_UNSIGNED}"
        return f"{query}&X-Amz-Signature={moment.seal(canonical).decode()}"

    def _signature(self, keys: KeyPair, method: Method, path: str) -> tuple[tuple[bytes, bytes], ...]:
        moment = self._now(keys)
        signature = moment.seal(f"{method}\n{path}\n\n{moment.canonical}")
        date = (b"x-amz-date", moment.stamp)
        authorization = (b"authorization", moment.authorization + signature)
        if self._token:
            return (_CONTENT, date, authorization, (b"x-amz-security-token", self._token.encode("latin-1")))
        return (_CONTENT, date, authorization)

    def _now(self, keys: KeyPair) -> "_Moment":
        """Give what every request of this second shares, by the bucket's clock."""
        second = int(time() + self.skew_s)
        if self._moment.second != second:
            self._moment = self._at(keys, second)
        return self._moment

    def _at(self, keys: KeyPair, second: int) -> "_Moment":
        stamp = strftime("%Y%m%dT%H%M%SZ", gmtime(second))
        day = stamp[:8]
        scope = f"{day}/{self._region}/s3/aws4_request"
        token = f"x-amz-security-token:{self._token}\n" if self._token else ""
        return _Moment(
            second,
            scope,
            f"host:{self._host}\nx-amz-content-sha256:{_UNSIGNED}\nx-amz-date:{stamp}\n"
            f"{token}\n{self._names}\n{_UNSIGNED}",
            stamp.encode(),
            f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n".encode(),
            f"AWS4-HMAC-SHA256 Credential={keys.access_key_id}/{scope}, "
            f"SignedHeaders={self._names}, Signature=".encode("latin-1"),
            self._moment.key if self._moment.day == day else self._day_key(keys, day),
            day,
        )

    def _day_key(self, keys: KeyPair, day: str) -> bytes:
        derived = b"AWS4" + keys.secret_access_key.get_secret_value().encode()
        for word in (day, self._region, "s3", "aws4_request"):
            derived = hmac.digest(derived, word.encode(), "sha256")
        return derived


def _token_of(auth: KeyPair | Anonymous) -> str:
    if isinstance(auth, KeyPair) and auth.session_token is not None:
        return auth.session_token.get_secret_value()
    return ""
