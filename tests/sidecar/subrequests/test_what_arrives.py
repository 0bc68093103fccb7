"""Behind real proxies: any spelling of a path, any method and any body is judged as what the upstream gets."""

from __future__ import annotations

import hashlib
import os
import urllib.parse
import urllib.request

import pytest


@pytest.mark.parametrize(
    "target",
    [
        "/admin",
        "/%61dmin",
        "/%61%64%6D%69%6e/users",
        "//admin",
        "/admin?x=/public",
        "/admin?/../public",
        "/admin#/public",
        "/public/../admin",
        "/public/./../admin",
        "/public/%2e%2e/admin",
        "/public/%2E./admin",
        "/public/..%2fadmin",
        "/public%2f..%2fadmin",
        "/public/..%5cadmin",
        "/public/..\\admin",
        "/public/..;/admin",
        "/public/..;x=1/admin",
        "/public/%2e%2e%3b/admin",
        "/public/..",
        "/public%00/../admin",
        "/public#/../admin",
        "/public/%2e%2e",
        "//public/admin",
        "/public/../../v1/hooks/custom_hook",
        "/../hooks/custom_hook",
        "http://public/admin",
        "http://127.0.0.1/%61dmin",
    ],
)
def test_no_spelling_of_a_path_leads_where_its_plain_one_does_not(front, target):
    """What the plugin judges is what the upstream serves, and a path that can be read in two ways is refused.

    Where a proxy tidies the path up before it asks, the tidied path is judged, and is what the upstream gets.
    """
    mark = os.urandom(8).hex()
    answer = front.ask(target, key="good", headers=[("X-Mark", mark)])
    if answer.status == 200:
        served = urllib.parse.unquote(answer.reached["target"].partition("?")[0])
        assert not served.startswith(("/admin", "//"))
        assert ".." not in served
    else:
        assert 400 <= answer.status < 500
        assert mark not in front.servers.marks


@pytest.mark.parametrize(
    "target",
    [
        "/public/a%2Fb",
        "/public/caf%C3%A9%20au%20lait?milk=1&x=/admin&y=%2e%2e#",
        "/public/a;v=1/b,c",
        "/public/...?",
        "/public/.well-known/x",
        "/public/%25%32%65",
        "/public/x?next=http://elsewhere/../admin&%ff",
    ],
)
def test_ordinary_paths_and_queries_arrive_as_they_are(front, target):
    """Percent-encoding, parameters and query strings are nobody's business on the way."""
    target = target.removesuffix("#")
    answer = front.ask(target)
    assert answer.status == 200
    tidied = target.replace("%25%32%65", "%252e") if front.kind == "envoy" else target
    assert answer.reached["target"] == tidied


@pytest.mark.parametrize(
    "headers",
    [
        [("Cookie", "c=" + "x" * 8180)],
        [("Authorization", "Bearer " + "x" * 20_000)],
        [(f"X-Many-{i}", "x") for i in range(150)],
        [("X-API-Key", b"\xff\xfe")],
        [("X-API-Key", "good"), ("X-API-Key", "good")],
    ],
    ids=["long", "longer", "many", "no text", "twice"],
)
def test_headers_beyond_the_ordinary_let_nobody_pass(front, headers):
    """Too long, too many, no text, or said twice: refused somewhere on the way, or told to the plugin as it is."""
    front.refuses("/orders", headers=headers)
    assert front.ask("/orders", key="good").status == 200


def test_target_with_a_host_is_judged_by_its_path(front):
    """The absolute form of a request target, RFC 9112, 3.2.2."""
    assert front.ask(f"http://127.0.0.1:{front.port}/public/x").status == 200
    assert front.refuses(f"http://127.0.0.1:{front.port}/admin", key="good").status == 403


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "PROPFIND"])
def test_methods_are_told_and_arrive(front, method):
    """The plugin judges the client's method, and the upstream gets it."""
    mark = os.urandom(8).hex()
    answer = front.ask("/orders", method=method, key="good", headers=[("X-Mark", mark)])
    assert answer.status == 200
    assert mark in front.servers.marks
    assert method == "HEAD" or answer.reached["method"] == method
    if method != "GET":
        assert front.refuses("/look", method=method, key="good").status == 403


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [0, 5, 3_000_000])
def test_bodies_reach_the_upstream_untouched(front, chunked, size):
    """The question is asked without the body, which goes on whole."""
    body = os.urandom(size)
    answer = front.ask("/orders", method="POST", key="good", body=body, chunked=chunked)
    assert answer.status == 200
    assert answer.reached["sha256"] == hashlib.sha256(body).hexdigest()
    front.refuses("/admin", method="POST", key="good", body=body[:1000], chunked=chunked)


def test_plugin_that_traps_lets_nobody_pass(front):
    """A failure is answered as the failure policy says: closed."""
    assert front.refuses("/public", key="trap").status == 401
    assert front.refuses("/trap", key="good").status == 403
    assert front.ask("/orders", key="good").status == 200


@pytest.mark.parametrize("key", ["line break", "space", "comma", "long"])
def test_identity_that_an_upstream_would_read_otherwise_is_refused(front, key):
    """A line break, a space at the end, a role with a comma: none makes another identity of one."""
    assert front.refuses("/orders", key=key).status == 403


def test_the_internal_path_is_nobodys_to_ask(front):
    """The path that nginx asks by itself is not reachable, and the hooks are not either."""
    front.refuses("/_hookline", headers=[("X-Original-URI", "/public")])
    front.refuses("/v1/auth/public")
    front.refuses("/v1/hooks/custom_hook", method="POST", body=b"{}", headers=[("Content-Type", "application/json")])
