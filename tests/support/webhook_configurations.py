"""The chart's webhook configurations, for a server on this machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

from cluster.binaries import binary

ROOT = Path(__file__).parents[2]
SERVICE = "hookline-operator"


def configurations(home, port, *, name):
    """The chart's, which call our Service in this namespace at this port."""
    text = subprocess.run(
        [binary("helm"), "template", "hookline", ROOT / "helm", "--namespace", home, "--kube-version=1.34.0",
         "--show-only=templates/webhooks.yaml"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    found = list(yaml.safe_load_all(text))
    for configuration in found:
        configuration["metadata"] = {"name": name}
        for entry in configuration["webhooks"]:
            entry["clientConfig"]["service"] |= {"name": SERVICE, "namespace": home, "port": port}
            entry["timeoutSeconds"] = 30
    return found


def service():
    """The Service that they call: it leads to this machine."""
    return {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": SERVICE},
        "spec": {"type": "ExternalName", "externalName": "localhost"},
    }  # fmt: skip


def rights(home, *, name):
    """What the chart gives the operator for them."""
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name},
        "rules": [{
            "apiGroups": ["admissionregistration.k8s.io"],
            "resources": ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"],
            "resourceNames": [name], "verbs": ["get", "patch"],
        }],
    }  # fmt: skip
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": SERVICE, "namespace": home}],
    }  # fmt: skip
    return [role, binding]
