"""The operator as its users meet it: the real process, with the chart's own rights, at a real API server.

Sidecars are simulated where a test is about the operator: they speak the whole protocol and run nothing. Their pods
are real objects of the API, and so are their tokens.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import pytest
import yaml

from cluster.binaries import binary
from cluster.errors import ClusterError
from local_ports import reserve_ports
from local_registry import LocalRegistry
from ready_programs import ready
from sessions import client_session
from simulated_sidecar import SimulatedSidecar
from waiting import PATIENCE_S, until, until_true

ROOT = Path(__file__).parents[2]
AUDIENCE = "hookline.dev"
_CODE = "from hookline_operator.cli import main; main()"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def crd(control_plane):
    """The CustomResourceDefinitions, established."""
    for each in sorted((ROOT / "crds").glob("*.yaml")):
        control_plane.install_crd(each)


@pytest.fixture(scope="session")
def module():
    """Makes modules: the same text gives the same bytes. ``hooks`` are exported, and answer ``says``."""
    import wasmtime

    def make(says="v1", hooks=("authenticate",), imports="", start=""):
        text = json.dumps({"action": "denied", "reason": says}).encode()
        data = "".join(f"\\{byte:02x}" for byte in text)
        exports = "".join(
            f'(func (export "{hook}") (param i32 i32) (result i64)'
            f" (i64.or (i64.shl (i64.const 1024) (i64.const 32)) (i64.const {len(text)})))"
            for hook in hooks
        )
        return wasmtime.wat2wasm(
            f'(module {imports} (memory (export "memory") 1) (data (i32.const 1024) "{data}")'
            f' (func (export "alloc") (param i32) (result i32) (i32.const 4096))'
            f' (func (export "dealloc") (param i32 i32)) {exports} {start})'
        )

    return make


@pytest.fixture(scope="session")
def registry(need, tmp_path_factory):
    """A registry that serves anybody."""
    made = LocalRegistry(need("docker-registry", "docker-registry"), tmp_path_factory.mktemp("registry"))
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def password_registry(need, tmp_path_factory):
    """A registry that wants a password."""
    program = need("docker-registry", "docker-registry")
    made = LocalRegistry(program, tmp_path_factory.mktemp("registry"), password=True)
    made.start()
    yield made
    made.stop()


class Replica:
    """One operator process."""

    def __init__(self, plane, home, folder, name, arguments, first):
        self.plane, self.home, self.name, self.folder = plane, home, name, folder
        self.port, self.health = reserve_ports(2)
        self.log = folder / f"{name}.log"
        token = folder / f"{name}.token"
        token.write_text(plane.token(home, "hookline-operator", AUDIENCE))
        kubeconfig = plane.kubeconfig_for(home, "hookline-operator", path=folder / f"{name}.kubeconfig")
        self._first = first
        self._arguments = [
            f"--kubeconfig={kubeconfig}", f"--own-namespace={home}", f"--pod-name={name}", "--pod-ip=127.0.0.1",
            "--allow-source-addresses=127.0.0.0/8",  # where the registries of these tests are
            f"--listen=127.0.0.1:{self.port}", f"--health=127.0.0.1:{self.health}", f"--token={token}",
            f"--cache={folder / (name + '-cache')}", *arguments,
        ]  # fmt: skip
        self.process = None

    def start(self, *, wait=True):
        """Return once it is ready."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("HOOKLINE_")}
        with self.log.open("ab") as log:
            if self._first:  # it may be about what is imported
                command = [sys.executable, "-c", f"{self._first}; {_CODE}", *self._arguments]
                self.process = subprocess.Popen(command, stderr=log, stdout=log, env=environment)
            else:
                program = ready("hookline_operator.cli", "hookline_operator.process")
                self.process = program.start(_CODE, self._arguments, environment=environment, log=log)
        if wait:
            self.until(self.ready, "readiness")
        return self

    def stop(self, how=signal.SIGTERM):
        """End it."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(PATIENCE_S)
            self.process = None

    def ready(self):
        """Whether /readyz says so."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health}/readyz", timeout=PATIENCE_S):
                return True
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            pass
        return False

    def not_ready(self):
        """What /readyz says is missing; None while nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health}/readyz", timeout=PATIENCE_S) as answer:
                return json.load(answer)["reasons"]
        except urllib.error.HTTPError as error:
            with error:
                return json.load(error)["reasons"]
        except OSError:
            return None

    def metrics(self):
        """The metrics, by name with labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.health}/metrics", timeout=PATIENCE_S) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    def until(self, wanted, what):
        """Wait for something; the log is in the failure."""

        def there():
            dead = self.process is not None and self.process.poll() is not None
            assert not dead, f"{self.name} ended before {what}\n{self.log.read_text()[-6000:]}"
            return wanted()

        return until(there, lambda: f"{what} of {self.name}\n{self.log.read_text()[-6000:]}")


@pytest.fixture(scope="session")
def chart_rights():
    """The chart's rights, for an operator in the namespace of this name."""
    place = f"place-{uuid.uuid4().hex}"
    rendered = subprocess.run(
        [binary("helm"), "template", place, ROOT / "helm", "--namespace", place, "--set", "webhooks.enabled=false",
         "--set", "fullnameOverride=hookline", "--kube-version=1.34"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    kinds = {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}
    rights = json.dumps([each for each in yaml.safe_load_all(rendered) if each and each["kind"] in kinds])
    return lambda name: json.loads(rights.replace(place, name))


@pytest.fixture
def home(control_plane, crd, chart_rights):
    """A namespace for an operator, with the chart's rights in it."""
    with control_plane.namespace(f"home-{uuid.uuid4().hex[:8]}") as name:
        rights = chart_rights(name)
        control_plane.apply(*rights)
        yield name
        for each in rights:
            if each["kind"].startswith("Cluster"):
                control_plane.delete(each["kind"], each["metadata"]["name"])


@pytest.fixture
def new_operator(control_plane, home, tmp_path):
    """Makes replicas of one operator; ends them with the test. ``first`` is Python that such a process begins with."""
    made = []

    def make(*arguments, first=""):
        replica = Replica(control_plane, home, tmp_path, f"operator-{len(made)}", arguments, first)
        made.append(replica)
        return replica

    yield make
    for replica in made:
        replica.stop()
        leftover = [line for line in replica.log.read_text().splitlines() if "Traceback" in line]
        assert not leftover, replica.log.read_text()[-6000:]


@pytest.fixture
def operator(new_operator):
    """One that is ready."""
    return new_operator().start()


class Tenant:
    """A namespace with plugins and pods."""

    def __init__(self, plane, name):
        self.plane, self.name = plane, name

    def apply(self, *objects):
        """Server-side apply, in this namespace."""
        self.plane.apply(*objects, namespace=self.name)

    def plugin(self, name, source, **spec):
        """Apply a WasmPlugin."""
        self.apply({
            "apiVersion": "hookline.dev/v1alpha1", "kind": "WasmPlugin", "metadata": {"name": name},
            "spec": {"source": source, **spec},
        })  # fmt: skip

    def module(self, name, wasm):
        """Put a module into a ConfigMap; the source for it."""
        import base64

        self.apply({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
            "binaryData": {"plugin.wasm": base64.b64encode(wasm).decode()},
        })  # fmt: skip
        return {"configMap": {"name": name}}

    def get(self, name):
        """The WasmPlugin."""
        return self.plane.get("wasmplugin", name, f"--namespace={self.name}")

    def status(self, name):
        """Its status, with the conditions by type."""
        status = self.get(name).get("status") or {}
        return status | {"conditions": {each["type"]: each for each in status.get("conditions", [])}}

    def ready(self, name):
        """Status and reason of Ready, if it is about the newest generation."""
        found = self.get(name)
        for each in found.get("status", {}).get("conditions", []):
            if each["type"] == "Ready" and each["observedGeneration"] == found["metadata"]["generation"]:
                return each["status"], each["reason"]
        return None

    def revisions(self, kind="wasmpluginrevisions"):
        """What is kept of its plugins."""
        return self.plane.get(kind, f"--namespace={self.name}")["items"]

    def keep_as_before(self, name, data, *, number=1):
        """Leave what an operator that kept ControllerRevisions would: one, and a status that names it; its name.

        As ``Controller._keep`` and ``reconcile`` wrote them.
        """
        import hashlib

        import orjson

        uid = self.get(name)["metadata"]["uid"]
        canonical = orjson.dumps([uid, data], option=orjson.OPT_SORT_KEYS)
        short = hashlib.sha256(canonical).hexdigest()[:10]
        owner = {"apiVersion": "hookline.dev/v1alpha1", "kind": "WasmPlugin", "name": name, "uid": uid}
        labels = {"hookline.dev/plugin-uid": uid, "app.kubernetes.io/managed-by": "hookline-operator"}
        metadata = {"name": f"{name}-{short}", "labels": labels, "ownerReferences": [owner | {"controller": True}]}
        self.apply({
            "apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": metadata, "revision": number,
            "data": data,
        })  # fmt: skip
        digest = data["artifact"]["digest"]
        status = {
            "artifact": {"digest": digest, "sha256": data["artifact"]["sha256"]},
            "revisions": [{"revision": short, "digest": digest}],
        }
        self.plane.patch("wasmplugin", name, {"status": status}, namespace=self.name, subresource="status")
        return metadata["name"]

    def pod(self, name, *, labels=None, ready=True):
        """A pod with a sidecar, as far as the API knows; its uid."""
        labels = {"hookline.dev/sidecar": "true", **(labels or {})}
        self.apply({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels},
            "spec": {"containers": [{"name": "proxy", "image": "proxy"}]},
        })  # fmt: skip
        self.set_ready(name, ready=ready)
        return self.plane.get("pod", name, f"--namespace={self.name}")["metadata"]["uid"]

    def set_ready(self, name, *, ready):
        """As a kubelet would."""
        conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
        status = {"status": {"phase": "Running", "conditions": conditions}}
        self.plane.patch("pod", name, status, namespace=self.name, subresource="status")

    def token(self, name, audience=AUDIENCE):
        """A pod's projected token."""
        uid = self.plane.get("pod", name, f"--namespace={self.name}")["metadata"]["uid"]
        return self.plane.token(self.name, "default", audience, bound_pod=(name, uid))


@pytest.fixture
def new_tenant(control_plane, crd):
    """Makes namespaces."""
    with contextlib.ExitStack() as stack:

        def make():
            tenant = Tenant(
                control_plane, stack.enter_context(control_plane.namespace(f"tenant-{uuid.uuid4().hex[:8]}"))
            )

            def account():  # the controller manager makes it
                return control_plane.get("serviceaccount", "default", f"--namespace={tenant.name}")

            until(account, "a default service account", ignoring=(ClusterError,))
            return tenant

        yield make


@pytest.fixture
def tenant(new_tenant):
    """One."""
    return new_tenant()


@pytest.fixture
async def connect(control_plane):
    """Makes simulated sidecars that are connected, each with the token of a pod."""
    tasks = []
    async with client_session() as session:

        async def make(operator, tenant, pod, *, token=None, **more):
            trust = ssl.create_default_context(cadata=ca_of(control_plane, operator.home))
            sidecar = SimulatedSidecar(
                session,
                f"https://127.0.0.1:{operator.port}",
                token or await asyncio.to_thread(tenant.token, pod),
                trust,
                server_name=f"hookline-operator.{operator.home}.svc", **more,
            )  # fmt: skip
            task = sidecar.task = asyncio.create_task(sidecar.run())
            tasks.append(task)
            await asyncio.wait([task, asyncio.create_task(sidecar.connected.wait())], timeout=PATIENCE_S,
                               return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
            if task.done():
                tasks.remove(task)
                await task
            return sidecar

        yield make
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def ca_of(plane, home):
    """What the operator publishes for its clients."""
    return plane.get("configmap", "hookline-ca", f"--namespace={home}")["data"]["ca.crt"]


@pytest.fixture
def eventually(tmp_path):
    """Wait for something to be true, without keeping the loop from its work; the operators' logs are in a failure."""

    async def wait(wanted, what):
        def failed():
            logs = "\n".join(f"{log.name}:\n{log.read_text()[-4000:]}" for log in sorted(tmp_path.glob("*.log")))
            return f"{what}\n{logs}"

        return await until_true(lambda: asyncio.to_thread(wanted), failed, pause=0.1)

    return wait


@pytest.fixture
def guarded(tenant, module, connect, eventually):
    """Has the tenant's pod ``a`` run version one of a plugin ``guard``, and the status say so; the pod's sidecar."""

    async def start(operator):
        tenant.pod("a")
        sidecar = await connect(operator, tenant, "a")
        tenant.plugin("guard", tenant.module("one", module("v1")))
        await sidecar.until(sidecar.runs)
        await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
        return sidecar

    return start
