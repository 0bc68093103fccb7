"""``kubectl hookline why`` on a whole cluster: of ten faults each is told with its stage, its sentence and what to do.

Each breaks one plugin of one namespace, whose pod ran a good version before, and mends it.
"""

from __future__ import annotations

import hashlib
import json

import pytest

from hookline_artifacts.module.annotate import with_sections
from installation import Tenant, identity_module, until
from kubectl_plugin import KubectlPlugin
from trust_policies import SIGNER
from truth import guests

UNKNOWN = '(import "env" "launch_missiles" (func (param i32)))'
READS = '(import "env" "kv_get" (func (param i32 i32 i32 i32) (result i32)))'
ASKED = {"headers": {}, "username": "a"}
CASES = [{"name": "nobody", "hook": "authenticate", "input": ASKED, "expect": {"action": "denied"}}]
ILL_TYPED = '(func (export "metrics") (param i32 i32) (result i64) (i32.const 1))'
POLICY = "why-only-signed"


@pytest.fixture(scope="module")
def shop(installation, registry):
    """A namespace whose proxy runs a good plugin."""
    registry.push("why:good", identity_module("good"))
    with installation.cluster.namespace("why") as name:
        tenant = Tenant(installation.cluster, name).prepare()
        tenant.plugin("guard", f"{registry.host}/why:good")
        tenant.proxies(1)
        tenant.ready("guard")
        yield tenant


@pytest.fixture
def hookline(shop, tmp_path):
    """``kubectl hookline``, in that namespace."""
    run = KubectlPlugin(tmp_path / "bin", shop.cluster.kubeconfig)
    return lambda verb, *arguments: run(verb, *arguments, "-n", shop.name)


class Shop:
    """The namespace, and the ways in which its plugin is broken."""

    def __init__(self, tenant, registry, password_registry):
        self.tenant, self.registry, self.password_registry = tenant, registry, password_registry

    def guard(self, tag="good", **spec):
        """Apply it."""
        self.tenant.plugin("guard", f"{self.registry.host}/why:{tag}", **spec)

    def pushed(self, tag, module, **spec):
        """Push a module, and have the plugin be that."""
        self.registry.push(f"why:{tag}", module)
        self.guard(tag, **spec)

    def away(self):
        """With a reference that is not here, so that it has to be asked for."""
        self.registry.push("why:away", identity_module("away"))
        self.registry.stop()
        self.guard("away")

    def password(self):
        """A pull secret with another password."""
        self.password_registry.push("why:private", identity_module("private"))
        self.tenant.apply(self.password_registry.pull_secret("pull", password="wrong"))
        self.tenant.plugin("guard", f"{self.password_registry.host}/why:private", secret="pull")

    def unsigned(self):
        """Under a policy of this namespace."""
        selector = {"matchLabels": {"kubernetes.io/metadata.name": self.tenant.name}}
        self.tenant.cluster.apply({
            "apiVersion": "hookline.dev/v1alpha1", "kind": "PluginTrustPolicy", "metadata": {"name": POLICY},
            "spec": {"namespaceSelector": selector, "signatures": {"anyOf": [{"key": {"pem": SIGNER}}]}},
        })  # fmt: skip

    def key(self):
        """A key that the Secret has not."""
        self.tenant.secret("settings", limit="5")
        self.guard(configFrom=[{"secretRef": {"name": "settings"}, "key": "limti", "path": "limit"}])

    def permission(self):
        """Without probation's version before: the module is new."""
        self.pushed("reads", identity_module("reads", more=READS))

    def traps(self):
        """And it is called, until that is noticed."""
        self.pushed("traps", guests.traps(), rollout={"probation": {"calls": 0}})
        self.tenant.ready("guard")

        def noticed():
            for _ in range(20):
                self.tenant.pods()[0].asks()
            return self.tenant.status("guard")["conditions"]["Healthy"]["status"] == "False"

        until(noticed, "trouble with its calls")

    def mend(self):
        """As it was."""
        self.tenant.cluster.kubectl("delete", "plugintrustpolicy", POLICY, "--ignore-not-found")
        self.guard()
        self.tenant.ready("guard")


FAULTS = {
    "no such tag": (lambda shop: shop.guard("nothing"), "resolve", "why:nothing"),
    "registry away": (Shop.away, "resolve", "Connection refused"),
    "wrong pull secret": (Shop.password, "resolve", "401"),
    "unsigned": (Shop.unsigned, "verify", POLICY),
    "unknown import": (
        lambda shop: shop.pushed("curious", identity_module("curious", more=UNKNOWN)), "verify", "launch_missiles",
    ),
    "missing key": (Shop.key, "settings", "limti"),
    "permission": (Shop.permission, "settings", "kv.read"),
    "traps": (Shop.traps, "answers", "trap"),
    "own cases": (
        lambda shop: shop.pushed(
            "liar", with_sections(identity_module("liar"), {"hookline.cases": json.dumps(CASES).encode()})
        ),
        "self-test", "own case",
    ),
    "memory": (lambda shop: shop.guard(limits={"memory": "64Ki"}), "settings", "limits.memory"),
    "does not compile": (
        lambda shop: shop.pushed("ill", identity_module("ill", more=ILL_TYPED)), "compile", "not valid WebAssembly",
    ),
}  # fmt: skip


@pytest.fixture
def broken(shop, registry, password_registry):
    """The namespace, mended after the test."""
    made = Shop(shop, registry, password_registry)
    yield made
    registry.stop()
    registry.start()
    made.mend()


def test_what_runs_is_explained_with_its_times(hookline):
    """Of the pod's own sidecar; and ``status`` says what it runs."""
    said = hookline("why", "guard", "--json")
    assert said.code == 0, said
    for stage in ("compile", "prepare", "switch"):
        assert said.stage(stage)["seconds"] is not None
    (pod,) = hookline("status", "guard", "--json").json["pods"]
    assert (pod["ready"], pod["plugin"]["state"]) == (True, "Running")
    assert hookline("kv", "list", "--pod", pod["pod"]).out.splitlines()[1].split()[0] == "guard"
    (found,) = hookline("inspect", f"pod/{pod['pod']}", "--json").json["plugins"]
    assert found["sha256"] == hashlib.sha256(identity_module("good")).hexdigest()
    assert found["hooks"] == ["authenticate"]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_told_with_its_stage(broken, hookline, name):
    """And with the next step; whatever comes later was not reached."""
    breaks, stage, words = FAULTS[name]
    states = {"failed", "waiting"} if name == "registry away" else {"failed"}  # it is asked again, and may be back
    breaks(broken)

    def explained():
        said = hookline("why", "guard", "--json")
        found = said.code == 1 and said.json["stoppedAt"] == stage and said.json["state"] in states
        return said if found and words in said.json["message"] else None

    said = until(explained, f"{stage} of 'why'; it says {hookline('why', 'guard').out}").json
    assert "\n" not in said["message"]
    assert said["next"]
    text = hookline("why", "guard").out
    assert f"stopped at {stage} (" in text
