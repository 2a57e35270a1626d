"""Which addresses are public: an explicit table, the same on every Python version.

`ipaddress.is_global` is no policy: it lets Azure's wire server, Oracle's metadata service, NAT64 and 6to4
forms of loopback, and multicast through, and its answers differ between Python versions. So the table
stands here in full, after the IANA special-purpose registries:
https://www.iana.org/assignments/iana-ipv4-special-registry
https://www.iana.org/assignments/iana-ipv6-special-registry
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

_V4_CLOSED = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # "this network", RFC 791; Linux connects 0.0.0.0 to itself
        "10.0.0.0/8",  # private, RFC 1918
        "100.64.0.0/10",  # carrier-grade NAT, RFC 6598; metadata of some clouds
        "127.0.0.0/8",  # loopback, RFC 1122
        "168.63.129.16/32",  # Azure's wire server: public by number, the host's own by use
        "169.254.0.0/16",  # link-local, RFC 3927; metadata of most clouds
        "172.16.0.0/12",  # private, RFC 1918
        "192.0.0.0/24",  # IETF protocol assignments, RFC 6890; Oracle's metadata
        "192.0.2.0/24",  # documentation, RFC 5737
        "192.88.99.0/24",  # 6to4 relays, RFC 7526
        "192.168.0.0/16",  # private, RFC 1918
        "198.18.0.0/15",  # benchmarks, RFC 2544
        "198.51.100.0/24",  # documentation, RFC 5737
        "203.0.113.0/24",  # documentation, RFC 5737
        "224.0.0.0/4",  # multicast, RFC 5771
        "240.0.0.0/4",  # reserved, RFC 1112, and the broadcast address
    )
)
_V6_OPEN = IPv6Network("2000::/3")
"""Global unicast, RFC 4291: everything else is loopback, private, local, multicast, mapped or unassigned."""

_V6_CLOSED = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # IETF protocol assignments, RFC 2928: Teredo, benchmarks, ORCHID
        "2001:db8::/32",  # documentation, RFC 3849
        "2002::/16",  # 6to4, RFC 3056: carries any IPv4 address
        "3fff::/20",  # documentation, RFC 9637
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")
"""The well-known prefix of RFC 6052; behind DNS64 every public IPv4 name answers so."""


def public(address: IPv4Address | IPv6Address) -> bool:
    """Tell whether an address may be connected to by anybody's wish.

    A NAT64 address counts as the IPv4 address it carries. Not recognised, as nothing in the address shows
    it: a network's own NAT64 prefix, and ISATAP inside a public prefix.
    """
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _V4_CLOSED)
    if address.scope_id is not None:
        return False
    if address in _NAT64:
        return public(IPv4Address(int(address) & 0xFFFF_FFFF))
    return address in _V6_OPEN and not any(address in network for network in _V6_CLOSED)


def parsed(text: str) -> IPv4Address | IPv6Address | None:
    """Read an address as a resolver writes it; None for everything else, scoped ones (`fe80::1%lo`) too."""
    if "%" in text:
        return None
    try:
        return ip_address(text)
    except ValueError:
        return None
