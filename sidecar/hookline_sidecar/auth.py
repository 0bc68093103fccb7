"""``/v1/auth``: proxies that ask by subrequest (nginx, Traefik, Caddy, Envoy's ext_authz over HTTP).

Method, path and headers of the original request become ``authenticate``, then ``authorize``. The answer is 200
with the identity as headers, 401 or 403; never a 2xx by accident: somebody has to say yes.

============  ================================  =======
authenticate  authorize                         answer
============  ================================  =======
denied        (not asked)                       401
success       allow, or no plugin is there      200
success       deny, or nobody decides           403
defer         allow                             200, without an identity
defer         deny                              403
defer         nobody decides                    401
============  ================================  =======

The original request is told by nginx's headers (``X-Original-URI``, ``X-Original-Method``), by Caddy's and
Traefik's (``X-Forwarded-Uri``, ``X-Forwarded-Method``), or by method and path behind ``/v1/auth``, as Envoy's
``path_prefix`` sends it. What is told twice and differs is refused, because one of the two may be the client's;
what is not told is null for the plugins, because a guess would be judged in its place (``docs/proxies.md``).
"""

from __future__ import annotations

import base64
import binascii
import re
import urllib.parse
from typing import TYPE_CHECKING, Any, Final

import orjson
from aiohttp import web

from hookline_api.hooks import Hook
from hookline_runtime.inputs import read_call

if TYPE_CHECKING:
    from hookline_runtime.pipeline import Chains
    from hookline_runtime.runtime import Runtime

_PREFIX: Final = "/v1/auth"
_NOT_FOR_HEADERS: Final = re.compile(r"[\x00-\x1f\x7f]|^\s|\s$")
_MAX_HEADER: Final = 4096
_IDENTITY_HEADERS: Final = (
    "X-Hookline-User", "X-Hookline-User-Id", "X-Hookline-Roles", "X-Hookline-Tenant",
)  # fmt: skip
# In no path of RFC 3986, or the end of it for some servers; \ufffd stands for bytes that are not UTF-8.
_NOT_IN_PATHS: Final = re.compile(r"[\x00-\x20\x7f\\#\ufffd]|%(?![0-9A-Fa-f]{2})|%00|^(?!/)|^//")
_ESCAPE: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9._~-]")
# What servers take for a separator, and what Java's take for the end of a segment's name.
_DOT_SEGMENT: Final = re.compile(r"(?:/|%2F|%5C)\.\.?(?:/|%2F|%5C|;|%3B|$)")


class _UnclearError(ValueError):
    """The original request can be read in more than one way: the sentence says why."""


async def answer(runtime: Runtime, request: web.BaseRequest) -> web.Response:
    """Authenticate, then authorize."""
    headers = _headers(request)
    try:
        method, path = _original(request)
    except _UnclearError as error:
        return web.Response(status=403, text=f"{error}\n")
    username, password = _basic(headers.get("authorization", ""))
    client_ip = _last(headers.get("x-real-ip", "")) or _last(headers.get("x-forwarded-for", ""))
    asked: dict[str, Any] = {
        "headers": headers,
        "username": username,
        "password": password,
        "client_ip": client_ip,
        "database": None,
    }
    with runtime.chains.held() as chains:  # one bundle answers both questions
        return await _ask(chains, asked, method, path)


async def _ask(chains: Chains, asked: dict[str, Any], method: str | None, path: str | None) -> web.Response:
    headers, client_ip = asked["headers"], asked["client_ip"]
    who = await chains.decide(read_call(Hook.AUTHENTICATE, orjson.dumps(asked)))
    request_id = who["request_id"]
    if who["action"] == "denied":
        return _refuse(401, request_id, headers)
    identity = who["identity"] if who["action"] == "success" else None
    if identity is not None and _forges(identity):
        return _refuse(403, request_id, headers)
    authorize: dict[str, Any] = {
        "query": "",
        "normalized": None,
        "tables": [],
        "is_read_only": method in {"GET", "HEAD", "OPTIONS"},
        "hook_context": {
            "request_id": request_id,
            "client_id": None,
            "identity": identity["username"] if identity else None,
            "database": None,
            "branch": None,
            "attributes": _attributes(client_ip, identity),
        },
        "identity": identity,
        "action": method,
        "resource": path,
    }
    may = await chains.decide(read_call(Hook.AUTHORIZE, orjson.dumps(authorize)))
    match may["action"]:
        case "allow":
            return _accept(request_id, identity)
        case "defer" if identity is not None and not chains.has_deciders(Hook.AUTHORIZE):
            return _accept(request_id, identity)
        case "defer" if identity is None:
            return _refuse(401, request_id, headers)
        case _:
            return _refuse(403, request_id, headers)


def _headers(request: web.BaseRequest) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in request.headers.items():
        key = name.lower()
        joined[key] = f"{joined[key]}, {_text(value)}" if key in joined else _text(value)
    return joined


def _text(value: str) -> str:
    """Bytes that are not UTF-8 come from aiohttp as lone surrogates, which no JSON can carry."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _original(request: web.BaseRequest) -> tuple[str | None, str | None]:
    """Method and path, None where the proxy does not tell them; raises _UnclearError."""
    uris = _told(request, "X-Original-URI", "X-Forwarded-Uri")
    methods = {method.upper()[:64] for method in _told(request, "X-Original-Method", "X-Forwarded-Method")}
    behind = request.raw_path.removeprefix(_PREFIX)
    if behind and not behind.startswith("?"):
        uris.add(behind)
        methods.add(request.method)
    paths = {_canonical(uri) for uri in uris}
    if len(paths) > 1 or len(methods) > 1:
        raise _UnclearError(
            "the original request is told twice, and differs: the proxy has to strip a client's headers"
        )
    return next(iter(methods), None), next(iter(paths), None)


def _told(request: web.BaseRequest, *names: str) -> set[str]:
    return {_text(value) for name in names for value in request.headers.getall(name, ()) if value}


def _canonical(uri: str) -> str:
    """The path in the one spelling that plugins compare: RFC 3986, 6.2.2, and no empty segments.

    Dot segments are refused instead of resolved: the upstream gets the path as it came, and may read it otherwise.
    """
    path = uri.partition("?")[0]
    if _NOT_IN_PATHS.search(path):
        raise _UnclearError("the path is malformed")
    path = _ESCAPE.sub(_normal_escape, re.sub("//+", "/", path))
    if _DOT_SEGMENT.search(path):
        raise _UnclearError("the path has dot segments")
    return urllib.parse.quote(path, safe="".join(map(chr, range(0x21, 0x7F))))


def _normal_escape(escape: re.Match[str]) -> str:
    character = chr(int(escape[0][1:], 16))
    return character if _UNRESERVED.match(character) else escape[0].upper()


def _last(values: str) -> str | None:
    """The last of a list: what the nearest proxy added, when all before it may be the client's."""
    return values.rpartition(",")[2].strip() or None


def _basic(authorization: str) -> tuple[str | None, str | None]:
    """User name and password of an ``Authorization: Basic`` header, RFC 7617."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None, None
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True).decode()
    except (ValueError, binascii.Error):
        return None, None
    username, _, password = decoded.partition(":")
    return username, password


def _attributes(client_ip: str | None, identity: dict[str, Any] | None) -> dict[str, str]:
    attributes = {}
    if client_ip:
        attributes["client_ip"] = client_ip
    if identity:
        attributes["identity.roles"] = ",".join(identity["roles"])
        if identity["tenant_id"]:
            attributes["tenant_id"] = identity["tenant_id"]
    return attributes


def _values(identity: dict[str, Any]) -> tuple[str, ...]:
    """What the identity headers say, in their order."""
    roles = ",".join(identity["roles"])
    return tuple(map(_header, (identity["username"], identity["user_id"], roles, identity["tenant_id"] or "")))


def _forges(identity: dict[str, Any]) -> bool:
    """Whether an upstream would read another identity from the headers than the plugin gave."""
    names = (identity["username"], identity["user_id"], identity["tenant_id"] or "", *identity["roles"])
    return (
        any(_NOT_FOR_HEADERS.search(name) for name in names)
        or any("," in role for role in identity["roles"])
        or any(len(value) > _MAX_HEADER for value in _values(identity))
    )


def _accept(request_id: str, identity: dict[str, Any] | None) -> web.Response:
    values = ("", "", "", "") if identity is None else _values(identity)
    # Always all of them, empty ones too: a proxy that copies them over the request's replaces a client's forgery.
    answer = dict(zip(_IDENTITY_HEADERS, values, strict=True))
    return web.Response(status=200, headers=answer | {"X-Hookline-Request-Id": _header(request_id)})


def _refuse(status: int, request_id: str, headers: dict[str, str]) -> web.Response:
    response = web.Response(status=status, headers={"X-Hookline-Request-Id": _header(request_id)})
    if status == 401:  # noqa: PLR2004 - RFC 9110, 11.6.1: a challenge is due
        basic = headers.get("authorization", "").lower().startswith("basic")
        response.headers["WWW-Authenticate"] = 'Basic realm="hookline"' if basic else "Bearer"
    return response


def _header(value: str) -> str:
    """Visible ASCII as it is, everything else percent-encoded."""
    return urllib.parse.quote(value, safe=" !#$&'()*+,-./:;<=>?@[]^_`{|}~\"\\")
