"""Heads beyond doubt: what is read, what is left to aiohttp, and what is remembered.

The fuzzer compares lane and server.
"""

from __future__ import annotations

import sys

import pytest

from hookline_sidecar.hooks import heads
from hookline_sidecar.hooks.heads import read_head


def head(*lines, request="GET /v1/auth HTTP/1.1", host="Host: hookline"):
    """The bytes of a head."""
    return "\r\n".join((request, host, *lines)).encode("latin-1")


def test_a_plain_head_is_read():
    """Names in lower case, values without the spaces around them."""
    found = read_head(head('X-Original-URI:  /a?b="c\\" ', "Content-Length: 12", request="POST /v1/auth?x HTTP/1.1"))
    assert (found.method, found.target, found.length) == ("POST", "/v1/auth?x", 12)
    assert found.headers == {"host": "hookline", "x-original-uri": '/a?b="c\\"', "content-length": "12"}


@pytest.mark.parametrize(
    "line",
    [
        "no colon", "", ":", ": no name", "spaced : name", " continued: line", "bare\rreturn: a", "a: bare\rreturn",
        "a: line\nfeed", "a: nul\0", "a: tab\there", "a: delete\x7f", "a: caf\xe9", "caf\xe9: a", "host: again",
        "Transfer-Encoding: chunked", "TRANSFER-ENCODING: identity", "Upgrade: h2c", "Expect: 100-continue",
        "Connection: close", "Connection: keep-alive, upgrade", "Content-Length: +1", "Content-Length: 1, 1",
        "Content-Length:", "Content-Length: 1234567890123456",
    ],
)  # fmt: skip
def test_a_doubtful_line_leaves_the_head_to_aiohttp(line):
    """Also the second time, when some of it might be remembered."""
    assert read_head(head("accept: */*")) is not None
    for _ in range(2):
        assert read_head(head("accept: */*", line)) is None


@pytest.mark.parametrize(
    "request_line",
    ["GET v1/auth HTTP/1.1", "GET /v1/auth HTTP/1.0", "TRACE / HTTP/1.1", "GET  / HTTP/1.1", "GET / HTTP/1.1 ", ""],
)
def test_a_doubtful_request_line_too(request_line):
    """The strict form only."""
    assert read_head(head(request=request_line)) is None


def test_a_head_needs_a_host_and_an_end():
    """RFC 9112, 3.2; and the bounds of what is read here."""
    assert read_head(b"GET / HTTP/1.1\r\naccept: */*") is None
    assert read_head(head("host2: a", host="Host: a b")) is None
    assert read_head(head(*(f"h{number}: a" for number in range(99)))) is not None
    assert read_head(head(*(f"h{number}: a" for number in range(100)))) is None
    assert read_head(head(f"h: {'a' * heads.MAX_HEAD}")) is None


def test_what_may_be_secret_is_not_remembered():
    """What proxies say again and again is, a client's own words are not, nor is a very long line."""
    secret, lines = "k3y-of-somebody", ["Accept: text/html", "X-Real-IP: 10.1.2.3"]
    names = ["Authorization: Bearer", "Cookie: a=", "X-API-Key:", "Proxy-Authorization: Basic", "X-Original-URI: /?t="]
    found = read_head(head(*lines, *(f"{name} {secret}" for name in names), f"User-Agent: {'a' * 300}{secret}"))
    assert sum(secret in each for each in found.headers.values()) == 6
    assert set(lines) <= heads._known_lines.keys()
    assert not any(secret in line for line in heads._known_lines)
    assert not any(secret in name for name in heads._known_names)


def test_what_is_remembered_is_bounded():
    """Whatever clients send: lines, and names."""
    for number in range(3000):
        assert read_head(head(f"User-Agent: browser {number}", f"x-{number}: a")).headers[f"x-{number}"] == "a"
    assert len(heads._known_lines) <= 1024
    assert len(heads._known_names) <= 1024
    read_head(head(f"{'n' * 100}: a"))
    assert max(map(len, heads._known_names)) <= 64


@pytest.mark.parametrize("length", [20, 100])
def test_a_clients_words_are_not_interned(length):
    """From Python 3.12 on, what is interned is there for as long as the process."""
    read = next(name for name in read_head(head(f"{'w' * length}-x: a")).headers if name != "host")
    again = "w" * length + "-x"[: len(read) - length]
    assert again == read
    assert again is not read
    assert sys.intern(again) is again
