"""``/v1/auth``: somebody has to say yes. The proxies' side of it is in tests/sidecar/subrequests."""

from __future__ import annotations

import base64
import itertools

import pytest

from auth_calls import IDENTITY

SUCCESS = {"action": "success", "identity": IDENTITY}
DENIED = {"action": "denied", "message": "who?"}
ALLOW, DENY, DEFER = {"action": "allow"}, {"action": "deny"}, {"action": "defer"}
NOBODY = "no plugin"
FAILS = "not a decision"


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
AT_ONCE = {"probation": {"calls": 0}}
"""The version before does not answer what this one fails on."""


@pytest.fixture
def decide(running, make_manifest):
    """Makes the two hooks decide; returns when they do."""

    def plugins(authenticate, authorize):
        number, documents = next(_numbers), []
        for hook, answer in (("authenticate", authenticate), ("authorize", authorize)):
            if answer is not NOBODY:
                config = {hook: {"action": "what?"} if answer is FAILS else answer}
                source = {"file": {"path": "m.wasm"}}
                documents.append(
                    make_manifest(hook, source=source, config=config, hooks=[hook], priority=number, rollout=AT_ONCE)
                )
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


async def test_as_many_headers_as_a_proxy_lets_in_are_read_with_those_that_it_adds(decide):
    """Envoy lets in a hundred; 8 KiB of cookies are one line, as nginx passes it."""
    sidecar = decide(SUCCESS, ALLOW)
    theirs = {f"X-Client-{number}": "y" for number in range(99)} | {"Cookie": "c" * 8180}
    added = {"X-Original-URI": "/a", "X-Original-Method": "GET", "X-Real-IP": "10.0.0.1", "X-Request-ID": "1"}
    assert (await ask(sidecar, headers=theirs | added))[0] == 200


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
    running.folder.plugin("deep", priority=depth, rollout=AT_ONCE)
    running.wait_plugin("deep", state="Running", priority=depth)
    status, _ = await ask(running)
    assert status == (200 if depth <= 200 else 401)
    assert "Traceback" not in running.log


@pytest.mark.parametrize("path", [b"/v1/authx", b"/v1/auth.", b"/v1//auth", b"/v1/hooks/../auth", b"//v1/auth"])
def test_what_is_not_quite_that_path_is_no_yes(running, path):
    """A slip in a proxy's configuration locks, and does not open."""
    received = running.raw(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert received.split()[1] in {b"404", b"405", b"403", b"401"}


def test_folded_and_spaced_headers_tell_nothing(running):
    """What some servers would still read as a header is not HTTP here."""
    for lines in (b"X-Original-URI: /public\r\n /admin", b"X-Original-URI:\r\n /public", b"X-Original-URI : /public"):
        raw = b"GET /v1/auth HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + lines + b"\r\n\r\n"
        assert running.raw(raw).split()[1] == b"400"


async def test_what_is_refused_for_being_unclear_is_counted(running):
    """By the lane and by the server."""

    def counted():
        lines = running.get("/metrics")[1].splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("hookline_auth_unclear_total "))

    before = counted()
    for headers in ({"X-Original-URI": "/a", "X-Original-URL": "/b"}, {"X-Original-URI": "/é/.."}):
        assert (await ask(running, headers=headers))[0] == 403
    await ask(running, headers={"X-Original-URI": "/a", "X-Original-URL": "https://h/a"})
    assert counted() == before + 2
