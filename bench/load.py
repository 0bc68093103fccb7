"""The load generator: a process of its own, so that what is measured shares no interpreter with what measures.

``python -m bench.load`` reads one plan per line from standard input and answers each with one line of figures.
A plan ends by itself after its ``seconds`` or ``count``, or when the line ``stop`` comes; calls under way are
waited for. Connections are kept alive, each with one call at a time (a closed loop).

It is light on purpose: a protocol on uvloop, requests that are bytes already, and no more parsing than it takes
to know that an answer is right.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Final, Self, cast

import orjson
import uvloop

_ANSWER_S: Final = 10.0
_LINE: Final = 16 * 2**20

Address = tuple[str, int] | str
"""Host and port, or the path of a unix socket."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """One kind of call. ``action`` is what the decision must say; None: any answer with status 200 will do."""

    hook: str
    body: str
    action: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What to call, and for how long. Each connection goes round ``asks``."""

    address: Address
    asks: list[Ask]
    concurrency: int = 8
    seconds: float | None = None
    count: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The figures of one plan."""

    calls: int
    seconds: float
    p50_us: float
    p99_us: float
    max_us: float
    failures: dict[str, int] = field(default_factory=dict)
    targets: dict[str, str | None] = field(default_factory=dict)
    """Bundle → the ``target`` that its decisions had, in the order in which the bundles were seen."""

    @property
    def rate(self) -> float:
        """Calls per second."""
        return self.calls / self.seconds


class Generator:
    """The load generator, seen from the benchmark."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", __name__,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=_LINE,
        )  # fmt: skip
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            await self._process.wait()

    def start(self, plan: Plan) -> None:
        """Begin with a plan."""
        self._tell(orjson.dumps(asdict(plan)))

    def stop(self) -> None:
        """End a plan that has no end of its own."""
        self._tell(b"stop")

    async def outcome(self) -> Outcome:
        """The figures of the plan, when it has ended. Raises RuntimeError where the generator broke."""
        assert self._process is not None
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the load generator broke; its own message is above")
        return Outcome(**orjson.loads(line))

    async def run(self, plan: Plan) -> Outcome:
        """Begin, and wait for the end."""
        self.start(plan)
        return await self.outcome()

    def _tell(self, line: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")


class _Round:
    """One plan under way."""

    def __init__(self, plan: dict[str, Any]) -> None:
        address = plan["address"]
        self.address: Address = address if isinstance(address, str) else (address[0], address[1])
        self.requests = [_request(ask) for ask in plan["asks"]]
        self.actions: list[str | None] = [ask["action"] for ask in plan["asks"]]
        self.left: float = plan["count"] or float("inf")
        self.times = array.array("Q")
        self.failures: Counter[str] = Counter()
        self.seen: dict[tuple[str, int], dict[str, Any]] = {}
        self.under_way = 0
        self.ended = asyncio.Event()

    def more(self) -> bool:
        """Whether another call is to be made; it counts as made."""
        self.left -= 1
        return self.left >= 0

    def judge(self, which: int, status: bytes, body: bytes) -> None:
        """Count an answer that is not what it has to be."""
        action = self.actions[which]
        if status != b"200":
            self.failures[f"status {status.decode(errors='replace')}"] += 1
        elif action is not None:
            decision = orjson.loads(body)
            decision.pop("request_id", None)
            if decision.get("action") != action or "failure" in decision:
                self.failures[f"wrong decision {body[:200].decode(errors='replace')}"] += 1
            # One bundle answers one call in one way only, whatever is swapped meanwhile.
            elif self.seen.setdefault((decision["bundle"], which), decision) != decision:
                self.failures["two answers of one bundle"] += 1

    def end(self) -> None:
        """No further call."""
        self.left = 0
        if not self.under_way:
            self.ended.set()


class _Client(asyncio.Protocol):
    def __init__(self, work: _Round, first: int) -> None:
        self._work = work
        self._which = first % len(work.requests)
        self._buffer = b""
        self._begin = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def call(self) -> None:
        """The next call, if there is one."""
        assert self._transport is not None
        if not self._work.more():
            self._transport.close()
            if not self._work.under_way:
                self._work.ended.set()
            return
        self._work.under_way += 1
        self._begin = time.perf_counter_ns()
        self._transport.write(self._work.requests[self._which])

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        length = self._buffer.find(b"Content-Length: ")
        size = int(self._buffer[length + 16 : self._buffer.find(b"\r\n", length)])
        if len(self._buffer) < head + 4 + size:
            return
        work = self._work
        work.times.append(time.perf_counter_ns() - self._begin)
        self._begin = 0
        work.under_way -= 1
        work.judge(self._which, self._buffer[9:12], self._buffer[head + 4 :])
        self._buffer = b""
        self._which = (self._which + 1) % len(work.requests)
        self.call()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._begin:
            self._work.failures[f"connection lost ({exc or 'closed'})"] += 1
            self._work.under_way -= 1
            self._work.end()  # a failure of this kind ends the plan: what follows would be measured with fewer


def _itself(client: _Client) -> _Client:
    return client


def _request(ask: dict[str, Any]) -> bytes:
    body: bytes = ask["body"].encode()
    head = (
        f"POST /v1/hooks/{ask['hook']} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _work_off(plan: dict[str, Any], lines: asyncio.StreamReader) -> dict[str, Any]:
    work, loop = _Round(plan), asyncio.get_running_loop()
    clients = []
    for index in range(plan["concurrency"]):
        client = _Client(work, index)
        clients.append(client)
        if isinstance(work.address, str):
            await loop.create_unix_connection(partial(_itself, client), work.address)
        else:
            await loop.create_connection(partial(_itself, client), *work.address)
    begin = time.perf_counter()
    for client in clients:
        client.call()
    by_itself = plan["seconds"] is not None or plan["count"] is not None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(plan["seconds"]):
            await (work.ended.wait() if by_itself else lines.readline())
    seconds = time.perf_counter() - begin
    calls = len(work.times)
    work.end()
    try:
        async with asyncio.timeout(_ANSWER_S):
            await work.ended.wait()
    except TimeoutError:
        work.failures[f"no answer within {_ANSWER_S:.0f} s"] += work.under_way
    times = sorted(work.times) or [0]
    return asdict(
        Outcome(
            calls=calls,
            seconds=seconds,
            p50_us=times[len(times) // 2] / 1000,
            p99_us=times[min(len(times) - 1, int(len(times) * 0.99))] / 1000,
            max_us=times[-1] / 1000,
            failures=dict(work.failures),
            targets={bundle: decision.get("target") for (bundle, _), decision in work.seen.items()},
        )
    )


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=_LINE)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        if line.strip() != b"stop":
            answer = orjson.dumps(await _work_off(orjson.loads(line), lines))
            sys.stdout.buffer.write(answer + b"\n")
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    uvloop.run(_serve())
