"""Hookline on a cluster, as its users have it: the chart, registries with plugins, namespaces with proxies.

Tests and benchmarks put real pods to it: nginx of ``examples/kubernetes`` with an injected sidecar, in namespaces
that enforce the Pod Security Standard ``restricted``. A plugin made by ``identity_module`` lets everybody in under one
name, and the application behind the proxy greets by it: so each answer tells which version decided.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import aiohttp
import yaml

import images
import waiting
from cluster import Access, Cluster, ClusterError, NotPossibleHereError
from cluster.binaries import binary
from waiting import PATIENCE_S

ROOT: Final = Path(__file__).resolve().parent.parent
HOME: Final = "hookline-system"
AUDIENCE: Final = "hookline.dev"
KEPT: Final = ("operator", "sidecar", "nginx", "tools")
"""The images that all need, by their names in scripts/images.py."""
_TAG: Final = "e2e"
_DIRECTLY: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_SELECTOR: Final = "app.kubernetes.io/component=operator"
_SMALL: Final = {"hookline.dev/sidecar-cpu-request": "10m", "hookline.dev/sidecar-memory-request": "64Mi"}
_SIDECARS: Final = 6
"""Whose logs are shown with a failure, at most."""
_RESTRICTED: Final = "pod-security.kubernetes.io/enforce=restricted"

_A_LOCATION: Final = "location = /healthz {"
HOOKS: Final = {_A_LOCATION: f"location /hooks/ {{ proxy_pass http://hookline/v1/hooks/; }}\n    {_A_LOCATION}"}
"""Settings of a proxy by which a test asks single hooks of its sidecar, as a database's proxy would."""

T = TypeVar("T")


def image(name: str) -> str:
    """What a pod names as its image."""
    return f"hookline-{name}:{_TAG}"


def module(hooks: Mapping[str, Any], *, more: str = "", schema: Mapping[str, Any] | None = None) -> bytes:
    """A module whose hooks answer the same to everybody.

    ``more`` is WebAssembly text: imports, a start function. ``schema`` is what it wants of its config.
    """
    import wasmtime  # noqa: PLC0415 - a benchmark of the operator alone does without

    data, exports, at = "", "", 1024
    for hook, decision in hooks.items():
        text = json.dumps(decision).encode()
        data += f'(data (i32.const {at}) "{"".join(f"{chr(92)}{byte:02x}" for byte in text)}")'
        exports += f'(func (export "{hook}") (param i32 i32) (result i64) (i64.const {at << 32 | len(text)}))'
        at += len(text)
    made = wasmtime.wat2wasm(
        f'(module {more} (memory (export "memory") 2) {data}'
        f' (func (export "alloc") (param i32) (result i32) (i32.const 65536)) {exports})'
    )
    if schema is None:
        return bytes(made)
    name = b"hookline.plugin"
    section = bytes([len(name)]) + name + json.dumps({"config_schema": schema}).encode()
    size = bytes([len(section) & 0x7F | 0x80, len(section) >> 7])  # LEB128 of less than 16 KiB
    return bytes(made) + b"\0" + size + section


def identity_module(name: str, *, more: str = "", schema: Mapping[str, Any] | None = None) -> bytes:
    """Everybody is ``name``."""
    identity: dict[str, Any] = {"user_id": name, "username": name, "roles": [], "tenant_id": None}
    return module({"authenticate": {"action": "success", "identity": identity}}, more=more, schema=schema)


def answer(
    url: str, headers: Mapping[str, str] | None = None, *, data: bytes | None = None, seconds: float = PATIENCE_S
) -> tuple[int, str]:
    """Status and body, of a POST where there are ``data``; status 0 and why, where nobody answers."""
    try:
        request = urllib.request.Request(url, data=data, headers=dict(headers or {}))
        with _DIRECTLY.open(request, timeout=seconds) as found:
            return found.status, found.read().decode().strip()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode().strip()
    except OSError as error:
        return 0, str(error)


def until(wanted: Callable[[], T], what: str, *, seconds: float = PATIENCE_S) -> T:
    """``waiting.until`` for what is asked of a cluster, which may not know it yet. Raises TimeoutError."""
    return waiting.until(wanted, what, seconds=seconds, ignoring=(ClusterError, KeyError, IndexError))


class Installation:
    """The release ``hookline`` in the namespace ``hookline-system``."""

    def __init__(self, cluster: Access, archives: Path) -> None:
        """Builds the images into ``archives`` and gives them to the nodes. Raises ImagesError and ClusterError."""
        self.cluster = cluster
        self._archives = archives
        self.load(*KEPT)

    def load(self, *names: str) -> None:
        """Build images of scripts/images.py and give them to the nodes. Raises ImagesError and ClusterError."""
        images.build(names, tag=_TAG, out=self._archives)
        for name in names:
            archive = self._archives / f"hookline-{name}.tar"
            self.cluster.load_image(archive, f"docker.io/library/{image(name)}")
            archive.unlink()

    def install(self, *more: str) -> None:
        """As the documentation says; back when both replicas are ready."""
        chosen = {
            "image.repository": "hookline-operator",
            "image.tag": _TAG,
            "sidecar.image.repository": "hookline-sidecar",
            "sidecar.image.tag": _TAG,
        }
        values = [f"--set={key}={value}" for key, value in chosen.items()]
        self.helm("install", str(ROOT / "helm"), "--create-namespace", "--wait", "--timeout=300s", *values, *more)

    def uninstall(self) -> None:
        """``helm uninstall``, which leaves the definition and with it every plugin."""
        self.helm("uninstall", "--wait", f"--timeout={PATIENCE_S:.0f}s")

    def remove(self) -> None:
        """Leave nothing of it: the cluster may be somebody's."""
        with contextlib.suppress(ClusterError):
            self.helm("uninstall", "--ignore-not-found")
        self.cluster.kubectl("delete", "namespace", HOME, "--wait=false", "--ignore-not-found")
        crds = [f"{each}.hookline.dev" for each in ("wasmplugins", "wasmpluginrevisions", "plugintrustpolicies")]
        self.cluster.kubectl("delete", "crd", *crds, "--wait=false", "--ignore-not-found")

    def helm(self, verb: str, *arguments: str) -> str:
        """``helm VERB hookline``."""
        first, rest = arguments[:1] if verb == "install" else (), arguments[1:] if verb == "install" else arguments
        where = [f"--kubeconfig={self.cluster.kubeconfig}", f"--namespace={HOME}"]
        argv = [str(binary("helm")), verb, "hookline", *first, *where, *rest]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=600)
        if done.returncode:
            raise ClusterError(f"helm {verb}: {done.stderr.strip()}\n{self.describe()}")
        return done.stdout

    # ── the operator ──

    def replicas(self) -> list[dict[str, Any]]:
        """The operator's pods."""
        found: list[dict[str, Any]] = self.cluster.get("pods", f"--namespace={HOME}", f"--selector={_SELECTOR}")[
            "items"
        ]
        return found

    def scale(self, replicas: int) -> None:
        """Another number of replicas; back when they are ready, or gone."""
        self.cluster.kubectl("scale", "deployment/hookline-operator", f"--namespace={HOME}", f"--replicas={replicas}")
        if replicas:
            self.rolled_out()
        else:
            until(lambda: not self.replicas(), "no operator")

    def rolled_out(self) -> None:
        """Back when all replicas are ready."""
        status = ("rollout", "status", "deployment/hookline-operator", f"--namespace={HOME}", "--timeout=300s")
        self.cluster.kubectl(*status)

    def leader(self) -> str:
        """The pod that leads; empty where none does."""
        spec = self.cluster.get("lease", "hookline-operator", f"--namespace={HOME}")["spec"]
        return str(spec.get("holderIdentity") or "").rpartition("_")[0]

    def kill(self, *pods: str) -> None:
        """End operators as the death of their node would: none says goodbye, and no container comes back."""
        for pod in self.replicas():
            name = pod["metadata"]["name"]
            if name in pods:
                with contextlib.suppress(ClusterError):  # it may be on its way already
                    kill_container(self.cluster, pod, "operator")
                gone = ("--grace-period=0", "--force", "--wait=false", "--ignore-not-found")
                self.cluster.kubectl("delete", f"pod/{name}", f"--namespace={HOME}", *gone)

    # ── for people ──

    def describe(self) -> str:
        """What one looks at when something went wrong."""
        return "\n\n".join(self._looks())

    def _looks(self) -> Iterator[str]:
        def look(*command: str, lines: int = 80) -> str:
            try:
                said = self.cluster.kubectl(*command, timeout=60)
            except (ClusterError, OSError) as error:
                said = str(error)
            return f"$ kubectl {' '.join(command)}\n" + "\n".join(said.splitlines()[-lines:])

        yield look("get", "pods", "--all-namespaces", "--output=wide")
        yield look("get", "wasmplugins", "--all-namespaces", "--output=wide")
        events = ("--sort-by=.metadata.creationTimestamp", "--field-selector=involvedObject.kind!=Namespace")
        yield look("get", "events", "--all-namespaces", *events, lines=50)
        yield look("logs", f"--namespace={HOME}", f"--selector={_SELECTOR}", "--prefix", "--tail=60", lines=120)
        yield look("logs", f"--namespace={HOME}", f"--selector={_SELECTOR}", "--prefix", "--previous", "--tail=30")
        sidecars = 0
        with contextlib.suppress(ClusterError, OSError):
            for pod in self.cluster.get("pods", "--all-namespaces")["items"]:
                namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
                conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", [])}
                if conditions.get("Ready") != "True" and pod["status"].get("phase") != "Succeeded":
                    yield look("describe", "pod", name, f"--namespace={namespace}")
                sidecars += "hookline.dev/sidecar" in (pod["metadata"].get("labels") or {})
                if "hookline.dev/sidecar" in (pod["metadata"].get("labels") or {}) and sidecars <= _SIDECARS:
                    yield look("logs", name, f"--namespace={namespace}", "--container=hookline-sidecar", "--tail=15")


class Proxy:
    """One proxy pod, as it was when it was looked at."""

    def __init__(self, cluster: Access, found: dict[str, Any]) -> None:
        if not isinstance(cluster, Cluster):
            raise NotPossibleHereError("the pods of somebody else's cluster are not reached from this machine")
        self.cluster = cluster
        self.found = found
        self.name: str = found["metadata"]["name"]
        self.namespace: str = found["metadata"]["namespace"]
        self.address: str = found["status"].get("podIP", "")

    @property
    def url(self) -> str:
        """Where clients ask."""
        return f"http://{self.address}:8080/"

    def asks(self, path: str = "", headers: Mapping[str, str] | None = None) -> tuple[int, str]:
        """One request of a client; status and body."""
        return answer(self.url + path, headers)

    def hook(self, name: str, asked: Mapping[str, Any]) -> Any:
        """A hook's decision, where the proxy has the settings ``HOOKS``. Raises ClusterError."""
        headers = {"content-type": "application/json"}
        status, text = answer(f"{self.url}hooks/{name}", headers, data=json.dumps(asked).encode())
        if status != 200:
            raise ClusterError(f"hook {name} of pod {self.name}: {status} {text}")
        return json.loads(text)

    def runs(self) -> dict[str, str]:
        """By plugin, the first digits of the module that its sidecar runs."""
        plugins = self._describes()["plugins"]
        return {each["name"]: each["artifact"]["sha256"][:12] for each in plugins if each["artifact"]}

    def knows(self) -> set[str]:
        """The names of all plugins that its sidecar heard of, running or not."""
        return {each["name"] for each in self._describes()["plugins"]}

    def source(self) -> dict[str, Any]:
        """What its sidecar says of the operator: ``connected``, ``error`` and so on."""
        found: dict[str, Any] = self._describes()["source"]
        return found

    def _describes(self) -> Any:
        # By the socket in its state folder: strangers get health and metrics, and no more.
        where = (self.name, f"--namespace={self.namespace}", "--container=hookline-sidecar", "--")
        return json.loads(self.cluster.kubectl("exec", *where, "hookline-sidecar", "get", "/v1/plugins"))

    def restarts(self, container: str = "hookline-sidecar") -> int:
        """How often a container of it was started again."""
        pod = self.cluster.get("pod", self.name, f"--namespace={self.namespace}")
        return int(next(each["restartCount"] for each in _statuses(pod) if each["name"] == container))

    def kill_sidecar(self) -> None:
        """Kill the sidecar's first process; the kubelet starts the container again."""
        kill_container(self.cluster, self.found, "hookline-sidecar")

    def token(self) -> str:
        """What names it to the operator."""
        command = ("cat", "/var/run/secrets/hookline.dev/token")
        where = (self.name, f"--namespace={self.namespace}", "--container=hookline-sidecar", "--")
        return self.cluster.kubectl("exec", *where, *command).strip()


class Tenant:
    """A namespace with proxies and plugins."""

    def __init__(self, cluster: Access, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self._in = f"--namespace={name}"

    def prepare(self) -> Self:
        """Enforce the Pod Security Standard, and wait for what the namespace's pods need."""
        self.cluster.kubectl("label", "namespace", self.name, _RESTRICTED)
        until(lambda: self.cluster.get("serviceaccount", "default", self._in), "the default service account")
        return self

    def apply(self, *objects: dict[str, Any]) -> None:
        """Server-side apply, in this namespace."""
        self.cluster.apply(*objects, namespace=self.name)

    def kubectl(self, *arguments: str, timeout: float = 2 * PATIENCE_S) -> str:
        """In this namespace."""
        return self.cluster.kubectl(*arguments, self._in, timeout=timeout)

    # ── proxies ──

    def proxies(
        self,
        replicas: int = 1,
        *,
        name: str = "proxy",
        workers: int = 1,
        settings: Mapping[str, str] | None = None,
        **container: Any,
    ) -> list[Proxy]:
        """The example's proxy as a Deployment; back when all are ready.

        ``workers`` are those of each sidecar. ``settings`` says what stands in nginx.conf instead of what, and
        ``container`` replaces fields of its container.
        """
        objects = list(yaml.safe_load_all((ROOT / "examples/kubernetes/proxy.yaml").read_text()))
        for each in objects:
            if each["kind"] == "ConfigMap":
                for old, new in (settings or {}).items():
                    each["data"]["nginx.conf"] = each["data"]["nginx.conf"].replace(old, new)
                self.apply(each)
                continue
            each["metadata"]["name"] = name
            if each["kind"] == "Service":
                each["spec"]["selector"] = {"app": name}
            else:
                _smaller(each, name, replicas, container)
                each["spec"]["template"]["metadata"]["annotations"]["hookline.dev/sidecar-workers"] = str(workers)
            self.apply(each)
        return self.rolled_out(name)

    def rolled_out(self, name: str = "proxy") -> list[Proxy]:
        """The proxies, once all of the Deployment are ready."""
        self.kubectl("rollout", "status", f"deployment/{name}", "--timeout=300s")
        pods = self.pods(name)
        for pod in pods:
            if not any(each["name"] == "hookline-sidecar" for each in pod.found["spec"].get("initContainers", [])):
                raise ClusterError(f"pod {pod.name} was started without a sidecar: did an operator answer?")
        return pods

    def pods(self, name: str = "proxy") -> list[Proxy]:
        """The living proxies of a Deployment."""
        found = self.cluster.get("pods", self._in, f"--selector=app={name}")["items"]
        return [Proxy(self.cluster, each) for each in found if "deletionTimestamp" not in each["metadata"]]

    def tools(self) -> Callable[..., str]:
        """A pod with curl in it, and nothing of Hookline: what a command in there prints."""
        security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        pod = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
        container = {"name": "tools", "image": image("tools"), "securityContext": security}
        self.apply({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "tools"},
            "spec": {"containers": [container], "securityContext": pod, "terminationGracePeriodSeconds": 0},
        })  # fmt: skip
        self.kubectl("wait", "--for=condition=Ready", "pod/tools", f"--timeout={PATIENCE_S:.0f}s")
        return lambda *command: self.cluster.kubectl("exec", "tools", self._in, "--", *command)

    # ── plugins ──

    def plugin(self, name: str, reference: str, *, secret: str | None = None, **spec: Any) -> None:
        """Apply a WasmPlugin whose module is in one of our registries."""
        oci: dict[str, Any] = {"reference": reference, "insecure": True}
        if secret:
            oci["pullSecrets"] = [{"name": secret}]
        metadata = {"name": name}
        resource = {"apiVersion": "hookline.dev/v1alpha1", "kind": "WasmPlugin", "metadata": metadata}
        self.apply(resource | {"spec": {"source": {"oci": oci}, **spec}})

    def plugins(self) -> list[dict[str, Any]]:
        """All WasmPlugins."""
        found: list[dict[str, Any]] = self.cluster.get("wasmplugins", self._in)["items"]
        return found

    def secret(self, name: str, **data: str) -> None:
        """Apply a Secret."""
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        self.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": encoded})

    def status(self, name: str) -> dict[str, Any]:
        """A WasmPlugin's status, its conditions by type; without those of an older generation."""
        found = self.cluster.get("wasmplugin", name, self._in)
        status: dict[str, Any] = found.get("status") or {}
        now = found["metadata"]["generation"]
        fresh = {each["type"]: each for each in status.get("conditions", []) if each["observedGeneration"] == now}
        return status | {"conditions": fresh}

    def ready(self, name: str) -> None:
        """Back when the plugin is, as kubectl tells it."""
        self.kubectl("wait", "--for=condition=Ready", f"wasmplugin/{name}", "--timeout=300s")

    def failed(self, name: str, reason: str) -> str:
        """The sentence of ``Ready``, once that is False for this reason."""

        def sentence() -> str:
            ready = self.status(name)["conditions"]["Ready"]
            return str(ready["message"]) if (ready["status"], ready["reason"]) == ("False", reason) else ""

        return until(sentence, f"{name} is not Ready, because of {reason}: {self._words(name)}")

    def _words(self, name: str) -> str:
        with contextlib.suppress(ClusterError, KeyError):
            ready = self.status(name)["conditions"]["Ready"]
            return f"{ready['status']} {ready['reason']}: {ready['message']}"
        return "no status"


def _smaller(deployment: dict[str, Any], name: str, replicas: int, container: Mapping[str, Any]) -> None:
    spec = deployment["spec"]
    spec["replicas"] = replicas
    spec["selector"]["matchLabels"] = {"app": name}
    template = spec["template"]
    template["metadata"]["labels"]["app"] = name
    template["metadata"]["annotations"] = dict(_SMALL)
    nginx = template["spec"]["containers"][0]
    nginx["image"] = image("nginx")
    nginx["resources"]["requests"]["cpu"] = "10m"
    nginx["readinessProbe"]["periodSeconds"] = 1
    nginx |= container


def _statuses(pod: dict[str, Any]) -> Iterable[dict[str, Any]]:
    status = pod["status"]
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def kill_container(cluster: Access, pod: dict[str, Any], container: str) -> None:
    """Kill the first process of a container, and so all of it; the API server is not asked."""
    if not isinstance(cluster, Cluster):
        raise NotPossibleHereError("processes of somebody else's cluster are not ours to kill")
    full = next(each["containerID"] for each in _statuses(pod) if each["name"] == container)
    found = full.rpartition("/")[2]
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if not entry.name.isdigit() or found not in (entry / "cgroup").read_text():
                continue
            numbers = re.search(r"^NSpid:(.*)$", (entry / "status").read_text(), re.MULTILINE)
            if numbers and numbers[1].split()[-1] == "1":
                os.kill(int(entry.name), signal.SIGKILL)
                return
    raise ClusterError(f"no process of {found} runs")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request got, and when it was sent and answered (monotonic)."""

    asked: float
    at: float
    pod: str
    status: int
    text: str


@dataclass(slots=True)
class Load:
    """Clients that ask each proxy over and over, from a thread, as long as the ``with`` lasts.

    ``rate`` is what each proxy gets in a second, over ``connections`` that are kept. ``path`` gives each request's.
    """

    proxies: list[Proxy]
    rate: float = 100.0
    connections: int = 2
    headers: Mapping[str, str] = field(default_factory=dict)
    path: Callable[[], str] = str
    answers: list[Answer] = field(default_factory=list)
    _thread: threading.Thread | None = None
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        until(lambda: {each.pod for each in self.answers} == {each.name for each in self.proxies}, "an answer of each")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    async def _run(self) -> None:
        limits = aiohttp.ClientTimeout(total=PATIENCE_S)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=limits, connector=connector, trust_env=False) as session:
            await asyncio.gather(
                *(self._ask(session, proxy, n) for proxy in self.proxies for n in range(self.connections))
            )

    async def _ask(self, session: aiohttp.ClientSession, proxy: Proxy, number: int) -> None:
        pause = self.connections / self.rate
        due = time.monotonic() + pause * number / self.connections
        while not self._stop.is_set():
            await asyncio.sleep(max(due - time.monotonic(), 0.0))
            due = max(due + pause, time.monotonic() - 1.0)
            asked = time.monotonic()
            try:
                async with session.get(proxy.url + self.path(), headers=self.headers) as response:
                    status, text = response.status, (await response.text()).strip()
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                status, text = 0, f"{type(error).__name__}: {error}"
            self.answers.append(Answer(asked, time.monotonic(), proxy.name, status, text))

    def bad(self, *names: str) -> list[Answer]:
        """The answers that are not a greeting of one of those names."""
        good = {(200, f"hello, {name}") for name in names}
        return [each for each in self.answers if (each.status, each.text) not in good]

    def all_say(self, name: str, *, since: float, seconds: float = PATIENCE_S) -> float:
        """Seconds from ``since`` until the last of the proxies answers with that name."""
        waiting = {proxy.name for proxy in self.proxies}
        seen, last = 0, since
        deadline = time.monotonic() + seconds
        while waiting:
            answers = self.answers
            for each in answers[seen : (seen := len(answers))]:
                if each.at > since and each.pod in waiting and each.text == f"hello, {name}":
                    waiting.discard(each.pod)
                    last = max(last, each.at)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{sorted(waiting)} do not answer '{name}' after {seconds:.0f} s")
            time.sleep(0.005)
        return last - since


def record(name: str, value: object) -> None:
    """Keep a figure in build/e2e.json, for ``make bench-operator``, and show it where pytest shows output."""
    file = ROOT / "build" / "e2e.json"
    file.parent.mkdir(exist_ok=True)
    known: dict[str, object] = {}
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(file.read_text())
    file.write_text(json.dumps(known | {name: value}, indent=2) + "\n")
    print(f"{name}: {value}", file=sys.stderr, flush=True)
