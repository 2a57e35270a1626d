"""The explicit table of providers: one kind of bucket is one import and one line."""

from typing import assert_never

from app.errors import MisconfiguredError
from app.storage.base import Provider
from app.storage.names import check_source
from app.storage.providers.azure import open_azure
from app.storage.providers.azure_presigned import redirect_refusal as azure_redirect_refusal
from app.storage.providers.s3 import open_s3
from app.storage.sdk import SharedSession
from app.storage.source import AzureSource, S3Source, Source


async def open_provider(
    source: Source,
    shared: SharedSession,
    *,
    connect_timeout_s: float = 5.0,
    read_timeout_s: float = 20.0,
) -> Provider:
    """Open a source with its credential; makes no request, and the caller closes what it gets.

    The timeouts are the control plane's. Raises `MisconfiguredError` at the field at fault: a name against
    its grammar, a credential that cannot be one.
    """
    check_source(source)
    match source:
        case S3Source():
            return await open_s3(
                source, shared, connect_timeout_s=connect_timeout_s, read_timeout_s=read_timeout_s
            )
        case AzureSource():
            return open_azure(
                source, shared, connect_timeout_s=connect_timeout_s, read_timeout_s=read_timeout_s
            )
        case _:
            assert_never(source)


def redirect_refusal(source: Source) -> MisconfiguredError | None:
    """Say why a source cannot be read by redirects, with a remedy; None when it can. Makes no request."""
    match source:
        case S3Source():
            return None
        case AzureSource():
            return azure_redirect_refusal(source)
        case _:
            assert_never(source)
