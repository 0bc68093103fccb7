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
import re
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from hookline_runtime import engine
from hookline_runtime.errors import ConfigError, FetchError, HooklineError, LoadError, VerifyError

if TYPE_CHECKING:
    from hookline_api.bundle import BundlePlugin

_TIMEOUT_S: Final = 120.0
_YOUNG_S: Final = 600.0
_CPU_S: Final = 110
_CHECK_S: Final = 5
_MEMORY: Final = 4 * 2**30
_MAX_ANSWER: Final = 64 * 1024
_ENDED: Final = "ended"
"""The cause in an answer that the child did not give itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What to make ready: a module for an engine, and the settings to check beside it."""

    wasm: Path
    sha256: str
    fuel: bool
    schema: dict[str, Any] | None = None
    config: dict[str, Any] | None = None


class Compiler:
    """Makes compiled modules, and keeps them in a folder by digest and by the engine they fit."""

    def __init__(self, folder: Path, *, check_s: int = _CHECK_S) -> None:
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
            "config": job.config or {},
            "check_s": self._check_s,
        }
        try:
            written = orjson.dumps(request)
        except orjson.JSONEncodeError as error:
            raise ConfigError(f"the settings, or the schema for them, cannot be written as JSON: {error}") from None
        async with self._one_at_a_time:
            await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True, mode=0o700)
            answer = await _run_child(written)
            if answer.get("cause") == _ENDED and job.schema is not None and target.exists():
                # The module is compiled, so it was the schema that took too long: it is the plugin's, and may
                # hold an expression that runs for ever.
                raise ConfigError(f"checking the settings against the plugin's schema failed: {answer['message']}")
        if answer.get("cause") == ConfigError.cause:
            raise ConfigError(str(answer["message"]))
        if answer:
            raise VerifyError(str(answer.get("message")))
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


async def _run_child(request: bytes) -> dict[str, Any]:
    try:
        child = await asyncio.create_subprocess_exec(
            # Niced before anything is imported: even that is felt by hooks.
            sys.executable, "-c", f"import os; os.nice(19); from {__name__} import child; child()",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
    except OSError as error:
        raise FetchError(f"the compiler cannot be started: {error.strerror}") from error
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            out, err = await child.communicate(request)
    except TimeoutError:
        return {"cause": _ENDED, "message": f"the compiler was not done within {_TIMEOUT_S:.0f} s"}
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    if child.returncode == 0 and len(out) <= _MAX_ANSWER:
        answer: dict[str, Any] = orjson.loads(out)
        return answer
    last = err.decode(errors="replace").strip().rsplit("\n", 1)[-1][:300]
    code = child.returncode or 0
    ended = f"by signal {-code}" if code < 0 else f"with {code}"
    return {
        "cause": _ENDED,
        "message": f"the compiler ended {ended}: {last or 'it used too much time or memory'}",
    }


def _work(request: dict[str, Any]) -> dict[str, str]:
    try:
        if request["wasm"] is not None:
            wasm = Path(request["wasm"]).read_bytes()
            engine.compile_to(wasm, Path(request["target"]), fuel=request["fuel"])
        if request["schema"] is not None:
            used = resource.getrusage(resource.RUSAGE_SELF)
            allowed = int(used.ru_utime + used.ru_stime) + 1 + int(request["check_s"])
            resource.setrlimit(resource.RLIMIT_CPU, (min(allowed, _CPU_S), _CPU_S))
            _check(request["config"], request["schema"])
    except LoadError as error:
        return {"cause": error.cause, "message": str(error)}
    return {}


def _check(config: dict[str, Any], schema: dict[str, Any]) -> None:
    import jsonschema  # noqa: PLC0415 - only some jobs need it
    from referencing import Registry  # noqa: PLC0415
    from referencing.exceptions import Unresolvable  # noqa: PLC0415

    try:
        validator_class = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
        validator_class.check_schema(schema)
        # An empty registry: a reference to elsewhere is an error, and never a request to the network.
        errors = list(validator_class(schema, registry=Registry()).iter_errors(config))
    except jsonschema.SchemaError as error:
        raise ConfigError(f"the plugin's own config_schema is no JSON Schema: {error.message[:200]}") from error
    except Exception as error:  # a schema is an artifact's: references that lead nowhere, recursion, bad patterns
        # Without the text, which may quote the settings, and so a Secret's value.
        why = str(error)[:200] if isinstance(error, Unresolvable | re.error) else type(error).__name__
        raise ConfigError(f"the plugin's own config_schema cannot be used: {why}") from error
    if errors:
        best = jsonschema.exceptions.best_match(errors)
        # The message quotes the value, which may be a Secret's: say where and which rule, not what.
        path = ".".join(["config", *(str(part) for part in best.absolute_path)])
        names_only = best.validator in {"required", "additionalProperties", "dependentRequired"}
        rule = (best.message if names_only else f"{best.validator}: {best.validator_value!r}")[:200]
        raise ConfigError(f"{path} does not satisfy the plugin's schema ({rule})")


def child() -> None:
    """What the child process runs: one job from standard input, one answer to standard output."""
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answer: dict[str, str]
    try:
        answer = _work(orjson.loads(sys.stdin.buffer.read()))
    except (HooklineError, OSError, MemoryError) as error:
        answer = {"cause": "verify", "message": f"the compiler failed: {error}"}
    sys.stdout.buffer.write(orjson.dumps(answer))
