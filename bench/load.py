"""The load generator: a process of its own, on a core of its own, so that what is measured shares nothing with it.

Its core is in C (``bench/peers/load.c``), because one in Python is slower than the servers it would measure. It
counts distinct answers; whether they are right is judged here. Connections are kept alive. In a closed loop each
has ``depth`` calls in flight; with a ``rate`` calls are due at fixed times, and a call's time runs from then.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

import orjson

from bench import peers
from bench.machine import LOAD_CORE, SERVER_CORE, compiled, on

if TYPE_CHECKING:
    from collections.abc import Sequence

_LINE: Final = 64 * 2**20
_STOP_S: Final = 30.0

Address = tuple[str, int] | str
"""Host (this machine) and port, or the path of a unix socket."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """One kind of call: its bytes. ``action`` is what the decision must say; None: any answer with 200 will do."""

    request: bytes
    action: str | None = None
    calls: int = 1
    """How many decisions one answer has to hold."""


def hook_call(name: str, body: str, action: str | None = None, *, calls: int = 1) -> Ask:
    """A call of a hook."""
    raw = body.encode()
    head = (
        f"POST /v1/{name if name.startswith('hooks') else f'hooks/{name}'} HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
    )
    return Ask(request=head.encode() + raw, action=action, calls=calls)


def get(target: str) -> Ask:
    """A request to a proxy, with the headers that a browser's would hold at least."""
    return Ask(
        request=f"GET {target} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n"
        "X-Api-Key: k-0123456789abcdef\r\n\r\n".encode()
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What to call, and for how long. Each connection goes round ``asks``. Without an end it runs until stopped."""

    address: Address
    asks: Sequence[Ask]
    concurrency: int = 8
    depth: int = 1
    rate: float | None = None
    seconds: float | None = None
    count: int | None = None
    polls: bool = False
    """Whether the generator never sleeps. It needs a core of its own then, and answers need not wake it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The figures of one plan."""

    calls: int
    seconds: float
    p50_us: float
    p99_us: float
    p999_us: float
    max_us: float
    busy: float
    """The share of its core for which the generator worked: near 1 it is the limit, and not what it asked."""
    failures: dict[str, int] = field(default_factory=dict)
    targets: dict[str, str | None] = field(default_factory=dict)
    """Bundle → the ``target`` that its decisions had, in the order in which the bundles were seen."""
    bodies: tuple[bytes, ...] = ()
    """The distinct answers."""

    @property
    def rate(self) -> float:
        """Calls per second."""
        return self.calls / self.seconds


class Generator:
    """The load generator, seen from the benchmark."""

    def __init__(self, *, core: int | None = LOAD_CORE) -> None:
        self._core = core
        self._process: asyncio.subprocess.Process | None = None
        self._plan: Plan | None = None

    async def __aenter__(self) -> Self:
        compiled(peers.program("load.c"))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def start(self, plan: Plan) -> None:
        """Begin with a plan."""
        address = plan.address
        options = ["-u", address] if isinstance(address, str) else ["-t", str(address[1])]
        options += ["-c", str(plan.concurrency), "-d", str(plan.depth)]
        for letter, value in (("s", plan.seconds), ("n", plan.count), ("r", plan.rate)):
            options += [] if value is None else [f"-{letter}", str(value)]
        options += ["-p"] if plan.polls and LOAD_CORE != SERVER_CORE else []
        with on(self._core):
            self._process = await asyncio.create_subprocess_exec(
                compiled(peers.program("load.c")), *options,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=_LINE,
            )  # fmt: skip
        assert self._process.stdin is not None
        self._process.stdin.writelines(b"%d\n%s" % (len(ask.request), ask.request) for ask in plan.asks)
        self._process.stdin.close()
        self._plan = plan

    def stop(self) -> None:
        """End a plan that has no end of its own."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    async def outcome(self) -> Outcome:
        """The figures of the plan, when it has ended. Raises RuntimeError where the generator broke."""
        assert self._process is not None
        assert self._process.stdout is not None
        assert self._plan is not None
        raw = await self._process.stdout.read()
        async with asyncio.timeout(_STOP_S):
            if await self._process.wait():
                raise RuntimeError("the load generator broke; its own message is above")
        return _judged(orjson.loads(raw), self._plan.asks)

    async def run(self, plan: Plan) -> Outcome:
        """Begin, and wait for the end."""
        await self.start(plan)
        return await self.outcome()


def _judged(found: dict[str, Any], asks: Sequence[Ask]) -> Outcome:
    failures: Counter[str] = Counter()
    for what, count in (
        ("connection lost", found["lost"]),
        ("no answer within 10 s", found["silent"]),
        ("too many different answers to look at", found["other"]),
    ):
        if count:
            failures[what] += count
    decided: dict[tuple[str, int, int], dict[str, Any]] = {}
    bodies = []
    for which, status, count, encoded in found["answers"]:
        body = bytes.fromhex(encoded)
        bodies.append(body)
        if status != 200:
            failures[f"status {status}"] += count
        elif asks[which].action is not None:
            decisions = _decisions(body, asks[which])
            if decisions is None:
                failures[f"wrong decision {body[:200].decode(errors='replace')}"] += count
                continue
            for place, decision in enumerate(decisions):
                # One bundle answers one call in one way only, whatever is swapped meanwhile.
                if decided.setdefault((decision["bundle"], which, place), decision) != decision:
                    failures["two answers of one bundle"] += count
    return Outcome(
        calls=found["calls"],
        seconds=found["seconds"],
        p50_us=found["p50_us"],
        p99_us=found["p99_us"],
        p999_us=found["p999_us"],
        max_us=found["max_us"],
        busy=found["cpu"] / found["seconds"],
        failures=dict(failures),
        targets={bundle: decision.get("target") for (bundle, _, _), decision in decided.items()},
        bodies=tuple(bodies),
    )


def _decisions(body: bytes, ask: Ask) -> list[dict[str, Any]] | None:
    """The decisions of an answer; None where it is not what it has to be."""
    try:
        answer = orjson.loads(body)
        decisions: list[dict[str, Any]] = [answer] if ask.calls == 1 else answer["decisions"]
        right = len(decisions) == ask.calls and all(
            decision.get("action") == ask.action and "failure" not in decision and "bundle" in decision
            for decision in decisions
        )
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
        return None
    return decisions if right else None
