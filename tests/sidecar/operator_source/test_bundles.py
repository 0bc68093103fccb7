"""A bundle of the operator runs and is reported; the next one replaces it."""

from __future__ import annotations

import json
import stat

from operator_reports import metric, states

SECRET = "a-value-of-a-secret"


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
