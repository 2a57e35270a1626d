"""What a form for attaching a bucket needs to know of each provider."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import botocore.session


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """One field of a source or of a credential."""

    name: str
    title: str
    required: bool = False
    secret: bool = False
    description: str = ""


@dataclass(frozen=True, slots=True)
class AuthInfo:
    """One way in."""

    type: str
    title: str
    fields: Sequence[FieldInfo] = ()
    redirect: bool = True
    """Whether a storage with it may redirect; a connection string only if it holds the account's key."""


@dataclass(frozen=True, slots=True)
class ProviderInfo:
    """One kind of bucket."""

    name: str
    title: str
    fields: Sequence[FieldInfo]
    auth_types: Sequence[AuthInfo]
    regions: Sequence[str] = ()


_ENDPOINT = FieldInfo(
    "endpoint_url",
    "Endpoint",
    description="For S3-compatible servers and emulators: http(s)://host[:port][/path].",
)
_PREFIX = FieldInfo("prefix", "Prefix", description="Where listings begin, such as `datasets/pets/`.")
_ANONYMOUS = AuthInfo("anonymous", "No credential (a public bucket)")


@cache
def s3_regions() -> Sequence[str]:
    """Give the regions that S3 is known to have, of every partition, from botocore's own data."""
    session = botocore.session.get_session()
    return tuple(
        sorted(
            region
            for partition in session.get_available_partitions()
            for region in session.get_available_regions("s3", partition)
        )
    )


def providers() -> Sequence[ProviderInfo]:
    """Give every provider with its fields, ways in and known regions (others may be typed in)."""
    return (_s3(), _azure())


def _s3() -> ProviderInfo:
    return ProviderInfo(
        "s3",
        "Amazon S3 or a server that speaks it",
        (
            FieldInfo("bucket", "Bucket", required=True),
            FieldInfo("region", "Region", description="Found out when left empty."),
            _ENDPOINT,
            _PREFIX,
        ),
        (
            AuthInfo(
                "key_pair",
                "Access key",
                (
                    FieldInfo("access_key_id", "Access key id", required=True),
                    FieldInfo("secret_access_key", "Secret access key", required=True, secret=True),
                    FieldInfo(
                        "session_token", "Session token", secret=True, description="Temporary keys only."
                    ),
                ),
            ),
            _ANONYMOUS,
        ),
        s3_regions(),
    )


def _azure() -> ProviderInfo:
    account = FieldInfo(
        "account_name", "Storage account", description="Needed unless a connection string names it."
    )
    return ProviderInfo(
        "azure",
        "Azure Blob Storage",
        (FieldInfo("container", "Container", required=True), account, _ENDPOINT, _PREFIX),
        (
            _one_secret("sas_token", "Shared access signature", redirect=False),
            _one_secret("account_key", "Account key"),
            _one_secret("connection_string", "Connection string"),
            _ANONYMOUS,
        ),
    )


def _one_secret(kind: str, title: str, *, redirect: bool = True) -> AuthInfo:
    return AuthInfo(kind, title, (FieldInfo(kind, title, required=True, secret=True),), redirect)
