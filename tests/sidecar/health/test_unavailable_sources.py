"""What a plugin asks and does not reach: from its worker into the report and the metrics, bounded, without secrets."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hookline_api.bundle import Bundle, BundleArtifact, BundlePlugin
from hookline_api.sources import MAX_UNAVAILABLE
from hookline_runtime.host.context import HostContext
from hookline_runtime.host.functions import PluginHost
from hookline_runtime.plugin.stats import StatsTable
from hookline_serving.bounds import REASONS as _REASONS
from hookline_sidecar.control.admin.describe import describe
from hookline_sidecar.control.admin.metrics import Counters, exposition
from hookline_sidecar.control.report import report, written
from hookline_sidecar.control.rows import Rows
from hookline_sidecar.control.view import SourceView, View, WantedPlugin, WorkersView
from hookline_sidecar.hooks.worker import unavailable
from hookline_sidecar.messages import TO_SUPERVISOR, PluginFacts, Report, encode

ARTIFACT = BundleArtifact(digest="sha256:0", sha256="0" * 64, size=1, layout="file", reference="r")
ENTRY = BundlePlugin.model_validate({
    "name": "p", "artifact": ARTIFACT, "hooks": ["route"], "permissions": ["query.execute", "http.fetch"],
    "dataSources": [{"name": "grants", "postgres": {
        "host": "db.test", "database": "d", "user": "u", "passwordFrom": {"name": "s", "key": "password"}}}],
    "caches": [{"name": "hot", "valkey": {"url": "redis://h"}}, {"name": "near", "memory": {}}],
    "egress": [{"host": "API.test"}, {"host": "c.test"}, {"host": "*.b.test"}],
    "kv": {"scope": "Cluster", "valkey": {"url": "redis://h"}}, "credentials": {"s/password": "hunter2"},
})  # fmt: skip
GRANTS = "data source 'grants'"


def facts(away, revision=ENTRY.revision):
    """What a worker says of the plugin."""
    return {"p": PluginFacts(
        revision=revision, inline=True, paused={}, last_failure=None, last_fault=None, last_failures={}, denied={},
        refused={}, metrics={}, unavailable=away,
    )}  # fmt: skip


def view(*workers):
    """A sidecar whose workers say this."""
    state = SimpleNamespace(load_numbers=lambda: {"p": 0})
    return View(
        draining=False, bundle=Bundle.of([ENTRY]), changes=0, running="v1", prepared=None,
        plugins=(WantedPlugin(name="p", file=None, resolved=None, failure=None, rolled_back=None),),
        source=SourceView(description={}, problems=(), link=None, waiting_for=""),
        workers=WorkersView(size=1, current=1, connections=1, facts=workers), health={}, on_probation=frozenset(),
        rows=Rows(state, [StatsTable()]),
    )  # fmt: skip


@pytest.fixture
def told():
    """What a worker says of a plugin whose host functions do not reach these, as the supervisor reads it."""

    def make(away):
        host = PluginHost(ENTRY, HostContext())
        host.unavailable.update(away)
        sent = encode(Report(plugins=facts(unavailable(host))))
        return TO_SUPERVISOR.decode(sent).plugins["p"].unavailable

    return make


def test_what_is_away_is_told_without_values_of_secrets_and_on_one_line(told):
    """A server's own words may hold anything."""
    assert told({GRANTS: "password 'hunter2'\nwas refused"}) == {GRANTS: "password '<redacted>'\\nwas refused"}


def test_a_host_that_a_guest_chose_is_not_told_where_it_has_secrets(told):
    """Behind a rule's ``*`` it could say anything: what it has read, and nobody but its pods may know."""
    found = told({"egress host 'hunter3.b.test'": "hunter3.b.test is not there", "egress host 'api.test'": "late"})
    assert found == {
        "egress": "a host that a rule with a * allows does not answer", "egress host 'api.test'": "late",
    }  # fmt: skip


def test_what_is_told_is_bounded_in_number_and_length(told):
    """The first by name; an operator takes no more than this."""
    found = told({f"{each:03}" + "s" * 1000: "é" * 10_000 for each in range(100)})
    assert len(found) == MAX_UNAVAILABLE
    assert next(iter(found)).startswith("000")
    assert all(len(source) <= 128 and len(message) <= 256 for source, message in found.items())
    (plugin,) = report(view(facts(found))).plugins
    assert describe(view(facts(found)), is_folder=False)["plugins"][0]["unavailable"] == found
    assert len(plugin.unavailable) == MAX_UNAVAILABLE


def test_a_report_tells_what_any_worker_does_not_reach():
    """Of the version that runs, each source once; what an older version did not reach says nothing of this one."""
    found = view(facts({GRANTS: "refused"}), facts({GRANTS: "late", "kv": "away"}), facts({"old": "x"}, revision="0"))
    sent = json.loads(written(report(found)))
    assert sent["plugins"][0]["unavailable"] == [
        {"source": GRANTS, "message": "refused"}, {"source": "kv", "message": "away"},
    ]  # fmt: skip
    assert "unavailable" not in json.loads(written(report(view(facts({})))))["plugins"][0]


def test_each_source_of_a_plugin_has_a_gauge():
    """1 until it is asked in vain; of egress those hosts that the resource names, and none that a guest makes up."""
    counters = Counters(
        board=SimpleNamespace(connections=lambda _: 0, unclear=lambda: 0, closed=lambda: dict.fromkeys(_REASONS, 0)),
        closed={}, access=SimpleNamespace(refused={}), keys=SimpleNamespace(requests={}),
    )  # fmt: skip
    away = {GRANTS: "refused", "egress host 'api.test'": "late", "egress host 'hunter2.b.test'": "late"}
    text = exposition(view(facts(away)), counters, guests=False).decode()
    families = {each.name: each for each in text_string_to_metric_families(text)}
    found = {
        (sample.labels["plugin"], sample.labels["source"]): sample.value
        for sample in families["hookline_source_available"].samples
    }
    assert found == {
        ("p", GRANTS): 0, ("p", "cache 'hot'"): 1, ("p", "kv"): 1, ("p", "egress host 'api.test'"): 0,
        ("p", "egress host 'c.test'"): 1,
    }  # fmt: skip
