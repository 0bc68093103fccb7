"""The status speaks of what works, and not only of what is loaded: from a pod's report to ``kubectl get wp``."""

from __future__ import annotations

import asyncio

from hookline_api.distribution import HookHealth, RolledBack
from hookline_api.hooks import Hook


def failing(*, calls=120, bad=46, trouble="FailingCalls", cause="trap"):
    """A hook that is not well."""
    return HookHealth(
        hook=Hook.AUTHENTICATE, trouble=trouble, calls=calls, bad=bad, seconds=30, cause=cause,
        message="the guest reached an unreachable instruction",
    )  # fmt: skip


def events(tenant):
    """Types and reasons of the Events of its plugins, sorted."""
    found = tenant.plane.get("events", f"--namespace={tenant.name}")["items"]
    return sorted((each["type"], each["reason"]) for each in found if each["involvedObject"]["kind"] == "WasmPlugin")


async def test_a_plugin_whose_calls_fail_is_not_ready_until_they_no_longer_do(operator, guarded, tenant, eventually):
    """With the share, the pod and the cause, one Event for each change, and in the operator's metrics."""
    sidecar = await guarded(operator)
    sidecar.health["guard"] = [failing()]
    await sidecar.say()
    await eventually(lambda: tenant.ready("guard") == ("False", "FailingCalls"), "FailingCalls")
    status = tenant.status("guard")
    says = "38 % of 120 calls of authenticate in pod 'a' failed in the last 30 s: trap: the guest reached"
    for kind in ("Ready", "Healthy"):
        assert status["conditions"][kind]["message"].startswith(says)
    assert (status["conditions"]["Healthy"]["status"], status["conditions"]["Stalled"]["status"]) == ("False", "True")
    (failure,) = status["failures"]
    assert (failure["pod"], failure["hook"], failure["cause"]) == ("a", "authenticate", "trap")
    unhealthy = 'hookline_operator_plugins_unhealthy{reason="FailingCalls"}'
    await eventually(lambda: operator.metrics()[unhealthy] == 1, "the metric")
    sidecar.health.clear()
    await sidecar.say()
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    await eventually(lambda: operator.metrics()[unhealthy] == 0, "the metric")
    wanted = [("Normal", "Healthy"), *[("Normal", "Ready")] * 2, ("Normal", "Resolved"), ("Warning", "FailingCalls")]
    await eventually(lambda: events(tenant) == wanted, "the Events")


async def test_figures_that_move_are_not_written_each_second_and_another_trouble_is_at_once(
    new_operator, guarded, tenant, eventually
):
    """A plugin that fails for a week causes no load; and in the end its figures are true."""
    first = "from hookline_operator.lead import publisher; publisher._FIGURES_EVERY_S = 20.0"
    operator = new_operator(f"--namespace={tenant.name}", first=first).start()
    sidecar = await guarded(operator)
    sidecar.health["guard"] = [failing()]
    await sidecar.say()
    await eventually(lambda: tenant.ready("guard") == ("False", "FailingCalls"), "FailingCalls")
    written = 'hookline_operator_api_writes_total{kind="status"}'
    before = operator.metrics()[written]
    for more in range(1, 31):
        sidecar.health["guard"] = [failing(calls=120 + more, cause=("trap", "timeout")[more % 2])]
        await sidecar.say()
        await asyncio.sleep(0.2)
    sidecar.health["guard"] = [failing(calls=500, bad=500)]
    await sidecar.say()
    await eventually(lambda: "100 % of 500" in tenant.status("guard")["conditions"]["Ready"]["message"], "the figures")
    assert operator.metrics()[written] - before <= 3  # one each second would be six and more
    sidecar.health["guard"] = [failing(trouble="Paused")]
    await sidecar.say()
    await eventually(lambda: tenant.ready("guard") == ("False", "Paused"), "Paused")


async def test_a_revision_that_a_pod_went_back_from_is_held_in_the_status_until_the_resource_changes(
    operator, guarded, tenant, module, eventually
):
    """With the pod, the cause and the figures; one Event; and the next version starts anew."""
    sidecar = await guarded(operator)
    before = sidecar.runs()["guard"]
    sidecar.probation = True
    tenant.plugin("guard", tenant.module("two", module("v2")))
    await sidecar.until(lambda: sidecar.runs()["guard"] != before)
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    back = RolledBack(revision=sidecar.runs()["guard"], calls=12, failures=5, cause="trap", message="unreachable")
    sidecar.rolled_back["guard"] = back, before
    await sidecar.say()
    await eventually(lambda: tenant.ready("guard") == ("False", "RolledBack"), "RolledBack")
    status = tenant.status("guard")
    held = status["rolledBack"]
    assert (held["pod"], held["calls"], held["failures"], held["cause"]) == ("a", 12, 5, "trap")
    assert held["revision"] == status["revisions"][0]["revision"]
    assert status["loaded"] == "0/1 (1 older)"
    assert status["conditions"]["Stalled"]["status"] == "True"
    says = (
        f"revision {held['revision']} failed 5 of its first 12 calls in pod 'a' (trap: unreachable); all pods go back "
        "to the version before it, and the rollout is held until the resource changes"
    )
    await eventually(lambda: tenant.status("guard")["conditions"]["Ready"]["message"] == says, "the sentence")
    await sidecar.until(lambda: sidecar.running.bundle.plugins[0].revision == before)
    assert tenant.status("guard")["loaded"] == "0/1 (1 older)"
    await eventually(lambda: operator.metrics()["hookline_operator_plugins_rolled_back"] == 1, "the metric")
    await eventually(lambda: events(tenant).count(("Warning", "RolledBack")) == 1, "one Event")
    tenant.plugin("guard", tenant.module("three", module("v3")))
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    assert "rolledBack" not in tenant.status("guard")
    assert events(tenant).count(("Warning", "RolledBack")) == 1


async def test_a_plugin_that_waits_for_pods_says_whether_that_is_fine(operator, tenant, module, eventually):
    """Unknown, and neither under way nor stalled; True where the resource says that it need not have any."""
    source = tenant.module("one", module("v1"))
    tenant.plugin("guard", source)
    await eventually(lambda: tenant.ready("guard") == ("Unknown", "NoMatchingPods"), "Unknown")
    conditions = tenant.status("guard")["conditions"]
    assert {conditions[each]["status"] for each in ("Reconciling", "Stalled")} == {"False"}
    assert conditions["Programmed"]["status"] == "Unknown"
    tenant.plugin("guard", source, selector={"required": False})
    await eventually(lambda: tenant.ready("guard") == ("True", "NoMatchingPods"), "True")


async def test_a_pod_that_another_plugin_keeps_from_being_ready_names_it(operator, tenant, module, connect, eventually):
    """So that nobody looks for the fault in the one that works."""
    tenant.pod("a", ready=False)
    sidecar = await connect(operator, tenant, "a")
    tenant.plugin("guard", tenant.module("one", module("v1")))
    tenant.plugin("culprit", {"configMap": {"name": "nowhere"}})
    await sidecar.until(lambda: "guard" in sidecar.runs())

    def message():
        return tenant.status("guard")["conditions"].get("Ready", {}).get("message", "")

    await eventually(lambda: message() == "0 of 1 pods run it; pod 'a' waits for plugin 'culprit'", "the culprit")


async def test_kubectl_get_shows_the_reason_and_the_sentence_if_it_is_asked_for_more(operator, guarded, tenant):
    """One word by default, so that a table has its columns."""
    await guarded(operator)
    head, row = tenant.plane.kubectl("get", "wp", f"--namespace={tenant.name}").splitlines()
    assert head.split() == ["NAME", "HOOKS", "DIGEST", "LOADED", "READY", "REASON", "CHECKED", "AGE"]
    assert row.split()[3:6] == ["1/1", "True", "Ready"]
    head, row = tenant.plane.kubectl("get", "wp", f"--namespace={tenant.name}", "--output=wide").splitlines()
    assert head.split()[-3:] == ["MESSAGE", "FAILED-DIGEST", "AGE"]
    assert "1 of 1 pods run it" in row
