"""`helm` on an API server, and what is created and asked for there."""

from __future__ import annotations

import itertools
from pathlib import Path

import yaml

import waiting
from cluster import ClusterError

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "kubernetes"
NAMESPACE = "hookline-chart"


class Release:
    """`helm` on the API server, for one release in one namespace."""

    def __init__(self, helm, plane):
        self._helm, self._plane = helm, plane

    def __call__(self, verb, *arguments, values=None):
        """What `helm VERB hookline` prints."""
        where = ["--kubeconfig", self._plane.kubeconfig, "--namespace", NAMESPACE]
        chart = [self._helm.chart] if verb in {"install", "upgrade"} else []
        return self._helm.run(verb, "hookline", *chart, *where, *arguments, values=values)


def until(what):
    """Ask until there is an answer; the answer."""
    return waiting.until(what, "what this test waits for", ignoring=(ClusterError,))


def create(plane, namespace, pod):
    """Of a pod; nothing stays."""
    plane.kubectl("create", "--dry-run=server", f"--namespace={namespace}", "--filename=-", input=yaml.safe_dump(pod))


def namespaced_pod(value):
    """A pod that says something about its sidecar, or nothing."""
    labels = {} if value is None else {"hookline.dev/inject": value}
    container = {"name": "app", "image": "app"}
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app", "labels": labels},
        "spec": {"containers": [container]},
    }  # fmt: skip


def bundles(plane, name="hookline-operator"):
    """The caBundle of each webhook entry."""
    kinds = ("mutatingwebhookconfiguration", "validatingwebhookconfiguration")
    entries = [plane.get(kind, name)["webhooks"] for kind in kinds]
    return [entry["clientConfig"].get("caBundle") for entry in itertools.chain.from_iterable(entries)]


def plugin_manifest():
    """The example's WasmPlugin."""
    (found, _) = yaml.safe_load_all((EXAMPLE / "wasmplugin.yaml").read_text())
    return found
