"""Where a bucket is and how one gets in: the description that a provider is opened with."""

from dataclasses import dataclass
from typing import Literal

from pydantic import SecretStr

ProviderName = Literal["s3", "azure"]
AuthType = Literal["key_pair", "sas_token", "account_key", "connection_string", "anonymous"]


@dataclass(frozen=True, slots=True)
class Anonymous:
    """No credential: the bucket answers everybody."""

    type: Literal["anonymous"] = "anonymous"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An S3 access key, with a session token where it is temporary."""

    access_key_id: str
    secret_access_key: SecretStr
    session_token: SecretStr | None = None
    type: Literal["key_pair"] = "key_pair"


@dataclass(frozen=True, slots=True)
class SasToken:
    """An Azure shared access signature: its query string, without a leading `?`."""

    sas_token: SecretStr
    type: Literal["sas_token"] = "sas_token"


@dataclass(frozen=True, slots=True)
class AccountKey:
    """An Azure storage account's key (base64)."""

    account_key: SecretStr
    type: Literal["account_key"] = "account_key"


@dataclass(frozen=True, slots=True)
class ConnectionString:
    """An Azure connection string; it names the account and may name an endpoint."""

    connection_string: SecretStr
    type: Literal["connection_string"] = "connection_string"


@dataclass(frozen=True, slots=True)
class S3Source:
    """A bucket on S3 or on a server that speaks S3 (`endpoint_url`)."""

    bucket: str
    auth: KeyPair | Anonymous
    region: str | None = None
    endpoint_url: str | None = None
    prefix: str = ""
    provider: Literal["s3"] = "s3"


@dataclass(frozen=True, slots=True)
class AzureSource:
    """A container of an Azure storage account or of an emulator (`endpoint_url`)."""

    container: str
    auth: SasToken | AccountKey | ConnectionString | Anonymous
    account_name: str | None = None
    """May be None with a connection string alone."""
    endpoint_url: str | None = None
    """With the account's path where the server wants one: `http://127.0.0.1:10000/devaccount`."""
    prefix: str = ""
    provider: Literal["azure"] = "azure"


Source = S3Source | AzureSource
