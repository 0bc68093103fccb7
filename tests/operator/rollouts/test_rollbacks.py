"""A pod that goes back from a new version takes all others along, and they stay until something else is asked for."""

from __future__ import annotations

import json


async def two_versions(operator, tenant, module, connect, eventually, *, names=("a", "b"), probation=True):
    """Pods that ran version one and run version two, on probation; their sidecars, and both revisions."""
    sidecars = []
    for name in names:
        tenant.pod(name)
        sidecars.append(await connect(operator, tenant, name))
    tenant.plugin("guard", tenant.module("one", module("v1")))
    for sidecar in sidecars:
        await sidecar.until(sidecar.runs)
    one = sidecars[0].runs()["guard"]
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    for sidecar in sidecars:
        sidecar.probation = probation
    tenant.plugin("guard", tenant.module("two", module("v2")))
    for sidecar in sidecars:
        await sidecar.until(lambda sidecar=sidecar: sidecar.runs()["guard"] != one)
    return sidecars, one, sidecars[0].runs()["guard"]


async def test_one_pod_that_goes_back_takes_all_with_it(operator, tenant, module, connect, eventually, new_operator):
    """Also new pods, and also after a restart of the operator; a changed resource ends it."""
    (first, second), one, two = await two_versions(operator, tenant, module, connect, eventually)
    assert len(tenant.revisions()) == 2
    await first.goes_back(two, "it trapped")
    await second.until(lambda: second.runs()["guard"] == one)
    await first.until(lambda: first.bundle_of("guard").revision == one)
    entry = second.bundle_of("guard")
    assert (entry.failure.cause, entry.probation.calls) == ("verify", 0)
    await eventually(lambda: tenant.ready("guard") == ("False", "RolledBack"), "RolledBack")
    status = tenant.status("guard")
    back = status["rolledBack"]
    assert (back["pod"], back["calls"], back["failures"], back["cause"]) == ("a", 12, 5, "trap")
    assert back["generation"] == tenant.get("guard")["metadata"]["generation"]
    assert "it trapped" in status["conditions"]["Ready"]["message"]

    tenant.pod("new")
    new = await connect(operator, tenant, "new")
    await new.until(new.runs)
    assert new.runs()["guard"] == one

    writes = tenant.get("guard")["metadata"]["resourceVersion"]
    operator.stop()
    again = new_operator().start()
    late = await connect(again, tenant, "b")
    await late.until(late.runs)
    assert late.runs()["guard"] == one
    assert tenant.ready("guard") == ("False", "RolledBack")
    assert len(tenant.revisions()) == 2
    tenant.plugin("guard", tenant.module("two", module("v2")))  # the very same
    assert tenant.get("guard")["metadata"]["generation"] == back["generation"]
    assert tenant.ready("guard") == ("False", "RolledBack")
    assert writes

    tenant.plugin("guard", tenant.module("three", module("v3")))
    await late.until(lambda: late.runs()["guard"] not in {one, two})
    await eventually(lambda: "rolledBack" not in tenant.status("guard"), "the end of the hold")


async def test_two_replicas_come_to_the_same(new_operator, tenant, module, connect, eventually):
    """The one that only serves hands out the version before too, from the API alone."""
    leader, follower = new_operator().start(), new_operator().start()
    tenant.pod("a")
    tenant.pod("b")
    first = await connect(leader, tenant, "a")
    second = await connect(follower, tenant, "b")
    tenant.plugin("guard", tenant.module("one", module("v1")))
    for sidecar in (first, second):
        await sidecar.until(sidecar.runs)
    one = first.runs()["guard"]
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    first.probation = second.probation = True
    tenant.plugin("guard", tenant.module("two", module("v2")))
    for sidecar in (first, second):
        await sidecar.until(lambda sidecar=sidecar: sidecar.runs()["guard"] != one)
    await second.goes_back(second.runs()["guard"], "it trapped")
    await first.until(lambda: first.runs()["guard"] == one)
    await eventually(lambda: tenant.ready("guard") == ("False", "RolledBack"), "RolledBack")


async def test_what_has_proven_itself_needs_nothing_before_it(operator, tenant, module, connect, eventually):
    """The revision before is deleted when no connected pod has the new one on probation, and not earlier."""
    (first, second), one, two = await two_versions(operator, tenant, module, connect, eventually)
    first.probation = False
    await first.report()
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    assert len(tenant.revisions()) == 2
    second.probation = False
    await second.report()
    await eventually(lambda: len(tenant.revisions()) == 1, "one revision")
    assert first.runs()["guard"] == second.runs()["guard"] == two != one


async def test_a_third_version_has_the_last_proven_one_before_it(operator, tenant, module, connect, eventually):
    """Two objects are all there ever are."""
    (only,), one, two = await two_versions(operator, tenant, module, connect, eventually, names=("a",))
    tenant.plugin("guard", tenant.module("three", module("v3")))
    await only.until(lambda: only.runs()["guard"] not in {one, two})
    three = only.runs()["guard"]
    digests = {json.loads(each["data"])["artifact"]["reference"] for each in tenant.revisions()}
    assert digests == {"configmap:one/plugin.wasm", "configmap:three/plugin.wasm"}
    await only.goes_back(three, "it trapped")
    await only.until(lambda: only.bundle_of("guard").revision == one)


async def test_the_first_version_has_nothing_to_go_back_to(operator, tenant, module, connect, eventually):
    """What a pod says of it then changes nothing for the others."""
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    tenant.plugin("guard", tenant.module("one", module("v1")))
    await sidecar.until(sidecar.runs)
    one = sidecar.runs()["guard"]
    await sidecar.goes_back(one, "it trapped", to=None)
    await eventually(lambda: "rolledBack" in tenant.status("guard"), "word of it")
    tenant.pod("b")
    other = await connect(operator, tenant, "b")
    await other.until(other.runs)
    assert other.runs()["guard"] == one
