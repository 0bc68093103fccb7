"""Inspection takes little memory, time that grows as the module does, and quotes little of it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import wasmtime

from hookline_artifacts.errors import VerifyError
from hookline_artifacts.module.inspection import inspect_file, inspect_module
from hookline_artifacts.module.reader import MalformedError
from hookline_artifacts.module.sections import Sections
from module_bytes import CODE, I32, MEMORY, NO_TYPE, PLAIN, body, leb, module, section, vector

LARGE = 60 << 20


def coded(text):
    """A module with one function."""
    return module(*PLAIN, section(10, vector(leb(len(text)) + text)))


FILL = {
    "one type of millions of parameters": lambda n: module(section(1, b"\x01\x60" + leb(n) + I32 * n + b"\0")),
    "types": lambda _: module(section(1, leb(999_999) + (b"\x60\x1c" + I32 * 28 + b"\x1c" + I32 * 28) * 999_999)),
    "names": lambda n: module(
        PLAIN[0],
        section(2, leb(n // 100_006) + (b"\0" + leb(100_000) + ("x" * 99_996 + "\U0001f600").encode() + b"\0\0")
                * (n // 100_006)),
    ),
    "custom sections": lambda n: module(b"\0\x02\x01x" * (n // 4)),
    "locals": lambda _: coded(vector(*[b"\0" + I32] * 3_000_000) + b"\x0b"),
    "labels": lambda _: coded(b"\0\0\x0e" + leb(7_000_000) + b"\0" * 7_000_001 + b"\x0b"),
    "data": lambda n: module(MEMORY, section(11, b"\x01\0\x41\0\x0b" + leb(n) + bytes(n))),
    "a description": lambda n: module(section(0, b"\x0fhookline.plugin" + b"{" * n)),
}  # fmt: skip
CHILD = """
import resource, sys, tempfile
from pathlib import Path
from hookline_artifacts.module.inspection import inspect_file
from hookline_artifacts.errors import VerifyError
def data():
    return next(int(line.split()[1]) << 10 for line in open('/proc/self/status') if line.startswith('VmData'))
resource.setrlimit(resource.RLIMIT_DATA, (data() + (%d << 20),) * 2)
try:
    inspect_file(Path(sys.argv[1]))
except VerifyError as error:
    print(str(error))
"""
ROOM_MIB = 24
"""Beside the file, which is mapped: a fortieth of what one module took before."""


@pytest.mark.parametrize("what", FILL)
def test_inspecting_a_large_module_takes_little_memory_whatever_fills_it(tmp_path, what):
    """A child with that much memory for data finishes, with a short sentence."""
    path = tmp_path / "large.wasm"
    path.write_bytes(FILL[what](LARGE))
    done = subprocess.run(
        [sys.executable, "-c", CHILD % ROOM_MIB, str(path)], capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert 0 < len(done.stdout.strip()) < 300


@pytest.mark.parametrize(
    "fill",
    [
        lambda n: module(section(1, vector(*[b"\x60\x02\x7f\x7f\0"] * n))),
        lambda n: module(*[section(0, b"\x01x")] * n),
        lambda n: module(*PLAIN, section(10, vector(body((b"\0\x0e" + vector(*[b"\0"] * 50) + b"\0") * n + b"\x0b")))),
        lambda n: module(*PLAIN, section(10, vector(body(b"\x20\0\x1a" * n * 10 + b"\x0b")))),
        lambda n: module(MEMORY, section(11, vector(*[b"\0\x41\0\x0b\0"] * n))),
        lambda n: module(section(6, vector(I32 + b"\0\x41\0" + b"\x41\0\x6a" * n + b"\x0b"))),
        lambda n: module(*PLAIN, section(9, vector(b"\x01\0" + vector(*[b"\0"] * n))), CODE),
    ],
    ids=["types", "sections", "labels", "instructions", "data", "constants", "elements"],
)
def test_the_work_doubles_where_the_module_does(fill):
    """Counted in calls, not in time."""

    def work(wasm):
        calls = [0]

        def count(_frame, event, _argument):
            calls[0] += event in {"call", "c_call"}

        sys.setprofile(count)
        try:
            Sections().read(wasm)
        except MalformedError:
            pytest.fail("it was to be read whole")
        finally:
            sys.setprofile(None)
        return calls[0]

    one, two = work(fill(2000)), work(fill(4000))
    assert two <= 2 * one + 10


def test_a_file_is_read_as_its_bytes_are(tmp_path, wat):
    """Mapped or in memory; an empty one too."""
    path = tmp_path / "m.wasm"
    path.write_bytes(wasmtime.wat2wasm(wat.module(hooks={"route": wat.no_answer})))
    assert inspect_file(path) == inspect_module(path.read_bytes()) == inspect_module(memoryview(path.read_bytes()))
    path.write_bytes(b"")
    with pytest.raises(VerifyError, match="not a WebAssembly module"):
        inspect_file(path)


def test_what_an_error_quotes_is_cut_and_visible():
    """A name of a module, a long one and one that would turn a terminal's direction of writing."""
    for name in ("x" * 100_000, "a\n\x1b[2J\u202egnp.exe\u2028", "\U0001f600" * 20_000):
        raw = name.encode()
        wasm = module(section(1, vector(NO_TYPE)), section(2, vector(leb(len(raw)) + raw + b"\x01x\0\0")))
        with pytest.raises(VerifyError) as refused:
            inspect_module(wasm)
        assert len(str(refused.value)) < 400
        assert str(refused.value).isprintable()
    many = module(section(1, vector(b"\x60" + vector(*[I32] * 1000) + b"\0")),
                  section(2, vector(b"\x03env\x06kv_get\0\0")))  # fmt: skip
    with pytest.raises(VerifyError, match="984 more"):
        inspect_module(many)
    error = VerifyError("\x1b\n\u202e" + "y" * 10**6)
    assert str(error).startswith("\\x1b\\n\\u202eyyy")
    assert len(str(error)) <= 2001
