"""A connection that is lost, refused or distrusted is made again; what ran goes on meanwhile."""

from __future__ import annotations

import json
import os
import signal
import ssl

import pytest
from cryptography import x509

from hookline_sidecar.control.sources.operator import pause
from operator_reports import BLOCK, CHANGES, metric, reasons, states


@pytest.mark.parametrize("code", [None, 1001], ids=["cut", "going away"])
async def test_a_lost_connection_is_made_again_and_changes_nothing(
    sidecar, operator, guests, reported, eventually, code
):
    """No second download, no other bundle, the same workers."""
    version = operator.send(operator.entry("p", guests.saying("one")))
    sidecar.start()
    reported(running=version, ready=True)  # and there is nothing more to say: what comes now is about the connection
    workers, changes = sidecar.workers, metric(sidecar, CHANGES)
    for count in (2, 3):
        operator.reports.clear()
        operator.drop(code)
        eventually(
            lambda count=count: metric(sidecar, "hookline_operator_connections_total") == count, "a connection more"
        )
        reported(running=version, ready=True)
        assert all(report == operator.last for report in operator.reports)
    assert metric(sidecar, CHANGES) == changes
    assert (len(operator.asked), sidecar.workers, await sidecar.says()) == (1, workers, "one")


async def test_the_last_good_bundle_serves_with_the_operator_gone(sidecar, operator, guests, reported, eventually):
    """At once, after a restart; and the first report to an operator that comes back says what really runs."""
    guard = operator.entry("g", guests.answering(pre_query=BLOCK), hooks=["pre_query"])
    version = operator.send(operator.entry("p", guests.saying("one")), guard)
    sidecar.start()
    reported(running=version)
    assert sidecar.stop() == 0
    operator.stop()
    sidecar.start()
    assert await sidecar.says() == "one"
    assert "cannot be reached" in sidecar.wait_plugin("p", state="LastGood")["failure"]["message"]
    assert "cannot be reached" in sidecar.wait_problem(operator.url)["message"]
    assert metric(sidecar, "hookline_operator_connected") == 0
    operator.reports.clear()
    operator.start()
    sidecar.wait_plugin("p", state="Running")
    sidecar.wait_plugin("g", state="Running")
    eventually(lambda: states(operator.last) == {"g": "Running", "p": "Running"}, "a good report")
    assert {(report.running, report.ready) for report in operator.reports} == {(version, True)}
    assert sidecar.problems() == []
    assert len(operator.asked) == 2
    assert metric(sidecar, CHANGES) == 0


async def test_a_first_start_waits_for_the_operator(sidecar, operator, guests, eventually):
    """Not ready, and it says why; no hook is answered by a chain that is not there."""
    operator.stop()
    sidecar.start(wait=False)
    eventually(lambda: "has not been reached yet: it cannot be reached" in reasons(sidecar), lambda: reasons(sidecar))
    assert reasons(sidecar).startswith("503")
    assert sidecar.get("/v1/bundle")[0] == 404
    operator.send(operator.entry("p", guests.saying("one")))
    operator.start()
    sidecar.wait_ready()
    assert await sidecar.says() == "one"


@pytest.mark.parametrize(
    ("refusal", "words"),
    [(401, "does not accept this pod's token"), (403, "not allowed"), ((503, {"Retry-After": "1"}), "answered 503"),
     ((307, {"Location": "http://127.0.0.1:1/"}), "redirect"), (200, "answered 200")],
    ids=str,
)  # fmt: skip
async def test_a_refusal_is_said_and_tried_again(sidecar, operator, guests, eventually, refusal, words):
    """Once in the log, in ``/readyz`` and under ``problems``; then all is well by itself."""
    operator.send(operator.entry("p", guests.saying("one")))
    operator.refusal = refusal
    sidecar.start(wait=False)
    eventually(lambda: words in reasons(sidecar), lambda: reasons(sidecar))
    assert words in sidecar.wait_problem(operator.url)["message"]
    tried = len(operator.tokens)
    eventually(lambda: len(operator.tokens) > tried, "another attempt")
    said = [line for line in sidecar.log.splitlines() if words in line]
    assert sum("not ready: " not in line for line in said) == 1  # and what is waited for is another line
    operator.refusal = None
    sidecar.wait_ready()
    assert await sidecar.says() == "one"


async def test_a_token_that_is_rotated_is_read_again(sidecar, operator, guests, reported, eventually):
    """For connections and for blobs; a file that is gone or holds no token is said."""
    version = operator.send(operator.entry("p", guests.saying("one")))
    sidecar.start()
    reported(running=version)
    operator.accepted = {"the-next-one"}
    for content, words in ((None, "cannot be read"), ("two words", "holds no token")):
        operator.token.unlink(missing_ok=True)
        if content is not None:
            operator.token.write_text(content)
        operator.drop()
        eventually(lambda words=words: words in json.dumps(sidecar.problems()), words)
    operator.token.write_text("the-next-one")
    version = operator.send(operator.entry("p", guests.saying("two")))
    reported(running=version)
    assert await sidecar.says() == "two"
    assert operator.tokens[-1] == "the-next-one"


async def test_an_authority_that_is_rotated_is_read_again(sidecar, operator, guests, reported, eventually):
    """Until then the operator is not trusted, and gets no token."""
    operator.send(operator.entry("p", guests.saying("one")))
    sidecar.start()
    operator.new_authority()
    asked = len(operator.tokens)
    operator.drop()
    eventually(lambda: "certificate is not trusted" in json.dumps(sidecar.problems()), "a problem about trust")
    assert len(operator.tokens) == asked
    assert await sidecar.says() == "one"
    operator.ca.write_bytes(b"")  # which does not mean the system's authorities
    eventually(lambda: "holds no PEM certificate" in json.dumps(sidecar.problems()), "a problem about the file")
    operator.trust_authority()
    operator.ca.write_bytes("# Zürich\n".encode() + operator.ca.read_bytes())
    version = operator.send(operator.entry("p", guests.saying("two")))
    reported(running=version)
    assert await sidecar.says() == "two"


async def test_where_python_is_strict_a_lax_authority_is_refused_with_what_to_do(sidecar, operator, guests, eventually):
    """A key usage is missing: Python 3.13 and newer refuse that, and the problem says what to issue anew."""
    operator.send(operator.entry("p", guests.saying("one")))
    sidecar.start()
    operator.new_authority(without={x509.KeyUsage})
    operator.trust_authority()
    asked = len(operator.tokens)
    operator.drop()
    if ssl.create_default_context().verify_flags & ssl.VERIFY_X509_STRICT:
        eventually(lambda: "RFC 5280" in json.dumps(sidecar.problems()), "what to do")
        assert len(operator.tokens) == asked
    else:
        eventually(lambda: len(operator.tokens) > asked, "a new connection")
    assert await sidecar.says() == "one"


async def test_without_an_authority_the_systems_count(new_sidecar, operator, eventually):
    """Which do not know this one; and all of it can be told in the environment."""
    sidecar = new_sidecar(plugins=None)
    environment = {"HOOKLINE_OPERATOR": operator.url, "HOOKLINE_OPERATOR_TOKEN": str(operator.token)}
    sidecar.start(wait=False, environment=environment)
    eventually(lambda: "certificate is not trusted" in reasons(sidecar), lambda: reasons(sidecar))
    assert operator.tokens == []
    assert sidecar.stop() == 0


async def test_a_hangup_tries_at_once(sidecar, operator, guests, eventually):
    """Whatever pause the operator asked for."""
    operator.send(operator.entry("p", guests.saying("one")))
    operator.refusal = 503, {"Retry-After": "3000"}
    sidecar.start(wait=False)
    eventually(lambda: "answered 503" in reasons(sidecar), lambda: reasons(sidecar))
    operator.refusal = None
    os.kill(sidecar.process.pid, signal.SIGHUP)
    sidecar.wait_ready()


def test_pauses_grow_and_are_spread():
    """Quick at first, half a minute at the most; what the operator asks for counts where it is longer, in bounds."""
    for _ in range(50):
        assert 0.1 <= pause(0) <= 0.25
        assert pause(3) > 0.5
        assert 15 <= pause(1000) <= 30
        assert pause(0, asked=0.0) >= 0.1
        assert 20 <= pause(0, asked=20.0) <= 25
        assert pause(0, asked=3600.0) <= 375
        assert 0 < pause(1000, went=True) <= 1.5
    assert len({pause(1000) for _ in range(10)}) > 1
