"""The processes of one cluster, its folder, and how all of it goes away.

Everything a cluster has on this machine hangs on one folder under the cache: its state, and processes that carry the
folder's path in their environment (``HOOKLINE_CLUSTER``). Environments are inherited and cannot be confused as process
ids can, so whatever was started below a process of ours is found by it, whoever started it and whatever else died.
Nothing of a cluster has to be shut down in order: it was made to be thrown away. So going away is one function of the
folder alone, :func:`remove`, which the cluster calls when it is left, a watchdog calls when the process that owns the
cluster is gone in any other way, and ``python -m cluster down`` calls when the watchdog is gone as well.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.binaries import HERE, cache, say
from cluster.errors import ClusterError
from waiting import PATIENCE_S

MARK = "HOOKLINE_CLUSTER"
NAME = "HOOKLINE_CLUSTER_PROCESS"
CGROUPS = Path("/sys/fs/cgroup")


@dataclass
class State:
    """What is written in ``state.json``: who owns the cluster, and what is not found through its processes."""

    kind: str
    owner: int
    # The process number of a dead owner may be another's today: with the time it started it is not.
    owner_started: str
    # It was left running by ``up``, and ends by ``down`` alone.
    detached: bool = False
    # The parent of the cgroups of its pods, as a name under each controller.
    cgroup: str = ""
    # The host's end of the cable to the node.
    cable: str = ""


class Processes:
    """The folder and the processes of one cluster."""

    def __init__(self, kind: str) -> None:
        self.folder = runs() / f"{kind}-{secrets.token_hex(3)}"
        self.folder.mkdir(parents=True, mode=0o700)
        (self.folder / "logs").mkdir()
        self.state = State(kind, os.getpid(), started(os.getpid()))
        self.write_state()
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        # A process of its own session: what ends the owner, Ctrl-C in a terminal included, must not end it.
        self._watchdog = subprocess.Popen(
            [sys.executable, "-m", "cluster.processes", str(self.folder)],
            env=os.environ | {"PYTHONPATH": str(HERE.parent)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def write_state(self) -> None:
        """Keep ``state`` where the watchdog and ``down`` read it."""
        target = self.folder / "state.json"
        new = target.with_suffix(".new")
        new.write_text(json.dumps(asdict(self.state)))
        new.replace(target)

    def start(
        self, name: str, argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process that ends with the cluster; what it prints is in ``logs/NAME.log``."""
        with (self.folder / "logs" / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [str(word) for word in argv],
                env=os.environ | dict(env or {}) | {MARK: str(self.folder), NAME: name},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.folder,
            )
        self._children[name] = process
        return process

    def stop(self, name: str) -> None:
        """End the processes that were started under this name, at once, and what they started."""
        kill_marked(self.folder, name)
        if process := self._children.pop(name, None):
            process.wait()

    def wait_for(self, what: str, ready: Callable[[], bool], *, process: str) -> None:
        """Ask ``ready`` until it says yes.

        Raises:
            ClusterError: Time is up, or the process ended; with the last lines of its log.
        """
        began = time.monotonic()
        while not ready():
            child = self._children[process]
            if child.poll() is not None:
                raise ClusterError(
                    f"{process} ended with status {child.returncode} before {what} came up:\n{self.last_lines(process)}"
                )
            if time.monotonic() - began > PATIENCE_S:
                raise ClusterError(f"{what} did not come up within {PATIENCE_S:.0f} s:\n{self.last_lines(process)}")
            time.sleep(0.05)
        say(f"  {what}: after {time.monotonic() - began:.1f} s")

    def last_lines(self, name: str) -> str:
        """The end of a process's log."""
        with contextlib.suppress(FileNotFoundError):
            return "\n".join((self.folder / "logs" / f"{name}.log").read_text(errors="replace").splitlines()[-15:])
        return ""

    def detach(self) -> None:
        """Leave it running when this process ends; ``down`` takes it away."""
        self.state.detached = True
        self.write_state()
        self._end_watchdog()

    def close(self) -> None:
        """End all of it. Where HOOKLINE_CLUSTER_LOGS names a folder, the logs are kept there."""
        if kept := os.environ.get("HOOKLINE_CLUSTER_LOGS"):
            shutil.copytree(self.folder / "logs", Path(kept) / self.folder.name, dirs_exist_ok=True)
        try:
            remove(self.folder)
        finally:
            self._end_watchdog()
            # A killed child stays in the process table until its parent has looked.
            for process in self._children.values():
                process.wait()

    def _end_watchdog(self) -> None:
        self._watchdog.kill()
        self._watchdog.wait()


def runs() -> Path:
    """The folder of the folders of clusters."""
    return cache() / "run"


def started(pid: int) -> str:
    """When a process started, in ticks since boot; empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def found() -> Iterator[tuple[Path, State]]:
    """All clusters on this machine that this user has, living or left over."""
    for file in sorted(runs().glob("*/state.json")):
        with contextlib.suppress(OSError, ValueError, TypeError):
            yield file.parent, State(**json.loads(file.read_text()))


def in_use(state: State) -> bool:
    """Whether the process that brought it up still runs."""
    return not state.detached and bool(state.owner_started) and started(state.owner) == state.owner_started


def marked(folder: Path, name: str | None = None) -> Iterator[int]:
    """The processes of a cluster, as file descriptors of theirs: a number may be another process a moment later."""
    wanted = {f"{MARK}={folder}".encode()} | ({f"{NAME}={name}".encode()} if name else set())
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(int(entry.name))
            try:
                if wanted <= set((entry / "environ").read_bytes().split(b"\0")):
                    yield descriptor
            finally:
                os.close(descriptor)


def kill_marked(folder: Path, name: str | None = None) -> None:
    """Kill until none is left: one may start another while we look.

    Raises:
        ClusterError: Some do not die in the time that anything has; they hang in the kernel.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        count = 0
        for descriptor in marked(folder, name):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            count += 1
        if not count:
            return
        if time.monotonic() > deadline:
            raise ClusterError(f"{count} processes of {folder} do not die; see /proc/PID/stack of those")
        time.sleep(0.01)


def signal_marked(folder: Path, name: str, number: signal.Signals) -> None:
    """Send a signal to the processes that were started under this name, and to what they started."""
    for descriptor in marked(folder, name):
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, number)


def mounts_under(folder: Path) -> list[str]:
    """Mount points in a folder, the deepest first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    # The kernel writes spaces and the like as octal digits.
    points = [re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), line.split()[4]) for line in lines]
    return sorted((point for point in points if Path(point).is_relative_to(folder)), key=len, reverse=True)


def remove(folder: Path) -> None:
    """Take a cluster away: processes, cgroups, the cable, mounts, and last its folder, which says that it was there."""
    state = next((state for path, state in found() if path == folder), None)
    kill_marked(folder)
    if state and state.cgroup:
        for controller in CGROUPS.iterdir():
            _remove_cgroup(controller / state.cgroup)
        _remove_cgroup(CGROUPS / state.cgroup)
    if state and state.cable:
        # It goes with the network namespace, but a moment later than its last process.
        subprocess.run(["ip", "link", "delete", state.cable], capture_output=True, check=False)
    for point in mounts_under(folder):
        subprocess.run(["umount", "--lazy", point], capture_output=True, check=False)
    # A mount that is left would have its content deleted, whatever it is.
    if left := mounts_under(folder):
        raise ClusterError(f"{folder} is not removed, as these mounts cannot be undone: {', '.join(left)}")
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        raise ClusterError(f"{folder} cannot be removed; is it another user's? Remove it by hand")


def _remove_cgroup(folder: Path) -> None:
    """The deepest first. Killed processes leave their group a moment after they are gone from /proc."""
    if not folder.is_dir():
        return
    for path, _, _ in os.walk(folder, topdown=False):
        group = Path(path)
        for _ in range(200):
            try:
                for pid in (group / "cgroup.procs").read_text().split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                group.rmdir()
                break
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.02)


def watch(folder: Path) -> None:
    """Wait for the end of the cluster's owner, and remove what it left."""
    state = State(**json.loads((folder / "state.json").read_text()))
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(state.owner)
        if started(state.owner) == state.owner_started:
            select.select([descriptor], [], [])
    remove(folder)


if __name__ == "__main__":
    watch(Path(sys.argv[1]))
