"""The grammar of what names a bucket: buckets, containers, accounts, regions, endpoints.

Checked before any client sees them: an ARN given as a bucket changes host and region inside botocore, and a
host name made of digits reaches what it should not. Each function says what is wrong, or gives None; request
schemas call them field by field, providers call `check_source` once more before they open anything.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import assert_never
from urllib.parse import SplitResult, urlsplit

from app.errors import MisconfiguredError
from app.storage.base import Origin
from app.storage.keys import prefix_fault
from app.storage.source import AzureSource, ConnectionString, S3Source, Source

_BUCKET = re.compile(r"[a-z0-9](?:[a-z0-9.-]{1,61})[a-z0-9]")
_CONTAINER = re.compile(r"[a-z0-9](?:-?[a-z0-9]){2,62}")
_SPECIAL_CONTAINERS = frozenset({"$root", "$web"})
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_REGION = re.compile(r"[a-z0-9-]{1,63}")
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)*/?")
MAX_ENDPOINT_CHARACTERS = 512


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


_BUCKET_RULES: tuple[tuple[Callable[[str], bool], str], ...] = (
    (
        lambda name: name.startswith("arn:"),
        "Give the bucket's name (or an access point's alias), not an ARN.",
    ),
    (
        lambda name: "/" in name,
        "Give the bucket's name alone; a folder in it goes into 'prefix', a server into 'endpoint_url'.",
    ),
    (
        lambda name: not _BUCKET.fullmatch(name),
        "A bucket's name has 3 to 63 lower-case letters, digits, '-' and '.', and neither sign at its ends.",
    ),
    (
        lambda name: any(pair in name for pair in ("..", ".-", "-.")),
        "A bucket's name has no '.' beside another '.' or '-'.",
    ),
    (_is_address, "A bucket's name is not an IP address."),
    (
        lambda name: name.endswith("--x-s3"),
        "Directory buckets (S3 Express One Zone) are not supported.",
    ),
)


def s3_bucket_fault(name: str) -> str | None:
    """Check a bucket's name.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html; access point aliases
    (`...-s3alias`, which AWS Data Exchange hands out) are names too.
    """
    return next((fault for wrong, fault in _BUCKET_RULES if wrong(name)), None)


def azure_container_fault(name: str) -> str | None:
    """Check a container's name.

    https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata
    """
    if name in _SPECIAL_CONTAINERS:
        return None
    if "/" in name:
        return "Give the container's name alone; a folder in it goes into 'prefix'."
    if not 3 <= len(name) <= 63 or not _CONTAINER.fullmatch(name):
        return "A container's name has 3 to 63 lower-case letters, digits and single '-' between them."
    return None


def azure_account_fault(name: str) -> str | None:
    """Check a storage account's name (3 to 24 lower-case letters and digits)."""
    if "." in name or "/" in name:
        return "Give the account's name alone, without '.blob.core.windows.net'."
    fault = "An account's name has 3 to 24 lower-case letters and digits."
    return None if _ACCOUNT.fullmatch(name) else fault


def region_fault(name: str) -> str | None:
    """Check a region's name; any word will do, since S3-compatible servers invent their own."""
    return None if _REGION.fullmatch(name) else "A region is 1 to 63 lower-case letters, digits and '-'."


def endpoint_fault(url: str) -> str | None:
    """Check an endpoint: `http(s)://host[:port][/path]`, in ASCII, with nothing else."""
    if len(url) > MAX_ENDPOINT_CHARACTERS:
        return f"An endpoint has at most {MAX_ENDPOINT_CHARACTERS} characters."
    # urlsplit silently drops tabs and newlines and lets other clients see another host than we do.
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return "An endpoint is written in printable ASCII (international names in their xn-- form)."
    try:
        parts = urlsplit(url)
        return _endpoint_parts_fault(parts, url)
    except ValueError:
        return "An endpoint is http(s)://host[:port][/path]; this one's host or port is malformed."


def _endpoint_parts_fault(parts: SplitResult, url: str) -> str | None:
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return "An endpoint is http(s)://host[:port][/path]."
    if "@" in parts.netloc:
        return "An endpoint carries no user name or password; credentials go into 'auth'."
    if "?" in url or "#" in url:
        return "An endpoint has no query and no fragment; a SAS token goes into 'auth'."
    if parts.port == 0 or not _is_host(parts.hostname):
        return "An endpoint is http(s)://host[:port][/path]; this one's host or port is malformed."
    segments = parts.path.split("/")
    if not _PATH.fullmatch(parts.path) or "." in segments or ".." in segments:
        return "An endpoint's path has only letters, digits and '-._~' in its segments, none '.' or '..'."
    return None


def endpoint_origin(url: str) -> tuple[Origin, str]:
    """Split an endpoint that passed `endpoint_fault`: its origin, and its path without a final slash."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    return Origin("https" if secure else "http", parts.hostname or "", port), parts.path.rstrip("/")


def source_faults(source: Source) -> Iterator[tuple[str, str]]:
    """Give every fault of a source as (field, what is wrong with it), fields as in `StorageError.at`.

    Credentials are not looked into; `app.storage.sas` does that for shared access signatures.
    """
    match source:
        case S3Source():
            checks = [
                ("bucket", s3_bucket_fault(source.bucket)),
                ("region", region_fault(source.region) if source.region is not None else None),
            ]
        case AzureSource():
            checks = [
                ("container", azure_container_fault(source.container)),
                ("account_name", _azure_account_of(source)),
            ]
        case _:
            assert_never(source)
    if source.endpoint_url is not None:
        checks.append(("endpoint_url", endpoint_fault(source.endpoint_url)))
    checks.append(("prefix", prefix_fault(source.prefix)))
    return ((at, fault) for at, fault in checks if fault)


def check_source(source: Source) -> None:
    """Let a source pass or raise `MisconfiguredError` at its first fault."""
    for at, fault in source_faults(source):
        raise MisconfiguredError(fault, at=at, remedy="Correct this field.")


def _azure_account_of(source: AzureSource) -> str | None:
    if source.account_name is not None:
        return azure_account_fault(source.account_name)
    named_elsewhere = isinstance(source.auth, ConnectionString)
    return None if named_elsewhere else "An account's name is needed unless a connection string names it."


def _is_host(host: str) -> bool:
    if ":" in host:
        return "%" not in host and _is_address(host)
    last = host.removesuffix(".").rpartition(".")[2]
    # A last label that begins with a digit is an address or nothing (WHATWG URL section 3.5): 127.1, 0x7f.1.
    if last[:1].isdigit():
        return _is_address(host)
    return len(host) <= 253 and all(_LABEL.fullmatch(label) for label in host.removesuffix(".").split("."))
