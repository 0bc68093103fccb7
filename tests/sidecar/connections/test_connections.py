"""Connections to a real sidecar: kept alive, filled, cut up, left half open, and there when it shuts down."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import socket
import time
from pathlib import Path

import pytest

from waiting import PATIENCE_S as DEADLINE


@pytest.fixture(scope="module")
def sidecar(new_sidecar, guests):
    """One plugin that is quick, and one that takes a while."""
    sidecar = new_sidecar()
    sidecar.folder.plugin("guard", guests.configured(), config={"pre_query": {"action": "block", "value": "no"}})
    sidecar.folder.plugin("slow", guests.busy(40_000_000), limits={"timeout": "60s"})
    return sidecar.start()


def request(number=0, *, hook="pre_query", pad=0, extra=()):
    """A call's bytes."""
    body = json.dumps({"query": "x" * pad, "hook_context": {"request_id": f"r-{number}"}}).encode()
    lines = [f"POST /v1/hooks/{hook} HTTP/1.1", "Host: x", *extra, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


class Client:
    """A connection that reads answers one by one."""

    def __init__(self, sidecar, *, unix=False):
        if unix:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(str(sidecar.socket))
        else:
            self.socket = sidecar.connect()
        self.socket.settimeout(DEADLINE)
        self._received = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        """Send it all."""
        self.socket.sendall(data)

    def answer(self):
        """Status and body of the next answer; None where the connection was closed instead."""
        while True:
            head, found, rest = self._received.partition(b"\r\n\r\n")
            if found:
                length = next(
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length")
                )
                if len(rest) >= length:
                    self._received = rest[length:]
                    return int(head.split()[1]), json.loads(rest[:length])
            more = self.socket.recv(65536)
            if not more:
                assert not self._received
                return None
            self._received += more

    def ids(self, count):
        """The request ids of the next answers."""
        return [self.answer()[1]["request_id"] for _ in range(count)]


@pytest.fixture(scope="module")
def impatient(new_sidecar):
    """A sidecar that waits for a body no longer than a moment."""
    return new_sidecar(body_timeout="500ms").start()


@pytest.fixture(params=[False, True], ids=["tcp", "unix socket"])
def client(sidecar, request):
    """A connection."""
    with Client(sidecar, unix=request.param) as made:
        yield made


def test_a_connection_takes_call_after_call(client):
    """Kept alive, with or without the header that asks for it."""
    for number in range(50):
        client.send(request(number, extra=["Connection: keep-alive"] * (number % 2)))
        assert client.ids(1) == [f"r-{number}"]


def test_pipelined_calls_are_answered_in_order(client):
    """More of them than are answered in one turn, in one packet."""
    client.send(b"".join(map(request, range(500))))
    assert client.ids(500) == [f"r-{number}" for number in range(500)]


def test_calls_that_have_to_be_waited_for_keep_their_place(client):
    """Quick ones behind a slow one in the same packet are answered after it."""
    slow = request(1, hook="custom_hook")
    client.send(request(0) + slow + request(2) + request(3))
    assert client.ids(4) == ["r-0", "r-1", "r-2", "r-3"]


def test_a_call_may_be_cut_anywhere(client):
    """Each place once, on one connection."""
    data = request()
    for cut in range(1, len(data)):
        client.send(data[:cut])
        client.send(data[cut:])
        assert client.answer()[0] == 200


def test_calls_may_be_glued_together_anywhere(client):
    """The end of one call comes with the beginning of the next."""
    data = request(0) + request(1)
    middle = len(request(0))
    for cut in range(1, middle):
        client.send(data[:cut])
        client.send(data[cut : middle + cut])
        assert client.ids(1) == ["r-0"]
        client.send(data[middle + cut :])
        assert client.ids(1) == ["r-1"]


def test_large_and_odd_requests_come_between_small_calls(client):
    """Whoever answers each of them, the connection goes on, and the order holds."""
    for _ in range(3):
        client.send(request(0) + request(1, pad=100_000) + request(2))
        assert client.ids(3) == ["r-0", "r-1", "r-2"]
        client.send(request(3) + b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n" + request(4))
        assert client.ids(1) == ["r-3"]
        assert client.answer()[0] == 404
        assert client.ids(1) == ["r-4"]
    body = b'{"query": ""}'
    chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    client.send(
        b"POST /v1/hooks/pre_query HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk + request(6)
    )
    assert client.answer()[0] == 200
    assert client.ids(1) == ["r-6"]


def test_a_client_that_asks_for_the_end_gets_it(client):
    """``Connection: close``."""
    client.send(request(extra=["Connection: close"]))
    assert client.answer()[0] == 200
    assert client.answer() is None


@pytest.mark.parametrize("hook", ["pre_query", "custom_hook", "rewrite"])
def test_a_client_that_shut_its_sending_side_gets_its_answer(client, hook):
    """Also where a plugin has to be waited for; then the connection ends."""
    client.send(request(7, hook=hook))
    client.socket.shutdown(socket.SHUT_WR)
    assert client.ids(1) == ["r-7"]
    assert client.answer() is None


def test_a_slow_head_and_a_slow_body_are_waited_for(sidecar, client):
    """Longer than the lane waits."""
    data = request()
    for cut in (10, data.index(b"\r\n\r\n") + 8):
        client.send(data[:cut])
        assert asyncio.run(sidecar.ask("pre_query", {"query": ""}))["action"] == "block"
        client.socket.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.answer()
        client.socket.settimeout(DEADLINE)
        client.send(data[cut:])
        assert client.answer()[0] == 200


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix socket"])
def test_a_body_is_waited_for_no_longer_than_its_time(impatient, unix):
    """``--body-timeout``; then the connection ends, a good call before it or not."""
    for before in (b"", request()):
        with Client(impatient, unix=unix) as client:
            client.send(before + request()[:-1])
            assert not before or client.answer()[0] == 200
            assert client.answer()[0] == 408
            assert client.answer() is None


def test_a_client_that_never_reads_costs_a_bounded_amount_of_memory(sidecar):
    """It sends until nobody takes it any more. The others do not notice."""
    (worker,) = sidecar.workers
    call = request()
    with Client(sidecar) as greedy:
        before = _resident(worker)
        greedy.socket.settimeout(0.5)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 200_000_000:
                sent += greedy.socket.send(call * 500)
        assert sent < 200_000_000
        assert _resident(worker) - before < 16 * 2**20
        assert asyncio.run(sidecar.ask("pre_query", {"query": ""}))["action"] == "block"


def test_many_idle_connections_are_cheap(sidecar):
    """Some kilobytes each: they have no handler of aiohttp's, also after calls."""
    count = 1000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4 * count:
        pytest.skip("this machine's hard limit of open files is too low to try")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4 * count), hard))
    (worker,) = sidecar.workers
    before = _resident(worker)
    with contextlib.ExitStack() as all_of_them:
        all_of_them.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(count):
            each = all_of_them.enter_context(Client(sidecar, unix=True))
            each.send(request())
            assert each.answer()[0] == 200
        assert _resident(worker) - before < count * 12 * 1024


def test_a_shutdown_answers_what_is_under_way_and_closes_what_is_idle(new_sidecar, guests):
    """The slow call is answered, its connection and an idle one are closed, and the sidecar ends well."""
    sidecar = new_sidecar(drain="10m")
    sidecar.folder.plugin("slow", guests.patient(), permissions=["kv.read"], limits={"timeout": "60s"})
    sidecar.start()
    with Client(sidecar) as busy, Client(sidecar) as idle, Client(sidecar) as half:
        idle.send(request())
        assert idle.answer()[0] == 200
        half.send(request()[:-3])
        before = sidecar.used()
        busy.send(request(1, hook="custom_hook"))
        asyncio.run(sidecar.wait_busy(before))
        sidecar.stop(wait=False)
        assert idle.answer() is None
        sidecar.let_go("slow")
        status, body = busy.answer()
        assert (status, body["action"]) == (200, "answered")
        assert busy.answer() is None
        assert half.answer()[0] in {408, 503}
        assert sidecar.process.wait(DEADLINE) == 0


@pytest.mark.parametrize("extra", [(), ("X-Twice: 1", "X-Twice: 2")], ids=["lane", "aiohttp"])
def test_an_answer_that_is_being_read_at_a_shutdown_arrives_whole(new_sidecar, guests, extra):
    """It is more than the socket takes at once, and its client is not the quickest."""
    sidecar = new_sidecar(drain="10m")
    large = {"action": "block", "value": "x" * 900_000}
    sidecar.folder.plugin("guard", guests.configured(), config={"pre_query": large})
    sidecar.start()
    with Client(sidecar, unix=True) as slow, Client(sidecar) as idle:
        idle.send(request(hook="custom_hook"))
        assert idle.answer()[0] == 200
        slow.send(request(extra=extra))
        assert slow.socket.recv(1, socket.MSG_PEEK)
        sidecar.stop(wait=False)
        assert idle.answer() is None
        time.sleep(1)  # what the client does meanwhile
        status, body = slow.answer()
        assert (status, body["value"]) == (200, large["value"])
        assert slow.answer() is None
        assert sidecar.process.wait(DEADLINE) == 0


@pytest.mark.parametrize("extra", [(), ("X-Twice: 1", "X-Twice: 2")], ids=["lane", "aiohttp"])
def test_a_client_that_does_not_read_spoils_no_shutdown(new_sidecar, guests, extra):
    """The worker ends by itself once its time is over, and nobody has to kill it."""
    sidecar = new_sidecar(drain="6s")
    sidecar.folder.plugin(
        "guard", guests.configured(), config={"pre_query": {"action": "block", "value": "x" * 900_000}}
    )
    sidecar.start()
    with Client(sidecar, unix=True) as deaf:
        deaf.send(request(extra=extra))
        assert deaf.socket.recv(1, socket.MSG_PEEK)
        assert sidecar.stop() == 0
        assert "killed" not in sidecar.log


def _resident(pid):
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
