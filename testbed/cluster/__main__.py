"""``python -m cluster``: a Kubernetes by hand, to look at and to try things on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cluster.archive import full_name, name_of
from cluster.binaries import TOOLS, binary, say
from cluster.control_plane import ControlPlane
from cluster.errors import ClusterError
from cluster.node import Cluster, load_image
from cluster.processes import found, in_use, marked, remove

_ABOUT = """\
A real Kubernetes on this machine, without Docker and without an image registry. The programs are built once from
their Go modules (about ten minutes on two cores) into ~/.cache/hookline, and start in seconds after that.
"""
_EXAMPLES = """\
examples:
  eval "$(PYTHONPATH=testbed python -m cluster up)"     a cluster of one node, as root; kubectl uses it from here on
  PYTHONPATH=testbed python -m cluster up --control-plane-only
                                                        the API server and its controllers alone; needs no root
  make cluster-load IMAGE=build/images/hookline-sidecar.tar
                                                        give its node an image, under the name that the archive says
  PYTHONPATH=testbed python -m cluster down             take it away, and whatever a killed test left

The tests bring up their own: `make test` a control plane, `make e2e` a cluster.

environment:
  HOOKLINE_E2E_KUBECONFIG=FILE     `make e2e` uses a cluster of yours ...
  HOOKLINE_E2E_LOAD="COMMAND ..."  ... whose nodes get images by this: "minikube image load", "k3d image import -c NAME"
  KUBEBUILDER_ASSETS=FOLDER        `make test` takes etcd, kube-apiserver and kubectl from there (setup-envtest)
  HOOKLINE_CLUSTER_LOGS=FOLDER     the logs are kept there
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 1 with a sentence on standard error where it cannot."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("cluster", description=_ABOUT, epilog=_EXAMPLES, formatter_class=form)
    commands = parser.add_subparsers(dest="command", required=True, metavar="up|load|down|status|binaries")
    up = commands.add_parser("up", help="bring a cluster up, leave it running, print how to use it")
    up.add_argument("--control-plane-only", action="store_true", help="without a node: no pods run, root is not needed")
    load = commands.add_parser("load", help="copy an image to the node of the running cluster, which has no registry")
    load.add_argument(
        "archive", type=Path, help="image archive of `docker save`, `buildah push oci-archive:…` or `make images`"
    )
    load.add_argument("--name", help="name of the image in pods (default: the name in the archive)")
    load.add_argument("--folder", type=Path, help="folder of the cluster, as `status` names it, if several are up")
    down = commands.add_parser("down", help="remove all clusters that `up` and killed tests left")
    down.add_argument("folder", nargs="*", type=Path, help="folders to remove, as `status` names them (default: all)")
    down.add_argument("--all", action="store_true", help="also remove clusters that a running test uses")
    commands.add_parser("status", help="list the clusters on this machine")
    binaries = commands.add_parser("binaries", help="build the programs that the cache lacks, and print their paths")
    binaries.add_argument("program", nargs="*", help="programs to build (default: all)")
    options = parser.parse_args(arguments)
    try:
        match options.command:
            case "up":
                _up(control_plane_only=options.control_plane_only)
            case "load":
                _load(options.archive, options.name, options.folder)
            case "down":
                _down(options.folder, everything=options.all)
            case "status":
                _status()
            case _:
                for program in options.program or [program for tool in TOOLS for program in tool.programs]:
                    print(binary(program))
    except ClusterError as error:
        say(f"cluster: {error}")
        return 1
    return 0


def _up(*, control_plane_only: bool) -> None:
    kind = ControlPlane if control_plane_only else Cluster
    for folder, state in found():
        if state.kind == kind.kind and state.detached and any(marked(folder)):
            say(f"one is up already: {folder}")
            _tell_of_images(kind)
            print(f"export KUBECONFIG={folder / 'admin.kubeconfig'}")
            return
    running = kind()
    running.detach()
    say(f"up at {running.server}; `python -m cluster down` takes it away")
    _tell_of_images(kind)
    print(f"export KUBECONFIG={running.kubeconfig}")


def _tell_of_images(kind: type[ControlPlane]) -> None:
    if kind is Cluster:
        say("its node pulls nothing. To give it an image: make cluster-load IMAGE=build/images/hookline-sidecar.tar")


def _load(archive: Path, name: str | None, wanted: Path | None) -> None:
    """Raises ClusterError, also where it is not clear which cluster is meant."""
    if not archive.is_file():
        raise ClusterError(f"{archive} is not there; `make images` writes ours to build/images")
    up = [
        folder
        for folder, state in found()
        if state.kind == Cluster.kind and any(marked(folder)) and wanted in {None, folder}
    ]
    if len(up) != 1:
        which = (
            f"{len(up)} are up, say which with --folder: {', '.join(map(str, up))}"
            if up
            else "there is none with a node"
        )
        raise ClusterError(f"no cluster to load it into: {which}; `make cluster` brings one up")
    called = full_name(name) if name else name_of(archive)
    load_image(up[0], archive, called)
    say(f"{called} is in {up[0]}; pods use it with imagePullPolicy Never, or IfNotPresent and a tag other than latest")


def _down(wanted: Sequence[Path], *, everything: bool) -> None:
    for folder, state in found():
        if wanted and folder not in wanted:
            continue
        if in_use(state) and not everything:
            say(f"{folder}: left alone, process {state.owner} uses it (--all takes it away too)")
        else:
            remove(folder)
            say(f"{folder}: gone")


def _status() -> None:
    for folder, state in found():
        use = "left over, `down` takes it away"
        if in_use(state):
            use = f"used by process {state.owner}"
        elif state.detached and any(marked(folder)):
            use = "up"
        print(f"{folder}: {state.kind}, {use}")
        print(f"  KUBECONFIG={folder / 'admin.kubeconfig'}")


if __name__ == "__main__":
    sys.exit(main())
