"""Permissions that grow wait until they are granted, and what follows an artifact is held by policies all the same."""

from __future__ import annotations

from .conftest import wants

_KV_GET = '(import "env" "kv_get" (func (param i32 i32 i32 i32) (result i32)))'


async def test_an_update_that_asks_for_more_waits_until_that_is_granted(
    operator, tenant, module, connect, eventually, push, told, table
):
    """The tag has moved: the version before goes on and is Ready, and what is missing is named."""
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    source = push("stable", module("v1"), trackInterval="10s")
    tenant.plugin("guard", source)
    await sidecar.until(sidecar.runs)
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    before, placeholders = sidecar.runs(), len(sidecar.placeholders)
    push("stable", module("v2", imports=_KV_GET))
    await eventually(lambda: told("PermissionsGranted")[:2] == ("False", "PermissionsIncreased"), "that it waits")
    assert "asks for kv.read" in told("PermissionsGranted")[2]
    assert tenant.ready("guard") == ("True", "Ready")
    assert "an update waits (PermissionsIncreased)" in table()
    assert sidecar.runs() == before
    tenant.plugin("guard", source, permissions=["kv.read"])
    await sidecar.until(lambda: sidecar.bundle_of("guard").artifact.asks == ["kv.read"])
    await eventually(lambda: told("PermissionsGranted")[0] == "True", "granted")
    assert len(sidecar.placeholders) == placeholders


async def test_another_version_that_asks_for_more_is_refused_and_the_one_before_goes_on(
    operator, tenant, module, connect, eventually, push, told
):
    """Where the resource names it itself, Ready says so."""
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    tenant.plugin("guard", push("v1", module("v1")))
    await sidecar.until(sidecar.runs)
    before = sidecar.runs()
    tenant.plugin("guard", push("v2", module("v2", imports=_KV_GET)))
    await eventually(lambda: tenant.ready("guard") == ("False", "PermissionsIncreased"), "PermissionsIncreased")
    assert "asks for kv.read" in told()[2]
    assert sidecar.runs() == before
    tenant.plugin("guard", push("v2", module("v2", imports=_KV_GET)), permissionsPolicy="FollowArtifact")
    await sidecar.until(lambda: sidecar.bundle_of("guard").permissions == ["kv.read"])
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")


async def test_what_follows_its_artifact_gets_no_permission_that_a_policy_does_not_allow(
    operator, tenant, module, connect, eventually, policies, keys, push, told
):
    """Not with the artifact's first version either; with a policy that allows it, it has it."""
    name = policies.apply("limited", permissions=["config.read"], signatures=wants(keys[0]))
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    source = push("v1", module("v1", imports=_KV_GET), keys[0])
    tenant.plugin("guard", source, permissionsPolicy="FollowArtifact")
    await eventually(lambda: tenant.ready("guard") == ("False", "PolicyForbids"), "PolicyForbids")
    assert name in told()[2]
    assert "kv.read" in told()[2]
    assert sidecar.runs() == {}
    policies.apply("limited", permissions=["kv.read"], signatures=wants(keys[0]))
    await sidecar.until(sidecar.runs)
    assert sidecar.bundle_of("guard").permissions == ["kv.read"]
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    policies.apply("limited", permissions=[], signatures=wants(keys[0]))
    await sidecar.until(lambda: not sidecar.runs())
    assert "kv.read" in sidecar.placeholders[-1][1]
