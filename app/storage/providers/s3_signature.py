"""Signature Version 4, for reads only: the one part of an SDK that every byte request needs.

In headers: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html. In a URL:
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html. The day's key is kept, the body
stays unsigned, and so do Range and the conditions; tests compare thousands of signatures with botocore's.
"""

import hmac
from collections.abc import Sequence
from hashlib import sha256
from time import gmtime, strftime, time
from urllib.parse import quote

from pydantic import SecretStr

from app.storage.base import Method, Origin, Overrides, SignedRequest
from app.storage.source import Anonymous, KeyPair

_UNSIGNED = "UNSIGNED-PAYLOAD"
_ALWAYS = ((b"accept", b"*/*"), (b"accept-encoding", b"identity"))
"""Without the second, servers that compress on the way would change lengths and ranges."""


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
        self._day = ""
        self._day_key = b""

    def sign(self, method: Method, key: str, extra: Sequence[tuple[bytes, bytes]] = ()) -> SignedRequest:
        """Sign one read of `key`; `extra` headers go along unsigned. No I/O."""
        path = self._base_path + quote(key, safe="/~")
        headers = [(b"host", self._host.encode("ascii")), *_ALWAYS, *extra]
        if self._keys is not None:
            headers += self._signature(self._keys, method, path)
        return SignedRequest(self._origin, method, path.encode("ascii"), tuple(headers))

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
        stamp, scope = self._moment()
        parameters = {
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Credential": f"{keys.access_key_id}/{scope}",
            "X-Amz-Date": stamp,
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
        return f"{query}&X-Amz-Signature={self._seal(keys, canonical, stamp, scope)}"

    def _signature(self, keys: KeyPair, method: Method, path: str) -> list[tuple[bytes, bytes]]:
        stamp, scope = self._moment()
        token = f"x-amz-security-token:{self._token}\n" if self._token else ""
        canonical = (
            f"{method}\n{path}\n\nhost:{self._host}\nx-amz-content-sha256:{_UNSIGNED}\nx-amz-date:{stamp}\n"
            f"{token}\n{self._names}\n{_UNSIGNED}"
        )
        signature = self._seal(keys, canonical, stamp, scope)
        authorization = (
            f"AWS4-HMAC-SHA256 Credential={keys.access_key_id}/{scope}, "
            f"SignedHeaders={self._names}, Signature={signature}"
        )
        signed = [
            (b"x-amz-content-sha256", _UNSIGNED.encode()),
            (b"x-amz-date", stamp.encode()),
            (b"authorization", authorization.encode("latin-1")),
        ]
        return [*signed, (b"x-amz-security-token", self._token.encode("latin-1"))] if self._token else signed

    def _moment(self) -> tuple[str, str]:
        """Give the present time as the bucket has it, and the scope of what is signed now."""
        stamp = strftime("%Y%m%dT%H%M%SZ", gmtime(time() + self.skew_s))
        return stamp, f"{stamp[:8]}/{self._region}/s3/aws4_request"

    def _seal(self, keys: KeyPair, canonical: str, stamp: str, scope: str) -> str:
        to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
        return hmac.new(self._key_of(keys, stamp[:8]), to_sign.encode(), sha256).hexdigest()

    def _key_of(self, keys: KeyPair, day: str) -> bytes:
        if day != self._day:
            derived = b"AWS4" + keys.secret_access_key.get_secret_value().encode()
            for word in (day, self._region, "s3", "aws4_request"):
                derived = hmac.new(derived, word.encode(), sha256).digest()
            self._day, self._day_key = day, derived
        return self._day_key


def _token_of(auth: KeyPair | Anonymous) -> str:
    if isinstance(auth, KeyPair) and auth.session_token is not None:
        return auth.session_token.get_secret_value()
    return ""
