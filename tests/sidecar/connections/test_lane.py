"""The lane by itself, on connections without sockets: who gets which bytes, and what is kept of them."""

from __future__ import annotations

import asyncio
import gc

import pytest

import endpoint_rig
from hookline_sidecar.hooks import batch

BODY = b'{"query": "select 1", "hook_context": {"request_id": "r-1"}}'
LATER = BODY.replace(b"select 1", b"later")


def request(body=BODY, *, path=b"/v1/hooks/pre_query", method=b"POST", extra=b""):
    """A request's bytes."""
    return b"%b %b HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n%b" % (method, path, extra, len(body), body)


@pytest.fixture
def rig():
    """The lane and the server; the lane's bounds are small."""
    made = endpoint_rig.Rig()
    yield made
    made.close()


@pytest.fixture
def line(rig):
    """A connection to the lane."""
    return rig.connect()


def answers(line):
    """How many there were."""
    return line.sent.count(b"HTTP/1.1 ")


def by_aiohttp(rig):
    """How many requests aiohttp was given."""
    return rig.with_lane.requests_count


@pytest.mark.parametrize(
    "extra", [b"", b"Connection: keep-alive\r\n", b"content-type: Application/JSON\r\n", b"X-Any: a b\r\n"]
)
@pytest.mark.parametrize("path", [b"/v1/hooks/pre_query", b"/v1/hooks/PreQuery", b"/v1/hooks:batch", b"/v1/auth/a?b"])
def test_what_proxies_send_never_reaches_aiohttp(rig, line, extra, path):
    """However the packets are cut, and whether or not a plugin has to be waited for."""
    body = b'{"calls": []}' if path.endswith(b"batch") else BODY
    data = request(body, path=path, extra=extra)
    for cut in range(0, len(data), 7):
        line.client_sends(data[:cut])
        line.client_sends(data[cut:])
    line.client_sends(request(LATER))
    rig.loop.wait(0.01)
    assert answers(line) == len(range(0, len(data), 7)) + 1
    assert by_aiohttp(rig) == 0
    assert not rig.with_lane.connections


@pytest.mark.parametrize(
    ("other", "cut"),
    [
        (request(path=b"/nowhere"), 40),
        (request(method=b"PUT"), 40),
        (request(extra=b"Content-Type: a/b\r\n"), 40),
        (request(b"", method=b"HEAD", path=b"/v1/auth"), 20),
        (request(b" " * 2000), 100),
    ],
    ids=["404", "405", "415", "HEAD", "larger than what is held"],
)
def test_the_lane_goes_on_after_a_request_that_was_aiohttps(rig, line, other, cut):
    """It gets that one request, in two pieces, and what follows it is answered on the connection again."""
    line.client_sends(request() + other[:cut])
    rig.loop.settle()
    assert answers(line) == 1
    line.client_sends(other[cut:])
    rig.loop.settle()
    line.client_sends(request() * 2)
    rig.loop.settle()
    assert answers(line) == 4
    assert by_aiohttp(rig) == 1


@pytest.mark.parametrize(
    "odd",
    [
        b"Expect: 100-continue\r\n", b"Transfer-Encoding: chunked\r\n", b"X: \xff\r\n", b"X : y\r\n", b"Host: x\r\n",
        b"Content-Length: 5\r\n", b"X: y\n", b" folded\r\n", b"Upgrade: h2c\r\n", b"X: \0\r\n",
        b"Connection: close\r\n", b"X: 1\r\nx: 2\r\n",
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_in_doubt_is_aiohttps_with_all_that_follows(rig, line, odd):
    """Never two opinions on where a request ends."""
    line.client_sends(request() + request(extra=odd) + request())
    rig.loop.wait(10)
    assert line.sent.count(b'"action"') >= 1
    assert by_aiohttp(rig) >= 1
    protocol = line._protocol
    assert protocol._for_good


def test_a_client_that_does_not_read_is_not_read_from(rig, line):
    """What it sends stays in its own socket; when it reads, everything is answered, in order."""
    line.client_stalls(stalled=True)
    calls = [request(BODY.replace(b"r-1", b"r-%d" % number)) for number in range(300)]
    for call in calls:
        line.client_sends(call)
        rig.loop.settle()
    assert not line._reading
    assert len(line._protocol._held) < 1000
    assert len(line.sent) < 5000
    line.client_stalls(stalled=False)
    rig.loop.settle()
    assert answers(line) == 300
    assert [line.sent.find(b'"r-%d"' % number) for number in range(300)] == sorted(
        line.sent.find(b'"r-%d"' % number) for number in range(300)
    )
    assert by_aiohttp(rig) == 0


def test_others_get_their_turn_while_one_connection_has_many_calls(rig, line):
    """A packet full of calls is answered in turns, and another connection's call comes in between."""
    other = rig.connect()
    line.client_sends(request() * 100)
    assert 0 < answers(line) < 100
    other.client_sends(request())
    assert answers(other) == 1
    rig.loop.settle()
    assert answers(line) == 100


def test_an_unfinished_request_is_aiohttps_after_a_moment(rig, line):
    """Which has the time-outs: the body that never comes is a 408."""
    line.client_sends(request()[:-5])
    rig.loop.settle()
    assert by_aiohttp(rig) == 0
    rig.loop.wait(0.1)
    assert by_aiohttp(rig) == 1
    rig.loop.wait(endpoint_rig.BODY_TIMEOUT)
    assert b" 408 " in line.sent
    rig.loop.wait(1)
    assert line.closed


@pytest.mark.parametrize("body", [BODY, LATER])
def test_a_client_that_only_shut_its_sending_side_gets_its_answers(rig, line, body):
    """As ``nc -N`` does; then the connection is closed."""
    line.client_sends(request(body) * 7)
    line.client_sends(None)
    rig.loop.wait(0.1)
    assert answers(line) == 7
    assert line.closed


def test_the_memo_of_heads_is_bounded(rig, line):
    """A client that never sends the same head twice fills nothing."""
    for number in range(1000):
        line.client_sends(request(extra=b"X-Trace: %d\r\n" % number))
    rig.loop.settle()
    assert answers(line) == 1000
    assert len(line._protocol._shared.known) <= endpoint_rig.lanes._MAX_KNOWN


@pytest.mark.parametrize(
    ("method", "path"),
    [(b"GET", b"/v1/auth"), (b"HEAD", b"/v1/auth"), (b"GET", b"/v1/auth/.a"), (b"GET", b"/v1/%61uth"), (b"PUT", b"/a")],
)
def test_credentials_are_not_kept(rig, line, method, path):
    """Heads of questions hold what clients sent, whoever answers them."""
    line.client_sends(request(b"", method=method, path=path, extra=b"Authorization: Basic c2VjcmV0\r\n"))
    rig.loop.settle()
    assert answers(line) == 1
    assert not line._protocol._shared.known


def test_a_connection_that_is_silent_for_hours_is_closed(rig, line):
    """Also one that aiohttp answered once."""
    other = rig.connect()
    other.client_sends(request(path=b"/nowhere") + request())
    rig.loop.settle()
    other.client_sends(request())
    line.client_sends(request())
    rig.loop.wait(3000)
    assert not line.closed
    rig.loop.wait(3 * 3600)
    assert line.closed
    assert other.closed
    assert not line._protocol._shared.connections


@pytest.mark.parametrize("sent", [b"POST /v1/ho", b"POST /v1/hooks/pre_query HTTP/1.1\r\nHost: x\r\n"])
def test_a_head_that_never_ends_is_waited_for_a_moment(rig, line, sent):
    """Five seconds. It is aiohttp's for good by then, and a request before it makes no difference."""
    other = rig.connect()
    other.client_sends(request() + sent)
    line.client_sends(sent)
    rig.loop.wait(4)
    assert line._protocol._for_good
    line.client_sends(b"x")
    assert not line.closed
    assert not other.closed
    rig.loop.wait(2)
    assert line.closed
    assert other.closed
    assert not line._protocol._shared.connections
    assert rig.with_lane.closed == {"head": 2}


def test_a_connection_that_never_asks_is_kept_for_a_moment(rig, line):
    """One that has asked once is kept for hours."""
    other = rig.connect()
    other.client_sends(request())
    rig.loop.wait(6)
    assert line.closed
    assert not other.closed


def test_a_call_that_takes_its_time_is_no_head_that_does_not_end(rig, line, monkeypatch):
    """On the lane and on the server, the first on its connection or a later one, with the next one behind it."""

    async def slowly(answer, _):
        await asyncio.sleep(20)
        return answer

    monkeypatch.setattr(endpoint_rig, "_slowly", slowly)
    other = rig.connect()
    line.client_sends(request(LATER) + request(LATER) + request())
    other.client_sends(request(LATER, extra=b"X-Twice: 1\r\nX-Twice: 2\r\n") + request())
    rig.loop.wait(100)
    assert (answers(line), answers(other)) == (3, 2)
    assert not line.closed
    assert not other.closed


def test_too_many_that_never_asked_make_room_and_one_that_has_asked_stays(rig, line):
    """The oldest goes first."""
    line.client_sends(request())
    others = [rig.connect() for _ in range(2100)]
    rig.loop.settle()
    assert [each.closed for each in others] == [True] * 52 + [False] * 2048
    assert not line.closed
    assert rig.with_lane.closed == {"crowd": 52}


def test_too_many_in_all_make_room_too(rig, line):
    """Of those that have asked, one that has been silent goes."""
    line.client_sends(request())
    for _ in range(5000):
        rig.connect().client_sends(request())
    line.client_sends(request())
    rig.loop.settle()
    assert len(line._protocol._shared.connections) <= 4096
    assert rig.with_lane.closed["full"] == 5001 - 4096


@pytest.mark.parametrize("extra", [b"", b"X-Twice: 1\r\nX-Twice: 2\r\n"], ids=["lane", "aiohttp"])
def test_a_client_that_never_reads_its_answer_is_waited_for_a_minute(rig, line, extra):
    """On the lane and on the server."""
    line.client_stalls(stalled=True)
    line.client_sends(request(extra=extra) * 300)
    rig.loop.wait(50)
    assert not line.closed
    rig.loop.wait(15)
    assert line.closed
    assert rig.with_lane.closed == {"unread": 1}


def test_a_connection_that_ends_before_aiohttp_began_is_not_logged(rig, line, caplog):
    """A client could fill the log."""
    line.client_sends(b"\x16\x03\x01\r\n\r\n")
    line.closed = True
    line._protocol.connection_lost(ConnectionResetError())
    rig.loop.settle()
    gc.collect()
    assert not caplog.records


def test_a_client_that_is_gone_before_it_is_told_to_continue_is_not_logged(rig, line, caplog):
    """It is not a defect of ours."""
    line.client_sends(request(extra=b"Expect: 100-continue\r\n")[: -len(BODY)])
    line.closed = True
    rig.loop.settle()
    assert by_aiohttp(rig) == 1
    assert not caplog.records


def test_without_aiohttps_attribute_connections_are_handed_over_for_good(rig, line, monkeypatch):
    """Another version of it costs speed, and nothing else."""
    monkeypatch.setattr(endpoint_rig.lane, "_CAN_TAKE_BACK", False)
    line.client_sends(request() + request(path=b"/nowhere") + request())
    rig.loop.settle()
    assert answers(line) == 3
    assert by_aiohttp(rig) == 2


def test_a_batch_lets_other_calls_go_first(rig, line, monkeypatch):
    """After its turn, which is none here: a single call that came later is answered before it."""
    monkeypatch.setattr(batch, "_TURN_NS", 0)
    other = rig.connect()
    line.client_sends(
        request(b'{"calls": [%b]}' % b",".join([b'{"hook": "route", "input": %b}' % BODY] * 9), path=b"/v1/hooks:batch")
    )
    assert not line.sent
    other.client_sends(request())
    assert answers(other) == 1
    rig.loop.settle()
    assert line.sent.count(b'"action"') == 9
