"""etcd, the API server and the controllers: a Kubernetes without nodes, for tests that need no containers.

Needs no root, and listens on 127.0.0.1 alone. A :class:`~cluster.node.Cluster` is one with a node.
"""

from __future__ import annotations

import contextlib
import random
import signal
import ssl
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.access import MANAGER, Access
from cluster.api import Api, Asked, asked
from cluster.binaries import control_plane_binaries
from cluster.errors import ClusterError
from cluster.pki import Authority, Pair, encoded, write_kubeconfig
from cluster.processes import Processes, signal_marked
from local_ports import hold

# Beside the range of outgoing connections (32768 and up): one of those could take the API server's port while a test
# has it stopped.
_PORTS = range(20000, 32000)
_AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - {level: None, userGroups: ["system:serviceaccounts:kube-system"]}
  - {level: Metadata, userGroups: ["system:serviceaccounts"]}
  - {level: None}
"""


class ControlPlane(Access):
    """A running control plane. Leaving the ``with`` block, or dying in it, takes everything away.

    Attributes:
        folder: Its state; gone at exit.
        logs: One ``NAME.log`` per process.
        ca_file: The authority of the API server's certificate, PEM.
        admin: A client certificate in ``system:masters``.
        audit_log: What service accounts of other namespaces than kube-system asked of the API server, an event a line;
            written where ``audited``.
        has_controllers: Whether a controller manager runs; false with the three programs of setup-envtest.
    """

    kind = "control-plane"

    def __init__(self, *, audited: bool = False, flags: Sequence[str] = ()) -> None:
        """``flags`` are more of the API server's."""
        self._binaries = self._find_binaries()
        self.has_controllers = "kube-controller-manager" in self._binaries
        self.processes = Processes(self.kind)
        self.folder = self.processes.folder
        self.logs = self.folder / "logs"
        self.audit_log = self.folder / "audit.log"
        self._audited = audited
        try:
            self._prepare()
            self._apiserver_flags += flags
            self._start_control_plane()
            self._complete()
        except BaseException:
            self.processes.close()
            raise

    def _find_binaries(self) -> dict[str, Path]:
        return control_plane_binaries()

    def close(self) -> None:
        """Take everything away."""
        self._api.close()
        self.processes.close()

    def get(self, *args: str) -> Any:
        """As kubectl's, at a thirtieth of the cost."""
        plain = asked(args)
        return super().get(*args) if plain is None else self._api.get(plain)

    def apply(self, *objects: dict[str, Any], namespace: str | None = None) -> None:
        """As kubectl's; where something is refused, kubectl says so in its own words."""
        try:
            for each in objects:
                self._api.apply(each, namespace=namespace, manager=MANAGER)
        except ClusterError:
            super().apply(*objects, namespace=namespace)

    def create(self, path: str, thing: dict[str, Any]) -> Any:
        """The answer to a POST of an object."""
        return self._api.ask("POST", path, thing)

    def delete(self, kind: str, name: str, *, namespace: str = "default") -> None:
        """As kubectl's."""
        self._api.delete(Asked(kind=kind, name=name, namespace=namespace))

    def patch(self, kind: str, name: str, change: dict[str, Any], *, namespace: str, subresource: str = "") -> None:
        """As kubectl's."""
        self._api.patch(Asked(kind=kind, name=name, namespace=namespace), change, subresource=subresource)

    def detach(self) -> None:
        """Leave it running when this process ends, until ``python -m cluster down``."""
        self.processes.detach()

    def _prepare(self) -> None:
        """What has to be there before the first process."""
        self.address = "127.0.0.1"
        self.services = "10.0.0.0/24"
        self.service_address = "10.0.0.1"
        self._ports: Sequence[int] = _free_ports(3)
        self._prefix: Sequence[str | Path] = ()
        self._apiserver_flags: list[str] = ["--endpoint-reconciler-type=none"]

    def _complete(self) -> None:
        """What comes after; here, nothing."""

    def _start_control_plane(self) -> None:
        self.pki = Authority(self.folder / "pki")
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "127.0.0.1"]
        self._serving = self.pki.sign(
            "apiserver", "kube-apiserver", addresses=[*names, self.address, self.service_address]
        )
        self._etcd_pair = self.pki.sign("etcd", "etcd", addresses=["127.0.0.1"])
        self._tokens = self.pki.signing_key("service-accounts")
        self._kubelet_client = self.pki.sign("kubelet-client", "kube-apiserver-kubelet", groups=["system:masters"])
        self.admin = self.pki.sign("admin", "hookline-admin", groups=["system:masters"])
        self.ca_file = self.pki.own.certificate
        self._port, self._etcd_port, peer = self._ports
        kubeconfig = self._kubeconfig("admin", self.admin)
        self._client = ssl.create_default_context(cafile=str(self.ca_file))
        self._client.load_cert_chain(self.admin.certificate, self.admin.key)
        self._api = Api(self.address, self._port, self._client)
        self._start_etcd(peer)
        self.start_apiserver()
        super().__init__(kubeconfig=kubeconfig, kubectl=self._binaries["kubectl"])
        if self.has_controllers:
            self._start_controllers()

    def _kubeconfig(self, name: str, pair: Pair) -> Path:
        server = f"https://{self.address}:{self._port}"
        path = self.folder / f"{name}.kubeconfig"
        return write_kubeconfig(path, server=server, authority=encoded(self.ca_file), pair=pair)

    def _start(self, name: str, *argv: str | Path) -> None:
        """Start a process where the control plane runs."""
        self.processes.start(name, [*self._prefix, *argv])

    def _start_etcd(self, peer_port: int) -> None:
        url = f"https://127.0.0.1:{self._etcd_port}"
        peer = f"http://127.0.0.1:{peer_port}"
        self._start(
            "etcd",
            self._binaries["etcd"],
            f"--data-dir={self.folder / 'etcd'}",
            # Half of the time of a write is the disk's; what a crash of the machine would lose is thrown away anyhow.
            "--unsafe-no-fsync",
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            # Other users of this machine reach the port too.
            "--client-cert-auth",
            f"--trusted-ca-file={self.pki.own.certificate}",
            f"--cert-file={self._etcd_pair.certificate}",
            f"--key-file={self._etcd_pair.key}",
            "--log-level=warn",
        )

    def stop_apiserver(self) -> None:
        """Kill the API server, as a crash would."""
        self.processes.stop("kube-apiserver")

    def start_apiserver(self) -> None:
        """Start it, at the address it always has, with the state it had; back when it is ready."""
        audit: list[str] = []
        if self._audited:
            policy = self.folder / "audit-policy.yaml"
            policy.write_text(_AUDIT_POLICY)
            audit = [f"--audit-policy-file={policy}", f"--audit-log-path={self.audit_log}"]
        self._start(
            "kube-apiserver",
            self._binaries["kube-apiserver"],
            f"--bind-address={self.address}",
            f"--advertise-address={self.address}",
            f"--secure-port={self._port}",
            f"--cert-dir={self.folder / 'pki'}",
            f"--tls-cert-file={self._serving.certificate}",
            f"--tls-private-key-file={self._serving.key}",
            f"--client-ca-file={self.ca_file}",
            f"--etcd-servers=https://127.0.0.1:{self._etcd_port}",
            f"--etcd-cafile={self.ca_file}",
            f"--etcd-certfile={self._etcd_pair.certificate}",
            f"--etcd-keyfile={self._etcd_pair.key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self._tokens.certificate}",
            f"--service-account-signing-key-file={self._tokens.key}",
            f"--service-cluster-ip-range={self.services}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged",
            f"--kubelet-client-certificate={self._kubelet_client.certificate}",
            f"--kubelet-client-key={self._kubelet_client.key}",
            # Nobody can resolve the node's name.
            "--kubelet-preferred-address-types=InternalIP",
            *self._apiserver_flags,
            *audit,
        )
        self.processes.wait_for("the API server", self.ready, process="kube-apiserver")

    def pause(self, name: str) -> None:
        """Stop a process, such as ``etcd``, where it stands: it keeps its connections and answers nobody."""
        signal_marked(self.folder, name, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let it go on."""
        signal_marked(self.folder, name, signal.SIGCONT)

    def _start_controllers(self) -> None:
        pair = self.pki.sign("controllers", "system:kube-controller-manager")
        kubeconfig = self._kubeconfig("controllers", pair)
        self._start(
            "kube-controller-manager",
            self._binaries["kube-controller-manager"],
            f"--kubeconfig={kubeconfig}",
            "--secure-port=0",
            # One is all there is; an election would only delay it.
            "--leader-elect=false",
            "--use-service-account-credentials",
            # The default, 20 requests a second, makes the controllers' own start take 5 s.
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
            f"--service-account-private-key-file={self._tokens.key}",
            f"--root-ca-file={self.ca_file}",
            f"--cluster-signing-cert-file={self.pki.own.certificate}",
            f"--cluster-signing-key-file={self.pki.own.key}",
            # A node that a test kills is missed in seconds, not in a minute.
            "--node-monitor-grace-period=16s",
        )
        # The controllers run when they have made the first thing that everybody needs.
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        self.processes.wait_for("the controllers", lambda: self._answers(account), process="kube-controller-manager")

    def ready(self) -> bool:
        """Whether the API server says that it serves."""
        return self._answers("/readyz")

    def _answers(self, path: str) -> bool:
        with contextlib.suppress(OSError, urllib.error.HTTPError):
            url = f"https://{self.address}:{self._port}{path}"
            # Directly: a proxy in the environment is for addresses elsewhere.
            opener = urllib.request.build_opener(
                urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self._client)
            )
            with opener.open(url, timeout=30) as answer:
                return bool(answer.status == 200)
        return False


def _free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that are ours until a process of the control plane listens there."""
    free: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with contextlib.suppress(OSError):
            free.append(hold(port))
        if len(free) == count:
            break
    return free
