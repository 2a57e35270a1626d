"""Seals and unseals credentials, bound to their row, and derives the keys of signatures.

AES-256-GCM; the associated data are the row's UUID and the field's name, so that a sealed text moved to
another row or field does not open. A sealed text reads `v1.<key id>.<base64url of nonce and ciphertext>`.
"""

import base64
import binascii
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr

from app.errors import CommandError, CredentialUnreadableError
from app.settings import SecretKey, Settings, parse_secret_keys

_NONCE_BYTES = 12
_KEY_FILE = "secret-keys"


class Sealer:
    """Holds the keys of an installation, newest first."""

    def __init__(self, keys: Sequence[SecretKey]) -> None:
        if not keys:
            raise CommandError("There is no key to seal credentials with: set FRAMEGATE_SECRET_KEYS.")
        self._newest = keys[0].id
        self._ciphers = {key.id: AESGCM(key.material) for key in keys}
        self._material = {key.id: key.material for key in keys}

    def __repr__(self) -> str:
        return f"Sealer(newest={self._newest!r})"

    def seal(self, row: UUID, field: str, secret: SecretStr) -> str:
        """Seal one field of one row under the newest key."""
        nonce = os.urandom(_NONCE_BYTES)
        cipher = self._ciphers[self._newest]
        sealed = cipher.encrypt(nonce, secret.get_secret_value().encode(), _bound_to(row, field))
        return f"v1.{self._newest}.{base64.urlsafe_b64encode(nonce + sealed).decode()}"

    def seal_all(self, row: UUID, secrets: Mapping[str, SecretStr]) -> dict[str, str]:
        """Seal every field of a row."""
        return {field: self.seal(row, field, secret) for field, secret in secrets.items()}

    def unseal(self, row: UUID, field: str, sealed: str) -> SecretStr:
        """Open one sealed field; raises `CredentialUnreadableError` if its key is gone or it was altered."""
        version, key_id, blob = _parts(sealed)
        cipher = self._ciphers.get(key_id)
        if version != "v1" or cipher is None:
            raise _unreadable(f"The key {key_id!r} that sealed this credential is not among the secret keys.")
        try:
            opened = cipher.decrypt(blob[:_NONCE_BYTES], blob[_NONCE_BYTES:], _bound_to(row, field))
        except (InvalidTag, ValueError):
            raise _unreadable("The stored credential does not open with its key.") from None
        return SecretStr(opened.decode())

    def is_newest(self, sealed: str) -> bool:
        """Tell whether a sealed text already lies under the newest key."""
        return sealed.startswith(f"v1.{self._newest}.")

    def derive_keys(self, purpose: str) -> list[bytes]:
        """Give a 32-byte key for another purpose from each of the keys, newest first (HKDF, RFC 5869)."""
        return [
            HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose.encode()).derive(material)
            for material in self._material.values()
        ]


def _bound_to(row: UUID, field: str) -> bytes:
    return row.bytes + field.encode()


def _parts(sealed: str) -> tuple[str, str, bytes]:
    version, _, rest = sealed.partition(".")
    key_id, _, encoded = rest.rpartition(".")
    try:
        return version, key_id, base64.urlsafe_b64decode(encoded)
    except binascii.Error:
        raise _unreadable("The stored credential is damaged.") from None


def _unreadable(detail: str) -> CredentialUnreadableError:
    return CredentialUnreadableError(
        detail,
        at="auth",
        remedy="Give the credential again with PATCH, or restore the key in FRAMEGATE_SECRET_KEYS.",
    )


def load_keys(settings: Settings) -> Sequence[SecretKey]:
    """Give the installation's keys: the setting's, else those kept (or now made) in the data directory.

    Raises `CommandError` when an external database is used and no keys are known: keys made beside one
    service would not be there for its other processes.
    """
    if settings.secret_keys:
        return settings.secret_keys
    path = settings.data_dir / _KEY_FILE
    if not path.exists():
        if settings.database_url is not None:
            raise CommandError(_KEYS_NEEDED)
        _make_keys(path)
    try:
        return parse_secret_keys(path.read_text().strip())
    except ValueError as error:
        raise CommandError(f"{path}: {error}") from None


_KEYS_NEEDED = (
    "FRAMEGATE_SECRET_KEYS: is needed beside FRAMEGATE_DATABASE_URL. Example: FRAMEGATE_SECRET_KEYS=k1:"
    "$(python3 -c 'import base64,os;print(base64.b64encode(os.urandom(32)).decode())')"
)


def _make_keys(path: Path) -> None:
    """Make the key file, whole or not at all; a process that made it a moment earlier wins."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"{_KEY_FILE}.{os.getpid()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(f"k1:{base64.b64encode(os.urandom(32)).decode()}\n")
    with suppress(FileExistsError):
        path.hardlink_to(draft)
    draft.unlink()
