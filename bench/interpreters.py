"""The hook road on one interpreter and another: the same code, locks and requests, in turn, round after round.

An interpreter takes part where ``make .venv-pythonVERSION/.dev PYTHON=…`` made it an environment. What is compared is
processor time for each request, of all of a sidecar's processes: it says little of what else the machine does.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Final

from bench import guests
from bench.load import Generator, Plan, hook_call
from bench.machine import ROOT, SERVER_CORE
from bench.report import Figure, Options, Result, say, spread
from bench.sidecar import Sidecar, sidecar
from bench.sockets import ANSWER, POOLED

_ASK: Final = [hook_call("route", guests.QUERY, "node")]
_ABOUT: Final = "import sys, platform; print(platform.python_version(), sys.base_prefix, platform.python_compiler())"
_LANES: Final[dict[str, dict[str, str]]] = {"": {}, ", without the accelerator": {"HOOKLINE_ACCELERATOR": "off"}}


async def measure(options: Options) -> Result:
    """Each interpreter against the one that runs this."""
    result = Result(
        name="interpreters",
        idea="One small plugin on `route`, one worker, 8 connections, the unix socket; processor time of a request.",
    )
    pythons = [Path(sys.executable), *_others()]
    result.notes += [f"{_label(python)}: {_about(python)}" for python in pythons]
    if len(pythons) == 1:
        result.notes.append("no other interpreter has an environment here (make .venv-pythonVERSION/.dev PYTHON=…)")
        return result
    wasm = guests.guest({"route": ANSWER})
    async with contextlib.AsyncExitStack() as stack:
        running = {
            (python, lane): await stack.enter_async_context(
                sidecar(("quick", wasm, POOLED), core=SERVER_CORE, python=python, environment=environment)
            )
            for python in pythons
            for lane, environment in _LANES.items()
        }
        generator = await stack.enter_async_context(Generator())
        found = await _run(running, generator, options, result)
    for python in pythons[1:]:
        for lane in _LANES:
            ratios = [one / other for one, other in zip(found[python, lane], found[pythons[0], lane], strict=True)]
            what = f"a request on {_label(python)}, to one on {_label(pythons[0])}{lane}"
            result.figures.append(Figure(what=what, measured=spread(ratios)))
    return result


_Of = tuple[Path, str]
"""An interpreter, and what its sidecar does without."""


async def _run(
    running: dict[_Of, Sidecar], generator: Generator, options: Options, result: Result
) -> dict[_Of, list[float]]:
    """Microseconds of processor time of a request in each round; many short ones, so that all see the same machine."""
    found: dict[_Of, list[float]] = {which: [] for which in running}
    for number in range(-1, options.pick(9, 25)):
        say(f"interpreters: round {number + 1}" if number >= 0 else "interpreters: warm-up")
        for which, each in running.items():
            plan = Plan(address=each.socket, asks=_ASK, seconds=options.pick(0.4, 0.8), polls=True)
            used = each.processor_seconds()
            outcome = await generator.run(plan)
            used = each.processor_seconds() - used
            result.failures += Counter(outcome.failures)
            if number >= 0:
                found[which].append(used / outcome.calls * 1e6)
    return found


def _others() -> list[Path]:
    """Of every environment beside the one that runs this."""
    made = sorted(ROOT.glob(".venv*/.dev"))
    found = [environment.parent / "bin" / "python" for environment in made]
    return [python for python in found if python.parent.parent != Path(sys.prefix)]


def _label(python: Path) -> str:
    name = python.parent.parent.name
    return name.removeprefix(".venv-") if name != ".venv" else "this one"


def _about(python: Path) -> str:
    return subprocess.run([python, "-c", _ABOUT], capture_output=True, text=True, check=True).stdout.strip()
