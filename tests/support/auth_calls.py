"""Questions of ``/v1/auth`` without a sidecar: what plugins would be asked, or why it is refused."""

from __future__ import annotations

import orjson

from hookline_api.hooks import Hook
from hookline_sidecar.hooks.auth import Question
from hookline_sidecar.hooks.heads import read_head
from hookline_sidecar.hooks.original import PROXIES

IDENTITY = {"user_id": "7", "username": "ann", "roles": ["reader", "writer"], "tenant_id": "acme"}


class Recorder:
    """What stands for chains: it says yes, and keeps what was asked."""

    def __init__(self, identity):
        self.asked = []
        self._identity = identity

    def decide(self, hook, data, request_id):
        """Every plugin would be ready."""
        self.asked.append((hook, data, request_id))
        if hook is Hook.AUTHORIZE:
            return b'{"action":"allow"'
        return orjson.dumps({"action": "success", "identity": self._identity})[:-1]

    def has_deciders(self, hook):
        """There are."""
        return hook is Hook.AUTHORIZE


def told(headers, *, by="any", target="/v1/auth", method="GET"):
    """Method, path and address as plugins get them by lane and by server; the sentence where they are not asked."""
    questions = [Question.of_request(PROXIES[by], method, target, headers)]
    lines = [f"{method} {target} HTTP/1.1", "Host: h", *(f"{name}: {value}" for name, value in headers)]
    head = read_head("\r\n".join(lines).encode("utf-8", "surrogateescape"))
    if head is not None:
        questions.append(Question.of_head(PROXIES[by], head))
    answers = set()
    for question in questions:
        chains = Recorder(IDENTITY | {"claims": {}})
        reply = question.advance(chains)
        assert question.unclear == (reply.status == 403)
        if question.unclear:
            answers.add(reply.body.decode())
            continue
        (_, who, _), (_, what, _) = chains.asked
        asked = orjson.loads(what)
        assert not (set(orjson.loads(who)["headers"]) & PROXIES[by].ignored)
        answers.add((asked["action"], asked["resource"], orjson.loads(who)["client_ip"]))
    assert len(answers) == 1
    return answers.pop()
