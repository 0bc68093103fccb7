"""``kubectl hookline why`` says where a plugin stopped, in the operator's own words: each fault has its stage.

The operator and the API server are real, and so is kubectl; the sidecars are simulated, and there is no node.
"""

from __future__ import annotations

import pytest

from kubectl_plugin import KubectlPlugin
from local_ports import reserve_ports
from trust_policies import SIGNER

UNKNOWN = '(import "env" "launch_missiles" (func (param i32)))'
READS = '(import "env" "kv_get" (func (param i32 i32 i32 i32) (result i32)))'
SETTING = [{"secretRef": {"name": "settings"}, "key": "limti", "path": "limit"}]


@pytest.fixture
def hookline(control_plane, tmp_path):
    """The plugin of kubectl."""
    return KubectlPlugin(tmp_path / "bin", control_plane.kubeconfig)


@pytest.fixture
def settled(tenant, eventually):
    """Waits until the operator has decided about a plugin."""

    async def wait(name, reason):
        def decided():
            found = tenant.ready(name)
            return found is not None and found[1] == reason

        await eventually(decided, f"{reason} of {name}")

    return wait


def oci(registry, name, **more):
    """A source."""
    return {"oci": {"reference": f"{registry.host}/{name}", "insecure": True, **more}}


async def test_each_fault_has_its_stage(operator, hookline, tenant, registry, password_registry, module, settled):
    """What the operator finds out, without any pod."""
    registry.push("why:good", module("good"))
    registry.push("why:unknown", module("unknown", imports=UNKNOWN))
    registry.push("why:reads", module("reads", imports=READS))
    password_registry.push("why:private", module("private"))
    (nobody,) = reserve_ports(1)
    tenant.apply(
        password_registry.pull_secret("pull", password="wrong"),
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "settings"}, "stringData": {"limit": "5"}},
    )
    good = oci(registry, "why:good")
    away = {"oci": {"reference": f"127.0.0.1:{nobody}/why:good", "insecure": True}}
    faults = {
        "no-tag": (oci(registry, "why:nothing"), {}, "FetchFailed", "resolve", "why:nothing"),
        "away": (away, {}, "FetchFailed", "resolve", str(nobody)),
        "password": (
            oci(password_registry, "why:private", pullSecrets=[{"name": "pull"}]), {}, "FetchFailed", "resolve", "401",
        ),
        "unsigned": (good, {"verify": {"keys": [SIGNER]}}, "SignatureFailed", "verify", "sign"),
        "import": (oci(registry, "why:unknown"), {}, "VerifyFailed", "verify", "launch_missiles"),
        "key": (good, {"configFrom": SETTING}, "ConfigInvalid", "settings", "limti"),
        "permission": (oci(registry, "why:reads"), {}, "ConfigInvalid", "settings", "kv.read"),
        "memory": (
            oci(registry, "why:good"), {"hooks": ["pre_query"]}, "ConfigInvalid", "settings", "exports only",
        ),
    }  # fmt: skip
    for name, (source, spec, *_) in faults.items():
        tenant.plugin(name, source, **spec)
    for name, (_, _, reason, stage, words) in faults.items():
        await settled(name, reason)
        said = hookline("why", name, "-n", tenant.name, "--json")
        assert (said.code, said.json["stoppedAt"]) == (1, stage), (name, said)
        assert words in said.json["message"], said
        assert said.json["next"], said
        assert said.stage(stage)["at"], said
        assert said.stage("answers")["state"] == "not reached"
        text = hookline("why", name, "-n", tenant.name).out
        assert f"stopped at {stage} (" in text
        assert "\nnext: " in text


async def test_a_pod_that_does_not_reach_the_operator_is_told(operator, hookline, tenant, module, connect, eventually):
    """Once it is connected and runs it, every stage is passed."""
    tenant.pod("web")
    tenant.plugin("guard", tenant.module("one", module("v1")))
    await eventually(lambda: tenant.ready("guard") == ("False", "Progressing"), "Progressing")
    said = hookline("why", "guard", "-n", tenant.name, "--json")
    assert (said.code, said.json["stoppedAt"]) == (1, "connect"), said
    assert "the sidecar of pod 'web' is not connected" in said.json["message"]
    assert "NetworkPolicies" in said.json["next"]
    sidecar = await connect(operator, tenant, "web")
    await sidecar.until(sidecar.runs)
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    said = hookline("why", "guard", "-n", tenant.name)
    assert said.code == 0, said
    assert said.out.splitlines()[-1].startswith(("it runs", "took"))
    assert "1 of 1 pods run it" in said.out


async def test_what_is_not_there_is_told_with_what_is(operator, hookline, tenant, module, eventually):
    """A plugin of another name, a pod without a sidecar, another namespace; and no pod at all."""
    tenant.plugin("guard", tenant.module("one", module("v1")))
    await eventually(lambda: (tenant.ready("guard") or ("", ""))[1] == "NoMatchingPods", "NoMatchingPods")
    said = hookline("why", "gaurd", "-n", tenant.name, "--json")
    assert (said.code, said.json["stoppedAt"]) == (1, "apply")
    assert "there are guard" in said.json["message"]
    said = hookline("why", "guard", "web", "-n", tenant.name)
    assert said.code == 3
    assert said.err == (
        "kubectl hookline: pod 'web' has no sidecar, or the plugin's selector does not select it; selected are: none\n"
    )
    said = hookline("why", "guard", "-n", tenant.name, "--json")
    assert (said.json["stoppedAt"], said.json["state"]) == ("connect", "waiting")
    assert "spec.selector" in said.json["next"]


async def test_the_status_is_a_table(operator, hookline, tenant, guarded):
    """As ``kubectl get wp`` prints it; of one plugin with its pods."""
    await guarded(operator)
    said = hookline("status", "-n", tenant.name)
    head, row = said.out.splitlines()
    assert head.split() == ["NAME", "HOOKS", "DIGEST", "LOADED", "READY", "REASON", "CHECKED", "AGE"]
    assert row.split()[:2] == ["guard", "authenticate"]
    assert row.split()[3:6] == ["1/1", "True", "Ready"]
    everywhere = hookline("status", "-A", "--json").json["plugins"]
    assert [each["ready"] for each in everywhere if each["namespace"] == tenant.name] == ["True"]
    said = hookline("status", "guard", "-n", tenant.name, "--json")
    assert said.code == 0, said
    (pod,) = said.json["pods"]
    assert (pod["pod"], pod["ready"]) == ("a", True)
    assert "cannot be asked" in pod["error"]  # there is no node that could run anything in it


async def test_kubectl_says_itself_what_it_cannot(hookline, tenant, control_plane, tmp_path):
    """In one sentence each; as a plugin it is called what it is."""
    assert hookline("kv", "list").err == (
        "kubectl hookline: give --pod, --admin or --state: as a plugin of kubectl this asks pods\n"
    )
    said = hookline("status", "--context", "nowhere")
    assert (said.code, len(said.err.splitlines())) == (3, 1), said
    assert said.err.startswith("kubectl hookline: kubectl: ")
    assert "nowhere" in said.err
    assert "kubectl hookline why guard" in hookline("why", "--help").out
    assert hookline("--help").out.startswith("Usage: kubectl hookline ")
