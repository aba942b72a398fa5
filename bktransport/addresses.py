"""Which network addresses a download may come from.

A reply of the service names the URL of the aggregate. A hostile or broken service could name
something inside the site's own network, so an address is allowed only if it is no further inside
than the service itself: public < private < link-local < loopback.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TypeAlias

__all__ = ["Address", "named_address", "nearness", "parse_address"]

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

PUBLIC, PRIVATE, LINK_LOCAL, LOOPBACK, NOWHERE = range(5)

# RFC 6052 and RFC 8215: the last 32 bits are an IPv4 address. RFC 4291 has it too, deprecated.
_WITH_IPV4 = tuple(
    ipaddress.IPv6Network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/96", "::/96")
)
_SITE_LOCAL = ipaddress.IPv6Network("fec0::/10")
_LOOPBACK = ipaddress.IPv4Address("127.0.0.1")


def parse_address(text: str) -> Address | None:
    """The address, without a zone; None for a host name."""
    try:
        return ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None


def named_address(host: str) -> Address | None:
    """The address that a host names without a look-up: as a number in any form, or as localhost.

    Where a proxy looks names up, nothing else can be judged here.
    """
    host = host.rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return _LOOPBACK
    if (address := parse_address(host)) is not None:
        return address
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))  # 2130706433, 0x7f.1, 0177.0.0.1
    except (OSError, ValueError):
        return None


def nearness(address: Address) -> int:
    """How far inside an address lies: PUBLIC, PRIVATE, LINK_LOCAL, LOOPBACK, or NOWHERE."""
    address = _embedded(address)
    if address.is_loopback or address.is_unspecified:  # 0.0.0.0 reaches this machine too
        return LOOPBACK
    if address.is_link_local:
        return LINK_LOCAL
    if address.is_multicast or address == ipaddress.IPv4Address("255.255.255.255"):
        return NOWHERE
    return PUBLIC if address.is_global and address not in _SITE_LOCAL else PRIVATE


def _embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for."""
    if isinstance(address, ipaddress.IPv4Address) or address.is_loopback or address.is_unspecified:
        return address
    if any(address in network for network in _WITH_IPV4):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo[1] if address.teredo else None
    return address.ipv4_mapped or address.sixtofour or teredo or address
