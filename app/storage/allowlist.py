"""The operator's list of private places that buckets may live at."""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from app.storage.addresses import parsed

ANY_PORT = 0


class Allowlist:
    """Entries `host`, `host:port`, an address with or without port (`[::1]:9000`), or a CIDR network.

    Raises ValueError naming the entry that is none of these.
    """

    def __init__(self, entries: Sequence[str]) -> None:
        self._networks: list[tuple[IPv4Network | IPv6Network, int]] = []
        self._names: set[tuple[str, int]] = set()
        for entry in entries:
            self._add(entry.strip())

    def names(self, host: str, port: int) -> bool:
        """Tell whether a host is allowed by its name, whatever address it has."""
        name = _normal(host)
        return (name, port) in self._names or (name, ANY_PORT) in self._names

    def addresses(self, address: IPv4Address | IPv6Address, port: int) -> bool:
        """Tell whether an address is allowed by its number."""
        return any(address in network and only in (ANY_PORT, port) for network, only in self._networks)

    def _add(self, entry: str) -> None:
        if "/" in entry:
            self._networks.append((ip_network(entry, strict=False), ANY_PORT))
            return
        host, port = _split(entry)
        if parsed(host) is not None:
            self._networks.append((ip_network(host), port))
        else:
            self._names.add((_normal(host), port))


def _split(entry: str) -> tuple[str, int]:
    if parsed(entry) is not None:
        return entry, ANY_PORT
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/\[\]%@]+))(?::(\d{1,5}))?", entry)
    if match is None or (match[1] and parsed(match[1]) is None) or int(match[3] or 1) not in range(1, 65536):
        raise ValueError(f"{entry!r} is no host, host:port or CIDR network")
    return match[1] or match[2], int(match[3] or ANY_PORT)


def _normal(host: str) -> str:
    return host.lower().rstrip(".")
