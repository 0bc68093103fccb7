"""How long a plugin's hooks take, beside a guest that does nothing, in turns within one run.

A figure by itself says as much about the machine as about the plugin; what counts is by how much it is slower than a
call that is as short as can be.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import wasmtime

from hookline_api.cases import written_out
from hookline_api.config import Config
from hookline_api.hooks import OBSERVERS, Hook
from hookline_api.resources import Isolation
from hookline_artifacts.errors import ConfigError, LoadError
from hookline_cli.authoring import shown
from hookline_cli.authoring.desk import Desk, loaded
from hookline_cli.authoring.subject import Subject, Wanted, check_config, entry_for
from hookline_runtime.trial.trial import as_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hookline_api.bundle import BundlePlugin
    from hookline_api.cases import Case, HostAnswer
    from hookline_runtime.trial.trial import Trial

Mode = Literal["PerCall", "Pooled"]
MODES: Final[tuple[Mode, ...]] = ("PerCall", "Pooled")
_WARM: Final = 50
"""Calls that do not count: a plugin is watched until it has shown that it does not block others."""
_TURN_NS: Final = 5_000_000
_MOST_CALLS: Final = 500_000
_PAGE: Final = 65_536


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What a hook is asked with while it is measured."""

    hook: Hook
    data: bytes
    origin: str
    """Where it is from, for people."""
    config: dict[str, Any] | None = None
    permissions: Sequence[str] | None = None
    keys: Mapping[str, str] | None = None
    answers: Sequence[HostAnswer] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What one hook took in one mode. Times are in microseconds."""

    hook: Hook
    mode: Mode
    calls: int = 0
    p50: float = 0.0
    p99: float = 0.0
    rate: float = 0.0
    """Calls in a second, one after the other."""
    bare_p50: float = 0.0
    bare_p99: float = 0.0
    problem: str | None = None
    """Why it was not measured."""


def bare_guest(hook: Hook, size: int) -> bytes:
    """A guest that takes an input of so many bytes, looks at nothing, and has no opinion."""
    pages = 4 + -(-size // _PAGE)
    text = f"""(module (memory (export "memory") {pages})
      (func (export "alloc") (param i32) (result i32) i32.const {_PAGE})
      (func (export "dealloc") (param i32 i32))
      (func (export "{hook.value}") (param i32 i32) (result i64) i64.const 0))"""
    return bytes(wasmtime.wat2wasm(text))


def questions(cases: Sequence[Case], hooks: Sequence[Hook]) -> list[Question]:
    """For each hook the first question of a case that is answered. Raises ConfigError."""
    found: dict[Hook, Question] = {}
    for case in cases:
        for step in case.steps:
            if step.hook in found or step.hook not in hooks or step.expect is None:
                continue
            try:
                data, config = as_json(written_out(step.input)), written_out(case.config)
            except (ValueError, TypeError) as error:
                raise ConfigError(f"case {case.name!r:.80}: {error}") from None
            found[step.hook] = Question(
                hook=step.hook,
                data=data,
                origin=f"case {case.name!r:.80}",
                config=config,
                permissions=case.permissions,
                keys=case.kv,
                answers=case.answers,
            )
    return list(found.values())


async def measure(subject: Subject, base: BundlePlugin, question: Question, mode: Mode, seconds: float) -> Measured:
    """Measure one hook in one mode. Raises ConfigError where the input is not the hook's."""
    update: dict[str, Any] = {"isolation": Isolation(mode=mode)}
    if question.config is not None:
        await check_config(subject, question.config)
        update["config"] = Config(question.config)
    if question.permissions is not None:
        update["permissions"] = list(question.permissions)
    entry = base.model_copy(update=update)
    wasm = bare_guest(question.hook, len(question.data))
    bare = _bare(subject, wasm)
    bare_entry = (await entry_for(bare, Wanted())).model_copy(
        update={"isolation": entry.isolation, "limits": entry.limits.model_copy(update={"fuel": None, "memory": 2**30})}
    )
    async with contextlib.AsyncExitStack() as stack:
        try:
            own = await stack.enter_async_context(loaded(subject, entry, keys=question.keys, answers=question.answers))
            other = await stack.enter_async_context(loaded(bare, bare_entry))
        except LoadError as error:
            return Measured(hook=question.hook, mode=mode, problem=str(error))
        called = await Desk(own).call(question.hook, question.data)
        if called.cause is not None:
            why = f"the call fails ({called.cause}): {called.message}; {shown.advice(called)}"
            return Measured(hook=question.hook, mode=mode, problem=why)
        return _told(question.hook, mode, *await _turns(own, other, question, seconds))


def _bare(subject: Subject, wasm: bytes) -> Subject:
    from hookline_artifacts.module.describe import PluginDescription  # noqa: PLC0415
    from hookline_artifacts.module.inspection import inspect_module  # noqa: PLC0415

    return Subject(
        path=subject.path.with_name("bare.wasm"),
        wasm=wasm,
        info=inspect_module(wasm),
        description=PluginDescription(name="bare"),
        project=None,
    )


async def _turns(own: Trial, other: Trial, question: Question, seconds: float) -> tuple[list[float], list[float]]:
    """Microseconds of each call of the plugin, and of the bare guest: a few of one, a few of the other."""
    hook, data = question.hook, question.data
    await _some(own, hook, data, _WARM)
    await _some(other, hook, data, _WARM)
    first = await _some(own, hook, data, 5)
    count = max(1, min(1000, int(_TURN_NS / 1000 / max(1.0, sorted(first)[2]))))
    mine: list[float] = []
    bare: list[float] = []
    end = time.monotonic() + seconds
    while (time.monotonic() < end and len(mine) < _MOST_CALLS) or not mine:
        mine += await _some(own, hook, data, count)
        bare += await _some(other, hook, data, count)
    return mine, bare


async def _some(trial: Trial, hook: Hook, data: bytes, count: int) -> list[float]:
    if hook in OBSERVERS:
        return [(await trial.call(hook, data)).us for _ in range(count)]
    return [each / 1000 for each in await trial.timed(hook, data, count)]


def _told(hook: Hook, mode: Mode, mine: list[float], bare: list[float]) -> Measured:
    return Measured(
        hook=hook,
        mode=mode,
        calls=len(mine),
        p50=_part(mine, 50),
        p99=_part(mine, 99),
        rate=len(mine) / (sum(mine) / 1e6) if sum(mine) else 0.0,
        bare_p50=_part(bare, 50),
        bare_p99=_part(bare, 99),
    )


def _part(times: list[float], percent: int) -> float:
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
