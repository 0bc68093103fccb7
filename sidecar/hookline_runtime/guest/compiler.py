"""Compilation, in a niced child process, and the cache of compiled modules.

Compiling takes a second for a few megabytes and all of a core. In the process that answers hooks it made p99
eight times longer; in a child at ``nice 19`` it is not to be seen. The child also checks a plugin's settings
against the JSON Schema that the plugin ships, because a schema is an artifact's too, and a regular expression
in it can run for ever.

A module can be made so that a compiler works on it for minutes, and takes gigabytes. So compiling has a bound by the
module's size, and what did not compile is remembered, also over a restart: it is not compiled again before it, the
engine or the bound has changed. Who waits goes in an order: plugins whose last module compiled go before those whose
did not, and small modules before large ones; and two are compiled at once where there is memory for both.

The child writes into a file without a name, and what it wrote gets its name here, with a *seal* (``sealed``) where
there is a key. It compiles the bytes that it has hashed, whatever becomes of the module's file meanwhile.

The child runs ``compiling``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import orjson

from hookline_api.config import Config
from hookline_artifacts import apart
from hookline_artifacts.apart import ENDED, lacked_memory, run_apart, took_too_long
from hookline_artifacts.child import CPU_S, FAILED
from hookline_artifacts.errors import ConfigError, FetchError, VerifyError
from hookline_artifacts.schema_check import CHECK_S, too_long
from hookline_runtime.guest import engine
from hookline_runtime.guest.sealed import Copies, NotSealedError, Seal, SealedFile, publish, unsealed_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from hookline_api.bundle import BundlePlugin

COMPILE_S: Final = 5
"""Seconds of a core that any module may take to compile, and for each mebibyte of it as many more as below."""
COMPILE_S_PER_MIB: Final = 10
"""What toolchains make takes one (Go, Rust, C), on a core of today."""
MEMORY: Final = 64 * 2**20
"""Bytes that a small module is compiled with at first; 40 MiB are the interpreter's and the engine's."""
MEMORY_PER_BYTE: Final = 64
"""More for each byte of the module: what toolchains make takes 20. Where that is too little, it is compiled once more
with all that there is for children, and alone."""
MAX_FAILED: Final = 1024
"""Modules that did not compile, and plugins whose last did not, that are remembered: as many as a sidecar can report
plugins, so none is forgotten before it is tried again. The oldest is, so no choice of modules makes it grow."""
_YOUNG_S: Final = 600.0
_CHILD: Final = "hookline_runtime.guest.compiling"

log = logging.getLogger("hookline.compiler")


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What to make ready: a module for an engine, and the settings to check beside it."""

    wasm: Path
    sha256: str
    fuel: bool
    schema: dict[str, Any] | None = None
    config: Config | dict[str, Any] | None = None
    secret_paths: list[str] | None = None
    """Of ``config``, those whose values are Secrets'; None: any may be."""
    plugin: str = ""
    """Whose it is: of those that wait, one whose last module did not compile goes behind the others."""


class Compiler:
    """Makes compiled modules, and keeps them in a folder by digest and by the engine they fit."""

    def __init__(
        self,
        folder: Path,
        *,
        key: bytes | None = None,
        check_s: int = CHECK_S,
        niceness: tuple[int, ...] = apart.NICENESS,
    ) -> None:
        """``check_s`` is how many seconds of a core the check of a plugin's settings may take.

        With a ``key``, the compiled modules bear a seal, and ``find`` gives what is loaded with it alone. Without one,
        whoever can write to the folder decides what is executed.
        """
        self.seal = None if key is None else Seal(key)
        """Of this sidecar's own work; None where it has no key."""
        self._copies = Copies()
        self.unsealed = 0
        """Files that were found where a sealed one should have been."""
        self._sharing = asyncio.Lock()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)  # what is in here is executed
        self._folder = folder
        self._check_s = check_s
        self._niceness = niceness
        self._failed = _Failed(folder.with_name(f"{folder.name}-failed.json"))
        self._behind: dict[str, None] = {}
        """Plugins whose last module did not compile, the longest ago first."""

    def path(self, sha256: str, *, fuel: bool) -> Path:
        """Where the compiled form of that module is, or will be."""
        return self._folder / f"{sha256}.{engine.fingerprint(fuel=fuel)}.cwasm"

    def find(self, entry: BundlePlugin) -> Path | SealedFile:
        """The compiled module of a bundle's plugin; a ``ModuleFinder`` for ``Runtime``."""
        assert entry.artifact is not None  # noqa: S101 - a placeholder has nothing to load
        path = self.path(entry.artifact.sha256, fuel=entry.limits.fuel is not None)
        return path if self.seal is None else SealedFile(path, self.seal)

    def finder(self, shared: Mapping[str, str]) -> Callable[[BundlePlugin], Path | SealedFile]:
        """``find``, where another process has copies of these files (``share``)."""

        def find(entry: BundlePlugin) -> Path | SealedFile:
            found = self.find(entry)
            if isinstance(found, Path) or found.path.name not in shared:
                return found
            return replace(found, shared=Path(shared[found.path.name]))

        return find

    async def share(self, entries: Iterable[BundlePlugin]) -> dict[str, str]:
        """Hold copies of compiled modules for other processes of this user: where, by the file's name."""
        found = [self.find(entry) for entry in entries if entry.artifact is not None]
        files = [each for each in found if isinstance(each, SealedFile)]
        async with self._sharing:
            return await asyncio.to_thread(self._copies.hold, files)

    @contextlib.contextmanager
    def lent(self, entry: BundlePlugin) -> Iterator[tuple[Path | BinaryIO | None, int]]:
        """A plugin's compiled module for a child of this process: its path, or a copy that bears the seal.

        With a copy, its bytes without the seal. None where the file is gone or damaged, or the system makes no such
        copy: then the child compiles. Slow: not for an event loop.
        """
        found = self.find(entry)
        if isinstance(found, Path):
            yield found, 0
            return
        copy = None
        with contextlib.suppress(OSError, NotSealedError):
            copy = found.copy()
        with copy or contextlib.nullcontext():
            yield copy, 0 if copy is None else unsealed_size(copy)

    @property
    def shared_size(self) -> int:
        """Bytes of memory that these copies take."""
        return self._copies.size

    def _is_there(self, path: Path) -> bool:
        """Whether there is something to be loaded; what it is, is checked at each load."""
        return path.exists() if self.seal is None else SealedFile(path, self.seal).is_ours

    async def prepare(self, job: Job) -> Path:
        """The compiled module's file; compiles where the cache has none, and checks the settings.

        Raises VerifyError for a module that does not compile, ConfigError for settings that its schema refuses.
        """
        target = self.path(job.sha256, fuel=job.fuel)
        there = await asyncio.to_thread(self._is_there, target)
        if there and job.schema is None:
            return target
        if not there and self.seal is not None and await asyncio.to_thread(os.path.lexists, target):
            self.unsealed += 1
            log.warning(
                "the compiled module %s does not bear the seal of this sidecar; it is compiled again", target.name
            )
        if not there:
            known = self._failed.find(target.name)
            if known is not None:
                raise VerifyError(known)
        size = 0 if there else await asyncio.to_thread(_size, job.wasm)
        await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True, mode=0o700)
        with contextlib.ExitStack() as kept:
            out = None if there else kept.enter_context(tempfile.TemporaryFile(dir=self._folder))
            written = self._written(job, None if out is None else out.fileno(), size)
            answer = await self._run(job, written, size, () if out is None else (out.fileno(),))
            # Also where the child failed at the schema, which it looks at after it has compiled.
            if out is not None and engine.is_whole(out):
                await asyncio.to_thread(publish, out, target, self.seal)
                there = True
        if answer.get("cause") == FetchError.cause:
            raise FetchError(str(answer["message"]))
        if not answer or answer.get("cause") == ConfigError.cause or (job.schema is not None and there):
            self._behind.pop(job.plugin, None)
        else:
            self._note_failure(job, target.name, answer, size)
        if answer.get("cause") == ENDED and job.schema is not None and there:
            # The module is compiled, so it was the schema that took too long: it is the plugin's, and may
            # hold an expression that runs for ever.
            raise too_long(answer["message"])
        if answer.get("cause") == ConfigError.cause:
            raise ConfigError(str(answer["message"]))
        if answer:
            raise VerifyError(_sentence(answer, size))
        return target

    def _written(self, job: Job, out: int | None, size: int) -> bytes:
        """What the child gets, as bytes: parsed settings are large, and a job may wait. Raises ConfigError."""
        config = job.config.parsed() if isinstance(job.config, Config) else job.config
        request = {
            "wasm": None if out is None else str(job.wasm),
            "sha256": job.sha256,
            "out": out,
            "fuel": job.fuel,
            "compile_s": compile_s(size),
            "schema": job.schema,
            "config": config or {},
            "secret_paths": job.secret_paths,
            "check_s": self._check_s,
        }
        try:
            return orjson.dumps(request)
        except orjson.JSONEncodeError as error:
            raise ConfigError(f"the settings, or the schema for them, cannot be written as JSON: {error}") from None

    async def _run(self, job: Job, request: bytes, size: int, out: tuple[int, ...]) -> dict[str, Any]:
        """Have it done: with what such a module takes, and where that is too little, with all there is."""
        order = (int(job.plugin in self._behind), size)
        wanted = MEMORY + MEMORY_PER_BYTE * size
        told: Any = {"order": order, "descriptors": out, "niceness": self._niceness}
        answer = await run_apart(_CHILD, request, wanted=wanted, **told)
        if lacked_memory(answer) and answer["memory"] >= wanted:
            answer = await run_apart(_CHILD, request, **told)
        return answer

    def _note_failure(self, job: Job, name: str, answer: dict[str, Any], size: int) -> None:
        """Remember what failed because of what the module is, and not because of anything beside it."""
        self._behind.pop(job.plugin, None)
        self._behind[job.plugin] = None
        while len(self._behind) > MAX_FAILED:
            del self._behind[next(iter(self._behind))]
        lacked = lacked_memory(answer)
        ours = str(answer.get("message")).startswith(FAILED)
        if lacked or took_too_long(answer) or (answer.get("cause") != ENDED and not ours):
            self._failed.add(name, _sentence(answer, size), memory=answer["memory"] if lacked else None)

    def has(self, sha256: str, *, fuel: bool) -> bool:
        """Whether the compiled form is there."""
        return self._is_there(self.path(sha256, fuel=fuel))

    def discard(self, path: Path) -> None:
        """Forget a compiled module that turned out not to load."""
        path.unlink(missing_ok=True)
        self._copies.keep(lambda name: name != path.name)

    def keep(self, sha256s: set[str]) -> None:
        """Delete the compiled forms of other modules; they are made again from their artifacts.

        What is younger than ten minutes stays: somebody may be about to use it.
        """
        self._copies.keep(lambda name: name.split(".", 1)[0] in sha256s)
        for path in self._folder.iterdir():
            if path.name.split(".", 1)[0] not in sha256s:
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - path.stat().st_mtime > _YOUNG_S:
                        path.unlink()


class _Failed:
    """What did not compile, by the name that its compiled form would have; kept in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, list[Any]] = {}
        """A sentence, the bound by which it failed, and the memory it had where that was too little."""
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            found = json.loads(path.read_bytes()[: MAX_FAILED * 4096])
            self._known = {
                str(name): [str(why), str(bound), memory]
                for name, (why, bound, memory) in list(found.items())[:MAX_FAILED]
                if memory is None or isinstance(memory, int)
            }

    def find(self, name: str) -> str | None:
        """Why it did not compile, where it would not now either."""
        why, bound, memory = self._known.get(name, (None, "", None))
        if why is None or bound != _BOUND or (memory is not None and apart.room() > memory):
            return None
        return f"{why} (it is not compiled again before it changes)"

    def add(self, name: str, why: str, *, memory: int | None) -> None:
        """Remember it."""
        self._known.pop(name, None)
        self._known[name] = [why[:1000], _BOUND, memory]
        while len(self._known) > MAX_FAILED:
            del self._known[next(iter(self._known))]
        partial = self._path.with_suffix(".partial")
        try:
            partial.write_text(json.dumps(self._known))
            partial.replace(self._path)
        except OSError as error:
            log.warning("the list of modules that do not compile cannot be saved: %s", error)


_BOUND: Final = f"{COMPILE_S}+{COMPILE_S_PER_MIB}"
"""Another bound is another chance."""


def compile_s(size: int) -> int:
    """Seconds of a core that a module of so many bytes may take to compile: no child gets more than ``CPU_S``."""
    return min(COMPILE_S + COMPILE_S_PER_MIB * size // 2**20, CPU_S)


def _size(wasm: Path) -> int:
    with contextlib.suppress(OSError):  # who reads it says so
        return wasm.stat().st_size
    return 0


def _sentence(answer: dict[str, Any], size: int) -> str:
    """Why it did not compile."""
    if lacked_memory(answer):
        return (
            f"compiling took more than the {answer['memory'] >> 20} MiB of memory that a compiler may have here: give "
            "the sidecar more memory, or split the module's largest functions"
        )
    if took_too_long(answer):
        return (
            f"compiling took more than {compile_s(size)} s of a core, which is what a module of {size} bytes may take: "
            "split its largest functions"
        )
    ended = "compiling did not end well: " if answer.get("cause") == ENDED else ""
    return f"{ended}{answer.get('message')}"
