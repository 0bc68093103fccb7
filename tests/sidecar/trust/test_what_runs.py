"""What a sidecar compiled is what runs, whoever else writes to its state folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from hookline_runtime.guest.engine import compile_to
from operator_reports import metric


@pytest.fixture
def sidecar(new_sidecar, guests):
    """One that ran, with two workers, and is stopped."""
    made = new_sidecar(workers=2)
    made.folder.plugin("p", guests.saying("good"))
    made.start()
    made.wait_workers()
    assert "runs: p" in made.settled_log()
    made.stop()
    yield made
    made.end()


@pytest.fixture
def evil(guests, sidecar):
    """What somebody else compiled, where the good one is."""
    (path,) = (sidecar.state / "compiled").glob("*.cwasm")
    aside = sidecar.root / "evil.cwasm"
    compile_to(guests.saying("evil"), aside, fuel=False)
    return path, aside


@pytest.mark.parametrize("how", ["in its place", "with its seal", "a link", "a second name"])
async def test_code_of_somebody_else_is_compiled_over(sidecar, evil, how):
    """It is said and counted, and what was verified runs."""
    path, aside = evil
    good = path.read_bytes()
    if how == "in its place":
        path.write_bytes(aside.read_bytes())
    elif how == "with its seal":
        path.write_bytes(aside.read_bytes() + good[-48:])
    elif how == "a link":
        path.unlink()
        path.symlink_to(aside)
    else:
        (sidecar.root / "second").hardlink_to(path)
    sidecar.start()
    await sidecar.wait_says("good")
    sidecar.logs("it is compiled again")
    assert metric(sidecar, "hookline_compiled_refused_total") >= 1
    assert not path.is_symlink()


@pytest.mark.parametrize("how", ["lost", "for all to read", "a link"])
async def test_with_another_key_all_is_compiled_anew(sidecar, how):
    """From the modules that are kept; the key is this sidecar's alone."""
    key = sidecar.state / "own.key"
    before = key.read_bytes()
    if how == "lost":
        key.unlink()
    elif how == "for all to read":
        key.chmod(0o644)
    else:
        key.rename(sidecar.root / "theirs.key")
        key.symlink_to(sidecar.root / "theirs.key")
    sidecar.start()
    await sidecar.wait_says("good")
    assert key.read_bytes() != before
    assert not key.is_symlink()
    assert key.stat().st_mode & 0o777 == 0o600
    sidecar.stop()
    stamps = {path: path.stat().st_mtime_ns for path in (sidecar.state / "compiled").glob("*.cwasm")}
    sidecar.start()
    await sidecar.wait_says("good")
    assert {path: path.stat().st_mtime_ns for path in (sidecar.state / "compiled").glob("*.cwasm")} == stamps


async def test_a_module_in_the_store_that_was_swapped_is_not_run(sidecar, guests):
    """Its bytes have another sha256, whatever its name is."""
    (module,) = (sidecar.state / "artifacts" / "modules").glob("*.wasm")
    module.write_bytes(guests.saying("evil"))
    for path in (sidecar.state / "compiled").glob("*.cwasm"):
        path.unlink()
    sidecar.start(wait=False)
    sidecar.wait_plugin("p", state="Running")
    assert await sidecar.says() == "good"
    assert hashlib.sha256(module.read_bytes()).hexdigest() == module.stem


async def test_a_record_that_was_forged_makes_no_module_another_files(sidecar, guests, eventually):
    """Who may write to the store, and not beside it, names a module of his own in place of the one that was had."""
    artifacts = sidecar.state / "artifacts"
    (good,) = (artifacts / "modules").glob("*.wasm")
    evil = guests.saying("evil")
    sha256 = hashlib.sha256(evil).hexdigest()
    good.with_name(f"{sha256}.wasm").write_bytes(evil)
    forged = [path for path in (artifacts / "index").iterdir() if good.stem.encode() in path.read_bytes()]
    assert forged
    for path in forged:
        path.write_bytes(path.read_bytes().replace(good.stem.encode(), sha256.encode()))
    sidecar.start(wait=False)
    sidecar.wait_plugin("p", state="Running")
    eventually(lambda: not any(sha256.encode() in path.read_bytes() for path in forged), "records made anew")
    assert await sidecar.says() == "good"


async def test_workers_share_the_memory_of_compiled_modules(sidecar):
    """One copy, which the supervisor holds; a worker that comes later maps the same."""
    sidecar.start()
    sidecar.wait_workers()
    assert len(_copies(sidecar)) == 1


def _copies(sidecar):
    """The inodes of copies that the workers have mapped."""
    found = set()
    for pid in sidecar.workers:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            if "/memfd:" in line and ".cwasm" in line:
                found.add(line.split()[4])
    return found
