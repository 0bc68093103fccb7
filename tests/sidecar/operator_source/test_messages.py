"""Messages that are malformed or too long change nothing, and a report always fits."""

from __future__ import annotations

import json

from hookline_api.bundle import LoadFailure
from hookline_api.distribution import MAX_BUNDLE, MAX_REPORT, PluginReport, Report
from hookline_sidecar.control.report import written
from operator_reports import metric


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
