"""A policy's status says what it does: how many plugins it is for, which it keeps from running, and why."""

from __future__ import annotations

import json

import pytest

from waiting import until

from .conftest import wants

SOURCE = {"oci": {"reference": "registry.invalid/team/plugin:1", "insecure": True}}


@pytest.fixture
def status(control_plane, policies):
    """A policy's status, with what its condition Ready says."""

    def look(name):
        found = control_plane.get("plugintrustpolicy", policies.name(name))
        status = found.get("status") or {}
        ready = next((each for each in status.get("conditions", []) if each["type"] == "Ready"), {})
        current = status.get("observedGeneration") == found["metadata"]["generation"]
        return status | {"reason": ready.get("reason") if current else None, "ready": ready}

    return look


@pytest.fixture
def events(control_plane, policies):
    """Types, reasons and messages of a policy's Events."""

    def look(name):
        found = control_plane.get("events", "--namespace=default")["items"]
        return [
            (each["type"], each["reason"], each["message"])
            for each in found
            if each["involvedObject"]["name"] == policies.name(name)
        ]

    return look


def figures(status):
    """The four numbers."""
    return tuple(status.get(name, 0) for name in ("matched", "refused", "wouldRefuse", "unknown"))


async def test_what_settings_forbid_is_counted_and_named(operator, tenant, policies, status, events, eventually):
    """In Enforce as refused, in Audit as what it would refuse; it follows plugins, and the policy itself."""
    tenant.plugin("bad", SOURCE, permissions=["kv.read"])
    tenant.plugin("good", SOURCE)
    policies.apply("strict", permissions=[])
    await eventually(lambda: figures(status("strict")) == (2, 1, 0, 0), "one of two is refused")
    found = status("strict")
    assert (found["reason"], found["ready"]["status"]) == ("Ready", "True")
    assert found["ready"]["message"] == "it selects 2 plugins and refuses 1"
    assert found["refusals"] == [
        {"plugin": f"{tenant.name}/bad", "message": "spec.permissions: kv.read may not be granted; it may be none"}
    ]
    await eventually(lambda: any(reason == "Refuses" for _, reason, _ in events("strict")), "an Event")
    policies.apply("strict", permissions=[], mode="Audit")
    await eventually(lambda: figures(status("strict")) == (2, 0, 1, 0), "one of two would be refused")
    assert status("strict")["ready"]["message"] == "it selects 2 plugins and would refuse 1"
    tenant.plugin("bad", SOURCE, permissions=[])
    await eventually(lambda: figures(status("strict")) == (2, 0, 0, 0), "none would be refused")
    assert status("strict").get("refusals", []) == []
    name = policies.name("strict")

    def shown():
        found = operator.metrics()
        labels = ('which="matched"', 'which="refused"')
        return [
            found.get(f'hookline_operator_policy_plugins{{mode="Audit",policy="{name}",{each}}}') for each in labels
        ]

    await eventually(lambda: shown() == [2.0, 0.0], "the metrics")
    policies.delete("strict")
    await eventually(lambda: shown() == [None, None], "metrics without it")


async def test_what_signatures_forbid_is_counted_by_what_the_operator_has_found(
    operator, tenant, module, policies, keys, push, status, eventually
):
    """A plugin whose registry does not answer is unknown, an unsigned one refused, a signed one neither."""
    policies.apply("audit", signatures=wants(keys[0]), mode="Audit")
    policies.apply("signed", signatures=wants(keys[0]))
    tenant.plugin("unsigned", push("v1", module("v1")))
    tenant.plugin("away", SOURCE)
    await eventually(lambda: figures(status("signed")) == (2, 1, 0, 1), "one is refused, one unknown")
    assert status("signed")["reason"] == "Judging"
    assert status("signed")["refusals"][0]["plugin"] == f"{tenant.name}/unsigned"
    assert "has no signature" in status("signed")["refusals"][0]["message"]
    tenant.plugin("away", push("v2", module("v2"), keys[0]))
    await eventually(lambda: figures(status("signed")) == (2, 1, 0, 0), "the signed one is known")
    policies.delete("signed")
    await eventually(lambda: figures(status("audit")) == (2, 0, 1, 0), "what Audit would refuse runs")
    await eventually(lambda: tenant.ready("unsigned") is not None, "a status")
    assert tenant.ready("unsigned")[1] not in {"SignatureFailed", "PolicyForbids"}
    policies.apply("audit", signatures=wants(keys[0]))
    await eventually(lambda: figures(status("audit")) == (2, 1, 0, 0), "enforced, it is refused")


async def test_a_policy_that_selects_nothing_says_so(operator, tenant, policies, status, eventually):
    """Until a plugin comes that it is for."""
    policies.apply("named", pluginSelector={"names": ["late-*"]}, references="Digest")
    await eventually(lambda: status("named")["reason"] == "SelectsNothing", "SelectsNothing")
    assert figures(status("named")) == (0, 0, 0, 0)
    tenant.plugin("late-1", SOURCE)
    await eventually(lambda: status("named")["reason"] == "Ready", "Ready")
    assert figures(status("named")) == (1, 1, 0, 0)


async def test_keys_that_cannot_be_read_are_the_policys_own_trouble(
    operator, control_plane, home, tenant, policies, keys, status, events, eventually
):
    """It forbids all, says why, in an Event too, and is well again when the keys are there."""
    tenant.plugin("guard", SOURCE)
    policies.apply("keys", signatures={"anyOf": [{"key": {"from": {"secret": {"name": "plugin-keys"}}}}]})
    await eventually(lambda: status("keys")["reason"] == "KeysUnreadable", "KeysUnreadable")
    found = status("keys")
    assert found["ready"]["status"] == "False"
    assert "there is no Secret 'plugin-keys'" in found["ready"]["message"]
    await eventually(lambda: figures(status("keys")) == (1, 1, 0, 0), "it forbids all")
    await eventually(lambda: ("Warning", "KeysUnreadable") in [each[:2] for each in events("keys")], "an Event")
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "plugin-keys"}}
    control_plane.apply(secret | {"stringData": {"a.pub": keys[0].pem}}, namespace=home)
    await eventually(lambda: status("keys")["reason"] == "Judging", "its keys are read")
    assert figures(status("keys")) == (1, 0, 0, 1)
    await eventually(lambda: ("Normal", "Judging") in [each[:2] for each in events("keys")], "an Event")


async def test_a_new_leader_writes_nothing_that_is_there_already(
    new_operator, control_plane, tenant, policies, status, eventually
):
    """What a term before has written stays; what somebody else wrote into it does not."""
    first = new_operator().start()
    tenant.plugin("bad", SOURCE, permissions=["kv.read"])
    policies.apply("strict", permissions=[])
    await eventually(lambda: figures(status("strict")) == (1, 1, 0, 0), "a status")
    version = control_plane.get("plugintrustpolicy", policies.name("strict"))["metadata"]["resourceVersion"]
    first.stop()
    second = new_operator().start()
    await eventually(lambda: second.metrics().get("hookline_operator_leader") == 1, "another leader")
    name = f'hookline_operator_policy_plugins{{mode="Enforce",policy="{policies.name("strict")}",which="refused"}}'
    await eventually(lambda: second.metrics().get(name) == 1, "it has judged the plugin")
    assert control_plane.get("plugintrustpolicy", policies.name("strict"))["metadata"]["resourceVersion"] == version
    change = {"status": {"matched": 77, "refused": 0}}
    control_plane.kubectl(
        "patch", "ptp", policies.name("strict"), "--subresource=status", "--type=merge", f"--patch={json.dumps(change)}"
    )
    until(lambda: figures(status("strict")) == (1, 1, 0, 0), "what is true again")
