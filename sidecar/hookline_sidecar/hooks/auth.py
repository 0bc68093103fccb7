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
that proxies usually set, which have to agree. What can be read in two ways is refused before any plugin is asked. What
the proxy does not say is empty for the plugins: a guess would be judged in its place (``docs/reference/proxies.md``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hookline_api.hooks import Hook
from hookline_sidecar.hooks import question
from hookline_sidecar.hooks.original import ORIGINAL_HEADERS, Pairs, UnclearError
from hookline_sidecar.hooks.question import NOBODY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hookline_runtime.chain.pipeline import Chains
    from hookline_runtime.plugin.backlog import Asker
    from hookline_sidecar.hooks.heads import Head
    from hookline_sidecar.hooks.original import ProxyHeaders
    from hookline_sidecar.replies import Reply


class Question:
    """One request of a proxy, on its way through the two hooks. Raises nothing.

    ``advance`` goes as far as it can without waiting, ``finish`` to the end.
    """

    __slots__ = (
        "_client_ip", "_data", "_headers", "_hook", "_method", "_path", "_request_id", "_who", "reply", "unclear",
    )  # fmt: skip

    def __init__(
        self, proxy: ProxyHeaders, method: str, target: str, headers: dict[str, str], pairs: Pairs | None
    ) -> None:
        """See ``question.read_subrequest``."""
        self._who = NOBODY
        self.unclear = False
        """Whether it is refused because it can be read in more than one way."""
        self.reply: Reply | None = None
        """The answer, once there is one."""
        try:
            self._method, self._path, self._headers, self._request_id, self._client_ip = question.read_subrequest(
                proxy, method, target, headers, pairs
            )
        except UnclearError as error:
            self.unclear = True
            self.reply = question.unclear(error)
            return
        self._hook = Hook.AUTHENTICATE
        self._data = question.authentication(self._headers, self._client_ip, self._request_id)

    @classmethod
    def of_head(cls, proxy: ProxyHeaders, head: Head) -> Question:
        """Of a request that is beyond doubt."""
        method, target, headers, _ = head
        return cls(proxy, method, target, headers, None)

    @classmethod
    def of_request(cls, proxy: ProxyHeaders, method: str, target: str, given: Iterable[tuple[str, str]]) -> Question:
        """Of any request: headers may come more than once, and need not be UTF-8."""
        joined: dict[str, str] = {}
        pairs: Pairs = []
        for raw_name, raw_value in given:
            name, value = raw_name.lower(), question.text_of(raw_value)
            joined[name] = f"{joined[name]}, {value}" if name in joined else value
            if name in ORIGINAL_HEADERS:
                pairs.append((name, value))
        return cls(proxy, method, target, joined, pairs)

    def advance(self, chains: Chains) -> Reply | None:
        """Ask as long as the plugins are ready; the answer, or None where one has to be waited for."""
        while self.reply is None:
            decision = chains.decide(self._hook, self._data, self._request_id)
            if not isinstance(decision, bytes):
                return None
            self._take(chains, decision)
        return self.reply

    async def finish(self, chains: Chains, asker: Asker) -> Reply:
        """Ask what is left to ask. Both questions need the same chains: let them be held."""
        while self.reply is None:
            decision = chains.decide(self._hook, self._data, self._request_id)
            self._take(chains, decision if isinstance(decision, bytes) else await decision(asker))
        return self.reply

    def _take(self, chains: Chains, decision: bytes) -> None:
        """Go on to the second question, or to the reply."""
        if self._hook is Hook.AUTHENTICATE:
            who = self._who = question.read_who(decision)
            if who.refused:
                self.reply = self._refuse(who.refused, who.reason)
                return
            self._hook = Hook.AUTHORIZE
            self._data = question.authorization(self._method, self._path, self._request_id, self._client_ip, who)
            return
        (action, reason), is_known = question.read_action(decision), self._who is not NOBODY
        if action == "allow" or (action == "defer" and is_known and not chains.has_deciders(Hook.AUTHORIZE)):
            self.reply = question.allowed(self._request_id, self._who)
        else:
            self.reply = self._refuse(401 if action == "defer" and not is_known else 403, reason)

    def _refuse(self, status: int, reason: str) -> Reply:
        return question.refused(self._headers, self._request_id, status, reason)
