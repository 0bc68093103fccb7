"""Where the microseconds of a call go, stage by stage.

``bench.stages`` times the stages in a process of its own. Then a real sidecar is asked over the unix socket: what its
processes use for a request is the sum, and what no stage accounts for is the kernel's and the event loop's. All of it
is processor time, so what else runs on the machine counts little. To compare two commits, run it in a checkout of each.
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
from bench.machine import SERVER_CORE, BrokenError, on, processor_seconds
from bench.report import Figure, Options, Result, say
from bench.sidecar import sidecar
from bench.sockets import ANSWER, POOLED

if TYPE_CHECKING:
    from collections.abc import Callable

_FLOORS: Final = ("the native sidecar", "that with a fresh instance", "a bare httptools hello-world")

_Stages = dict[str, list[float]]


async def measure(options: Options) -> Result:
    """Stages, then whole requests."""
    result = Result(name="profile", idea="A call of `route` over the unix socket, one instance kept, in microseconds.")
    found: _Stages = {}
    times = options.pick(1, options.rounds)  # each is the best of a few by itself
    for number in range(times):
        say(f"profile: stages, round {number + 1} of {times}")
        for stage, value in (await _stages()).items():
            found.setdefault(stage, []).append(value)
    await _requests(found, options, result)
    floors = {name: statistics.median(found.pop(name)) for name in _FLOORS}
    medians = {stage: statistics.median(values) for stage, values in found.items()}
    result.figures += [Figure(what=what, measured=f"{_part(medians, parts):.2f} µs") for what, parts in _ROWS.items()]
    result.notes += [
        "a whole request, in processor time: " + ", ".join(f"{name} {value:.2f} µs" for name, value in floors.items()),
        (
            "what surrounds a call is all but the guest's instance: "
            f"{_part(medians, _ROWS['all of a request']) - medians['instance']:.2f} µs"
        ),
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


async def _stages() -> dict[str, float]:
    with on(SERVER_CORE):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.stages", stdout=asyncio.subprocess.PIPE
        )
    raw, _ = await process.communicate()
    if process.returncode:
        raise BrokenError(f"bench.stages ended with {process.returncode}; its own message is above")
    found: dict[str, float] = json.loads(raw)
    return found


async def _requests(found: _Stages, options: Options, result: Result) -> None:
    """The processor time of whole requests."""
    wasm = guests.guest({"route": ANSWER})
    async with contextlib.AsyncExitStack() as stack:
        generator = await stack.enter_async_context(Generator())
        lanes: list[tuple[list[float], str, Callable[[], float]]] = []
        for name, isolation in (("request", POOLED), ("request, PerCall", {})):
            ours = await stack.enter_async_context(sidecar(("quick", wasm, isolation), core=SERVER_CORE))
            lanes.append((found.setdefault(name, []), ours.socket, ours.processor_seconds))
        native = await stack.enter_async_context(peers.native(wasm, plugin="quick", bundle="0123456789ab"))
        fresh = await stack.enter_async_context(
            peers.native(wasm, plugin="quick", bundle="0123456789ab", per_call=True)
        )
        hello = await stack.enter_async_context(peers.hello("httptools"))
        for name, peer in zip(_FLOORS, (native, fresh, hello), strict=True):
            lanes.append((found.setdefault(name, []), peer.socket, partial(processor_seconds, peer.pids)))
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
