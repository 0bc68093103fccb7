"""``/v1/auth``: why a client is refused, in the plugin's own words, and nothing that those words could forge."""

from __future__ import annotations

import re
import urllib.parse

import orjson
import pytest

from hookline_api.hooks import Hook
from hookline_runtime.chain.pipeline import TELLING
from hookline_sidecar.hooks import question
from hookline_sidecar.hooks.auth import Question
from hookline_sidecar.hooks.original import PROXIES

SUCCESS = {"action": "success", "identity": {"user_id": "7", "username": "ann", "roles": [], "tenant_id": None}}
TOKEN = {"authorization": "Bearer x"}
BASIC = {"authorization": "Basic YTpi"}


class Refusing:
    """What stands for chains: it refuses with these words, told or not."""

    def __init__(self, hook, words, *, tells=True, failure=None):
        self._hook = hook
        refusal = {"action": "denied", "message": words} if hook is Hook.AUTHENTICATE else {"action": "deny"}
        if hook is Hook.AUTHORIZE and words is not None:
            refusal["reason"] = words
        self._refusal = orjson.dumps(refusal | ({"failure": failure} if failure else {}))[:-1]
        self._refusal += TELLING if tells else b""

    def decide(self, hook, *_):
        """Every plugin would be ready."""
        return self._refusal if hook is self._hook else orjson.dumps(SUCCESS)[:-1]

    def has_deciders(self, _):
        """There are."""
        return True


def refused(chains, headers=()):
    """The status, and the headers that have something to do with the reason."""
    pairs = [(name, value) for name, value in dict(headers).items()]
    reply = Question.of_request(PROXIES["any"], "GET", "/v1/auth", pairs).advance(chains)
    return reply.status, dict(reply.headers.pairs)


@pytest.mark.parametrize(
    ("hook", "headers", "status", "challenge"),
    [
        (Hook.AUTHENTICATE, TOKEN, 401, 'Bearer error="invalid_token", error_description="it\'s over"'),
        (Hook.AUTHENTICATE, BASIC, 401, 'Basic realm="hookline"'), (Hook.AUTHENTICATE, {}, 401, "Bearer"),
        (Hook.AUTHORIZE, TOKEN, 403, 'Bearer error="insufficient_scope", error_description="it\'s over"'),
        (Hook.AUTHORIZE, BASIC, 403, None), (Hook.AUTHORIZE, {}, 403, None),
    ],
)  # fmt: skip
def test_the_reason_stands_where_its_client_looks_for_it(hook, headers, status, challenge):
    """RFC 6750 has a field for clients with a token; all others find the header."""
    told = {"X-Hookline-Reason": "it%27s over"} | ({"WWW-Authenticate": challenge} if challenge else {})
    assert refused(Refusing(hook, "it's over"), headers) == (status, told)


@pytest.mark.parametrize("hook", [Hook.AUTHENTICATE, Hook.AUTHORIZE])
@pytest.mark.parametrize("how", [{"tells": False}, {"failure": "trap"}])
def test_nothing_is_told_unless_the_resource_says_so_and_the_words_are_the_plugins(hook, how):
    """As ever: a challenge, and not a word."""
    status, headers = refused(Refusing(hook, "who knows", **how), TOKEN)
    assert headers == ({"WWW-Authenticate": "Bearer"} if status == 401 else {})


@pytest.mark.parametrize(
    "words",
    [
        "a\r\nX-Hookline-Roles: admin", "a\n\nbody", "a\0b\x1b[2J", 'a", error="none', "a\\", 'a\\"b', "<script>&'",
        "é ü ☃ \U0001f600", "\u2028\u202e", "x" * 10_000, "\U0001f600" * 10_000, "%0d%0a", 'a, Basic realm="x"',
    ],
)  # fmt: skip
@pytest.mark.parametrize("headers", [TOKEN, BASIC, {}], ids=["token", "basic", "nothing"])
@pytest.mark.parametrize("hook", [Hook.AUTHENTICATE, Hook.AUTHORIZE])
def test_no_words_forge_a_header_a_parameter_or_markup(hook, headers, words):
    """Whatever a guest says is one value: printable ASCII, bounded, and within its quotation marks."""
    _, given = refused(Refusing(hook, words), headers)
    reason = given["X-Hookline-Reason"]
    assert re.fullmatch(r"[ -~]{1,3072}", reason)
    assert not set(reason) & set("\"'<>&\\")
    assert urllib.parse.unquote(reason) == " ".join(words[:256].split())
    challenge = given.get("WWW-Authenticate", "Bearer")
    assert re.fullmatch(
        r'Bearer( error="[a-z_]+", error_description="[ !#-\[\]-~]{1,256}")?|Basic realm="hookline"', challenge
    )


@pytest.mark.parametrize("words", ["", " \r\n\t ", None])
def test_a_plugin_that_says_nothing_is_quoted_with_nothing(words):
    """No empty header."""
    assert refused(Refusing(Hook.AUTHORIZE, words), TOKEN) == (403, {})


def test_long_words_are_read_each_time_and_short_ones_once():
    """What is kept of decisions is bounded by their size."""
    long = Refusing(Hook.AUTHENTICATE, "w" * 4096)
    before = question._known_who.cache_info().currsize
    assert refused(long, TOKEN)[1]["X-Hookline-Reason"] == "w" * 256
    assert question._known_who.cache_info().currsize == before


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "beside another"])
async def test_each_plugins_resource_says_whether_its_words_are_told(new_sidecar, guests, make_manifest, alone):
    """Of two that may refuse, the one that did decides about it."""
    sidecar = new_sidecar()
    sidecar.folder.write("m.wasm", guests.configured())
    source = {"file": {"path": "m.wasm"}}
    common = {"source": source, "rollout": {"probation": {"calls": 0}}}
    documents = [
        make_manifest("tells", **common, hooks=["authorize"], auth={"tellReason": True},
                      config={"authorize": {"action": "deny", "reason": "not on Sundays"}}),
        make_manifest("who", **common, hooks=["authenticate"], config={"authenticate": SUCCESS}),
    ]  # fmt: skip
    if not alone:
        documents.append(make_manifest("silent", **common, hooks=["authorize"], priority=5,
                                       config={"authorize": {"action": "defer"}}))  # fmt: skip
    sidecar.folder.write("all.yaml", documents)
    sidecar.start()
    async with sidecar.client() as session, session.get("/v1/auth") as response:
        assert (response.status, response.headers.get("X-Hookline-Reason")) == (403, "not on Sundays")
    for document in documents:
        document["spec"].pop("auth", None)
        document["spec"]["priority"] = document["spec"].get("priority", 0) + 1
    sidecar.folder.write("all.yaml", documents)
    for document in documents:
        sidecar.wait_plugin(document["metadata"]["name"], state="Running", priority=document["spec"]["priority"])
    async with sidecar.client() as session, session.get("/v1/auth") as response:
        assert (response.status, response.headers.get("X-Hookline-Reason")) == (403, None)
