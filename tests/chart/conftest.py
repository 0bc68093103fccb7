"""The chart, rendered by the real helm."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from cluster.binaries import binary
from cluster.errors import NotPossibleHereError
from cluster.fixtures import missing
from exposition import of_a_sidecar
from waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[2]
Json = dict[str, Any]

EVERYTHING_ON: Json = {
    "replicas": 3,
    "image": {"repository": "registry.example.com/hookline-operator", "digest": "sha256:" + "a" * 64},
    "imagePullSecrets": [{"name": "registry"}],
    "sidecar": {
        "image": {"tag": "dev", "pullPolicy": "Always"},
        "resources": {"limits": {"cpu": 1}},
        "logLevel": "debug",
    },
    "logLevel": "debug",
    "logFormat": "text",
    "priorityClassName": "system-cluster-critical",
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "control", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {"nodeAffinity": {}},
    "podAnnotations": {"example.com/note": "true"},
    "podLabels": {"team": "edge"},
    "extraEnv": [{"name": "HOOKLINE_LOG_LEVEL", "value": "debug"}],
    "registries": {
        "allowedAddresses": ["127.0.0.0/8"],
        "mirrors": [
            {
                "prefix": "ghcr.io/acme",
                "mirrors": [
                    {"location": "mirror.example.com/acme", "ca": "PEM"},
                    {"location": "m.test:5000", "insecure": True},
                ],
            }
        ],
        "proxy": {
            "https": "http://proxy.example.com:3128",
            "http": "http://proxy.example.com:3128",
            "noProxy": ["10.0.0.0/8", "registry.example.com"],
        },
    },
    "cache": {"size": "4Gi", "volume": {"enabled": True, "size": "8Gi", "accessMode": "ReadWriteMany"}},
    "serviceAccount": {"annotations": {"example.com/role": "puller"}},
    "networkPolicy": {
        "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        "egress": [{"ports": [{"port": 443, "protocol": "TCP"}]}],
    },
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {
        "enabled": True,
        "labels": {"release": "prometheus"},
        "runbookBaseUrl": "https://runbooks.example.com/",
    },
    "grafanaDashboard": {"enabled": True, "annotations": {"grafana_folder": "Proxies"}},
}
EVERYTHING_OFF: Json = {
    "replicas": 1,
    "webhooks": {"enabled": False},
    "crds": {"install": False},
    "rbac": {"create": False},
    "serviceAccount": {"create": False},
    "podDisruptionBudget": {"enabled": False},
    "networkPolicy": {"enabled": False},
}
MATRIX: dict[str, Json] = {
    "defaults": {},
    "one namespace": {"watchNamespaces": ["shop"]},
    "two namespaces, its own too": {"watchNamespaces": ["shop", "hookline-system"]},
    "everything on": EVERYTHING_ON,
    "everything off": EVERYTHING_OFF,
}


class HelmError(Exception):
    """What helm says when it fails."""


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """The objects of one rendering."""

    objects: list[Json]

    def all(self, kind: str) -> list[Json]:
        """Those of a kind."""
        return [each for each in self.objects if each["kind"] == kind]

    def one(self, kind: str) -> Json:
        """The only one of a kind."""
        (found,) = self.all(kind)
        return found

    def pods(self) -> Iterable[tuple[str, Json]]:
        """Each pod or pod template: a name for messages, and its ``metadata`` and ``spec``."""
        for each in self.objects:
            if each["kind"] == "Pod":
                yield f"Pod {each['metadata']['name']}", each
            elif each["kind"] == "Deployment":
                yield f"Deployment {each['metadata']['name']}", each["spec"]["template"]


class Helm:
    """The helm program with this repository's chart."""

    chart = ROOT / "helm"

    def __init__(self, program: Path, home: Path) -> None:
        self._program = program
        self._rendered: dict[str, str] = {}
        self._environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(home),  # where it keeps what it learned of an API server
            **{f"HELM_{kind}_HOME": str(home / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")},
        }

    def run(self, *arguments: str | Path, values: Json | None = None) -> str:
        """What it prints. Raises HelmError."""
        with_values = ["--values", "-"] if values is not None else []
        done = subprocess.run(
            [self._program, *arguments, *with_values],
            input=yaml.safe_dump(values or {}), capture_output=True, text=True, check=False, env=self._environment,
            timeout=PATIENCE_S,
        )  # fmt: skip
        if done.returncode:
            raise HelmError(done.stdout + done.stderr)
        return done.stdout

    def template(
        self, values: Json | None = None, *, release: str = "hookline", namespace: str = "hookline-system"
    ) -> str:
        """The manifests as text. The chart asks for a version, which a helm of one's own build does not know."""
        where = ["--namespace", namespace, "--kube-version", "1.34.0"]
        return self.run("template", release, self.chart, *where, values=values or {})

    def render(self, values: Json | None = None, **where: str) -> Rendered:
        """The manifests as data."""
        key = json.dumps([values, where], sort_keys=True)
        if key not in self._rendered:
            self._rendered[key] = self.template(values, **where)
        documents = yaml.load_all(self._rendered[key], Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return Rendered(objects=[each for each in documents if each is not None])


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """The real one, built from its Go module once."""
    try:
        program = binary("helm")
    except NotPossibleHereError as error:
        missing(error)
    return Helm(program, tmp_path_factory.mktemp("helm"))


@pytest.fixture(params=MATRIX.values(), ids=MATRIX.keys())
def rendered(helm: Helm, request: pytest.FixtureRequest) -> Rendered:
    """The chart with each set of values that matters."""
    return helm.render(request.param)


@pytest.fixture(scope="session")
def of_sidecars(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The metric families of a running sidecar, with their kinds."""
    folder = tmp_path_factory.mktemp("sidecar")
    (folder / "plugins").mkdir()
    return of_a_sidecar(folder, ["--plugins", folder / "plugins"])
