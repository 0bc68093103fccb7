"""A control plane with a node that runs containers, on a machine that needs neither Docker nor an image registry.

The node is a process with namespaces of its own: network, mounts, process numbers. The containers and all that Linux
needs for them (veths, routes, iptables rules, overlay mounts) are inside, so that the kernel takes them away when
that process dies, whatever else goes wrong, and this machine's own settings are never touched. From outside one sees:

* one veth, ``hklN``, with routes to the node (198.18.N.2), its pods and its services. The tests reach all three;
* cgroups below ``hookline-N``;
* files below the cluster's folder.

Pods reach each other, the services, the node, and this machine at :attr:`Cluster.gateway`. There is no way further.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cluster.archive import machine, rename_image, write_image
from cluster.binaries import NODE, binary
from cluster.control_plane import ControlPlane
from cluster.errors import ClusterError, NotPossibleHereError
from cluster.processes import CGROUPS
from waiting import PATIENCE_S

# 198.18.0.0/15 is for benchmarks of network devices (RFC 2544): no network that this machine is in routes it.
_CABLES = range(64)
_CNI = Path("/usr/lib/cni")
_PROGRAMS = ("containerd", "ctr", "runc", "iptables", "ip", "nsenter", "unshare", "mount")
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
PAUSE = "hookline.test/pause:1"
COREDNS = "hookline.test/coredns:1"

# The kernel has one of each of these for all its containers, and the kubelet sets them as it wants them. It finds
# files of ours in their place: a test must not make this machine reboot ten seconds after a panic.
_TUNABLES = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
# Where containerd, CNI and the kubelet write whatever they are told: an empty one of each, for the node alone.
_HIDDEN = ("/run", "/var/log", "/var/lib")

# Process 1 of the node. `unshare` made all mounts private; they have to be shared among the node's own mount
# namespaces, which is what pods with mount propagation need.
_INIT = """
set -e
folder=$1 pause=$2; shift 2
mount --make-rshared /
for hidden in {hidden}; do mount -t tmpfs -o mode=755 tmpfs "$hidden"; done
for tunable in {tunables}; do
  [ -e "/proc/sys/$tunable" ] || continue
  mkdir -p "$folder/tunables/$(dirname "$tunable")"
  cat "/proc/sys/$tunable" > "$folder/tunables/$tunable"
  mount --bind "$folder/tunables/$tunable" "/proc/sys/$tunable"
done
: > "$folder/node-is-made"
exec "$pause"
""".format(hidden=" ".join(_HIDDEN), tunables=" ".join(_TUNABLES))


class Cluster(ControlPlane):
    """A Kubernetes of one node. Needs root."""

    kind = "cluster"

    def __init__(self) -> None:
        _check_machine()
        super().__init__()

    def _find_binaries(self) -> dict[str, Path]:
        return {program: binary(program) for program in NODE}

    @property
    def gateway(self) -> str:
        """The host's end of the cable."""
        return f"198.18.{self._number}.1"

    def another_gateway(self) -> str:
        """A second address of this machine that pods reach: for what must not share one with another server."""
        address = f"198.18.{64 + self._number}.1"
        held = subprocess.run(
            ["ip", "address", "show", "to", address], capture_output=True, text=True, check=True
        ).stdout
        if not held:
            self._run("ip", "address", "add", f"{address}/32", "dev", self.processes.state.cable)
            self._run(*self._prefix, "ip", "route", "add", f"{address}/32", "via", self.gateway)
        return address

    @property
    def node_ip(self) -> str:
        """The node's end of the cable."""
        return f"198.18.{self._number}.2"

    def load_image(self, archive: Path, name: str) -> None:
        """Into the node's containerd."""
        load_image(self.folder, archive, name)

    def spawn(
        self, argv: Sequence[str | Path], *, name: str, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Within the node's network and this machine's file system."""
        return self.processes.start(name, [*self._prefix, *argv], env=env)

    def stop(self, name: str) -> None:
        """At once."""
        self.processes.stop(name)

    def _prepare(self) -> None:
        self._number = self._make_node()
        number = self._number
        self.pods = f"198.19.{number}.0/24"
        self.address = self.node_ip
        self.services = f"198.18.{128 + number}.0/24"
        self.service_address = f"198.18.{128 + number}.1"
        self._dns = f"198.18.{128 + number}.10"
        self._ports = (6443, 2379, 2380)
        self._prefix = ("nsenter", f"--target={self._init}", "--net")
        self._apiserver_flags = []
        self._connect()
        self._make_cgroups()
        self._start_containerd()

    def _make_node(self) -> int:
        """The namespaces, and a cable into them, whose number is the cluster's."""
        hidden = [path for path in _HIDDEN if self.folder.is_relative_to(path)]
        if hidden:
            raise NotPossibleHereError(
                f"the node has a {hidden[0]} of its own and would not see {self.folder}. Set XDG_CACHE_HOME elsewhere"
            )
        argv = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc"]
        outer = self.processes.start("node", [*argv, "sh", "-c", _INIT, "sh", self.folder, self._binaries["pause"]])
        made = self.folder / "node-is-made"
        self.processes.wait_for("the node's namespaces", made.exists, process="node")
        self._init = _child_of(outer.pid)
        for number in _CABLES:
            cable = f"hkl{number}"
            argv = ["ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(self._init)]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                self.processes.state.cable = cable
                self.processes.write_state()
                return number
            if "exists" not in done.stderr:
                raise ClusterError(f"no cable to the node: {done.stderr.strip()}")
        raise ClusterError(f"{len(_CABLES)} clusters are on this machine; see `python -m cluster status`")

    def _connect(self) -> None:
        cable = self.processes.state.cable
        ip = functools.partial(self._run, "ip")
        ip("address", "add", f"{self.gateway}/30", "dev", cable)
        ip("link", "set", cable, "up")
        for network in (self.pods, self.services):
            ip("route", "add", network, "via", self.node_ip)
        inside = functools.partial(self._run, *self._prefix)
        inside("ip", "link", "set", "lo", "up")
        inside("ip", "address", "add", f"{self.node_ip}/30", "dev", "eth0")
        inside("ip", "link", "set", "eth0", "up")
        # A process on the node, such as the API server when it calls a webhook, looks for a route before kube-proxy's
        # rules turn the service's address into a pod's. Any route will do.
        inside("ip", "route", "add", self.services, "dev", "eth0")
        inside("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")

    def _make_cgroups(self) -> None:
        name = f"hookline-{self._number}"
        self.processes.state.cgroup = name
        self.processes.write_state()
        try:
            if (CGROUPS / "cgroup.controllers").exists():
                controllers = [f"+{controller}" for controller in (CGROUPS / "cgroup.controllers").read_text().split()]
                (CGROUPS / name).mkdir(exist_ok=True)
                for folder in (CGROUPS, CGROUPS / name):
                    (folder / "cgroup.subtree_control").write_text(" ".join(controllers))
            else:
                for controller in CGROUPS.iterdir():
                    if (controller / "cgroup.procs").exists() and not controller.is_symlink():
                        (controller / name).mkdir(exist_ok=True)
        except OSError as error:
            raise NotPossibleHereError(
                f"the cgroups of pods cannot be made here ({error}): is this a container without the rights to? Set "
                "HOOKLINE_E2E_KUBECONFIG to a kubeconfig of a cluster of yours"
            ) from error

    def _start_in_node(self, name: str, *argv: str | Path) -> None:
        """Start a process that makes mounts or has children in containers: it is inside with all of itself."""
        prefix = ["nsenter", f"--target={self._init}", "--net", "--mount", "--pid"]
        self.processes.start(name, [*prefix, *argv], env={"PATH": f"{os.environ.get('PATH', '')}:{_SBIN}"})

    def _start_containerd(self) -> None:
        folder = self.folder / "containerd"
        folder.mkdir()
        self._socket = _socket(self.folder)
        networks = self.folder / "cni"
        networks.mkdir()
        (folder / "config.toml").write_text(_CONTAINERD.format(folder=folder, pause=PAUSE, networks=networks, cni=_CNI))
        (networks / "10-pods.conflist").write_text(json.dumps(_pod_network(self.pods, self.folder)))
        self._start_in_node("containerd", "containerd", "--config", folder / "config.toml")

    def _complete(self) -> None:
        """The node, once there is an API server for it."""
        self._start_kubelet()
        self._start_proxy()
        scheduler = self._kubeconfig("scheduler", self.pki.sign("scheduler", "system:kube-scheduler"))
        flags = [f"--kubeconfig={scheduler}", "--leader-elect=false", "--secure-port=0"]
        self._start("kube-scheduler", self._binaries["kube-scheduler"], *flags)
        self.processes.wait_for("containerd", self._containerd_answers, process="containerd")
        for name, program in ((PAUSE, "pause"), (COREDNS, "coredns")):
            archive = self.folder / f"{program}.tar"
            write_image(archive, name=name, program=self._binaries[program], architecture=machine())
            self.load_image(archive, name)
            archive.unlink()
        self.apply(*_dns(self._dns))
        self.processes.wait_for("the node", self._node_is_ready, process="kubelet")
        patience = f"--timeout={PATIENCE_S:.0f}s"
        self.kubectl("rollout", "status", "deployment/coredns", "--namespace=kube-system", patience)

    def _start_kubelet(self) -> None:
        folder = self.folder / "kubelet"
        folder.mkdir()
        serving = self.pki.sign(
            "kubelet", "system:node:node", groups=["system:nodes"], addresses=[self.node_ip, "node"]
        )
        (folder / "resolv.conf").write_text("")
        config = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self.node_ip,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self.ca_file)},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(serving.certificate),
            "tlsPrivateKeyFile": str(serving.key),
            "containerRuntimeEndpoint": f"unix://{self._socket}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/hookline-{self._number}",
            "enforceNodeAllocatable": [],
            "failSwapOn": False,
            "failCgroupV1": False,
            # Less than that of its parent takes a right that a container of a build machine may lack.
            "oomScoreAdj": 0,
            "clusterDNS": [self._dns],
            "clusterDomain": "cluster.local",
            # What the machine itself asks is nothing for pods: no name of theirs leaves it.
            "resolvConf": str(folder / "resolv.conf"),
            # A full disk of the machine must neither evict pods nor delete images: nobody could pull them again.
            "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%"},
            "imageGCHighThresholdPercent": 100,
            "localStorageCapacityIsolation": False,
            "podLogsDir": str(self.folder / "pods"),
            "volumePluginDir": str(folder / "volume-plugins"),
            # How soon a changed ConfigMap or Secret is seen in a volume.
            "syncFrequency": "5s",
            "configMapAndSecretChangeDetectionStrategy": "Watch",
            "serializeImagePulls": False,
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        self._start_in_node(
            "kubelet",
            self._binaries["kubelet"],
            f"--config={folder / 'config.yaml'}",
            f"--kubeconfig={self._kubeconfig('kubelet', serving)}",
            f"--root-dir={folder}",
            f"--cert-dir={self.folder / 'pki'}",
            "--hostname-override=node",
            f"--node-ip={self.node_ip}",
        )

    def _start_proxy(self) -> None:
        kubeconfig = self._kubeconfig("proxy", self.pki.sign("proxy", "system:kube-proxy"))
        config = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": str(kubeconfig)},
            "mode": "iptables",
            # At once, not once a second: there are few services.
            "iptables": {"minSyncPeriod": "0s"},
            "clusterCIDR": self.pods,
            "hostnameOverride": "node",
            "bindAddress": self.node_ip,
            # Zero is: leave the kernel's. They are the machine's, not the network namespace's.
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        }
        path = self.folder / "proxy.yaml"
        path.write_text(yaml.safe_dump(config))
        self._start_in_node("kube-proxy", self._binaries["kube-proxy"], f"--config={path}")

    def _containerd_answers(self) -> bool:
        argv = ["ctr", f"--address={self._socket}", "version"]
        return self._socket.exists() and subprocess.run(argv, capture_output=True, check=False).returncode == 0

    def _node_is_ready(self) -> bool:
        try:
            conditions = self.get("node", "node")["status"]["conditions"]
        except ClusterError:
            return False
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    def _run(self, *argv: str | Path) -> None:
        _run(*argv)


def load_image(cluster: Path, archive: Path, name: str) -> None:
    """Put an image into the node of the cluster in that folder, whoever started it. Raises ClusterError."""
    with tempfile.TemporaryDirectory(dir=cluster) as folder:
        renamed = rename_image(archive, name, Path(folder) / "image.tar")
        _run("ctr", f"--address={_socket(cluster)}", "--namespace=k8s.io", "images", "import", renamed)


def _socket(cluster: Path) -> Path:
    """Of the node's containerd."""
    return cluster / "containerd" / "containerd.sock"


def _run(*argv: str | Path) -> None:
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(map(str, argv))}: {done.stderr.strip() or done.stdout.strip()}")


def _check_machine() -> None:
    if os.geteuid() != 0:
        raise NotPossibleHereError(
            "a node needs root, for network namespaces and containers. Run it as root, or set HOOKLINE_E2E_KUBECONFIG "
            "to a kubeconfig of a cluster of yours"
        )
    missing = [p for p in _PROGRAMS if not shutil.which(p, path=f"{os.environ.get('PATH', '')}:{_SBIN}")]
    missing += [str(_CNI / plugin) for plugin in ("ptp", "portmap", "host-local") if not (_CNI / plugin).exists()]
    if missing:
        raise NotPossibleHereError(f"missing: {', '.join(missing)}. On Debian: sh scripts/cluster-packages.sh")


def _child_of(parent: int) -> int:
    """The process that ``unshare`` forked: the node's process 1, under the number it has outside."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            if int(stat.rpartition(")")[2].split()[1]) == parent:
                return int(entry.name)
    raise ClusterError("the node's first process is gone")


def _pod_network(pods: str, folder: Path) -> dict[str, Any]:
    """Each pod at a cable of its own, routed by the node.

    On a bridge, answers of a service would pass by the rules that turn addresses back, unless the kernel has
    br_netfilter, which is the machine's to load.
    """
    ipam = {"type": "host-local", "ranges": [[{"subnet": pods}]], "dataDir": str(folder / "addresses")}
    return {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {"type": "ptp", "ipMasq": False, "ipam": ipam | {"routes": [{"dst": "0.0.0.0/0"}]}},
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


# containerd beside any other of the machine: root, state and socket are its own, and what it keeps at fixed places
# (/run/containerd/s, /var/lib/cni) is hidden in the node's mounts.
_CONTAINERD = """
version = 2
root = "{folder}/root"
state = "{folder}/state"
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Neither lower scores of the out-of-memory killer nor this controller are to be had wherever tests run.
  restrict_oom_score_adj = true
  disable_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni}"
    conf_dir = "{networks}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
"""

# Names outside the cluster do not exist, and are answered so at once: nothing in a test may wait for the Internet. In
# one block with the other, the template would come first.
_COREFILE = """
cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {
    errors
    health
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        ttl 1
    }
}
.:53 {
    errors
    template ANY ANY . {
        rcode NXDOMAIN
    }
}
"""


def _dns(address: str) -> list[dict[str, Any]]:
    """CoreDNS, as kubeadm would install it but for its size."""
    meta = {"name": "coredns", "namespace": "kube-system"}
    labels = {"k8s-app": "kube-dns"}
    role = {
        "rules": [
            {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        ]
    }
    binding = {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "hookline:coredns"},
        "subjects": [{"kind": "ServiceAccount", **meta}],
    }
    container = {
        "name": "coredns",
        "image": COREDNS,
        "imagePullPolicy": "Never",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "securityContext": {"runAsUser": 0},  # the port is a low one
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns"}],
    }
    pod = {
        "serviceAccountName": "coredns",
        "priorityClassName": "system-cluster-critical",
        "dnsPolicy": "Default",
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
    }
    deployment = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}
    ports = [{"name": p.lower(), "port": 53, "protocol": p} for p in ("UDP", "TCP")]
    rbac = "rbac.authorization.k8s.io/v1"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {"apiVersion": rbac, "kind": "ClusterRole", "metadata": {"name": "hookline:coredns"}, **role},
        {"apiVersion": rbac, "kind": "ClusterRoleBinding", "metadata": {"name": "hookline:coredns"}, **binding},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"Corefile": _COREFILE}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta | {"labels": labels}, "spec": deployment},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": labels},
            "spec": {"selector": labels, "clusterIP": address, "ports": ports},
        },
    ]
