"""Three pods, one plugin: from apply to the last pod's switch, again and again."""

from __future__ import annotations

import hashlib
import statistics
from typing import Any, Final

from bench.operator import fleet
from bench.operator.rig import Rig, Watch, many, rig, sized
from bench.operator.swarm import Swarm, key_of
from bench.report import Figure, Options, Result, say

_PODS: Final = 3
_NAME: Final = "guard"
_CACHED_S: Final = 1.0
_PULL_S: Final = 2.0
_PULLED: Final = 100_000


async def measure(options: Options) -> Result:
    """Change a setting; change to another module that is cached; change to one that has to be pulled."""
    rounds = options.pick(2, 40)
    result = Result(name="latency", idea="Three pods with simulated sidecars: the operator's part of a change.")
    async with rig() as ground:
        await ground.operator.start()
        await ground.namespace(fleet.SPACE)
        members = await many(fleet.pod(ground, number, _PODS) for number in range(_PODS))
        async with fleet.connected(ground, members) as sidecars, Watch(ground.kube, fleet.SPACE) as watch:
            await sidecars.connected()
            modules = [sized(fleet.GUARD, _PULLED, number) for number in range(rounds + 1)]
            sources = [ground.pushed(f"{_NAME}:v{number}", wasm) for number, wasm in enumerate(modules)]
            await _change(ground, sidecars, watch, modules[0], sources[0], 0)
            say(f"latency: {rounds} changes of a setting, and {rounds} pulls")
            cached = [await _change(ground, sidecars, watch, modules[0], sources[0], n) for n in range(1, rounds + 1)]
            pulled = [await _change(ground, sidecars, watch, modules[n], sources[n], n) for n in range(1, rounds + 1)]
    for what, asked, found in (
        ("the module cached, other settings", _CACHED_S, cached),
        ("a new tag of a module of 100 kB, pulled from a registry here", _PULL_S, pulled),
    ):
        switched = [each[0] for each in found]
        result.figures.append(
            Figure(
                what=f"apply → last of {_PODS} switched, p50, {what}", asked=f"≤ {asked:.0f} s",
                measured=f"{statistics.median(switched):.3f} s ({min(switched):.3f} to {max(switched):.3f}, "
                f"{len(switched)} changes)",
                reached=statistics.median(switched) <= asked,
            )
        )  # fmt: skip
        result.notes.append(
            f"{what}: the status says Ready {statistics.median(each[1] for each in found):.2f} s after the apply "
            "(median); it is written once a second at most"
        )
    result.notes.append("apply is the server-side apply's request; kubectl's own start comes on top of that")
    return result


async def _change(
    ground: Rig, sidecars: Swarm, watch: Watch, wasm: bytes, source: dict[str, Any], number: int
) -> tuple[float, float]:
    """Seconds from the apply to the last switch, and to the status that says so."""
    generation = watch.generations.get(f"{fleet.SPACE}/{_NAME}", 0)
    sent = await ground.apply(fleet.SPACE, _NAME, source, hooks=["authenticate"], config={"n": number})
    times = await sidecars.switched(key_of(_NAME, hashlib.sha256(wasm).hexdigest(), number))
    ready = await watch.until_ready(f"{fleet.SPACE}/{_NAME}", generation + 1)
    return times[-1] - sent, ready - sent
