"""Strangers who open connections and never come to an end cost a sidecar next to nothing, on any of its ports."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time

import pytest
import uvloop
from aiohttp import web

from hookline_serving import Bounds, Closed, HttpServer, census
from local_ports import reserve_port
from strangers import MANY, ask, besiege, dripping, kinds, resident, silent
from waiting import PATIENCE_S

MIB = 2**20
_HOOKS = kinds(get=b"/v1/auth", post=b"/v1/hooks/custom_hook", upgrade=b"/v1/auth")
_ADMIN = kinds(get=b"/metrics", post=b"/healthz", upgrade=b"/healthz")


@pytest.fixture(scope="module")
def sidecar(new_sidecar, guests):
    """One plugin, and a port for health."""
    sidecar = new_sidecar(health=f"127.0.0.1:{reserve_port()}")
    sidecar.folder.plugin("guard", guests.saying("on"))
    return sidecar.start()


@pytest.fixture
def until_so():
    """Waits, with the loop going on."""

    async def wait(wanted):
        async with asyncio.timeout(PATIENCE_S):
            while not wanted():  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)

    return wait


def door(sidecar, name):
    """Where a server of the sidecar is, and which process that is."""
    host, _, port = sidecar.options["health"].rpartition(":")
    return {
        "health": ((host, int(port)), sidecar.supervisor),
        "admin": (("127.0.0.1", sidecar.admin_port), sidecar.supervisor),
        "admin.sock": (sidecar.state / "admin.sock", sidecar.supervisor),
    }[name]


def closed(sidecar, port):
    """How many connections had to go, by why."""
    found = {}
    for line in sidecar.get("/metrics")[1].splitlines():
        if line.startswith(f'hookline_connections_closed_total{{port="{port}"'):
            found[line.split('reason="')[1].split('"')[0]] = int(float(line.split()[-1]))
    return found


@pytest.mark.parametrize("name", ["health", "admin", "admin.sock"])
@pytest.mark.parametrize("kind", list(_ADMIN))
async def test_the_ports_of_the_supervisor_stay_small_and_answer(sidecar, name, kind):
    """Four hundred connections of each kind, and an honest one beside them."""
    where, pid = door(sidecar, name)
    before = resident(pid)
    async with besiege(where, _ADMIN[kind]) as lines:
        async with asyncio.timeout(PATIENCE_S):
            assert await ask(where, b"/healthz") == 200
        assert len(lines) == MANY
        assert resident(pid) - before < 96 * MIB  # four hundred whole requests, as large as they may be
    assert sidecar.supervisor == pid
    assert "Traceback" not in sidecar.log


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix socket"])
@pytest.mark.parametrize("kind", list(_HOOKS))
async def test_the_hook_port_stays_small_and_answers(sidecar, unix, kind):
    """The same of a worker: what it may hold of answers that nobody reads, and as much again of what is on its way."""
    (pid,) = sidecar.workers
    before = resident(pid)
    async with besiege(sidecar.socket if unix else ("127.0.0.1", sidecar.port), _HOOKS[kind]) as lines:
        assert (await sidecar.ask("custom_hook", 1))["value"] == "on"
        assert len(lines) == MANY
        assert resident(pid) - before < 128 * MIB
    assert sidecar.workers == [pid]
    assert "Traceback" not in sidecar.log


async def test_what_was_closed_is_counted_by_why(sidecar, eventually):
    """On each port, in `/metrics`; anything but HTTP is answered, counted, and no line of the log."""
    where, _ = door(sidecar, "health")
    for port, at in {"health": where, "admin": ("127.0.0.1", sidecar.admin_port), "hooks": sidecar.socket}.items():
        before = closed(sidecar, port)
        for _ in range(20):
            reader, writer = await (
                asyncio.open_connection(*at) if isinstance(at, tuple) else asyncio.open_unix_connection(at)
            )
            writer.write(b"NONSENSE\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.0 400 ")
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        async with besiege(at, dripping, count=10):
            wanted = before["head"] + 10
            eventually(lambda p=port, n=wanted: closed(sidecar, p)["head"] >= n, "heads that were not waited for")
        assert closed(sidecar, port)["malformed"] == before["malformed"] + 20
    assert "NONSENSE" not in sidecar.log


async def test_who_has_one_connection_keeps_it_while_another_address_has_hundreds(sidecar):
    """And asks on it when it likes, before it is late."""
    where, _ = door(sidecar, "health")
    reader, writer = await asyncio.open_connection(*where, local_addr=("127.0.0.2", 0))
    async with besiege(where, silent):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def test_who_does_not_say_goodbye_is_let_go_when_there_are_too_many(sidecar, eventually):
    """Connections that asked once and are idle go, those that were idle for longest first."""
    where, _ = door(sidecar, "health")
    before = closed(sidecar, "health")
    async with besiege(where, kinds(get=b"/healthz", post=b"/", upgrade=b"/")["idle"], count=100):
        assert await ask(where, b"/readyz") == 200
        eventually(
            lambda: closed(sidecar, "health")["address"] - before["address"] >= 100 - 64, "connections that were let go"
        )


class _Silence(asyncio.Transport):
    """A connection that the server has taken, and on which nothing has come yet."""

    def __init__(self, address):
        super().__init__({"peername": (address, 1)})
        self.is_cut = False

    def get_write_buffer_size(self):
        return 0

    def abort(self):
        self.is_cut = True


@pytest.mark.parametrize("addresses", [1, 3, 250, 600])
async def test_a_probe_is_heard_before_it_is_judged(addresses, until_so):
    """Hundreds come behind it before anything that it sent is read. Then they are as few as before."""
    bounds, closed = Bounds(), Closed()
    people = census.Census(bounds, closed)
    honest = _Silence("127.0.0.1")
    probe = people.admit(honest)
    crowd = [_Silence(f"127.0.{1 + number % addresses}.1") for number in range(600)]
    for one in crowd:
        people.admit(one)
    assert not honest.is_cut
    probe.begins(asyncio.StreamReader())
    await until_so(lambda: len(people) <= bounds.unproven + 1)
    assert not honest.is_cut
    assert closed["crowd"] + closed["address"] == sum(one.is_cut for one in crowd) >= 600 - bounds.unproven
    probe.ends()
    assert not honest.is_cut
    people.end()


async def test_there_are_never_more_than_may_be_fresh():
    """Of whoever has most of them, the first goes."""
    bounds, closed = Bounds(fresh=10), Closed()
    people = census.Census(bounds, closed)
    honest = _Silence("127.0.0.1")
    people.admit(honest)
    crowd = [_Silence("127.0.0.2") for _ in range(100)]
    for one in crowd:
        people.admit(one)
    assert len(people) == 10
    assert not honest.is_cut
    assert [one.is_cut for one in crowd] == [True] * 91 + [False] * 9
    people.end()


async def test_what_is_here_and_not_answered_has_a_bound():
    """Who brings more is let go; an answer, an end, and somebody who vouches make room again."""
    people = census.Census(Bounds(arriving=1000), Closed())
    first, second, third = (people.admit(_Silence(f"127.0.0.{number}")) for number in range(3))
    assert first.arrives(400)
    assert first.arrives(600)  # in all
    assert second.arrives(400)
    assert not third.arrives(1)
    assert not third.arrives(1)
    assert people.closed["crowd"] == 1
    first.arrives(0)
    assert second.arrives(1000)
    second.leaves()
    session = people.admit(_Silence("127.0.0.9"))
    assert session.arrives(900)
    session.vouched()
    assert session.arrives(10_000)
    assert first.arrives(1000)
    people.end()


async def test_bodies_by_the_hundred_are_dropped_as_they_come(sidecar):
    """Six hundred at once, each as large as any plugin takes by default: a worker has no room for them, and goes on."""
    (pid,) = sidecar.workers
    before = resident(pid)
    body = b'{"query":"' + b"x" * 250_000 + b'"}'
    head = (
        b"POST /v1/hooks/pre_query HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    )

    async def ask():
        with contextlib.suppress(ConnectionError):
            reader, writer = await asyncio.open_connection("127.0.0.1", sidecar.port)
            try:
                writer.write(head % len(body) + body)
                await writer.drain()
                await reader.readline()
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    asking = [asyncio.create_task(ask()) for _ in range(600)]
    await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
    assert (await sidecar.ask("custom_hook", 1))["value"] == "on"
    await asyncio.gather(*asking)
    assert sidecar.workers == [pid]
    assert resident(pid) - before < 128 * MIB


@pytest.mark.parametrize("first", ["requests", "silence"])
async def test_who_asks_at_once_is_counted_as_all_are(first, until_so):
    """Whether a whole request comes with the first bytes or nothing at all, there are only so many in all."""
    bounds, closed = Bounds(every=20, of_one=20, unproven=20, unproven_of_one=20), Closed()
    people = census.Census(bounds, closed)
    for number in range(100):
        visit = people.admit(_Silence(f"127.0.0.{number}"))
        if first == "requests":
            visit.begins(asyncio.StreamReader())
            visit.ends()
    await until_so(lambda: len(people) <= 20)
    assert closed["full"] + closed["crowd"] == 80
    people.end()


async def test_few_send_requests_before_they_have_answers():
    """What waits on a connection is held; so there are few such connections, and the address with most of them pays."""
    bounds, closed = Bounds(queueing=10), Closed()
    people = census.Census(bounds, closed)
    honest, crowd = _Silence("127.0.0.1"), [_Silence("127.0.0.2") for _ in range(40)]
    for one in (honest, *crowd):
        visit = people.admit(one)
        visit.begins(asyncio.StreamReader())
        visit.queues(2)
    assert not honest.is_cut
    assert [one.is_cut for one in crowd] == [True] * 31 + [False] * 9
    assert closed == {"unread": 31}
    people.end()


def test_what_came_in_time_is_answered_though_we_stood_still(monkeypatch):
    """A deadline that ends while nothing is read is the server's fault, and not the client's."""
    monkeypatch.setattr(census, "HEAD_S", 2 * census._LOOK_S)
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"

    async def run():
        loop = asyncio.get_running_loop()

        async def answer(_):
            return web.Response(text="on")

        app = web.Application()
        app.router.add_get("/healthz", answer)
        server = HttpServer(app, Bounds(), Closed(), shutdown_timeout=0)
        where = ("127.0.0.1", reserve_port())
        await server.listen(where)

        class Busy(asyncio.Protocol):
            def data_received(self, _):
                client.send(request)
                time.sleep(4 * census._LOOK_S)  # the fault itself

        busy = await loop.create_server(Busy, "127.0.0.1", 0)
        with socket.create_connection(where) as client:
            client.settimeout(0)
            reader, writer = await asyncio.open_connection(*where)  # it is taken after the one before it
            writer.write(request)
            assert await reader.readline()
            _, other = await asyncio.open_connection(*busy.sockets[0].getsockname())
            other.write(b"on")
            async with asyncio.timeout(PATIENCE_S):
                assert (await loop.sock_recv(client, 100)).startswith(b"HTTP/1.1 200 ")
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            other.close()
            with contextlib.suppress(OSError):
                await other.wait_closed()
        busy.close()
        await server.close()

    uvloop.run(run())
