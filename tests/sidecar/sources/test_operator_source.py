"""The operator as the source of bundles, and everything that can go wrong between it and a sidecar.

Real sidecar processes against an operator that speaks the contract over TLS and breaks it on demand.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import stat

import pytest
from cryptography import x509

from hookline_api.bundle import LoadFailure
from hookline_api.config import Config
from hookline_api.distribution import MAX_BUNDLE, MAX_REPORT, PluginReport, Report
from hookline_sidecar.control.report import written
from hookline_sidecar.control.sources.operator import pause
from waiting import PATIENCE_S

SECRET = "a-value-of-a-secret"
QUERY = {"query": "select 1"}
CHANGES = "hookline_bundle_changes_total"
BLOCK = {"action": "block", "value": "guarded"}


@pytest.fixture
def sidecar(new_sidecar, operator):
    """A sidecar of that operator, not started yet."""
    sidecar = new_sidecar(plugins=None, operator=operator.url, operator_ca=operator.ca, operator_token=operator.token)
    yield sidecar
    sidecar.end()


@pytest.fixture
def reported(operator, eventually):
    """Waits until the last report has these facts; the report."""

    def wait(**facts):
        def there():
            last = operator.last
            return last if all(getattr(last, name) == value for name, value in facts.items()) else None

        return eventually(there, lambda: f"a report with {facts}; the last was {operator.last}")

    return wait


def reasons(sidecar):
    """What ``/readyz`` says, in one text."""
    status, body = sidecar.looks("/readyz") or (0, {"reasons": []})
    return f"{status} {' '.join(body['reasons'])}"


def metric(sidecar, name):
    """A metric without labels."""
    lines = sidecar.get("/metrics")[1].splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


def states(report):
    """The plugins' states by name."""
    return {plugin.name: plugin.state for plugin in report.plugins}


# ── the good path ──


async def test_a_bundle_runs_and_is_reported(sidecar, operator, guests, reported, eventually):
    """With its module fetched once, and the secret in it shown nowhere."""
    config = {"custom_hook": "hello", "upstream": {"token": SECRET}}
    version = operator.send(
        operator.entry(
            "p", guests.configured(), config=config, secret_paths=["upstream.token"], permissions=["config.read"]
        )
    )
    sidecar.start()
    assert await sidecar.says() == "hello"
    report = reported(running=version, ready=True, prepared=None)
    assert states(report) == {"p": "Running"}
    assert report.plugins[0].revision == sidecar.plugin("p")["revision"]
    assert report.sidecar
    assert operator.reports[0].running is None
    assert operator.asked == [("p", None)]
    source = sidecar.get("/v1/plugins")[1]["source"]
    assert (source["kind"], source["connected"], source["version"]) == ("operator", True, version)
    assert sidecar.problems() == []
    assert metric(sidecar, "hookline_operator_connected") == 1
    assert metric(sidecar, "hookline_operator_connections_total") == 1
    assert sidecar.get("/v1/bundle")[1]["version"] == version
    shown = json.dumps([sidecar.get("/v1/bundle"), sidecar.get("/v1/plugins"), sidecar.get("/metrics")]) + sidecar.log
    told = "".join(report.model_dump_json() for report in operator.reports)
    for secret in (SECRET, operator.token.read_text().strip()):
        assert secret not in shown + told
    kept = sidecar.state / "bundle.json"
    eventually(kept.exists, "a bundle that is kept")  # it runs before it is on disk
    assert SECRET in kept.read_text()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


async def test_a_new_bundle_replaces_and_removes(sidecar, operator, guests, reported):
    """What it does not name is gone; what did not change is not fetched again."""
    kept = operator.entry("kept", guests.saying("kept"), priority=-1)
    operator.send(operator.entry("gone", guests.saying("gone")), kept)
    sidecar.start()
    assert await sidecar.says() == "gone"
    version = operator.send(kept)
    reported(running=version)
    await sidecar.wait_says("kept")
    assert set(sidecar.plugins()) == {"kept"}
    version = operator.send()
    report = reported(running=version)
    assert (report.plugins, report.ready) == ([], True)
    assert sorted(operator.asked) == [("gone", None), ("kept", None)]


# ── hold and commit ──


async def test_what_is_held_does_not_hold_up_the_end(sidecar, operator, guests, reported):
    """A pod that ends in the middle of a rollout: no call is under way, and so none is waited for or cut."""
    entry = operator.entry("p", guests.saying("one"))
    first = operator.send(entry)
    sidecar.start()
    reported(running=first, ready=True)
    reported(prepared=operator.send(entry, operator.entry("q", guests.saying("two")), hold=True))
    assert sidecar.stop() == 0
    assert "are cut" not in sidecar.log


async def test_a_held_bundle_is_prepared_and_runs_when_told(sidecar, operator, guests, reported, load):
    """What runs goes on answering until then; no call fails."""
    first = operator.send(operator.entry("p", guests.saying("one")))
    sidecar.start(workers=2)
    reported(running=first, ready=True)
    async with load(sidecar) as calls:
        second = operator.send(operator.entry("p", guests.saying("two")), hold=True)
        assert states(reported(prepared=second, running=first)) == {"p": "Updating"}
        await calls.reaches(50)
        assert {answer["value"] for answer in calls.answers} == {"one"}
        operator.commit("another")
        await calls.reaches(50)
        assert {answer["value"] for answer in calls.answers} == {"one"}
        operator.commit(second)
        assert states(reported(prepared=None, running=second)) == {"p": "Running"}
        await sidecar.wait_says("two")
    assert calls.failures == []


async def test_a_held_bundle_runs_at_its_deadline(sidecar, operator, guests, eventually):
    """Also with the operator gone by then."""
    operator.send(operator.entry("p", guests.saying("one")))
    sidecar.start()
    version = operator.send(operator.entry("p", guests.saying("two")), hold=True, deadline=5000)
    # On a machine that has too much to do the deadline may come first, and that is no less than what is promised.
    eventually(lambda: version in {operator.last.prepared, operator.last.running}, "a prepared bundle")
    operator.stop()
    await sidecar.wait_says("two")


async def test_a_newer_bundle_replaces_a_held_one(sidecar, operator, guests, reported):
    """Whose commit then means nothing."""
    operator.send(operator.entry("p", guests.saying("one")))
    sidecar.start()
    second = operator.send(operator.entry("p", guests.saying("two")), hold=True)
    reported(prepared=second)
    third = operator.send(operator.entry("p", guests.saying("three")), hold=True)
    reported(prepared=third)
    operator.commit(second)
    operator.commit(third)
    reported(running=third, prepared=None)
    assert await sidecar.says() == "three"


async def test_a_held_bundle_can_be_taken_back(sidecar, operator, guests, reported):
    """By the one that runs: nothing changes for anybody."""
    entry = operator.entry("p", guests.saying("one"))
    first = operator.send(entry)
    sidecar.start()
    reported(running=first)
    changes = metric(sidecar, CHANGES)
    reported(prepared=operator.send(operator.entry("p", guests.saying("two")), hold=True))
    operator.send(entry, hold=True)
    reported(prepared=None, running=first)
    assert await sidecar.says() == "one"
    assert metric(sidecar, CHANGES) == changes


async def test_a_commit_that_comes_first_is_remembered(sidecar, operator, guests, reported):
    """The module was not there yet."""
    operator.send(operator.entry("p", guests.saying("one")))
    sidecar.start()
    entry = operator.entry("p", guests.saying("two"))
    operator.faults[entry.artifact.sha256] = ["hang"]
    version = operator.send(entry, hold=True)
    assert operator.hung.wait(PATIENCE_S)
    operator.commit(version)
    assert await sidecar.says() == "one"
    operator.release()
    reported(running=version)
    assert await sidecar.says() == "two"


async def test_what_changes_nothing_runs_at_once_although_held(sidecar, operator, guests, reported):
    """The operator need not wait for who has nothing to do."""
    entry = operator.entry("p", guests.saying("one"), generation=1)
    version = operator.send(entry)
    sidecar.start()
    reported(running=version)
    operator.reports.clear()
    operator.send(entry.model_copy(update={"generation": 2}), hold=True)
    operator.drop()
    reported(running=version, prepared=None)


async def test_what_fails_here_does_not_keep_the_rest_from_being_prepared(sidecar, operator, guests, reported):
    """The report says prepared, and which plugin failed; on commit the rest switches, that one runs as it was."""
    guard = guests.answering(pre_query=BLOCK)
    operator.send(operator.entry("a", guests.saying("a1")), operator.entry("b", guard, hooks=["pre_query"]))
    sidecar.start()
    a, b = operator.entry("a", guests.saying("a2")), operator.entry("b", guests.configured(), hooks=["pre_query"])
    operator.faults[b.artifact.sha256] = [404]
    version = operator.send(a, b, hold=True)
    report = reported(prepared=version)
    assert states(report) == {"a": "Updating", "b": "LastGood"}
    assert "404" in report.plugins[1].failure.message
    operator.commit(version)
    report = reported(running=version)
    assert states(report) == {"a": "Running", "b": "LastGood"}
    assert await sidecar.says() == "a2"


async def test_what_no_worker_can_load_does_not_keep_the_rest_from_being_prepared(sidecar, operator, guests, reported):
    """It compiles, and traps when it is instantiated: that is found while the bundle is held."""
    a, b = operator.entry("a", guests.saying("a1"), priority=1), operator.entry("b", guests.saying("b1"))
    operator.send(a, b)
    sidecar.start(workers=2)
    boom = guests.module({"custom_hook": guests.echo}, parts="(func $boom unreachable) (start $boom)")
    version = operator.send(operator.entry("a", guests.saying("a2"), priority=1), operator.entry("b", boom), hold=True)
    report = reported(prepared=version)
    assert states(report) == {"a": "Updating", "b": "LastGood"}
    assert report.plugins[1].failure.cause == "verify"
    assert await sidecar.says() == "a1"
    operator.commit(version)
    assert states(reported(running=version)) == {"a": "Running", "b": "LastGood"}
    assert await sidecar.says() == "a2"


async def test_a_worker_that_dies_while_a_bundle_is_held_comes_back(sidecar, operator, guests, reported, eventually):
    """It runs what the others run, prepares what they hold, and switches with them."""
    first = operator.send(operator.entry("p", guests.saying("one")))
    sidecar.start(workers=2)
    second = operator.send(operator.entry("p", guests.saying("two")), hold=True)
    reported(prepared=second, running=first)
    before = sidecar.workers
    assert len(before) == 2
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: len(set(sidecar.workers) - set(before)) == 2, "two new workers")
    assert await sidecar.says() == "one"
    reported(prepared=second, running=first, ready=True)
    operator.commit(second)
    reported(running=second)
    for _ in range(20):
        assert await sidecar.says() == "two"
    assert sidecar.log.count("ended by signal 9") == 2


async def test_a_supervisor_that_dies_while_a_bundle_is_held_holds_it_again(
    sidecar, operator, guests, reported, eventually
):
    """The workers go on meanwhile."""
    first = operator.send(operator.entry("p", guests.saying("one")))
    sidecar.start()
    second = operator.send(operator.entry("p", guests.saying("two")), hold=True)
    reported(prepared=second, running=first)
    before = sidecar.supervisor
    operator.reports.clear()
    os.kill(before, signal.SIGKILL)
    assert await sidecar.says() == "one"
    eventually(lambda: sidecar.supervisor not in {None, before}, "a new supervisor")
    eventually(lambda: any(report.prepared is None for report in operator.reports), "the new one's first word")
    reported(prepared=second, running=first)
    operator.commit(second)
    reported(running=second)
    assert await sidecar.says() == "two"


async def test_a_first_bundle_that_is_held_is_not_ready(sidecar, operator, guests, reported):
    """Nothing is answered before it may run."""
    version = operator.send(operator.entry("p", guests.saying("one")), hold=True)
    sidecar.start(wait=False)
    reported(prepared=version, running=None, ready=False)
    assert "holds" in reasons(sidecar)
    operator.commit(version)
    reported(running=version, ready=True)
    assert await sidecar.says() == "one"


async def test_a_plugin_that_is_slow_to_come_holds_up_no_other(sidecar, operator, guests, reported, eventually):
    """But the version is claimed only when it is known how all of it ended."""
    first = operator.send(
        operator.entry("a", guests.saying("a1"), priority=1), operator.entry("b", guests.saying("b1"))
    )
    sidecar.start()
    reported(running=first)
    a, b = operator.entry("a", guests.saying("a2"), priority=1), operator.entry("b", guests.saying("b2"))
    operator.faults[b.artifact.sha256] = ["hang"]
    second = operator.send(a, b)
    await sidecar.wait_says("a2")
    eventually(lambda: states(operator.last) == {"a": "Running", "b": "Updating"}, "one of two")
    assert operator.last.running not in {first, second}
    operator.release()
    assert states(reported(running=second)) == {"a": "Running", "b": "Running"}


async def test_at_the_deadline_what_is_there_runs(sidecar, operator, guests, reported):
    """Although one plugin has not come: it is as it was."""
    operator.send(operator.entry("a", guests.saying("a1"), priority=1), operator.entry("b", guests.saying("b1")))
    sidecar.start()
    a, b = operator.entry("a", guests.saying("a2"), priority=1), operator.entry("b", guests.saying("b2"))
    operator.faults[b.artifact.sha256] = ["hang"]
    version = operator.send(a, b, hold=True, deadline=1000)
    await sidecar.wait_says("a2")
    assert operator.last.prepared is None
    operator.release()
    reported(running=version)


# ── connections ──


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
    operator.ca.write_bytes(b"")  # which is no word for the system's authorities
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


# ── blobs ──


async def test_a_blob_that_is_cut_goes_on_where_it_stopped(sidecar, operator, guests, reported):
    """By a range."""
    module = guests.saying("x" * 60_000)
    entry = operator.entry("p", module)
    operator.faults[entry.artifact.sha256] = ["cut", 503]
    version = operator.send(entry)
    sidecar.start()
    reported(running=version)
    ranges = [asked for _, asked in operator.asked]
    assert ranges[0] is None
    assert ranges[2] == f"bytes={len(module) // 2}-"
    assert len(ranges) == 3
    assert "cannot be loaded" not in sidecar.log


@pytest.mark.parametrize(
    "what",
    [("wrong", "verify", "not what was asked for"), ("long", "verify", "longer than"), (404, "fetch", "answered 404")],
    ids=str,
)
async def test_a_blob_that_is_not_the_module_replaces_nothing(sidecar, operator, guests, reported, eventually, what):
    """What ran goes on, the report says why; the good one runs when it is there."""
    fault, cause, words = what
    operator.send(operator.entry("p", guests.saying("one")))
    sidecar.start()
    entry = operator.entry("p", guests.saying("two"))
    operator.faults[entry.artifact.sha256] = [fault]
    version = operator.send(entry)
    report = reported(running=version)
    assert states(report) == {"p": "LastGood"}
    assert report.plugins[0].failure.cause == cause
    assert words in report.plugins[0].failure.message
    assert await sidecar.says() == "one"
    os.kill(sidecar.process.pid, signal.SIGHUP)
    await sidecar.wait_says("two")
    eventually(lambda: states(operator.last) == {"p": "Running"}, "a good report")


async def test_a_blob_that_is_short_is_asked_for_again(sidecar, operator, guests, reported):
    """Only what is missing."""
    entry = operator.entry("p", guests.saying("one"))
    operator.faults[entry.artifact.sha256] = ["short"]
    version = operator.send(entry)
    sidecar.start()
    reported(running=version)
    assert operator.asked == [("p", None), ("p", f"bytes={entry.artifact.size - 10}-")]


async def test_plugins_of_one_module_fetch_it_once(sidecar, operator, guests, reported):
    """And again not after a restart, or for other settings."""
    module = guests.configured()
    entries = [
        operator.entry(f"p{n}", module, config={"custom_hook": n}, permissions=["config.read"], priority=-n)
        for n in range(5)
    ]
    version = operator.send(*entries)
    sidecar.start()
    reported(running=version)
    sidecar.stop()
    operator.reports.clear()
    sidecar.start()
    version = operator.send(*entries[1:], entries[0].model_copy(update={"config": Config({"custom_hook": "new"})}))
    reported(running=version)
    assert await sidecar.says() == "new"
    assert len(operator.asked) == 1


async def test_what_is_no_module_is_not_run(sidecar, operator, guests, reported):
    """The operator's word is not taken: not for the bytes, the exports, the memory, or what no resource can say."""
    module = guests.saying("x")
    version = operator.send(
        operator.entry("bytes", b"no module at all"),
        operator.entry("exports", module, hooks=["pre_query"]),
        operator.entry("egress", module, egress=["file:///etc/passwd"], permissions=["http.fetch"]),
        operator.entry("memory", module, limits={"memory": "64Ki"}),
    )
    sidecar.start(wait=False)
    report = reported(running=version, ready=False)
    assert set(states(report).values()) == {"Closed"}
    causes = {plugin.name: plugin.failure.cause for plugin in report.plugins}
    assert causes == {"bytes": "verify", "exports": "config", "egress": "config", "memory": "config"}
    assert "Traceback" not in sidecar.log


# ── placeholders ──


async def test_at_a_first_start_a_placeholder_fails_closed(sidecar, operator, reported):
    """Unless its policy is Open for that cause. One that names no hooks closes all."""
    version = operator.send(
        operator.placeholder("closed"),
        operator.placeholder("nameless", hooks=()),
        operator.placeholder("open", "config", hooks=["route"], failure_policy={"config": "Open"}),
    )
    sidecar.start(wait=False)
    report = reported(running=version, ready=False)
    assert states(report) == {"closed": "Closed", "nameless": "Closed", "open": "LeftOut"}
    assert all("nowhere" in plugin.failure.message for plugin in report.plugins)
    assert "closed is nowhere; spec.failurePolicy.fetch: Open lets pods start without it" in reasons(sidecar)
    assert (await sidecar.ask("pre_query", QUERY))["plugin"] == "closed"
    assert (await sidecar.ask("route", QUERY))["plugin"] == "nameless"


@pytest.mark.parametrize(
    ("policy", "state", "value"),
    [("LastGood", "LastGood", "guarded"), ("Closed", "Closed", None), ("Open", "LeftOut", None)],
)
async def test_a_placeholder_for_what_ran_goes_by_its_policy(sidecar, operator, guests, reported, policy, state, value):
    """LastGood: what ran goes on, also after a restart. Beside others, a new one is left out."""
    other = operator.entry("other", guests.saying("here"))
    guard = operator.entry("guard", guests.answering(pre_query=BLOCK), hooks=["pre_query"])
    first = operator.send(guard, other)
    sidecar.start()
    reported(running=first)
    version = operator.send(
        operator.placeholder("guard", failure_policy={"fetch": policy}), operator.placeholder("new"), other
    )
    report = reported(running=version)
    assert states(report) == {"guard": state, "new": "LeftOut", "other": "Running"}
    for _ in range(2):
        decision = await sidecar.ask("pre_query", QUERY)
        assert decision["action"] == ("continue" if policy == "Open" else "block")
        assert decision.get("value") == value or policy == "Closed"
        assert await sidecar.says() == "here"
        sidecar.stop()
        operator.stop()
        sidecar.start(wait=policy != "Closed")
        sidecar.wait_plugin("other", state="LastGood")


async def test_a_last_good_revision_of_the_operators_runs_with_its_failure(sidecar, operator, guests, reported):
    """A pod that is new runs what the others went back to, and shows why."""
    entry = operator.entry("p", guests.saying("good"))
    failure = LoadFailure(cause="verify", message="the new one is not signed")
    version = operator.send(entry.model_copy(update={"failure": failure}))
    sidecar.start()
    report = reported(running=version, ready=True)
    assert states(report) == {"p": "LastGood"}
    assert report.plugins[0].failure == failure
    assert await sidecar.says() == "good"
    changes = metric(sidecar, CHANGES)
    operator.send(entry)
    sidecar.wait_plugin("p", state="Running", failure=None)
    assert metric(sidecar, CHANGES) == changes


# ── garbage ──


def garbage():
    """Messages that are not well formed, by what is wrong with them."""
    good = {"type": "bundle", "version": "v", "bundle": {"plugins": []}}
    deep = {}
    for _ in range(300):
        deep = {"d": deep}
    named = {"name": "p", "hooks": ["custom_hook"]}
    path = {"digest": "d", "sha256": "../../../etc/passwd", "size": 1, "layout": "raw", "reference": "r"}

    def of(*plugins):
        return json.dumps(good | {"bundle": {"plugins": list(plugins)}})

    return {
        "no JSON": "{",
        "no object": "[1]",
        "no type": "{}",
        "a type of no name": '{"type": {}}',
        "bytes": b"\0\1",
        "no bundle": json.dumps({"type": "bundle", "version": "v"}),
        "no version": json.dumps(good | {"version": ""}),
        "an endless version": json.dumps(good | {"version": "v" * 65}),
        "a name that nobody has": of({"name": "../x"}),
        "two of one name": of(named, named),
        "too many": of(*({"name": f"p{n}"} for n in range(1001))),
        "a digest that is a path": of(named | {"artifact": path}),
        "too deep": of(named | {"config": deep}),
        "a hold that ended before": json.dumps(good | {"hold": True, "deadline": -1}),
        "a commit of nothing": json.dumps({"type": "commit"}),
    }


async def test_garbage_is_ignored_and_said_once(sidecar, operator, guests, reported, eventually):
    """What runs goes on, on the same connection; the next good bundle counts."""
    version = operator.send(operator.entry("p", guests.saying("one")))
    sidecar.start()
    reported(running=version)
    for name, message in garbage().items():
        operator.say(message)
        operator.say(message)
        eventually(lambda: "is ignored" in json.dumps(sidecar.problems()), f"a problem: {name}")
        assert await sidecar.says() == "one"
        count = sidecar.log.count("is ignored")
        operator.say(json.dumps({"type": "news", "of": "a later version"}))
        operator.say(operator.current)
        eventually(lambda: sidecar.problems() == [], f"an end of the problem: {name}")
        assert sidecar.log.count("is ignored") == count
    assert sidecar.log.count("is ignored") == len(garbage())
    assert metric(sidecar, "hookline_operator_connections_total") == 1
    version = operator.send(operator.entry("p", guests.saying("two")))
    reported(running=version)
    assert await sidecar.says() == "two"
    assert "Traceback" not in sidecar.log


async def test_a_message_over_the_limit_ends_the_connection(sidecar, operator, guests, reported, eventually):
    """It is not read to its end; what runs goes on, and the next connection is as good as ever."""
    version = operator.send(operator.entry("p", guests.saying("one")))
    sidecar.start()
    reported(running=version)
    operator.say(" " * (MAX_BUNDLE + 1))
    eventually(lambda: "in one message" in sidecar.log, "a word about it")
    assert await sidecar.says() == "one"
    eventually(lambda: metric(sidecar, "hookline_operator_connections_total") == 2, "another connection")
    version = operator.send(operator.entry("p", guests.saying("two")))
    reported(running=version)


def test_a_report_is_never_too_long():
    """However many plugins fail, and whatever their failures say: the sentences are cut."""
    failure = LoadFailure(cause="verify", message="\N{GRINNING FACE}" * 10_000)
    plugins = [PluginReport(name="p" * 253, state="Closed", failure=failure) for _ in range(1000)]
    text = written(Report(plugins=plugins))
    assert len(text.encode()) <= MAX_REPORT
    assert len(Report.model_validate_json(text, extra="forbid").plugins) == 1000
    short = Report(plugins=[PluginReport(name="p", state="Closed", failure=LoadFailure(cause="fetch", message="no"))])
    assert Report.model_validate_json(written(short)) == short
