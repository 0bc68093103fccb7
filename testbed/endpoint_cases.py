"""Cases for ``fuzz_endpoint``: requests, good and bad, cut anywhere, and what happens between the pieces."""

from __future__ import annotations

import itertools
import json
import random
from typing import Final

from endpoint_rig import MAX_BODY, Step


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
    b'{"query": "select 1", "normalized": "select $1", "tables": ["t"], "is_read_only": true, ' + ID + b"}",
    b'{"query": "later", ' + ID + b"}",
    b'{"query": "", "key": "k", "value": "AQI=", "headers": {"x-request-id": "r-1"}, "event": {}, ' + ID + b"}",
    b'[{"query": "a", ' + ID + b'}, {"success": true}]',
]
BODIES: Final = [
    *GOOD * 3, b"", b"{}", b"[]", b"null", b"nonsense", b'{"query": 1}', b'{"query": "\xff"}', b'{"query": "later"',
    b'{"query": "a"}', b'{"query": "a", "normalized": null, "tables": [], ' + ID + b"}",
    b'{"query": "a", "query": "b"}', b'{"query": "a", "more": {"n": 1, "\\u006e": 2}}', b'{"query": "\\ud800"}',
    b"[" * 300 + b"]" * 300,
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
    b"X-Original-URL: https://h/a?b", b"X-Original-URL: https://h?/a", b"X-Original-Url: /a,/b", b"X-Rewrite-Url: /b",
    b"X-Envoy-Original-Path: /a", b"X-Forwarded-For: [::1]:80", b"X-Real-IP: unknown", b"X-Forwarded-Uri: /%c0%ae/a",
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
