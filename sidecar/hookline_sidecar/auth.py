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
import functools
import re
import urllib.parse
from typing import TYPE_CHECKING, Any, Final

from hookline_api.hooks import Hook
from hookline_runtime.inputs import read_document
from hookline_sidecar.replies import Reply

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hookline_runtime.decisions import Decision
    from hookline_runtime.inputs import Call
    from hookline_runtime.pipeline import Chains

_PREFIX: Final = "/v1/auth"
_NOT_FOR_HEADERS: Final = re.compile(r"[\x00-\x1f\x7f]|^\s|\s$")
_MAX_HEADER: Final = 4096
_IDENTITY_HEADERS: Final = (
    "X-Hookline-User", "X-Hookline-User-Id", "X-Hookline-Roles", "X-Hookline-Tenant",
)  # fmt: skip
_NOBODY: Final = tuple((name, "") for name in _IDENTITY_HEADERS)
_TELL_URI: Final = frozenset({"x-original-uri", "x-forwarded-uri"})
_TELL_METHOD: Final = frozenset({"x-original-method", "x-forwarded-method"})
_PLAIN_PATH: Final = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*+)*+/?")
"""What most paths are: nothing escaped, no empty segment, none that begins with a dot."""
# In no path of RFC 3986, or the end of it for some servers; \ufffd stands for bytes that are not UTF-8.
_NOT_IN_PATHS: Final = re.compile(r"[\x00-\x20\x7f\\#\ufffd]|%(?![0-9A-Fa-f]{2})|%00|^(?!/)|^//")
_ESCAPE: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_VISIBLE: Final = "".join(map(chr, range(0x21, 0x7F)))
_AS_IT_IS: Final = re.compile(r"[ !#$&-~\"\\]*")
"""What may stand in a header, but for the percent sign that escapes the rest."""
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9._~-]")
# What servers take for a separator, and what Java's take for the end of a segment's name.
_DOT_SEGMENT: Final = re.compile(r"(?:/|%2F|%5C)\.\.?(?:/|%2F|%5C|;|%3B|$)")


class _UnclearError(ValueError):
    """The original request can be read in more than one way: the sentence says why."""


class Question:
    """One request of a proxy, on its way through the two hooks. Raises nothing.

    ``advance`` goes as far as it can without waiting, ``finish`` to the end.
    """

    def __init__(self, method: str, target: str, headers: Iterable[tuple[str, str]]) -> None:
        joined: dict[str, str] = {}
        uris: set[str] = set()
        methods: set[str] = set()
        for raw_name, raw_value in headers:
            name, value = raw_name.lower(), raw_value if raw_value.isascii() else _text(raw_value)
            joined[name] = f"{joined[name]}, {value}" if name in joined else value
            if name in _TELL_URI and value:
                uris.add(value)
            elif name in _TELL_METHOD and value:
                methods.add(value.upper()[:64])
        self._headers = joined
        self._client_ip = _last(joined.get("x-real-ip", "")) or _last(joined.get("x-forwarded-for", ""))
        self._identity: dict[str, Any] | None = None
        # Always all of them, empty ones too: a proxy that copies them over the request's replaces a client's forgery.
        self._told = _NOBODY
        self._request_id = ""
        self._next: Call | None = None
        self.reply: Reply | None = None
        """The answer, once there is one."""
        try:
            self._method, self._path = _original(method, target, uris, methods)
        except _UnclearError as error:
            content = ("Content-Type", "text/plain; charset=utf-8")
            self.reply = Reply(403, (content,), f"{error}\n".encode())
            return
        username, password = _basic(joined.get("authorization", ""))
        asked: dict[str, Any] = {
            "headers": joined,
            "username": username,
            "password": password,
            "client_ip": self._client_ip,
            "database": None,
        }
        self._next = read_document(Hook.AUTHENTICATE, asked)

    def advance(self, chains: Chains) -> Reply | None:
        """Ask as long as the plugins are ready; the answer, or None where one has to be waited for."""
        while self.reply is None and self._next is not None:
            decision = chains.decide_now(self._next)
            if decision is None:
                return None
            self._heard(chains, self._next.hook, decision)
        return self.reply

    async def finish(self, chains: Chains) -> Reply:
        """Ask what is left to ask. Both questions need the same chains: let them be held."""
        while self.reply is None:
            assert self._next is not None  # noqa: S101 - without a next question there is an answer
            self._heard(chains, self._next.hook, await chains.decide(self._next))
        return self.reply

    def _heard(self, chains: Chains, hook: Hook, decision: Decision) -> None:
        if hook is Hook.AUTHENTICATE:
            self._authenticated(decision)
        else:
            self._authorized(decision, chains.has_deciders(Hook.AUTHORIZE))

    def _authenticated(self, who: Decision) -> None:
        self._request_id = who["request_id"]
        identity = self._identity = who["identity"] if who["action"] == "success" else None
        if who["action"] == "denied":
            self.reply = self._refuse(401)
            return
        if identity is not None:
            told = _identity_headers(
                identity["username"], identity["user_id"], tuple(identity["roles"]), identity["tenant_id"] or ""
            )
            if told is None:
                self.reply = self._refuse(403)
                return
            self._told = told
        context: dict[str, Any] = {
            "request_id": self._request_id,
            "client_id": None,
            "identity": identity["username"] if identity else None,
            "database": None,
            "branch": None,
            "attributes": _attributes(self._client_ip, identity),
        }
        asked: dict[str, Any] = {
            "query": "",
            "normalized": None,
            "tables": [],
            "is_read_only": self._method in {"GET", "HEAD", "OPTIONS"},
            "hook_context": context,
            "identity": identity,
            "action": self._method,
            "resource": self._path,
        }
        self._next = read_document(Hook.AUTHORIZE, asked)

    def _authorized(self, may: Decision, has_deciders: bool) -> None:  # noqa: FBT001 - one caller, above
        match may["action"]:
            case "allow":
                self.reply = self._accept()
            case "defer" if self._identity is not None and not has_deciders:
                self.reply = self._accept()
            case "defer" if self._identity is None:
                self.reply = self._refuse(401)
            case _:
                self.reply = self._refuse(403)

    def _accept(self) -> Reply:
        return Reply(200, (*self._told, ("X-Hookline-Request-Id", _header(self._request_id))))

    def _refuse(self, status: int) -> Reply:
        told = [("X-Hookline-Request-Id", _header(self._request_id))]
        if status == 401:  # noqa: PLR2004 - RFC 9110, 11.6.1: a challenge is due
            basic = self._headers.get("authorization", "").lower().startswith("basic")
            told.append(("WWW-Authenticate", 'Basic realm="hookline"' if basic else "Bearer"))
        return Reply(status, tuple(told))


def _text(value: str) -> str:
    """Bytes that are not UTF-8 come from aiohttp as lone surrogates, which no JSON can carry."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _original(method: str, target: str, uris: set[str], methods: set[str]) -> tuple[str | None, str | None]:
    """Method and path, None where the proxy does not tell them; raises _UnclearError."""
    behind = target.removeprefix(_PREFIX)
    if behind and not behind.startswith("?"):
        uris.add(behind)
        methods.add(method)
    paths = {_canonical(uri) for uri in uris}
    if len(paths) > 1 or len(methods) > 1:
        raise _UnclearError(
            "the original request is told twice, and differs: the proxy has to strip a client's headers"
        )
    return next(iter(methods), None), next(iter(paths), None)


def _canonical(uri: str) -> str:
    """The path in the one spelling that plugins compare: RFC 3986, 6.2.2, and no empty segments.

    Dot segments are refused instead of resolved: the upstream gets the path as it came, and may read it otherwise.
    """
    path = uri.partition("?")[0]
    if path and _PLAIN_PATH.fullmatch(path):
        return path
    if _NOT_IN_PATHS.search(path):
        raise _UnclearError("the path is malformed")
    path = _ESCAPE.sub(_normal_escape, re.sub("//+", "/", path))
    if _DOT_SEGMENT.search(path):
        raise _UnclearError("the path has dot segments")
    return path if path.isascii() else urllib.parse.quote(path, safe=_VISIBLE)


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


@functools.lru_cache(maxsize=256)
def _identity_headers(
    username: str, user_id: str, roles: tuple[str, ...], tenant_id: str
) -> tuple[tuple[str, str], ...] | None:
    """What upstreams are told; None where one would read another identity from it than the plugin gave."""
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
