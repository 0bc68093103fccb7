"""One hook in process, without sockets: the runtime's call path, wasmtime-py's own API, and Extism's Python SDK.

All of them get the same bytes and give the same bytes; each guest answers a constant, so what is timed is the way
there and back. Extism's guest speaks Extism's own ABI. All run on one core, in turn, round after round; times are
processor time, of whole processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Final

import wasmtime

from bench import guests, peers
from bench.inprocess import guest, runtime
from bench.machine import SERVER_CORE, BrokenError, on, open_folder
from bench.peers.official import Official
from bench.report import Figure, Options, Result, at_least, at_most, say, spread
from bench.sockets import ANSWER, POOLED
from hookline_api.hooks import Hook
from hookline_runtime.guest.engine import Ticker

if TYPE_CHECKING:
    from hookline_runtime.runtime import Runtime

_RAW: Final = json.dumps(ANSWER, separators=(",", ":")).encode()
_DATA: Final = guests.QUERY.encode()
_IMPORTS: Final = 100
_EXTISM_TIMEOUT_MS: Final = 100
_STRANGERS: Final = [
    (f"stranger-{number}", guests.guest({"route": ANSWER}), POOLED | {"match": {"databases": [f"elsewhere-{number}"]}})
    for number in range(10)
]
"""Plugins that are for other databases than the call's."""
_PROBATION: Final = 64
"""Calls after which a quick plugin runs at once."""

_Times = dict[str, list[float]]
_Measure = Callable[[int], Awaitable[float]]
"""Makes so many calls; microseconds of processor time of one."""


async def measure(options: Options) -> Result:
    """Everything in turn."""
    result = Result(name="calls", idea="One small guest on `route`, in process: bytes in, bytes out.")
    wasm, asking = guests.guest({"route": ANSWER}), guests.guest({"route": ANSWER}, host_calls=_IMPORTS)
    ticker = Ticker()
    ticker.start()
    try:
        with on(SERVER_CORE):
            async with (
                runtime(("quick", wasm, POOLED)) as pooled,
                runtime(("quick", wasm, {})) as per_call,
                runtime(*_STRANGERS, ("quick", wasm, POOLED)) as crowded,
                _extism(0) as extism,
                _extism(_EXTISM_TIMEOUT_MS) as extism_timed,
            ):
                official, official_asking = (Official(each, _DATA, input_at=guests.INPUT_AT) for each in (wasm, asking))
                ours, ours_asking = guest(wasm), guest(asking)
                kept, kept_asking = (each.instantiate(timeout_ms=1_000) for each in (ours, ours_asking))

                def ours_fresh() -> bytes | None:
                    instance = ours.instantiate()
                    try:
                        return instance.call("route", _DATA, last=True)
                    finally:
                        instance.close()

                ways: dict[str, tuple[_Measure, int]] = {
                    "ours": (_sync(lambda: kept.call("route", _DATA, last=False)), 20_000),
                    "ours, fresh": (_sync(ours_fresh), 2_000),
                    "ours, asking": (_sync(lambda: kept_asking.call("route", _DATA, last=False)), 1_000),
                    "official, fixed": (_sync(official.fixed), 4_000),
                    "official": (_sync(official.through_alloc), 2_000),
                    "official, fresh": (_sync(official.fresh), 1_000),
                    "official, asking": (_sync(official_asking.through_alloc), 100),
                    "Extism": (extism, 5_000),
                    "Extism, timed": (extism_timed, 5_000),
                    "Runtime, Pooled": (_runtime(pooled), 5_000),
                    "Runtime, PerCall": (_runtime(per_call, turns=True), 2_000),
                    "Runtime, ten strangers": (_runtime(crowded), 5_000),
                }
                found = await _run(ways, options)
    finally:
        ticker.stop()
    result.figures += _figures(found)
    result.notes += [
        f"{name}: {statistics.median(values):,.2f} µs" + (f" with {_IMPORTS} imports" if "asking" in name else "")
        for name, values in found.items()
    ]
    result.notes.append(
        "official is what the guest ABI asks of a host, alloc, write, hook, read, but where it says 'fixed': there it "
        "writes into the region that the guest names, without alloc, as ours always does"
    )
    result.notes.append(
        "ours is the call path alone, as is the official API's; Runtime is the whole runtime: parsing and checking the "
        "call, the chain, statistics, and a decision with its plugin, request id and bundle, as bytes; ten strangers "
        "are plugins in front of it that do not match"
    )
    return result


async def _run(ways: dict[str, tuple[_Measure, int]], options: Options) -> _Times:
    found: _Times = {name: [] for name in ways}
    for number in range(-1, options.rounds):
        say(f"calls: round {number + 1} of {options.rounds}" if number >= 0 else "calls: warm-up")
        for name, (measure_one, count) in ways.items():
            value = await measure_one(count * options.pick(1, 3))
            if number >= 0:
                found[name].append(value)
    return found


def _figures(found: _Times) -> list[Figure]:
    def ratios(one: str, other: str) -> list[float]:
        return [first / second for first, second in zip(found[one], found[other], strict=True)]

    imports = {
        who: [(with_ - without) / _IMPORTS for with_, without in zip(found[f"{who}, asking"], found[who], strict=True)]
        for who in ("ours", "official")
    }
    return [
        at_least(30, "a hook is faster than through wasmtime-py's own API", ratios("official", "ours")),
        Figure(what="the same, where that asks no alloc either", measured=spread(ratios("official, fixed", "ours"))),
        at_least(8, "a hook is faster than through Extism's Python SDK", ratios("Extism", "ours")),
        Figure(what="the same, to Extism with a time-out", measured=spread(ratios("Extism, timed", "ours"))),
        at_least(
            10, "a host import is faster than through wasmtime-py's own API",
            [peer / mine for mine, peer in zip(imports["ours"], imports["official"], strict=True)],
        ),
        at_most(15, "a hook in a fresh instance, to one in a kept instance", ratios("ours, fresh", "ours")),
        Figure(
            what="a hook in a fresh instance is faster than through wasmtime-py's own API",
            measured=spread(ratios("official, fresh", "ours, fresh")),
        ),
        Figure(
            what="the whole runtime is faster than wasmtime-py's own API alone, Pooled",
            measured=spread(ratios("official", "Runtime, Pooled")),
        ),
        at_most(
            0.1, "what ten plugins that do not match add to a call, to the call",
            [
                with_ / without - 1
                for with_, without in zip(
                    found["Runtime, ten strangers"], found["Runtime, Pooled"], strict=True
                )
            ],
        ),
        Figure(what="the whole runtime, PerCall to Pooled",
               measured=spread(ratios("Runtime, PerCall", "Runtime, Pooled"))),
    ]  # fmt: skip


def _sync(call: Callable[[], bytes | None]) -> _Measure:
    async def measure_one(count: int) -> float:
        _check(call())
        await asyncio.sleep(0)
        begin = time.process_time()
        for _ in range(count):
            call()
        return (time.process_time() - begin) / count * 1e6

    return measure_one


def _runtime(ours: Runtime, *, turns: bool = False) -> _Measure:
    """With ``turns`` the loop has one after each call, for what is made ready for the next; its cost is taken off."""

    async def timed(count: int) -> float:
        begin = time.process_time()
        for _ in range(count):
            if not isinstance(ours.answer(Hook.ROUTE, _DATA), bytes):
                await ours.call(Hook.ROUTE, _DATA)  # a slow call sent the plugin back to threads for a while
            if turns:
                await asyncio.sleep(0)
        return (time.process_time() - begin) / count * 1e6

    async def only_turns(count: int) -> float:
        begin = time.process_time()
        for _ in range(count):
            await asyncio.sleep(0)
        return (time.process_time() - begin) / count * 1e6

    async def measure_one(count: int) -> float:
        for _ in range(_PROBATION):
            await ours.call(Hook.ROUTE, _DATA)
        return await timed(count) - (await only_turns(count) if turns else 0)

    return measure_one


def _check(answer: bytes | None) -> None:
    if answer != _RAW:
        raise BrokenError(f"a guest answered {answer!r}")


@contextlib.asynccontextmanager
async def _extism(timeout_ms: int) -> AsyncIterator[_Measure]:
    """Extism's SDK in a process of its own, in the peers' environment."""
    with open_folder() as folder:
        (folder / "guest.wasm").write_bytes(_extism_guest())
        process = await asyncio.create_subprocess_exec(
            peers.python(), peers.program("extism_calls.py"), folder / "guest.wasm", str(timeout_ms),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        to, back = process.stdin, process.stdout
        try:
            to.write(_DATA.hex().encode() + b"\n")
            _check(bytes.fromhex((await back.readline()).decode()))

            async def measure_one(count: int) -> float:
                to.write(b"%d\n" % count)
                return float(await back.readline())

            yield measure_one
        finally:
            to.close()
            await process.wait()


def _extism_guest() -> bytes:
    """The same guest for Extism: its input stays where Extism put it, its answer is written eight bytes at a time."""
    padded = _RAW + b"\0" * (-len(_RAW) % 8)
    stores = "".join(
        f"(call $store (i64.add (local.get $p) (i64.const {at}))"
        f" (i64.const {int.from_bytes(padded[at : at + 8], 'little')}))"
        for at in range(0, len(padded), 8)
    )
    return bytes(
        wasmtime.wat2wasm(f"""(module
          (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
          (import "extism:host/env" "store_u64" (func $store (param i64 i64)))
          (import "extism:host/env" "output_set" (func $output (param i64 i64)))
          (memory (export "memory") 1)
          (func (export "route") (result i32) (local $p i64)
            (local.set $p (call $alloc (i64.const {len(padded)})))
            {stores}
            (call $output (local.get $p) (i64.const {len(_RAW)}))
            (i32.const 0)))""")
    )
