"""The store hands out what was put in, whole, or nothing; and never drops what somebody needs."""

from __future__ import annotations

import gc
import hashlib
import os
import stat
import subprocess
import sys

import pytest

from hookline_artifacts import store as store_module
from hookline_artifacts.module.describe import PluginDescription
from hookline_artifacts.store import ArtifactStore


@pytest.fixture
def put(oci):
    """Puts a module of some 1000 bytes into a store and gives its digest; nobody holds the artifact then."""

    def add(store, name, *, description=None):
        module = oci.module(name, 1000)
        with store.scratch() as file:
            file.write(module)
            return store.add(
                file,
                digest=oci.sha256(name.encode()),
                sha256=hashlib.sha256(module).hexdigest(),
                size=len(module),
                layout="raw",
                description=description,
            ).digest

    return add


def test_an_artifact_comes_back_as_it_was_added(store, put, oci):
    """From another object on the same folder too, with its description."""
    described = PluginDescription(name="guard", notes=("a note",))
    digest = put(store, "a", description=described)
    for reader in (store, ArtifactStore(store._modules.parent)):
        found = reader.get(digest)
        assert found.path.read_bytes() == oci.module("a", 1000)
        assert (found.layout, found.description, found.digest) == ("raw", described, digest)
        assert reader.module(found.sha256) == found.path


def test_nobody_else_can_read_it(store, put):
    """Folders are 0700 and files 0600, whatever the umask."""
    before = os.umask(0)
    try:
        digest = put(store, "a")
        ArtifactStore(store._modules.parent)
    finally:
        os.umask(before)
    path = store.get(digest).path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(record.stat().st_mode) for record in store._index.iterdir()} == {0o600}


def test_a_damaged_module_counts_as_absent(store, put):
    """One flipped byte is found when the module is handed out, and the file goes."""
    digest = put(store, "a")
    path = store.get(digest).path
    data = bytearray(path.read_bytes())
    data[50] ^= 1
    path.write_bytes(data)

    assert store.get(digest) is None
    assert not path.exists()
    put(store, "a")
    assert store.get(digest) is not None


@pytest.mark.parametrize(
    "record", [b"", b"{", b"[]", b"{}", b'{"sha256": "../../x", "size": 1, "layout": "", "description": null}']
)
def test_a_damaged_record_counts_as_absent(store, put, record):
    """Whatever a file of the index holds, also a name that leads out of the store."""
    digest = put(store, "a")
    (path,) = store._index.iterdir()
    path.write_bytes(record)
    assert store.get(digest) is None


@pytest.mark.parametrize("how", ["another module", "of another artifact", "without a seal", "with another key"])
def test_a_record_that_somebody_else_wrote_counts_as_absent(tmp_path, put, how):
    """Where the store has a key that is kept elsewhere: whoever may write here makes no module that of a digest."""
    store = ArtifactStore(tmp_path / "sealed", seal=b"k" * 32)
    digest, evil = put(store, "a"), put(store, "evil")
    assert store.get(digest).sha256 != store.get(evil).sha256
    record, other = store._record("", digest), store._record("", evil)
    if how == "another module":
        record.write_bytes(
            record.read_bytes().replace(store.get(digest).sha256.encode(), store.get(evil).sha256.encode())
        )
    elif how == "of another artifact":
        record.write_bytes(other.read_bytes())
    elif how == "without a seal":
        put(ArtifactStore(tmp_path / "sealed"), "a")
    else:
        put(ArtifactStore(tmp_path / "sealed", seal=b"other" * 6), "a")
    assert store.get(digest) is None
    assert store.get(evil) is not None
    put(store, "a")
    assert store.get(digest) is not None


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:../../x", "sha512:" + "0" * 64, "sha256:" + "0" * 64])
def test_an_unknown_digest_is_absent(store, digest):
    """Also text that is not a digest."""
    assert store.get(digest) is None
    assert store.module(digest.removeprefix("sha256:")) is None


def test_the_least_recently_used_go_first(tmp_path, put):
    """A module that was asked for lately outlives an older one."""
    store = ArtifactStore(tmp_path / "small", max_bytes=2500)
    first, second = put(store, "a"), put(store, "b")
    for age, digest in ((100, first), (50, second)):
        path = store.get(digest).path
        os.utime(path, ns=(path.stat().st_mtime_ns - age * 10**9,) * 2)
    assert store.get(first) is not None  # now it is the younger one

    third = put(store, "c")

    assert [store.get(digest) is not None for digest in (first, second, third)] == [True, False, True]


def test_what_is_pinned_or_held_is_never_dropped(tmp_path, put):
    """Even where that exceeds the cap; when it is let go, it goes."""
    store = ArtifactStore(tmp_path / "small", max_bytes=1)
    pinned = put(store, "a")
    store.pin([store.get(pinned).sha256])
    other = put(store, "b")
    held = store.get(other)
    put(store, "c")
    assert store.get(pinned) is not None
    assert held.path.exists()

    store.pin([])
    path = held.path
    del held
    put(store, "d")
    assert store.get(pinned) is None
    assert not path.exists()


def test_left_overs_of_a_crash_go_at_the_next_start(store):
    """Old files in tmp are removed, and young ones are another process's."""
    old, young = store._tmp / "old", store._tmp / "young"
    for path in (old, young):
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    ArtifactStore(store._tmp.parent)
    assert (old.exists(), young.exists()) == (False, True)


def test_what_is_not_added_leaves_nothing(store):
    """A scratch file goes with its block, unless it was added."""
    with store.scratch() as file:
        file.write(b"half")
        assert list(store._tmp.iterdir())
    assert not list(store._tmp.iterdir())


def test_a_reader_in_another_process_keeps_what_it_opened(tmp_path, put):
    """A dropped module stays readable for whoever has it open."""
    store = ArtifactStore(tmp_path / "shared", max_bytes=1)
    path = store.get(put(store, "a")).path
    code = "import sys; f = open(sys.argv[1], 'rb'); print('open', flush=True); input(); print(len(f.read()))"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        size = path.stat().st_size
        assert reader.stdout.readline() == "open\n"
        put(store, "b")
        assert not path.exists()
        assert reader.communicate("\n")[0] == f"{size}\n"


def _kept(store, module, owner):
    """Put a module there for its owner."""
    sha256 = hashlib.sha256(module).hexdigest()
    with store.scratch() as file:
        file.write(module)
        store.grant_file(file, owner=owner, sha256=sha256, size=len(module))
    return sha256


def test_whoever_has_the_most_loses_it_first(tmp_path, oci):
    """A tenant whose plugin changes and changes pushed out what all others run, and new pods waited for registries."""
    store = ArtifactStore(tmp_path / "store", max_bytes=100_000)
    ours = [_kept(store, oci.module(f"ours {each}", 10_000), "shop") for each in range(3)]
    both = _kept(store, oci.module("both", 10_000), "shop")
    hostile = [_kept(store, oci.module(f"hostile {each}", 20_000), "hostile") for each in range(12)]
    _kept(store, oci.module("both", 10_000), "hostile")
    hostile += [_kept(store, oci.module(f"more {each}", 20_000), "hostile") for each in range(3)]
    gc.collect()
    assert all(store.granted(each, owner="shop") for each in [*ours, both])
    assert [bool(store.granted(each, owner="hostile")) for each in hostile] == [False] * 13 + [True] * 2


def test_small_modules_and_what_is_known_are_bounded_for_who_has_the_most(tmp_path, oci, monkeypatch):
    """However small: all are listed at each new one. What others may have, they may have afterwards."""
    monkeypatch.setattr(store_module, "_MAX_RECORDS", 64)
    monkeypatch.setattr(store_module, "_DROPPED", 4)
    store = ArtifactStore(tmp_path / "store")
    ours = [_kept(store, oci.module(f"ours {each}"), "shop") for each in range(5)]
    for each in range(80):
        _kept(store, oci.module(f"hostile {each}"), "hostile")
        assert len(list((tmp_path / "store" / "modules").iterdir())) <= 64
        assert len(list((tmp_path / "store" / "index").iterdir())) <= 64
    assert all(store.granted(each, owner="shop") for each in ours)
