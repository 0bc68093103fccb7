"""A project becomes a module: by its language's own tools, and with its description and its cases put in."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from hookline_api.cases import SECTION as CASES_SECTION
from hookline_api.text import readable
from hookline_artifacts.errors import ConfigError, FetchError, VerifyError
from hookline_artifacts.module.annotate import custom_sections, with_sections
from hookline_artifacts.module.describe import PluginDescription
from hookline_artifacts.module.inspection import inspect_module
from hookline_cli.authoring import describing, texts, toolchains
from hookline_cli.authoring.project import CASES, PLUGIN, Command, Project
from hookline_cli.authoring.subject import MAX_MODULE
from hookline_cli.bounded import replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")
PLUGIN_SECTION: Final = "hookline.plugin"
_MAX_OUTPUT: Final = 2**20
"""Bytes of what a tool says that are kept: its end."""
_SHOWN: Final = 100_000
_LOOK_S: Final = 0.1
_END_S: Final = 2.0
_GO: Final = {"GOOS": "wasip1", "GOARCH": "wasm"}
_COMMANDS_OF: Final = {
    "cargo": "rust", "rustc": "rust", "go": "go", "node": "node", "npm": "node", "npx": "node", "zig": "zig",
    "${python}": "zig",
}  # fmt: skip
_INSTALL: Final = {
    "cargo": "on Debian, apt-get install cargo rustc libstd-rust-dev-wasm32 lld",
    "tinygo": "https://tinygo.org has it; Go itself does as well",
}


class ToolFailedError(Exception):
    """A tool refused the sources; the message is what it said, lines of it."""

    def __init__(self, command: Command, code: int, output: str) -> None:
        super().__init__(output)
        self.command = command
        self.code = code
        self.output = output


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """What became of a project."""

    path: Path
    size: int
    seconds: float
    hooks: tuple[str, ...]
    cases: int
    notes: list[str] = field(default_factory=list)


def build(project: Project, tick: Callable[[float], None] = lambda _: None) -> Built:
    """Run its build, and write its module. ``tick`` is told the seconds while a tool runs.

    Raises ToolFailedError for sources that do not compile, FetchError for a tool that is missing, VerifyError for what
    is no plugin, and ConfigError for a description or cases that are wrong.
    """
    begun = time.monotonic()
    # First: it takes no time, and nobody waits for a compiler to learn of a comma.
    description, cases = _beside(project)
    for command in project.build:
        run(project, command, tick, env=_build_environment(project))
    if not project.module.is_file():
        raise VerifyError(
            f"the build went through, and {project.module} is not there: say in hookline.toml's 'module' where "
            f"{' '.join(project.build[-1])!r:.120} writes it"
        )
    wasm = texts.read(project.module, most=MAX_MODULE, what="the module")
    made, notes, hooks = annotated(wasm, description=description, cases=cases, label=str(project.module))
    write(project.built, made)
    count = len(texts.cases_of(cases, what=CASES)) if cases else 0
    return Built(
        path=project.built, size=len(made), seconds=time.monotonic() - begun, hooks=hooks, cases=count, notes=notes
    )


def own_tests(project: Project, tick: Callable[[float], None]) -> str:
    """Run the project's own tests; what they said. Raises ToolFailedError where one fails; FetchError, ConfigError."""
    if not project.test:
        raise ConfigError("hookline.toml has no 'test': write there how the language's own tests are run")
    return "\n".join(run(project, command, tick, env={}) for command in project.test)


def _beside(project: Project) -> tuple[dict[str, Any] | None, bytes | None]:
    """What stands in ``plugin.json`` and ``cases.json``, where they are."""
    plugin, cases = project.folder / PLUGIN, project.folder / CASES
    described = describing.document(plugin) if plugin.exists() else None
    told = None
    if cases.exists():
        told = texts.read(cases, most=2**20, what=CASES)
        texts.cases_of(told, what=CASES)
    return described, told


def annotated(
    wasm: bytes, *, description: dict[str, Any] | None, cases: bytes | None, label: str
) -> tuple[bytes, list[str], tuple[str, ...]]:
    """The module with these sections, what a host would ignore of them, and the hooks. None leaves what is there.

    Raises VerifyError where it is no plugin, and ConfigError.
    """
    sections: dict[str, bytes] = {}
    notes = []
    if description is not None:
        sections[PLUGIN_SECTION] = describing.section(description)
        notes += [f"{PLUGIN}: {each}" for each in describing.ignored(description)]
    if cases is not None:
        texts.cases_of(cases, what=CASES)
        sections[CASES_SECTION] = _compact(cases)
    try:
        made = with_sections(wasm, sections)
        info = inspect_module(made)
    except VerifyError as error:
        raise VerifyError(f"{label}: {error}") from None
    if info.description is not None:
        own = PluginDescription.from_json(custom_sections(made)[PLUGIN_SECTION])
        notes += [f"{PLUGIN}: {each}" for each in describing.against_module(own, info)]
    return made, notes, tuple(each.value for each in info.hooks)


def _compact(cases: bytes) -> bytes:
    import json  # noqa: PLC0415 - for this alone

    return json.dumps(texts.parsed(cases, what=CASES), ensure_ascii=False, separators=(",", ":")).encode(
        errors="surrogatepass"
    )


def write(path: Path, content: bytes) -> None:
    """A file, complete or as it was. Raises FetchError."""
    try:
        with replacing(path) as partial:
            partial.write_bytes(content)
    except OSError as error:
        raise FetchError(f"{path} cannot be written: {error.strerror}", transient=False) from None


class _EndedError(Exception):
    """Nobody waits for it any more."""


async def in_thread(work: Callable[[Callable[[float], None]], T], tick: Callable[[float], None] = lambda _: None) -> T:
    """What ``work`` gives, which is one of the functions here and takes a ``tick``. Who is cancelled ends its tools."""
    is_over = threading.Event()

    def ticking(seconds: float) -> None:
        if is_over.is_set():
            raise _EndedError
        tick(seconds)

    working = asyncio.ensure_future(asyncio.to_thread(work, ticking))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        is_over.set()
        with contextlib.suppress(Exception):
            await working
        raise


def run(project: Project, command: Command, tick: Callable[[float], None], *, env: Mapping[str, str]) -> str:
    """Run one of a project's commands in its folder; what it said. Raises ToolFailedError and FetchError."""
    words, more = resolved(command)
    environment = {**os.environ, **more, **env}
    try:
        process = subprocess.Popen(  # noqa: S603 - what its author wrote into hookline.toml
            words, cwd=project.folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    except FileNotFoundError:
        raise FetchError(_missing(command[0]), transient=False) from None
    except OSError as error:
        raise FetchError(f"{words[0]!r:.200} cannot be started: {error.strerror}", transient=False) from None
    output = _output(process, tick)
    if process.returncode != 0:
        raise ToolFailedError(command, process.returncode, output)
    return output


def _output(process: subprocess.Popen[bytes], tick: Callable[[float], None]) -> str:
    """All that a process says, to its end; of very much, the end."""
    kept = bytearray()

    def listen() -> None:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        with process.stdout as words:
            while chunk := words.read1(1 << 16):  # type: ignore[attr-defined]  # of a BufferedReader
                kept.extend(chunk)
                del kept[:-_MAX_OUTPUT]

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    begun = time.monotonic()
    try:
        ended = None
        while listener.is_alive():
            listener.join(_LOOK_S)
            now = time.monotonic()
            tick(now - begun)
            # What it left running may keep the pipe, and is not waited for.
            ended = now if ended is None and process.poll() is not None else ended
            if ended is not None and now - ended > _END_S:
                break
        process.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with the compilers that it started
        process.wait()
        listener.join(_END_S)
        raise
    return kept.decode(errors="replace").strip()[-_SHOWN:]


def resolved(command: Command) -> tuple[list[str], dict[str, str]]:
    """The words to start, and what of the environment they need. Raises FetchError for a tool that is missing."""
    first, *rest = command
    kind = _COMMANDS_OF.get(first)
    more: dict[str, str] = {}
    try:
        if kind == "rust":
            compiler = toolchains.rustc()
            more = {**toolchains.RUST_ENVIRONMENT, "RUSTC": str(compiler)}
            first = str(compiler) if first == "rustc" else _cargo(compiler)
        elif kind == "go":
            first = str(toolchains.go()[0])
            more = {"GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off"}
        elif kind == "node":
            program, _ = toolchains.node()
            more = {"PATH": toolchains.with_path(program)}
            first = str(program if first == "node" else toolchains.npm_beside(program) if first == "npm" else first)
        if "${python}" in command or first == "zig":
            python = str(toolchains.python_with_zig() if first == "zig" or "ziglang" in command else sys.executable)
            rest = [python if each == "${python}" else each for each in rest]
            if first == "${python}":
                first = python
            elif first == "zig" and shutil.which("zig") is None:
                first, rest = python, ["-m", "ziglang", *rest]
    except toolchains.ToolchainMissingError as error:
        raise FetchError(f"{command[0]} cannot be run here: {error}", transient=False) from None
    return [first, *rest], more


def _cargo(compiler: Path) -> str:
    """The cargo beside a compiler, or that of PATH: it is told which compiler to use."""
    beside = compiler.with_name("cargo")
    found = str(beside) if beside.exists() else shutil.which("cargo")
    if found is None:
        raise FetchError(_missing("cargo"), transient=False)
    return found


def _missing(program: str) -> str:
    how = _INSTALL.get(program, "install it, or name another in hookline.toml")
    return f"there is no program {readable(program, 100)!r} on this machine: {how}"


def _build_environment(project: Project) -> dict[str, str]:
    return {**(_GO if project.language == "go" else {}), **project.env}
