"""Behind real proxies: without a sidecar's answer nobody passes, and a new plugin costs no request."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time

import pytest

from local_ports import reserve_port
from real_proxies import (
    ADA,
    AUTHENTICATE,
    AUTHORIZE,
    KINDS,
    Answer,
    ask,
    documented_failures,
    eventually,
    identity,
    success,
)
from waiting import PATIENCE_S


def test_nobody_passes_without_a_sidecar_and_again_with_it(front, sidecar):
    """A stopped sidecar fails closed, whatever the key; a restarted one is asked from the next request on."""
    assert front.ask("/orders", key="good").status == 200
    sidecar.stop()
    try:
        for key in ("good", "chief", None):
            assert front.refuses("/orders", key=key).status == front.away
        assert front.refuses("/public").status == front.away
        assert front.ask("/healthz").status == 200
    finally:
        sidecar.start()
    answer = front.ask("/orders", key="good")
    assert (answer.status, identity(answer)) == (200, ADA)
    assert front.refuses("/orders").status == 401


@pytest.mark.parametrize("kind", KINDS)
def test_sidecar_that_does_not_answer_lets_nobody_pass(kind, proxies, servers, place):
    """The proxy's patience ends, and then nobody passes."""
    port = reserve_port()
    with (
        servers.relay(place / "silent.sock", port, None),
        proxies(kind, socket=place / "silent.sock", port=port, patient=False) as listen,
    ):
        began = time.monotonic()
        answer = ask(listen, "/public", key="good", headers=[("X-Mark", "silence")])
        assert answer.status == documented_failures(kind)[1]
        assert time.monotonic() - began > 1  # it was asked, and waited for
        assert "silence" not in servers.marks


@pytest.mark.parametrize("kind", [*KINDS, "envoy-pipe"])
def test_connections_to_the_sidecar_are_used_again(kind, proxies, servers, sidecar, place):
    """A question costs no connection of its own, refusals and challenges included."""
    port = reserve_port()
    with (
        servers.relay(place / "counted.sock", port, sidecar.socket) as connections,
        proxies(kind, socket=place / "counted.sock", port=port) as listen,
    ):
        statuses = [
            ask(listen, "/orders", key=("good", "wrong")[i % 2], method="POST", body=b"x").status for i in range(60)
        ]
        assert statuses == [200, 401] * 30
        # Caddy's transport gives a connection back beside the answer: on a busy machine another may be there first.
        assert len(connections) <= (10 if kind == "caddy" else 1)


def test_plugin_is_swapped_under_load_without_a_failed_request(front, sidecar):
    """Every request of the load passes while versions change, and each version is seen."""
    failed, tenants, done = [], set(), threading.Event()

    def load():
        connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            while not done.is_set():
                connection.request("GET", "/orders", headers={"X-API-Key": "good"})
                response = connection.getresponse()
                body = response.read()
                if response.status != 200:
                    failed.append((response.status, body))
                else:
                    tenants.update(Answer(200, response.headers, body).header("X-Hookline-Tenant"))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for version in range(1, 4):
            tenant = f"{front.kind}-{version}"
            rule = (['"x-api-key":"good"'], success(tenant_id=tenant))
            sidecar.install([rule, *AUTHENTICATE], AUTHORIZE)
            eventually(lambda tenant=tenant: tenant in tenants or failed)
    finally:
        done.set()
        for thread in threads:
            thread.join()
        sidecar.install(AUTHENTICATE, AUTHORIZE)
    assert failed == []
    eventually(lambda: identity(front.ask("/orders", key="good")) == ADA)
