"""How much memory there is: read from the cgroup that bounds this process, as hosts and containers show it."""

from __future__ import annotations

import pytest

from hookline_artifacts import memory

NO_LIMIT = "9223372036854771712"
HOST_V1 = ["35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory"]
HOST_V2 = ["31 23 0:28 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate"]
CASES = {
    "version 2, on a host": (HOST_V2, "0::/a/b\n", {"sys/fs/cgroup/a/b/memory.max": "1000"}, 1000),
    "version 2, an ancestor's is lower": (
        HOST_V2, "0::/a/b\n", {"sys/fs/cgroup/a/b/memory.max": "1000", "sys/fs/cgroup/a/memory.max": "900"}, 900),
    "version 2, in a container": (HOST_V2, "0::/\n", {"sys/fs/cgroup/memory.max": "512"}, 512),
    "version 2, without a limit": (HOST_V2, "0::/a\n", {"sys/fs/cgroup/a/memory.max": "max"}, None),
    "version 1, on a host": (
        HOST_V1, "4:memory:/a/b\n0::/\n", {"sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": "77"}, 77),
    "version 1, in a container whose mount shows its own": (
        ["35 31 0:32 /kube/pod /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory"], "4:memory:/kube/pod\n",
        {"sys/fs/cgroup/memory/memory.limit_in_bytes": "88"}, 88),
    "version 1, in a container of which a process is below": (
        ["35 31 0:32 /kube/pod /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory"], "4:memory:/kube/pod/x\n",
        {"sys/fs/cgroup/memory/memory.limit_in_bytes": "88", "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "66"}, 66),
    "version 1, without a limit": (
        HOST_V1, "4:memory:/a\n", {"sys/fs/cgroup/memory/a/memory.limit_in_bytes": NO_LIMIT}, None),
    "both, of which the first counts memory": (
        [*HOST_V1, "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"], "5:cpu:/x\n4:memory:/a\n0::/\n",
        {"sys/fs/cgroup/memory/a/memory.limit_in_bytes": "55"}, 55),
    "a cgroup from elsewhere": (
        ["35 31 0:32 /other /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory"], "4:memory:/../..\n",
        {"sys/fs/cgroup/memory/memory.limit_in_bytes": "44"}, 44),
    "a mount with a blank in its name": (
        ["31 23 0:28 / /sys/fs/c\\040g rw - cgroup2 cgroup2 rw"], "0::/\n", {"sys/fs/c g/memory.max": "33"}, 33),
    "no cgroups at all": ([], "", {}, None),
    "nothing that can be read": (["nonsense", "1 2 - "], "nonsense\n::\n", {}, None),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_limit_is_that_of_the_tightest_cgroup_above(tmp_path, case):
    """Of both versions, as a host and as a container shows them."""
    mounts, ours, files, limit = CASES[case]
    for name, text in {"proc/self/mountinfo": "\n".join(mounts), "proc/self/cgroup": ours, **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = memory.tightest(tmp_path)
    assert (found.limit if found else None) == limit


@pytest.mark.parametrize(("second", "name"), [(True, "inactive_file"), (False, "total_inactive_file")])
def test_what_is_used_is_without_what_the_kernel_can_drop(tmp_path, second, name):
    """Files on a disk that were read; those in memory stay."""
    (tmp_path / ("memory.current" if second else "memory.usage_in_bytes")).write_text("1000\n")
    (tmp_path / "memory.stat").write_text(f"anon 600\n{name} 300\nshmem 100\n")
    assert memory.Cgroup(folder=tmp_path, limit=2000, second=second).used() == 700


def test_a_folder_is_in_memory_where_its_mount_is(tmp_path):
    """The innermost mount counts."""
    info = tmp_path / "mountinfo"
    info.write_text(
        "1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:5 / /run/state rw - tmpfs tmpfs rw,size=1k\n"
        "3 2 8:2 / /run/state/disk rw - xfs /dev/sdb rw\nnonsense\n"
    )
    asked = ("/run/state", "/run/state/x", "/run/statement", "/run/state/disk/y", "/")
    assert [memory.in_memory(memory.Path(path), info) for path in asked] == [True, True, False, False, False]
