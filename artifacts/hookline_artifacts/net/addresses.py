"""Which addresses are never asked, however they are written.

Whoever writes a plugin's source decides whom we ask, and so does every registry, by a redirect or by the name of a
token server. Some addresses answer anybody who can reach them, and we can reach them where the writer cannot: a cloud's
metadata service gives away its machine's credentials, and programs of our own machine take us for one of them.

An address is judged where a connection is made, not where a name is written: no name, redirect, second answer of a
name server or odd spelling (``0x7f.1``) comes past that. An IPv6 address may hold an IPv4 address in many ways, which
relays and translators on the way take out again; each of them is judged too.

Addresses that are set apart: https://www.iana.org/assignments/iana-ipv4-special-registry/ and its sister for IPv6.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(map(ipaddress.ip_network, texts))


_METADATA_V4: Final = _networks(
    "169.254.169.254/32",  # nearly all clouds
    "169.254.170.2/32", "169.254.170.23/32",  # AWS: credentials of ECS tasks and EKS pods
    "169.254.0.23/32",  # Tencent Cloud
    "100.100.100.200/32",  # Alibaba Cloud: https://www.alibabacloud.com/help/en/ecs/user-guide/view-instance-metadata
    "168.63.129.16/32",  # Azure: https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16
    "192.0.0.192/32",  # Oracle Cloud Classic
)  # fmt: skip
_METADATA: Final = (
    *_METADATA_V4,
    *_networks(
        "192.0.0.0/24",  # IETF protocol assignments, RFC 6890
        "fd00:ec2::/32",  # AWS: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
        "fd20:ce::/64",  # Google: https://cloud.google.com/compute/docs/metadata/querying-metadata
        "fd00:c1::/32",  # Oracle Cloud
        "fd00:42::/64",  # Scaleway
        "fd00:a9fe:a9fe::/48",  # Akamai (Linode)
    ),
)
_NO_METADATA: Final = "addresses of clouds' metadata services are never asked"
NEVER: Final[tuple[tuple[str, tuple[Network, ...]], ...]] = (
    ("link-local addresses are never asked", _networks("169.254.0.0/16", "fe80::/10", "fec0::/10")),
    (_NO_METADATA, _METADATA),
    (
        "multicast, broadcast and reserved addresses are never asked",
        _networks("224.0.0.0/4", "240.0.0.0/4", "ff00::/8", "100::/64"),
    ),
)
"""What nobody asks, and the sentence that says so."""
OWN_MACHINE: Final[tuple[str, tuple[Network, ...]]] = (
    (
        "loopback and unspecified addresses are not asked, since they are the operator's own machine: name the "
        "registry as it is known in the cluster, or open them with --allow-source-addresses"
    ),
    _networks("127.0.0.0/8", "0.0.0.0/8", "::1/128", "::/128"),
)

PRIVATE: Final = _networks(
    "127.0.0.0/8", "::1/128",
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16",  # RFC 1918
    "100.64.0.0/10",  # between a carrier and its customers, RFC 6598; some clusters have their pods there
    "198.18.0.0/15",  # benchmarks, RFC 2544
    "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20",  # documentation
    "fc00::/7",  # RFC 4193
    "64:ff9b:1::/48",  # translators of a site, RFC 8215
    "5f00::/16",  # segment routing, RFC 9602
)  # fmt: skip
"""Where only those inside can go: a guest's requests go there where its rule names the address."""
_UNSPECIFIED: Final = _networks("0.0.0.0/8", "::/128")

_TRANSLATED: Final = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "::ffff:0:0/96",  # mapped, RFC 4291
        "::/96",  # compatible, RFC 4291
        "::ffff:0:0:0/96",  # translated, RFC 2765
        "64:ff9b::/96",  # NAT64, RFC 6052
    )
)
"""Prefixes of 96 bits; an IPv4 address is what follows."""
_LOCAL_NAT64: Final = ipaddress.IPv6Network("64:ff9b:1::/48")
"""RFC 8215. A site divides it as it likes, so each length of RFC 6052, 2.2, that is possible is read."""
_6TO4: Final = ipaddress.IPv6Network("2002::/16")
_TEREDO: Final = ipaddress.IPv6Network("2001::/32")
_ISATAP: Final = frozenset({0x00005EFE, 0x02005EFE})
"""The upper half of an interface identifier, RFC 5214, 6.1."""
_RFC_6052: Final = (32, 40, 48, 56, 64, 96)
"""Lengths of a translator's prefix, in bits. Bits 64 to 71 are left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AddressPolicy:
    """Who is asked."""

    own_machine: bool = True
    """Whether the own machine may be."""
    own: tuple[Address, ...] = ()
    """More addresses that are not asked: the program's own, and those of its API server."""
    allowed: tuple[Network, ...] = ()
    """What an administrator allows all the same. Each has to lie in a network that is refused: ``0.0.0.0/0`` opens
    nothing."""

    def refusal(self, text: str) -> str | None:
        """Why an address is not asked; None where it may be. The address as a socket has it, with or without a zone."""
        address = ipaddress.ip_address(text.partition("%")[0])
        rules = NEVER if self.own_machine else (*NEVER, OWN_MACHINE)
        for reading in readings(address):
            for sentence, networks in rules:
                if any(reading in network for network in networks) and not self._is_allowed(reading, networks):
                    return sentence
            is_own = reading in self.own and not reading.is_loopback  # which is judged above
            if is_own and not self._is_allowed(reading, (ipaddress.ip_network(reading),)):
                return "addresses of this program itself, and of its API server, are not asked"
        if any(guess in network for guess in anywhere(address) for network in _METADATA_V4):
            return _NO_METADATA
        return None

    def _is_allowed(self, address: Address, refused: tuple[Network, ...]) -> bool:
        return any(address in each and any(_lies_in(each, network) for network in refused) for each in self.allowed)


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedAddresses:
    """Whom a guest's requests may reach: the world, and what is private where its rule names it."""

    named: tuple[Network, ...] = ()
    """Opens what is private, and nothing that nobody asks."""

    def refusal(self, text: str) -> str | None:
        """Why an address is not asked; None where it may be. The address as a socket has it, with or without a zone."""
        address = ipaddress.ip_address(text.partition("%")[0])
        for reading in readings(address):
            for sentence, networks in (*NEVER, ("unspecified addresses are never asked", _UNSPECIFIED)):
                if any(reading in network for network in networks):
                    return sentence
            private = any(reading in network for network in PRIVATE)
            if private and not any(reading in network for network in self.named):
                return "it is a private address, and the rule's addresses do not name it"
        if any(guess in network for guess in anywhere(address) for network in _METADATA_V4):
            return _NO_METADATA
        return None


def _lies_in(network: Network, other: Network) -> bool:
    if isinstance(network, ipaddress.IPv4Network):
        return isinstance(other, ipaddress.IPv4Network) and network.subnet_of(other)
    return isinstance(other, ipaddress.IPv6Network) and network.subnet_of(other)


def readings(address: Address) -> Iterator[Address]:
    """The address, and each IPv4 address that it holds by one of the standards."""
    yield address
    if isinstance(address, ipaddress.IPv4Address):
        return
    number = int(address)
    low = ipaddress.IPv4Address(number & 0xFFFFFFFF)
    if any(address in network for network in _TRANSLATED) and number > 1:  # "::" and "::1" are themselves
        yield low
    if address in _LOCAL_NAT64:
        # One of them is right, and the others are mostly zeros, where nothing is.
        yield from (guess for length in _RFC_6052[2:] if int(guess := _after(number, length)) >> 24)
    if address in _6TO4:
        yield ipaddress.IPv4Address(number >> 80 & 0xFFFFFFFF)
    if address in _TEREDO:
        yield ipaddress.IPv4Address(number >> 64 & 0xFFFFFFFF)
        yield ipaddress.IPv4Address(~number & 0xFFFFFFFF)
    if number >> 32 & 0xFFFFFFFF in _ISATAP:
        yield low


def anywhere(address: Address) -> Iterator[Address]:
    """What the address would hold behind a translator's prefix of any length, which only the network knows."""
    if isinstance(address, ipaddress.IPv6Address):
        for length in _RFC_6052:
            yield _after(int(address), length)


def _after(number: int, length: int) -> ipaddress.IPv4Address:
    """The IPv4 address behind a prefix of so many bits, around bits 64 to 71: RFC 6052, 2.2."""
    if length == 96:  # noqa: PLR2004 - behind those bits
        return ipaddress.IPv4Address(number & 0xFFFFFFFF)
    without = number >> 64 << 56 | number & (1 << 56) - 1  # 120 bits
    return ipaddress.IPv4Address(without >> 120 - length - 32 & 0xFFFFFFFF)


def parse_networks(text: str) -> tuple[Network, ...]:
    """Networks with commas between, such as ``10.1.2.0/24,fd00::/64``; raises ValueError with a sentence."""
    found = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        try:
            found.append(ipaddress.ip_network(part))
        except ValueError:
            raise ValueError(f"{part!r:.60} is not a network such as 10.1.2.0/24 or fd00::/64") from None
    return tuple(found)
