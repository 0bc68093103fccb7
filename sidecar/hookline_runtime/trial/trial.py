"""One plugin in a runtime of its own, and what each of its calls came to."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from hookline_api.bundle import Bundle, BundleArtifact, BundlePlugin
from hookline_api.resources import KvSettings
from hookline_artifacts.module.reader import COMPONENT_HEADER
from hookline_runtime.guest import engine
from hookline_runtime.host.cache_store import CacheStore
from hookline_runtime.host.kv import KvStore
from hookline_runtime.plugin.backlog import Asker
from hookline_runtime.plugin.stats import StatsTable, Summary
from hookline_runtime.runtime import Runtime
from hookline_runtime.trial.answers import StandIn
from hookline_runtime.trial.entries import own_caches

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from hookline_api.cases import HostAnswer
    from hookline_api.hooks import Hook
    from hookline_runtime.guest.sealed import Inherited

_TRACE: Final = 5
"""The level below Python's own, which has no name there."""
_MAX_LINES: Final = 1000
"""Of a guest's log that are kept of one call."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """What the guest logged."""

    level: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Called:
    """What one call came to."""

    decision: dict[str, Any]
    """As the proxy gets it."""
    cause: str | None
    """Of the failure, where the guest failed."""
    message: str | None
    """… in one sentence."""
    rejected: bytes
    """The beginning of the guest's answer, where it is none of the hook's."""
    backtrace: tuple[str, ...]
    """The guest's functions that were under way where it failed, the innermost first."""
    log: tuple[Line, ...]
    us: float
    """Microseconds in the plugin, host functions included."""
    fuel: int | None
    """What it took of ``limits.fuel``, where that is set."""
    memory: int
    """Bytes of linear memory, the most so far."""
    memory_limit: int | None
    """… and what ``limits.memory`` allows; None of a component, whose memory nobody sees."""
    host_calls: Mapping[str, int]
    denied: Mapping[str, int]
    """Host functions that were called without their permission."""
    refused: Mapping[str, int]
    """Host functions that answered an error."""
    unanswered: Mapping[str, Any] | None
    """A question to a database or a server that nobody had an answer for."""


def compiled(wasm: bytes, folder: Path, *, fuel: bool = False) -> Path:
    """The module's compiled form in a folder, made where it is not there. Slow for a large module.

    DANGER: what is in the folder is executed: it must be the caller's alone. Raises VerifyError.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{hashlib.sha256(wasm).hexdigest()}.{engine.fingerprint(fuel=fuel)}.cwasm"
    if not path.exists():
        engine.compile_to(wasm, path, fuel=fuel)
    return path


def own_entry(entry: BundlePlugin, wasm: bytes) -> BundlePlugin:
    """An entry for a trial of this module: it reaches nobody, and its keys and caches are its own."""
    artifact = entry.artifact or BundleArtifact(
        digest="", sha256=hashlib.sha256(wasm).hexdigest(), size=len(wasm), layout="file", reference=""
    )
    kv = KvSettings(initial=entry.kv.initial)
    update = {
        "artifact": artifact,
        "data_sources": [],
        "egress": [],
        "credentials": {},
        "caches": own_caches(entry),
        "kv": kv,
    }
    return entry.model_copy(update=update)


class Trial:
    """One plugin on trial; ``on_trial`` makes it."""

    def __init__(
        self, runtime: Runtime, stats: StatsTable, stand_in: StandIn, entry: BundlePlugin, *, is_component: bool
    ) -> None:
        self._runtime = runtime
        self._stats = stats
        self._stand_in = stand_in
        self._entry = entry
        self._memory_limit = None if is_component else entry.limits.memory
        self._lines: list[Line] = []

    async def call(self, hook: Hook, data: bytes) -> Called:
        """One call. Raises InputError where the input is not the hook's."""
        plugin = self._runtime.plugins[self._entry.name]
        plugin.last_failure = None
        own = plugin.hooks.get(hook)
        if own is not None:
            own.rejected = b""
        self._lines.clear()
        before = (dict(self._stand_in.calls), dict(plugin.host.denied), dict(plugin.host.refused))
        self._stand_in.unanswered = None
        used = self._used(hook)
        with _listening(self._entry.name, self._lines):
            decision = await self._runtime.call(hook, data)
            await self._runtime.drained()
        after = self._used(hook)
        failure = plugin.last_failure
        calls, denied, refused = (
            _more(old, new)
            for old, new in zip(before, (self._stand_in.calls, plugin.host.denied, plugin.host.refused), strict=True)
        )
        return Called(
            decision=decision,
            cause=failure.cause if failure else None,
            message=failure.message if failure else None,
            rejected=own.rejected if own is not None else b"",
            backtrace=failure.backtrace if failure else (),
            log=tuple(self._lines),
            us=(after.seconds - used.seconds) * 1e6,
            fuel=after.fuel - used.fuel if self._entry.limits.fuel is not None else None,
            memory=after.memory,
            memory_limit=self._memory_limit,
            host_calls=calls,
            denied=denied,
            refused=refused,
            unanswered=self._stand_in.unanswered,
        )

    async def timed(self, hook: Hook, data: bytes, count: int) -> list[int]:
        """Nanoseconds that a caller in this process waits for each of so many calls, one after the other.

        Not for hooks that observe, whose callers wait for nothing. Raises InputError.
        """
        times, clock, answer = [], time.perf_counter_ns, self._runtime.answer
        for _ in range(count):
            begun = clock()
            answered = answer(hook, data)
            if not isinstance(answered, bytes):
                await answered(Asker())
            times.append(clock() - begun)
        return times

    def _used(self, hook: Hook) -> Summary:
        return Summary.of([self._stats.row(0, hook).values()])


@contextlib.asynccontextmanager
async def on_trial(
    entry: BundlePlugin,
    wasm: bytes,
    module: Path | Inherited,
    *,
    keys: Mapping[str, str] | None = None,
    answers: Sequence[HostAnswer] = (),
    stats: StatsTable | None = None,
) -> AsyncIterator[Trial]:
    """A fresh plugin with these keys. ``module`` is its compiled form. Raises PrepareError where it does not load.

    ``stats`` is a table that several trials use one after the other: to make one takes as long as many calls.
    """
    entry = own_entry(entry, wasm)
    with tempfile.TemporaryDirectory(prefix="hookline-trial-") as state, contextlib.ExitStack() as kept:
        kv, cache = KvStore(Path(state) / "kv"), CacheStore(Path(state) / "cache")
        kept.callback(kv.close)
        kept.callback(cache.close)
        for key, value in (keys or {}).items():
            kv.put(entry.name, key.encode(), value.encode())
        stats, stand_in = stats or StatsTable(), StandIn(answers)
        runtime = Runtime(kv=kv, cache=cache, stats=stats, stand_in=stand_in)
        try:
            await runtime.load(Bundle.of([entry]), lambda _: module)
            yield Trial(runtime, stats, stand_in, entry, is_component=wasm[:8] == COMPONENT_HEADER)
        finally:
            await runtime.close()


@contextlib.contextmanager
def _listening(name: str, lines: list[Line]) -> Any:
    """Take down what the guest logs, at all levels."""
    logger = logging.getLogger("hookline.guest")

    class _Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            args = record.args if isinstance(record.args, tuple) else ()
            if args[:1] == (name,) and len(lines) < _MAX_LINES:
                level = "trace" if record.levelno == _TRACE else record.levelname.lower()
                lines.append(Line(level=level, text=str(args[1])))

    ear, level = _Ear(), logger.level
    logger.addHandler(ear)
    logger.setLevel(1)
    try:
        yield
    finally:
        logger.removeHandler(ear)
        logger.setLevel(level)


def _more(old: Mapping[str, int], new: Mapping[str, int]) -> dict[str, int]:
    return {name: count - old.get(name, 0) for name, count in new.items() if count > old.get(name, 0)}


def as_json(value: Any) -> bytes:
    """An input as the proxy would send it."""
    return orjson.dumps(value)
