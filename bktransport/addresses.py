"""Which network addresses a download may come from.

A reply of the service names the URL of the aggregate. A hostile or broken service could name
something inside the site's own network, so an address is allowed only if it is no further inside
than the service itself: public < private < link-local < loopback.
"""

from __future__ import annotations

import ipaddress
from typing import TypeAlias

__all__ = ["Address", "nearness", "parse_address"]

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

PUBLIC, PRIVATE, LINK_LOCAL, LOOPBACK, NOWHERE = range(5)

# RFC 6052: the last 32 bits are an IPv4 address.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def parse_address(text: str) -> Address | None:
    """The address, without a zone; None for a host name."""
    try:
        return ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
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
    return PUBLIC if address.is_global else PRIVATE


def _embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo[1] if address.teredo else None
    return address.ipv4_mapped or address.sixtofour or teredo or address
