"""Hook calls on one interpreter and another: the same code, locks and bytes, in turn, round after round.

``bench.stages`` times it in process, from a request's bytes to its answer's, in processor time. An interpreter takes
part where ``make .venv-pythonVERSION/.dev PYTHON=…`` made it an environment.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Final

from bench.machine import ROOT, SERVER_CORE, BrokenError, on
from bench.report import Figure, Options, Result, say, spread

_STAGES: Final = {"connection": "from a request's bytes to its answer's", "runtime": "the same without the connection"}
_WAYS: Final[dict[str, dict[str, str]]] = {"": {}, ", without the accelerator": {"HOOKLINE_ACCELERATOR": "off"}}
_ABOUT: Final = "import platform; print('Python', platform.python_version(), 'by', platform.python_compiler())"


async def measure(options: Options) -> Result:
    """Each interpreter against the one that runs this."""
    result = Result(name="interpreters", idea="A call of `route`, one instance kept, in processor time.")
    own, *others = [Path(sys.executable), *_others()]
    if not others:
        result.notes.append("no other interpreter has an environment here (make .venv-pythonVERSION/.dev PYTHON=…)")
        return result
    about = {python: await _output(python, "-c", _ABOUT) for python in (own, *others)}
    ratios: dict[tuple[Path, str, str], list[float]] = {}
    for number in range(options.pick(5, 15)):
        say(f"interpreters: round {number + 1}")
        for way, environment in _WAYS.items():
            found = {python: json.loads(await _output(python, "-m", "bench.stages", **environment)) for python in about}
            for python in others:
                for stage in _STAGES:
                    ratio = found[python][stage] / found[own][stage]
                    ratios.setdefault((python, way, stage), []).append(ratio)
    result.figures += [
        Figure(what=f"{about[python]}, to {about[own]}: {_STAGES[stage]}{way}", measured=spread(values))
        for (python, way, stage), values in ratios.items()
    ]
    return result


def _others() -> list[Path]:
    """Of every environment beside the one that runs this."""
    found = [mark.parent / "bin" / "python" for mark in sorted(ROOT.glob(".venv*/.dev"))]
    return [python for python in found if python.parent.parent != Path(sys.prefix)]


async def _output(*command: str | Path, **environment: str) -> str:
    with on(SERVER_CORE):
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, env=os.environ | environment, stdout=asyncio.subprocess.PIPE
        )
    raw, _ = await process.communicate()
    if process.returncode:
        raise BrokenError(f"{command[0]} ended with {process.returncode}; its own message is above")
    return raw.decode().strip()
