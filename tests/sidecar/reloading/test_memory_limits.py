"""A sidecar's memory has a limit: what does not fit into it is refused with a sentence, and the rest goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path


async def test_a_plugin_that_does_not_fit_is_refused_and_the_others_go_on(new_sidecar, guests):
    """The sum is in the sentence; and once its limit is lower, it runs."""
    sidecar = new_sidecar(memory="320Mi")
    sidecar.folder.plugin("p", guests.saying(1), limits={"memory": "16Mi"})
    sidecar.start()
    assert (await sidecar.ask())["value"] == 1
    sidecar.folder.plugin("q", guests.module({"authorize": guests.echo}), limits={"memory": "512Mi"})
    failed = sidecar.wait_plugin("q", failure=lambda found: found is not None and "may have" in found["message"])
    assert "one call of 'q' may have 518Mi" in failed["failure"]["message"]
    assert "or lower limits.memory" in failed["failure"]["message"]
    assert (await sidecar.ask())["value"] == 1
    sidecar.folder.plugin("q", guests.module({"authorize": guests.echo}), limits={"memory": "32Mi"})
    sidecar.wait_plugin("q", failure=None)


MIB = 2**20
GREEDY = """
(drop (memory.grow (i32.const 960)))
(loop $again
  (memory.fill (i32.const 131072) (i32.wrap_i64 (local.get $i)) (i32.const 62914560))
  (local.set $i (i64.add (local.get $i) (i64.const 1)))
  (br_if $again (i64.lt_u (local.get $i) (i64.const 4))))
"""


def peak(process):
    """The most memory that a process ever had, in bytes."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError


async def test_sixteen_calls_that_fill_the_default_memory_stay_below_the_limit(new_sidecar, guests):
    """Each takes its 64 MiB, sixteen may run by their number, and all are answered."""
    sidecar = new_sidecar(memory="512Mi")
    limits = {"memory": "64Mi", "timeout": "60s", "concurrency": 16}
    sidecar.folder.plugin("p", guests.module({"custom_hook": GREEDY + guests.echo}), limits=limits)
    sidecar.start()
    (worker,) = sidecar.workers
    answers = await asyncio.gather(*(sidecar.ask(body=number) for number in range(16)))
    assert [answer["value"] for answer in answers] == list(range(16))
    assert sidecar.workers == [worker]
    assert 64 * MIB < peak(worker) < 400 * MIB
