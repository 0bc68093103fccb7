"""For information: what one hook costs, against a bare server and against a bare call of wasmtime-py.

No bar is set on these yet; they are here so that a change that costs much is seen.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import wasmtime

from bench import guests
from bench.hello import hello
from bench.inprocess import runtime
from bench.load import Address, Ask, Generator, Outcome, Plan
from bench.report import Figure, Options, Result, say, spread
from bench.sidecar import sidecar
from hookline_api.hooks import Hook
from hookline_runtime import engine

if TYPE_CHECKING:
    from hookline_runtime.runtime import Runtime

_ANSWER: Final = {"action": "node", "target": "somewhere"}
_PAIRS: Final = (("a hook over TCP", "tcp"), ("a hook over a unix socket", "unix"))


async def measure(options: Options) -> Result:
    """Over sockets first, then in this process."""
    result = Result(name="speed", idea="For information: one small plugin on `route`, a fresh instance per call.")
    await _over_sockets(options, result)
    await _in_process(options, result)
    return result


async def _over_sockets(options: Options, result: Result) -> None:
    wasm = guests.guest({"route": _ANSWER})
    seconds = options.pick(1, 3)
    found: dict[str, list[Outcome]] = {"hello": [], "tcp": [], "unix": []}
    async with sidecar(("quick", wasm, {})) as ours, hello() as peer, Generator() as generator:
        targets: dict[str, tuple[Address, str | None]] = {
            "hello": (peer, None), "tcp": (ours.tcp, "node"), "unix": (ours.socket, "node"),
        }  # fmt: skip
        for number in range(-1, options.rounds):
            say(f"speed: sockets, round {number + 1} of {options.rounds}" if number >= 0 else "speed: warm-up")
            for name, (address, action) in targets.items():
                asks = [Ask(hook="route", body=guests.QUERY, action=action)]
                outcome = await generator.run(Plan(address=address, asks=asks, seconds=seconds))
                result.failures += Counter(outcome.failures)
                if number >= 0:
                    found[name].append(outcome)
    for what, name in _PAIRS:
        rates = [ours.rate / peer.rate for ours, peer in zip(found[name], found["hello"], strict=True)]
        p99s = [ours.p99_us / peer.p99_us for ours, peer in zip(found[name], found["hello"], strict=True)]
        result.figures += [
            Figure(what=f"calls/s of {what}, to an aiohttp hello-world", measured=spread(rates)),
            Figure(what=f"p99 of {what}, to an aiohttp hello-world", measured=spread(p99s)),
        ]
    result.notes += [
        f"concurrency 8, {name}: {statistics.median(each.rate for each in outcomes):,.0f} calls/s, "
        f"p50 {statistics.median(each.p50_us for each in outcomes):,.0f} µs, "
        f"p99 {statistics.median(each.p99_us for each in outcomes):,.0f} µs"
        for name, outcomes in found.items()
    ]


async def _in_process(options: Options, result: Result) -> None:
    wasm = guests.guest({"route": _ANSWER})
    pooled = {"isolation": {"mode": "Pooled", "maxCalls": 1_000_000}}
    count = options.pick(2_000, 10_000)
    bare: list[float] = []
    times: dict[str, list[float]] = {"PerCall": [], "Pooled": []}
    async with runtime(("quick", wasm, {})) as per_call, runtime(("quick", wasm, pooled)) as kept:
        for number in range(-1, options.rounds):
            say(f"speed: in process, round {number + 1} of {options.rounds}" if number >= 0 else "speed: warm-up")
            found = [_bare(wasm, count), await _through(per_call, count), await _through(kept, count)]
            if number >= 0:
                for into, value in zip((bare, *times.values()), found, strict=True):
                    into.append(value)
    for mode, values in times.items():
        ratios = [ours / peer for ours, peer in zip(values, bare, strict=True)]
        result.figures.append(Figure(what=f"Runtime.call, {mode}, to a bare wasmtime-py call", measured=spread(ratios)))
    result.notes.append(
        f"in process: bare call {statistics.median(bare):.1f} µs, "
        + ", ".join(f"Runtime.call {mode} {statistics.median(values):.1f} µs" for mode, values in times.items())
    )


async def _through(ours: Runtime, count: int) -> float:
    """Microseconds of one call."""
    body = guests.QUERY.encode()
    begin = time.perf_counter()
    for _ in range(count):
        await ours.call(Hook.ROUTE, body)
    return (time.perf_counter() - begin) / count * 1e6


def _bare(wasm: bytes, count: int) -> float:
    """Microseconds of the guest's hook alone, called as wasmtime-py's documentation does."""
    with tempfile.TemporaryDirectory(prefix="hookline-bench-") as folder:
        compiled = Path(folder) / "bare.cwasm"
        engine.compile_to(wasm, compiled, fuel=False)
        module = engine.load_compiled(compiled, fuel=False)
    store = wasmtime.Store(engine.engine(fuel=False))
    store.set_epoch_deadline(10**9)
    hook = wasmtime.Instance(store, module, []).exports(store)["route"]
    assert isinstance(hook, wasmtime.Func)
    begin = time.perf_counter()
    for _ in range(count):
        hook(store, 65536, 300)
    took = (time.perf_counter() - begin) / count * 1e6
    store.close()
    return took
