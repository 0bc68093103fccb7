"""Compilation, in a niced child process, and the cache of compiled modules.

Compiling takes a second for a few megabytes and all of a core. In the process that answers hooks it made p99
eight times longer; in a child at ``nice 19`` it is not to be seen. The child also checks a plugin's settings
against the JSON Schema that the plugin ships, because a schema is an artifact's too, and a regular expression
in it can run for ever.

The child runs ``child`` of this module: one job as JSON on standard input, one answer on standard output.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from hookline_api.config import Config
from hookline_runtime import engine
from hookline_runtime.artifacts.apart import ENDED, run_apart, serve_one
from hookline_runtime.artifacts.schema_check import CHECK_S, check_bounded, too_long
from hookline_runtime.errors import ConfigError, LoadError, VerifyError

if TYPE_CHECKING:
    from hookline_api.bundle import BundlePlugin

_YOUNG_S: Final = 600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What to make ready: a module for an engine, and the settings to check beside it."""

    wasm: Path
    sha256: str
    fuel: bool
    schema: dict[str, Any] | None = None
    config: Config | dict[str, Any] | None = None


class Compiler:
    """Makes compiled modules, and keeps them in a folder by digest and by the engine they fit."""

    def __init__(self, folder: Path, *, check_s: int = CHECK_S) -> None:
        """``check_s`` is how many seconds of a core the check of a plugin's settings may take."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)  # what is in here is executed
        self._folder = folder
        self._check_s = check_s
        self._one_at_a_time = asyncio.Semaphore(1)

    def path(self, sha256: str, *, fuel: bool) -> Path:
        """Where the compiled form of that module is, or will be."""
        return self._folder / f"{sha256}.{engine.fingerprint(fuel=fuel)}.cwasm"

    def find(self, entry: BundlePlugin) -> Path:
        """Where the compiled module of a bundle's plugin is; a ``ModuleFinder`` for ``Runtime``."""
        assert entry.artifact is not None  # noqa: S101 - a placeholder has nothing to load
        return self.path(entry.artifact.sha256, fuel=entry.limits.fuel is not None)

    async def prepare(self, job: Job) -> Path:
        """The compiled module's file; compiles where the cache has none, and checks the settings.

        Raises VerifyError for a module that does not compile, ConfigError for settings that its schema refuses.
        """
        target = self.path(job.sha256, fuel=job.fuel)
        there = await asyncio.to_thread(target.exists)
        if there and job.schema is None:
            return target
        request = {
            "wasm": None if there else str(job.wasm),
            "target": str(target),
            "fuel": job.fuel,
            "schema": job.schema,
            "config": job.config.parsed() if isinstance(job.config, Config) else job.config or {},
            "check_s": self._check_s,
        }
        try:
            written = orjson.dumps(request)
        except orjson.JSONEncodeError as error:
            raise ConfigError(f"the settings, or the schema for them, cannot be written as JSON: {error}") from None
        async with self._one_at_a_time:
            await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True, mode=0o700)
            answer = await run_apart(__name__, written)
            if answer.get("cause") == ENDED and job.schema is not None and target.exists():
                # The module is compiled, so it was the schema that took too long: it is the plugin's, and may
                # hold an expression that runs for ever.
                raise too_long(answer["message"])
        if answer.get("cause") == ConfigError.cause:
            raise ConfigError(str(answer["message"]))
        if answer:
            ended = "compiling did not end well: " if answer.get("cause") == ENDED else ""
            raise VerifyError(f"{ended}{answer.get('message')}")
        return target

    def has(self, sha256: str, *, fuel: bool) -> bool:
        """Whether the compiled form is there."""
        return self.path(sha256, fuel=fuel).exists()

    def discard(self, sha256: str) -> None:
        """Forget the compiled forms of a module that turned out not to load."""
        for path in self._folder.glob(f"{sha256}.*"):
            path.unlink(missing_ok=True)

    def keep(self, sha256s: set[str]) -> None:
        """Delete the compiled forms of other modules; they are made again from their artifacts.

        What is younger than ten minutes stays: somebody may be about to use it.
        """
        for path in self._folder.iterdir():
            if path.name.split(".", 1)[0] not in sha256s:
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - path.stat().st_mtime > _YOUNG_S:
                        path.unlink()


def _work(request: dict[str, Any]) -> dict[str, str]:
    try:
        if request["wasm"] is not None:
            wasm = Path(request["wasm"]).read_bytes()
            engine.compile_to(wasm, Path(request["target"]), fuel=request["fuel"])
        if request["schema"] is not None:
            check_bounded(request)
    except LoadError as error:
        return {"cause": error.cause, "message": str(error)}
    return {}


def child() -> None:
    """What the child process runs."""
    serve_one(_work)
