"""Self-tests: a version is asked its own cases before it may take over, in a child process.

The child is niced, has memory and processor time of its own, and reaches nobody. Whatever becomes of it, this process
goes on. Only processor time counts in it, so a busy machine refuses no good version; and a version that fails with less
memory than its limits promise is asked once more with what there is.

What was found is remembered, also over a restart: a version is asked again only where its module, its limits, its
isolation or this program are others. That it holds bears the sidecar's seal where there is a key, as compiled modules
do.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.metadata
import json
import logging
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from hookline_artifacts.apart import ENDED, lacked_memory, run_apart, took_too_long
from hookline_artifacts.child import FAILED
from hookline_artifacts.errors import FetchError, SelfTestError
from hookline_runtime.guest import engine
from hookline_runtime.trial.entries import case_entry

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from hookline_api.bundle import BundlePlugin
    from hookline_api.hooks import Hook
    from hookline_runtime.guest.compiler import Compiler
    from hookline_runtime.guest.sealed import Seal

CASES_S: Final = 30
"""Seconds of a core that all cases of a module may take; fifty small ones take half of one."""
MEMORY: Final = 128 * 2**20
"""Bytes that the child has at first: 45 to 90 MiB are the interpreter's, the engine's, the threads' and the stores'."""
NEEDS_MEMORY: Final = "memory"
"""The cause in an answer of the child: the cases fail with less memory than ``limits.memory`` promises."""
MAX_FOUND: Final = 1024
"""Results that are remembered: the oldest go first."""
_SCRATCH: Final = ".self-test-"
_HOLDS: Final = ""
_MAX_SENTENCE: Final = 1000
_ORDER: Final = (0, 0)
"""Before what waits to be compiled: it is short, and a version that is ready for it is nearly done."""
_CHILD: Final = "hookline_runtime.trial.child"
_VERSION: Final = importlib.metadata.version("hookline")

log = logging.getLogger("hookline.selftest")


class SelfTests:
    """Asks versions their cases, and remembers what was found."""

    def __init__(self, compiler: Compiler, folder: Path, *, cases_s: int = CASES_S) -> None:
        """``folder`` is the compiler's: the results are in a file beside it."""
        self._compiler = compiler
        self._folder = folder.parent
        for left in self._folder.glob(f"{_SCRATCH}*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        self._found = _Found(folder.with_name(f"{folder.name}-tested.json"), compiler.seal)
        self._cases_s = cases_s

    async def hold(self, entry: BundlePlugin, wasm: Path, *, hooks: Sequence[Hook], asks: Collection[str]) -> None:
        """Ask a version the cases that its module carries; it is compiled already.

        ``wasm`` is its module, with these ``hooks``; ``asks`` are the permissions that it asks for. Raises
        SelfTestError where one does not hold, and FetchError where nobody can tell now.
        """
        asked = case_entry(entry, hooks=hooks, asks=asks)
        key = self._key(asked)
        known = await asyncio.to_thread(self._found.find, key)
        if known is None:
            known = await self._ask(asked, wasm, key)
        if known != _HOLDS:
            raise SelfTestError(known)

    def _key(self, asked: BundlePlugin) -> str:
        """Stands for all that the result follows from."""
        fuel = asked.limits.fuel is not None
        told = asked.model_dump_json(exclude={"name", "artifact"})
        facts = [_sha256_of(asked), told, _VERSION, engine.fingerprint(fuel=fuel), self._cases_s]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    async def _ask(self, asked: BundlePlugin, wasm: Path, key: str) -> str:
        """Why a case does not hold; empty where all do. Raises SelfTestError and FetchError."""
        answer = await self._run(asked, wasm, wanted=MEMORY)
        if answer.get("cause") == NEEDS_MEMORY or lacked_memory(answer) or answer.get("signal") == 0:
            answer = await self._run(asked, wasm, wanted=MEMORY + 2 * asked.limits.memory)
        cause, message = answer.get("cause"), str(answer.get("message"))
        if cause is None:
            await asyncio.to_thread(self._found.add, key, _HOLDS)
            log.info("plugin '%s': %s", asked.name, answer.get("told"))
            return _HOLDS
        if cause == FetchError.cause or message.startswith(FAILED):
            raise FetchError(f"its own cases could not be asked: {message.removeprefix(FAILED)}")
        if cause == NEEDS_MEMORY:
            raise SelfTestError(  # with more memory, another time, it may hold
                f"{message}, and it had less memory than limits.memory promises: give the sidecar more memory, or "
                "lower limits.memory"
            )
        told = message
        if took_too_long(answer):
            told = (
                f"its own cases took more than {self._cases_s} s of a core, which is what all of them may take: carry "
                "fewer, or shorter ones"
            )
        elif lacked_memory(answer):
            raise SelfTestError(  # the same
                f"its own cases took more than the {answer['memory'] >> 20} MiB of memory that they may have here: "
                "carry fewer or smaller ones, or give the sidecar more memory"
            )
        elif cause == ENDED and not answer.get("signal"):  # it hung, or is a defect of ours
            raise FetchError(f"its own cases could not be asked: {message}")
        elif cause == ENDED:
            raise SelfTestError(f"its own cases could not be asked to the end: {message}")
        await asyncio.to_thread(self._found.add, key, told)
        return told

    async def _run(self, asked: BundlePlugin, wasm: Path, *, wanted: int) -> dict[str, Any]:
        with contextlib.ExitStack() as kept:
            lent, size = await asyncio.to_thread(kept.enter_context, self._compiler.lent(asked))
            path = lent if isinstance(lent, Path) else None
            copy = None if isinstance(lent, Path) or lent is None else lent.fileno()
            request = {
                "wasm": str(wasm),
                "sha256": _sha256_of(asked),
                "compiled": None if path is None else str(path),
                "descriptor": copy,
                "size": size,
                "entry": asked.model_dump(mode="json", by_alias=True),
                "seconds": self._cases_s,
                "folder": await asyncio.to_thread(kept.enter_context, self._scratch()),
            }
            descriptors = () if copy is None else (copy,)
            return await run_apart(_CHILD, orjson.dumps(request), wanted=wanted, order=_ORDER, descriptors=descriptors)

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[str]:
        """A folder for one child, gone when that is, however it ended.

        In the state folder, which is ours: a pod's root file system may be read-only, and have no other.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder = tempfile.mkdtemp(dir=self._folder, prefix=_SCRATCH)
        except OSError as error:
            raise FetchError(f"its own cases could not be asked: the state folder: {error.strerror}") from None
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _sha256_of(entry: BundlePlugin) -> str:
    assert entry.artifact is not None  # noqa: S101 - a placeholder has no cases
    return entry.artifact.sha256


class _Found:
    """What was found of versions: why they do not hold, or an empty text; kept in a file."""

    def __init__(self, path: Path, seal: Seal | None) -> None:
        self._path = path
        self._seal = seal
        self._adding = threading.Lock()
        self._known: dict[str, list[str]] = {}
        """By key: a sentence, and what stands for it where there is a key."""
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            with path.open("rb") as file:
                found = orjson.loads(file.read(MAX_FOUND * 4096))
            for name, (why, tag) in list(found.items())[:MAX_FOUND]:
                if isinstance(why, str) and isinstance(tag, str):
                    self._known[name] = [why, tag]

    def find(self, key: str) -> str | None:
        """What was found; None where nothing was, or somebody else says so."""
        why, tag = self._known.get(key, (None, ""))
        if why is None or tag != self._tag(key, why):
            return None
        return f"{why} (it is not asked again before it changes)" if why else _HOLDS

    def add(self, key: str, why: str) -> None:
        """Remember it."""
        why = why[:_MAX_SENTENCE]
        partial = self._path.with_suffix(".partial")
        with self._adding:
            known = {name: value for name, value in self._known.items() if name != key}
            known[key] = [why, self._tag(key, why)]
            while len(known) > MAX_FOUND:
                del known[next(iter(known))]
            self._known = known
            try:
                partial.write_bytes(orjson.dumps(known))
                partial.replace(self._path)
            except OSError as error:
                log.warning("what was found of versions by their own cases cannot be saved: %s", error)

    def _tag(self, key: str, why: str) -> str:
        return "" if self._seal is None else self._seal.tag(key, why.encode())
