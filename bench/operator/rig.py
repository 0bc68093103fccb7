"""A control plane of its own for each benchmark, an operator in it, and what both say they did.

Writes are counted twice: by the operator's own metrics, and by the API server's. Memory and CPU are the kernel's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import yaml

from bench.sidecar import BrokenError
from cluster import ControlPlane
from cluster.binaries import binary
from hookline_api.base import API_VERSION, KIND, PLURAL
from hookline_api.distribution import AUDIENCE
from hookline_operator.cluster.kube import Kube, KubeError, path
from local_registry import LocalRegistry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

T = TypeVar("T")

ROOT: Final = Path(__file__).parents[2]
HOME: Final = "hookline-system"
_RIGHTS: Final = {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}
_AT_ONCE: Final = 24
_PATIENCE_S: Final = 300.0
_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
_REQUESTS: Final = re.compile(r"^apiserver_request_total\{(.*)\} (\S+)$", re.MULTILINE)
_LABEL: Final = re.compile(r'(\w+)="([^"]*)"')
_WRITING: Final = {"POST", "PUT", "PATCH", "APPLY", "DELETE"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What a process took of the machine. Memory in MiB, CPU in seconds."""

    rss: float
    peak: float
    """The most that RSS ever was."""
    pss: float
    cpu: float


class Replica:
    """One operator process; ``stop`` and ``start`` again are a restart with the cache kept."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.port, self._health = _free_ports(2)
        self._log = folder / "operator.log"
        self._process: subprocess.Popen[bytes] | None = None
        token = folder / "token"
        token.write_text(plane.token(HOME, "hookline-operator", AUDIENCE))
        kubeconfig = plane.kubeconfig_for(HOME, "hookline-operator", path=folder / "kubeconfig")
        self._command = [
            sys.executable, "-c", "from hookline_operator.cli import main; main()",
            f"--kubeconfig={kubeconfig}", f"--own-namespace={HOME}", "--pod-name=bench", "--pod-ip=127.0.0.1",
            "--allow-source-addresses=127.0.0.0/8",  # where its registry is
            f"--listen=127.0.0.1:{self.port}", f"--health=127.0.0.1:{self._health}", f"--token={token}",
            f"--cache={folder / 'cache'}",
        ]  # fmt: skip

    async def start(self) -> float:
        """Return once it is ready; the seconds that took."""
        begin = time.monotonic()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("HOOKLINE_")}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - a moment
                self._command, stdout=log, stderr=log, env=environment
            )
        await self.until(self._ready, "readiness")
        return time.monotonic() - begin

    async def stop(self) -> None:
        """As Kubernetes does it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(self._process.wait, 30)
            self._process = None

    def usage(self) -> Usage:
        """Of now."""
        assert self._process is not None
        folder = Path("/proc") / str(self._process.pid)
        fields = dict(line.split(":", 1) for line in (folder / "smaps_rollup").read_text().splitlines()[1:])
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        # https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html: fields 14 and 15, of which 3 is the first here
        stat = (folder / "stat").read_text().rpartition(")")[2].split()
        return Usage(
            rss=int(fields["Rss"].split()[0]) / 1024,
            pss=int(fields["Pss"].split()[0]) / 1024,
            peak=int(status["VmHWM"].split()[0]) / 1024,
            cpu=(int(stat[11]) + int(stat[12])) * _TICK_S,
        )

    async def writes(self) -> Counter[str]:
        """What it says it wrote to the API since it started: ``status``, ``revision`` and ``event``."""
        text = await asyncio.to_thread(self._read, "/metrics")
        found = re.findall(r'^hookline_operator_api_writes_total\{kind="(\w+)"\} (\S+)$', text, re.MULTILINE)
        return Counter({kind: int(float(value)) for kind, value in found})

    async def quiet(self) -> float:
        """Wait until it does next to nothing for two seconds; the CPU seconds that it took since its start."""
        before, still = self.usage().cpu, 0
        while still < 4:
            await asyncio.sleep(0.5)
            now = self.usage().cpu
            still = still + 1 if now - before <= 0.03 else 0
            before = now
        return before

    async def until(self, true: Callable[[], Awaitable[bool]], what: str) -> None:
        """Poll until that is true. Raises BrokenError where it never is."""
        end = time.monotonic() + _PATIENCE_S
        while not await true():
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > end:
                tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
                raise BrokenError(f"never{' (the operator ended)' if ended else ''}: {what}\n{tail}")
            await asyncio.sleep(0.05)

    def tracebacks(self) -> int:
        """Defects in its log."""
        return self._log.read_text(errors="replace").count("Traceback")

    async def _ready(self) -> bool:
        try:
            await asyncio.to_thread(self._read, "/readyz")
        except OSError:
            return False
        return True

    def _read(self, where: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._health}{where}", timeout=30) as answer:
            return str(answer.read().decode())


@dataclass(frozen=True, kw_only=True, slots=True)
class Rig:
    """A control plane with the definition and the chart's rights, and an operator that is not started yet."""

    plane: ControlPlane
    kube: Kube
    """An administrator's."""
    operator: Replica
    registry: LocalRegistry
    folder: Path

    async def namespace(self, name: str) -> None:
        """Make one, with its default service account."""
        await self.create(
            path("v1", "namespaces"), {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        )

        async def there() -> bool:
            return await self.kube.get(path("v1", "serviceaccounts", name, "default")) is not None

        await _poll(there, f"the service account of {name}")

    async def create(self, where: str, body: dict[str, Any]) -> dict[str, Any]:
        """One POST."""
        return await self.kube.request("POST", where, body=body)

    async def apply(self, namespace: str, name: str, source: dict[str, Any], **spec: Any) -> float:
        """Apply a ``WasmPlugin`` as ``kubectl apply --server-side`` does; when (monotonic) the request was sent."""
        begin = time.monotonic()
        await self.kube.request(
            "PATCH",
            path(API_VERSION, PLURAL, namespace, name),
            query={"fieldManager": "bench", "force": "true"},
            body=plugin(namespace, name, source, **spec),
            content_type="application/apply-patch+yaml",
        )
        return begin

    async def server_writes(self) -> Counter[str]:
        """Writes of everybody since the API server's start, by its own metrics: by resource and subresource."""
        text = await asyncio.to_thread(self.plane.kubectl, "get", "--raw", "/metrics")
        found: Counter[str] = Counter()
        for labels, value in _REQUESTS.findall(text):
            of = dict(_LABEL.findall(labels))
            if of["verb"] in _WRITING and of["code"].startswith("2"):
                found["/".join(part for part in (of["resource"], of["subresource"]) if part)] += int(float(value))
        return found

    def pushed(self, name: str, module: bytes) -> dict[str, Any]:
        """The source of a module that is put into the registry under ``repository:tag``."""
        self.registry.push(name, module)
        return {"oci": {"reference": f"{self.registry.host}/{name}", "insecure": True}}


@contextlib.asynccontextmanager
async def rig() -> AsyncIterator[Rig]:
    """Everything but a started operator; taken away at the end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65_536)), hard))  # also for what is started here
    with tempfile.TemporaryDirectory(prefix="hookline-bench-") as name, ControlPlane() as plane:
        folder = Path(name)
        for each in sorted((ROOT / "crds").glob("*.yaml")):
            plane.install_crd(each)
        plane.kubectl("create", "namespace", HOME)
        plane.apply(*_rights())
        registry = LocalRegistry("docker-registry", folder / "registry")
        await asyncio.to_thread(registry.start)
        kube = await Kube.connect(plane.kubeconfig)
        operator = Replica(plane, folder)
        try:
            yield Rig(plane=plane, kube=kube, operator=operator, registry=registry, folder=folder)
        finally:
            await operator.stop()
            await kube.close()
            registry.stop()


class Watch:
    """Hears of every write to the plugins of a namespace (or of all)."""

    def __init__(self, kube: Kube, namespace: str | None = None) -> None:
        self._kube = kube
        self._where = path(API_VERSION, PLURAL, namespace)
        self._task: asyncio.Task[None] | None = None
        self._heard = asyncio.Event()
        self.ready: dict[str, int] = {}
        """By ``namespace/name``: the generation of which the status says Ready."""
        self.generations: dict[str, int] = {}
        self.status_writes: dict[str, list[float]] = {}
        """By ``namespace/name``: when (monotonic) each write of a status was heard of."""
        self._statuses: dict[str, Any] = {}

    async def __aenter__(self) -> Self:
        found, version = await self._kube.list(self._where)
        for each in found:
            self._take(each, time.monotonic())
        self._task = asyncio.create_task(self._run(version))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def until(self, true: Callable[[], bool], what: str) -> float:
        """When (monotonic) it was true. Raises BrokenError where it never is."""
        end = time.monotonic() + _PATIENCE_S
        while not true():
            if time.monotonic() > end or (self._task is not None and self._task.done()):
                raise BrokenError(f"never: {what}")
            self._heard.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._heard.wait()
        return time.monotonic()

    async def until_ready(self, key: str, generation: int) -> float:
        """When (monotonic) it was said that this generation is Ready."""
        return await self.until(lambda: self.ready.get(key, 0) >= generation, f"{key} is Ready")

    async def _run(self, version: str) -> None:
        while True:
            try:
                async for kind, found in self._kube.watch(self._where, version, seconds=300):
                    version = found["metadata"]["resourceVersion"]
                    if kind in {"ADDED", "MODIFIED"}:
                        self._take(found, time.monotonic())
                        self._heard.set()
            except KubeError as error:
                raise BrokenError(f"the benchmark's own watch ended: {error}") from error

    def _take(self, found: dict[str, Any], now: float) -> None:
        metadata, status = found["metadata"], found.get("status") or {}
        key = f"{metadata['namespace']}/{metadata['name']}"
        self.generations[key] = metadata["generation"]
        if status != self._statuses.get(key, {}):
            self._statuses[key] = status
            self.status_writes.setdefault(key, []).append(now)
        for each in status.get("conditions", ()):
            done = each["status"] == "True" or each["reason"] == "NoMatchingPods"
            if each["type"] == "Ready" and done:
                self.ready[key] = each["observedGeneration"]


def plugin(namespace: str, name: str, source: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """A ``WasmPlugin``."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"source": source, **spec},
    }


async def many(works: Iterable[Awaitable[T]]) -> list[T]:
    """All of these, some at once, in order."""
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(work: Awaitable[T]) -> T:
        async with places:
            return await work

    return list(await asyncio.gather(*map(one, works)))


def sized(wasm: bytes, size: int, number: int) -> bytes:
    """A module with a custom section of noise, so that it has this many bytes, other ones for each number."""
    noise = b"\x05noise" + os.urandom(max(size - len(wasm) - 16, 8)) + number.to_bytes(4)
    length, left = b"", len(noise)
    while left > 0x7F:  # LEB128
        length, left = length + bytes([left & 0x7F | 0x80]), left >> 7
    return wasm + b"\x00" + length + bytes([left]) + noise


async def _poll(true: Callable[[], Awaitable[bool]], what: str) -> None:
    end = time.monotonic() + 60
    while not await true():
        if time.monotonic() > end:
            raise BrokenError(f"never: {what}")
        await asyncio.sleep(0.1)


def _rights() -> list[dict[str, Any]]:
    """What the chart allows its operator."""
    rendered = subprocess.run(
        [binary("helm"), "template", HOME, ROOT / "helm", "--namespace", HOME, "--set", "webhooks.enabled=false",
         "--set", "fullnameOverride=hookline", "--kube-version=1.34"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    return [each for each in yaml.safe_load_all(rendered) if each and each["kind"] in _RIGHTS]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
