"""Several workers are one sidecar: limits, counters and statistics are the pod's; one that dies is one that dies."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal

import aiohttp
import pytest

from waiting import until_true


def crowd(guests, rounds):
    """A module whose custom hook answers how many of its calls run, itself included, and takes that long."""
    count = "(call $incr (i32.const 1024) (i32.const 1) (i64.const {}))"
    busy = f"""(loop $more (local.set $i (i64.add (local.get $i) (i64.const 1)))
               (br_if $more (i64.lt_u (local.get $i) (i64.const {rounds}))))"""
    body = f"(local $said i64) (local.set $said {count.format(1)}) {busy} (drop {count.format(-1)}) "
    digits = """
    (func $digit (param $v i64) (result i64)
      (i32.store8 (i32.const 4096) (i32.add (i32.const 48) (i32.wrap_i64 (local.get $v))))
      (i64.const 17592186044417))"""  # 4096 << 32 | 1
    return guests.module(
        {"custom_hook": f"{body} (call $digit (local.get $said))"},
        imports='(import "hookline" "kv_incr" (func $incr (param i32 i32 i64) (result i64)))',
        data={1024: b"n"},
        parts=digits,
    )


class Client:
    """A proxy's connection that asks one call after the other; what it was answered, and how it failed."""

    def __init__(self, sidecar, *, unix, pause):
        self.answers = []
        self.failures = 0
        self.going = True
        self._sidecar = sidecar
        self._unix = unix
        self._pause = pause

    async def run(self):
        """Ask, and connect again where a connection broke."""
        async with self._sidecar.client(unix=self._unix) as session:
            while self.going:
                try:
                    async with session.post("/v1/hooks/custom_hook", json=0) as response:
                        assert response.status == 200
                        self.answers.append(await response.json())
                    await asyncio.sleep(self._pause)
                except aiohttp.ClientError:
                    self.failures += 1


@contextlib.asynccontextmanager
async def clients(sidecar, count, *, pause=0.002):
    """So many of them at work, every other one by the unix socket; a ``pause`` leaves others the processor."""
    made = [Client(sidecar, unix=bool(n % 2), pause=pause) for n in range(count)]
    tasks = [asyncio.create_task(each.run()) for each in made]
    try:
        yield made
    finally:
        for each in made:
            each.going = False
        await asyncio.gather(*tasks)


async def more_of_each(made, calls):
    """Return when each of them was answered so many times more."""
    goals = [len(each.answers) + calls for each in made]
    await until_true(
        lambda: all(len(each.answers) >= goal for each, goal in zip(made, goals, strict=True)),
        lambda: f"{calls} more answers for each; they have {[len(each.answers) for each in made]} of {goals}",
    )


@pytest.mark.parametrize(
    ("limit", "rounds"), [(1, 3_000_000), (2, 3_000_000), (5, 3_000_000), (1, 10)],
    ids=["1 slow", "2 slow", "5 slow", "1 quick"],
)  # fmt: skip
async def test_the_concurrency_is_one_limit_for_the_pod(sidecar, guests, limit, rounds):
    """With three workers and many callers, the guest itself never sees more; and nobody fails for want of a place."""
    # Who waits for a place waits by the clock. A quick one runs on the event loop, which takes less than a second.
    limits = {"concurrency": limit, "timeout": "60s" if rounds > 1000 else "900ms"}
    sidecar.folder.plugin("p", crowd(guests, rounds), permissions=["kv.write"], limits=limits)
    sidecar.start(workers=3)
    async with clients(sidecar, 3 * (limit + 1), pause=0) as made:
        await more_of_each(made, 10)
    answers = [answer for each in made for answer in each.answers]
    assert [answer for answer in answers if "failure" in answer] == []
    assert max(answer["value"] for answer in answers) <= limit
    stats = sidecar.plugin("p")["stats"]["custom_hook"]
    assert stats["calls"] == len(answers)
    assert not any(stats["failures"].values())


async def test_a_killed_worker_frees_its_places(sidecar, guests, eventually):
    """In the middle of calls that took all there were: the other workers have the limit for themselves at once."""
    sidecar.folder.plugin("p", guests.busy(300_000_000), limits={"concurrency": 4, "timeout": "60s"})
    sidecar.start(workers=2)
    one, before = sidecar.workers[0], sidecar.used()
    async with clients(sidecar, 8) as made:
        await sidecar.wait_busy(before, 2)
        await asyncio.to_thread(eventually, lambda: sum(sidecar.connections()) == 8, "all connections")
        had = max(sidecar.connections())
        os.kill(one, signal.SIGKILL)
        await asyncio.to_thread(eventually, lambda: one not in sidecar.workers, "the end of it")
        await more_of_each(made, 1)
    assert sum(each.failures for each in made) <= had
    assert not any("failure" in answer for each in made for answer in each.answers)


async def test_a_killed_worker_takes_its_own_calls_along_and_nothing_else(sidecar, guests, eventually):
    """All workers under load over both sockets: each connection fails once at the most, those of the others never."""
    sidecar.folder.plugin("p", guests.counter(), permissions=["kv.write"])
    sidecar.start(workers=3)
    async with clients(sidecar, 24) as made:
        await more_of_each(made, 5)
        had = max(sidecar.connections())
        before = sidecar.plugin("p")["stats"]["custom_hook"]["calls"]
        dead = sidecar.workers[0]
        os.kill(dead, signal.SIGKILL)
        await asyncio.to_thread(
            eventually, lambda: len(sidecar.workers) == 3 and dead not in sidecar.workers, "another worker"
        )
        await asyncio.to_thread(
            eventually, lambda: sidecar.get("/v1/plugins")[1]["workers"]["current"] == 3, "it runs the bundle"
        )
        await more_of_each(made, 5)
        failures = [each.failures for each in made]
        assert sum(failures) <= had
        assert max(failures) <= 1
        # What was acknowledged is kept, and no number is given twice.
        numbers = [answer["value"] for each in made for answer in list(each.answers)]
        assert len(numbers) == len(set(numbers))
        assert sidecar.plugin("p")["stats"]["custom_hook"]["calls"] > before
        # The new worker is the one with the fewest: it gets what comes now.
        more = 0
        async with contextlib.AsyncExitStack() as stack:
            while min(sidecar.connections()) < 12:
                assert more < 100, sidecar.connections()
                session = await stack.enter_async_context(sidecar.client(unix=bool(more % 2)))
                more += 1
                async with session.post("/v1/hooks/custom_hook", json=0) as response:
                    numbers.append((await response.json())["value"])
                assert sum(sidecar.connections()) == 24 + more
    numbers = [answer["value"] for each in made for answer in each.answers]
    calls = sidecar.plugin("p")["stats"]["custom_hook"]["calls"]
    assert len(numbers) + more <= calls <= len(numbers) + more + had
    last = (await sidecar.ask())["value"]
    assert len(numbers) + more + 1 <= last <= len(numbers) + more + 1 + had
    assert "Traceback" not in sidecar.log


async def test_changes_under_load_fail_no_call_of_any_worker(sidecar, guests):
    """Two workers, both sockets, a limit that they share, and a new version again and again."""
    sidecar.folder.plugin("p", guests.saying(0), limits={"concurrency": 2, "timeout": "900ms"})
    sidecar.start(workers=2)
    async with clients(sidecar, 8) as made:
        for version in range(1, 5):
            sidecar.folder.plugin(
                "p", guests.saying(version), limits={"concurrency": 1 + version % 2, "timeout": "900ms"}
            )
            await until_all_say(made, version)
    assert [each.failures for each in made] == [0] * 8
    values = [[answer.get("value") for answer in each.answers] for each in made]
    assert None not in itertools.chain(*values)
    for said in values:
        assert said == sorted(said)


async def until_all_say(made, value):
    """Return when each client was last answered this."""
    await until_true(
        lambda: all(each.answers and each.answers[-1].get("value") == value for each in made), f"{value} from all"
    )
