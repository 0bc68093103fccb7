"""``python -m cluster``: a Kubernetes by hand, to look at and to try things on."""

from __future__ import annotations

import argparse
import sys

from cluster.binaries import TOOLS, binary, say
from cluster.control_plane import ControlPlane
from cluster.errors import ClusterError
from cluster.node import Cluster
from cluster.processes import found, in_use, mounts_under, remove

_ABOUT = """\
A real Kubernetes on this machine, without Docker and without an image registry. The programs are built once from
their Go modules (about ten minutes on two cores) into ~/.cache/hookline, and start in seconds after that.
"""
_EXAMPLES = """\
examples:
  eval "$(PYTHONPATH=scripts python -m cluster up)"     a cluster of one node, as root; kubectl uses it from here on
  PYTHONPATH=scripts python -m cluster up --control-plane-only
                                                        the API server and its controllers alone; needs no root
  PYTHONPATH=scripts python -m cluster down             take it away, and whatever a killed test left

The tests bring up their own: `make test` a control plane, `make e2e` a cluster. HOOKLINE_E2E_KUBECONFIG=FILE makes
`make e2e` use a cluster of yours; KUBEBUILDER_ASSETS=FOLDER takes etcd, kube-apiserver and kubectl from setup-envtest;
HOOKLINE_CLUSTER_LOGS=FOLDER keeps the logs.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 1 with a sentence on standard error where it cannot."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("cluster", description=_ABOUT, epilog=_EXAMPLES, formatter_class=form)
    commands = parser.add_subparsers(dest="command", required=True, metavar="up|down|status|binaries")
    up = commands.add_parser("up", help="bring one up, leave it running, print how to use it")
    up.add_argument("--control-plane-only", action="store_true", help="no node: no pods run, and no root is needed")
    down = commands.add_parser("down", help="take away all that `up` and killed tests left")
    down.add_argument("--all", action="store_true", help="also those that a running test uses")
    commands.add_parser("status", help="what runs on this machine")
    binaries = commands.add_parser("binaries", help="build what the cache lacks, print the paths")
    binaries.add_argument("program", nargs="*", help="default: all")
    options = parser.parse_args(arguments)
    try:
        match options.command:
            case "up":
                _up(control_plane_only=options.control_plane_only)
            case "down":
                _down(everything=options.all)
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
        if state.kind == kind.kind and state.detached:
            say(f"one is up already: {folder}")
            print(f"export KUBECONFIG={folder / 'admin.kubeconfig'}")
            return
    running = kind()
    running.detach()
    say(f"up at {running.server}; `python -m cluster down` takes it away")
    print(f"export KUBECONFIG={running.kubeconfig}")


def _down(*, everything: bool) -> None:
    for folder, state in found():
        if in_use(state) and not everything:
            say(f"{folder}: left alone, process {state.owner} uses it (--all takes it away too)")
        else:
            remove(folder)
            say(f"{folder}: gone")


def _status() -> None:
    for folder, state in found():
        use = f"used by process {state.owner}" if in_use(state) else "up" if state.detached else "left over: run `down`"
        mounts = f", {len(mounts_under(folder))} mounts" if mounts_under(folder) else ""
        print(f"{state.kind}: {use}{mounts}\n  KUBECONFIG={folder / 'admin.kubeconfig'}\n  logs: {folder / 'logs'}")


if __name__ == "__main__":
    sys.exit(main())
