"""Where a bucket is and how one gets in: a union on `provider`, and below it one on `type`."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, field_validator, model_validator

from app.api.schemas.fields import Body, View, checked
from app.db.storages import StorageRow
from app.storage import source as values
from app.storage.keys import prefix_fault
from app.storage.names import (
    azure_account_fault,
    azure_container_fault,
    endpoint_fault,
    region_fault,
    s3_bucket_fault,
)
from app.storage.sas import sas_fault


def _in_visible_ascii(value: SecretStr) -> SecretStr:
    """Refuse what no key has and no header may carry: blanks, line breaks, letters beyond ASCII."""
    if not all("\x21" <= character <= "\x7e" for character in value.get_secret_value()):
        raise ValueError("It has blanks, line breaks or characters beyond ASCII; paste it alone.")
    return value


Secret = Annotated[SecretStr, Field(min_length=1, max_length=4096)]
SecretWord = Annotated[Secret, AfterValidator(_in_visible_ascii)]
KeyId = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,128}$")]
Bucket = Annotated[str, checked(s3_bucket_fault)]
Container = Annotated[str, checked(azure_container_fault)]
Account = Annotated[str, checked(azure_account_fault)]
Region = Annotated[str, checked(region_fault)]
Endpoint = Annotated[str, checked(endpoint_fault)]
Prefix = Annotated[str, checked(prefix_fault)]


class KeyPair(Body):
    """An S3 access key."""

    type: Literal["key_pair"]
    access_key_id: KeyId
    secret_access_key: SecretWord
    session_token: SecretWord | None = None

    def value(self) -> values.KeyPair:
        """Give the domain's value."""
        return values.KeyPair(self.access_key_id, self.secret_access_key, self.session_token)


class Anonymous(Body):
    """No credential: the bucket is public."""

    type: Literal["anonymous"]

    def value(self) -> values.Anonymous:
        """Give the domain's value."""
        return values.Anonymous()


class SasToken(Body):
    """An Azure shared access signature: the query string alone, with Read and List."""

    type: Literal["sas_token"]
    sas_token: Secret

    @field_validator("sas_token")
    @classmethod
    def _is_sas(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value().strip().removeprefix("?")
        fault = sas_fault(text)
        if fault is not None:
            raise ValueError(fault)
        return SecretStr(text)

    def value(self) -> values.SasToken:
        """Give the domain's value."""
        return values.SasToken(self.sas_token)


class AccountKey(Body):
    """An Azure storage account's key."""

    type: Literal["account_key"]
    account_key: Secret

    def value(self) -> values.AccountKey:
        """Give the domain's value."""
        return values.AccountKey(self.account_key)


class ConnectionString(Body):
    """An Azure connection string."""

    type: Literal["connection_string"]
    connection_string: Secret

    def value(self) -> values.ConnectionString:
        """Give the domain's value."""
        return values.ConnectionString(self.connection_string)


S3Auth = Annotated[KeyPair | Anonymous, Field(discriminator="type")]
AzureAuth = Annotated[SasToken | AccountKey | ConnectionString | Anonymous, Field(discriminator="type")]
AnyAuth = Annotated[
    KeyPair | SasToken | AccountKey | ConnectionString | Anonymous, Field(discriminator="type")
]


class S3Place(Body):
    """A bucket on S3 or on a server that speaks it, without its credential."""

    provider: Literal["s3"]
    bucket: Bucket
    region: Region | None = None
    """Found out when left empty."""
    endpoint_url: Endpoint | None = None
    """For S3-compatible servers: `http(s)://host[:port][/path]`."""
    prefix: Prefix = ""
    """Where listings begin; keys stay whole bucket keys."""
    auth: S3Auth | None = None


class AzurePlace(Body):
    """A container of an Azure storage account, without its credential."""

    provider: Literal["azure"]
    container: Container
    account_name: Account | None = None
    """Needed unless a connection string names it."""
    endpoint_url: Endpoint | None = None
    """For emulators and private clouds, with the account's path where the server wants one."""
    prefix: Prefix = ""
    auth: AzureAuth | None = None

    @model_validator(mode="after")
    def _account_is_named(self) -> "AzurePlace":
        if self.account_name is None and self.auth is not None and self.auth.type != "connection_string":
            raise ValueError("account_name is needed unless a connection string names the account")
        return self


class S3Source(S3Place):
    """A bucket on S3 or on a server that speaks it."""

    auth: S3Auth

    def value(self) -> values.S3Source:
        """Give the domain's value."""
        return values.S3Source(self.bucket, self.auth.value(), self.region, self.endpoint_url, self.prefix)


class AzureSource(AzurePlace):
    """A container of an Azure storage account."""

    auth: AzureAuth

    def value(self) -> values.AzureSource:
        """Give the domain's value."""
        auth = self.auth.value()
        return values.AzureSource(self.container, auth, self.account_name, self.endpoint_url, self.prefix)


SourceBody = Annotated[S3Source | AzureSource, Field(discriminator="provider")]
PlaceBody = Annotated[S3Place | AzurePlace, Field(discriminator="provider")]


class SourcePatch(Body):
    """The parts of a source to change; `auth`, if present, is complete."""

    provider: Literal["s3", "azure"] | None = None
    bucket: str | None = None
    container: str | None = None
    account_name: str | None = None
    region: str | None = None
    endpoint_url: str | None = None
    prefix: str | None = None
    auth: AnyAuth | None = None


class AuthView(View):
    """What may be shown of a credential: never the credential."""

    type: values.AuthType
    access_key_id_last4: str | None = None
    """The last four characters of an access key's id."""
    expires_at: datetime | None = None
    """When a shared access signature ends, where it says so."""


class S3View(View):
    """An attached bucket."""

    provider: Literal["s3"]
    bucket: str
    region: str | None
    endpoint_url: str | None
    prefix: str
    auth: AuthView


class AzureView(View):
    """An attached container."""

    provider: Literal["azure"]
    container: str
    account_name: str | None
    endpoint_url: str | None
    prefix: str
    auth: AuthView


SourceView = Annotated[S3View | AzureView, Field(discriminator="provider")]


def source_view(row: StorageRow) -> S3View | AzureView:
    """Show where a storage is, and what may be shown of its credential."""
    auth = AuthView.model_validate({"type": row.auth_type, **row.auth_hint})
    common = {"endpoint_url": row.endpoint_url, "prefix": row.prefix, "auth": auth}
    if row.provider == "s3":
        return S3View.model_validate({"provider": "s3", "bucket": row.bucket, "region": row.region, **common})
    place = {"container": row.bucket, "account_name": row.account_name}
    return AzureView.model_validate({"provider": "azure", **place, **common})
