"""How far inside addresses lie, in every way they can be written."""

from __future__ import annotations

import ipaddress

import pytest

from bktransport.addresses import (
    LINK_LOCAL,
    LOOPBACK,
    NOWHERE,
    PRIVATE,
    PUBLIC,
    named_address,
    nearness,
    parse_address,
)

_PLACES = {
    PUBLIC: ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"],
    PRIVATE: [
        "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "198.18.0.1",
        "192.0.2.1", "240.0.0.1", "fc00::1", "fdff::1", "fec0::1", "2001:db8::1",
        "::ffff:10.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::a00:1", "2002:a00:1::", "::10.0.0.1",
    ],
    LINK_LOCAL: ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "fe80::1%eth0"],
    LOOPBACK: [
        "127.0.0.1", "127.255.255.255", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1",  # noqa: S104
        "::ffff:0.0.0.0", "64:ff9b::7f00:1", "2002:7f00:1::", "::127.0.0.1", "[::1]",
        "2001:0:0:0:0:0:80ff:fffe",  # Teredo has the client's address inverted
    ],
    NOWHERE: ["224.0.0.1", "255.255.255.255", "ff02::1", "::ffff:224.0.0.1"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "place"), [(text, place) for place, texts in _PLACES.items() for text in texts]
)
def test_nearness(text: str, place: int) -> None:
    address = parse_address(text)
    assert address is not None
    assert nearness(address) == place


@pytest.mark.parametrize("text", ["", "example.org", "127.1", "2130706433", "1.2.3.4.5", "::g"])
def test_what_is_no_plain_address(text: str) -> None:
    assert parse_address(text) is None


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0X7F.1", "0177.0.0.1", "017700000001",
     "localhost", "LOCALHOST.", "a.b.localhost", "127.0.0.1."],
)  # fmt: skip
def test_names_that_are_addresses(host: str) -> None:
    assert named_address(host) == ipaddress.IPv4Address("127.0.0.1")


@pytest.mark.parametrize("host", ["", "example.org", "localhost.example", "1.2.3.4.5", "a\x00b"])
def test_names_that_must_be_looked_up(host: str) -> None:
    assert named_address(host) is None
