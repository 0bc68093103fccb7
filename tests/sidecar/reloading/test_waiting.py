"""A sidecar that waits says for what; one that hangs while others wait for it ends."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import textwrap
from types import SimpleNamespace

from hookline_sidecar.control import waiting
from waiting import PATIENCE_S, until_true

HANGS = textwrap.dedent(
    """
    import asyncio, time
    from types import SimpleNamespace
    from hookline_sidecar.control import waiting

    waiting._HANGS_S, waiting._LOOK_S = 0.5, 0.01
    ready = {ready}

    async def main():
        sidecar = SimpleNamespace(draining=False, not_ready=lambda: [] if ready else ["no plugin"])
        task = asyncio.create_task(waiting.watch(lambda: sidecar))
        await asyncio.sleep(0.1)
        time.sleep(2)  # as a loop that hangs
        task.cancel()

    asyncio.run(main())
    """
)


def ended(*, ready):
    """How a process ends whose loop hangs."""
    command = [sys.executable, "-c", HANGS.format(ready=ready)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)


def test_one_that_hangs_before_it_was_ever_ready_ends_and_says_where():
    """Kubelet asks for nothing but readiness then, and cannot tell a hang from waiting."""
    done = ended(ready=False)
    assert done.returncode == 1
    assert "Timeout" in done.stderr


def test_one_that_was_ready_once_is_left_to_the_liveness_probe():
    """Which has a patience of its own."""
    assert ended(ready=True).returncode == 0


async def test_each_reason_is_said_once_in_one_bounded_line(caplog, monkeypatch):
    """Whatever a registry's words are; and that it is ready at last."""
    monkeypatch.setattr(waiting, "_LOOK_S", 0.01)
    monkeypatch.setattr(waiting, "_SAY_AGAIN_S", 0.0)
    sidecar = SimpleNamespace(draining=False, reasons=["plugin 'a':\n" + "x" * 10_000, *"bcdefgh"], looks=0)

    def not_ready():
        sidecar.looks += 1
        return sidecar.reasons

    sidecar.not_ready = not_ready
    caplog.set_level(logging.INFO, "hookline.supervisor")
    task = asyncio.create_task(waiting.watch(lambda: sidecar))

    async def looked(times):
        before = sidecar.looks

        async def enough():
            return sidecar.looks >= before + times

        await until_true(enough, "looks", pause=0.01)

    await looked(3)
    sidecar.reasons = []
    await looked(3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    first, second = (record.message for record in caplog.records)
    assert first.startswith("not ready: plugin 'a': xxx")
    assert first.endswith("; b; c; d; e; and 3 more")
    assert "\n" not in first
    assert len(first) < 1000
    assert second == "ready"
