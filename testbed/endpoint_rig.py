"""The lane and the server in this process, on connections without sockets and a clock that is moved by hand.

Time-outs cost no time here, and what happens is the same each time: ``fuzz_endpoint`` compares the two on it, and
tests look at the lane alone.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import re
import selectors
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser

from hookline_api.bundle import Bundle, BundlePlugin
from hookline_api.hooks import INPUTS, Hook
from hookline_runtime.chain.pipeline import Chains, Later
from hookline_runtime.runtime import Runtime
from hookline_sidecar.hooks import lane, lanes
from hookline_sidecar.hooks.endpoint import Answering, Endpoint
from hookline_sidecar.hooks.server import BOUNDS
from hookline_sidecar.settings import Settings

if TYPE_CHECKING:
    from types import ModuleType

    from hookline_runtime.plugin.backlog import Asker

MAX_BODY: Final = 3000
BODY_TIMEOUT: Final = 3.0
"""Seconds. Less than a head is waited for: what is behind a request is known exactly to the lane alone."""
HIGH_WATER: Final = 400

# Small, so that cases reach them often.
_BOUNDS: Final[dict[tuple[ModuleType, str], int]] = {
    (lane, "_MAX_HELD"): 700,
    (lane, "_TURN"): 3,
    (lane, "_TURN_BYTES"): 900,
    (lanes, "_MAX_KNOWN"): 40,
}

Step = tuple[str, bytes]
"""``data``, ``loop`` (all that is ready runs), ``wait`` (for longer than a lane does), ``stall`` (the client reads no
more), ``read`` (it does again) or ``eof``; with bytes where it is data."""


class _Nobody(selectors.SelectSelector):
    """There are no sockets, and nobody is waited for."""

    def select(self, timeout: float | None = None) -> list[Any]:  # noqa: ARG002 - the base's signature
        return []


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose time is moved by hand."""

    def __init__(self) -> None:
        super().__init__(_Nobody())
        self.now = 0.0

    def time(self) -> float:
        """Seconds."""
        return self.now

    def settle(self) -> None:
        """Run what is ready, until nothing is."""
        private: Any = self
        while private._ready or (private._scheduled and private._scheduled[0]._when <= self.now):  # noqa: SLF001
            private._run_once()  # noqa: SLF001

    def wait(self, seconds: float) -> None:
        """Let time go by, one timer after the other."""
        private: Any = self
        end = self.now + seconds
        self.settle()
        while private._scheduled and private._scheduled[0]._when <= end:  # noqa: SLF001
            self.now = max(self.now, private._scheduled[0]._when)  # noqa: SLF001
            self.settle()
        self.now = end


class Line(asyncio.Transport):
    """A connection without a socket, and its client."""

    def __init__(self, loop: Clock, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._loop = loop
        self._protocol = protocol
        self._waiting: list[bytes | None] = []
        self._reading = True
        self._unread = 0
        self._stalled = False
        self.sent = bytearray()
        self.closed = False
        protocol.connection_made(self)

    def client_sends(self, data: bytes | None) -> None:
        """None: it sends nothing more."""
        self._waiting.append(data)
        self._deliver()

    def client_stalls(self, *, stalled: bool) -> None:
        """Whether it reads its answers."""
        self._stalled = stalled
        if not stalled and self._unread:
            was, self._unread = self._unread, 0
            if was > HIGH_WATER and not self.closed:
                self._protocol.resume_writing()

    def _deliver(self) -> None:
        while self._waiting and self._reading and not self.closed:
            data = self._waiting.pop(0)
            if data is not None:
                self._protocol.data_received(data)
            elif not self._protocol.eof_received():
                self.close()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """What the endpoint sends."""
        if self.closed:
            return
        self.sent += data
        if self._stalled:
            before = self._unread
            self._unread += len(data)
            if before <= HIGH_WATER < self._unread:
                self._protocol.pause_writing()

    def close(self) -> None:
        """The endpoint ends it."""
        if not self.closed:
            self.closed = True
            self._loop.call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        """As ``close``."""
        self.close()

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.closed

    def pause_reading(self) -> None:
        """Deliver nothing."""
        self._reading = False

    def resume_reading(self) -> None:
        """Deliver again."""
        self._reading = True
        self._loop.call_soon(self._deliver)

    def get_write_buffer_size(self) -> int:
        """Bytes that the client has not read."""
        return self._unread


class Slow(Chains):
    """Chains some of whose plugins have to be waited for: those that are asked about ``later``.

    Whatever ``/v1/auth`` asks shows in its answer: who it is and whether they may is made of the question's bytes.
    """

    def answer(
        self, hook: Hook, body: bytes, found: tuple[bytes, bytes] | None = None, unread: int = 0
    ) -> bytes | Later:
        """Takes its time where the call says so."""
        answer = super().answer(hook, body, found, unread=unread)
        assert isinstance(answer, bytes)
        return functools.partial(_slowly, answer) if b"later" in body else answer

    def decide(self, hook: Hook, data: bytes, request_id: str) -> bytes | Later:
        """Takes its time where the call says so."""
        decision = _decided(hook, data, request_id)
        return functools.partial(_slowly, decision) if b"later" in data else decision


async def _slowly(answer: bytes, _: Asker) -> bytes:
    await asyncio.sleep(0.002)
    return answer


def _decided(hook: Hook, data: bytes, request_id: str) -> bytes:
    """Raises where the question is not the contract's, or says anything twice; that is answered 500."""
    model = INPUTS[hook]
    assert model is not None
    asked: Any = model.model_validate_json(data, strict=True)
    assert orjson.dumps(asked.model_dump(mode="json")) == data
    mark = hashlib.sha256(data.replace(orjson.dumps(request_id), b"")).hexdigest()
    decision: dict[str, Any] = {"action": ("deny", "defer", "allow", "allow")[int(mark[0], 16) & 3]}
    if hook is Hook.AUTHENTICATE:
        identity = {
            "user_id": mark, "username": asked.username or asked.client_ip or "ann",
            "roles": sorted(asked.headers)[:2], "tenant_id": asked.password,
            "claims": {"x": asked.headers.get("x-json", [])},
        }  # fmt: skip
        decision = {"action": ("denied", "defer", "success")[min(int(mark[0], 16), 2)], "identity": identity}
    return orjson.dumps(decision)[:-1]


class Rig:
    """Both endpoints."""

    def __init__(self) -> None:
        self._bounds = {(module, name): getattr(module, name) for module, name in _BOUNDS}
        for (module, name), value in _BOUNDS.items():
            setattr(module, name, value)
        self.loop = Clock()
        asyncio._set_running_loop(self.loop)  # noqa: SLF001
        self.runtime = Runtime()
        absent = {"name": "absent", "hooks": ["route", "cache_set"], "failure": {"cause": "fetch", "message": "gone"}}
        self.loop.call_soon(self.loop.create_task, self.runtime.load(Bundle.of([_plugin(absent)]), _nothing))
        self.loop.settle()
        self.runtime.chains.__class__ = Slow
        settings = Settings(
            plugins=Path(), operator=None, state=Path(), listen=None, socket=None, socket_mode=0, socket_group=None,
            health=None, admin=None, admin_token=None, workers=1, max_body=MAX_BODY, body_timeout=BODY_TIMEOUT,
            drain=1.0,
        )  # fmt: skip
        self.answering = Answering(self.runtime)
        self.with_lane = Endpoint(self.answering, settings).server(lambda: None)
        self.without = Endpoint(self.answering, settings, lane=False).server(lambda: None)
        self.handed_over = 0
        self._last = b""
        self._lines: list[Line] = []

    def close(self) -> None:
        """Give everything back."""
        for line in self._lines:
            line.close()
        self.loop.settle()
        ending = self.loop.create_task(self.runtime.close())
        while not ending.done():
            self.loop.settle()
        asyncio._set_running_loop(None)  # noqa: SLF001
        self.loop.close()
        for (module, name), value in self._bounds.items():
            setattr(module, name, value)

    def connect(self) -> Line:
        """A connection to the lane that stays."""
        self._lines.append(Line(self.loop, self.with_lane()))
        return self._lines[-1]

    def ends(self, data: bytes) -> list[int]:
        """Where requests end in these bytes, according to aiohttp's parser."""
        parser = HttpRequestParser(
            BaseProtocol(self.loop), self.loop, 2**30, max_headers=BOUNDS.headers, auto_decompress=False
        )
        found: list[int] = []
        payload = None
        for index in range(len(data)):
            try:
                messages, _, _ = parser.feed_data(data[index : index + 1])
            except HttpProcessingError:
                break
            if messages:
                payload = messages[-1][1]
            if payload is not None and payload.is_eof():
                found.append(index + 1)
                payload = None
        return found

    def statuses(self) -> Iterator[str]:
        """Of the last connection."""
        return (found[1].decode() for found in re.finditer(rb"HTTP/1\.[01] (\d{3}) ", self._last))

    def play(self, server: Callable[[], Any], steps: list[Step]) -> tuple[bytes, bool]:
        """What the client got, and whether the connection was closed."""
        loop = self.loop
        protocol = server()
        line = Line(loop, protocol)
        for kind, data in steps:
            if kind == "data":
                line.client_sends(data)
            elif kind == "loop":
                loop.settle()
            elif kind == "wait":
                loop.wait(0.06)
            elif kind == "eof":
                line.client_sends(None)
            else:
                line.client_stalls(stalled=kind == "stall")
        loop.settle()
        line.client_stalls(stalled=False)
        loop.wait(0.06)
        loop.wait(BODY_TIMEOUT + 1.0)
        if getattr(protocol, "_behind", None) is not None:
            self.handed_over += 1
        result = bytes(line.sent), line.closed
        self._last = result[0]
        if not line.closed:
            line.close()
        loop.settle()
        return result


def _plugin(data: dict[str, Any]) -> BundlePlugin:
    return BundlePlugin.model_validate(data)


def _nothing(_: BundlePlugin) -> Path:
    raise AssertionError("no plugin of the bundle has a module")
