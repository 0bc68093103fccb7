"""From ``kubectl apply`` to a status that is true: the operator, a real API server, simulated sidecars."""

from __future__ import annotations


async def test_an_applied_plugin_reaches_its_pods_and_its_status_says_so(
    operator, tenant, module, registry, connect, eventually
):
    """Resolved, handed to the pod that matches and to no other, and Ready when the pod runs it."""
    tenant.pod("web", labels={"app": "web"})
    tenant.pod("other", labels={"app": "other"})
    web = await connect(operator, tenant, "web")
    other = await connect(operator, tenant, "other")
    digest = registry.push("guard:v1", module("v1"))
    reference = f"{registry.host}/guard:v1"
    tenant.plugin(
        "guard", {"oci": {"reference": reference, "insecure": True}}, selector={"matchLabels": {"app": "web"}}
    )
    await web.until(lambda: "guard" in web.runs())
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    status = tenant.status("guard")
    assert status["artifact"]["digest"] == digest
    assert status["artifact"]["hooks"] == ["authenticate"]
    assert status["pods"] == {"matched": 1, "loaded": 1, "updating": 0, "failed": 0, "unguarded": 0}
    assert {kind: each["status"] for kind, each in status["conditions"].items()} == {
        "Ready": "True", "Healthy": "True", "Resolved": "True", "Verified": "True", "PermissionsGranted": "True",
        "Programmed": "True", "Reconciling": "False", "Stalled": "False", "Observed": "True",
    }  # fmt: skip
    assert other.runs() == {}
    assert not tenant.get("guard")["metadata"].get("finalizers")
