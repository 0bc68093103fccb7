#!/usr/bin/env python3
"""Builds the example plugins from source, each into ``<out>/<name>.wasm``.

A plugin is a folder of ``plugins/``. What lies in it tells how it is built: ``<name>.c`` with zig's C compiler
(the PyPI package ziglang, so Python alone is enough), ``main.zig`` with zig, ``go.mod`` with Go, ``Cargo.toml`` with
rustc, ``package.json`` with npm: it has the AssemblyScript compiler, or componentize-qjs, which makes a component of
JavaScript; ``requirements.txt`` with pip, which brings componentize-py and makes one of Python. Each module gets its
folder's ``plugin.json`` as the custom section ``hookline.plugin``, and its ``cases.json`` as ``hookline.cases``.

A build is kept under the hash of all that it was made from: sources, command, toolchain. So a second run copies.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "cli"))  # where nothing is installed yet
from hookline_cli.authoring.toolchains import (  # noqa: E402
    RUST_ENVIRONMENT,
    RUST_FLAGS,
    RUST_MODULE,
    ZIGLANG,
    BuildFailedError,
    ToolchainMissingError,
    go,
    node,
    npm_beside,
    output_of,
    run,
    rustc,
    with_path,
)

PLUGINS: Final = HERE / "plugins"
SDK: Final = HERE.parent / "sdk" / "hookline_sdk"
DEFAULT_CACHE: Final = HERE.parent / ".cache"
PARALLEL: Final = 2

SECTION: Final = "hookline.plugin"
CASES: Final = "hookline.cases"
MAX_CASES: Final = 256 * 1024
"""Bytes of cases that a module may carry."""
WASM_HEADERS: Final = (b"\0asm\x01\0\0\0", b"\0asm\x0d\0\x01\0")
"""Of a module, and of a component."""
COMPONENTIZE_QJS: Final = "componentize-qjs"

NOT_BUILT_FROM: Final = {"cases.json", "cases.live.json", "wasmplugin.yaml", "README.md"}
NOT_SOURCES: Final = {"node_modules", "target", "build", ".zig-cache"}
SDK_SOURCES: Final = ("*.h", "*.rs", "*.go", "*.mod", "*.ts", "*.zig", "*.js", "*.py", "*.wit")

C_FLAGS: Final = (
    "-target", "wasm32-freestanding", "-std=c17", "-Os", "-Wall", "-Wextra", "-Werror",
    "-fno-sanitize=undefined",  # its runtime is not there; wasm traps by itself where it must
    "-nostdlib", "-Wl,--no-entry", "-Wl,-z,stack-size=32768", "-Wl,--strip-all",
)  # fmt: skip
# ReleaseSafe: what would be undefined ends the call instead.
ZIG_FLAGS: Final = (
    "-target", "wasm32-freestanding", "-O", "ReleaseSafe", "-fstrip", "-fno-entry", "-rdynamic", "--stack", "131072",
)  # fmt: skip
GO_FLAGS: Final = ("-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-buildmode=c-shared")


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """A folder of ``plugins/``."""

    name: str
    language: str
    folder: Path

    def sources(self) -> list[Path]:
        """All that the module is made from, in a stable order."""
        own = [
            path
            for path in self.folder.rglob("*")
            if path.is_file()
            and path.name not in NOT_BUILT_FROM
            and path.suffix != ".wasm"
            and not NOT_SOURCES.intersection(path.relative_to(self.folder).parts)
        ]
        return sorted(own) + sorted(path for kind in SDK_SOURCES for path in self.sdk.rglob(kind))

    @property
    def sdk(self) -> Path:
        """What it is built with."""
        return SDK / self.language


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """What builds one language."""

    version: Callable[[], str]
    """Part of the cache's key; raises ToolchainMissingError."""
    compile: Callable[[Plugin, Path, Path], None]
    """From plugin, to a file, with a cache folder of its own."""
    required: bool = False
    """Whether it is an error that it is missing."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of one plugin. ``error`` is None where ``path`` holds the module."""

    name: str
    language: str
    path: str | None = None
    size: int = 0
    seconds: float = 0.0
    cached: bool = False
    skipped: bool = False
    error: str | None = None

    def line(self) -> str:
        """For a person."""
        if self.error is not None:
            return f"{self.name:<14} {self.language:<15} {'skipped' if self.skipped else 'FAILED'}: {self.error}"
        origin = "cached" if self.cached else "built"
        return f"{self.name:<14} {self.language:<15} {self.size:>9,} bytes {self.seconds:6.1f} s  {origin}"


# ---- C and Zig ----


def zig_version(flags: Iterable[str]) -> str:
    """The version of the ziglang package of this Python."""
    try:
        return f"ziglang {importlib.metadata.version('ziglang')} {' '.join(flags)}"
    except importlib.metadata.PackageNotFoundError:
        raise ToolchainMissingError(f"{sys.executable} -m pip install {ZIGLANG}") from None


def run_zig(verb: str, arguments: Iterable[str | Path], *, cwd: Path, cache: Path) -> None:
    """One of zig's verbs, with a cache of its own. Relative paths keep the output the same in every folder."""
    environment = {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
    run((sys.executable, "-m", "ziglang", verb, *arguments), cwd=cwd, env=environment)


def compile_c(plugin: Plugin, to: Path, cache: Path) -> None:
    """One .c file, with the headers of the SDK."""
    sdk = os.path.relpath(plugin.sdk, plugin.folder)
    run_zig("cc", (*C_FLAGS, "-I", sdk, "-o", to, f"{plugin.name}.c"), cwd=plugin.folder, cache=cache)


# ---- Zig ----


def compile_zig(plugin: Plugin, to: Path, cache: Path) -> None:
    """main.zig, with the SDK as the module ``hookline``."""
    sdk = os.path.relpath(plugin.sdk, plugin.folder)
    modules = ("--dep", "hookline", "-Mroot=main.zig", f"-Mhookline={sdk}/hookline.zig")
    run_zig("build-exe", (*ZIG_FLAGS, *modules, f"-femit-bin={to}"), cwd=plugin.folder, cache=cache)


# ---- Rust ----


def rust_version() -> str:
    """The compiler's version."""
    return f"{output_of(rustc(), '--version')} {' '.join(RUST_FLAGS + RUST_MODULE)}"


def compile_rust(plugin: Plugin, to: Path, cache: Path) -> None:
    """A crate that depends on the SDK alone needs no cargo."""
    crate = plugin.name.replace("-", "_")
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        sdk = Path(scratch) / "libhookline.rlib"
        library = ("--crate-type", "rlib", "--crate-name", "hookline", "-o", sdk, "src/lib.rs")
        run((rustc(), *RUST_FLAGS, *library), cwd=plugin.sdk, env=RUST_ENVIRONMENT)
        module = (*RUST_MODULE, "--crate-name", crate, "--extern", f"hookline={sdk}", "-o", to, "src/lib.rs")
        run((rustc(), *RUST_FLAGS, *module), cwd=plugin.folder, env=RUST_ENVIRONMENT)


# ---- Go ----


def go_version() -> str:
    """The compiler's version."""
    return f"{go()[1]} {' '.join(GO_FLAGS)}"


def compile_go(plugin: Plugin, to: Path, cache: Path) -> None:
    """A module that depends on the SDK alone: nothing is downloaded, no other toolchain either."""
    run(
        (go()[0], "build", *GO_FLAGS, "-o", to, "."),
        cwd=plugin.folder,
        env={
            "GOOS": "wasip1",
            "GOARCH": "wasm",
            "GOCACHE": cache,
            "GOPROXY": "off",
            "GOTOOLCHAIN": "local",
            "GOFLAGS": "",
            "GOWORK": "off",
        },
    )


# ---- AssemblyScript ----


def npm_version() -> str:
    """Of node alone: the compiler's own version is in package-lock.json, a source."""
    return f"node {node()[1]}"


def compile_assemblyscript(plugin: Plugin, to: Path, cache: Path) -> None:
    """`npm ci` and `npm run build` in a copy, so that nothing is installed among the sources."""
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        # As far from the SDK as it is here: it is imported by its relative path.
        sdk = os.path.relpath(plugin.sdk, plugin.folder)
        work = Path(scratch).joinpath(*plugin.folder.parts[-1 - sdk.count("..") :])
        shutil.copytree(plugin.folder, work, ignore=shutil.ignore_patterns(*NOT_SOURCES, "*.wasm"))
        shutil.copytree(plugin.sdk, os.path.normpath(work / sdk))
        program, _ = node()
        npm = npm_beside(program) or "npm"
        npm_build(npm, work, cache, {"PATH": with_path(program)})
        shutil.move(work / f"{plugin.name}.wasm", to)


def npm_build(npm: str | Path, work: Path, cache: Path, path: Mapping[str, str]) -> None:
    """`npm ci` and `npm run build`."""
    try:
        run(
            (npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"),
            cwd=work,
            env={**path, "npm_config_cache": cache / "npm", "npm_config_update_notifier": "false"},
        )
    except BuildFailedError as error:
        raise ToolchainMissingError(f"npm cannot install the compiler: {error}") from error
    run((npm, "run", "build"), cwd=work, env=path)


# ---- Components: JavaScript and Python ----


def copied(plugin: Plugin, scratch: str) -> Path:
    """A copy of the plugin's folder with the SDK beside it, as `hookline new` makes one."""
    work = Path(scratch) / plugin.name
    shutil.copytree(plugin.folder, work, ignore=shutil.ignore_patterns(*NOT_SOURCES, "*.wasm"))
    shutil.copytree(plugin.sdk, work / "hookline-sdk", ignore=shutil.ignore_patterns("__pycache__"))
    return work


def compile_javascript(plugin: Plugin, to: Path, cache: Path) -> None:
    """`npm ci` and `npm run build` in a copy."""
    program, _ = node()
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        work = copied(plugin, scratch)
        npm_build(npm_beside(program) or "npm", work, cache, {"PATH": with_path(program)})
        shutil.move(work / f"{plugin.name}.wasm", to)


def python_version() -> str:
    """Of this Python alone: componentize-py's own version is in requirements.txt, a source."""
    return f"python {sys.version_info.major}.{sys.version_info.minor}"


def compile_python(plugin: Plugin, to: Path, cache: Path) -> None:
    """componentize-py, in an environment of its own that is kept."""
    wanted = (plugin.folder / "requirements.txt").read_bytes()
    tools = cache / f"tools-{hashlib.sha256(wanted + sys.executable.encode()).hexdigest()[:16]}"
    program = tools / "bin" / "componentize-py"
    if not program.exists():
        try:
            run((sys.executable, "-m", "venv", "--clear", tools), cwd=cache)
            install = ("install", "--quiet", "--disable-pip-version-check", "--require-hashes")
            run((tools / "bin" / "python", "-m", "pip", *install, "-r", "requirements.txt"), cwd=plugin.folder)
        except BuildFailedError as error:
            raise ToolchainMissingError(f"pip cannot install componentize-py: {error}") from error
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        work = copied(plugin, scratch)
        world = ("--quiet", "-d", "hookline-sdk/hookline.wit", "-w", "plugin")
        sources = (plugin.name.replace("-", "_"), "-p", ".", "-p", "hookline-sdk")
        run((program, *world, "componentize", *sources, "-o", to), cwd=work, env={"VIRTUAL_ENV": tools})


TOOLCHAINS: Final = {
    "c": Toolchain(version=functools.partial(zig_version, C_FLAGS), compile=compile_c, required=True),
    "zig": Toolchain(version=functools.partial(zig_version, ZIG_FLAGS), compile=compile_zig, required=True),
    "rust": Toolchain(version=rust_version, compile=compile_rust),
    "go": Toolchain(version=go_version, compile=compile_go),
    "assemblyscript": Toolchain(version=npm_version, compile=compile_assemblyscript),
    "javascript": Toolchain(version=npm_version, compile=compile_javascript),
    "python": Toolchain(version=python_version, compile=compile_python),
}


# ---- All of them ----


def discover(plugins: Path) -> list[Plugin]:
    """Every plugin of a folder, by name."""
    marks = {
        "main.zig": "zig", "go.mod": "go", "Cargo.toml": "rust", "package.json": "assemblyscript",
        "requirements.txt": "python",
    }  # fmt: skip
    found = []
    for folder in sorted(path for path in plugins.iterdir() if (path / "plugin.json").is_file()):
        language = next((marks[mark] for mark in marks if (folder / mark).exists()), "c")
        if language == "assemblyscript" and COMPONENTIZE_QJS in (folder / "package.json").read_text(encoding="utf-8"):
            language = "javascript"
        found.append(Plugin(name=folder.name, language=language, folder=folder))
    return found


def leb128(number: int) -> bytes:
    """An unsigned number as WebAssembly writes it."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


def with_section(module: bytes, section: str, payload: bytes) -> bytes:
    """The module with a custom section at its end."""
    if not module.startswith(WASM_HEADERS):
        raise BuildFailedError("the compiler made something else than a WebAssembly module")
    name = section.encode()
    body = leb128(len(name)) + name + payload
    return module + b"\0" + leb128(len(body)) + body


def minified(document: Path) -> bytes:
    """A JSON file without what is there for people."""
    value = json.loads(document.read_text(encoding="utf-8"))
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def with_cases(module: bytes, folder: Path) -> bytes:
    """The module with the cases of its folder, which a sidecar asks it before it runs."""
    cases = folder / "cases.json"
    if not cases.is_file():
        return module
    payload = minified(cases)
    if len(payload) > MAX_CASES:
        raise BuildFailedError(f"cases.json has {len(payload)} bytes, and a module may carry {MAX_CASES}")
    return with_section(module, CASES, payload)


def cache_key(plugin: Plugin, version: str) -> str:
    """The hash of all that the module is made from."""
    digest = hashlib.sha256()
    for part in (Path(__file__).read_bytes(), version.encode()):
        digest.update(hashlib.sha256(part).digest())
    for path in plugin.sources():
        digest.update(hashlib.sha256(os.path.relpath(path, plugin.folder).encode()).digest())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def write(path: Path, content: bytes) -> None:
    """Puts a file in its place at once, so that nobody ever reads half of it."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(content)
    temporary = Path(file.name)
    temporary.chmod(0o644)
    temporary.replace(path)


def build(plugin: Plugin, *, out: Path, cache: Path) -> Result:
    """Builds one plugin, or takes it from the cache. Never raises for what is wrong with plugin or machine."""
    started = time.monotonic()
    toolchain = TOOLCHAINS[plugin.language]
    result = functools.partial(Result, name=plugin.name, language=plugin.language)
    try:
        kept = cache / "modules" / f"{cache_key(plugin, toolchain.version())}.wasm"
        cached = kept.is_file()
        if not cached:
            own = cache / plugin.language
            own.mkdir(parents=True, exist_ok=True)
            kept.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=own) as scratch:
                raw = Path(scratch) / "plugin.wasm"
                toolchain.compile(plugin, raw, own)
                write(kept, with_section(raw.read_bytes(), SECTION, minified(plugin.folder / "plugin.json")))
        target = out / f"{plugin.name}.wasm"
        module = with_cases(kept.read_bytes(), plugin.folder)
        write(target, module)
    except ToolchainMissingError as error:
        return result(error=str(error), skipped=not toolchain.required)
    except (BuildFailedError, OSError, ValueError) as error:
        return result(error=str(error), seconds=time.monotonic() - started)
    seconds = round(time.monotonic() - started, 3)
    return result(path=str(target), size=len(module), seconds=seconds, cached=cached)


def parse_arguments() -> argparse.Namespace:
    """The command line, with ``found``: the plugins of its folder."""
    parser = argparse.ArgumentParser(
        description="Build the example plugins, each into DIR/<name>.wasm.",
        epilog="C and Zig need the PyPI package ziglang. All others are skipped, with the reason, where "
        "their compiler is missing; whatever --only names must be built, or the exit code is 1.",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the modules go (made where it is missing)")
    parser.add_argument(
        "--plugins",
        type=Path,
        metavar="DIR",
        default=PLUGINS,
        help="build the plugins of this folder (default: those of the examples)",
    )
    parser.add_argument(
        "--only",
        metavar="WHAT",
        default=[],
        type=lambda text: [word.strip() for word in text.split(",") if word.strip()],
        help="only these, with commas between: languages (" + ", ".join(TOOLCHAINS) + ") or names of plugins",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        default=DEFAULT_CACHE / "examples",
        help="where builds and the compilers' caches are kept (default: .cache/examples of the repository)",
    )
    parser.add_argument("--list", action="store_true", help="name the plugins and their languages, build nothing")
    parser.add_argument("--check", action="store_true", help="say whether the compilers work here, build nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON array instead of lines")
    arguments = parser.parse_args()
    arguments.found = discover(arguments.plugins.resolve())
    choices = [*TOOLCHAINS, *(plugin.name for plugin in arguments.found)]
    if unknown := [word for word in arguments.only if word not in choices]:
        parser.error(f"--only: {', '.join(unknown)} is neither a language nor a plugin ({', '.join(choices)})")
    if not (arguments.list or arguments.check) and arguments.out is None:
        parser.error("--out DIR is needed")
    return arguments


def check(languages: Iterable[str]) -> int:
    """Says of each language what compiles it, or what is missing; 0 where nothing is."""
    status = 0
    for language in languages:
        try:
            print(f"{language:<15} {TOOLCHAINS[language].version()}")
        except ToolchainMissingError as error:
            status = 1
            print(f"{language:<15} MISSING: {error}")
    return status


def main() -> int:
    """0 where all that had to be built is built, else 1."""
    arguments = parse_arguments()
    plugins: list[Plugin] = arguments.found
    named = set(arguments.only)
    wanted = [plugin for plugin in plugins if not named or named & {plugin.name, plugin.language}]
    if arguments.list:
        listing = [{"name": plugin.name, "language": plugin.language} for plugin in wanted]
        lines = [f"{plugin.name:<14} {plugin.language}" for plugin in wanted]
        print(json.dumps(listing) if arguments.json else "\n".join(lines))
        return 0
    if arguments.check:
        return check(dict.fromkeys(plugin.language for plugin in wanted))
    out, cache = arguments.out.resolve(), arguments.cache.resolve()
    out.mkdir(parents=True, exist_ok=True)
    results = []
    with ThreadPoolExecutor(PARALLEL) as pool:
        for result in pool.map(lambda plugin: build(plugin, out=out, cache=cache), wanted):
            results.append(result)
            if not arguments.json:
                print(result.line(), flush=True)
    if arguments.json:
        print(json.dumps([asdict(result) for result in results], indent=2))
    return int(any(result.error is not None and (named or not result.skipped) for result in results))


if __name__ == "__main__":
    sys.exit(main())
