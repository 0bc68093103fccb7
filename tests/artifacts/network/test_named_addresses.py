"""A guest's requests go to the world, to what is private where a rule names it, and never where nobody asks."""

from __future__ import annotations

import ipaddress

import pytest

from hookline_artifacts.net.addresses import NamedAddresses

WORLD = NamedAddresses()
EVERYTHING = NamedAddresses(named=(ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")))
NEVER = [
    "169.254.169.254", "169.254.1.1", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "100.100.100.200", "168.63.129.16",
    "0.0.0.0", "0.1.2.3", "::", "224.0.0.1", "255.255.255.255", "240.0.0.1", "ff02::1", "192.0.0.192",
    "::ffff:169.254.169.254", "::ffff:0.0.0.0", "64:ff9b::169.254.169.254", "2002:a9fe:a9fe::1", "::169.254.169.254",
    "64:ff9b:1:a9fe:a9:fe00::", "2001:db8::5efe:a9fe:a9fe",
]  # fmt: skip
PRIVATE = [
    "127.0.0.1", "127.9.9.9", "::1", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1",
    "198.18.0.1", "192.0.2.1", "203.0.113.7", "fd12::3", "fc00::1", "2001:db8::1", "::ffff:10.1.2.3",
    "::ffff:127.0.0.1", "64:ff9b::10.1.2.3", "2002:0a01:0203::1", "::127.0.0.1", "64:ff9b:1:7::10.0.0.1",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "100.128.0.1"]


@pytest.mark.parametrize("address", NEVER)
def test_what_nobody_asks_is_not_asked_whatever_a_rule_names(address):
    """Not even where everything is named."""
    assert "never asked" in (EVERYTHING.refusal(address) or "")
    assert WORLD.refusal(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_private_is_asked_where_it_is_named_alone(address):
    """In whatever IPv6 address an IPv4 address is hidden."""
    assert "private" in (WORLD.refusal(address) or "")
    assert EVERYTHING.refusal(address) is None


@pytest.mark.parametrize("address", PUBLIC)
def test_the_world_is_asked(address):
    """Without a word in the rule."""
    assert WORLD.refusal(address) is None


def test_a_named_network_opens_nothing_beside_it():
    """10.1.0.0/16 is not 10.2.0.0/16, and a mapped address is the one that it holds."""
    named = NamedAddresses(named=(ipaddress.ip_network("10.1.0.0/16"),))
    assert named.refusal("10.1.255.255") is None
    assert named.refusal("::ffff:10.1.0.1") is None
    assert named.refusal("10.2.0.1")
    assert named.refusal("::ffff:10.2.0.1")


def test_what_the_standard_library_calls_private_is_not_the_world():
    """Each address at the edges of a network of the registry, also of the next registry."""
    for texts in ("0.0.0.0/0", "::/0"):
        whole = ipaddress.ip_network(texts)
        step = whole.num_addresses // 4096
        for number in range(0, whole.num_addresses, step):
            address = whole[number]
            if WORLD.refusal(str(address)) is None:
                assert address.is_global or address in ipaddress.ip_network(
                    "2001::/23" if address.version == 6 else "0/8"
                )
