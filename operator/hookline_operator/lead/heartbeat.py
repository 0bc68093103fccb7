"""Confirms statuses while an operator is at work, and marks them as old when the last operator ends.

Each plugin is visited every two minutes, or less often where three writes a second are too few. Its status is written
if nothing else wrote it since the last visit.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import time
from typing import TYPE_CHECKING, Final, NoReturn

from hookline_api.base import API_VERSION, KIND, PLURAL
from hookline_operator.cluster.kube import KubeError, path
from hookline_operator.status.reconcile import as_json
from hookline_operator.status.staleness import abandoned, age_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from hookline_operator.cluster.catalogue import Catalogue
    from hookline_operator.cluster.kube import Kube
    from hookline_operator.cluster.plugins import Plugin

VISIT_S: Final = 120.0
_EACH_SECOND: Final = 3.0
_OLD: Final = 1.5
"""How many visits apart a status is old: nobody waits for longer than two and a half."""
_IDLE_S: Final = 5.0
_FAREWELL_S: Final = 5.0
_SETTLE_S: Final = 0.3
"""Seconds in which the watch may still bring the last write, and another replica that ends may say so."""
_WRITES_AT_ONCE: Final = 16

log = logging.getLogger("hookline.heartbeat")


async def keep_confirming(
    catalogue: Catalogue,
    confirm: Callable[[Plugin], None],
    sees: Callable[[], bool],
    *,
    visit_s: float = VISIT_S,
) -> NoReturn:
    """Have each status confirmed in its turn, for ever; none while this replica is blind.

    A status of an operator without heartbeats waits for one more visit, because replicas of that version may still read
    it.
    """
    began = time.monotonic()
    while True:
        plugins = [plugin.key for plugin in catalogue.all_plugins()]
        if not plugins:
            await asyncio.sleep(min(visit_s, _IDLE_S))
            continue
        visit = max(visit_s, len(plugins) / _EACH_SECOND)
        for key in plugins:
            await asyncio.sleep(visit / len(plugins))
            plugin = catalogue.plugin(key)
            if plugin is None or not sees():
                continue
            status = plugin.last_status()
            age = age_of(status, now=dt.datetime.now(dt.UTC))
            if age is None and status.conditions and time.monotonic() - began < visit_s:
                continue
            if age is None or not -_OLD * visit < age < _OLD * visit:  # a clock that was put back
                confirm(plugin)


async def say_farewell(kube: Kube, catalogue: Catalogue, *, alone: Callable[[], bool]) -> None:
    """Mark the statuses as unobserved within a few seconds, unless another replica follows."""
    await asyncio.sleep(_SETTLE_S)
    if not alone():
        return
    # What says True misleads; the rest is false anyhow.
    plugins = sorted(catalogue.all_plugins(), key=lambda each: not each.is_ready)
    writes = asyncio.Semaphore(_WRITES_AT_ONCE)
    marked = [False] * len(plugins)
    trouble: list[KubeError] = []

    async def mark(number: int, plugin: Plugin) -> None:
        status = plugin.last_status()
        left = abandoned(status, now=dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
        if left == status:
            marked[number] = True
            return
        where = path(API_VERSION, PLURAL, plugin.namespace, plugin.name, "status")
        metadata = {"name": plugin.name, "namespace": plugin.namespace, "uid": plugin.uid}
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "status": as_json(left)}
        async with writes:
            try:
                await kube.apply(where, body)
                marked[number] = True
            except KubeError as error:
                trouble.append(error)

    tasks = [asyncio.ensure_future(mark(number, plugin)) for number, plugin in enumerate(plugins)]
    if tasks:
        await asyncio.wait(tasks, timeout=_FAREWELL_S)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    why = f": {trouble[0]}" if trouble else ""
    log.info("no other replica runs: %d of %d statuses say so%s", sum(marked), len(plugins), why)
