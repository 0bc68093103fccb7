"""One attack from beginning to end: honest calls before it and during it, and what was left of the program."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from waiting import until_true

if TYPE_CHECKING:
    from exhaustion.attacks import Attack
    from exhaustion.programs import Program

_PREPARATION_S: Final = 300.0
DEPLOY_MORE_S: Final = 15.0
"""How long after an attack's end an honest plugin is waited for: the table then says "not within …"."""
_MIB: Final = 2**20


@dataclass(frozen=True, kw_only=True)
class Result:
    """What an attack cost."""

    attack: str
    limit_mib: int
    way: str
    peak_mib: int
    """The most memory, with what the kernel caches of files."""
    held_mib: int
    """The most anonymous memory that was seen."""
    quiet_mib: int
    """The anonymous memory before it."""
    died: int
    """Processes that ended, or were killed for want of memory."""
    lost: dict[str, int]
    """Honest calls without an answer, by stream."""
    why_lost: list[str]
    gap_ms: dict[str, float]
    """The longest honest call."""
    quiet_gap_ms: dict[str, float]
    p99_ms: dict[str, float]
    quiet_p99_ms: dict[str, float]
    calls: dict[str, int]
    late_ms: float
    """How late the honest client itself was at the worst: a part of ``gap_ms`` that says something of the machine."""
    deploy_s: float | None
    """Seconds until an honest new plugin ran; -1 where it did not."""
    seconds: float
    did: dict[str, int]
    """What the attacker counted."""
    load_average: float

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


async def measure(
    program: Program, attack: Attack, *, seconds: float, quiet_s: float = 3.0, deploy_more_s: float = DEPLOY_MORE_S
) -> Result:
    """Run one attack for so many seconds. Raises RuntimeError where it did not run."""
    box = program.box
    async with program.load() as load, load.running():
        await asyncio.sleep(0.5)  # connections are opened, caches are filled
        with load.window() as quiet:
            await asyncio.sleep(quiet_s)  # the control
        await load.settle()
        quiet_memory = box.now()
        before = _starts(program.pids)
        async with _started(attack, program.addresses, seconds) as process:
            await _line(process, "begun", attack)
            box.reset()
            with load.window() as during:
                deploy = asyncio.create_task(_deploy(program, seconds / 2)) if attack.deploys else None
                said = await _answer(process, attack, seconds)
                deploy_s = await _waited(deploy, deploy_more_s)
            late = load.late_ms
        await load.settle()
        kills = box.kills
        gone = sum(1 for pid, start in before.items() if _start(pid) != start)
    return Result(
        attack=attack.name,
        limit_mib=box.limit // _MIB,
        way=box.way,
        peak_mib=round(box.peak / _MIB),
        held_mib=round(box.held / _MIB),
        quiet_mib=round(quiet_memory / _MIB),
        died=max(kills, gone),
        lost={name: len(window.lost) for name, window in during.items()},
        why_lost=sorted({why for window in during.values() for why in window.lost})[:5],
        gap_ms={name: window.gap_ms for name, window in during.items()},
        quiet_gap_ms={name: window.gap_ms for name, window in quiet.items()},
        p99_ms={name: window.p99_ms for name, window in during.items()},
        quiet_p99_ms={name: window.p99_ms for name, window in quiet.items()},
        calls={name: len(window.seconds) for name, window in during.items()},
        late_ms=late,
        deploy_s=deploy_s,
        seconds=seconds,
        did=said,
        load_average=round(os.getloadavg()[0], 1),
    )


@contextlib.asynccontextmanager
async def _started(
    attack: Attack, addresses: dict[str, Any], seconds: float
) -> AsyncIterator[asyncio.subprocess.Process]:
    testbed = str(Path(__file__).parents[1])
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "exhaustion.attacks", attack.name, str(seconds),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONPATH": testbed},
    )  # fmt: skip
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(addresses).encode())
        process.stdin.close()
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _line(process: asyncio.subprocess.Process, wanted: str, attack: Attack) -> None:
    assert process.stdout is not None
    async with asyncio.timeout(_PREPARATION_S):
        said = (await process.stdout.readline()).decode().strip()
    if said != wanted:
        raise RuntimeError(f"the attack {attack.name} did not begin: {said!r}")


async def _answer(process: asyncio.subprocess.Process, attack: Attack, seconds: float) -> dict[str, int]:
    assert process.stdout is not None
    async with asyncio.timeout(seconds + _PREPARATION_S):
        said = await process.stdout.readline()
        code = await process.wait()
    if code or not said:
        raise RuntimeError(f"the attack {attack.name} failed with {code}")
    return {str(name): int(count) for name, count in json.loads(said).items()}


async def _deploy(program: Program, after: float) -> float:
    await asyncio.sleep(after)  # behind what the attack put there
    began = time.monotonic()
    await program.deploy(f"late-{time.monotonic_ns()}")
    return time.monotonic() - began


async def _waited(deploy: asyncio.Task[float] | None, seconds: float) -> float | None:
    if deploy is None:
        return None
    with contextlib.suppress(TimeoutError):
        await until_true(deploy.done, "an honest plugin", seconds=seconds)
        return round(deploy.result(), 1)
    deploy.cancel()
    await asyncio.gather(deploy, return_exceptions=True)
    return -1.0


def _starts(pids: list[int]) -> dict[int, str | None]:
    return {pid: _start(pid) for pid in pids}


def _start(pid: int) -> str | None:
    """When a process began, which tells it from another one with its number; None where it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]
