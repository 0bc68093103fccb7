"""How much memory there is: what the cgroup allows, and what is taken of it.

A container's limit is its cgroup's, and may be that of any cgroup above it. Which one is ours says
``/proc/self/cgroup``, and where it is to be seen ``/proc/self/mountinfo``: in a container, the mount shows our own
cgroup as its root. Both versions of cgroups are read (Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_NO_LIMIT: Final = 2**62
"""Version 1 writes a number near 2**63 where there is no limit."""
_TMPFS: Final = {"tmpfs", "ramfs"}
_SHOWN: Final = 3
"""The field of mountinfo that says which folder of its file system a mount shows, proc(5)."""
_MOUNT_POINT: Final = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Cgroup:
    """One cgroup that bounds us."""

    folder: Path
    limit: int
    """Bytes."""
    second: bool
    """Whether it is of version 2."""

    def used(self) -> int:
        """Bytes that are taken and that the kernel cannot just drop: not the page cache of files on disks."""
        usage = _number(self.folder / ("memory.current" if self.second else "memory.usage_in_bytes")) or 0
        name = "inactive_file" if self.second else "total_inactive_file"
        for line in _text(self.folder / "memory.stat").splitlines():
            key, _, value = line.partition(" ")
            if key == name and value.isdigit():
                return max(0, usage - int(value))
        return usage


def tightest(root: Path = Path("/")) -> Cgroup | None:
    """The cgroup with the lowest limit of those that bound this process; None where none does."""
    found = [cgroup for folder, second in _folders(root) for cgroup in _limits(folder, second=second)]
    return min(found, key=lambda cgroup: cgroup.limit, default=None)


def limit() -> int | None:
    """Bytes of memory that this process and its cgroup may have; None where nothing bounds them but the machine."""
    cgroup = tightest()
    return None if cgroup is None else cgroup.limit


def left() -> int | None:
    """Bytes of that limit that are not taken; None where there is none."""
    cgroup = tightest()
    return None if cgroup is None else max(0, cgroup.limit - cgroup.used())


def in_memory(path: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> bool:
    """Whether what is stored there is kept in memory, and so counts as ours."""
    best, kind = "", ""
    where = os.path.realpath(path)
    for line in _text(mountinfo).splitlines():
        before, _, tail = line.partition(" - ")
        parts = before.split(" ")
        mounted = _unescaped(parts[_MOUNT_POINT]) if len(parts) > _MOUNT_POINT else ""
        if len(mounted) >= max(len(best), 1) and (where + "/").startswith(mounted.rstrip("/") + "/"):
            best, kind = mounted, tail.split(" ")[0]
    return kind in _TMPFS


def _folders(root: Path) -> Iterator[tuple[Path, bool]]:
    """Where our cgroups are to be seen that count memory, and whether they are of version 2."""
    ours: dict[bool, str] = {}
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            ours[True] = path
        elif "memory" in controllers.split(","):
            ours[False] = path
    for line in _text(root / "proc/self/mountinfo").splitlines():
        before, _, behind = line.partition(" - ")
        parts, tail = before.split(" "), behind.split(" ")
        second = tail[0] == "cgroup2"
        if (
            len(parts) <= _MOUNT_POINT
            or second not in ours
            or not (second or (tail[0] == "cgroup" and "memory" in tail[-1].split(",")))
        ):
            continue
        shown, mounted = _unescaped(parts[_SHOWN]), root / _unescaped(parts[_MOUNT_POINT]).lstrip("/")
        # The mount shows one cgroup as its root: in a container mostly our own. What is above it is not to be seen.
        path = ours[second]
        below = path.removeprefix(shown.rstrip("/")) if path.startswith(shown) else ""
        folder = mounted / below.lstrip("/") if ".." not in below.split("/") else mounted
        while True:
            yield folder, second
            if folder == mounted or mounted not in folder.parents:
                break
            folder = folder.parent


def _limits(folder: Path, *, second: bool) -> Iterator[Cgroup]:
    found = _number(folder / ("memory.max" if second else "memory.limit_in_bytes"))
    if found is not None and 0 < found < _NO_LIMIT:
        yield Cgroup(folder=folder, limit=found, second=second)


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _unescaped(text: str) -> str:
    """A path of mountinfo, which writes blanks and the like as octal numbers."""
    for octal, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(octal, character)
    return text
