"""``hookline policy check --kubeconfig``: what a new policy would stop in a cluster, before it is applied."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
POLICY = """\
apiVersion: hookline.dev/v1alpha1
kind: PluginTrustPolicy
metadata: {{name: {name}}}
spec:
  namespaceSelector: {{matchLabels: {{team: payments}}}}
  {rule}
"""


@pytest.fixture(scope="module")
def plane(control_plane):
    """An API server with Hookline's resources."""
    for each in sorted((ROOT / "crds").glob("*.yaml")):
        control_plane.install_crd(each)
    return control_plane


def plugin(name, namespace, **spec):
    """A plugin of a cluster."""
    source = {"oci": {"reference": f"registry.example.com/plugins/{name}:1"}}
    return {
        "apiVersion": "hookline.dev/v1alpha1",
        "kind": "WasmPlugin",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"source": source, **spec},
    }


def test_the_plugins_of_a_cluster_are_judged(hookline, plane, tmp_path):
    """By the new policy in a file instead of the cluster's of that name, with the labels of their namespaces."""
    for namespace, labels in (("cli-pay", {"team": "payments"}), ("cli-other", {})):
        plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}})
    plane.apply(
        plugin("guard", "cli-pay", permissions=["kv.read"]),
        plugin("mask", "cli-other", permissions=["kv.read"]),
        yaml.safe_load(POLICY.format(name="cli-strict", rule="permissions: [kv.read]")),
        yaml.safe_load(POLICY.format(name="cli-kept", rule="references: Digest")),
    )
    (tmp_path / "new.yaml").write_text(POLICY.format(name="cli-strict", rule="permissions: [metrics]"))
    done = hookline("policy", "check", "new.yaml", "--kubeconfig", plane.kubeconfig, "--json")
    assert done.code == 1, done
    told = {(each["plugin"], each["policy"]) for each in done.json["refusals"] if each["policy"].startswith("cli-")}
    assert told == {("cli-pay/guard", "cli-strict"), ("cli-pay/guard", "cli-kept")}
    assert done.json["problems"] == []


def test_a_cluster_that_does_not_answer_is_told(hookline, tmp_path):
    """With the exit code for what cannot be had."""
    (tmp_path / "new.yaml").write_text(POLICY.format(name="new", rule="references: Digest"))
    kubeconfig = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {}}],
    }  # fmt: skip
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    done = hookline("policy", "check", "new.yaml", "--kubeconfig", "kubeconfig")
    assert done.code == 3, done
    assert "the API server does not answer" in done.err.splitlines()[-1]
