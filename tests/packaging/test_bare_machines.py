"""The verbs of Make on machines that lack things, or have them and they do not work."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import pythons

ROOT = Path(__file__).parent.parent.parent
SCRIPTS, TESTBED = ROOT / "scripts", ROOT / "testbed"


@pytest.fixture
def program(tmp_path):
    """Puts a shell script into a folder that comes first in PATH; the path of the script."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def put(name, script):
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return put


@pytest.fixture
def run(tmp_path):
    """Runs a command with that PATH; what it printed and its exit code are in what it returns."""

    def run(*command, **environment):
        variables = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"} | environment
        for name in ("MAKEFLAGS", "MAKELEVEL", "PYTHON"):
            variables.pop(name, None)
        variables |= environment
        words = [str(word) for word in command]
        return subprocess.run(words, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def build(monkeypatch):
    """What ``examples/build.py`` looks for compilers with, as a module which remembers nothing yet."""
    path = ROOT / "cli" / "hookline_cli" / "authoring" / "toolchains.py"
    spec = importlib.util.spec_from_file_location("examples_toolchains", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


# ---- compilers


def test_a_rustc_without_the_target_is_passed_over(program, run, tmp_path):
    """As rustup's, which stands first in PATH on many machines: the one that builds modules is found behind it."""
    (tmp_path / "sysroot").mkdir()
    first = program("rustc", f"echo {tmp_path / 'sysroot'}")
    done = run(sys.executable, "examples/build.py", "--check", "--only", "rust")
    assert done.returncode == 0, done.stdout
    assert str(first) not in done.stdout


def test_where_no_rustc_builds_modules_each_is_told_what_it_lacks(build, program, tmp_path, monkeypatch):
    """The library, or the linker; then how to get both, in one sentence."""
    library = tmp_path / "sysroot" / "lib" / "rustlib" / build.RUST_TARGET / "lib"
    library.mkdir(parents=True)
    bare = program("rustc", f"echo {tmp_path}")
    linkless = program(
        "rustc-2", f'[ "$1" = --print ] && echo {tmp_path}/sysroot && exit\necho "error: linker not found"; exit 1'
    )
    broken = program("rustc-3", "exit 1")
    monkeypatch.setattr(build, "rust_candidates", lambda: [bare, linkless, broken])
    with pytest.raises(build.ToolchainMissingError) as caught:
        build.rustc()
    said = str(caught.value)
    assert f"{bare} lacks the standard library for {build.RUST_TARGET}" in said
    assert f"{linkless} cannot link (linker not found)" in said
    assert f"{broken} does not run" in said
    assert "apt-get install rustc libstd-rust-dev-wasm32 lld" in said
    assert "rustup target add" in said


def test_the_rustc_that_is_named_comes_first(build, program, monkeypatch):
    """RUSTC, as cargo has it; then PATH in its order, each once."""
    named, other = program("rustc-mine", ""), program("rustc", "")
    monkeypatch.setenv("RUSTC", str(named))
    monkeypatch.setenv("PATH", f"{other.parent}:{other.parent}/../bin:/usr/bin:/bin")
    found = build.rust_candidates()
    assert found[:2] == [named, other]
    assert len({path.parent.resolve() / path.name for path in found}) == len(found)


def test_a_go_that_is_too_old_is_passed_over(build, program, monkeypatch, tmp_path):
    """Debian's is; a newer one may stand behind it. Where none does, each is named with what is wrong with it."""
    old = program("go", "echo go1.19.8")
    new = tmp_path / "new" / "go"
    new.parent.mkdir()
    new.write_text("#!/bin/sh\necho go1.26.1\n")
    new.chmod(0o755)
    monkeypatch.setenv("PATH", f"{old.parent}:{new.parent}:/usr/bin:/bin")
    assert build.go() == (new, "go1.26.1")
    build.go.cache_clear()
    new.unlink()
    monkeypatch.setattr(build, "executables", lambda _: [old])
    with pytest.raises(build.ToolchainMissingError, match=r"go1.19.8, which is too old.*Install Go 1.24"):
        build.go()


def test_a_node_without_an_npm_that_runs_builds_nothing(build, program, monkeypatch):
    """Debian has them in two packages, and one may be left behind."""
    node = program("node", "echo v20.1.0")
    program("npm", "exit 1")
    monkeypatch.setattr(build, "executables", lambda name: [node.with_name(name)])
    with pytest.raises(build.ToolchainMissingError, match=f"no npm that runs with {node}"):
        build.node()
    program("npm", "echo 10.0.0")
    assert build.node() == (node, "v20.1.0")
    program("node", "echo v18.20.4")
    build.node.cache_clear()
    with pytest.raises(build.ToolchainMissingError, match=r"v18.20.4, which is too old.*Node.js 20"):
        build.node()


@pytest.mark.parametrize(
    ("name", "script"), [("go", "echo go1.19.8"), ("go", "exit 1"), ("npm", "exit 1"), ("node", "echo v18.0.0")]
)
def test_toolchains_come_from_wheels_where_the_machines_own_do_not_do(program, run, tmp_path, name, script):
    """What is found in PATH is run before it is relied on."""
    for each, version in (("go", "echo go1.26.0"), ("node", "echo v22.1.0"), ("npm", "echo 10.0.0")):
        program(each, version)
    command = ("sh", SCRIPTS / "toolchains.sh", "--check", tmp_path / "none", "requirements/toolchains.txt")
    assert run(*command).returncode == 0
    program(name, script)
    assert run(*command).returncode == 1


# ---- packages of Debian


@pytest.mark.parametrize(
    ("script", "broken"),
    [
        ("debian-packages.sh", {"nginx": "nginx-light", "caddy": "caddy", "docker-registry": "docker-registry",
                                "curl": "curl", "git": "git", "redis-server": "redis-server"}),
        ("cluster-packages.sh", {"runc": "runc", "ctr": "containerd", "iptables-save": "iptables", "ip": "iproute2",
                                 "nsenter": "util-linux", "busybox": "busybox-static"}),
    ],
)  # fmt: skip
def test_a_program_that_is_there_and_does_not_run_is_missing(program, run, script, broken):
    """A wrapper that leads nowhere, half a package: its package is installed all the same, and once."""
    for name in broken:
        program(name, "exit 127")
    found = run("sh", SCRIPTS / script, "--missing").stdout.split()
    assert {*broken.values()} <= {*found}
    assert len(found) == len({*found})


def test_whatever_the_tests_need_is_in_the_list(run):
    """`make test` has run the list before it runs this: nothing of it is missing here, the linker included."""
    done = run("sh", SCRIPTS / "debian-packages.sh", "--missing")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_apt_get_it_is_said_what_is_not_installed(program, run, tmp_path):
    """Elsewhere than on Debian: by Debian's names, and the tests go on with what is there."""
    for each in ("sh", "tee", "dirname", "id", "cat"):
        (tmp_path / "bin").joinpath(each).symlink_to(f"/usr/bin/{each}")
    python = program("python3", f'exec {sys.executable} "$@"')
    alone = {"PATH": str(tmp_path / "bin"), "PYTHON": str(python)}
    program("nginx", "exit 1")
    shell = (SCRIPTS / "packages.sh").read_text().replace('PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"', "")
    (tmp_path / "packages.sh").write_text(shell + "\nneed nginx-light nginx -v\ninstall_missing\n")
    done = run("sh", tmp_path / "packages.sh", **alone)
    assert done.returncode == 0
    assert "no apt-get here: nginx-light" in done.stderr


# ---- interpreters


def test_each_interpreter_has_an_environment_of_its_own(program, run):
    """`make test PYTHON=…` never runs on another interpreter than that; python3's own is `.venv`."""
    other = program("python3.99", "echo 3.99.1 /opt/python")
    usual = program("python3", "echo 3.98.0 /usr")
    assert ".venv-python3.99.1/bin/python -m pytest" in run("make", "-n", "test", f"PYTHON={other}").stdout
    assert " .venv/bin/python -m pytest" in run("make", "-n", "test").stdout
    assert " .venv/bin/python -m pytest" in run("make", "-n", "test", f"PYTHON={usual}").stdout


def test_an_environment_of_another_interpreter_is_made_anew(run, tmp_path):
    """As after an upgrade of python3: what it was of is said. One of the same stays as it is."""
    lock, folder = tmp_path / "lock.txt", tmp_path / "environment"
    lock.write_text("")
    command = ("sh", SCRIPTS / "environment.sh", folder, lock)
    made = run(*command, PYTHON=sys.executable)
    assert made.returncode == 0, made.stderr
    (folder / "kept").touch()
    again = run(*command, PYTHON=sys.executable)
    assert "making" not in again.stdout
    assert (folder / "kept").exists()
    python = folder / "bin" / "python"
    python.unlink()
    python.write_text("#!/bin/sh\necho 3.10.2 /opt/gone\n")
    python.chmod(0o755)
    anew = run(*command, PYTHON=sys.executable)
    assert f"the environment {folder} was of Python 3.10.2 /opt/gone" in anew.stdout
    assert not (folder / "kept").exists()
    assert run(python, "-c", "import sys; print(sys.version)").stdout.strip() == sys.version


def test_an_interpreter_that_is_too_old_is_answered_with_one_that_is_not(program, run, tmp_path):
    """As where python3 is pyenv's, and an old one."""
    old = program("python3", '[ "$1" = --version ] && echo Python 3.9.18; exit 1')
    program("python3.13", f'exec {sys.executable} "$@"')
    program("python3.14", "exit 1")
    done = run("sh", SCRIPTS / "environment.sh", tmp_path / "none", "lock", PYTHON=str(old))
    assert done.returncode == 1
    assert f"'{old}' is Python 3.9.18. Try: make PYTHON=python3.13\n" in done.stderr


@pytest.mark.parametrize("answer", ["exit 127", None], ids=["broken", "missing"])
def test_an_interpreter_that_does_not_run_is_told_and_no_other_is_taken(program, run, answer):
    """Neither with a traceback, nor by running the tests on python3; also without a HOME."""
    other = "/nowhere/python3.99" if answer is None else str(program("python3.99", answer))
    done = run("env", "-u", "HOME", "sh", SCRIPTS / "environment.sh", "none", "lock", PYTHON=other)
    assert f"'{other}' is not there, or does not run. Try: make PYTHON=" in done.stderr
    assert done.stderr.count("\n") == 1
    planned = run("make", "-n", "test", f"PYTHON={other}").stdout
    assert " .venv-none/bin/python -m pytest" in planned
    assert " .venv/bin/python" not in planned


def test_what_a_cold_run_makes_is_not_said_by_an_interpreter_that_is_too_old(program, run):
    """It would end in a traceback; what comes next says in one sentence which to take."""
    old = program("python3.9", 'case "$*" in *announce.py*) echo traceback; exit 1;; *version_info*) exit 1;; esac')
    done = run("make", "--no-print-directory", "announce", f"PYTHON={old}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_other_interpreter_is_found_once(program, monkeypatch):
    """Too old ones are not of interest; what nothing of ours is meant to run on is named with the reason."""

    def answers(name, prefix, minor, version, implementation="CPython", level="final", free="False"):
        lines = (prefix, 3, minor, version, implementation, level, free)
        return program(name, "\n".join(f"echo {line}" for line in lines))

    answers("python3.10", "/opt/a", 10, "3.10.1")
    good = answers("python3.12", "/opt/b", 12, "3.12.3")
    answers("python3", "/opt/b", 12, "3.12.3")
    answers("python3.13", "/opt/c", 13, "3.13.1", free="True")
    answers("python3.14", "/opt/d", 14, "3.14.0a1", level="alpha")
    answers("python3.11", "/opt/e", 11, "3.11.9", implementation="PyPy")
    program("python3.15", "exit 1")
    monkeypatch.setattr(pythons, "candidates", lambda: sorted(good.parent.iterdir()))
    found = pythons.others()
    assert [each.version for each in found] == ["3.11.9", "3.12.3", "3.13.1", "3.14.0a1"]
    assert [each.unfit for each in found if each.version == "3.12.3"] == [""]
    assert [bool(each.unfit) for each in found] == [True, False, True, True]


# ---- what is said, and what is left behind


def test_a_cold_run_says_what_it_makes_and_how_long_that_takes(run, tmp_path):
    """Before anything is installed or built; by an interpreter that has no packages."""
    program = (
        sys._base_executable,
        "-I",
        "-c",
        f"import sys; sys.argv = ['', 'none']; sys.path.insert(0, '{SCRIPTS}')",
    )
    code = f"{program[3]}; import announce; announce.main()"
    done = run(*program[:3], code, XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    for part in ("Python packages, into none", "kube-apiserver", "etcd", "helm", "min  "):
        assert part in done.stdout
    assert "minutes on two idle cores" in done.stdout.splitlines()[-1]


def test_ports_that_are_held_leave_no_warning_behind(run):
    """The interpreter's end finds no socket that nobody closed."""
    code = f"import sys; sys.path.insert(0, '{TESTBED}'); import local_ports; local_ports.reserve_ports(5)"
    done = run(sys.executable, "-W", "always", "-c", code)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("ci", "outcome"), [("true", "1 failed"), ("", "1 skipped")])
def test_under_ci_a_test_that_is_skipped_has_failed(run, tmp_path, ci, outcome):
    """Whatever the reason: there, each promise is proven."""
    file = tmp_path / "test_skipped.py"
    file.write_text("import pytest\ndef test_it():\n    pytest.skip('a part is missing')\n")
    paths = os.pathsep.join(map(str, (ROOT / "tests", TESTBED)))
    unset = dict.fromkeys(("HOOKLINE_CALLS", "HOOKLINE_ACCELERATOR", "HOOKLINE_E2E_KUBECONFIG"), "")
    done = run(sys.executable, "-m", "pytest", "-rs", "-p", "conftest", file, "--rootdir", tmp_path, "-c", os.devnull,
               PYTHONPATH=paths, CI=ci, **unset)  # fmt: skip
    assert outcome in done.stdout
    assert "a part is missing" in done.stdout
