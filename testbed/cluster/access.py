"""What a test may do with any Kubernetes, ours or another's."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml

from cluster.errors import ClusterError, NotPossibleHereError
from cluster.pki import write_kubeconfig
from waiting import PATIENCE_S

MANAGER: Final = "hookline-tests"
"""Who wrote what tests apply."""


class Access:
    """A kubeconfig with an administrator's rights, and a kubectl.

    Attributes:
        kubeconfig: The path of the kubeconfig.
        server: The API server's address, ``https://HOST:PORT``.
        ca: The authority of the API server's certificate, base64 of PEM.
    """

    def __init__(self, *, kubeconfig: Path, kubectl: Path) -> None:
        self.kubeconfig = kubeconfig
        self._kubectl = kubectl
        view = json.loads(self.kubectl("config", "view", "--minify", "--flatten", "--output=json"))
        self.server: str = view["clusters"][0]["cluster"]["server"]
        self.ca: str = view["clusters"][0]["cluster"].get("certificate-authority-data", "")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def kubectl(self, *args: str | Path, input: str | None = None, timeout: float = 2 * PATIENCE_S) -> str:  # noqa: A002 - as subprocess
        """What kubectl prints.

        Raises:
            ClusterError: It failed; its words are in the sentence.
        """
        argv = [str(self._kubectl), "--kubeconfig", str(self.kubeconfig), *map(str, args)]
        try:
            done = subprocess.run(argv, input=input, capture_output=True, text=True, check=False, timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"kubectl {' '.join(map(str, args))}: no end after {timeout:.0f} s") from error
        if done.returncode != 0:
            raise ClusterError(f"kubectl {' '.join(map(str, args))}: {(done.stderr + done.stdout).strip()}")
        return done.stdout

    def get(self, *args: str) -> Any:
        """``kubectl get …`` as parsed JSON."""
        return json.loads(self.kubectl("get", *args, "--output=json"))

    def apply(self, *objects: dict[str, Any], namespace: str | None = None) -> None:
        """Server-side apply, as ``MANAGER``."""
        where = ["--namespace", namespace] if namespace else []
        flags = ["--server-side", "--force-conflicts", f"--field-manager={MANAGER}", *where]
        self.kubectl("apply", *flags, "--filename=-", input=yaml.safe_dump_all(objects))

    def install_crd(self, file: Path, *, seconds: float = PATIENCE_S) -> None:
        """Apply a CustomResourceDefinition, and come back when the API server serves its resources.

        ``kubectl wait`` fails on one whose status nobody has written yet.
        """
        name = yaml.safe_load(file.read_text())["metadata"]["name"]
        self.kubectl("apply", "--server-side", "--force-conflicts", f"--filename={file}")
        deadline = time.monotonic() + seconds
        while True:
            conditions = self.get("crd", name).get("status", {}).get("conditions") or []
            if any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
                return
            if time.monotonic() > deadline:
                raise ClusterError(f"the API server does not serve {name}: {conditions}")
            time.sleep(0.1)

    def token(
        self,
        namespace: str,
        service_account: str,
        audience: str | None = None,
        *,
        bound_pod: tuple[str, str] | None = None,
        seconds: int = 3600,
    ) -> str:
        """A service account's token, through the TokenRequest API.

        ``bound_pod`` is (name, uid) of an existing pod. Without ``audience`` it is good for the API server itself.
        """
        spec: dict[str, Any] = {"expirationSeconds": seconds}
        if audience:
            spec["audiences"] = [audience]
        if bound_pod:
            spec["boundObjectRef"] = {"kind": "Pod", "apiVersion": "v1", "name": bound_pod[0], "uid": bound_pod[1]}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        token: str = self.create(path, request)["status"]["token"]
        return token

    def review(self, token: str, audience: str | None = None) -> dict[str, Any]:
        """The status of a TokenReview: ``authenticated``, ``user``, ``audiences``, ``error``."""
        spec: dict[str, Any] = {"token": token} | ({"audiences": [audience]} if audience else {})
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
        path = "/apis/authentication.k8s.io/v1/tokenreviews"
        status: dict[str, Any] = self.create(path, request)["status"]
        return status

    def create(self, path: str, thing: dict[str, Any]) -> Any:
        """The answer to a POST of an object."""
        return json.loads(self.kubectl("create", "--raw", path, "--filename=-", input=json.dumps(thing)))

    def delete(self, kind: str, name: str, *, namespace: str = "default") -> None:
        """Ask for its end, and return before it has come; one that is gone already is well."""
        self.kubectl("delete", kind, name, f"--namespace={namespace}", "--wait=false", "--ignore-not-found")

    def patch(self, kind: str, name: str, change: dict[str, Any], *, namespace: str, subresource: str = "") -> None:
        """Merge a change into it, or into its subresource, such as ``status``."""
        below = [f"--subresource={subresource}"] if subresource else []
        where = [f"--namespace={namespace}", *below, "--type=merge"]
        self.kubectl("patch", kind, name, *where, f"--patch={json.dumps(change)}")

    def kubeconfig_for(self, namespace: str, service_account: str, *, path: Path) -> Path:
        """Write a kubeconfig with which one is that service account, and has its rights alone."""
        token = self.token(namespace, service_account)
        return write_kubeconfig(path, server=self.server, authority=self.ca, token=token)

    @contextmanager
    def namespace(self, name: str) -> Iterator[str]:
        """A namespace for the time of a test. What is left in it is not waited for."""
        self.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        try:
            yield name
        finally:
            self.delete("namespace", name)

    @property
    def node_ip(self) -> str:
        """A node's address: NodePorts are there."""
        for node in self.get("nodes")["items"]:
            for address in node["status"]["addresses"]:
                if address["type"] == "InternalIP":
                    return str(address["address"])
        raise NotPossibleHereError(f"the cluster at {self.server} has no node")

    @property
    def gateway(self) -> str:
        """This machine's address as pods see it. A server of a test that listens there is reached by pods."""
        raise self._not_possible("which address of this machine its pods reach is not known")

    def load_image(self, archive: Path, name: str) -> None:
        """Take an image from an archive (OCI or ``docker save``) into the nodes under ``name``.

        A pod that names it needs ``imagePullPolicy: IfNotPresent``, or a tag that is not ``latest``.
        """
        raise self._not_possible(f"its nodes take no {name} from {archive}")

    def spawn(
        self,
        argv: Sequence[str | Path],
        *,
        name: str,
        env: Mapping[str, str] | None = None,  # noqa: ARG002
    ) -> subprocess.Popen[bytes]:
        """Start a program in the node's network, where pods reach it at ``node_ip``; it ends with the cluster."""
        raise self._not_possible(f"{name} ({argv[0]}) cannot be started on its node")

    def stop(self, name: str) -> None:
        """End what was started under this name, at once."""
        raise self._not_possible(f"{name} was not started there")

    def stop_apiserver(self) -> None:
        """Kill the API server, as a crash would."""
        raise self._not_possible("its API server is not for us to stop")

    def start_apiserver(self) -> None:
        """Start it again, at the same address and with the same state; back when it is ready."""
        raise self._not_possible("its API server is not for us to start")

    def close(self) -> None:
        """Take away what was brought up; a cluster that was there before stays."""

    def _not_possible(self, why: str) -> NotPossibleHereError:
        return NotPossibleHereError(f"the cluster at {self.server} was not started by this test: {why}")
