"""Clusters that somebody else runs: one that a kubeconfig names, or kind in Docker; and which one a test gets."""

from __future__ import annotations

import ipaddress
import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cluster.access import Access
from cluster.archive import rename_image
from cluster.binaries import ROOT, binary, say
from cluster.errors import ClusterError, NotPossibleHereError
from cluster.node import Cluster

KUBECONFIG = "HOOKLINE_E2E_KUBECONFIG"
# How this cluster's nodes get an image: a command, to which the path of an archive is appended.
LOAD = "HOOKLINE_E2E_LOAD"
_KIND = "hookline"


class Existing(Access):
    """The cluster of a kubeconfig. What is not there through the API server alone raises NotPossibleHereError."""

    def __init__(self, kubeconfig: Path) -> None:
        if not kubeconfig.is_file():
            raise ClusterError(f"{kubeconfig} is not there; {KUBECONFIG} has to name a kubeconfig")
        kubectl = shutil.which("kubectl")
        super().__init__(kubeconfig=kubeconfig, kubectl=Path(kubectl) if kubectl else binary("kubectl"))
        try:
            self.kubectl("version", "--request-timeout=10s")
        except ClusterError as error:
            raise ClusterError(f"the cluster of {kubeconfig} does not answer: {error}") from error

    def load_image(self, archive: Path, name: str) -> None:
        """By the command in HOOKLINE_E2E_LOAD, such as ``minikube image load`` or ``k3d image import -c NAME``."""
        command = shlex.split(os.environ.get(LOAD, ""))
        if not command:
            raise NotPossibleHereError(
                f"the nodes of the cluster at {self.server} have no image {name}. Set {LOAD} to the command that gives "
                "them one, as in minikube image load: the path of an archive is appended"
            )
        self._load(command, archive, name)

    def _load(self, command: Sequence[str], archive: Path, name: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            _output(*command, str(rename_image(archive, name, Path(folder) / "image.tar")))


class Kind(Existing):
    """kind's cluster ``hookline``, as kind-config.yaml describes it. One that is there already is used, and stays."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._made = _KIND not in _output("kind", "get", "clusters").split()
        try:
            if self._made:
                say("kind creates a cluster …")
                _output("kind", "create", "cluster", "--name", _KIND, "--config", str(ROOT / "kind-config.yaml"))
            kubeconfig = Path(self._folder.name) / "kubeconfig"
            kubeconfig.touch(mode=0o600)
            kubeconfig.write_text(_output("kind", "get", "kubeconfig", "--name", _KIND))
            super().__init__(kubeconfig)
        except BaseException:
            self.close()
            raise

    @property
    def gateway(self) -> str:
        """Docker's end of the network that kind makes."""
        (network,) = json.loads(_output("docker", "network", "inspect", "kind"))
        gateways = [entry["Gateway"] for entry in network["IPAM"]["Config"] if "Gateway" in entry]
        for gateway in gateways:
            if ipaddress.ip_address(gateway).version == 4:
                return str(gateway)
        raise NotPossibleHereError(f"Docker's network of kind has no IPv4 gateway: {gateways}")

    def load_image(self, archive: Path, name: str) -> None:
        """Into each node."""
        self._load(["kind", "load", "image-archive", "--name", _KIND], archive, name)

    def close(self) -> None:
        """Delete the cluster, if this object made it."""
        self._folder.cleanup()
        if self._made:
            _output("kind", "delete", "cluster", "--name", _KIND)


def open_cluster() -> Access:
    """The cluster for `make e2e`: that of HOOKLINE_E2E_KUBECONFIG, else kind where Docker runs, else one of ours.

    Raises:
        NotPossibleHereError: None is to be had on this machine; the sentence says what would help.
        ClusterError: It ought to be had, and failed.
    """
    if given := os.environ.get(KUBECONFIG):
        return Existing(Path(given))
    if shutil.which("kind") and shutil.which("docker"):
        running = subprocess.run(["docker", "info"], capture_output=True, check=False)
        if running.returncode == 0:
            return Kind()
    return Cluster()


def _output(*argv: str) -> str:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout
