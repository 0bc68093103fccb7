"""A memory cgroup for one program and all its children, as the kubelet makes one for a container.

Three ways, the first that the machine has: cgroup v1, v2 with the memory controller delegated to us, and neither.
Without a cgroup nobody is killed: the sum of what the processes hold is read instead, and bounded by the same number.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from pathlib import Path
from typing import Final, Self

import yaml

from waiting import until

ROOT: Final = Path(__file__).parents[2]
_V1: Final = Path("/sys/fs/cgroup/memory")
_V2: Final = Path("/sys/fs/cgroup")
_LOOK_S: Final = 0.02
"""Between two looks at what is held: a peak of anonymous memory that is shorter is seen by the kernel alone."""
_UNITS: Final = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def chart_limit(program: str) -> int:
    """The memory limit of ``sidecar`` or ``operator`` in helm/values.yaml, in bytes."""
    values = yaml.safe_load((ROOT / "helm" / "values.yaml").read_text())
    resources = values["sidecar"]["resources"] if program == "sidecar" else values["resources"]
    text = str(resources["limits"]["memory"])
    return int(text[:-2]) * _UNITS[text[-2:]]


class Box:
    """A limit of so many bytes. What is started with ``command`` in front is in it, and all that it starts.

    Attributes:
        way: ``cgroup v1``, ``cgroup v2`` or ``no cgroup: RSS``.
        held: The most anonymous memory that was seen at one time since ``reset``, in bytes: no kernel takes it back.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._folder: Path | None = None
        self.way = "no cgroup: RSS"
        for way, make in ("cgroup v1", self._make_v1), ("cgroup v2", self._make_v2):
            try:
                self._folder = make()
            except OSError:
                continue
            self.way = way
            break
        self._roots: list[int] = []
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watcher.join()
        if self._folder is not None:
            until(self._remove, f"an end of the processes in {self._folder}", ignoring=(OSError,))

    @property
    def command(self) -> list[str]:
        """What goes in front of a program's arguments: a shell that moves itself in, and becomes the program."""
        if self._folder is None:
            return []
        return ["/bin/sh", "-c", f'echo $$ >"{self._folder}/cgroup.procs" && exec "$@"', "box"]

    def watches(self, pid: int) -> None:
        """Count this process and its children; needed where there is no cgroup."""
        self._roots.append(pid)

    def reset(self) -> None:
        """Forget the peaks so far."""
        self.held = 0
        if self._folder is not None:
            name = "memory.max_usage_in_bytes" if self.way == "cgroup v1" else "memory.peak"
            with contextlib.suppress(OSError):  # v2 lets nobody reset it before Linux 6.12
                (self._folder / name).write_text("0")

    @property
    def peak(self) -> int:
        """The most memory since ``reset``, files that the kernel caches included; without a cgroup, ``held``."""
        if self._folder is None:
            return self.held
        name = "memory.max_usage_in_bytes" if self.way == "cgroup v1" else "memory.peak"
        try:
            return int((self._folder / name).read_text())
        except OSError:
            return self.held

    @property
    def kills(self) -> int:
        """Processes that the kernel killed for want of memory; without a cgroup, whether ``held`` passed the limit."""
        if self._folder is None:
            return int(self.held > self.limit)
        name = "memory.oom_control" if self.way == "cgroup v1" else "memory.events"
        lines = dict(line.split() for line in (self._folder / name).read_text().splitlines())
        return int(lines.get("oom_kill", 0))

    def now(self) -> int:
        """Anonymous memory at this moment, in bytes."""
        if self._folder is None:
            return sum(_resident(pid) for root in self._roots for pid in family(root))
        names = ("total_rss", "total_shmem") if self.way == "cgroup v1" else ("anon", "shmem")
        lines = dict(line.split() for line in (self._folder / "memory.stat").read_text().splitlines())
        return sum(int(lines.get(name, 0)) for name in names)

    def _watch(self) -> None:
        while not self._ended.wait(_LOOK_S):
            with contextlib.suppress(OSError):
                self.held = max(self.held, self.now())

    def _make_v1(self) -> Path:
        folder = _V1 / f"hookline-exhaustion-{secrets.token_hex(4)}"
        folder.mkdir()
        try:
            (folder / "memory.limit_in_bytes").write_text(str(self.limit))
            with contextlib.suppress(OSError):  # no swap: as the kubelet runs containers; not every kernel accounts it
                (folder / "memory.memsw.limit_in_bytes").write_text(str(self.limit))
        except OSError:
            folder.rmdir()
            raise
        return folder

    def _make_v2(self) -> Path:
        own = next(line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
        # Processes may be in leaves alone, so the box is beside ours, where the parent hands the controller down.
        parent = (_V2 / own.strip("/")).parent
        if "memory" not in (parent / "cgroup.subtree_control").read_text().split():
            raise OSError(f"{parent} hands no memory controller down")
        folder = parent / f"hookline-exhaustion-{secrets.token_hex(4)}"
        folder.mkdir()
        try:
            (folder / "memory.max").write_text(str(self.limit))
            with contextlib.suppress(OSError):
                (folder / "memory.swap.max").write_text("0")
        except OSError:
            folder.rmdir()
            raise
        return folder

    def _remove(self) -> bool:
        assert self._folder is not None
        self._folder.rmdir()
        return True


def family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def _resident(pid: int) -> int:
    """Bytes that are this process's alone, so that what forks share is counted once or not at all."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
    return 0
