"""Simulated sidecars by the thousand, in processes of their own: what they cost is not the operator's.

Each sidecar has connections of its own, as real ones do: a WebSocket, and another when it fetches a module, each
with its own TLS handshake. They speak the whole protocol and run nothing. ``python -m bench.operator.swarm PLAN`` is
one such process; :class:`Swarm` starts them and asks when which of their sidecars switched.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import ssl
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import aiohttp

from bench.sidecar import BrokenError
from hookline_sidecar.control.sources.operator import pause
from simulated_sidecar import SimulatedSidecar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from hookline_api.distribution import BundleMessage

_CONNECT_AT_ONCE: Final = 50
_GOING_AWAY: Final = 1001
_STEADY_S: Final = 10.0
_LINE: Final = 64 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One sidecar: its token, and the labels by which it is asked about."""

    token: str
    labels: list[str]


class Sidecar(SimulatedSidecar):
    """Remembers when it switched to what, and keeps each module once for all of its process."""

    modules: ClassVar[dict[str, bytes]] = {}

    def __init__(self, member: dict[str, Any], *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.labels: list[str] = member["labels"]
        self.connected_at = 0.0
        self.switched: dict[str, float] = {}
        """By name, sha256 and ``config.n``: when (monotonic)."""

    async def blob(self, sha256: str) -> tuple[int, bytes]:
        """The same module, once in memory."""
        status, body = await super().blob(sha256)
        known = self.modules.setdefault(sha256, body) if status == 200 else body
        return status, known if known == body else body

    async def _switch(self, told: BundleMessage, socket: aiohttp.ClientWebSocketResponse) -> None:
        now = time.monotonic()
        for each in told.bundle.plugins:
            if each.artifact is not None:
                self.switched.setdefault(key_of(each.name, each.artifact.sha256, each.config.parsed().get("n")), now)
        await super()._switch(told, socket)


def key_of(name: str, sha256: str, number: object = None) -> str:
    """What a switch is called."""
    return f"{name}={sha256}/{number}"


class Swarm:
    """The processes."""

    def __init__(self, processes: Sequence[asyncio.subprocess.Process]) -> None:
        self._processes = processes

    async def connected(self, *, since: float = 0.0, seconds: float = 180.0) -> list[float]:
        """When (monotonic) each connected, all of them after that."""
        return await self._ask({"wait": "connected", "since": since, "seconds": seconds})

    async def switched(self, key: str, label: str = "all", *, seconds: float = 180.0) -> list[float]:
        """When (monotonic) each of those with the label switched. Raises BrokenError where not all did."""
        return await self._ask({"wait": key, "label": label, "seconds": seconds})

    async def _ask(self, what: dict[str, Any]) -> list[float]:
        async def one(process: asyncio.subprocess.Process) -> list[float]:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(what).encode() + b"\n")
            answer = json.loads(await process.stdout.readline() or b'{"missing": "its process ended"}')
            if "missing" in answer:
                raise BrokenError(f"not all sidecars did ({what['wait']}): {answer['missing']}")
            times: list[float] = answer["times"]
            return times

        found = await asyncio.gather(*map(one, self._processes))
        return sorted(time for times in found for time in times)


@contextlib.asynccontextmanager
async def swarm(
    members: Sequence[Member], *, url: str, server_name: str, authority: str, folder: Path, processes: int
) -> AsyncIterator[Swarm]:
    """Sidecars that connect, and connect again when a connection ends."""
    started = []
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        for number in range(processes):
            plan = folder / f"swarm-{number}.json"
            mine = [{"token": each.token, "labels": each.labels} for each in members[number::processes]]
            plan.write_text(
                json.dumps({"url": url, "server_name": server_name, "authority": authority, "members": mine})
            )
            started.append(
                await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "bench.operator.swarm",
                    str(plan),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    limit=_LINE,
                    env=environment,
                )
            )
        yield Swarm(started)
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _serve(plan: dict[str, Any]) -> None:
    """One process: connect all, answer on standard output what is asked on standard input."""
    places = asyncio.Semaphore(_CONNECT_AT_ONCE)
    trust = ssl.create_default_context(cadata=plan["authority"])
    sidecars: list[Sidecar] = []
    tasks = []
    for member in plan["members"]:
        session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=None, sock_connect=60)
        )
        sidecar = Sidecar(member, session, plan["url"], member["token"], trust, server_name=plan["server_name"])
        sidecars.append(sidecar)
        tasks.append(asyncio.create_task(_stay(sidecar, places)))
    reader = asyncio.StreamReader(limit=_LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        print(json.dumps(await _answer(json.loads(line), sidecars)), flush=True)
    for task in tasks:
        task.cancel()


async def _stay(sidecar: Sidecar, places: asyncio.Semaphore) -> None:
    """Be connected for ever, with the pauses of a real sidecar."""
    attempts = 0
    while True:
        begun = time.monotonic()
        # Two cores that greet thousands at once only keep all of them waiting.
        async with places:
            running = asyncio.create_task(sidecar.run())
            connecting = asyncio.create_task(sidecar.connected.wait())
            await asyncio.wait({running, connecting}, return_when=asyncio.FIRST_COMPLETED)
            connecting.cancel()
        if sidecar.connected.is_set():
            sidecar.connected_at = time.monotonic()
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            await running
        lasted = time.monotonic() - begun
        attempts = 0 if lasted > _STEADY_S else attempts + 1
        await asyncio.sleep(pause(attempts, went=sidecar.closed_with == _GOING_AWAY and attempts == 0))


async def _answer(asked: dict[str, Any], sidecars: list[Sidecar]) -> dict[str, Any]:
    end = time.monotonic() + asked["seconds"]
    what = asked["wait"]
    of = [each for each in sidecars if asked.get("label", "all") in {"all", *each.labels}]
    while True:
        if what == "connected":
            times = [each.connected_at for each in of if each.connected.is_set() and each.connected_at > asked["since"]]
        else:
            times = [each.switched[what] for each in of if what in each.switched]
        if len(times) == len(of):
            return {"times": times}
        if time.monotonic() > end:
            return {"missing": f"{len(of) - len(times)} of {len(of)} after {asked['seconds']:.0f} s"}
        await asyncio.sleep(0.05)


if __name__ == "__main__":
    _soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_hard, _hard))
    asyncio.run(_serve(json.loads(Path(sys.argv[1]).read_text())))
