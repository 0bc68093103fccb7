"""What a plugin's requests may reach (``spec.egress``): which URLs can be asked, by which rule, and after a redirect.

Pure: nothing is looked up here. A URL is read strictly, because whoever reads it loosely reads it otherwise than the
server: what has two meanings (a user, a backslash, an address in octal, ``..`` in whatever spelling) is refused and not
mended. What is judged is what is sent: ``Target.url``, and not the guest's text.

Grammar: https://www.rfc-editor.org/rfc/rfc3986 . References of redirects are resolved as in its section 5.2.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote

from hookline_artifacts.errors import ConfigError
from hookline_artifacts.net.addresses import NamedAddresses
from hookline_artifacts.net.paths import without_dots
from hookline_runtime.host.http_message import MAX_URL, HttpError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hookline_api.outbound import EgressRule

_PORTS: Final = {"http": 80, "https": 443}
_PRINTABLE: Final = re.compile(r"[!-~]+")
_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(\?[^#]*)?(?:#.*)?")
_REFERENCE: Final = re.compile(r"(//[^/?#]*)?([^?#]*)(\?[^#]*)?(?:#.*)?")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_AUTHORITY: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._-]{1,253}))(?::([0-9]{1,5}))?")
_LABEL: Final = re.compile(r"[A-Za-z0-9_-]{1,63}")
_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_PATH: Final = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*")
_QUERY: Final = re.compile(r"\?(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-Fa-f]{2})*")
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_SHORT: Final = 512
"""Characters of a URL that is remembered: half a mebibyte for all of them."""
_DECODINGS: Final = 3
"""How often a path is decoded in search of dots: servers behind servers may each do it once."""
_CREDENTIAL: Final = re.compile(r"[\x20-\x7e]{1,8192}")
_NO_CREDENTIALS: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding"})


class Target(NamedTuple):
    """A URL that can be asked, in the one form in which it is judged, sent and kept."""

    scheme: str
    host: str
    """A name in lower case, or an address as ``ipaddress`` writes it, without brackets."""
    port: int
    path: str
    query: str
    """With its ``?``, or empty."""
    origin: str
    """``https://host``, with the port where it is not the scheme's."""
    url: str
    """The whole."""


def read_url(text: str) -> Target:
    """A URL that a guest or a redirect names. Raises HttpError."""
    if len(text) > MAX_URL:
        raise HttpError("limit", f"a URL is longer than {MAX_URL} characters")
    return _read_short(text) if len(text) <= _SHORT else _read(text)


def _read(text: str) -> Target:
    if not _PRINTABLE.fullmatch(text):
        raise HttpError(
            "denied",
            "a URL has a space, a control character or a letter beyond ASCII: percent-encode it, and write a host's "
            "name in its xn-- form",
        )
    match = _URL.fullmatch(text)
    if match is None or match[1].lower() not in _PORTS:
        raise HttpError("denied", "a URL begins with https:// or http:// and a host")
    scheme, query = match[1].lower(), match[4] or ""
    host, port = _authority(match[2])
    if not _QUERY.fullmatch(query or "?"):
        raise HttpError("denied", "a URL's query has a character that must be percent-encoded")
    query, path = "" if query == "?" else query, _path(match[3] or "/")
    origin = f"{scheme}://[{host}]" if ":" in host else f"{scheme}://{host}"
    if port is not None and port != _PORTS[scheme]:
        origin = f"{origin}:{port}"
    return Target(
        scheme=scheme,
        host=host,
        port=port or _PORTS[scheme],
        path=path,
        query=query,
        origin=origin,
        url=f"{origin}{path}{query}",
    )


_read_short: Final = functools.lru_cache(256)(_read)
"""Most plugins ask the same few URLs again and again."""


def follow(here: Target, location: str) -> Target:
    """Where a redirect leads. Raises HttpError."""
    if _SCHEME.match(location):
        there = read_url(location)
    else:
        match = _REFERENCE.fullmatch(location)
        if match is None or not location:
            raise HttpError("failed", f"{here.origin} redirects to nowhere")
        authority, path, query = match.groups()
        if not path and authority is None:
            path, query = here.path, here.query if query is None else query
        elif not path.startswith("/") and authority is None:
            path = here.path.rpartition("/")[0] + "/" + path
        origin = here.origin if authority is None else f"{here.scheme}:{authority}"
        there = read_url(f"{origin}{without_dots(path) if path else ''}{query or ''}")
    if here.scheme == "https" and there.scheme == "http":
        raise HttpError("denied", f"{here.origin} redirects to {there.origin}, and https is not left for http")
    return there


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One rule of ``spec.egress``, with what its Secrets hold."""

    number: int
    scheme: str
    host: str
    """A name or an address as in ``Target``; of a wildcard, what names end with: a dot and a domain, or nothing."""
    wildcard: bool
    port: int
    methods: frozenset[str]
    paths: tuple[str, ...]
    addresses: NamedAddresses
    credential: tuple[str, str] | None
    """A header's name in lower case, and its value."""
    secret: str
    """What must not be seen, of that value; empty where there is none."""
    ca: str | None
    """The authority of the server's certificate, PEM."""
    refusal: str | None
    """Why its host is not asked, where that is an address."""

    def allows_path(self, path: str) -> bool:
        """Whether a path begins, by whole segments, with one that is allowed."""
        return not self.paths or any(
            path == each or path.startswith(each if each.endswith("/") else each + "/") for each in self.paths
        )


class Egress:
    """All rules of one plugin."""

    def __init__(self, rules: Sequence[EgressRule], credentials: Mapping[str, str]) -> None:
        """Raises ConfigError where a Secret's value cannot be used."""
        self.rules = tuple(_rule(number, rule, credentials) for number, rule in enumerate(rules))
        self._by_origin: dict[tuple[str, str, int], list[Rule]] = {}
        self._wildcards = [rule for rule in self.rules if rule.wildcard]
        for rule in self.rules:
            if not rule.wildcard:
                self._by_origin.setdefault((rule.scheme, rule.host, rule.port), []).append(rule)

    def rule(self, method: str, target: Target) -> Rule:
        """The first rule that allows all of a request. Raises HttpError."""
        named = self._naming(target)
        for each in named:
            if method in each.methods and each.allows_path(target.path):
                if each.refusal is not None:
                    raise HttpError("denied", f"{target.origin} is not asked: {each.refusal}")
                return each
        if not named:
            raise HttpError("denied", f"no rule of spec.egress names {target.origin}")
        path = " this path of" if any(method in each.methods for each in named) else ""
        raise HttpError("denied", f"no rule of spec.egress allows {method} to{path} {target.origin}")

    def _naming(self, target: Target) -> list[Rule]:
        """The rules about a scheme, host and port, in order."""
        exact = self._by_origin.get((target.scheme, target.host, target.port), [])
        if not self._wildcards or is_address(target.host):
            return exact
        wild = [
            each
            for each in self._wildcards
            if (each.scheme, each.port) == (target.scheme, target.port) and target.host.endswith(each.host)
        ]
        return sorted(exact + wild, key=lambda rule: rule.number)


def is_address(host: str) -> bool:
    """Whether the host of a ``Target`` is an address: a name's last part is no number."""
    return ":" in host or host.rpartition(".")[2].isdigit()


def _rule(number: int, rule: EgressRule, credentials: Mapping[str, str]) -> Rule:
    def value_of(what: str, where: str) -> str:
        if where not in credentials:
            secret, _, key = where.partition("/")
            raise ConfigError(f"spec.egress[{number}].{what}: there is no key '{key}' of a Secret '{secret}'")
        return credentials[where]

    wildcard = rule.host.startswith("*")
    host = rule.host.removeprefix("*").lower()
    addresses, refusal = NamedAddresses(named=tuple(map(ipaddress.ip_network, rule.addresses))), None
    if not wildcard and is_address(host):
        address = ipaddress.ip_address(host)
        host = str(address)
        addresses = NamedAddresses(named=(ipaddress.ip_network(address), *addresses.named))
        refusal = addresses.refusal(host)
    credential, hidden = None, ""
    if rule.credential is not None:
        given = rule.credential
        name, hidden = given.header.lower(), value_of("credential", given.value_from.id).strip("\r\n")
        value = given.prefix + hidden
        if name in _NO_CREDENTIALS or not _CREDENTIAL.fullmatch(value):
            raise ConfigError(
                f"spec.egress[{number}].credential cannot be sent: the header {name} is not the host's own, and its "
                "value is one line of printable ASCII"
            )
        credential = (name, value)
    return Rule(
        number=number,
        scheme=rule.scheme,
        host=host,
        wildcard=wildcard,
        port=rule.port or _PORTS[rule.scheme],
        methods=frozenset(rule.methods or ("GET", "HEAD")),
        paths=tuple(_spelled(each) for each in rule.paths),
        addresses=addresses,
        refusal=refusal,
        credential=credential,
        secret=hidden,
        ca=None if rule.ca_from is None else value_of("caFrom", rule.ca_from.id),
    )


def _authority(text: str) -> tuple[str, int | None]:
    if "@" in text:
        raise HttpError("denied", "a URL with a user or a password is not asked: give the rule a credential")
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        raise HttpError(
            "denied", "a URL's host is not a name, an address or an address in brackets, with a port or none"
        )
    bracketed, name, digits = match.groups()
    port = int(digits) if digits else None
    if port is not None and not 1 <= port <= 65_535:  # noqa: PLR2004 - the last port
        raise HttpError("denied", "a URL's port is a number from 1 to 65535")
    try:
        if bracketed is not None:
            return str(ipaddress.IPv6Address(bracketed)), port
        labels = name.split(".")
        if _NUMBER.fullmatch(labels[-1]):
            return str(ipaddress.IPv4Address(name)), port
    except ValueError:
        raise HttpError(
            "denied", "a URL's host is an address in an unusual form: write it as 192.0.2.1 or [2001:db8::1]"
        ) from None
    if not all(_LABEL.fullmatch(each) for each in labels):
        raise HttpError("denied", "a URL's host has a part that is empty or too long, or a dot at its end")
    return name.lower(), port


def _path(path: str) -> str:
    if "\\" in path or not _PATH.fullmatch(path):
        raise HttpError("denied", "a URL's path has a character that must be percent-encoded")
    if "%" not in path and "/." not in path:
        return path
    decoded = path
    for _ in range(_DECODINGS):
        decoded = unquote(decoded)
        if _CONTROL.search(decoded):
            raise HttpError("denied", "a URL's path has a control character")
        # ";" begins what some servers take off a segment before they look at it
        if any(each.partition(";")[0] in {".", ".."} for each in decoded.replace("\\", "/").split("/")):
            raise HttpError("denied", "a URL's path has a segment '.' or '..', however it is spelled")
        if not _ESCAPE.search(decoded):
            return _spelled(path)
    raise HttpError("denied", "a URL's path is percent-encoded again and again")


def _spelled(path: str) -> str:
    """A path in the one spelling: what need not be escaped is not, and escapes are in capitals (RFC 3986, 6.2.2)."""
    if "%" not in path:
        return path

    def respelled(found: re.Match[str]) -> str:
        letter = chr(int(found[1], 16))
        return letter if letter in _UNRESERVED else found[0].upper()

    return _ESCAPE.sub(respelled, path)
