"""Pods that count at one key of a server: each worker is a process of its own, and says what was acknowledged.

As a program: one worker. ``counting.py URL NAMESPACE COUNT AT_ONCE`` counts so often, ``AT_ONCE`` of them together,
waits where the server is away, and prints the sums that were acknowledged, and of how many counts nobody knows whether
they were done.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from hookline_api.bundle import BundlePlugin
from hookline_api.outbound import ValkeyServer
from hookline_runtime.host.backends.valkey import ValkeyAwayError
from hookline_runtime.host.kv_cluster import ClusterKv
from waiting import PATIENCE_S, until

if TYPE_CHECKING:
    from valkey import RedisServer

NAME = "budget"


async def count(url: str, namespace: str, times: int, at_once: int) -> dict[str, object]:
    """Count as the host function does that a guest calls."""
    valkey = {"url": url, "timeout": "2s"}
    settings = {"name": NAME, "namespace": namespace, "kv": {"scope": "Cluster", "valkey": valkey}}
    plugin = BundlePlugin.model_validate(settings)
    keys = ClusterKv(plugin, ValkeyServer.model_validate(valkey), {})
    acknowledged: list[int] = []
    unknown, left = 0, times

    async def one() -> None:
        nonlocal unknown, left
        while left:
            left -= 1
            while True:
                try:
                    acknowledged.append(await keys.increment(b"spent", 1))
                    break
                except ValkeyAwayError as error:
                    unknown += not error.not_sent
                    await asyncio.sleep(0.01)

    await asyncio.gather(*(one() for _ in range(at_once)))
    keys.close()
    return {"acknowledged": acknowledged, "unknown": unknown}


@dataclass(kw_only=True)
class Outcome:
    """What all workers together were told, and what the server has."""

    acknowledged: int
    twice: int
    """Sums that two counts were answered with: one of them is lost."""
    held: int
    unknown: int
    failed: list[str] = field(default_factory=list)


def count_over(server: RedisServer, namespace: str, *, workers: int, times: int, restarts: int) -> Outcome:
    """Count with so many processes, and kill the server (SIGKILL) so often meanwhile."""
    url = f"redis://127.0.0.1:{server.port}"
    command = [sys.executable, __file__, url, namespace, str(times), "8"]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(workers)
    ]
    try:
        for turn in range(restarts):
            part = workers * times * (turn + 1) // (restarts + 1)
            until(partial(_has, server, namespace, part), f"{part} counts", ignoring=(ValueError,))
            server.kill()
            server.start()
        said = [each.communicate(timeout=PATIENCE_S) for each in started]
    finally:
        for each in started:
            each.kill()
            each.wait()
    failed = [error for each, (_, error) in zip(started, said, strict=True) if each.returncode]
    answers = [json.loads(text) for text, _ in said if text]
    sums = Counter(number for each in answers for number in each["acknowledged"])
    return Outcome(
        acknowledged=sums.total(),
        twice=sum(number - 1 for number in sums.values()),
        held=_held(server, namespace),
        unknown=sum(each["unknown"] for each in answers),
        failed=failed,
    )


def _has(server: RedisServer, namespace: str, counts: int) -> bool:
    return _held(server, namespace) >= counts


def _held(server: RedisServer, namespace: str) -> int:
    return int(server.ask("HGET", f"hookline:{{{namespace}/{NAME}}}:entries", "spent").strip() or 0)


if __name__ == "__main__":
    address, own, number, together = sys.argv[1:]
    print(json.dumps(asyncio.run(count(address, own, int(number), int(together)))))
