"""Behind real proxies: who has a good key passes with an identity that no client can forge."""

from __future__ import annotations

import base64
import os

import pytest

from real_proxies import ADA, identity

FORGED = [
    ("X-Hookline-User", "root"),
    ("x-hookline-user-id", "u-0"),
    ("X-Hookline-Roles", "admin"),
    ("X-Hookline-Roles", "admin"),
    ("X-Hookline-Tenant", "everyone"),
    ("X_Hookline_User", "root"),
    ("X-Hookline_Roles", "admin"),
]


NOBODY = ("", "", "", "")


def test_good_key_passes_and_the_identity_arrives(front):
    """Who the plugin says it is reaches the upstream as headers, with the request's id."""
    answer = front.ask("/orders", key="good")
    assert answer.status == 200
    assert identity(answer) == ADA
    assert len(answer.header("X-Hookline-Request-Id")[0]) >= 16


def test_names_outside_ascii_arrive_percent_encoded(front):
    """A header carries visible ASCII only; a missing tenant is empty."""
    answer = front.ask("/admin", key="chief")
    assert answer.status == 200
    assert identity(answer) == ("Jos%C3%A9", "u-2", "admin", "")


def test_basic_authentication_is_taken_apart(front):
    """User name and password of a Basic header reach the plugin as such."""
    good, bad = (base64.b64encode(pair).decode() for pair in (b"ada:s3cret", b"ada:wrong"))
    answer = front.ask("/orders", headers=[("Authorization", f"Basic {good}")])
    assert (answer.status, identity(answer)) == (200, ADA)
    refused = front.refuses("/orders", headers=[("Authorization", f"Basic {bad}")])
    assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, 'Basic realm="hookline"')


@pytest.mark.parametrize("key", [None, "wrong"])
def test_without_a_good_key_is_a_challenge(front, key):
    """No key and a wrong key are 401, and RFC 9110 wants a challenge with it."""
    refused = front.refuses("/orders", key=key)
    assert refused.status == 401
    assert refused.headers["WWW-Authenticate"] == "Bearer"


def test_known_without_the_right_is_forbidden(front):
    """A known client that may not is 403, which no new password mends."""
    assert front.refuses("/admin/users", key="good").status == 403


def test_the_plugins_own_words_reach_the_client_where_its_resource_lets_them(front):
    """Behind each proxy: why it is refused, in a header of its own; of a failure the client learns nothing."""
    refused = front.refuses("/admin/users", key="good", headers=[("X-Hookline-Reason", "forged")])
    assert (refused.status, refused.headers.get_all("X-Hookline-Reason")) == (403, ["not an admin"])
    token = front.refuses("/", headers=[("Authorization", "Bearer old")])
    assert (token.status, token.headers.get_all("X-Hookline-Reason")) == (401, ["unknown user"])
    assert token.headers["WWW-Authenticate"] == 'Bearer error="invalid_token", error_description="unknown user"'
    assert "X-Hookline-Reason" not in front.refuses("/", key="trap").headers
    assert "X-Hookline-Reason" not in front.ask("/orders", key="good").headers
    assert front.ask("/admin/users", key="chief").status == 200


def test_unknown_may_be_allowed_and_has_no_identity(front):
    """A plugin may open a path to everybody; what the client claims to be does not arrive."""
    answer = front.ask("/public/news", headers=FORGED)
    assert answer.status == 200
    assert identity(answer) == NOBODY


def test_identity_of_a_client_that_forges_is_the_plugins(front):
    """The identity headers are replaced, not added to."""
    answer = front.ask("/orders", key="good", headers=FORGED)
    assert (answer.status, identity(answer)) == (200, ADA)


def test_where_nobody_is_asked_a_forged_identity_is_stripped_too(front):
    """The probe's path is not checked, and carries no identity all the same."""
    answer = front.ask("/healthz", headers=FORGED)
    assert (answer.status, identity(answer)) == (200, NOBODY)


@pytest.mark.parametrize("name", ["X-Original-URI", "X-Original-Url", "X-Forwarded-Uri", "X-Original-uri"])
@pytest.mark.parametrize("key", [None, "good"])
def test_client_cannot_tell_another_path(front, name, key):
    """Headers that tell the original path are the proxy's; a client's have no effect."""
    for value in ("/public", "/public, /public", ""):
        assert front.refuses("/admin", key=key, headers=[(name, value)]).status == 403
        assert front.ask("/public", key=key, headers=[(name, f"/admin{value}")]).status == 200


@pytest.mark.parametrize(
    "target",
    [
        "/healthz",
        "/admin/../healthz",
        "/admin/%2e%2e/healthz",
        "/admin/..%2fhealthz",
        "//healthz",
        "/admin/;/../healthz",
    ],
)
def test_what_nobody_is_asked_about_is_that_path_alone(front, target):
    """What a proxy tidies up to the probe's path reaches the upstream as the probe's path, or not at all."""
    mark = os.urandom(8).hex()
    answer = front.ask(target, headers=[("X-Mark", mark)])
    if answer.status == 200:
        assert answer.reached["target"] == "/healthz"
    else:
        assert mark not in front.servers.marks


@pytest.mark.parametrize("name", ["X-Original-Method", "X-Forwarded-Method", "X-HTTP-Method-Override"])
def test_client_cannot_tell_another_method(front, name):
    """So do those that tell the original method."""
    assert front.refuses("/look", key="good", method="DELETE", headers=[(name, "GET")]).status == 403


def test_client_cannot_have_the_proxys_headers_dropped(front):
    """``Connection`` names headers to drop: not those by which the proxy tells the request, nor the identity."""
    names = "X-Original-URI, X-Original-Method, X-Forwarded-Uri, X-Forwarded-Method, X-Real-IP, X-Hookline-User"
    drop = [("Connection", f"close, {names}")]
    assert front.refuses("/admin", key="good", headers=drop).status == 403
    assert front.refuses("/look", key="good", method="DELETE", headers=drop).status == 403
    answer = front.ask("/orders", key="here", headers=drop)
    assert (answer.status, identity(answer)) == (200, ADA)


@pytest.mark.parametrize("name", ["X-Real-IP", "X-Forwarded-For", "Forwarded", "True-Client-IP"])
def test_client_cannot_tell_another_address(front, name):
    """Plugins get the address that the proxy saw."""
    answer = front.ask("/orders", key="here", headers=[(name, "10.9.9.9")])
    assert answer.status == 200
