"""Where the microseconds of a call go: stage by stage, before hook calls were built anew and now.

``bench.stages`` times the stages in process, with this tree's code and with that of the last commit before the work
began, in turn. Then real sidecars of both are asked over the unix socket: what their processes use for a request is the
sum, and what no stage accounts for is the kernel's and the event loop's. All of it is processor time, so what else
runs on the machine counts little.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final

from bench import guests, peers
from bench.load import Generator, Plan, hook_call
from bench.machine import SERVER_CORE, BrokenError, older_tree, on, processor_seconds, tree_environment
from bench.report import TIMES, Figure, Options, Result, say
from bench.sidecar import sidecar
from bench.sockets import ANSWER, POOLED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_BEFORE: Final = "c4ba3cd"
"""The last commit before hook calls were built anew."""
# Of that commit, on the machine of bench/RESULTS.md: for trees that have no history to take it from.
_RECORDED: Final = {
    "instance": 58.1, "fresh": 21.1, "json": 2.0, "parse": 3.7, "judge": 1.1, "count": 0.5, "runtime": 82.2,
    "connection": 146.9, "request": 175.2, "request, PerCall": 270.0,
}  # fmt: skip

_FLOORS: Final = ("the native sidecar", "that with a fresh instance", "a bare httptools hello-world")

_Stages = dict[str, list[float]]


async def measure(options: Options) -> Result:
    """Both trees, in turn."""
    result = Result(name="profile", idea="A call of `route` over the unix socket, one instance kept, in microseconds.")
    with older_tree(_BEFORE) as tree:
        before: _Stages = {}
        now: _Stages = {}
        times = options.pick(1, options.rounds)  # each is the best of a few by itself
        for number in range(times):
            say(f"profile: stages, round {number + 1} of {times}")
            for into, where in ((before, tree), (now, None)):
                if into is now or where is not None:
                    for stage, value in (await _stages(where)).items():
                        into.setdefault(stage, []).append(value)
        await _requests(tree, before, now, options, result)
    floors = {name: statistics.median(now.pop(name)) for name in _FLOORS}
    earlier = {stage: statistics.median(values) for stage, values in before.items()} or _RECORDED
    today = {stage: statistics.median(values) for stage, values in now.items()}
    result.figures += [
        Figure(what=what, measured=_compared(_part(earlier, parts), _part(today, parts)))
        for what, parts in _ROWS.items()
    ]
    result.notes += [
        "a whole request, in processor time: " + ", ".join(f"{name} {value:.2f} µs" for name, value in floors.items()),
        f"before is commit {_BEFORE}, "
        + ("measured in turn with this tree" if before else "recorded in bench/costs.py: its code is not here"),
        "what surrounds a call is all but the guest's instance: "
        + _compared(*(_part(each, _ROWS["all of a request"]) - each["instance"] for each in (earlier, today))),
    ]
    return result


_ROWS: Final[dict[str, tuple[str, ...]]] = {
    "the instance: arm, write, guest, read": ("instance",),
    "parse the input's JSON": ("json",),
    "check its fields": ("parse", "json"),
    "read the guest's decision": ("judge",),
    "count": ("count",),
    "match, take, splice: the rest of the runtime": ("runtime", "instance", "parse", "judge", "count"),
    "the connection: read the head, write the answer": ("connection", "runtime"),
    "kernel and event loop": ("request", "connection"),
    "all of a request": ("request",),
    "beside it, a fresh instance": ("fresh",),
    "all of a request with a fresh instance": ("request, PerCall",),
}
"""What → the stage that holds it, less these others."""


def _part(stages: dict[str, float], parts: tuple[str, ...]) -> float:
    whole, *others = parts
    return max(0.0, stages[whole] - sum(stages[other] for other in others))


def _compared(before: float, now: float) -> str:
    return f"{before:.2f} µs before, {now:.2f} µs now" + (f" ({before / now:.1f}{TIMES})" if now >= 0.01 else "")


async def _stages(tree: Path | None) -> dict[str, float]:
    with on(SERVER_CORE):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.stages",
            env=None if tree is None else tree_environment(tree), stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
    raw, _ = await process.communicate()
    if process.returncode:
        raise BrokenError(f"bench.stages ended with {process.returncode}; its own message is above")
    found: dict[str, float] = json.loads(raw)
    ran = str(found.pop("tree"))
    if tree is not None and ran != str(tree):
        raise BrokenError(f"the stages ran with {ran}, and not with {tree}")
    return found


async def _requests(tree: Path | None, before: _Stages, now: _Stages, options: Options, result: Result) -> None:
    """The processor time of whole requests."""
    wasm = guests.guest({"route": ANSWER})
    async with contextlib.AsyncExitStack() as stack:
        generator = await stack.enter_async_context(Generator())
        lanes: list[tuple[list[float], str, Callable[[], float]]] = []
        for into, where in ((before, tree), (now, None)):
            if into is now or where is not None:
                for name, isolation in (("request", POOLED), ("request, PerCall", {})):
                    which = sidecar(("quick", wasm, isolation), core=SERVER_CORE, tree=where)
                    ours = await stack.enter_async_context(which)
                    lanes.append((into.setdefault(name, []), ours.socket, ours.processor_seconds))
        native = await stack.enter_async_context(peers.native(wasm, plugin="quick", bundle="0123456789ab"))
        fresh = await stack.enter_async_context(
            peers.native(wasm, plugin="quick", bundle="0123456789ab", per_call=True)
        )
        hello = await stack.enter_async_context(peers.hello("httptools"))
        for name, peer in zip(_FLOORS, (native, fresh, hello), strict=True):
            lanes.append((now.setdefault(name, []), peer.socket, partial(processor_seconds, peer.pids)))
        for number in range(-1, options.rounds):
            say(f"profile: requests, round {number + 1} of {options.rounds}" if number >= 0 else "profile: warm-up")
            for values, address, used_seconds in lanes:
                used = used_seconds()
                outcome = await generator.run(
                    Plan(
                        address=address,
                        asks=[hook_call("route", guests.QUERY, "node")],
                        seconds=options.pick(0.5, 1.5),
                        polls=True,
                    )
                )
                used = used_seconds() - used
                result.failures += Counter(outcome.failures)
                if number >= 0 and outcome.calls:
                    values.append(used / outcome.calls * 1e6)
