"""Thousands of ``WasmPlugin`` objects: the operator's first start with all of them there, and the next one.

They are spread over namespaces and name a few modules by tags, as a fleet's do; there are no pods. The API server, etcd
and the registry work on the same cores, and for each object they have more to do than the operator.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Final

from bench.operator import fleet
from bench.operator.rig import Rig, Watch, many, plugin, rig, sized
from bench.report import Figure, Options, Result, say
from hookline_api.base import API_VERSION, PLURAL
from hookline_operator.cluster.kube import path
from local_registry import digest, manifest_of

_ASKED_WRITES: Final = 2
_ASKED_MIB: Final = 300.0
_MODULES: Final = 10
_TAGS: Final = 5
_TERM_S: Final = 15
"""After a start: longer than a new leader waits for sidecars before it says that they are gone."""


async def measure(options: Options) -> Result:
    """Cold start, then a restart."""
    count, spaces = options.pick(100, 5_000), options.pick(5, 50)
    result = Result(name="plugins", idea=f"{count:,} WasmPlugin objects in {spaces} namespaces, no pods.")
    async with rig() as ground:
        await ground.operator.start()
        empty = ground.operator.usage()
        await ground.operator.stop()
        await make(ground, count, spaces, result)
        before = await ground.server_writes()
        say("plugins: cold start")
        async with Watch(ground.kube) as watch:
            begin = time.monotonic()
            until_ready = await ground.operator.start()
            done = await watch.until(lambda: len(watch.ready) == count, f"{count} plugins are Ready")
            cpu = await ground.operator.quiet()
            most = max(len(times) for times in watch.status_writes.values())
        usage = ground.operator.usage()
        await asyncio.sleep(_TERM_S if not options.quick else 1)
        own, writes = await ground.operator.writes(), await ground.server_writes() - before
        counted = _counted(writes)
        each = (own["revision"] + own["status"]) / count
        result.figures += [
            Figure(
                what="cold start: until all are Ready",
                measured=f"{done - begin:.1f} s; /readyz after {until_ready:.1f} s",
            ),
            Figure(what="cold start: CPU per object", measured=f"{cpu / count * 1000:.2f} ms ({cpu:.1f} s in all)"),
            Figure(
                what="cold start: writes per object (a revision, a status), by the operator's count",
                asked=f"≤ {_ASKED_WRITES}",
                measured=f"{each:.3f} ({own['revision']:,} + {own['status']:,}), Events besides {own['event']:,}",
                reached=each <= _ASKED_WRITES,
            ),
            Figure(
                what="the same by the API server's count",
                asked=f"≤ {_ASKED_WRITES}",
                measured=f"{counted.total() / count:.3f} ({_told(counted)}), no status more than {most} times; "
                f"Events besides {writes['events']:,}",
                reached=counted.total() <= _ASKED_WRITES * count,
            ),
            Figure(
                what="resident memory (RSS) at its peak, cold start", asked=f"≤ {_ASKED_MIB:.0f} MiB",
                measured=f"{usage.peak:.0f} MiB; {usage.rss:.0f} MiB when quiet (PSS {usage.pss:.0f} MiB)",
                reached=usage.peak <= _ASKED_MIB,
            ),
        ]  # fmt: skip
        await _restart(options, ground, result, count)
        result.notes.append(f"resident memory with no plugin: {empty.rss:.0f} MiB (PSS {empty.pss:.0f} MiB)")
        if ground.operator.tracebacks():
            result.notes.append(f"DEFECTS in the operator's log: {ground.operator.tracebacks()}")
    return result


async def _restart(options: Options, ground: Rig, result: Result, count: int) -> None:
    """The same with everything as it was left."""
    say("plugins: restart")
    await ground.operator.stop()
    before = await ground.server_writes()
    ready = await ground.operator.start()
    cpu = await ground.operator.quiet()
    await asyncio.sleep(_TERM_S if not options.quick else 1)
    own, writes = await ground.operator.writes(), await ground.server_writes() - before
    counted = _counted(writes)
    usage = ground.operator.usage()
    result.figures += [
        Figure(what="restart: until ready", measured=f"{ready:.1f} s"),
        Figure(what="restart: CPU per object", measured=f"{cpu / count * 1000:.2f} ms ({cpu:.1f} s in all)"),
        Figure(
            what="restart: writes, by the operator's and by the API server's count", asked="0",
            measured=f"{own.total()} and {counted.total() + writes['events']}",
            reached=own.total() == 0 and counted.total() == 0,
        ),
        Figure(
            what="resident memory (RSS) at its peak, restart", asked=f"≤ {_ASKED_MIB:.0f} MiB",
            measured=f"{usage.peak:.0f} MiB; {usage.rss:.0f} MiB when quiet (PSS {usage.pss:.0f} MiB)",
            reached=usage.peak <= _ASKED_MIB,
        ),
    ]  # fmt: skip


async def make(ground: Rig, count: int, spaces: int, result: Result) -> list[tuple[str, str]]:
    """Push the modules, apply the objects; each artifact's repository and digest."""
    say(f"plugins: {count} objects")
    modules = {
        f"module-{module}:v{tag}": sized(fleet.GUARD, 20_000, module)
        for module in range(_MODULES)
        for tag in range(_TAGS)
    }
    sources = [ground.pushed(name, module) for name, module in modules.items()]
    await many(ground.namespace(f"space-{number}") for number in range(spaces))
    begin = time.monotonic()
    await many(
        ground.create(
            path(API_VERSION, PLURAL, f"space-{number % spaces}"),
            plugin(
                f"space-{number % spaces}",
                f"plugin-{number}",
                sources[number % len(sources)],
                hooks=["authenticate"],
                config={"number": number, "allow": [f"role-{each}" for each in range(10)]},
                selector={"matchLabels": {"app": f"app-{number}"}},
            ),
        )
        for number in range(count)
    )
    result.notes.append(
        f"{_MODULES} modules of 20 kB under {_TAGS} tags each; the objects were made in "
        f"{time.monotonic() - begin:.0f} s"
    )
    return [(name.partition(":")[0], digest(manifest_of(module))) for name, module in modules.items()]


def _counted(writes: Counter[str]) -> Counter[str]:
    """Of the API server's count, what only the operator writes."""
    return Counter({what: number for what, number in writes.items() if what in fleet.OPERATORS})


def _told(counted: Counter[str]) -> str:
    return ", ".join(f"{what} {number:,}" for what, number in sorted(counted.items()))
