"""The SDKs of Go, C and Zig by their own tests, which run natively: readers, answers, hosts in memory.

``native/`` has those of C and Zig; Go's lie in its package, as is usual there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hookline_sdk import FOLDER

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ZIG = (sys.executable, "-m", "ziglang")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """No network, nothing written among the sources; what zig makes of a libc is kept."""
    caches = {"ZIG_GLOBAL_CACHE_DIR": str(ROOT / ".cache" / "zig"), "ZIG_LOCAL_CACHE_DIR": str(tmp_path / "zig")}
    go = {"GOFLAGS": "-mod=mod", "GOWORK": "off", "GOPROXY": "off", "GOTOOLCHAIN": "local"}
    return os.environ | caches | go


def run(*command: str | Path, environment: dict[str, str], folder: Path = ROOT) -> str:
    """What a command says; it has to succeed."""
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_sdk_of_c_keeps_its_promises(environment, tmp_path) -> None:
    """With warnings as errors; undefined behaviour ends the program."""
    program = tmp_path / "sdk_test"
    flags = ("-std=c17", "-fsanitize-trap=undefined", "-Wall", "-Wextra", "-Werror", "-I", FOLDER / "c", "-o", program)
    run(*ZIG, "cc", *flags, HERE / "native" / "sdk_test.c", environment=environment)
    assert "all is as expected" in run(program, environment=environment)


def test_the_sdk_of_zig_keeps_its_promises(environment) -> None:
    """In debug mode, where what would be undefined is a panic."""
    modules = ("--dep", "hookline", "-Mroot=tests/sdk/native/sdk_test.zig")
    said = run(*ZIG, "test", *modules, f"-Mhookline={FOLDER}/zig/hookline.zig", environment=environment)
    assert "tests passed" in said


@pytest.mark.parametrize("folder", [FOLDER / "zig", FOLDER / "templates" / "zig", HERE], ids=lambda path: path.name)
def test_sources_of_zig_are_formatted(folder, environment) -> None:
    """As `zig fmt` writes them, also what is generated."""
    run(*ZIG, "fmt", "--check", folder, environment=environment)


@pytest.fixture(scope="module")
def go() -> str:
    """A Go that is new enough."""
    program = shutil.which("go")
    if program is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("there is no go")
    return program


def test_the_sdk_of_go_keeps_its_promises(go, environment) -> None:
    """By `go test`."""
    assert run(go, "test", "-count=1", "./...", environment=environment, folder=FOLDER / "go").startswith("ok")


@pytest.mark.parametrize("target", ["native", "wasip1"])
def test_the_sdk_of_go_has_nothing_suspicious(go, environment, target) -> None:
    """By `go vet`, as it is built for the machine and for a host."""
    wasm = {"GOOS": "wasip1", "GOARCH": "wasm"} if target == "wasip1" else {}
    run(go, "vet", "./...", environment=environment | wasm, folder=FOLDER / "go")


def test_sources_of_go_are_formatted(go) -> None:
    """As gofmt writes them, also what is generated."""
    gofmt = Path(go).resolve().with_name("gofmt")
    if not gofmt.exists():
        pytest.skip("there is no gofmt beside go")
    done = subprocess.run([gofmt, "-l", FOLDER, HERE], capture_output=True, text=True, check=True)
    assert done.stdout == ""
