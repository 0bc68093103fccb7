"""RESP2 is read strictly, within bounds and in one pass, however the network cuts it."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookline_runtime.host.backends import resp
from hookline_runtime.host.backends.resp import GarbageError, Parser, Refusal, packed

_TEXTS = st.from_regex(rb"[ -~]{1,20}", fullmatch=True)
_REPLIES = st.recursive(
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=40) | st.builds(Refusal, st.just("ERR"), _TEXTS),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=10,
)


def _written(reply) -> bytes:
    match reply:
        case None:
            return b"$-1\r\n"
        case int():
            return b":%d\r\n" % reply
        case bytes():
            return b"$%d\r\n%s\r\n" % (len(reply), reply)
        case Refusal():
            return b"-%s %s\r\n" % (reply.code.encode(), reply.rest)
    return b"*%d\r\n%s" % (len(reply), b"".join(map(_written, reply)))


@given(replies=st.lists(_REPLIES, max_size=5), cuts=st.lists(st.integers(0, 400), max_size=8))
def test_replies_are_the_same_wherever_the_stream_is_cut(replies, cuts):
    """Also between the two bytes of an end, and within a length."""
    stream, parser, found, at = b"".join(map(_written, replies)), Parser(), [], 0
    for end in [*sorted({min(cut, len(stream)) for cut in cuts}), len(stream)]:
        found += parser.feed(stream[at:end])
        at = end
    assert found == replies
    assert parser._rest == b""


def test_replies_come_byte_by_byte_too():
    """Every cut at once."""
    stream, parser, found = b"+OK\r\n$-1\r\n*-1\r\n*0\r\n*2\r\n$0\r\n\r\n:-5\r\n-OOM no\r\n", Parser(), []
    for byte in stream:
        found += parser.feed(bytes([byte]))
    assert found == [b"OK", None, None, [], [b"", -5], Refusal("OOM", b"no")]


@pytest.mark.parametrize(
    "stream",
    [
        b"\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 8 + b"\r\n",
        b"%1\r\n+a\r\n+b\r\n", b"_\r\n", b"#t\r\n", b">1\r\n:1\r\n",
        b":\r\n", b":1.5\r\n", b":+1\r\n", b":1 \r\n", b":" + b"1" * 30 + b"\r\n",
        b"$\r\n", b"$-2\r\n", b"$+1\r\n", b"$x\r\n", b"$1\r\nab\r\n", b"$1\r\na\n\n", b"$" + b"9" * 11 + b"\r\n",
        b"*-2\r\n", b"*x\r\n", b"*1\r\n" * (resp.MAX_DEPTH + 1), b"*%d\r\n" % (resp.MAX_ELEMENTS + 1), b"*8192\r\n" * 2,
        b"+" + b"a" * resp.MAX_LINE + b"\r\n", b"+" + b"a" * (resp.MAX_LINE + 2), b"$%d\r\n" % (resp.MAX_REPLY + 1),
        b"*2\r\n" + b"$%d\r\n%s\r\n" % (resp.MAX_REPLY, bytes(resp.MAX_REPLY)) + b"$1\r\n",
    ],
)  # fmt: skip
def test_what_is_no_resp2_or_too_much_of_it_is_garbage(stream):
    """Found before what it claims has come, whole or in two pieces."""
    for cut in (len(stream), len(stream) // 2, 1):
        parser = Parser()
        with pytest.raises(GarbageError):
            (parser.feed(stream[:cut]) and parser.feed(stream[cut:])) or parser.feed(stream[cut:])


def test_the_words_of_an_error_are_cut_off_from_its_code():
    """They may quote a password; a code that is none is called ERR."""
    [refusal, strange] = Parser().feed(b"-ERR unknown command 'AUTH', with args: 'secret'\r\n-secret word\r\n")
    assert refusal.code == strange.code == "ERR"


def _lines(run) -> int:
    """Lines of the parser that are executed."""
    count = 0

    def trace(frame, _event, _argument):
        nonlocal count
        if frame.f_code.co_filename != resp.__file__:
            return None
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("make", [
    lambda size: b"$%d\r\n%s\r\n" % (size * 64, bytes(size * 64)), lambda size: b"+a\r\n" * size,
    lambda size: b"*%d\r\n" % size + b":1\r\n" * size, lambda size: b"*1\r\n*1\r\n:1\r\n" * size,
])  # fmt: skip
def test_twice_as_much_takes_twice_as_many_steps(make):
    """In small pieces, where it is worst."""

    def steps(size: int) -> int:
        stream, parser = make(size), Parser()
        return _lines(lambda: [parser.feed(stream[at : at + 16]) for at in range(0, len(stream), 16)])

    assert steps(2000) < 2.2 * steps(1000)


def test_a_command_is_written_as_an_array_of_strings():
    """Of any bytes."""
    assert packed([b"SET", b"", b"\r\n$"]) == b"*3\r\n$3\r\nSET\r\n$0\r\n\r\n$3\r\n\r\n$\r\n"
    assert Parser().feed(packed([b"a", b"b"])) == [[b"a", b"b"]]
