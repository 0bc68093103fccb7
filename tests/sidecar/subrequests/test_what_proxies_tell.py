"""What proxies tell of a request is believed once, from the proxy that was named, and never guessed."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from typing import TYPE_CHECKING

import pytest

from real_proxies import DOCUMENT, KINDS, Front, Sidecar, ask
from waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.mark.parametrize(
    ("target", "headers", "status"),
    [
        ("/v1/auth", [], 403),
        ("/v1/auth?x=/public", [], 403),
        ("/v1/auth", [("X-Original-URI", "/public")], 200),
        ("/v1/auth/public", [], 200),
        ("/v1/auth/public?x", [("X-Original-URI", "/public")], 200),
        ("/v1/auth/public", [("X-Original-URI", "/admin")], 403),
        ("/v1/auth", [("X-Original-URI", "/public"), ("X-Forwarded-Uri", "/admin")], 403),
        ("/v1/auth", [("X-Original-URI", "/public"), ("X-Original-URI", "/admin")], 403),
        ("/v1/auth", [("X-Original-URI", "/look"), ("X-Original-Method", "GET")], 200),
        ("/v1/auth", [("X-Original-URI", "/look")], 403),
        (
            "/v1/auth",
            [("X-Original-URI", "/look"), ("X-Original-Method", "GET"), ("X-Forwarded-Method", "DELETE")],
            403,
        ),
        ("/v1/auth/look", [("X-Original-Method", "POST")], 403),
        ("/v1/auth", [("X-Original-URI", "public")], 403),
        ("/v1/auth", [("X-Original-URI", "http://x/public")], 403),
        ("/v1/auth", [("X-Original-URI", "/public/%")], 403),
        ("/v1/auth", [("X-Original-URI", b"/public/\xff")], 403),
        ("/v1/auth", [("X-Original-URI", "/public/é".encode())], 200),
        ("/v1/auth", [("X-Original-URI", "/public/a//b")], 200),
        ("/v1/auth", [("X-Original-URI", "/x//../public")], 403),
    ],
)
def test_what_a_proxy_does_not_tell_or_tells_twice_is_not_guessed(sidecar, target, headers, status):
    """Without any proxy: what is untold is empty, and what differs is refused before anybody decides."""
    assert ask(sidecar.port, target, key="good", headers=headers).status == status


def test_the_last_forwarded_address_counts(sidecar):
    """A proxy that adds to ``X-Forwarded-For`` leaves what the client wrote in front."""
    told = [("X-Original-URI", "/orders")]
    for value, status in (("10.9.9.9, 127.0.0.1", 200), ("127.0.0.1, 10.9.9.9", 401), ("", 401)):
        forwarded = [("X-Forwarded-For", value)]
        assert ask(sidecar.port, "/v1/auth", key="here", headers=told + forwarded).status == status


def test_documented_bytes_are_a_whole_call(sidecar):
    """What docs/reference/proxies.md shows is answered as it stands, again and again on one connection."""
    head, body = DOCUMENT.read_text().partition("```http\n")[2].partition("\n```")[0].split("\n\n")
    call = head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body.encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE_S)
        connection.connect(str(sidecar.socket))
        for _ in range(2):
            connection.sendall(call)
            response = http.client.HTTPResponse(connection)
            response.begin()
            decision = json.loads(response.read())
            assert (response.status, decision["action"], decision["plugin"]) == (200, "continue", None)


def test_refusal_says_what_is_wrong_with_the_question(sidecar):
    """Whoever asks as the proxy does learns why."""
    answer = ask(sidecar.port, "/v1/auth", headers=[("X-Original-URI", "/reports/../admin")])
    assert (answer.status, answer.body) == (403, b"the path has dot segments\n")


CLAIMS = [
    ("X-Original-URI", "/public"), ("X-Original-URL", "http://h/public"), ("X-Forwarded-Uri", "/public"),
    ("X-Rewrite-URL", "/public"), ("X-Envoy-Original-Path", "/public"), ("X-Forwarded-Path", "/public"),
    ("X_Original_URI", "/public"), ("X_Original_URL", "/public"),
]  # fmt: skip
"""By what a client claims to have asked for something else."""


NAMED = [*((kind, kind) for kind in (*KINDS, "ingress-nginx")), ("ingress-nginx", "any")]


@pytest.fixture(scope="module", params=NAMED, ids=lambda pair: f"{pair[0]} read as {pair[1]}")
def named(request, proxies, place, servers) -> Iterator[Front]:
    """A proxy in front of a sidecar that was told which one it is, and ingress-nginx in front of one that was not."""
    kind, telling = request.param
    home = place / f"{kind}-{telling}"
    home.mkdir()
    sidecar = Sidecar(home, "--auth-headers", telling)
    with proxies(kind, socket=sidecar.socket, port=sidecar.port) as port:
        yield Front(kind, port, servers)
    sidecar.stop()


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda pair: pair[0])
def test_no_claim_of_a_client_opens_what_is_closed(named, claim):
    """A header is not believed because it is there: neither beside the proxy's own, nor for want of it."""
    assert named.refuses("/admin", key="good", headers=[claim]).status == 403
    assert named.refuses("/admin", headers=CLAIMS).status == 403
    assert named.refuses("/admin", headers=[claim, claim, ("Connection", f"close, {claim[0]}")]).status == 403
    assert named.refuses("/look", method="DELETE", key="good", headers=[("X-Forwarded-Method", "GET")]).status == 403


def test_what_a_named_proxy_tells_is_what_plugins_get(named):
    """Path, method and address; and a ``Host`` that would make a query of the path makes a refusal."""
    answer = named.ask("/orders?x=/admin", key="here")
    assert answer.status == 200
    assert named.ask("/look", key="good").status == 200
    assert named.ask("/public/x").status == 200
    assert named.refuses("/admin", key="good").status == 403
    for host in ("public?", "public#", "h/public?", "public@h"):
        connection = http.client.HTTPConnection("127.0.0.1", named.port, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            connection.putrequest("GET", "/admin", skip_host=True)
            for name, value in (("Host", host), ("X-API-Key", "good"), ("X-Mark", "odd host")):
                connection.putheader(name, value)
            connection.endheaders()
            assert connection.getresponse().status >= 400
    assert "odd host" not in named.servers.marks
