"""Policies that come, change and go while plugins run: what they forbid runs nowhere, and nothing else is touched."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from local_registry import LocalRegistry

from .conftest import wants


async def ready(tenant, eventually):
    """The plugin is Ready."""
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")


async def test_a_new_policy_takes_out_what_it_forbids_and_touches_nothing_else(
    operator, tenant, module, connect, eventually, policies, keys, push, told, table
):
    """Not even as the last good version; the plugin that is well signed never stops. Without the policy it is back."""
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    tenant.plugin("guard", push("v1", module("v1")))
    tenant.plugin("signed", push("v2", module("v2"), keys[0]))
    await sidecar.until(lambda: len(sidecar.runs()) == 2)
    before, placeholders = sidecar.runs(), len(sidecar.placeholders)
    await eventually(lambda: tenant.ready("signed") == ("True", "Ready"), "Ready")
    name = policies.apply("signed", signatures=wants(keys[0]))
    await sidecar.until(lambda: "guard" not in sidecar.runs())
    await eventually(lambda: tenant.ready("guard") == ("False", "SignatureFailed"), "SignatureFailed")
    assert sidecar.may_go_on == set(), "a sidecar would run it still"
    taken_out = sidecar.placeholders[placeholders:]
    assert {each for each, _ in taken_out} == {"guard"}
    assert name in taken_out[-1][1]
    assert name in table()
    await eventually(lambda: "key 0" in told("Verified", "signed")[2], "who has signed the other")
    assert sidecar.runs() == {"signed": before["signed"]}
    policies.delete("signed")
    await sidecar.until(lambda: sidecar.runs() == before)
    await ready(tenant, eventually)
    assert {each for each, _ in sidecar.placeholders[placeholders:]} == {"guard"}


async def test_what_settings_a_policy_forbids_is_taken_out_at_once_by_each_replica(
    new_operator, tenant, module, connect, eventually, policies, told
):
    """A replica that does not lead offers the same; a policy that is relaxed lets the plugin come back."""
    operators = [new_operator().start(), new_operator().start()]
    sidecars = []
    for number, operator in enumerate(operators):
        tenant.pod(f"pod-{number}")
        sidecars.append(await connect(operator, tenant, f"pod-{number}"))
    tenant.plugin("guard", tenant.module("one", module("v1")), limits={"memory": "32Mi"})
    for sidecar in sidecars:
        await sidecar.until(sidecar.runs)
    before = [sidecar.runs() for sidecar in sidecars]
    name = policies.apply("limits", limits={"memory": "16Mi"})
    for sidecar in sidecars:
        await sidecar.until(lambda sidecar=sidecar: not sidecar.runs())
        assert "spec.limits.memory" in sidecar.placeholders[-1][1]
        assert name in sidecar.placeholders[-1][1]
        assert sidecar.may_go_on == set(), "a sidecar would run it still"
    await eventually(lambda: tenant.ready("guard") == ("False", "PolicyForbids"), "PolicyForbids")
    assert "spec.limits.memory" in told()[2]
    assert told("Verified")[:2] == ("False", "PolicyForbids")
    policies.apply("limits", limits={"memory": "64Mi"})
    for sidecar, ran in zip(sidecars, before, strict=True):
        await sidecar.until(lambda sidecar=sidecar, ran=ran: sidecar.runs() == ran)
    await ready(tenant, eventually)


async def test_while_the_registry_is_away_a_policy_is_answered_by_the_evidence_that_is_kept(
    operator, tenant, module, connect, eventually, policies, keys, push, need, tmp_path
):
    """What that proves goes on without a gap. What it does not is taken out once it was asked for in vain."""
    registry = LocalRegistry(need("docker-registry", "docker-registry"), tmp_path / "registry")
    registry.start()
    try:
        policies.apply("signed", signatures=wants(keys[0]))
        tenant.pod("a")
        sidecar = await connect(operator, tenant, "a")
        tenant.plugin("guard", push("v1", module("v1"), keys[0], keys[1], at=registry))
        await sidecar.until(sidecar.runs)
        await ready(tenant, eventually)
    finally:
        registry.stop()
    before, placeholders = sidecar.runs(), len(sidecar.placeholders)
    revision = tenant.revisions()[0]["metadata"]["name"]
    # It asks for something else, which the same signature meets.
    policies.apply("again", signatures=wants(keys[2], keys[0]))
    await eventually(lambda: tenant.revisions()[-1]["metadata"]["name"] != revision, "a revision that met it")
    await ready(tenant, eventually)
    assert sidecar.runs() == before
    assert len(sidecar.placeholders) == placeholders
    # The registry has this key's signature, too, and does not answer: what was kept is the first one's.
    name = policies.apply("again", signatures=wants(keys[1]))
    await sidecar.until(lambda: not sidecar.runs())
    await eventually(lambda: tenant.ready("guard") == ("False", "FetchFailed"), "FetchFailed")
    assert name in sidecar.placeholders[-1][1]
    policies.delete("again")
    await sidecar.until(lambda: sidecar.runs() == before)
    await ready(tenant, eventually)


async def test_two_policies_that_contradict_each_other_forbid_everything(
    operator, tenant, module, connect, eventually, policies, told
):
    """Each forbids by itself; which of them is told first is by name."""
    policies.apply("a-digests", references="Digest")
    policies.apply("b-config-maps", sources=["configMap"])
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    tenant.plugin("guard", {"oci": {"reference": "127.0.0.1:1/guard:v1", "insecure": True}})
    await eventually(lambda: tenant.ready("guard") == ("False", "PolicyForbids"), "PolicyForbids")
    assert policies.name("a-digests") in told()[2]
    digest = "sha256:" + "0" * 64
    tenant.plugin("guard", {"oci": {"reference": f"127.0.0.1:1/guard@{digest}", "insecure": True}})
    await eventually(lambda: policies.name("b-config-maps") in told()[2], "the other one")
    assert sidecar.runs() == {}


async def test_a_policy_that_selects_nothing_of_it_does_nothing_to_a_plugin(
    operator, tenant, module, connect, eventually, policies
):
    """By another name, by other labels of the resource, and by other labels of its namespace."""
    policies.apply("names", sources=[], pluginSelector={"names": ["other-*"]})
    policies.apply("labels", sources=[], pluginSelector={"matchLabels": {"team": "red"}})
    policies.apply("namespaces", sources=[], namespaceSelector={"matchLabels": {"no": tenant.name}})
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    tenant.plugin("guard", tenant.module("one", module("v1")))
    await sidecar.until(sidecar.runs)
    await ready(tenant, eventually)


async def test_a_policy_selects_by_the_labels_of_namespaces_and_of_plugins_as_they_are_now(
    operator, tenant, module, connect, eventually, policies, control_plane
):
    """A namespace that is labelled anew is another to it at once, and so is a plugin."""
    policies.apply("labelled", sources=[], namespaceSelector={"matchLabels": {"trust": tenant.name}})
    policies.apply("red", sources=[], pluginSelector={"matchLabels": {"team": "red"}})
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    tenant.plugin("guard", tenant.module("one", module("v1")))
    await sidecar.until(sidecar.runs)
    before = sidecar.runs()
    for labels, kind, args in (
        (f"trust={tenant.name}", "namespace", [tenant.name]),
        ("team=red", "wp", ["guard", f"--namespace={tenant.name}"]),
    ):
        control_plane.kubectl("label", kind, *args, labels)
        await sidecar.until(lambda: not sidecar.runs())
        await eventually(lambda: tenant.ready("guard") == ("False", "PolicyForbids"), "PolicyForbids")
        control_plane.kubectl("label", kind, *args, f"{labels.partition('=')[0]}-")
        await sidecar.until(lambda: sidecar.runs() == before)
        await ready(tenant, eventually)


async def test_a_policy_in_audit_counts_and_lets_pass(
    operator, tenant, module, connect, eventually, policies, keys, push, told, events
):
    """What it would refuse is a note on Verified and one Event, and in the metrics; enforced, it is refused."""
    name = policies.apply("signed", mode="Audit", signatures=wants(keys[0]), limits={"memory": "1Mi"})
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    tenant.plugin("guard", push("v1", module("v1")))
    await sidecar.until(sidecar.runs)
    await ready(tenant, eventually)
    status, _, message = told("Verified")
    assert status == "True"
    assert f"PluginTrustPolicy '{name}' (Audit) would refuse it: spec.limits.memory" in message
    assert "would refuse it: it is not signed by key 0" in message
    await eventually(lambda: len([1 for reason, _ in events() if reason == "PolicyWouldForbid"]) == 2, "two Events")
    labels = f'{{mode="Audit",policy="{name}"}}'
    assert operator.metrics()[f"hookline_operator_policy_refusals_total{labels}"] >= 1
    policies.apply("signed", mode="Enforce", signatures=wants(keys[0]))
    await sidecar.until(lambda: not sidecar.runs())
    await eventually(lambda: tenant.ready("guard") == ("False", "SignatureFailed"), "SignatureFailed")
    labels = f'{{mode="Enforce",policy="{name}"}}'
    assert operator.metrics()[f"hookline_operator_policy_refusals_total{labels}"] >= 1


@pytest.fixture
def newer_definition(control_plane, crd):
    """The definition of policies has fields that this version does not know; as before with the end of the test."""
    found = control_plane.get("crd", "plugintrustpolicies.hookline.dev")
    spec = found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["x-kubernetes-preserve-unknown-fields"] = True
    control_plane.apply({**found, "metadata": {"name": found["metadata"]["name"]}, "status": None})
    yield
    control_plane.install_crd(Path(__file__).parents[3] / "crds" / "hookline.dev_plugintrustpolicies.yaml")


@pytest.mark.usefixtures("newer_definition")
async def test_a_policy_of_a_newer_version_is_closed_for_what_it_may_select(
    operator, tenant, module, connect, eventually, policies, control_plane, told
):
    """A rule that is not known would not be kept. That it is so is said."""
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    tenant.plugin("guard", tenant.module("one", module("v1")))
    await sidecar.until(sidecar.runs)

    def newer():
        policies.apply("newer", moonPhases=["full"])
        return "moonPhases" in control_plane.get("plugintrustpolicy", policies.name("newer"))["spec"]

    await eventually(newer, "a definition that has other fields")
    await sidecar.until(lambda: not sidecar.runs())
    await eventually(lambda: tenant.ready("guard") == ("False", "PolicyForbids"), "PolicyForbids")
    assert "does not understand it" in told()[2]
    assert "moonPhases" in told()[2]


async def test_a_forged_revision_is_offered_to_nobody_whatever_it_says_of_signatures(
    operator, tenant, module, connect, eventually, policies, keys, push, control_plane
):
    """Its seal does not hold: that it names the key's fingerprint and evidence proves nothing."""
    policies.apply("signed", signatures=wants(keys[0]))
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    tenant.plugin("signed", push("v2", module("v2"), keys[0]))
    tenant.plugin("guard", push("v1", module("v1")))
    await sidecar.until(sidecar.runs)
    await eventually(lambda: tenant.ready("guard") == ("False", "SignatureFailed"), "SignatureFailed")
    (good,) = tenant.revisions()
    uid = tenant.get("guard")["metadata"]["uid"]
    metadata = {
        "name": "guard-0123456789",
        "labels": {**good["metadata"]["labels"], "hookline.dev/plugin-uid": uid},
    }
    forged = {key: good[key] for key in ("apiVersion", "kind", "revision", "data", "digest", "seal")}
    tenant.apply({**forged, "plugin": "guard", "revision": 9, "metadata": metadata})
    # Another plugin's bundle is made anew, of what is known then.
    tenant.plugin("signed", push("v3", module("v3"), keys[0]))
    before = sidecar.runs()
    await sidecar.until(lambda: sidecar.runs() and sidecar.runs() != before)
    assert set(sidecar.runs()) == {"signed"}
    assert tenant.ready("guard") == ("False", "SignatureFailed")


async def test_a_resource_that_changes_all_the_time_keeps_nothing_running_that_a_policy_forbids(
    operator, tenant, module, connect, eventually, policies, keys, push
):
    """Each change makes the failure one of an older generation; what was judged stays judged."""
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    source = push("v1", module("v1"))
    tenant.plugin("guard", source)
    await sidecar.until(sidecar.runs)
    await ready(tenant, eventually)
    policies.apply("signed", signatures=wants(keys[0]))
    await sidecar.until(lambda: not sidecar.runs())
    for priority in range(1, 6):
        tenant.plugin("guard", source, priority=priority)
        await asyncio.to_thread(
            lambda priority=priority: operator.until(
                lambda: tenant.status("guard").get("observedGeneration", 0) > priority, "a status"
            )
        )
        assert sidecar.runs() == {}


async def test_what_a_policy_forbids_does_not_wait_for_a_pod_that_is_not_prepared(
    operator, tenant, module, connect, eventually, policies
):
    """While a rollout is held for another pod, the version before goes on; not one that a policy forbids by now."""
    for name in ("a", "b"):
        tenant.pod(name)
    first, second = await connect(operator, tenant, "a"), await connect(operator, tenant, "b")
    source = tenant.module("one", module("v1"))
    tenant.plugin("guard", source, limits={"memory": "32Mi"}, rollout={"deadline": "1h"})
    for sidecar in (first, second):
        await sidecar.until(sidecar.runs)
    await ready(tenant, eventually)
    before = first.runs()
    second.stuck = True
    tenant.plugin("guard", source, limits={"memory": "8Mi"}, rollout={"deadline": "1h"})
    await first.until(lambda: first.held is not None)
    assert first.runs() == before
    policies.apply("small", limits={"memory": "16Mi"})
    await first.until(lambda: first.runs() and first.runs() != before)


async def test_what_is_not_signed_does_not_wait_for_a_pod_that_is_not_prepared(
    operator, tenant, module, connect, eventually, policies, keys, push
):
    """Whoever has a pod of his own could keep the others at it for an hour, and then for another."""
    for name in ("a", "b"):
        tenant.pod(name)
    first, second = await connect(operator, tenant, "a"), await connect(operator, tenant, "b")
    tenant.plugin("guard", push("v1", module("v1")), rollout={"deadline": "1h"})
    for sidecar in (first, second):
        await sidecar.until(sidecar.runs)
    await ready(tenant, eventually)
    before = first.runs()
    second.stuck = True
    tenant.plugin("guard", push("v2", module("v2"), keys[0]), rollout={"deadline": "1h"})
    await first.until(lambda: first.held is not None)
    assert first.runs() == before
    policies.apply("signed", signatures=wants(keys[0]))
    await first.until(lambda: first.runs() and first.runs() != before)
