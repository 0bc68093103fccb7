"""A module from the cache of compiled modules, against compiling it.

Both are what the sidecar does: ``compile_to`` in its compiler's child, ``load_compiled`` in its workers.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

from bench import guests
from bench.report import TIMES, Figure, Options, Result, say, spread
from hookline_runtime.guest import engine

_FILLER: Final = 4_000
_LOADS: Final = 20
_ASKED: Final = 100


async def measure(options: Options) -> Result:
    """Compile and load in turn."""
    wasm = guests.guest({"route": {"action": "node", "target": guests.MARK}}, filler=_FILLER)
    compiled, first, cached = [], [], []
    with tempfile.TemporaryDirectory(prefix="hookline-bench-") as folder:
        for number in range(options.rounds):
            say(f"cached-load: round {number + 1} of {options.rounds}")
            target = Path(folder) / f"{number}.cwasm"
            begin = time.perf_counter()
            engine.compile_to(guests.version(wasm, number), target, fuel=False)
            compiled.append(time.perf_counter() - begin)
            loads = []
            for _ in range(_LOADS):
                begin = time.perf_counter()
                module = engine.load_compiled(target, fuel=False)
                loads.append(time.perf_counter() - begin)
                del module
            first.append(loads[0])
            cached.append(statistics.median(loads[1:]))
        size = target.stat().st_size
    ratios = [slow / quick for slow, quick in zip(compiled, cached, strict=True)]
    fresh = [slow / quick for slow, quick in zip(compiled, first, strict=True)]
    return Result(
        name="cached-load",
        idea="Load of a cached module against its compilation.",
        figures=[
            Figure(
                what="load of a cached module is faster than its compilation",
                asked=f"≥ {_ASKED}{TIMES}",
                measured=spread(ratios, digits=0),
                reached=statistics.median(ratios) >= _ASKED,
            ),
            Figure(what="the same, first load of a file just written", measured=spread(fresh, digits=0)),
        ],
        notes=[
            (
                f"a module of {len(wasm) / 1e6:.2f} MB, {size / 1e6:.1f} MB compiled; "
                f"compilation {statistics.median(compiled) * 1000:,.0f} ms, "
                f"load {statistics.median(cached) * 1000:.2f} ms (first {statistics.median(first) * 1000:.2f} ms)"
            )
        ],
    )
