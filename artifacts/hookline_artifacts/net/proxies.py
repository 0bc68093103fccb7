"""HTTP proxies between us and those who are asked: ``HTTP_PROXY``, ``HTTPS_PROXY``, ``NO_PROXY`` and their lower case.

They mean what they mean to Go's programs, and so to everything else in a cluster: the first two are URLs, by the
scheme of what is asked for; ``NO_PROXY`` has commas between names (``example.com`` is it and all below it,
``.example.com`` all below it alone), addresses, networks (``10.0.0.0/8``), each of them with a port where only that one
is meant, and ``*`` for everything. ``localhost`` and the loopback addresses are never asked through a proxy.

DANGER: a proxy looks names up itself, so nobody here sees which address it goes to. What is checked still: addresses
that are written as such, however they are spelt, and the names by which clouds know their metadata services. A proxy
that can reach what tenants must not reach has to refuse it.

https://pkg.go.dev/golang.org/x/net/http/httpproxy
"""

from __future__ import annotations

import base64
import ipaddress
import re
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from yarl import URL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hookline_artifacts.net.addresses import Address, Network

_PORTS: Final = {"http": 80, "https": 443}
_METADATA: Final = frozenset({
    "metadata", "metadata.google.internal", "metadata.goog",
    "instance-data", "instance-data.ec2.internal",
    "metadata.tencentyun.com", "metadata.packet.net", "metadata.platformequinix.com",
})  # fmt: skip
_MAX_RULES: Final = 1000
_WORD: Final = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Proxy:
    """One proxy."""

    url: URL
    """Without user and password."""
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    named_in: str = "HTTPS_PROXY"

    @property
    def authorization(self) -> str:
        """The value of a ``Proxy-Authorization`` header; empty where there is none."""
        login = f"{self.user}:{self.password}"
        return "" if login == ":" else f"Basic {base64.b64encode(login.encode()).decode()}"

    def __str__(self) -> str:
        return f"the proxy {self.url.origin()} (of {self.named_in})"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rule:
    """An entry of ``NO_PROXY``."""

    name: str = ""
    """``example.com``, or ``.example.com``."""
    network: Network | None = None
    port: int | None = None

    def fits(self, host: str, address: Address | None, port: int) -> bool:
        if self.port is not None and self.port != port:
            return False
        if self.network is not None:
            return address is not None and address in self.network
        return host == self.name or host.endswith(self.name if self.name.startswith(".") else f".{self.name}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Proxies:
    """Through whom somebody is asked."""

    http: Proxy | None = None
    https: Proxy | None = None
    direct: tuple[_Rule, ...] = ()
    all_direct: bool = False

    def of(self, url: URL) -> Proxy | None:
        """The proxy for a URL; None where it is asked directly."""
        proxy = self.https if url.scheme == "https" else self.http
        host = (url.raw_host or "").lower().rstrip(".")
        if proxy is None or self.all_direct:
            return None
        address = literal(host)
        if host == "localhost" or (address is not None and address.is_loopback):
            return None
        port = url.port or _PORTS.get(url.scheme, 0)
        return None if any(rule.fits(host, address, port) for rule in self.direct) else proxy


NO_PROXIES: Final = Proxies()


def literal(host: str) -> Address | None:
    """The address that a host is, in any spelling that a resolver takes: ``127.1``, ``0x7f000001``; None for a name."""
    bare = host.strip("[]").partition("%")[0]
    try:
        return ipaddress.ip_address(bare)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(bare)) if _is_numbers(bare) else None
    except OSError:
        return None


def _is_numbers(host: str) -> bool:
    return all(re.fullmatch(r"0[xX][0-9A-Fa-f]*|[0-9]+", part) for part in host.split("."))


def is_odd(host: str) -> bool:
    """Whether it may be an address, and not for each program the same: ``0x7f.1``, ``010.1.2.3``."""
    try:
        ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return _is_numbers(host.rstrip(".").rpartition(".")[2])
    return False


def is_metadata_name(host: str) -> bool:
    """Whether clouds know their metadata service by this name."""
    return host.lower().rstrip(".") in _METADATA


def from_environment(environment: Mapping[str, str]) -> Proxies:
    """What the environment says. Raises ValueError with a sentence that shows no password."""
    direct, all_direct = _rules(_value(environment, "NO_PROXY")[1])
    return Proxies(
        http=_proxy(*_value(environment, "HTTP_PROXY")),
        https=_proxy(*_value(environment, "HTTPS_PROXY")),
        direct=direct,
        all_direct=all_direct,
    )


def _value(environment: Mapping[str, str], name: str) -> tuple[str, str]:
    """The variable that counts, and its value."""
    for each in (name, name.lower()):
        if environment.get(each):
            return each, environment[each]
    return name, ""


def _proxy(name: str, text: str) -> Proxy | None:
    text = text.strip()
    if not text:
        return None
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port = parts.port or _PORTS.get(parts.scheme)
        host = parts.hostname or ""
        if parts.scheme not in _PORTS or not (literal(host) or _WORD.fullmatch(host)):
            raise ValueError  # noqa: TRY301 - the same as what cannot be read
        url = URL.build(scheme=parts.scheme, host=host, port=port)
    except ValueError:
        raise ValueError(f"{name} is not the URL of a proxy, such as http://proxy.example.com:3128") from None
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return Proxy(url=url, user=user, password=password, named_in=name)


def _rules(text: str) -> tuple[tuple[_Rule, ...], bool]:
    """The entries of ``NO_PROXY``, and whether it is ``*``. What is no entry is passed over, as all programs do."""
    found: list[_Rule] = []
    for part in re.split(r"[,\s]+", text.lower())[:_MAX_RULES]:
        if part == "*":
            return (), True
        rule = _rule(part)
        if rule is not None:
            found.append(rule)
    return tuple(found), False


def _rule(text: str) -> _Rule | None:
    try:
        return _Rule(network=ipaddress.ip_network(text.strip("[]"), strict=False))
    except ValueError:
        pass
    host, colon, port = text.rpartition(":")
    if not colon:
        host, port = text, ""
    elif not port.isdecimal():
        return None
    number = int(port[:6]) if port else None
    address = literal(host) if host else None
    if address is not None:
        return _Rule(network=ipaddress.ip_network(address), port=number)
    name = host.removeprefix("*").rstrip(".")
    return _Rule(name=name, port=number) if name.strip(".") else None
