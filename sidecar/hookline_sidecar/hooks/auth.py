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

Which request it was is read by ``original``: from the headers of the proxy that ``--auth-headers`` names, else from all
that proxies usually tell it by, which have to agree; and what can be read in two ways is refused before any plugin is
asked. What is not told is empty for the plugins: a guess would be judged in its place (``docs/reference/proxies.md``).
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
from hookline_runtime.call.inputs import request_id_of
from hookline_sidecar.hooks.original import TELL, Told, UnclearError, client_address, original, original_of_head
from hookline_sidecar.replies import Lines, Reply, lines

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hookline_runtime.chain.pipeline import Chains
    from hookline_runtime.plugin.backlog import Asker
    from hookline_sidecar.hooks.heads import Head
    from hookline_sidecar.hooks.original import Telling

_NOT_FOR_HEADERS: Final = re.compile(r"[\x00-\x1f\x7f]|^\s|\s$")
_MAX_HEADER: Final = 4096
_IDENTITY_HEADERS: Final = (
    "X-Hookline-User", "X-Hookline-User-Id", "X-Hookline-Roles", "X-Hookline-Tenant",
)  # fmt: skip
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_MAX_KNOWN: Final = 512
_MAX_KNOWN_BYTES: Final = 1024
_AS_IT_IS: Final = re.compile(r"[ !#$&-~\"\\]*")
"""What may stand in a header, but for the percent sign that escapes the rest."""


class Question:
    """One request of a proxy, on its way through the two hooks. Raises nothing.

    ``advance`` goes as far as it can without waiting, ``finish`` to the end.
    """

    __slots__ = (
        "_client_ip", "_data", "_headers", "_hook", "_method", "_path", "_request_id", "_who", "reply", "unclear",
    )  # fmt: skip

    def __init__(self, telling: Telling, method: str, target: str, headers: dict[str, str], told: Told | None) -> None:
        """``told`` is what the headers say of the original request; None where each of them comes once."""
        if telling.ignored and not telling.ignored.isdisjoint(headers):  # nor is a plugin to believe them
            headers = {name: value for name, value in headers.items() if name not in telling.ignored}
        self._headers = headers
        self._who = _NOBODY
        self.unclear = False
        """Whether it is refused because it can be read in more than one way."""
        self.reply: Reply | None = None
        """The answer, once there is one."""
        try:
            self._method, self._path = (
                original_of_head(telling, method, target, headers)
                if told is None
                else original(telling, method, target, told)
            )
        except UnclearError as error:
            self.unclear = True
            self.reply = Reply(403, _TEXT, f"{error}\n".encode())
            return
        self._request_id = request_id_of(headers.get("x-request-id"))
        self._client_ip = client_address(telling, headers)
        username, password = "", None
        authorization = headers.get("authorization")
        if authorization is not None:
            username, password = _basic(authorization)
        # Every field of the contract, in its order, as in the other question.
        asked = {
            "headers": headers,
            "username": username,
            "password": password,
            "client_ip": self._client_ip or "",
            "database": None,
        }
        self._hook, self._data = Hook.AUTHENTICATE, orjson.dumps(asked)

    @classmethod
    def of_head(cls, telling: Telling, head: Head) -> Question:
        """Of a request that is beyond doubt."""
        method, target, headers, _ = head
        return cls(telling, method, target, headers, None)

    @classmethod
    def of_request(cls, telling: Telling, method: str, target: str, given: Iterable[tuple[str, str]]) -> Question:
        """Of any request: headers may come more than once, and be no UTF-8."""
        joined: dict[str, str] = {}
        told: Told = []
        for raw_name, raw_value in given:
            name, value = raw_name.lower(), _text(raw_value)
            joined[name] = f"{joined[name]}, {value}" if name in joined else value
            if name in TELL:
                told.append((name, value))
        return cls(telling, method, target, joined, told)

    def advance(self, chains: Chains) -> Reply | None:
        """Ask as long as the plugins are ready; the answer, or None where one has to be waited for."""
        while self.reply is None:
            decision = chains.decide(self._hook, self._data, self._request_id)
            if not isinstance(decision, bytes):
                return None
            self._heard(chains, decision)
        return self.reply

    async def finish(self, chains: Chains, asker: Asker) -> Reply:
        """Ask what is left to ask. Both questions need the same chains: let them be held."""
        while self.reply is None:
            decision = chains.decide(self._hook, self._data, self._request_id)
            self._heard(chains, decision if isinstance(decision, bytes) else await decision(asker))
        return self.reply

    def _heard(self, chains: Chains, decision: bytes) -> None:
        is_short = len(decision) <= _MAX_KNOWN_BYTES
        if self._hook is Hook.AUTHENTICATE:
            self._authenticated(_known_who(decision) if is_short else _read_who(decision))
        else:
            self._authorized(chains, _known_action(decision) if is_short else _read_action(decision))

    def _authenticated(self, who: _Who) -> None:
        if who.refused:
            self.reply = self._refuse(who.refused)
            return
        self._who = who
        method, ip = self._method, self._client_ip
        context = {
            "request_id": self._request_id,
            "client_id": None,
            "identity": who.username,
            "database": None,
            "branch": None,
            "attributes": who.attributes if ip is None else {"client_ip": ip, **who.attributes},
        }
        asked = {
            "query": "",
            "normalized": "",
            "tables": (),
            "is_read_only": method in _SAFE,
            "hook_context": context,
            "identity": who.identity,
            "action": method or "",
            "resource": self._path or "",
        }
        self._hook, self._data = Hook.AUTHORIZE, orjson.dumps(asked)

    def _authorized(self, chains: Chains, action: str) -> None:
        is_known = self._who is not _NOBODY
        if action == "allow" or (action == "defer" and is_known and not chains.has_deciders(Hook.AUTHORIZE)):
            self.reply = Reply(200, self._who.told, request_id=_header(self._request_id))
        else:
            self.reply = self._refuse(401 if action == "defer" and not is_known else 403)

    def _refuse(self, status: int) -> Reply:
        challenge = _NOTHING
        if status == 401:  # noqa: PLR2004 - RFC 9110, 11.6.1: a challenge is due
            is_basic = self._headers.get("authorization", "").lower().startswith("basic")
            challenge = _ASK_BASIC if is_basic else _ASK_BEARER
        return Reply(status, challenge, request_id=_header(self._request_id))


_TEXT: Final = lines(("Content-Type", "text/plain; charset=utf-8"))
_NOTHING: Final = lines()
_ASK_BASIC: Final = lines(("WWW-Authenticate", 'Basic realm="hookline"'))
_ASK_BEARER: Final = lines(("WWW-Authenticate", "Bearer"))


class _Who(NamedTuple):
    """What an authentication came to, ready to be told."""

    refused: int
    """The status that ends it here; 0 where it goes on."""
    told: Lines
    """The headers of a yes. Always all of them, empty ones too: a proxy that copies them over the request's replaces
    a client's forgery."""
    identity: orjson.Fragment | None
    username: str | None
    attributes: dict[str, str]


_NOBODY: Final = _Who(0, lines(*((name, "") for name in _IDENTITY_HEADERS)), None, None, {})


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
    return _Who(0, lines(*told), orjson.Fragment(orjson.dumps(identity)), identity["username"], attributes)


def _read_action(decision: bytes) -> str:
    action: str = orjson.loads(decision + b"}")["action"]
    return action


_known_who: Final = functools.lru_cache(_MAX_KNOWN)(_read_who)
_known_action: Final = functools.lru_cache(_MAX_KNOWN)(_read_action)


def _text(value: str) -> str:
    """Bytes that are not UTF-8 come from aiohttp as lone surrogates, which no JSON can carry."""
    return value if value.isascii() else value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


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
