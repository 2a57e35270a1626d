"""Between a storage's row and the description a bucket is opened with: sealing, unsealing, what may be shown."""

from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC
from typing import Any, assert_never

from pydantic import SecretStr

from app.db.storages import StorageRow
from app.secrets import Sealer
from app.storage.sas import sas_expires_at
from app.storage.source import (
    AccountKey,
    Anonymous,
    AzureSource,
    ConnectionString,
    KeyPair,
    S3Source,
    SasToken,
    Source,
)

Auth = KeyPair | SasToken | AccountKey | ConnectionString | Anonymous
_KINDS: Mapping[str, type[Auth]] = {
    "key_pair": KeyPair,
    "sas_token": SasToken,
    "account_key": AccountKey,
    "connection_string": ConnectionString,
    "anonymous": Anonymous,
}

IDENTITY = ("provider", "bucket", "container", "account_name", "region", "endpoint_url")
"""Fields of a source whose change asks for the secret again: a credential is never sent to another place."""


def secrets_of(auth: Auth) -> dict[str, SecretStr]:
    """Give every field of a credential that must be sealed (an access key's id too)."""
    held = {field.name: getattr(auth, field.name) for field in fields(auth) if field.name != "type"}
    return {
        name: value if isinstance(value, SecretStr) else SecretStr(value)
        for name, value in held.items()
        if value is not None
    }


def hint_of(auth: Auth) -> dict[str, str]:
    """Give what may be shown of a credential: the last four of a key's id, when a SAS expires (RFC 3339)."""
    match auth:
        case KeyPair():
            return {"access_key_id_last4": auth.access_key_id[-4:]}
        case SasToken():
            expires_at = sas_expires_at(auth.sas_token.get_secret_value())
            return {} if expires_at is None else {"expires_at": expires_at.astimezone(UTC).isoformat()}
        case AccountKey() | ConnectionString() | Anonymous():
            return {}
        case _:
            assert_never(auth)


def columns_of(source: Source) -> dict[str, Any]:
    """Give the columns that describe a source, its credential's kind and hint, but no secret."""
    common = {
        "provider": source.provider,
        "endpoint_url": source.endpoint_url,
        "prefix": source.prefix,
        "auth_type": source.auth.type,
        "auth_hint": hint_of(source.auth),
    }
    match source:
        case S3Source():
            return common | {"bucket": source.bucket, "region": source.region, "account_name": None}
        case AzureSource():
            return common | {"bucket": source.container, "region": None, "account_name": source.account_name}
        case _:
            assert_never(source)


def source_of(row: StorageRow, sealer: Sealer) -> Source:
    """Unseal a row into the source to open; raises `CredentialUnreadableError`."""
    auth = _auth_of(row, sealer)
    if row.provider == "s3" and isinstance(auth, KeyPair | Anonymous):
        return S3Source(row.bucket, auth, row.region, row.endpoint_url, row.prefix)
    assert not isinstance(auth, KeyPair)  # noqa: S101 - no request schema lets such a pair in
    return AzureSource(row.bucket, auth, row.account_name, row.endpoint_url, row.prefix)


def _auth_of(row: StorageRow, sealer: Sealer) -> Auth:
    opened = {name: sealer.unseal(row.uuid, name, text) for name, text in row.sealed.items()}
    kind = _KINDS[row.auth_type]
    if kind is KeyPair:
        key_id = opened.pop("access_key_id").get_secret_value()
        return KeyPair(key_id, opened["secret_access_key"], opened.get("session_token"))
    return kind(**opened)  # type: ignore[arg-type]  # the names are the fields that were sealed
