"""Words for a connection that could not be made: the same for our own client and for both SDKs."""

import errno
import socket
import ssl
from collections.abc import Iterator

import aiohttp

from app.errors import Passing, StorageError, StorageTimeoutError, UnreachableError

AT = "endpoint_url"
"""The field at fault when no connection comes about; a provider may move it (Azure's account name)."""

_NO_ROUTE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL}


def connect_failure(where: str, error: BaseException) -> StorageError:
    """Translate what kept us from `where` (`host:port`) into `UnreachableError` or `StorageTimeoutError`."""
    match error:
        case StorageError():
            return error
        case ssl.SSLError():
            return _tls_failure(where, error)
        case socket.gaierror() | UnicodeError():
            return unknown_name(where)
        case TimeoutError():
            return StorageTimeoutError(
                f"{where} did not take a connection in time.",
                at=AT,
                remedy="Check the endpoint and that a firewall lets Framegate reach it.",
                passing="connect_timeout",
            )
        case OSError():
            return _refused(where, error)
    return UnreachableError(f"No connection to {where} could be made.", at=AT, remedy="Check the endpoint.")


def failure_behind(error: BaseException, where: str) -> StorageError | None:
    """Find the connection failure that an SDK wrapped into its own exception; None when there is none.

    The innermost one tells most: aiohttp's wrappers are OSErrors themselves, without their cause's kind.
    """
    innermost: OSError | None = None
    for link in chain(error):
        if isinstance(link, StorageError):
            return link
        if isinstance(link, aiohttp.SocketTimeoutError):
            return StorageTimeoutError(f"{where} did not answer in time.")
        if isinstance(link, OSError):
            innermost = link
    return None if innermost is None else connect_failure(where, innermost)


def chain(error: BaseException) -> Iterator[BaseException]:
    """Walk an exception and what it was raised from, outermost first."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def unknown_name(host: str) -> UnreachableError:
    """Say that a name has no address."""
    return UnreachableError(
        f"The host name {host} does not resolve to an address.",
        at=AT,
        remedy="Check the spelling of the endpoint or account; a private name must be known to our DNS.",
    )


def handshake_failure(where: str, error: OSError) -> StorageError:
    """Translate what ended a TLS handshake; a hang-up in it means mostly that the port speaks plain HTTP."""
    if isinstance(error, ssl.SSLError | TimeoutError):
        return connect_failure(where, error)
    return UnreachableError(
        f"{where} broke off the TLS handshake.",
        at=AT,
        remedy="Check that this port speaks https.",
        passing="refused",
    )


def _tls_failure(where: str, error: ssl.SSLError) -> UnreachableError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return UnreachableError(
            f"TLS: the certificate of {where} is not trusted: {error.verify_message}.",
            at=AT,
            remedy="Use the host name the certificate names; for a private certificate authority the operator"
            " sets FRAMEGATE_CA_FILE.",
        )
    return UnreachableError(
        f"TLS: no handshake with {where} ({(error.reason or 'unknown reason').replace('_', ' ').lower()}).",
        at=AT,
        remedy="Check that this port speaks https, with TLS 1.2 or newer.",
    )


def _refused(where: str, error: OSError) -> UnreachableError:
    passing: Passing | None = "refused"
    if error.errno in _NO_ROUTE:
        detail, passing = f"There is no route to {where}.", None
    elif isinstance(error, ConnectionRefusedError):
        detail = f"{where} refuses connections."
    else:
        detail = f"The connection to {where} broke off."
    return UnreachableError(
        detail, at=AT, remedy="Check the endpoint's host and port, and that its server runs.", passing=passing
    )
