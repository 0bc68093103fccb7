"""Where rows are played: a namespace with proxies under load, a registry of its own, and a plugin that lets all in."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from cluster import Access, ClusterError, ControlPlane, NotPossibleHereError
from cluster.binaries import binary
from installation import Installation, Load, Proxy, Tenant, until
from truth.guests import identity_module
from waiting import PATIENCE_S

if TYPE_CHECKING:
    from truth.moody_registry import MoodyRegistry

RATE: Final = 20.0
"""Requests a second, over all proxies of a scene."""
_FRESH_S: Final = 0.2
"""How long an answer of the API server is looked at again."""
_PLUGINS: Final = "apis/hookline.dev/v1alpha1/namespaces/{}/wasmplugins"


class Scene:
    """One namespace.

    Attributes:
        said: What kubectl answered to the last command that a row gave it, errors and warnings too.
        greets: The names by which a proxy may greet: those of all versions that are good.
    """

    def __init__(self, installation: Installation, tenant: Tenant, registry: MoodyRegistry) -> None:
        self.installation = installation
        self.cluster: Access = installation.cluster
        self.tenant = tenant
        self.registry = registry
        self.greets = {"good"}
        self.said = ""
        self.load: Load
        self._broken_at: float | None = None
        self._known_events: set[tuple[str, int]] = set()
        self._read: dict[str, tuple[float, Any]] = {}
        self._eyes = Eyes(self.cluster)

    # ── what rows do ──

    def guard(self, tag: str = "good", *, name: str = "guard", **spec: Any) -> None:
        """Apply the plugin, by a tag of the registry."""
        self.tenant.plugin(name, f"{self.registry.host}/{name}:{tag}", **spec)

    def push(self, tag: str, module: bytes | None = None, *, name: str = "guard", greets: bool = True) -> str:
        """Put a module into the registry; without one it is a good one, that greets by its tag."""
        if module is None and greets:
            self.greets.add(tag)
        return self.registry.push(f"{name}:{tag}", module if module is not None else identity_module(tag))

    def inside(self, pod: str, container: str, *command: str) -> str:
        """What a command prints in a container."""
        where = (f"--namespace={self.tenant.name}", f"--container={container}")
        return self.cluster.kubectl("exec", pod, *where, "--", *command)

    def try_kubectl(self, *arguments: str) -> None:
        """A command that may be refused; ``said`` is what it printed."""
        argv = [str(binary("kubectl")), f"--kubeconfig={self.cluster.kubeconfig}", f"--namespace={self.tenant.name}"]
        done = subprocess.run([*argv, *arguments], capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        self.said = done.stderr + done.stdout

    def try_guard(self, *arguments: Any, **more: Any) -> None:
        """``guard`` where the API server may refuse it; ``said`` is its sentence."""
        self.said = ""
        try:
            self.guard(*arguments, **more)
        except ClusterError as error:
            self.said = str(error)

    def mark(self) -> None:
        """From now on it is broken: what came before was preparation."""
        self._broken_at = time.monotonic()

    def begin(self) -> None:
        """Events that are there now are old ones."""
        self._broken_at = None
        self.said = ""
        self._read.clear()
        with contextlib.suppress(OSError):
            self._known_events = {_key(each) for each in self._events()}

    def broken_at(self, otherwise: float) -> float:
        """When it was broken, in monotonic seconds."""
        return self._broken_at if self._broken_at is not None else otherwise

    # ── what rows see ──

    def plugin(self, name: str) -> dict[str, Any]:
        """A WasmPlugin as the API server has it; empty where there is none, or no API server."""
        found = self._get(f"{_PLUGINS.format(self.tenant.name)}/{name}")
        return found if found and found.get("kind") == "WasmPlugin" else {}

    def condition(self, of: str, kind: str) -> dict[str, Any]:
        """A condition of a plugin about its newest generation; empty where there is none."""
        found = self.plugin(of)
        for each in found.get("status", {}).get("conditions", []):
            if each["type"] == kind and each.get("observedGeneration") == found["metadata"]["generation"]:
                return dict(each)
        return {}

    def events(self) -> list[dict[str, Any]]:
        """The namespace's Events since the row began."""
        with contextlib.suppress(OSError):
            return [each for each in self._events() if _key(each) not in self._known_events]
        return []

    def revisions(self) -> list[dict[str, Any]]:
        """What the operator keeps of the namespace's plugins."""
        found = self._get(f"apis/hookline.dev/v1alpha1/namespaces/{self.tenant.name}/wasmpluginrevisions")
        return list((found or {}).get("items", []))

    def cluster_says(self, *command: str) -> str:
        """What ``kubectl`` prints, an error too."""
        try:
            return self.cluster.kubectl(*command, timeout=PATIENCE_S)
        except ClusterError as error:
            return str(error)

    def line(self, name: str = "guard") -> str:
        """The line of ``kubectl get wp -o wide``."""
        return self.cluster_says("get", "wp", name, f"--namespace={self.tenant.name}", "--output=wide")

    def _events(self) -> list[dict[str, Any]]:
        found = self._get(f"api/v1/namespaces/{self.tenant.name}/events")
        return list((found or {}).get("items", []))

    def _get(self, path: str) -> Any:
        at, found = self._read.get(path, (0.0, None))
        if time.monotonic() - at > _FRESH_S:
            found = self._eyes.get(path)
            self._read[path] = (time.monotonic(), found)
        return found

    # ── load ──

    def proxies(self, replicas: int = 2) -> list[Proxy]:
        """Start the proxies; the load is put on them by ``under_load``."""
        return self.tenant.proxies(replicas)

    @contextmanager
    def under_load(self, proxies: list[Proxy]) -> Iterator[None]:
        """Twenty requests a second over these."""
        with Load(proxies, rate=RATE / len(proxies), connections=1) as self.load:
            yield

    def close(self) -> None:
        """Let go of the API server."""
        self._eyes.close()

    def ready(self, name: str = "guard") -> None:
        """Back when the plugin is."""
        until(lambda: self.condition(name, "Ready").get("status") == "True", f"{name} is Ready: {self.line(name)}")


class Eyes:
    """Reads the API server over a connection that is kept: kubectl takes a tenth of a second to start."""

    def __init__(self, cluster: Access) -> None:
        if not isinstance(cluster, ControlPlane):
            raise NotPossibleHereError("somebody else's cluster is not ours to break")
        self._context = ssl.create_default_context(cafile=str(cluster.ca_file))
        self._context.load_cert_chain(cluster.admin.certificate, cluster.admin.key)
        self._address = cluster.server.removeprefix("https://")
        self._connection: http.client.HTTPSConnection | None = None

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def get(self, path: str) -> Any:
        """Parsed JSON; None where there is no answer, or an error."""
        for _ in range(2):  # a kept connection may have been closed meanwhile
            if self._connection is None:
                self._connection = http.client.HTTPSConnection(self._address, timeout=10, context=self._context)
            try:
                self._connection.request("GET", f"/{path}", headers={"Accept": "application/json"})
                answer = self._connection.getresponse()
                body = answer.read()
                return json.loads(body) if answer.status == 200 else None
            except (OSError, http.client.HTTPException, ValueError):
                self.close()
        return None


def _key(event: dict[str, Any]) -> tuple[str, int]:
    series = event.get("series") or {}
    return event["metadata"]["uid"], event.get("count") or series.get("count") or 1
