"""Thousands of plugins under many policies: what is asked about them costs a bounded time, and others have theirs."""

from __future__ import annotations

import asyncio
import threading

import pytest

from hookline_api.policies import PluginTrustPolicySpec
from hookline_api.resources import WasmPlugin
from hookline_operator.cluster.catalogue import Catalogue
from hookline_operator.cluster.kube import KubeError
from hookline_operator.cluster.policies import KnownPolicy, Policies
from hookline_operator.cluster.revisions import Revision, Seal, Template, body_of
from hookline_operator.cluster.sight import Sights
from hookline_operator.lead.policy_status import PolicyStatuses
from hookline_operator.metrics import Metrics
from hookline_operator.webhooks.dry_run import DryRun, PolicyReview
from hookline_operator.webhooks.gate import Change, Gate
from signing import SigningKey
from waiting import PATIENCE_S, until_true

PLUGINS = 5_000
STARS = "*/" + "*a" * 200 + "*b"
"""As long as a pattern may be, nearly."""


def plugin(number, *, reference="registry.example/team/plugin:1", **spec):
    """One as the API server has it."""
    metadata = {"namespace": f"team-{number % 50}", "name": f"guard-{number:05}", "uid": str(number), "generation": 1}
    return {"metadata": metadata, "spec": {"source": {"oci": {"reference": reference}}, **spec}}


def document(name, **spec):
    """A policy as the API server has it."""
    return {"metadata": {"name": name, "uid": name, "generation": 1}, "spec": spec}


class Api:
    """Takes statuses."""

    def __init__(self):
        self.applied = {}
        self.writes = 0
        self.events = []
        self.refuses = []
        """Errors, one for each write that is not taken."""

    async def apply(self, where, body):
        """As ``Kube.apply``."""
        await asyncio.sleep(0)
        self.writes += 1
        if self.refuses:
            raise self.refuses.pop()
        self.applied[body["metadata"]["name"]] = body["status"]
        return body

    async def request(self, method, where, *, body):
        """An Event."""
        await asyncio.sleep(0)
        assert (method, where) == ("POST", "/api/v1/namespaces/default/events")
        self.events.append((body["type"], body["reason"]))
        return {}


@pytest.fixture
def catalogue():
    """Full of plugins, of which each tenth asks for a permission."""
    made = Catalogue()
    for number in range(PLUGINS):
        made.put_plugin(plugin(number, permissions=["kv.read"] if number % 10 == 0 else []), gone=False)
    return made


@pytest.fixture
async def policies():
    """Those of a cluster; ``put`` adds one, as the watch would."""
    made = Policies(None, Sights(), own_namespace="hookline-system")
    reflector = made.reflectors[0]

    async def put(*documents):
        for found in documents:
            known = KnownPolicy.of(found)
            reflector.items["", known.name] = known
            made._policy_changed(("", known.name), None, known)
        for each in made.reflectors:
            each.synced.set()
        await made.first_sync()

    made.put = put
    return made


def review(seconds=30.0, **spec):
    """A dry run of a policy."""
    read = PluginTrustPolicySpec.model_validate(spec, by_alias=True, by_name=False)
    return PolicyReview("new", read, None, dry_run=True, seconds=seconds)


async def test_a_dry_run_over_thousands_of_plugins_names_five(catalogue, policies, monkeypatch):
    """And lets the event loop go on meanwhile."""
    monkeypatch.setattr("hookline_operator.webhooks.dry_run._MOST_S", PATIENCE_S)
    turns = 0

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.001)

    beside = asyncio.create_task(others())
    told = await DryRun(catalogue, policies)(review(seconds=2 * PATIENCE_S, permissions=[]))
    beside.cancel()
    assert told[0] == "would refuse 500 of 5000 plugins that it selects"
    assert len([each for each in told if each.startswith("would refuse team-")]) == 5
    assert turns > 10


async def test_a_dry_run_that_takes_too_long_says_what_it_left_out(catalogue, policies, monkeypatch):
    """Patterns that fit nearly, as many and as long as there may be."""
    monkeypatch.setattr("hookline_operator.webhooks.dry_run._MOST_S", 0.5)
    for number in range(PLUGINS):
        catalogue.put_plugin(plugin(number, reference="registry.example/" + "a" * 250), gone=False)
    told = await DryRun(catalogue, policies)(review(repositories=[STARS] * 64))
    assert any(each.endswith(("could not be judged in time", "found out in time")) for each in told)


async def test_a_dry_run_for_which_nobody_waits_any_more_ends(catalogue, policies):
    """Many at a time, with no time left: each says so."""
    run = DryRun(catalogue, policies)
    told = await asyncio.gather(*(run(review(seconds=0.0, permissions=[])) for _ in range(20)))
    assert {each[-1] for each in told} <= {
        "what it would do to the plugins of this cluster could not be found out in time",
        f"{PLUGINS} plugins could not be judged in time",
    }


async def test_statuses_of_twenty_policies_over_thousands_of_plugins_are_written_once(catalogue, policies):
    """One write for each, and none for what does not change it."""
    await policies.put(*(document(f"p{number:02}", permissions=[], mode="Audit") for number in range(20)))
    api = Api()
    statuses = PolicyStatuses(api, catalogue, policies, Metrics(), leads=lambda: True)
    running = asyncio.create_task(statuses.run())
    try:
        await until_true(lambda: asyncio.sleep(0, len(api.applied) == 20), lambda: f"{len(api.applied)} statuses")
        assert {(each["matched"], each["wouldRefuse"]) for each in api.applied.values()} == {(5000, 500)}
        assert all(len(each["refusals"]) == 10 for each in api.applied.values())
        assert api.writes == 20
        for name, status in api.applied.items():  # the watch brings them back
            found = document(name, permissions=[], mode="Audit") | {"status": status}
            policies.reflectors[0].items["", name] = KnownPolicy.of(found)
        catalogue.plugin_changed.append(statuses.plugin_changed)
        catalogue.tell_all()
        catalogue.put_plugin(plugin(0, permissions=[]), gone=False)
        await until_true(
            lambda: asyncio.sleep(0, {each["wouldRefuse"] for each in api.applied.values()} == {499}), "one less"
        )
        assert api.writes == 40
        assert [each.refused for each in statuses.counts()] == [499] * 20
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_others_have_their_turn_while_thousands_are_judged(catalogue, policies, monkeypatch):
    """After so long, however long one takes: it may have half a megabyte of signatures."""
    monkeypatch.setattr("hookline_operator.lead.policy_status._TURN_S", 0.0)
    await policies.put(document("strict", references="Digest"))
    statuses = PolicyStatuses(Api(), catalogue, policies, Metrics(), leads=lambda: True)
    turns = 0

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    statuses._dirty = {each.key: None for each in catalogue.all_plugins()}
    beside = asyncio.create_task(others())
    await statuses._judge()
    beside.cancel()
    assert turns >= PLUGINS


async def test_a_policy_that_is_not_understood_says_so_once_the_api_server_takes_it(policies, monkeypatch):
    """It forbids all; a write that is refused is tried again later, and one Event tells it."""
    monkeypatch.setattr("hookline_operator.lead.policy_status._FIRST_S", 0.01)
    catalogue = Catalogue()
    for number in range(3):
        catalogue.put_plugin(plugin(number), gone=False)
    await policies.put(document("newer", someday=1))
    api = Api()
    api.refuses = [KubeError(500, "not now"), KubeError(403, "no right")]
    statuses = PolicyStatuses(api, catalogue, policies, Metrics(), leads=lambda: True)
    running = asyncio.create_task(statuses.run())
    try:
        await until_true(lambda: asyncio.sleep(0, api.events != []), lambda: f"an Event: {api.applied}")
        status = api.applied["newer"]
        (condition,) = status["conditions"]
        assert (condition["status"], condition["reason"]) == ("False", "NotUnderstood")
        assert "someday: there is no such field" in condition["message"]
        assert (status["matched"], status["refused"], len(status["refusals"])) == (3, 3, 3)
        assert api.events == [("Warning", "NotUnderstood")]
        assert api.writes == 3
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_who_leads_no_more_writes_nothing(catalogue, policies):
    """Nor does it count for the metrics: another replica does."""
    await policies.put(document("strict", references="Digest"))
    api = Api()
    statuses = PolicyStatuses(api, catalogue, policies, Metrics(), leads=lambda: False)
    running = asyncio.create_task(statuses.run())
    try:
        await until_true(lambda: asyncio.sleep(0, statuses._pages != {}), "a look at the policy")
        assert (api.writes, statuses.counts()) == (0, [])
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def applied(name="guard", **labels):
    """A plugin that is applied."""
    return WasmPlugin.model_validate({
        "metadata": {"name": name, "labels": labels}, "spec": {"source": {"oci": {"reference": "r.example/p:1"}}},
    })  # fmt: skip


async def test_evidence_that_is_kept_is_not_verified_on_the_event_loop(policies, monkeypatch):
    """A key that is rotated has it verified anew for all plugins: milliseconds for each, and calls go on meanwhile."""
    threads = []

    def proves(policy, evidence, asked, artifact):
        del policy, asked, artifact
        threads.append(threading.current_thread())
        return evidence == "signed"

    monkeypatch.setattr("hookline_operator.cluster.rulings.proves", proves)
    catalogue, api = Catalogue(), Api()
    found = plugin(1)
    catalogue.put_plugin(found, gone=False)
    artifact = {"digest": "sha256:" + "0" * 64, "sha256": "0" * 64, "size": 3, "layout": "raw", "reference": "r/a:v1"}
    template = Template(
        plugin="guard-00001", spec=found["spec"], artifact=artifact, hooks=[], imports=[], inputs={}, evidence="signed"
    )
    body = body_of(
        namespace="team-1", plugin="guard-00001", uid="1", number=1, template=template.text().encode(), seal=Seal()
    )  # fmt: skip
    catalogue.put_revision(("team-1", "guard"), None, Revision.of(body, Seal()))
    key = {"pem": SigningKey().pem}
    await policies.put(document("signed", signatures={"anyOf": [{"key": key}]}))
    statuses = PolicyStatuses(api, catalogue, policies, Metrics(), leads=lambda: True)
    running = asyncio.create_task(statuses.run())
    try:
        await until_true(lambda: asyncio.sleep(0, bool(api.applied)), "a status")
    finally:
        running.cancel()
    assert api.applied["signed"]["matched"] == 1
    assert threads
    assert threading.main_thread() not in threads


async def test_a_policy_that_is_not_understood_keeps_nobody_from_applying(policies):
    """Nothing in the plugin can be mended for that; the operator runs none of them, and says why."""
    await policies.put(document("newer", someday=1), document("audit", someday=1, mode="Audit"))
    said = await Gate(policies)(Change(applied(), "shop", None, is_new=True))
    assert said.problems == []
    assert [each.partition(": this version")[0] for each in said.warnings] == [
        "PluginTrustPolicy 'audit' (Audit) would refuse it for now", "PluginTrustPolicy 'newer' forbids it for now",
    ]  # fmt: skip


async def test_only_policies_that_a_new_label_brings_are_asked(policies):
    """What forbade the plugin before does not stand in the way of a label."""
    chosen = {"pluginSelector": {"matchLabels": {"trust": "strict"}}}
    await policies.put(document("all", references="Digest"), document("chosen", references="Digest", **chosen))
    gate = Gate(policies)
    found = await gate(Change(applied(a="b"), "shop", {}, is_new=False))
    assert (found.problems, found.warnings) == ([], [])
    found = await gate(Change(applied(trust="strict"), "shop", {}, is_new=False))
    assert [each.partition(" forbids")[0] for each in found.problems] == ["PluginTrustPolicy 'chosen'"]
    found = await gate(Change(applied(), "shop", {"trust": "strict"}, is_new=False))
    assert (found.problems, found.warnings) == (
        [], ["metadata.labels: PluginTrustPolicy 'chosen' does not apply to this plugin any more"],
    )  # fmt: skip
    found = await gate(Change(applied(), "shop", {"trust": "strict"}, is_new=True))
    assert len(found.problems) == len(found.warnings) == 1


async def test_reviews_of_made_up_plugins_are_not_remembered(policies):
    """Anybody may ask, with any name and labels: what is kept for plugins that there are does not grow."""
    await policies.put(document("strict", references="Digest"))
    gate = Gate(policies)
    for number in range(200):
        said = await gate(Change(applied(f"p{number}", a="b" * number), "shop", None, is_new=True))
        assert said.problems == [
            "PluginTrustPolicy 'strict' forbids it: spec.source.oci.reference: must have a digest (@sha256:…)"
        ]
    assert policies._applying == {}
