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
from typing import TYPE_CHECKING, Final, NamedTuple

import orjson

from hookline_api.hooks import Hook
from hookline_runtime.inputs import Call, request_id_of
from hookline_sidecar.heads import header
from hookline_sidecar.replies import Reply

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hookline_runtime.pipeline import Chains
    from hookline_sidecar.heads import Head, Header

_PREFIX: Final = "/v1/auth"
_NOT_FOR_HEADERS: Final = re.compile(r"[\x00-\x1f\x7f]|^\s|\s$")
_MAX_HEADER: Final = 4096
_IDENTITY_HEADERS: Final = (
    "X-Hookline-User", "X-Hookline-User-Id", "X-Hookline-Roles", "X-Hookline-Tenant",
)  # fmt: skip
_TELL_URI: Final = ("x-original-uri", "x-forwarded-uri")
_TELL_METHOD: Final = ("x-original-method", "x-forwarded-method")
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_NULL: Final = b"null"
_MAX_KNOWN: Final = 512
_MAX_KNOWN_BYTES: Final = 1024
# What the two plugins get: every field of the contract, in its order.
_AUTHENTICATE: Final = b'{"headers":{%b},"username":%b,"password":%b,"client_ip":%b,"database":null}'
_AUTHORIZE: Final = (
    b'{"query":"","normalized":null,"tables":[],"is_read_only":%b,"hook_context":{"request_id":%b,"client_id":null,'
    b'"identity":%b,"database":null,"branch":null,"attributes":{%b}},"identity":%b,"action":%b,"resource":%b}'
)
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

    ``advance`` goes as far as it can without waiting, ``finish`` to the end. What the plugins get is written as
    bytes, of pieces that are JSON already: most of a request was seen before.
    """

    def __init__(
        self, method: str, target: str, headers: dict[str, Header], uris: list[str], methods: list[str]
    ) -> None:
        """``uris`` and ``methods`` are what the headers say of the original request."""
        self._headers = headers
        self._who = _NOBODY
        self._next: Call | None = None
        self.reply: Reply | None = None
        """The answer, once there is one."""
        self._request_id = ""
        self._quoted_id = self._client_ip = _NULL
        """JSON, as what else goes to the plugins."""
        try:
            self._method, self._path = _original(method, target, uris, methods)
        except _UnclearError as error:
            content = ("Content-Type", "text/plain; charset=utf-8")
            self.reply = Reply(403, (content,), f"{error}\n".encode())
            return
        given = headers.get("x-request-id")
        self._request_id = request_id_of(given and given.value)
        self._quoted_id = orjson.dumps(self._request_id)
        client_ip = _last(headers.get("x-real-ip")) or _last(headers.get("x-forwarded-for"))
        if client_ip is not None:
            self._client_ip = orjson.dumps(client_ip)
        username = password = _NULL
        authorization = headers.get("authorization")
        if authorization is not None:
            username, password = map(orjson.dumps, _basic(authorization.value))
        members = b",".join([each.json for each in headers.values()])
        data = _AUTHENTICATE % (members, username, password, self._client_ip)
        self._next = Call(Hook.AUTHENTICATE, data, self._quoted_id)

    @classmethod
    def of_head(cls, head: Head) -> Question:
        """Of a request that is beyond doubt."""
        headers = head.headers
        uris = [headers[name].value for name in _TELL_URI if name in headers]
        methods = [headers[name].value for name in _TELL_METHOD if name in headers]
        return cls(head.method, head.target, headers, uris, methods)

    @classmethod
    def of_request(cls, method: str, target: str, given: Iterable[tuple[str, str]]) -> Question:
        """Of any request: headers may come more than once, and be no UTF-8."""
        joined: dict[str, str] = {}
        uris: list[str] = []
        methods: list[str] = []
        for raw_name, raw_value in given:
            name, value = raw_name.lower(), _text(raw_value)
            joined[name] = f"{joined[name]}, {value}" if name in joined else value
            if name in _TELL_URI:
                uris.append(value)
            elif name in _TELL_METHOD:
                methods.append(value)
        return cls(method, target, {name: header(name, value) for name, value in joined.items()}, uris, methods)

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

    def _heard(self, chains: Chains, hook: Hook, decision: bytes) -> None:
        is_short = len(decision) <= _MAX_KNOWN_BYTES
        if hook is Hook.AUTHENTICATE:
            self._authenticated(_known_who(decision) if is_short else _read_who(decision))
        else:
            action = _known_action(decision) if is_short else _read_action(decision)
            self._authorized(action, chains.has_deciders(Hook.AUTHORIZE))

    def _authenticated(self, who: _Who) -> None:
        if who.refused:
            self.reply = self._refuse(who.refused)
            return
        self._who = who
        about = who.attributes
        if self._client_ip is not _NULL:
            about = b'"client_ip":%b%b%b' % (self._client_ip, b"," if about else b"", about)
        data = _AUTHORIZE % (
            b"true" if self._method in _SAFE else b"false",
            self._quoted_id,
            who.username,
            about,
            who.identity,
            orjson.dumps(self._method),
            orjson.dumps(self._path),
        )
        self._next = Call(Hook.AUTHORIZE, data, self._quoted_id)

    def _authorized(self, action: str, has_deciders: bool) -> None:  # noqa: FBT001 - one caller, above
        is_known = self._who is not _NOBODY
        if action == "allow" or (action == "defer" and is_known and not has_deciders):
            self.reply = Reply(200, (*self._who.told, ("X-Hookline-Request-Id", _header(self._request_id))))
        else:
            self.reply = self._refuse(401 if action == "defer" and not is_known else 403)

    def _refuse(self, status: int) -> Reply:
        told = [("X-Hookline-Request-Id", _header(self._request_id))]
        if status == 401:  # noqa: PLR2004 - RFC 9110, 11.6.1: a challenge is due
            authorization = self._headers.get("authorization")
            is_basic = authorization is not None and authorization.value.lower().startswith("basic")
            told.append(("WWW-Authenticate", 'Basic realm="hookline"' if is_basic else "Bearer"))
        return Reply(status, tuple(told))


class _Who(NamedTuple):
    """What an authentication came to, ready to be told."""

    refused: int
    """The status that ends it here; 0 where it goes on."""
    told: tuple[tuple[str, str], ...]
    """The headers of a yes. Always all of them, empty ones too: a proxy that copies them over the request's replaces
    a client's forgery."""
    identity: bytes
    username: bytes
    """JSON, as is what is above."""
    attributes: bytes
    """Members of an object."""


_NOBODY: Final = _Who(0, tuple((name, "") for name in _IDENTITY_HEADERS), _NULL, _NULL, b"")


def _read_who(decision: bytes) -> _Who:
    read = orjson.loads(decision + b"}")
    if read["action"] == "denied":
        return _NOBODY._replace(refused=401)
    if read["action"] != "success":
        return _NOBODY
    identity = read["identity"]
    tenant = identity["tenant_id"] or ""
    told = _identity_headers(identity["username"], identity["user_id"], identity["roles"], tenant)
    if told is None:
        return _NOBODY._replace(refused=403)
    attributes = {"identity.roles": ",".join(identity["roles"])} | ({"tenant_id": tenant} if tenant else {})
    return _Who(0, told, orjson.dumps(identity), orjson.dumps(identity["username"]), orjson.dumps(attributes)[1:-1])


def _read_action(decision: bytes) -> str:
    action: str = orjson.loads(decision + b"}")["action"]
    return action


_known_who: Final = functools.lru_cache(_MAX_KNOWN)(_read_who)
_known_action: Final = functools.lru_cache(_MAX_KNOWN)(_read_action)


def _text(value: str) -> str:
    """Bytes that are not UTF-8 come from aiohttp as lone surrogates, which no JSON can carry."""
    return value if value.isascii() else value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _original(method: str, target: str, uris: list[str], methods: list[str]) -> tuple[str | None, str | None]:
    """Method and path, None where the proxy does not tell them; raises _UnclearError."""
    behind = target.removeprefix(_PREFIX)
    if len(behind) == len(target):  # it is spelled otherwise, or with a host in front: what is behind it is a guess
        raise _UnclearError("the path is malformed")
    if behind and behind[0] != "?":
        uris.append(behind)
        methods.append(method)
    if len(uris) > 1:
        uris.sort()  # the same error, in whatever order they came
    return (
        _agreed([each.upper()[:64] for each in methods if each]),
        _agreed([_canonical(each) for each in uris if each]),
    )


def _agreed(told: list[str]) -> str | None:
    if len(told) > 1 and len(set(told)) > 1:
        raise _UnclearError(
            "the original request is told twice, and differs: the proxy has to strip a client's headers"
        )
    return told[0] if told else None


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


def _last(values: Header | None) -> str | None:
    """The last of a list: what the nearest proxy added, when all before it may be the client's."""
    return None if values is None else values.value.rpartition(",")[2].strip() or None


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


def _identity_headers(
    username: str, user_id: str, roles: list[str], tenant_id: str
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
