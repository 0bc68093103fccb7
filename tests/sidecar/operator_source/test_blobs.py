"""A module is fetched once, in as many pieces as it takes, and runs where it is what was asked for."""

from __future__ import annotations

import os
import signal

import pytest

from hookline_api.config import Config
from operator_reports import states


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
    password = {"name": "db", "key": "password"}
    grants = {"host": "db.test", "database": "d", "user": "u", "passwordFrom": password}
    asks = {"data_sources": [{"name": "grants", "postgres": grants}], "permissions": ["query.execute"]}
    version = operator.send(
        operator.entry("bytes", b"no module at all"),
        operator.entry("exports", module, hooks=["pre_query"]),
        operator.entry("egress", module, egress=[{"host": "api.example.com"}]),
        operator.entry("memory", module, limits={"memory": "64Ki"}),
        operator.entry("secret", module, **asks, credentials={"db/other": "x"}),
        operator.entry("large", module, **asks, credentials={"db/password": "x" * (64 * 1024 + 1)}),
    )
    sidecar.start(wait=False)
    report = reported(running=version, ready=False)
    assert set(states(report).values()) == {"Closed"}
    causes = {plugin.name: plugin.failure.cause for plugin in report.plugins}
    assert causes.pop("bytes") == "verify"
    assert set(causes.values()) == {"config"}
    assert "Traceback" not in sidecar.log
