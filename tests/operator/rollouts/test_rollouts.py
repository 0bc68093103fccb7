"""How a change reaches the pods: prepared by all, switched together, held back by nobody past its deadline."""

from __future__ import annotations

import asyncio

from hookline_api.bundle import LoadFailure
from waiting import PATIENCE_S


async def test_pods_switch_when_all_of_them_are_prepared(operator, tenant, module, connect, eventually):
    """A pod that has prepared goes on with the old version until the other has too."""
    sidecars = []
    for name in ("a", "b"):
        tenant.pod(name)
        sidecars.append(await connect(operator, tenant, name))
    tenant.plugin("guard", tenant.module("one", module("v1")))
    for sidecar in sidecars:
        await sidecar.until(lambda sidecar=sidecar: sidecar.runs())
    before = sidecars[0].runs()
    sidecars[1].stuck = True
    tenant.plugin("guard", tenant.module("two", module("v2")), rollout={"deadline": "1h"})
    await sidecars[0].until(lambda: sidecars[0].held is not None and sidecars[0].held.hold)
    await sidecars[1].until(lambda: sidecars[1].held is not None)
    await asyncio.sleep(1)
    assert sidecars[0].runs() == before
    assert tenant.ready("guard") == ("False", "Progressing")
    sidecars[1].stuck = False
    await sidecars[1].take_held()
    for sidecar in sidecars:
        await sidecar.until(lambda sidecar=sidecar: sidecar.runs() and sidecar.runs() != before)
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")


async def test_one_pod_that_cannot_holds_the_others_back_no_longer_than_the_deadline(
    operator, tenant, module, connect, eventually
):
    """After it they switch, and the status names the one that is behind."""
    sidecars = []
    for name in ("a", "b"):
        tenant.pod(name)
        sidecars.append(await connect(operator, tenant, name))
    tenant.plugin("guard", tenant.module("one", module("v1")), rollout={"deadline": "2s"})
    for sidecar in sidecars:
        await sidecar.until(lambda sidecar=sidecar: sidecar.runs())
    before = sidecars[0].runs()
    sidecars[1].stuck = True
    tenant.plugin("guard", tenant.module("two", module("v2")), rollout={"deadline": "2s"})
    await sidecars[0].until(lambda: sidecars[0].runs() != before)

    def behind():
        return "pod 'b' is loading it" in tenant.status("guard")["conditions"]["Ready"]["message"]

    await eventually(behind, "word of the pod that is behind")
    assert tenant.status("guard")["pods"] == {"matched": 2, "loaded": 1, "updating": 1, "failed": 0, "unguarded": 0}


async def test_a_pod_that_says_it_cannot_is_not_waited_for(operator, tenant, module, connect, eventually):
    """Its failure is in the status, with its name; the others switch at once."""
    broken = set()
    tenant.pod("a")
    tenant.pod("b")
    failure = LoadFailure(cause="verify", message="it does not compile here")
    good = await connect(operator, tenant, "a")
    bad = await connect(operator, tenant, "b", fails=lambda name: failure if name in broken else None)
    tenant.plugin("guard", tenant.module("one", module("v1")), rollout={"deadline": "1h"})
    await good.until(good.runs)
    await bad.until(bad.runs)
    before = good.runs()
    broken.add("guard")
    tenant.plugin("guard", tenant.module("two", module("v2")), rollout={"deadline": "1h"})
    await good.until(lambda: good.runs() != before)
    await eventually(lambda: tenant.ready("guard") == ("False", "PodsFailed"), "PodsFailed")
    status = tenant.status("guard")
    assert status["failures"][0]["pod"] == "b"
    assert "pod 'b' cannot load it: it does not compile here" in status["conditions"]["Ready"]["message"]
    assert status["conditions"]["Stalled"]["status"] == "True"


async def test_a_pod_that_has_nothing_yet_is_not_made_to_wait(operator, tenant, module, connect, eventually):
    """The first bundle is not held: there is nothing to go on with."""
    tenant.plugin("guard", tenant.module("one", module("v1")))
    await eventually(lambda: tenant.ready("guard") == ("Unknown", "NoMatchingPods"), "a plugin that is resolved")
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    await sidecar.until(sidecar.runs)
    assert not sidecar.running.hold


async def test_labels_decide_and_may_change(operator, tenant, module, connect, eventually):
    """A pod that comes to match gets the plugin, one that no longer does loses it."""
    tenant.pod("a", labels={"app": "red"})
    sidecar = await connect(operator, tenant, "a")
    selector = {"matchExpressions": [{"key": "app", "operator": "In", "values": ["green", "blue"]}]}
    tenant.plugin("guard", tenant.module("one", module("v1")), selector=selector)
    await eventually(lambda: tenant.ready("guard") == ("Unknown", "NoMatchingPods"), "word of no pods")
    assert sidecar.runs() == {}
    tenant.plane.kubectl("label", "pod", "a", "app=green", "--overwrite", f"--namespace={tenant.name}")
    await sidecar.until(sidecar.runs)
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    tenant.plane.kubectl("label", "pod", "a", "app=red", "--overwrite", f"--namespace={tenant.name}")
    await sidecar.until(lambda: not sidecar.runs())
    await eventually(lambda: tenant.ready("guard") == ("Unknown", "NoMatchingPods"), "word of no pods")


async def test_pods_that_come_and_go_are_counted(operator, tenant, module, connect, eventually):
    """One, three, one; and a pod that is not ready is not loaded."""
    tenant.plugin("guard", tenant.module("one", module("v1")))
    names = ["a", "b", "c"]
    for name in names:
        tenant.pod(name)
        sidecar = await connect(operator, tenant, name)
        await sidecar.until(lambda sidecar=sidecar: sidecar.runs())
    await eventually(lambda: tenant.status("guard").get("loaded") == "3/3", "3/3")
    tenant.set_ready("c", ready=False)
    await eventually(lambda: tenant.status("guard").get("loaded") == "2/3", "2/3")
    assert "pod 'c' runs it and is not ready" in tenant.status("guard")["conditions"]["Ready"]["message"]
    for name in ("b", "c"):
        tenant.plane.kubectl("delete", "pod", name, f"--namespace={tenant.name}", "--grace-period=0", "--force")
    await eventually(lambda: tenant.status("guard").get("loaded") == "1/1", "1/1")


async def test_a_deleted_plugin_leaves_its_pods_and_nothing_behind(operator, tenant, module, connect, eventually):
    """No finalizer, no revision that stays."""
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    tenant.plugin("guard", tenant.module("one", module("v1")))
    await sidecar.until(sidecar.runs)
    tenant.plane.kubectl("delete", "wasmplugin", "guard", f"--namespace={tenant.name}", f"--timeout={PATIENCE_S:.0f}s")
    await sidecar.until(lambda: not sidecar.runs())

    def revisions():
        return tenant.plane.get("wasmpluginrevisions", f"--namespace={tenant.name}")["items"]

    await eventually(lambda: not revisions(), "end of its revisions")


async def test_a_sidecar_that_connects_again_gets_what_it_missed(operator, tenant, module, connect):
    """And the older connection of the same pod is let go."""
    tenant.pod("a")
    first = await connect(operator, tenant, "a")
    tenant.plugin("guard", tenant.module("one", module("v1")))
    await first.until(first.runs)
    second = await connect(operator, tenant, "a")
    await second.until(lambda: second.runs() == first.runs())
    await asyncio.wait_for(asyncio.shield(first.task), PATIENCE_S)
    assert not first.connected.is_set()
    assert second.connected.is_set()


async def test_what_is_taken_away_does_not_wait_for_another_plugins_rollout(
    operator, tenant, module, connect, eventually
):
    """One plugin's new version is held back by a slow pod for an hour; another, harmful, goes at once."""
    sidecars = []
    for name in ("a", "b"):
        tenant.pod(name)
        sidecars.append(await connect(operator, tenant, name))
    tenant.plugin("guard", tenant.module("one", module("v1")))
    tenant.plugin("harmful", tenant.module("other", module("other")))
    for sidecar in sidecars:
        await sidecar.until(lambda sidecar=sidecar: set(sidecar.runs()) == {"guard", "harmful"})
    await eventually(lambda: tenant.ready("harmful") == ("True", "Ready"), "Ready")
    first, slow = sidecars
    guard = first.runs()["guard"]
    slow.stuck = True
    tenant.plugin("guard", tenant.module("two", module("v2")), rollout={"deadline": "1h"})
    await first.until(lambda: first.held is not None and first.held.hold)
    tenant.plane.kubectl("delete", "wasmplugin", "harmful", f"--namespace={tenant.name}")
    await first.until(lambda: first.runs() == {"guard": guard})
    await first.until(lambda: first.held is not None and first.held.hold)
    slow.stuck = False
    await slow.take_held()
    for sidecar in sidecars:
        await sidecar.until(lambda sidecar=sidecar: sidecar.runs() and sidecar.runs().get("guard") not in {guard, None})
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
