"""Differential fuzzing of the hook endpoint: the same bytes to the lane, and to aiohttp's road alone.

    python -m fuzz_endpoint [--cases N] [--seed S]      (make fuzz)
    python -m fuzz_endpoint --seed S --only N           one case again, with all its bytes

Both endpoints run in this process, on transports without sockets and on a clock that is moved by hand, so that
time-outs cost no time and a case is the same each time. A case is a few requests, good and bad, cut into pieces
anywhere; both must send the same bytes and leave the connection in the same state. Three things are normal:

- What aiohttp does depends on how the bytes were cut: requests before a malformed one in the same packet are left
  unanswered, and the words about a malformed one quote the packet. So the lane may also do what aiohttp does with the
  same bytes in other packets, cut where requests end, and those words are not compared.
- Whether a request that is refused by its head ends the connection depends on whether its body was there already,
  which takes longer to be looked at where the client does not read the answers before it.
- A client that has shut down its sending side gets its answers from the lane, and not always from aiohttp. Where it
  does so in the moment in which it sends, what is malformed is answered by either or by none.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import json
import random
import re
import selectors
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser

from hookline_api.bundle import Bundle, BundlePlugin
from hookline_api.hooks import INPUTS, Hook
from hookline_runtime.pipeline import Chains
from hookline_runtime.runtime import Runtime
from hookline_sidecar import lane
from hookline_sidecar.endpoint import Endpoint, Gate
from hookline_sidecar.settings import Settings

if TYPE_CHECKING:
    from hookline_runtime.inputs import Call

MAX_BODY: Final = 3000
BODY_TIMEOUT: Final = 5.0
HIGH_WATER: Final = 400
SHRINKING_S = 20.0

# Small, so that cases reach them often.
_BOUNDS: Final = {"_MAX_HELD": 700, "_TURN": 3, "_TURN_BYTES": 900, "_MAX_KNOWN": 40}

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

    def answer_now(self, call: Call) -> bytes | None:
        """None where the call says so."""
        return None if b"later" in call.data else super().answer_now(call)

    async def answer(self, call: Call) -> bytes:
        """Takes its time where the call says so."""
        if b"later" in call.data:
            await asyncio.sleep(0.002)
        return await super().answer(call)

    def decide_now(self, hook: Hook, data: bytes, request_id: str) -> bytes | None:
        """None where the call says so."""
        return None if b"later" in data else _decided(hook, data, request_id)

    async def decide(self, hook: Hook, data: bytes, request_id: str) -> bytes:
        """Takes its time where the call says so."""
        if b"later" in data:
            await asyncio.sleep(0.002)
        return _decided(hook, data, request_id)


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
        self._bounds = {name: getattr(lane, name) for name in _BOUNDS}
        for name, value in _BOUNDS.items():
            setattr(lane, name, value)
        self.loop = Clock()
        asyncio._set_running_loop(self.loop)  # noqa: SLF001
        self.runtime = Runtime()
        absent = {"name": "absent", "hooks": ["route", "cache_set"], "failure": {"cause": "fetch", "message": "gone"}}
        self.loop.call_soon(self.loop.create_task, self.runtime.load(Bundle.of([_plugin(absent)]), _nothing))
        self.loop.settle()
        self.runtime.chains.__class__ = Slow
        settings = Settings(
            plugins=Path(), operator=None, state=Path(), listen=None, socket=None, socket_mode=0, socket_group=None,
            admin=("", 0), workers=1, max_body=MAX_BODY, body_timeout=BODY_TIMEOUT, drain=1.0,
        )  # fmt: skip
        self.gate = Gate(self.runtime)
        self.with_lane = Endpoint(self.gate, settings).server(lambda: None)
        self.without = Endpoint(self.gate, settings, lane=False).server(lambda: None)
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
        for name, value in self._bounds.items():
            setattr(lane, name, value)

    def connect(self) -> Line:
        """A connection to the lane that stays."""
        self._lines.append(Line(self.loop, self.with_lane()))
        return self._lines[-1]

    def ends(self, data: bytes) -> list[int]:
        """Where requests end in these bytes, according to aiohttp's parser."""
        parser = HttpRequestParser(BaseProtocol(self.loop), self.loop, 2**30, max_headers=128, auto_decompress=False)
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


class Maker:
    """Makes one case after a seed: bytes in pieces, and what happens between them."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)
        self._oddity = self._random.choice((0.0, 0.0, 0.3, 1.0))
        """How much of what is likely to be refused there is in a case."""

    def case(self) -> list[Step]:
        """The steps."""
        chance, pick = self._random.random, self._random.choice
        requests = [self._request() for _ in range(pick((1, 1, 1, 2, 2, 3, 4, 8)))]
        ends, data = [], b""
        for request in requests:
            data += request
            ends.append(len(data))
        if chance() < 0.5 * self._oddity:
            data = self._mutated(data)
        cuts = set(ends) if chance() < 0.3 else set()
        if chance() < 0.6:
            cuts |= {self._random.randrange(len(data) + 1) for _ in range(pick((1, 1, 2, 3, 6)))}
        elif chance() < 0.05 and len(data) < 2000:
            cuts = set(range(len(data)))
        steps: list[Step] = []
        if chance() < 0.05:
            steps.append(("stall", b""))
        edges = [0, *sorted(cut for cut in cuts if 0 < cut < len(data)), len(data)]
        for begin, end in itertools.pairwise(edges):
            steps.append(("data", data[begin:end]))
            after = chance()
            if after < 0.75:
                steps.append(("loop", b""))
            elif after < 0.85:
                steps.append(("wait", b""))
            elif after < 0.87:
                steps.append(("read", b""))
        if chance() < 0.15:
            steps.append(("eof", b""))
        return steps

    def _request(self) -> bytes:
        chance, pick = self._random.random, self._random.choice
        method, target, body = self._what()
        odd = self._odd
        lines = [pick(HOSTS if odd(0.3) else HOSTS[:3])] if not odd(0.03) else []
        if chance() < 0.6:
            lines.append(pick(TYPES if odd(0.3) else TYPES[:3]))
        lines += [pick(ODD if odd(0.15) else PLAIN) for _ in range(pick((0, 0, 1, 1, 2, 5)))]
        if odd(0.03):
            lines += [b"X-%d: y" % number for number in range(pick((90, 98, 125, 128, 140)))]
        if odd(0.03):
            lines.append(b"X-Long: " + b"y" * pick((7000, 7990, 8150, 8185, 8200, 9000)))
        version = b"HTTP/1.1" if not odd(0.07) else pick(VERSIONS)
        if method in {b"POST", b"PUT"} or chance() < 0.2:
            if not odd(0.2):
                lines.append(b"Content-Length: %d" % len(body))
            elif chance() < 0.5:
                lines.append(b"Transfer-Encoding: chunked")
                at = self._random.randrange(len(body) + 1)
                parts = [part for part in (body[:at], body[at:]) if part]
                body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
            else:
                lines += [line.replace(b"#", b"%d" % len(body)) for line in pick(LENGTHS)]
        else:
            body = b""
        self._random.shuffle(lines)
        return b"\r\n".join([method + b" " + target + b" " + version, *lines, b"", body])

    def _odd(self, likely: float) -> bool:
        return self._random.random() < likely * self._oddity

    def _what(self) -> tuple[bytes, bytes, bytes]:
        chance, pick = self._random.random, self._random.choice
        kind = chance()
        if kind < 0.55:
            names = HOOKS if self._odd(0.3) else HOOKS[:9]
            return b"POST", b"/v1/hooks/" + pick(names), pick(BODIES if self._odd(0.5) else GOOD)
        if kind < 0.65:
            calls = [{"hook": pick(NAMES), "input": json.loads(pick(GOOD))} for _ in range(pick((0, 1, 3, 7)))]
            bodies = (json.dumps({"calls": calls}).encode(), *BATCHES)
            return b"POST", b"/v1/hooks:batch", bodies[0] if chance() < 0.7 else pick(bodies)
        if kind < 0.8:
            behind = pick(BEHIND if self._odd(0.5) else BEHIND[:7])
            return (
                pick(METHODS if self._odd(0.5) else METHODS[:3]),
                b"/v1/auth" + behind,
                b"" if chance() < 0.7 else pick(BODIES),
            )
        return pick(METHODS), pick(TARGETS), pick(BODIES)

    def _mutated(self, data: bytes) -> bytes:
        for _ in range(self._random.choice((1, 1, 1, 2, 4))):
            at = self._random.randrange(len(data) + 1)
            to = min(len(data), at + self._random.choice((0, 1, 1, 2, 9)))
            new = self._random.choice(
                (b"", data[at:to] * 2, self._random.choice(BYTES), bytes([self._random.randrange(256)]))
            )
            data = data[:at] + new + data[to:]
        return data


ID: Final = b'"hook_context": {"request_id": "r-1"}'
GOOD: Final = [
    b'{"query": "select 1", ' + ID + b"}",
    b'{"query": "select 1", "normalized": null, "tables": ["t"], "is_read_only": true, ' + ID + b"}",
    b'{"query": "later", ' + ID + b"}",
    b'{"query": "", "key": "k", "value": "AQI=", "headers": {"x-request-id": "r-1"}, "event": {}, ' + ID + b"}",
    b'[{"query": "a", ' + ID + b'}, {"success": true}]',
]
BODIES: Final = [
    *GOOD * 3, b"", b"{}", b"[]", b"null", b"nonsense", b'{"query": 1}', b'{"query": "\xff"}', b'{"query": "later"',
    b'{"query": "a"}', b'{"query": "\\ud800"}', b"[" * 300 + b"]" * 300,
    b'{"query": "' + b"x" * 650 + b'", ' + ID + b"}", b'{"query": "' + b"x" * 2500 + b'", ' + ID + b"}",
    b" " * (MAX_BODY + 1), b"POST / HTTP/1.1\r\n\r\n",
]  # fmt: skip
BATCHES: Final = [
    b"{}", b'{"calls": 1}', b'{"calls": [1, {}, {"hook": "x"}, {"hook": "route"}, {"hook": 7, "input": 1}]}', b"[",
    b"",
]  # fmt: skip
NAMES: Final = ["pre_query", "route", "authenticate", "custom_hook", "post_query", "prequery", "nothing", "later"]
HOOKS: Final = [
    b"pre_query", b"pre_query", b"route", b"Route", b"authenticate", b"custom_hook", b"post_query", b"cache_set",
    b"prequery", b"none", b"", b"pre_query/", b"pre_query?x=1", b"pre%5fquery", b"pre_query#f", b"../auth",
    b"pre_query%00",
]  # fmt: skip
METHODS: Final = [
    b"GET", b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"BREW", b"CONNECT", b"get",
]  # fmt: skip
BEHIND: Final = [
    b"", b"", b"/", b"/a/b", b"/a?x=1", b"?x=1", b"/a%20b", b"/../a", b"/%2e%2e/a", b"//a", b"x", b"%2Fa", b"/a#b",
    b"/\xc3\xa9", b"/a\\b", b"/%zz", b"/{a}|b", b"/%00",
]  # fmt: skip
TARGETS: Final = [
    b"/", b"*", b"/v1", b"/v1/hooks", b"/v1/hooks/pre_query", b"http://h/v1/hooks/pre_query", b"/v1/hooks:batch",
    b"h:1", b"/v1/hooks:batch?x", b"/v1/hooks:Batch", b"//v1/auth", b"/v1/hooks/../auth", b"/\xff", b"", b"/a b",
    b"http:///x", b"http://h/v1/auth/a", b"/v1/%61uth/a",
]  # fmt: skip
VERSIONS: Final = [
    b"HTTP/1.0", b"HTTP/1.0", b"HTTP/9.9", b"HTTP/2.0", b"HTTP/1.2", b"http/1.1", b"HTTP/1.1 ", b"",
]  # fmt: skip
HOSTS: Final = [
    b"Host: x", b"Host: x", b"host:localhost:99", b"HOST:   [::1]:1  ", b"Host:", b"Host: a b", b"Host: a/b",
    b"Host: \xff",
]  # fmt: skip
TYPES: Final = [
    b"Content-Type: application/json", b"Content-Type: application/json",
    b"content-type:application/json; charset=utf-8", b"Content-Type: APPLICATION/JSON", b"Content-Type: text/plain",
    b"Content-Type:", b"Content-Type: application/json;", b"Content-Type: application/json, text/plain",
    b"Content-Type: json", b"Content-Type: application/json;charset=utf-8",
    b"Content-Type: application/json ; charset=utf-8", b"Content-Type: \xff",
]  # fmt: skip
PLAIN: Final = [
    b"Connection: keep-alive", b"connection: Keep-Alive", b"User-Agent: fuzz/1", b"Accept: */*",
    b"X-Real-IP: 10.0.0.1", b"X-Forwarded-For: 1.2.3.4, 5.6.7.8", b"X-Original-URI: /a?b", b"X-Original-Method: POST",
    b"X-Forwarded-Uri: /a/../b", b"X-Forwarded-Method: get", b"X-Request-Id: r-7", b"Authorization: Basic YTpi",
    b"Authorization: Bearer later", b'Cookie: a=b; c="d"', b"X-Tab:\ta\tb\t", b"X-Empty:", b"TE: trailers",
    b"Keep-Alive: timeout=5", b"!#$%&'*+-.^_`|~: odd", b"X-Original-URI: //a", b"X-Original-URI: /b",
    b"X-Request-Id: " + b"r" * 300, b"Accept-Encoding: gzip", b'X-Json: ","password":"x', b'x-JSON: \\u0022}%b{0}%s"',
    b"Authorization: Basic YW5uOmEiYlxj", b"AUTHORIZATION:basic Wm/DqzoM", b"Authorization: Basic YW5uDQp4OmE=",
    b"Authorization: Basic", b"Authorization: Basic !!", b"x-real-ip: ,", b"X-Forwarded-For: ::1 , ,",
    b"X-Hookline-User: root", b"X-Original-Method: later", b"x-original-METHOD:", b"X-Original-URI: /%62/%c3%a9",
    b"X-Original-URI:", b"User-Agent: " + b"u" * 300, b"X_Real_IP: 6.6.6.6", b'X-Request-Id: "\\',
]  # fmt: skip
ODD: Final = [
    b"Connection: close", b"Connection: close", b"Connection: close, keep-alive", b"Connection: upgrade",
    b"Connection:", b"Connection: \xff", b"Proxy-Connection: close", b"Proxy-Connection: keep-alive",
    b"Expect: 100-continue", b"Expect: magic", b"Expect:", b"Upgrade: websocket", b"Upgrade: h2c",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding : chunked", b"Content-Encoding: gzip", b"Content-Encoding: identity", b"Content-Encoding:",
    b"Content-Length: 5", b"Content-Length: 0", b"Trailer: X", b"X Y: 1", b"X-A : 1", b": 1", b"nocolon",
    b" folded: 1", b"\tfolded", b"X-Nul: a\x00b", b"X-Bell: \x07", b"X-Del: \x7f", b"X-High: \xff\xfe",
    b"X-High: \xc3\xa9", b"X-Cr: a\rb", b"X-Lf: a\nb", b"X-Lf: a\n", b"X-\xc3\xa9: 1", b"X(: 1", b"Host: twice",
    b"User-Agent: a\r\nUser-Agent: b", b"Cookie: a\r\nCookie: b", b"Sec-WebSocket-Key1: a", b"HTTP2-Settings: a",
    b"Content-Type: a/b\r\nContent-Type: a/b", b"X-A: 1\r\n", b"X-Request-Id: \xff",
    b"Max-Forwards: 1\r\nMax-Forwards: 1", b"Content-Location: x", b"X-Original-URI: \xff",
    b"X-Forwarded-Uri: /\xc3\xa9", b"\x00: 1",
]  # fmt: skip
LENGTHS: Final = [
    [], [b"Content-Length: 00#"], [b"Content-Length: +#"], [b"Content-Length: -#"], [b"Content-Length: # "],
    [b"Content-Length:#"], [b"Content-Length: #", b"Content-Length: #"], [b"Content-Length: #, #"],
    [b"Content-Length: 99999999999999999999999"], [b"Content-Length: 99999"],
    [b"Content-Length: #", b"Transfer-Encoding: chunked"], [b"Content-Length: 1#"], [b"Content-Length:"],
    [b"Content-Length: 0x#"], [b"Content-Length: #\t"], [b"Content-Length: 1_0"], [b"Content-Length: \xb2"],
    [b"content-length: #"], [b"Content-Length: 18446744073709551615"], [b"Content-Length: # #"],
    [b"Content-Length: 0"], [b"Content-Length: #;a"],
]  # fmt: skip
BYTES: Final = [
    b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\n\n", b"\x00", b"\xff", b" ", b"\t", b":", b",", b";",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 3\r\n",
    b"Connection: close\r\n", b"0\r\n\r\n", b"HTTP/1.1", b"#", b"%", b"\x0b", b"\x85",
]  # fmt: skip

_DATE: Final = re.compile(rb"\r\nDate: [^\r]+")
_MADE_ID: Final = re.compile(rb'("request_id":"|X-Hookline-Request-Id: )[0-9a-f]{16}(?=["\r])')
_MALFORMED: Final = re.compile(
    rb'\r\nContent-Length: \d+((?:\r\n[^\r]+)*\r\n\r\n[^\r]*"the request is malformed: )(?:[^"\\]|\\.)*"\}'
)


def comparable(sent: bytes) -> bytes:
    """Without the time, ids that were made up, and the words about what is malformed."""
    return _MALFORMED.sub(rb"\1", _MADE_ID.sub(rb"\1", _DATE.sub(b"", sent)))


def cut_at(steps: list[Step], ends: list[int]) -> list[Step]:
    """The same bytes, cut there too."""
    anew: list[Step] = []
    at = 0
    for kind, data in steps:
        begin = 0
        for end in ends:
            if at + begin < end < at + len(data):
                anew += [(kind, data[begin : end - at]), ("loop", b"")]
                begin = end - at
        anew.append((kind, data[begin:]))
        at += len(data)
    return anew


def differs(rig: Rig, steps: list[Step]) -> str | None:
    """What is not the same on both roads; None where all is."""
    ours, closed = rig.play(rig.with_lane, steps)
    if b"HTTP/1.1 500 " in ours:
        return f"the lane failed: {ours!r}"
    ours = comparable(ours)
    shuts = len(steps) > 1 and steps[-1][0] == "eof"
    hurries = shuts and steps[-2][0] not in {"loop", "wait"}
    theirs: dict[tuple[bytes, bool], None] = {}
    for other_steps in others(rig, steps):
        other, other_closed = rig.play(rig.without, other_steps)
        other = comparable(other)
        if (ours, closed) == (other, other_closed):
            return None
        if shuts and closed and other_closed and (ours.startswith(other) or (hurries and other.startswith(ours))):
            return None
        theirs[other, other_closed] = None
    found = "\n".join(f"  {sent!r}, closed: {shut}" for sent, shut in theirs)
    return f"the lane sent\n  {ours!r}, closed: {closed}\naiohttp sent one of\n{found}"


def others(rig: Rig, steps: list[Step]) -> Iterator[list[Step]]:
    """The same bytes cut as they are, then in other ways, also by a client that reads."""
    yield steps
    whole = b"".join(data for _, data in steps)
    ends = rig.ends(whole)
    reading = [step for step in steps if step[0] not in {"stall", "read"}]
    shut = [step for step in steps if step[0] == "eof"]
    for again in (steps, reading, [("data", whole), ("loop", b""), *shut]):
        for count in range(len(ends) + 1):
            yield cut_at(again, ends[:count])


def shrunk(rig: Rig, steps: list[Step]) -> list[Step]:
    """A smaller case that still differs."""

    def candidates(steps: list[Step]) -> Iterator[list[Step]]:
        for index, (kind, data) in enumerate(steps):
            yield steps[:index] + steps[index + 1 :]
            if kind == "data" and index + 1 < len(steps) and steps[index + 1][0] == "data":
                yield [*steps[:index], ("data", data + steps[index + 1][1]), *steps[index + 2 :]]
            size = len(data) // 2
            while size:
                for at in range(0, len(data), size):
                    yield [*steps[:index], (kind, data[:at] + data[at + size :]), *steps[index + 1 :]]
                size //= 2

    end = time.monotonic() + SHRINKING_S
    while time.monotonic() < end:
        smaller = next((each for each in candidates(steps) if time.monotonic() < end and differs(rig, each)), None)
        if smaller is None:
            break
        steps = smaller
    return steps


def run(cases: int, seed: str, *, first: int = 0, progress: Callable[[int], None] | None = None) -> Counter[str]:
    """So many cases; how often which status was answered. Raises AssertionError with the first case that differs."""
    rig = Rig()
    statuses: Counter[str] = Counter()
    try:
        for number in range(first, first + cases):
            steps = Maker(f"{seed}-{number}").case()
            difference = differs(rig, steps)
            if difference is not None:
                small = shrunk(rig, steps)
                lines = "\n".join(f"  {step}" for step in small)
                raise AssertionError(
                    f"case {number} of seed {seed} differs; in short:\n{lines}\n{differs(rig, small)}\n"
                    f"again: python -m fuzz_endpoint --seed {seed} --only {number}"
                )
            statuses.update(rig.statuses())
            if progress is not None:
                progress(number - first + 1)
    finally:
        rig.close()
    statuses["connections on which aiohttp answered"] = rig.handed_over
    return statuses


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Differential fuzzing of the hook endpoint")
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", default=str(random.SystemRandom().randrange(2**32)))
    parser.add_argument("--only", type=int, help="the number of one case")
    options = parser.parse_args()
    if options.only is not None:
        for step in Maker(f"{options.seed}-{options.only}").case():
            print(step)
    begin = time.monotonic()

    def progress(done: int) -> None:
        if not done % 10_000:
            print(f"{done} cases, {done / (time.monotonic() - begin):.0f}/s", flush=True)

    cases, first = (options.cases, 0) if options.only is None else (1, options.only)
    print(f"seed {options.seed}", flush=True)
    try:
        counts = run(cases, options.seed, first=first, progress=progress)
    except AssertionError as error:
        print(error)
        return 1
    print(f"{cases} cases without a difference in {time.monotonic() - begin:.0f} s: {dict(counts)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
