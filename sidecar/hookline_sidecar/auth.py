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

Where the original request is told by headers, they are nginx's by convention (``X-Original-URI``,
``X-Original-Method``) or Traefik's and Caddy's (``X-Forwarded-Uri``, ``X-Forwarded-Method``); otherwise it is the
path behind ``/v1/auth``, as Envoy's ``path_prefix`` sends it. The proxy has to set them: what a client sends under
these names must not come through (``docs/proxies.md``).
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

if TYPE_CHECKING:
    from hookline_runtime.runtime import Runtime

_PREFIX: Final = "/v1/auth"
_NOT_FOR_HEADERS: Final = re.compile(r"[\x00-\x1f\x7f]")
_MAX_HEADER: Final = 4096
_IDENTITY_HEADERS: Final = (
    "X-Hookline-User", "X-Hookline-User-Id", "X-Hookline-Roles", "X-Hookline-Tenant",
)  # fmt: skip


async def answer(runtime: Runtime, request: web.Request) -> web.Response:
    """Authenticate, then authorize."""
    headers = _headers(request)
    method, path = _original(request, headers)
    username, password = _basic(headers.get("authorization", ""))
    client_ip = headers.get("x-real-ip") or headers.get("x-forwarded-for", "").partition(",")[0].strip() or None
    asked: dict[str, Any] = {
        "headers": headers,
        "username": username,
        "password": password,
        "client_ip": client_ip,
        "database": None,
    }
    who = await runtime.call(Hook.AUTHENTICATE, orjson.dumps(asked))
    request_id = who["request_id"]
    if who["action"] == "denied":
        return _refuse(401, request_id, headers)
    identity = who["identity"] if who["action"] == "success" else None
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
    may = await runtime.call(Hook.AUTHORIZE, orjson.dumps(authorize))
    match may["action"]:
        case "allow":
            return _accept(request_id, identity)
        case "defer" if identity is not None and not runtime.has_deciders(Hook.AUTHORIZE):
            return _accept(request_id, identity)
        case "defer" if identity is None:
            return _refuse(401, request_id, headers)
        case _:
            return _refuse(403, request_id, headers)


def _headers(request: web.Request) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in request.headers.items():
        key = name.lower()
        # Bytes that are not UTF-8 come from aiohttp as lone surrogates, which no JSON can carry.
        text = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        joined[key] = f"{joined[key]}, {text}" if key in joined else text
    return joined


def _original(request: web.Request, headers: dict[str, str]) -> tuple[str, str]:
    method = headers.get("x-original-method") or headers.get("x-forwarded-method") or request.method
    uri = headers.get("x-original-uri") or headers.get("x-forwarded-uri")
    if uri is None:
        uri = request.raw_path.removeprefix(_PREFIX)
    path = uri.partition("?")[0].partition("#")[0]
    return method.upper()[:64], path or "/"


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


def _accept(request_id: str, identity: dict[str, Any] | None) -> web.Response:
    values = ("", "", "", "")
    if identity is not None:
        values = (
            identity["username"],
            identity["user_id"],
            ",".join(identity["roles"]),
            identity["tenant_id"] or "",
        )
    if any(_NOT_FOR_HEADERS.search(value) or len(value) > _MAX_HEADER for value in values):
        return _refuse(403, request_id, {})  # a name that would forge a header is nobody's name
    # Always all of them, empty ones too: a proxy that copies them over the request's replaces a client's forgery.
    answer = dict(zip(_IDENTITY_HEADERS, map(_header, values), strict=True))
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
