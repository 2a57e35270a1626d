"""aiobotocore's client for one bucket, kept from the habits that would harm a service with many customers.

It obeys no environment variable, profile or file of this machine, adds no checksums that other servers than
AWS break on, signs for one region only, and leaves the reading of listings to us.
"""

import os
from contextlib import AsyncExitStack
from functools import cache
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore import UNSIGNED
from botocore.loaders import Loader

from app.storage.providers.s3_refusals import region_name, wrong_region
from app.storage.sdk import SharedSession
from app.storage.source import Anonymous, KeyPair, S3Source

DEFAULT_REGION = "us-east-1"
"""Signed for where no region is given; most S3-compatible servers take any."""

PROBE_KEY = "k"
LISTING = "FramegateListing"
"""Where an answer of `list_objects_v2` holds its untouched text."""


async def open_client(
    source: S3Source,
    shared: SharedSession,
    stack: AsyncExitStack,
    *,
    connect_timeout_s: float,
    read_timeout_s: float,
) -> tuple[Any, str]:
    """Open the client on `stack` and give it with the URL of `PROBE_KEY` in the bucket; makes no request."""
    region = source.region or DEFAULT_REGION
    config = AioConfig(
        http_session_cls=shared.http_session_cls,
        ignore_configured_endpoint_urls=True,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"mode": "standard", "total_max_attempts": 2},
        connect_timeout=connect_timeout_s,
        read_timeout=read_timeout_s,
        signature_version=UNSIGNED if isinstance(source.auth, Anonymous) else "s3v4",
        # Signed like our own reads: hashing MiBs of a body would stop the loop; uploads carry an MD5 instead.
        s3={"payload_signing_enabled": False},
    )
    client = await stack.enter_async_context(
        _session().create_client(
            "s3",
            region_name=region,
            endpoint_url=source.endpoint_url and source.endpoint_url.rstrip("/"),
            config=config,
            **_credential(source.auth),
        )
    )
    address = await _address(client, source.bucket)
    client.meta.events.register("before-send.s3", _OneRegion(region))
    client.meta.events.register_first("before-parse.s3.ListObjectsV2", _set_listing_aside)
    return client, address


class _Learned(Exception):  # noqa: N818 - no error: it carries an address out of botocore
    def __init__(self, url: str) -> None:
        self.url = url


async def _address(client: Any, bucket: str) -> str:
    """Learn the URL of a key from botocore itself (virtual or path style, regional hosts), sending nothing."""

    def stop(request: Any, **_: object) -> None:
        raise _Learned(request.url)

    client.meta.events.register_first("before-send.s3.GetObject", stop)
    try:
        await client.get_object(Bucket=bucket, Key=PROBE_KEY)
    except _Learned as learned:
        return learned.url
    finally:
        client.meta.events.unregister("before-send.s3.GetObject", stop)
    raise AssertionError("botocore did not ask before it sent")


class _OneRegion:
    """Refuses to send what botocore signed for another region than ours.

    Told of the right region by a refusal it signs anew on its own, and would hide a wrong region from
    `check_access` that every read of ours then fails by.
    """

    def __init__(self, region: str) -> None:
        self._region = region

    def __call__(self, request: Any, **_: object) -> None:
        authorization = request.headers.get("Authorization", b"")
        text = authorization.decode("latin-1") if isinstance(authorization, bytes) else str(authorization)
        scope = text.partition("Credential=")[2].partition(",")[0]
        region = scope.split("/")[-3:-2]
        if region and region[0] != self._region:
            raise wrong_region(region_name(region[0]))


def _set_listing_aside(response_dict: Any, customized_response_dict: Any, **_: object) -> None:
    """Keep a listing's text for `read_listing`, and leave botocore nothing to read at length.

    An error inside a 200 is left to botocore, which knows that habit of S3.
    """
    if response_dict["status_code"] == 200 and b"<Error>" not in response_dict["body"][:1024]:
        customized_response_dict[LISTING] = response_dict["body"]
        response_dict["body"] = b""


def _credential(auth: KeyPair | Anonymous) -> dict[str, str | None]:
    match auth:
        case Anonymous():
            return {}
        case KeyPair():
            token = auth.session_token
            return {
                "aws_access_key_id": auth.access_key_id,
                "aws_secret_access_key": auth.secret_access_key.get_secret_value(),
                "aws_session_token": None if token is None else token.get_secret_value(),
            }


def _session() -> AioSession:
    """Make a session that knows nothing of this machine's environment and files: profiles, endpoints, proxies."""
    own = {
        name: (None, None, default, convert)
        for name, (_, _, default, convert) in AioSession.SESSION_VARIABLES.items()
    }
    nothing = dict.fromkeys(("config_file", "credentials_file"), (None, None, os.devnull, None))
    session = AioSession(session_vars=own | nothing)
    session.register_component("data_loader", _loader())
    return session


@cache
def _loader() -> Loader:
    """Keep botocore's descriptions of S3: reading them takes 80 ms, a client over read ones 6 ms."""
    return Loader()
