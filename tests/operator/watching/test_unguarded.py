"""Pods that should have a sidecar and have none are counted, named and told, and no other pod is."""

from __future__ import annotations

import pytest

ASKS = {"hookline.dev/inject": "true"}
DECLINES = {"hookline.dev/inject": "false"}
PROXY = {"matchLabels": {"app": "proxy"}}
BY_HAND = "this operator injects nothing: write the sidecar into the pod, as docs/operate/injection.md has it"
"""Why, at the operators of these tests, which have no webhooks."""


@pytest.fixture
def bare(tenant):
    """Makes pods without a sidecar."""

    def make(name, labels=None, *, phase="Running", namespace=None, **spec):
        body = {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels or {}},
            "spec": {"containers": [{"name": "proxy", "image": "proxy"}], **spec},
        }  # fmt: skip
        tenant.plane.apply(body, namespace=namespace or tenant.name)
        tenant.plane.kubectl("patch", "pod", name, f"--namespace={namespace or tenant.name}", "--subresource=status",
                             "--type=merge", "-p", f'{{"status":{{"phase":"{phase}"}}}}')  # fmt: skip

    return make


def unguarded(tenant, name):
    """How many pods the status of a plugin counts."""
    return tenant.status(name).get("pods", {}).get("unguarded", 0)


def told(tenant, reason="Unguarded"):
    """The messages of a reason's Events, by pod."""
    events = tenant.plane.get("events", f"--namespace={tenant.name}")["items"]
    found = [(each["involvedObject"]["name"], each["message"]) for each in events
             if each["reason"] == reason and each["involvedObject"]["kind"] == "Pod"]  # fmt: skip
    assert len({name for name, _ in found}) == len(found), "one for each pod"
    return dict(found)


async def test_a_pod_that_a_selector_means_and_that_has_no_sidecar_counts(operator, tenant, module, bare, eventually):
    """In a namespace that asks for nothing: named, with what to do, and told on the pod; gone with the pod."""
    bare("web", {"app": "proxy"})
    bare("other", {"app": "other"})
    tenant.plugin("guard", tenant.module("one", module()), selector=PROXY)
    await eventually(lambda: unguarded(tenant, "guard") == 1, "one unguarded pod")
    await eventually(lambda: told(tenant), "an Event")
    assert told(tenant)["web"] == f"this pod has no sidecar, so no plugin guards it: {BY_HAND}"
    ready = tenant.status("guard")["conditions"]["Ready"]
    assert (ready["status"], ready["reason"]) == ("False", "Unguarded")
    assert f"pod 'web': {BY_HAND}" in ready["message"]
    assert [*told(tenant)] == ["web"]
    assert operator.metrics()["hookline_operator_unguarded_pods"] == 1
    tenant.plane.kubectl("delete", "pod", "web", f"--namespace={tenant.name}", "--force", "--grace-period=0")
    await eventually(lambda: unguarded(tenant, "guard") == 0, "none")
    await eventually(lambda: operator.metrics()["hookline_operator_unguarded_pods"] == 0, "none")


async def test_pods_older_than_their_namespaces_label_count_for_every_plugin(
    operator, tenant, module, bare, eventually
):
    """A plugin without a selector means the pods that ask, and these ask from now on."""
    bare("web")
    bare("batch", DECLINES)
    tenant.pod("guarded")
    tenant.plugin("guard", tenant.module("one", module()))
    await eventually(lambda: tenant.ready("guard"), "a status")
    assert unguarded(tenant, "guard") == 0
    tenant.plane.kubectl("label", "namespace", tenant.name, "hookline.dev/inject=true")
    await eventually(lambda: unguarded(tenant, "guard") == 1, "one unguarded pod")
    await eventually(lambda: "web" in told(tenant), "an Event")
    tenant.plane.kubectl("label", "namespace", tenant.name, "hookline.dev/inject-")
    await eventually(lambda: unguarded(tenant, "guard") == 0, "none")


async def test_what_declines_has_ended_goes_or_is_on_its_nodes_network_does_not_count(
    operator, tenant, module, bare, eventually
):
    """Nor what has a sidecar; and a selector that only leaves pods out says nothing of what they are to have."""
    labels = {"app": "proxy"}
    bare("declines", labels | DECLINES)
    bare("done", labels, phase="Succeeded")
    bare("broken", labels, phase="Failed")
    bare("node", labels, hostNetwork=True)
    tenant.pod("guarded", labels=labels)
    bare("free", {"tier": "batch"})
    tenant.plugin("guard", tenant.module("one", module()), selector=PROXY)
    tenant.plugin("most", tenant.module("two", module()), selector={
        "matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["none"]}]
    })  # fmt: skip
    bare("last", labels | ASKS)
    await eventually(lambda: unguarded(tenant, "guard") == 1, "the last one")
    await eventually(lambda: unguarded(tenant, "most") == 1, "the last one, which asks")
    await eventually(lambda: told(tenant), "an Event")
    assert [*told(tenant)] == ["last"]
    tenant.plane.kubectl("patch", "pod", "last", f"--namespace={tenant.name}", "--subresource=status", "--type=merge",
                         "-p", '{"status":{"phase":"Succeeded"}}')  # fmt: skip
    await eventually(lambda: unguarded(tenant, "guard") == 0, "none")


async def test_a_selector_that_looks_at_another_label_finds_pods_that_were_there_before(
    operator, tenant, module, bare, eventually
):
    """Their labels were not kept, since nobody looked at them."""
    bare("web", {"app": "proxy", "tier": "front"})
    source = tenant.module("one", module())
    tenant.plugin("guard", source, selector={"matchLabels": {"role": "proxy"}})
    await eventually(lambda: tenant.ready("guard"), "a status")
    assert unguarded(tenant, "guard") == 0
    tenant.plugin("guard", source, selector={"matchLabels": {"tier": "front"}})
    await eventually(lambda: unguarded(tenant, "guard") == 1, "the pod")
    expressions = [{"key": "app", "operator": "NotIn", "values": ["proxy"]}]
    tenant.plugin("guard", source, selector={"matchLabels": {"tier": "front"}, "matchExpressions": expressions})
    await eventually(lambda: unguarded(tenant, "guard") == 0, "none")
    tenant.plane.kubectl("label", "pod", "web", f"--namespace={tenant.name}", "app-")
    await eventually(lambda: unguarded(tenant, "guard") == 0, "none")
    tenant.plane.kubectl("label", "pod", "web", f"--namespace={tenant.name}", "app=other")
    await eventually(lambda: unguarded(tenant, "guard") == 1, "the pod")


async def test_the_operators_own_namespace_and_the_clusters_do_not_count(
    operator, home, tenant, module, bare, eventually
):
    """They start without sidecars, whatever their labels say."""
    bare("own", ASKS, namespace=home)
    bare("web", ASKS)
    await eventually(lambda: operator.metrics()["hookline_operator_unguarded_pods"] == 1, "the tenant's alone")
    events = tenant.plane.get("events", f"--namespace={home}")["items"]
    assert [each for each in events if each["reason"] == "Unguarded"] == []


async def test_an_operator_of_some_namespaces_does_without_their_labels(new_operator, tenant, module, bare, eventually):
    """It has no right to them. What the pods and the selectors say counts, and the sentence says what is not known."""
    tenant.plane.kubectl("label", "namespace", tenant.name, "hookline.dev/inject=true")
    operator = new_operator(f"--namespace={tenant.name}", "--webhooks=").start()
    bare("plain")
    bare("web", {"app": "proxy"})
    tenant.plugin("guard", tenant.module("one", module()), selector=PROXY)
    await eventually(lambda: unguarded(tenant, "guard") == 1, "one unguarded pod")
    await eventually(lambda: told(tenant), "an Event")
    assert [*told(tenant)] == ["web"]
    assert "forbidden" not in operator.log.read_text()
