"""``python -m bench.stages``: where the microseconds of one call go, stage by stage, in this process.

It prints one line of JSON: stage → microseconds of processor time, which ``bench.costs`` reads.

Stages that contain others are timed whole; what they add is their difference.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import json
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import orjson

from bench import guests
from bench.inprocess import guest, runtime
from bench.load import hook_call
from bench.sockets import ANSWER, POOLED
from hookline_api.hooks import Hook
from hookline_runtime.call import inputs
from hookline_runtime.guest.engine import Ticker
from hookline_runtime.plugin.hook import PluginHook
from hookline_runtime.plugin.stats import StatsTable
from hookline_sidecar.hooks.endpoint import Answering, Endpoint
from hookline_sidecar.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

_DATA: Final = guests.QUERY.encode()
_RAW: Final = json.dumps(ANSWER, separators=(",", ":")).encode()
_PROBATION: Final = 64
_TIME_S: Final = 0.15
_REPEATS: Final = 3


async def stages() -> dict[str, float]:
    """Stage → microseconds."""
    wasm = guests.guest({"route": ANSWER})
    ticker = Ticker()
    ticker.start()
    try:
        linked = guest(wasm)
        kept = linked.instantiate()
        found = {
            "instance": _time(lambda: kept.call("route", _DATA, last=False)),
            "fresh": _time(lambda: linked.instantiate().close()),
            "json": _time(lambda: orjson.loads(_DATA)),
            "parse": _time(lambda: inputs.read_call(Hook.ROUTE, _DATA)),
            "judge": _time(_judge()),
            "count": _time(_count()),
        }
        async with runtime(("quick", wasm, POOLED)) as ours:
            for _ in range(_PROBATION):
                await ours.call(Hook.ROUTE, _DATA)
            found["runtime"] = _time(lambda: ours.answer(Hook.ROUTE, _DATA))
            found["connection"] = await _connection(Answering(ours))
    finally:
        ticker.stop()
    return found


def _judge() -> Callable[[], object]:
    read = PluginHook(Hook.ROUTE, StatsTable().row(0, Hook.ROUTE)).read
    return lambda: read(_RAW)


def _count() -> Callable[[], object]:
    count = StatsTable().row(0, Hook.ROUTE).count
    return lambda: count(1_500)


class _Wire(asyncio.Transport):
    """The far side of a connection, without a socket."""

    def __init__(self) -> None:
        super().__init__()
        self.answered = 0

    def write(self, data: Any) -> None:
        self.answered += len(data)

    def writelines(self, list_of_data: Any) -> None:
        self.answered += sum(map(len, list_of_data))

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def _connection(answering: Answering) -> float:
    given = {"max_body": 16 * 2**20, "body_timeout": 10.0, "drain": 1.0, "workers": 1, "auth_headers": "any"}
    fields: dict[str, Any] = {each.name: given.get(each.name) for each in dataclasses.fields(Settings)}
    settings = Settings(**fields)
    protocol: Any = Endpoint(answering, settings).server(lambda: None)()
    wire, request = _Wire(), hook_call("route", guests.QUERY).request
    protocol.connection_made(wire)

    async def ask() -> None:
        before = wire.answered
        protocol.data_received(request)
        while wire.answered == before:  # noqa: ASYNC110 - an event would be timed too
            await asyncio.sleep(0)

    seconds = await _time_async(ask)
    protocol.connection_lost(None)
    return seconds


def _time(function: Callable[[], object]) -> float:
    """Microseconds of processor time of one call, the best of a few."""
    best, count = float("inf"), 1
    while True:
        begin = time.process_time()
        for _ in range(count):
            function()
        seconds = time.process_time() - begin
        if seconds > _TIME_S / 4:
            break
        count *= 2
    for _ in range(_REPEATS):
        gc.collect()
        begin = time.process_time()
        for _ in range(count):
            function()
        best = min(best, (time.process_time() - begin) / count)
    return best * 1e6


async def _time_async(function: Callable[[], Any]) -> float:
    best, count = float("inf"), 500
    for _ in range(_REPEATS + 1):
        gc.collect()
        begin = time.process_time()
        for _ in range(count):
            await function()
        seconds = time.process_time() - begin
        best = min(best, seconds / count)
        count = max(100, int(count * _TIME_S / 2 / seconds))
    return best * 1e6


if __name__ == "__main__":
    import uvloop

    sys.stdout.write(json.dumps(uvloop.run(stages())) + "\n")
