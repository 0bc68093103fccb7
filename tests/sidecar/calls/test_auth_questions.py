"""``/v1/auth``: what a proxy tells becomes one clear question to plugins, or a refusal."""

from __future__ import annotations

import orjson
import pytest

from auth_calls import Recorder, told
from hookline_api.hooks import INPUTS, Hook
from hookline_sidecar.hooks.auth import Question
from hookline_sidecar.hooks.heads import read_head
from hookline_sidecar.hooks.original import ORIGINAL_HEADERS, PROXIES

ANY = PROXIES["any"]


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
    """Whatever has to be escaped, by the lane and by the server: every field, nothing else, and the same bytes."""
    head = read_head("\r\n".join(("GET /v1/auth HTTP/1.1", "Host: h", *lines)).encode())
    pairs = [tuple(line.split(": ", 1)) for line in ("Host: h", *lines)]
    asked = []
    for question in (Question.of_head(ANY, head), Question.of_request(ANY, "GET", "/v1/auth", pairs)):
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
        assert read.hook_context.request_id == request_id  # one for both questions
    if lines and "Basic" in lines[0]:
        assert (read.resource, read.action, read.hook_context.attributes["client_ip"]) == ("/%C3%BC", "", "10.0.0.2")
        assert b'"username":"ann","password":"a\\"b\\\\c"' in asked[0][0][1]


@pytest.mark.parametrize(
    "target", ["http://h/v1/auth/a", "http://h/v1/auth", "/v1/%61uth/a", "/v1%2fauth/a", "/%76%31/auth"]
)
def test_a_path_that_is_behind_another_prefix_is_malformed(target):
    """And is not cut where the usual one would end: ``http://h`` is as long as ``/v1/auth``."""
    question = Question.of_request(ANY, "GET", target, [("X-Original-URI", "/v1/auth/a")])
    assert question.reply.status == 403


AS_SENT = {
    "nginx": [("X-Original-URI", "/admin?x"), ("X-Original-Method", "DELETE"), ("X-Real-IP", "10.0.0.1")],
    "ingress-nginx": [
        ("X-Original-URL", "https://app.example:8443/admin?x"),
        ("X-Original-Method", "DELETE"),
        ("X-Sent-From", "nginx-ingress-controller"),
        ("X-Real-IP", "10.0.0.1"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("X-Auth-Request-Redirect", "/admin?x"),
    ],
    "traefik": [
        ("X-Forwarded-Method", "DELETE"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "app.example"),
        ("X-Forwarded-Uri", "/admin?x"), ("X-Forwarded-For", "10.0.0.1"),
    ],
    "caddy": [("X-Forwarded-Method", "DELETE"), ("X-Forwarded-Uri", "/admin?x"), ("X-Forwarded-For", "10.0.0.1")],
    "haproxy": [
        ("X-Forwarded-Method", "DELETE"), ("X-Forwarded-Uri", "/admin?x"), ("X-Forwarded-For", "9.9.9.9, 10.0.0.1"),
    ],
    "envoy": [("X-Real-IP", "10.0.0.1")],
}  # fmt: skip
"""What each proxy sends; Envoy tells the rest in the request line."""
FORGERIES = {
    "X-Original-URI": "/public", "X-Original-URL": "https://app.example/public", "X-Forwarded-Uri": "/public",
    "X-Original-Method": "GET", "X-Forwarded-Method": "GET", "X-Rewrite-URL": "/public", "X-Request-Uri": "/public",
    "X-Envoy-Original-Path": "/public", "X-Forwarded-Path": "/public", "X-Original-Path": "/public",
    "X-Forwarded-Url": "https://app.example/public",
}  # fmt: skip


def as_sent(proxy, more=(), *, by):
    """A proxy's subrequest about DELETE /admin with a client's headers beside its own."""
    mine = {name.lower() for name, _ in AS_SENT[proxy]}
    headers = [*AS_SENT[proxy], *(pair for pair in more if pair[0].lower() not in mine)]
    if proxy == "envoy":
        return told(headers, by=by, target="/v1/auth/admin?x", method="DELETE")
    return told(headers, by=by)


def test_all_that_tell_an_original_request_are_tried():
    """What is read has a forgery below."""
    assert {name.lower() for name in FORGERIES} == ORIGINAL_HEADERS


@pytest.mark.parametrize("proxy", AS_SENT)
def test_what_a_proxy_sends_is_read_whether_it_is_named_or_not(proxy):
    """An absolute URL and a path are the same path."""
    assert as_sent(proxy, by=proxy) == as_sent(proxy, by="any") == ("DELETE", "/admin", "10.0.0.1")


@pytest.mark.parametrize("forged", FORGERIES)
@pytest.mark.parametrize("proxy", AS_SENT)
def test_a_clients_word_beside_the_proxys_opens_nothing(proxy, forged):
    """Whichever header it uses: where nothing is named they differ, and the client is refused; else it is ignored."""
    lie = [(forged, FORGERIES[forged])]
    assert as_sent(proxy, lie, by=proxy) == ("DELETE", "/admin", "10.0.0.1")
    if forged.lower() not in {name.lower() for name, _ in AS_SENT[proxy]}:
        assert "is told twice, and differs" in as_sent(proxy, lie, by="any")
    assert as_sent(proxy, [(forged, "")], by="any") == ("DELETE", "/admin", "10.0.0.1")  # says nothing
    assert as_sent(proxy, [(forged.replace("-", "_"), "/public")], by="any") == ("DELETE", "/admin", "10.0.0.1")


@pytest.mark.parametrize("proxy", AS_SENT)
def test_a_named_proxy_that_does_not_tell_is_refused(proxy):
    """Its headers are missing or empty, and a client's others are not taken in their place."""
    missing = "is missing"
    assert missing in told(list(FORGERIES.items()) if proxy == "envoy" else [], by=proxy)
    for name, _ in AS_SENT[proxy][:2] if proxy not in {"envoy", "traefik"} else ():
        without = [pair for pair in AS_SENT[proxy] if pair[0] != name]
        others = [pair for pair in FORGERIES.items() if pair[0].lower() not in {n.lower() for n, _ in AS_SENT[proxy]}]
        assert missing in told([*without, *others], by=proxy)
        assert missing in told([*without, (name, "")], by=proxy)
    if proxy != "envoy":
        assert "goes on behind /v1/auth" in told(AS_SENT[proxy], by=proxy, target="/v1/auth/admin")


@pytest.mark.parametrize(
    "headers",
    [
        [("X-Original-URI", "/public"), ("X-Original-URI", "/admin")],
        [("X-Original-URI", "/public, /admin")],
        [("X-Original-URI", "/public,/admin")],
        [("X-Original-URI", "/public?x, /admin"), ("X-Original-Method", "GET")],
        [("X-Original-URL", "https://h/public,https://h/admin")],
        [("X-Original-Method", "GET"), ("X-Original-Method", "DELETE")],
        [("X-Original-Method", "GET, DELETE")],
        [("X-Original-Method", "GET,DELETE")],
        [("X-Original-Method", "G" * 65)],
        [("X-Original-Method", "GET"), ("X-Forwarded-Method", "DELETE")],
        [("X-Original-URL", "https://h?/admin"), ("X-Original-Method", "GET")],
        [("X-Original-URL", "https://h#/admin")],
        [("X-Original-URL", "https://public@h/admin")],
        [("X-Original-URL", "https://h\\/admin")],
        [("X-Original-URL", "https:///admin")],
        [("X-Original-URL", "https://h")],
        [("X-Original-URL", "//h/admin")],
        [("X-Original-URL", "ftp://h/admin")],
        [("X-Original-URI", "https://h/admin")],
    ],
    ids=str,
)
def test_what_is_told_twice_or_malformed_is_refused(headers):
    """A ``Host`` of a client's choosing makes no path, and joined values do not count."""
    assert isinstance(told(headers), str)


@pytest.mark.parametrize(
    "path",
    [
        "/public/%c0%ae%c0%ae/admin", "/%c0%afadmin", "/public/%e0%80%ae./x", "/%c1%9cx", "/%f0%80%80%ae",
        "/%ff", "/caf%e9", "/%ed%a0%80", "/%f5%80%80%80", "/\udcff", "/\udcc0\udcae",
        "/public/%252e%252e/admin", "/public/%25%32%65%25%32%65/admin", "/public/%25252e%25252e/admin",
        "/public/%25c0%25ae%25c0%25ae/admin", "/public%252f..%252fadmin", "/%252e/admin", "/%2525252525252e/",
        "/%2fadmin", "/%2Fadmin", "/%5cadmin", "/%252fadmin", "/public/%00", "/public%0a", "/public%0d%0aX:1", "/x%7f",
        "/%2500", "/;/admin", "/;x=1/admin", "/public/%3b/x", "/public/..;/admin", "/public/..%3bx/admin",
        "/public/\uff0e\uff0e/admin", "/public\uff0f..\uff0fadmin", "/public/%ef%bc%8e%ef%bc%8e/admin",
        "/public/..%5cadmin", "/public\\..\\admin", "/%u002e%u002e/admin", "/public/..", "/./admin", "/public/%2e",
        "//admin", "admin", "*", "/a b", "/#/public", "/%", "/%2", "/%zz",
    ],
)  # fmt: skip
def test_a_path_that_servers_read_differently_is_refused(path):
    """By each of the headers, and in the request line."""
    for name in ("X-Original-URI", "X-Forwarded-Uri"):
        assert told([(name, path)]).startswith("the path ")
    assert told([("X-Original-URL", f"https://h{path}")]).endswith("\n")
    if path.startswith("/") and path.isascii() and not set(path) & set("# "):
        assert told([], target=f"/v1/auth{path}", by="envoy").startswith("the path ")


@pytest.mark.parametrize(
    ("path", "read"),
    [
        ("/caf%c3%a9", "/caf%C3%A9"), ("/café", "/caf%C3%A9"), ("/%61dmin", "/admin"), ("/a//b", "/a/b"),
        ("/job/x/feature%252Fy", "/job/x/feature%252Fy"), ("/api/queues/%2F/q", "/api/queues/%2F/q"),
        ("/proxy/https%3a%2f%2fh%2fx", "/proxy/https%3A%2F%2Fh%2Fx"), ("/users/CORP%5cann", "/users/CORP%5Cann"),
        ("/a;v=1/b,c", "/a;v=1/b,c"), ("/100%25", "/100%25"), ("/...", "/..."), ("/x/.well-known", "/x/.well-known"),
        ("/?x=/../%ff", "/"), ("/日本", "/%E6%97%A5%E6%9C%AC"), ("/%20a", "/%20a"), ("/x/%252e", "/x/%252e"),
    ],
)  # fmt: skip
def test_honest_paths_have_one_spelling(path, read):
    """Whatever of escapes, parameters and other alphabets people use."""
    assert told([("X-Original-URI", path)])[1] == read
    assert told([("X-Original-URI", "/a?next=/b,/c,http://h"), ("X-Original-Method", "GET")])[1] == "/a"
    assert told([("X-Original-URI", "/a,/b"), ("X-Original-Method", "GET")], by="nginx")[1] == "/a,/b"


@pytest.mark.parametrize(
    ("told_as", "address"),
    [
        ("10.0.0.1", "10.0.0.1"), ("10.0.0.1:80", "10.0.0.1"), ("[::1]:80", "::1"), ("[::1]", "::1"), ("::1", "::1"),
        ("2001:DB8:0:0::1", "2001:db8::1"), ("::ffff:10.0.0.1", "10.0.0.1"), ("[::FFFF:a00:1]:9", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::1"), ("[fe80::1%25eth0]:80", "fe80::1"), ("unknown", ""), ("_hidden", ""),
        ("10.0.0.1%eth0", ""), ("010.0.0.1", ""), ("0x7f.1", ""), ("127.1", ""), ("2130706433", ""),
        ("[10.0.0.1]:80", ""), ("unix:", ""), ("10.0.0.1:http", ""), ("localhost", ""),
        ("::1:x", ""), ("1" * 5000, ""), ("-", ""),
    ],
)  # fmt: skip
def test_a_clients_address_is_one_or_nothing(told_as, address):
    """In its one spelling; where the last of several is a word, none before it is taken."""
    assert told([("X-Real-IP", told_as)])[2] == address
    assert told([("X-Forwarded-For", told_as)])[2] == address
    assert told([("X-Forwarded-For", f"9.9.9.9, {told_as}")])[2] == address
    assert told([("X-Real-IP", told_as), ("X-Forwarded-For", "9.9.9.9")])[2] == address
    assert told([("X-Real-IP", "10.0.0.1"), ("X-Real-IP", "9.9.9.9")])[2] == ""
