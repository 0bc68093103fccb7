"""The engine: one configuration, its clock, and compiled modules that fit it or are refused."""

from __future__ import annotations

import subprocess
import sys

import pytest
import wasmtime

from hookline_artifacts.errors import VerifyError
from hookline_runtime.guest import engine as engine_module
from hookline_runtime.guest.engine import (
    EPOCH,
    TICK_MS,
    Ticker,
    compile_to,
    deadline_ticks,
    engine,
    fingerprint,
    load_compiled,
)
from waiting import PATIENCE_S, until


@pytest.fixture
def compiled(tmp_path, wat):
    """A compiled module's file."""
    path = tmp_path / "module.cwasm"
    compile_to(bytes(wasmtime.wat2wasm(wat.module(hooks={"route": wat.no_answer}))), path, fuel=False)
    return path


def test_the_fingerprint_changes_with_every_setting_and_with_the_version(monkeypatch):
    """Compiled code is never taken for that of another engine."""
    seen = {fingerprint(fuel=False), fingerprint(fuel=True)}
    for name, value in engine_module._SETTINGS.items():
        with monkeypatch.context() as patched:
            patched.setitem(engine_module._SETTINGS, name, value + 1 if type(value) is int else not value)
            seen.add(fingerprint(fuel=False))
    with monkeypatch.context() as patched:
        patched.setattr(engine_module.importlib.metadata, "version", lambda _: "0")
        seen.add(fingerprint(fuel=False))
    with monkeypatch.context() as patched:
        patched.setattr(engine_module.platform, "machine", lambda: "pdp11")
        seen.add(fingerprint(fuel=False))
    assert len(seen) == len(engine_module._SETTINGS) + 4
    assert fingerprint(fuel=False) in seen


def test_every_setting_is_one_that_wasmtime_knows():
    """A misspelt name would be set on the object and mean nothing."""
    assert all(hasattr(wasmtime.Config, name) for name in engine_module._SETTINGS)


def test_there_is_one_engine_of_each_kind():
    """An engine owns threads and lives as long as the process."""
    assert engine(fuel=True) is engine(fuel=True)
    assert engine(fuel=True) is not engine(fuel=False)


def test_compiling_writes_all_or_nothing(tmp_path):
    """No half of a file is ever under the name that others look for."""
    with pytest.raises(VerifyError):
        compile_to(b"\0asm\x01\0\0\0\xff", tmp_path / "out", fuel=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"no code at all", b"\x7fELF", b"\x7fELF" + bytes(4000), bytes(100_000)]
)
def test_a_file_that_is_no_compiled_module_is_refused(tmp_path, content):
    """Whatever else lies in the cache."""
    path = tmp_path / "x.cwasm"
    path.write_bytes(content)
    with pytest.raises(VerifyError, match="does not fit"):
        load_compiled(path, fuel=False)


def test_a_file_that_is_gone_is_refused(tmp_path):
    """Somebody emptied the cache; the module is compiled again."""
    with pytest.raises(VerifyError):
        load_compiled(tmp_path / "gone.cwasm", fuel=False)


def test_a_compiled_module_that_is_cut_off_is_refused_and_does_not_crash(compiled):
    """At many lengths, in a process of its own: a disk that was full, a copy that was broken off."""
    script = """
import sys
import time
from pathlib import Path
from hookline_runtime.guest.engine import load_compiled
from hookline_artifacts.errors import VerifyError
whole, loaded = Path(sys.argv[1]).read_bytes(), 0
cut = Path(sys.argv[1] + ".cut")
for length in [*range(0, 200), *range(200, len(whole), 97), len(whole) - 1]:
    cut.write_bytes(whole[:length])
    try:
        load_compiled(cut, fuel=False)
    except VerifyError:
        continue
    loaded += 1
    print("loaded at", length, "of", len(whole))
print("done", loaded)
"""
    ended = subprocess.run([sys.executable, "-c", script, str(compiled)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith("done 0\n"), ended.stdout


def test_a_compiled_module_with_a_damaged_header_is_refused_and_does_not_crash(compiled):
    """Its first bytes, one by one, in a process of its own. The code is not touched: it would be executed."""
    script = """
import sys
import time
from pathlib import Path
from hookline_runtime.guest.engine import load_compiled
from hookline_artifacts.errors import VerifyError
whole = Path(sys.argv[1]).read_bytes()
bad, refused = Path(sys.argv[1] + ".bad"), []
for place in range(64):
    bad.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1:])
    try:
        load_compiled(bad, fuel=False)
    except VerifyError:
        refused.append(place)
print(len(refused))
"""
    ended = subprocess.run([sys.executable, "-c", script, str(compiled)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 20


@pytest.mark.parametrize(("timeout", "ticks"), [(1, 2), (5, 2), (6, 3), (100, 21), (60_000, 12_001)])
def test_a_deadline_lasts_at_least_its_time_and_two_ticks_more_at_the_most(timeout, ticks):
    """The tick under way when a call begins is not a whole one."""
    assert deadline_ticks(timeout) == ticks
    assert timeout <= (ticks - 1) * TICK_MS
    assert ticks * TICK_MS <= timeout + 2 * TICK_MS


def test_the_clock_runs_while_anybody_needs_it():
    """Started twice and stopped twice; once more is not an error."""
    one, two = Ticker(), Ticker()
    one.start()
    two.start()
    thread = Ticker._thread
    one.stop()
    assert thread.is_alive()
    two.stop()
    two.stop()
    assert not thread.is_alive()
    one.start()
    assert Ticker._thread.is_alive()
    one.stop()


def test_the_clock_outlives_a_shortage_of_memory(monkeypatch):
    """Without it no deadline would end any call."""
    failing = []

    class Short(dict):
        def values(self):
            if len(failing) < 3:
                failing.append(EPOCH[0])
                raise MemoryError
            return super().values()

    monkeypatch.setattr("hookline_runtime.guest.engine._engines", Short())
    ticker = Ticker()
    ticker.start()
    try:
        until(lambda: len(failing) == 3 and EPOCH[0] >= failing[-1] + 3, "a clock that goes on")
        assert Ticker._thread.is_alive()
    finally:
        ticker.stop()


def test_a_program_that_forgets_to_close_its_runtime_ends_all_the_same():
    """The clock is stopped at exit, before the interpreter is gone."""
    script = """
import asyncio
from hookline_runtime.runtime import Runtime
from hookline_runtime.guest.engine import engine
runtime = Runtime(); engine(fuel=False)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_clock_starts_again_after_a_fork():
    """A fork does not copy threads: a child that starts a runtime of its own has a clock of its own."""
    script = """
import os
from hookline_runtime.guest.engine import Ticker
parent = Ticker(); parent.start()
pid = os.fork()
if pid == 0:
    child = Ticker(); child.start()
    os._exit(0 if Ticker._thread.is_alive() else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert ended.stdout == "0\n", ended.stderr
