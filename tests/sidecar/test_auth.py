"""``/v1/auth``: somebody has to say yes. The proxies' side of it is in test_proxies."""

from __future__ import annotations

import base64
import itertools

import orjson
import pytest

from hookline_api.hooks import INPUTS, Hook
from hookline_sidecar.auth import Question
from hookline_sidecar.heads import read_head

IDENTITY = {"user_id": "7", "username": "ann", "roles": ["reader", "writer"], "tenant_id": "acme"}
SUCCESS = {"action": "success", "identity": IDENTITY}
DENIED = {"action": "denied", "message": "who?"}
ALLOW, DENY, DEFER = {"action": "allow"}, {"action": "deny"}, {"action": "defer"}
NOBODY = "no plugin"
FAILS = "what is no decision"
HEADERS = ("X-Hookline-User", "X-Hookline-User-Id", "X-Hookline-Roles", "X-Hookline-Tenant")

TABLE = [
    (DENIED, ALLOW, 401), (DENIED, DENY, 401), (DENIED, NOBODY, 401),
    (SUCCESS, ALLOW, 200), (SUCCESS, NOBODY, 200), (SUCCESS, DENY, 403), (SUCCESS, DEFER, 403),
    (DEFER, ALLOW, 200), (DEFER, DENY, 403), (DEFER, DEFER, 401), (DEFER, NOBODY, 401),
    (NOBODY, ALLOW, 200), (NOBODY, DENY, 403), (NOBODY, DEFER, 401), (NOBODY, NOBODY, 401),
    (FAILS, ALLOW, 401), (SUCCESS, FAILS, 403), (DEFER, FAILS, 403),
]  # fmt: skip


@pytest.fixture(scope="module")
def running(new_sidecar, guests):
    """No plugin yet."""
    sidecar = new_sidecar()
    sidecar.folder.write("m.wasm", guests.configured())
    return sidecar.start()


_numbers = itertools.count(1)


@pytest.fixture
def decide(running, make_manifest):
    """Makes the two hooks decide; returns when they do."""

    def plugins(authenticate, authorize):
        number, documents = next(_numbers), []
        for hook, answer in (("authenticate", authenticate), ("authorize", authorize)):
            if answer is not NOBODY:
                config = {hook: {"action": "what?"} if answer is FAILS else answer}
                source = {"file": {"path": "m.wasm"}}
                documents.append(make_manifest(hook, source=source, config=config, hooks=[hook], priority=number))
        # A plugin that is always there tells that the folder was read.
        marker = make_manifest("marker", source={"file": {"path": "m.wasm"}}, config={}, priority=number)
        running.folder.write("all.yaml", [*documents, marker | {"spec": marker["spec"] | {"hooks": ["route"]}}])
        for document in (*documents, marker):
            running.wait_plugin(document["metadata"]["name"], state="Running", priority=number)
        assert set(running.plugins()) == {each["metadata"]["name"] for each in (*documents, marker)}
        return running

    return plugins


async def ask(sidecar, *, headers=None, path="/v1/auth", method="GET"):
    """Status and headers of a question."""
    async with sidecar.client() as session, session.request(method, path, headers=headers) as response:
        return response.status, response.headers


@pytest.mark.parametrize(
    ("authenticate", "authorize", "status"),
    TABLE,
    ids=lambda part: part["action"] if isinstance(part, dict) else part,
)
async def test_the_table_holds_row_by_row(decide, authenticate, authorize, status):
    """With the identity only where there is one, and all its headers with every yes."""
    sidecar = decide(authenticate, authorize)
    got, headers = await ask(sidecar, headers={"X-Hookline-User": "root", "X-Hookline-Roles": "admin"})
    assert got == status
    assert headers["X-Hookline-Request-Id"]
    if status == 200:
        known = authenticate is SUCCESS
        told = ("ann", "7", "reader,writer", "acme") if known else ("", "", "", "")
        assert tuple(headers[name] for name in HEADERS) == told
    else:
        assert not set(HEADERS) & set(headers)
    assert ("WWW-Authenticate" in headers) == (status == 401)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_any_method_is_answered(decide, method):
    """The proxy's subrequest may have the original one's."""
    assert (await ask(decide(SUCCESS, ALLOW), method=method))[0] == 200


async def test_the_challenge_is_what_the_client_tried(decide):
    """RFC 9110, 11.6.1."""
    sidecar = decide(DENIED, NOBODY)
    basic = "Basic " + base64.b64encode(b"ann:secret").decode()
    assert (await ask(sidecar, headers={"Authorization": basic}))[1]["WWW-Authenticate"].startswith("Basic realm=")
    assert (await ask(sidecar, headers={"Authorization": "Bearer x"}))[1]["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("value", ["a\r\nX-Hookline-Roles: admin", "a\nb", "a\0b", "a\tb", "ann ", " ann", "x" * 5000])
@pytest.mark.parametrize("field", ["username", "user_id", "tenant_id"])
async def test_a_name_that_would_forge_a_header_is_nobodys(decide, field, value):
    """403, and not one identity header."""
    sidecar = decide({"action": "success", "identity": IDENTITY | {field: value}}, ALLOW)
    status, headers = await ask(sidecar)
    assert status == 403
    assert not set(HEADERS) & set(headers)


@pytest.mark.parametrize("roles", [["a,admin"], ["a\r\nb"], [" admin"]], ids=str)
async def test_a_role_that_would_be_read_as_another_is_nobodys(decide, roles):
    """Roles are told with commas between."""
    sidecar = decide({"action": "success", "identity": IDENTITY | {"roles": roles}}, ALLOW)
    assert (await ask(sidecar))[0] == 403


async def test_names_that_are_not_ascii_are_percent_encoded(decide):
    """And a percent sign too, so that it can be undone."""
    identity = IDENTITY | {"username": "Zoë 100%", "tenant_id": None, "roles": []}
    sidecar = decide({"action": "success", "identity": identity}, ALLOW)
    status, headers = await ask(sidecar)
    assert status == 200
    assert [headers[name] for name in HEADERS] == ["Zo%C3%AB 100%25", "7", "", ""]


@pytest.mark.parametrize(
    "header",
    [b"X-Any: \xff\xfe", b"Authorization: Basic \xff", b"Authorization: Basic !!!", b"Authorization: Basic",
     b"Authorization: basic YTpi", b"X-Request-Id: " + b"x" * 1000, b"X-Real-IP: ,,,", b"Cookie: a=\x80"],
    ids=repr,
)  # fmt: skip
async def test_headers_of_any_bytes_are_answered(decide, header):
    """As the plugins say: nothing of a client's making is an error of ours."""
    sidecar = decide(SUCCESS, ALLOW)
    log = sidecar.settled_log()
    raw = b"GET /v1/auth HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + header + b"\r\n\r\n"
    assert sidecar.raw(raw).split(b"\r\n")[0] == b"HTTP/1.1 200 OK"
    assert sidecar.log == log


@pytest.mark.parametrize("depth", [100, 200, 300])
async def test_claims_that_are_too_deep_are_no_error_of_ours(running, guests, depth):
    """An identity that cannot be handed on is a failure of its plugin, and a closed door."""
    deep = 1
    for _ in range(depth):
        deep = [deep]
    module = guests.answering(authenticate={"action": "success", "identity": IDENTITY | {"claims": {"d": deep}}})
    running.folder.write("deep.wasm", module)
    running.folder.write("all.yaml", "# nothing")
    running.folder.remove("all.yaml")
    running.folder.plugin("deep", priority=depth)
    running.wait_plugin("deep", state="Running", priority=depth)
    status, _ = await ask(running)
    assert status == (200 if depth <= 200 else 401)
    assert "Traceback" not in running.log


@pytest.mark.parametrize("path", [b"/v1/authx", b"/v1/auth.", b"/v1//auth", b"/v1/hooks/../auth", b"//v1/auth"])
def test_what_is_not_quite_that_path_is_no_yes(running, path):
    """A slip in a proxy's configuration locks, and does not open."""
    received = running.raw(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert received.split()[1] in {b"404", b"405", b"403", b"401"}


class Recorder:
    """What stands for chains: it says yes, and keeps what was asked."""

    def __init__(self, identity):
        self.asked = []
        self._identity = identity

    def decide_now(self, hook, data, request_id):
        """Every plugin would be ready."""
        self.asked.append((hook, data, request_id))
        if hook is Hook.AUTHORIZE:
            return b'{"action":"allow"'
        return orjson.dumps({"action": "success", "identity": self._identity})[:-1]

    def has_deciders(self, hook):
        """There are."""
        return hook is Hook.AUTHORIZE


@pytest.mark.parametrize(
    "identity",
    [
        {"user_id": "7", "username": "ann", "roles": [], "tenant_id": None, "claims": {}},
        {
            "user_id": "7",
            "username": 'a"\\ü',
            "roles": ["r", 's"'],
            "tenant_id": "t",
            "claims": {"a": [1, {"b": None}]},
        },
    ],
)
@pytest.mark.parametrize(
    "lines",
    [
        [],
        ['X-Original-URI: /a/b?c="d"\\', "X-Original-Method: delete", "X-Real-IP: ::1", 'X-Request-ID: r-"1"\\'],
        ["Authorization: Basic YW5uOmEiYlxj", "X-Forwarded-For: 10.0.0.1, 10.0.0.2", "X-Forwarded-Uri: /%c3%bc"],
    ],
)  # fmt: skip
def test_plugins_are_asked_with_every_field_of_the_contract(identity, lines):
    """Whatever has to be escaped, on both roads: every field, nothing else, and the same bytes."""
    head = read_head("\r\n".join(("GET /v1/auth HTTP/1.1", "Host: h", *lines)).encode())
    pairs = [tuple(line.split(": ", 1)) for line in ("Host: h", *lines)]
    asked = []
    for question in (Question.of_head(head), Question.of_request("GET", "/v1/auth", pairs)):
        chains = Recorder(identity)
        assert question.advance(chains).status == 200
        asked.append(chains.asked)
    if any("Request-ID" in line for line in lines):
        assert asked[0] == asked[1]
    for hook, data, request_id in asked[0] + asked[1]:
        read = INPUTS[hook].model_validate_json(data, strict=True)
        assert orjson.loads(data) == read.model_dump(mode="json")
        assert orjson.dumps(read.model_dump(mode="json")) == data  # also in its order
        if hook is Hook.AUTHENTICATE:
            assert read.headers == {name.lower(): value for name, value in pairs}
        else:
            assert read.identity.model_dump() == identity
            assert read.hook_context.request_id == request_id
    if lines and "Basic" in lines[0]:
        assert (read.resource, read.action, read.hook_context.attributes["client_ip"]) == ("/%C3%BC", "", "10.0.0.2")
        assert b'"username":"ann","password":"a\\"b\\\\c"' in asked[0][0][1]


@pytest.mark.parametrize(
    "target", ["http://h/v1/auth/a", "http://h/v1/auth", "/v1/%61uth/a", "/v1%2fauth/a", "/%76%31/auth"]
)
def test_a_path_that_is_behind_another_prefix_is_malformed(target):
    """And is not cut where the usual one would end: ``http://h`` is as long as ``/v1/auth``."""
    question = Question.of_request("GET", target, [("X-Original-URI", "/v1/auth/a")])
    assert question.reply.status == 403
