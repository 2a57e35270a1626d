"""URLs that read one blob for a while, from an account's key; a SAS that the customer gave never leaves.

https://learn.microsoft.com/rest/api/storageservices/create-service-sas
"""

from datetime import UTC, datetime, timedelta

from azure.storage.blob import generate_blob_sas

from app.errors import MisconfiguredError
from app.storage.base import Overrides
from app.storage.providers.azure_access import BACKDATED, Access, access_to
from app.storage.source import AzureSource


def redirect_refusal(source: AzureSource) -> MisconfiguredError | None:
    """Say why a container cannot redirect with its credential; None when it can, or cannot be opened at all."""
    try:
        access = access_to(source)
    except MisconfiguredError:
        return None
    return None if access.sas is None else _gives_away()


def presigned_query(
    access: Access, container: str, key: str, now: float, lifetime_s: int, overrides: Overrides
) -> str:
    """Give the query (without `?`) that reads one blob until `lifetime_s` after `now`, in seconds since 1970.

    Empty for an anonymous reader. Raises `MisconfiguredError` where there is a SAS and no key.
    """
    if access.sas is not None:
        raise _gives_away()
    if access.key is None:
        return ""
    moment = datetime.fromtimestamp(now, UTC)
    return generate_blob_sas(
        access.account or "",
        container,
        key,
        account_key=access.key.get_secret_value(),
        permission="r",
        start=moment - BACKDATED,
        expiry=moment + timedelta(seconds=lifetime_s),
        protocol="https" if access.endpoint.startswith("https:") else None,
        cache_control=overrides.cache_control,
        content_disposition=overrides.content_disposition,
        content_type=overrides.content_type,
    )


def _gives_away() -> MisconfiguredError:
    return MisconfiguredError(
        "With a SAS token a redirect would hand that token to every reader, for as long as it lasts.",
        remedy="Use the auth type 'account_key', or a connection string with an AccountKey; or deliver by 'proxy'.",
    )
