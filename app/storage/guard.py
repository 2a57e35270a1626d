"""The network guard: the one way out to buckets, which connects to public or allowed addresses only.

It stands at three places, so that no client can go around it: `resolve` answers names for aiohttp,
`socket` makes every socket of aiohttp (address literals too, after the last resolution), and `open` makes
the connections of our own client. Names are resolved once, every address is checked, and the address that
was checked is the one connected to: a later DNS answer changes nothing. It knows no proxy and follows no
redirect. One refused address among a name's addresses refuses them all.

What remains: an allowed host *name* is as trustworthy as the DNS that answers it; a look-up that hangs
keeps its thread until the system's resolver gives up; and the forms named at `addresses.public`.
"""

import asyncio
import socket as net  # Guard.socket would hide the module's name in the class body
import ssl
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from aiohttp.abc import AbstractResolver, ResolveResult

from app.errors import AddressRefusedError, StorageTimeoutError
from app.storage.addresses import parsed, public
from app.storage.allowlist import Allowlist
from app.storage.failures import AT, connect_failure, handshake_failure, unknown_name

SocketAddress = tuple[str | int, ...]
AddressInfo = tuple[int, int, int, str, SocketAddress]
"""As `socket.getaddrinfo` gives it: family, type, protocol, canonical name, (address, port, ...)."""

P = TypeVar("P", bound=asyncio.BaseProtocol)


class _Vouched(str):
    """An address let in for its host's name, not for its number.

    `resolve` hands it to aiohttp, which hands the same object back to `socket`. So the allowance travels
    with this one answer: no other host, and no literal of the same number, can use it. Were the object
    ever copied on its way, the address would be refused, not let in.
    """

    __slots__ = ("port",)
    port: int


class Guard(AbstractResolver):
    """Resolves, refuses, and makes every socket to a bucket.

    `allowed` holds `host`, `host:port`, an address with or without port (IPv6 with port in brackets), or
    a CIDR network: the places that may be connected to although they are not public. A host allowed with
    a port is allowed at that port alone. Raises ValueError for an entry that is none of these.
    """

    def __init__(self, allowed: Sequence[str] = (), *, connect_timeout_s: float = 5.0) -> None:
        self._allowed = Allowlist(allowed)
        self._timeout_s = connect_timeout_s

    async def addresses(self, host: str, port: int) -> list[AddressInfo]:
        """Look a host up and give its addresses, all of them checked.

        Raises `AddressRefusedError`, `UnreachableError` (no such name), `StorageTimeoutError`.
        """
        infos = await self._look_up(host, port)
        by_name = self._allowed.names(host, port)
        if not all(by_name or self._permits(info[4]) for info in infos):
            raise refusal(host)
        return infos

    async def resolve(
        self, host: str, port: int = 0, family: net.AddressFamily = net.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Answer aiohttp's look-ups; raises as `addresses` does."""
        infos = [info for info in await self.addresses(host, port) if family in (net.AF_UNSPEC, info[0])]
        by_name = self._allowed.names(host, port)
        return [_result(host, port, info, by_name) for info in infos]

    async def close(self) -> None:
        """Do nothing: the guard holds nothing open."""

    def socket(self, info: AddressInfo) -> net.socket:
        """Make the socket for one address (aiohttp's `socket_factory`); raises `AddressRefusedError`."""
        address, port = info[4][0], info[4][1]
        vouched = isinstance(address, _Vouched) and address.port == port
        if not vouched and not self._permits(info[4]):
            raise refusal(str(address))
        return net.socket(info[0], info[1], info[2])

    async def open(
        self, factory: Callable[[], P], host: str, port: int, *, tls: ssl.SSLContext | None = None
    ) -> tuple[asyncio.Transport, P]:
        """Connect to a host, over TLS when a context is given; the caller closes the transport.

        The certificate is checked against `host`, the connection goes to a checked address. Name, TCP and
        TLS have `connect_timeout_s` together. Raises `AddressRefusedError`, `UnreachableError`,
        `StorageTimeoutError`.
        """
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        infos = await self.addresses(host, port)
        sock = await self._connect(infos, f"{host}:{port}", deadline)
        try:
            async with asyncio.timeout_at(deadline):
                return await asyncio.get_running_loop().create_connection(
                    factory, sock=sock, ssl=tls, server_hostname=host.rstrip(".") if tls else None
                )
        except OSError as error:  # TimeoutError and ssl.SSLError are OSErrors, too
            raise handshake_failure(f"{host}:{port}", error) from error

    async def _connect(self, infos: list[AddressInfo], where: str, deadline: float) -> net.socket:
        failure: OSError = TimeoutError()
        for info, until in _shares(infos, deadline):
            try:
                return await _connected(info, until)
            except OSError as error:
                failure = error
        raise connect_failure(where, failure) from failure

    async def _look_up(self, host: str, port: int) -> list[AddressInfo]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_s):
                infos = await loop.getaddrinfo(host, port, type=net.SOCK_STREAM)
        except (net.gaierror, UnicodeError, ValueError) as error:
            raise unknown_name(host) from error
        except TimeoutError as error:
            raise StorageTimeoutError(
                f"The name {host} was not resolved in time.", at=AT, remedy="Check Framegate's DNS."
            ) from error
        if not infos:
            raise unknown_name(host)
        return [(*info[:4], tuple(info[4])) for info in infos]

    def _permits(self, target: SocketAddress) -> bool:
        address = parsed(str(target[0]))
        if address is None or (len(target) > 3 and target[3] != 0):  # a scope: fe80::1%lo
            return False
        return public(address) or self._allowed.addresses(address, int(target[1]))


def refusal(host: str) -> AddressRefusedError:
    """Say that a host is refused, without telling the private address behind its name."""
    return AddressRefusedError(
        f"{host} is not at a public address.",
        at=AT,
        remedy="Use a public endpoint, or let the operator add its host:port to"
        " FRAMEGATE_ALLOWED_PRIVATE_ENDPOINTS.",
    )


def _result(host: str, port: int, info: AddressInfo, by_name: bool) -> ResolveResult:
    address = str(info[4][0])
    if by_name:
        address = _Vouched(address)
        address.port = port
    return ResolveResult(
        hostname=host, host=address, port=port, family=info[0], proto=info[2], flags=net.AI_NUMERICHOST
    )


def _shares(infos: list[AddressInfo], deadline: float) -> Iterator[tuple[AddressInfo, float]]:
    """Give each address half of the time that is left, the last one all of it."""
    loop = asyncio.get_running_loop()
    for info in infos[:-1]:
        now = loop.time()
        yield info, now + (deadline - now) / 2
    yield infos[-1], deadline


async def _connected(info: AddressInfo, until: float) -> net.socket:
    sock = net.socket(info[0], info[1], info[2])
    try:
        sock.setblocking(False)
        async with asyncio.timeout_at(until):
            await asyncio.get_running_loop().sock_connect(sock, info[4])
    except BaseException:
        sock.close()
        raise
    return sock
