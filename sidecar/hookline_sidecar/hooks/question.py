"""What a proxy asks by a subrequest: the inputs of the two hooks, what a decision says, and the replies. Pure.

Nothing is asked here; ``auth`` does that.
"""

from __future__ import annotations

import base64
import binascii
import functools
import re
import urllib.parse
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from hookline_runtime.call.inputs import request_id_of
from hookline_sidecar.hooks.original import client_address, original, original_of_head
from hookline_sidecar.replies import Lines, Reply, lines

if TYPE_CHECKING:
    from hookline_sidecar.hooks.original import Pairs, ProxyHeaders

_NOT_FOR_HEADERS: Final = re.compile(r"[\x00-\x1f\x7f]|^\s|\s$")
_MAX_HEADER: Final = 4096
_IDENTITY_HEADERS: Final = (
    "X-Hookline-User", "X-Hookline-User-Id", "X-Hookline-Roles", "X-Hookline-Tenant",
)  # fmt: skip
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_REASON: Final = "X-Hookline-Reason"
_MAX_REASON: Final = 256
"""Characters of a plugin's words that a client is told."""
_NOT_IN_DESCRIPTION: Final = re.compile(r"[^ !#-\[\]-~]")
"""What no ``error_description`` holds (RFC 6750, section 3): quotation marks, backslashes, all but printable ASCII."""
_MAX_KNOWN: Final = 512
_MAX_KNOWN_BYTES: Final = 1024
_AS_IT_IS: Final = re.compile(r"[ !#$&-~\"\\]*")
"""What may stand in a header, but for the percent sign that escapes the rest."""
_TEXT: Final = lines(("Content-Type", "text/plain; charset=utf-8"))
_NOTHING: Final = lines()
_ASK_BASIC: Final = lines(("WWW-Authenticate", 'Basic realm="hookline"'))
_ASK_BEARER: Final = lines(("WWW-Authenticate", "Bearer"))


Subrequest = tuple[str | None, str | None, dict[str, str], str, str | None]
"""Method and path of the original request, None where the proxy does not say; the headers that plugins may see; the
request id; the client's address. A plain tuple: it is read once, for each request."""


class Who(NamedTuple):
    """What an authentication came to, ready for the second question and for the reply."""

    refused: int
    """The status that ends it here; 0 where it goes on."""
    shown: Lines
    """The headers of a yes. Always all of them, empty ones too: a proxy that copies them over the request's replaces
    a client's forgery."""
    identity: orjson.Fragment | None
    username: str | None
    attributes: dict[str, str]
    reason: str = ""
    """Why it is refused, where the client may read it."""


NOBODY: Final = Who(0, lines(*((name, "") for name in _IDENTITY_HEADERS)), None, None, {})


def read_subrequest(
    proxy: ProxyHeaders, method: str, target: str, headers: dict[str, str], pairs: Pairs | None
) -> Subrequest:
    """Read what is asked. Raises UnclearError where that can be read in more than one way.

    ``pairs`` is what the headers say of the original request; None where each of them comes once.
    """
    if proxy.ignored and not proxy.ignored.isdisjoint(headers):  # nor is a plugin to believe them
        headers = {name: value for name, value in headers.items() if name not in proxy.ignored}
    verb, path = (
        original_of_head(proxy, method, target, headers) if pairs is None else original(proxy, method, target, pairs)
    )
    return verb, path, headers, request_id_of(headers.get("x-request-id")), client_address(proxy, headers)


def authentication(headers: dict[str, str], client_ip: str | None, request_id: str) -> bytes:
    """The input of ``authenticate``: every field of the contract, in its order."""
    username, password = "", None
    authorization = headers.get("authorization")
    if authorization is not None:
        username, password = _basic(authorization)
    asked = {
        "headers": headers,
        "username": username,
        "password": password,
        "client_ip": client_ip or "",
        "database": None,
        "hook_context": _context(request_id, None, {} if client_ip is None else {"client_ip": client_ip}),
    }
    return orjson.dumps(asked)


def authorization(method: str | None, path: str | None, request_id: str, client_ip: str | None, who: Who) -> bytes:
    """The input of ``authorize``: every field of the contract, in its order."""
    attributes = who.attributes if client_ip is None else {"client_ip": client_ip, **who.attributes}
    asked = {
        "query": "",
        "normalized": "",
        "tables": (),
        "is_read_only": method in _SAFE,
        "hook_context": _context(request_id, who.username, attributes),
        "identity": who.identity,
        "action": method or "",
        "resource": path or "",
    }
    return orjson.dumps(asked)


def _context(request_id: str, identity: str | None, attributes: dict[str, str]) -> dict[str, Any]:
    """The ``hook_context``: every field of the contract, in its order."""
    return {
        "request_id": request_id,
        "client_id": None,
        "identity": identity,
        "database": None,
        "branch": None,
        "attributes": attributes,
    }


def read_who(decision: bytes) -> Who:
    """Who it is, by a decision of ``authenticate`` without its closing brace."""
    return _known_who(decision) if len(decision) <= _MAX_KNOWN_BYTES else _read_who(decision)


def read_action(decision: bytes) -> tuple[str, str]:
    """The action of a decision of ``authorize`` without its closing brace; why it is refused, if that may be told."""
    return _known_action(decision) if len(decision) <= _MAX_KNOWN_BYTES else _read_action(decision)


def allowed(request_id: str, who: Who) -> Reply:
    """200, with the identity as headers."""
    return Reply(200, who.shown, request_id=_header(request_id))


def refused(headers: dict[str, str], request_id: str, status: int, reason: str = "") -> Reply:
    """401 with a challenge, or another status. ``reason`` is what a plugin says of it, for the client to read."""
    tried = headers.get("authorization", "")
    is_basic = tried.lower().startswith("basic")
    why = " ".join(reason[:_MAX_REASON].split())
    if why:
        return Reply(status, _refusal(status, why, tried, is_basic=is_basic), request_id=_header(request_id))
    challenge = _NOTHING
    if status == 401:  # noqa: PLR2004 - RFC 9110, 11.6.1: a challenge is due
        challenge = _ASK_BASIC if is_basic else _ASK_BEARER
    return Reply(status, challenge, request_id=_header(request_id))


def _refusal(status: int, why: str, tried: str, *, is_basic: bool) -> Lines:
    """The headers of a refusal that says why.

    RFC 6750, section 3.1, has the errors; a client that tried nothing is told none, and RFC 7617 has no field for one.
    """
    told = (_REASON, urllib.parse.quote(why, safe=" !#$()*+,-./:;=?@[]^_`{|}~"))
    is_unknown = status == 401  # noqa: PLR2004 - else it is known who it is, and what they may not
    if is_basic or not tried:
        plain = _ASK_BASIC if is_basic else _ASK_BEARER
        return lines(*(plain.pairs if is_unknown else ()), told)
    error = "invalid_token" if is_unknown else "insufficient_scope"
    described = _NOT_IN_DESCRIPTION.sub("?", why.replace('"', "'"))
    return lines(("WWW-Authenticate", f'Bearer error="{error}", error_description="{described}"'), told)


def unclear(error: Exception) -> Reply:
    """403, with the sentence of an UnclearError."""
    return Reply(403, _TEXT, f"{error}\n".encode())


def text_of(value: str) -> str:
    """A header's value. Bytes that are not UTF-8 come from aiohttp as lone surrogates, which no JSON can carry."""
    return value if value.isascii() else value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _read_who(decision: bytes) -> Who:
    read = orjson.loads(decision + b"}")
    if read["action"] == "denied":
        return NOBODY._replace(refused=401, reason=_told(read, "message"))
    if read["action"] != "success":
        return NOBODY
    identity = read["identity"]
    tenant = identity["tenant_id"] or ""
    shown = _identity_headers(identity["username"], identity["user_id"], identity["roles"], tenant)
    if shown is None:
        return NOBODY._replace(refused=403)
    attributes = {"identity.roles": ",".join(identity["roles"])} | ({"tenant_id": tenant} if tenant else {})
    return Who(0, lines(*shown), orjson.Fragment(orjson.dumps(identity)), identity["username"], attributes)


def _read_action(decision: bytes) -> tuple[str, str]:
    read = orjson.loads(decision + b"}")
    action: str = read["action"]
    return action, _told(read, "reason") if action == "deny" else ""


def _told(read: dict[str, Any], field: str) -> str:
    """The plugin's own words, where the client may read them; what is said of a plugin that failed are not its own."""
    return (read.get(field) or "") if read.get("tell_reason") is True and "failure" not in read else ""


_known_who: Final = functools.lru_cache(_MAX_KNOWN)(_read_who)
_known_action: Final = functools.lru_cache(_MAX_KNOWN)(_read_action)


def _basic(authorization: str) -> tuple[str, str | None]:
    """User name and password of an ``Authorization: Basic`` header, RFC 7617; an empty name and None for another."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return "", None
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True).decode()
    except (ValueError, binascii.Error):
        return "", None
    username, _, password = decoded.partition(":")
    return username, password


def _identity_headers(
    username: str, user_id: str, roles: list[str], tenant_id: str
) -> tuple[tuple[str, str], ...] | None:
    """The headers for upstreams; None where one would read another identity from it than the plugin gave."""
    values = tuple(map(_header, (username, user_id, ",".join(roles), tenant_id)))
    if (
        any(_NOT_FOR_HEADERS.search(name) for name in (username, user_id, tenant_id, *roles))
        or any("," in role for role in roles)
        or any(len(value) > _MAX_HEADER for value in values)
    ):
        return None
    return tuple(zip(_IDENTITY_HEADERS, values, strict=True))


def _header(value: str) -> str:
    """Visible ASCII as it is, everything else percent-encoded."""
    if _AS_IT_IS.fullmatch(value):
        return value
    return urllib.parse.quote(value, safe=" !#$&'()*+,-./:;<=>?@[]^_`{|}~\"\\")
