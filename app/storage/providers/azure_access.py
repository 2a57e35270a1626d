"""How one gets into a container: its endpoint, and the signature that its reads carry.

An account's key never signs a read: a container SAS with Read alone is derived from it, for an hour, and
renewed at half of its life. A container's SAS, not an account's: what it could do in other hands is smaller.
"""

import base64
import binascii
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from time import time
from typing import assert_never
from urllib.parse import urlsplit

from azure.storage.blob import BlobServiceClient, generate_container_sas
from pydantic import SecretStr

from app.errors import CredentialExpiredError, MisconfiguredError
from app.storage.names import endpoint_fault
from app.storage.sas import REMEDY, clean_sas, sas_expires_at, sas_fault
from app.storage.source import AccountKey, Anonymous, AuthType, AzureSource, ConnectionString, SasToken

DERIVED_LIFE_S = 3600
BACKDATED = timedelta(minutes=15)
"""A derived SAS begins in the past, since the account's clock may be behind ours."""


@dataclass(frozen=True, slots=True)
class Access:
    """A container's account, its endpoint (without a final slash), and one of: a key, a SAS, nothing."""

    endpoint: str
    account: str | None
    auth: AuthType
    key: SecretStr | None = None
    sas: SecretStr | None = None


def access_to(source: AzureSource) -> Access:
    """Read a source's credential; raises `MisconfiguredError` at the field at fault."""
    auth = source.auth
    match auth:
        case SasToken():
            return replace(_named(source, auth.type), sas=_checked_sas(auth.sas_token, "auth/sas_token"))
        case AccountKey():
            return replace(_named(source, auth.type), key=_checked_key(auth.account_key, "auth/account_key"))
        case ConnectionString():
            return _from_connection_string(source, auth)
        case Anonymous():
            return _named(source, auth.type)
        case _:
            assert_never(auth)


class ReadSignature:
    """The query that a container's reads carry; empty for an anonymous reader."""

    def __init__(self, access: Access, container: str) -> None:
        self.skew_s = 0.0
        self._access = access
        self._container = container
        self._derived = ""
        self._renew_at = 0.0
        self._given = "" if access.sas is None else clean_sas(access.sas.get_secret_value())
        self._expires_at = sas_expires_at(self._given)

    @property
    def query(self) -> str:
        """The query without `?`; raises `CredentialExpiredError` for a SAS that says it is over. No I/O."""
        if self._access.key is not None:
            return self._derived_query(self._access.key)
        self.check_time()
        return self._given

    def check_time(self) -> None:
        """Raise `CredentialExpiredError` when the given SAS says that its time is over."""
        if self._expires_at is not None and self._expires_at.timestamp() <= time() + self.skew_s:
            at = "auth/connection_string" if self._access.auth == "connection_string" else "auth/sas_token"
            ended = self._expires_at.strftime("%Y-%m-%d %H:%M UTC")
            raise CredentialExpiredError(f"The SAS token has expired at {ended}.", at=at, remedy=REMEDY)

    def forget(self) -> None:
        """Derive anew for the next read (the clock was corrected)."""
        self._renew_at = 0.0

    def _derived_query(self, key: SecretStr) -> str:
        now = time() + self.skew_s
        if now >= self._renew_at:
            moment = datetime.fromtimestamp(now, UTC)
            self._derived = generate_container_sas(
                self._access.account or "",
                self._container,
                account_key=key.get_secret_value(),
                permission="r",
                start=moment - BACKDATED,
                expiry=moment + timedelta(seconds=DERIVED_LIFE_S),
                protocol="https" if self._access.endpoint.startswith("https:") else None,
            )
            self._renew_at = now + DERIVED_LIFE_S / 2
        return self._derived


def _named(source: AzureSource, auth: AuthType) -> Access:
    account = source.account_name or ""
    return Access((source.endpoint_url or _public_endpoint(account)).rstrip("/"), account, auth)


def _public_endpoint(account: str) -> str:
    return f"https://{account}.blob.core.windows.net"


def _from_connection_string(source: AzureSource, auth: ConnectionString) -> Access:
    at = "auth/connection_string"
    try:
        client = BlobServiceClient.from_connection_string(auth.connection_string.get_secret_value())
    except ValueError:
        raise _malformed(at) from None
    endpoint = (source.endpoint_url or f"{client.scheme}://{client.primary_hostname}").rstrip("/")
    if fault := endpoint_fault(endpoint):
        raise MisconfiguredError(f"The connection string's endpoint: {fault}", at=at, remedy="Copy it anew.")
    if source.account_name and client.account_name and source.account_name != client.account_name:
        raise MisconfiguredError(
            "The connection string is of another account.", at="account_name", remedy="Leave this field out."
        )
    access = Access(endpoint, client.account_name or source.account_name, auth.type)
    key = getattr(client.credential, "account_key", None)
    if isinstance(key, str):
        return replace(access, key=_checked_key(SecretStr(key), at))
    query = urlsplit(client.primary_endpoint).query
    return replace(access, sas=_checked_sas(SecretStr(query), at)) if query else access


def _malformed(at: str) -> MisconfiguredError:
    return MisconfiguredError(
        "This is no connection string of a storage account.",
        at=at,
        remedy="Copy it from the account's access keys: 'DefaultEndpointsProtocol=...;AccountName=...;AccountKey=...'.",
    )


def _checked_key(key: SecretStr, at: str) -> SecretStr:
    try:
        base64.b64decode(key.get_secret_value(), validate=True)
    except (binascii.Error, ValueError):
        raise MisconfiguredError(
            "This is no account key: it is not base64.",
            at=at,
            remedy="Copy key1 or key2 of the account; for a SAS token use the auth type 'sas_token'.",
        ) from None
    return key


def _checked_sas(token: SecretStr, at: str) -> SecretStr:
    if fault := sas_fault(token.get_secret_value()):
        raise MisconfiguredError(fault, at=at, remedy=REMEDY)
    return token
