"""A pod that waits for a plugin is told which, why, and what may be chosen; others are told nothing."""

from __future__ import annotations

import pytest

from hookline_api.bundle import LoadFailure
from hookline_api.distribution import PluginReport, Report
from hookline_api.standing import STILL_LOADING
from hookline_operator.cluster.catalogue import Catalogue
from hookline_operator.cluster.pods import Pod
from hookline_operator.lead import pod_events
from hookline_operator.lead.pod_events import waiting_sentence, waits_for
from hookline_operator.metrics import Metrics
from hookline_operator.serve.fleet import Fleet, PodState

CHOICE = "spec.failurePolicy.fetch: Open lets pods start without it"


def events(tenant, reason="WaitsForPlugin"):
    """Pod and message of each Event of that reason."""
    found = tenant.plane.get("events", f"--namespace={tenant.name}")["items"]
    return [(each["involvedObject"]["name"], each["message"]) for each in found if each["reason"] == reason]


def report(name, state="Closed", cause="fetch", message="it is nowhere", revision=None):
    """Of one plugin."""
    failure = LoadFailure(cause=cause, message=message) if cause else None
    return PluginReport(name=name, state=state, revision=revision, failure=failure)


def state(*plugins, ready=False):
    """Of one sidecar."""
    return PodState(uid="u", namespace="shop", name="web", report=Report(ready=ready, plugins=list(plugins)))


async def test_a_new_pod_that_waits_for_a_plugin_is_told_once(operator, tenant, module, connect, eventually):
    """With the choice, which the plugin's own status has too; other plugins are not blamed; nothing once it goes on."""
    tenant.plugin("guard", {"configMap": {"name": "later"}})
    tenant.plugin("fine", tenant.module("one", module()))
    await eventually(lambda: tenant.ready("guard") == ("False", "FetchFailed"), "FetchFailed")
    tenant.pod("new", ready=False)
    waiting = await connect(operator, tenant, "new")
    await eventually(lambda: events(tenant), "an Event")
    ((pod, message),) = events(tenant)
    assert pod == "new"
    assert message.startswith("the sidecar waits for plugin 'guard': it cannot be loaded (fetch): ")
    assert "later" in message
    assert message.endswith(f"; {CHOICE}")
    choice = f"; 1 new pod waits for it; {CHOICE}"
    await eventually(lambda: tenant.status("guard")["conditions"]["Ready"]["message"].endswith(choice), "the choice")
    tenant.plugin("guard", {"configMap": {"name": "later"}}, failurePolicy={"fetch": "Open"})
    await waiting.until(lambda: set(waiting.runs()) == {"fine"} and len(waiting.running.bundle.plugins) == 1)
    tenant.set_ready("new", ready=True)
    await eventually(lambda: "waits" not in tenant.status("guard")["conditions"]["Ready"]["message"], "no choice")
    assert len(events(tenant)) == 1


def test_only_what_has_nothing_to_answer_with_is_waited_for():
    """Not what runs, what is left out, what only observes; and nothing once the sidecar is ready."""
    catalogue = Catalogue()
    for name, hooks in (("observer", ["post_query"]), ("guard", ["pre_query"])):
        spec = {"source": {"configMap": {"name": "m"}}, "hooks": hooks}
        metadata = {"namespace": "shop", "name": name, "uid": name, "generation": 1}
        catalogue.put_plugin({"metadata": metadata, "spec": spec}, gone=False)
    plugins = [
        report("guard"), report("loading", "Updating", None), report("observer"), report("open", "LeftOut"),
        report("older", "LastGood", revision="r"), report("runs", "Running", None, revision="r"),
    ]  # fmt: skip
    assert [each.name for each in waits_for(state(*plugins), catalogue)] == ["guard", "loading"]
    assert waits_for(state(*plugins, ready=True), catalogue) == []


@pytest.mark.parametrize(
    ("blamed", "says"),
    [
        ([report("a")],
         "the sidecar waits for plugin 'a': it cannot be loaded (fetch): it is nowhere; " + CHOICE),
        ([report("a", cause="verify", message="no")],
         "the sidecar waits for plugin 'a': it cannot be loaded (verify): no"),
        ([report("a", "Updating", None), report("b")],
         "the sidecar waits for plugin 'a': it is being loaded; it also waits for 'b'"),
        ([report("a", "Updating", None).model_copy(update={"loading": "compiling"})],
         "the sidecar waits for plugin 'a': it is being compiled"),
        ([report("a").model_copy(update={"failure": STILL_LOADING["fetching"]})],
         "the sidecar waits for plugin 'a': it is being fetched"),
        ([report(each, "Updating", None) for each in "abcdef"],
         "the sidecar waits for plugin 'a': it is being loaded; it also waits for 'b', 'c', 'd' and 2 more"),
    ],
)  # fmt: skip
def test_the_sentence_names_the_first_with_its_reason(blamed, says):
    """And a few of the others."""
    assert waiting_sentence(blamed) == says


async def test_who_was_judged_once_is_not_judged_each_second(monkeypatch):
    """Only its next word is news: thousands of pods may wait for a thousand plugins each, for hours."""
    sent, looks = [], []

    class Api:
        async def request(self, _method, _where, *, body):
            sent.append(body["message"])

    def judged(state, catalogue):
        looks.append(state)
        return waits_for(state, catalogue)

    monkeypatch.setattr(pod_events, "waits_for", judged)
    monkeypatch.setattr(pod_events, "_PATIENCE_S", 0.0)
    catalogue, fleet = Catalogue(), Fleet()
    catalogue.put_pod(("shop", "web"), None, Pod("shop", "web", "u", {}, ready=False, live=True))
    events = pod_events.PodEvents(Api(), catalogue, fleet, None, Metrics(), leads=lambda: True)
    fleet.changed.append(events.sidecar_changed)
    fleet.put(state(report("guard")))
    for _ in range(20):
        await events._tell_waiting(50)
    assert (len(sent), len(looks)) == (1, 2)
    fleet.put(state(report("guard", cause="config")))
    await events._tell_waiting(50)
    assert "cannot be loaded (config)" in sent[1]
    fleet.drop("u")
    assert (events._judged, events._since) == ({}, {})


def test_the_sentence_is_bounded_and_keeps_the_choice():
    """Whatever a registry said."""
    text = waiting_sentence([report("a", message="x" * 5000), *(report("p" * 253) for _ in range(9))])
    assert len(text) <= 1024
    assert CHOICE in text
