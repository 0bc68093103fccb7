"""What is loaded is what whoever has the key compiled, whatever becomes of the files meanwhile."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys

import pytest
import wasmtime

from hookline_api.bundle import BundleArtifact, BundlePlugin
from hookline_artifacts.errors import FetchError, VerifyError
from hookline_runtime.guest import sealed
from hookline_runtime.guest.compiler import Compiler, Job
from hookline_runtime.guest.engine import compile_to, load_compiled
from hookline_runtime.guest.sealed import Copies, Seal, SealedFile, publish

KEY = b"k" * 32


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Two modules, compiled and without a seal."""
    folder = tmp_path_factory.mktemp("plain")
    for name in ("one", "two"):
        wasm = bytes(wasmtime.wat2wasm(f'(module (func (export "{name}")))'))
        compile_to(wasm, folder / name, fuel=False)
    return folder


@pytest.fixture
def made(tmp_path, compiled):
    """Seals one of them under a name."""

    def make(which="one", name="a.cwasm", key=KEY):
        with (compiled / which).open("rb") as file:
            publish(file, tmp_path / name, Seal(key))
        return SealedFile(tmp_path / name, Seal(key))

    return make


def exports(module):
    """The names of what a module exports."""
    return [each.name for each in module.exports]


def refused(file):
    """Why a file is not loaded."""
    with pytest.raises(VerifyError) as error:
        load_compiled(file, fuel=False)
    return str(error.value)


def test_a_sealed_module_is_loaded_and_has_its_memory_map(made, compiled):
    """As one without a seal."""
    module, plain = load_compiled(made(), fuel=False), load_compiled(compiled / "one", fuel=False)
    assert exports(module) == ["one"]
    assert module.memory_map.to_json() == plain.memory_map.to_json()


@pytest.mark.parametrize(
    "what", ["a byte", "the end", "the seal", "empty", "cut", "another's", "another key's", "plain"]
)
def test_what_was_changed_is_not_loaded(made, compiled, what):
    """One byte is enough, and so is another name."""
    file = made()
    data = bytearray(file.path.read_bytes())
    if what == "a byte":
        data[len(data) // 2] ^= 1
    elif what == "the end":
        data += b"x"
    elif what == "the seal":
        data[-20] ^= 1
    elif what == "empty":
        data = bytearray()
    elif what == "cut":
        data = data[: len(data) // 2]
    elif what == "another's":
        data = bytearray(made("two", "b.cwasm").path.read_bytes())
    elif what == "another key's":
        data = bytearray(made("two", "b.cwasm", key=b"x" * 32).path.read_bytes())
    else:
        data = bytearray((compiled / "two").read_bytes())
    file.path.write_bytes(data)
    assert "does not fit" in refused(file)


@pytest.mark.parametrize("kind", ["symlink", "hard link", "fifo"])
def test_links_are_not_followed(made, tmp_path, kind):
    """To a file that would be good, neither."""
    good = made("one", "good.cwasm")
    place = SealedFile(tmp_path / "a.cwasm", Seal(KEY))
    made("one", "a.cwasm").path.replace(tmp_path / "aside")
    if kind == "symlink":
        place.path.symlink_to(tmp_path / "aside")
    elif kind == "hard link":
        os.link(tmp_path / "aside", place.path)
    else:
        os.mkfifo(place.path)
    assert not place.is_ours
    assert refused(place)
    assert exports(load_compiled(good, fuel=False)) == ["one"]


def test_a_file_that_is_swapped_all_the_time_is_loaded_as_it_was_made_or_not_at_all(made, tmp_path, compiled):
    """By a rename and in place: whatever is mapped, bore the seal."""
    file = made()
    good, evil = tmp_path / "good", tmp_path / "evil"
    good.write_bytes(file.path.read_bytes())
    evil.write_bytes((compiled / "two").read_bytes().ljust(good.stat().st_size, b"\0"))
    script = f"""
import os, shutil
while True:
    for each in ({str(good)!r}, {str(evil)!r}):
        shutil.copyfile(each, {str(tmp_path / "next")!r})
        os.replace({str(tmp_path / "next")!r}, {str(file.path)!r})
        with open({str(file.path)!r}, "r+b") as out, open({str(evil)!r}, "rb") as data:
            out.write(data.read(4096))
        shutil.copyfile({str(good)!r}, {str(file.path)!r})
"""
    swapping = subprocess.Popen([sys.executable, "-c", script])
    loaded = refusals = 0
    try:
        while loaded < 20 or refusals < 1:
            try:
                module = load_compiled(file, fuel=False)
            except VerifyError:
                refusals += 1
            else:
                assert exports(module) == ["one"]
                loaded += 1
    finally:
        swapping.kill()
        swapping.wait()


def test_what_was_checked_cannot_be_written_to(made):
    """Not by whoever has its descriptor."""
    with made().checked() as (source, size), source.open("r+b") as file:
        assert fcntl.fcntl(file.fileno(), fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE
        assert size > 0
        with pytest.raises(PermissionError):
            os.pwrite(file.fileno(), b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(file.fileno(), 0)


def test_without_sealed_memory_the_bytes_themselves_are_loaded(made, monkeypatch):
    """And checked alike."""
    monkeypatch.delattr(sealed.os, "memfd_create")
    file = made()
    assert exports(load_compiled(file, fuel=False)) == ["one"]
    file.path.write_bytes(file.path.read_bytes()[:-1] + b"x")
    assert refused(file)


def test_a_copy_of_another_process_is_loaded_where_it_is_good(made, tmp_path):
    """Else the file is: the number of a descriptor may mean another file by now."""
    copies, file = Copies(), made()
    where = copies.hold([file])["a.cwasm"]
    assert copies.size == file.path.stat().st_size
    file.path.write_bytes(b"gone")
    assert exports(load_compiled(SealedFile(file.path, Seal(KEY), tmp_path.joinpath(where)), fuel=False)) == ["one"]
    copies.keep(lambda _: False)
    assert copies.size == 0
    made()
    for other in (where, tmp_path / "nothing", tmp_path / "b.cwasm"):
        (tmp_path / "b.cwasm").write_bytes(b"not sealed")
        assert exports(load_compiled(SealedFile(file.path, Seal(KEY), tmp_path.joinpath(other)), fuel=False)) == ["one"]


@pytest.mark.slow  # it compiles in a child
async def test_a_compiler_with_a_key_seals_what_it_makes(tmp_path):
    """Another key compiles anew, and says so; a module that was swapped behind the store's back is not compiled."""
    wasm = bytes(wasmtime.wat2wasm('(module (func (export "one")))'))
    sha256 = hashlib.sha256(wasm).hexdigest()
    (tmp_path / "m.wasm").write_bytes(wasm)
    artifact = BundleArtifact(digest=f"sha256:{sha256}", sha256=sha256, size=1, layout="raw", reference="r")
    entry, job = BundlePlugin(name="p", artifact=artifact), Job(wasm=tmp_path / "m.wasm", sha256=sha256, fuel=False)
    compiler = Compiler(tmp_path / "cache", key=KEY)
    path = await compiler.prepare(job)
    assert exports(load_compiled(compiler.find(entry), fuel=False)) == ["one"]
    assert await compiler.prepare(job) == path
    assert compiler.unsealed == 0
    other = Compiler(tmp_path / "cache", key=b"x" * 32)
    assert not other.has(sha256, fuel=False)
    (tmp_path / "m.wasm").write_bytes(bytes(wasmtime.wat2wasm('(module (func (export "evil")))')))
    with pytest.raises(FetchError, match="not the one that was checked"):
        await other.prepare(job)
    (tmp_path / "m.wasm").write_bytes(wasm)
    await other.prepare(job)
    assert other.unsealed == 2
    assert exports(load_compiled(other.find(entry), fuel=False)) == ["one"]
    assert refused(compiler.find(entry))
