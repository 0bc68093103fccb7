"""What both sides put into the world: plugins in a folder, and objects of the API."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from cluster.binaries import binary
from exhaustion.box import ROOT
from hookline_api.distribution import AUDIENCE
from waiting import until

if TYPE_CHECKING:
    from cluster.access import Access

_LABEL: Final = "hookline.dev/sidecar"
_numbers: Final = itertools.count(1)


def write_plugin(folder: Path, name: str, module: bytes | None, **more: Any) -> None:
    """A plugin in a folder, put there as an editor does."""
    spec: dict[str, Any] = {"limits": {"timeout": "900ms"}, "source": {"file": {"path": f"{name}.wasm"}}}
    spec |= more
    files = {f"{name}.yaml": json.dumps(plugin_of(name, **spec)).encode()}
    if module is not None:
        files = {f"{name}.wasm": module} | files
    for file, content in files.items():
        aside = folder / f".{file}.tmp"
        aside.write_bytes(content)
        aside.replace(folder / file)


def plugin_of(name: str, source: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """A WasmPlugin."""
    return {
        "apiVersion": "hookline.dev/v1alpha1", "kind": "WasmPlugin", "metadata": {"name": name},
        "spec": {"source": source, **spec},
    }  # fmt: skip


def review_of(resource: dict[str, Any]) -> dict[str, Any]:
    """What an API server sends of a resource that is to be made."""
    kind = {"group": "hookline.dev", "version": "v1alpha1", "kind": "WasmPlugin"}
    request = {"uid": "1", "operation": "CREATE", "kind": kind, "namespace": "default", "name": "x", "object": resource}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


@contextlib.contextmanager
def home(plane: Access) -> Iterator[str]:
    """A namespace for an operator, with the chart's rights in it."""
    with plane.namespace(f"home-{os.getpid()}-{next(_numbers)}") as name:
        rendered = subprocess.run(
            [binary("helm"), "template", name, ROOT / "helm", "--namespace", name, "--set", "webhooks.enabled=false",
             "--set", "fullnameOverride=hookline", "--kube-version=1.34"],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        kinds = {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}
        rights = [each for each in yaml.safe_load_all(rendered) if each and each["kind"] in kinds]
        plane.apply(*rights)
        yield name
        for each in rights:
            if each["kind"].startswith("Cluster"):
                plane.kubectl("delete", each["kind"], each["metadata"]["name"], "--ignore-not-found")


@contextlib.contextmanager
def tenant(plane: Access, kind: str) -> Iterator[str]:
    """A namespace of that kind of tenant."""
    with plane.namespace(f"{kind}-{os.getpid()}-{next(_numbers)}") as name:
        found = ("serviceaccounts", "--namespace", name, "--output=name")
        until(lambda: "default" in plane.kubectl("get", *found), "a default service account")
        yield name


def pod(plane: Access, namespace: str, name: str) -> None:
    """A pod with a sidecar, as far as the API knows."""
    plane.apply({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {_LABEL: "true"}},
        "spec": {"containers": [{"name": "proxy", "image": "proxy"}]},
    }, namespace=namespace)  # fmt: skip


def pod_token(plane: Access, namespace: str, name: str) -> str:
    """A new token of a pod."""
    uid = plane.get("pod", name, f"--namespace={namespace}")["metadata"]["uid"]
    return plane.token(namespace, "default", AUDIENCE, bound_pod=(name, uid))
