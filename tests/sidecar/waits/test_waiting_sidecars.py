"""A whole sidecar whose plugin asks a server: others do not wait for it, and nothing of a call outlives its client."""

from __future__ import annotations

import asyncio
import json
import os
import signal

import pytest
from aiohttp import web

from local_ports import reserve_port
from sidecars import decide
from waiting import until_true

_REQUEST = 16384
"""Where the request stands in the guest's memory."""


class Server:
    """Whom the plugin asks. It holds each request until it is let go."""

    def __init__(self):
        self.port = reserve_port()
        self.open = 0
        self.left = 0
        self.go = asyncio.Event()

    async def answer(self, _):
        """A request, once it may go."""
        self.open += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.left += 1
            raise
        finally:
            self.open -= 1
        return web.json_response("ok")

    async def until(self, count):
        """Wait until so many are open."""
        await until_true(lambda: self.open == count, lambda: f"{count} requests; there are {self.open}")


@pytest.fixture
async def server():
    """Whom the plugin asks."""
    made = Server()
    app = web.Application()
    app.router.add_post("/", made.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", made.port).start()
    yield made
    made.go.set()
    await runner.cleanup()


@pytest.fixture
def asking(new_sidecar, guests, server):
    """A sidecar with a plugin that fetches, and one that does not."""
    request = json.dumps({"method": "POST", "url": f"http://127.0.0.1:{server.port}/"}).encode()
    module = guests.module(
        {"custom_hook": f"(call $fetch (i32.const {_REQUEST}) (i32.const {len(request)}))"},
        imports='(import "hookline" "http_fetch" (func $fetch (param i32 i32) (result i64)))',
        data={_REQUEST: request},
    )
    sidecar = new_sidecar(workers=1, drain="3s")
    sidecar.folder.plugin(
        "asks",
        module,
        permissions=["http.fetch"],
        egress=[{"scheme": "http", "host": "127.0.0.1", "port": server.port, "methods": ["POST"]}],
        limits={"wait": "60s", "concurrency": 64, "memory": "1Mi"},
    )
    sidecar.folder.plugin("guard", guests.answering(pre_query={"action": "block", "value": "no"}))
    sidecar.start()
    yield sidecar
    sidecar.end()


def _metric(sidecar, start):
    lines = [line for line in sidecar.get("/metrics")[1].splitlines() if line.startswith(start)]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


async def test_other_calls_are_answered_while_one_waits(asking, server):
    """On the same worker; the time that it waited is in the metrics, under the function's name."""
    calls = [asyncio.create_task(asking.ask()) for _ in range(20)]
    await server.until(20)
    async with asking.client() as session:
        for _ in range(50):
            assert (await decide(session, "pre_query", {"query": "select 1"}))["value"] == "no"
    server.go.set()
    for call in calls:
        assert json.loads((await call)["value"]["body"]) == "ok"
    count = 'hookline_host_call_seconds_count{function="http_fetch",plugin="asks"}'
    await until_true(lambda: _metric(asking, count) == 20, "the calls in the metrics")


@pytest.mark.parametrize("chunked", [False, True], ids=["lane", "server"])
async def test_a_client_that_leaves_takes_its_question_along(asking, server, chunked):
    """Whoever reads the connection: the request to the server ends, and the call is counted apart."""
    head = b"Transfer-Encoding: chunked\r\n\r\n1\r\n0\r\n0\r\n\r\n" if chunked else b"Content-Length: 1\r\n\r\n0"
    for number in range(1, 4):
        connection = asking.connect()
        connection.sendall(
            b"POST /v1/hooks/custom_hook HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + head
        )
        await server.until(1)
        connection.close()
        await until_true(lambda n=number: server.left == n and not server.open, "the end of what it asked")
    counted = 'hookline_plugin_cancelled_total{hook="custom_hook",plugin="asks"}'
    await until_true(lambda: _metric(asking, counted) == 3, "three dropped calls")
    assert not _metric(asking, 'hookline_plugin_failures_total{cause="timeout",hook="custom_hook",plugin="asks"}')
    server.go.set()
    assert (await asking.ask())["value"]["status"] == 200


async def test_calls_that_wait_at_the_end_are_answered_by_policy(asking, server):
    """SIGTERM: within --drain each client has an answer, which is the plugin's closed one."""
    calls = [asyncio.create_task(asking.ask()) for _ in range(5)]
    await server.until(5)
    ended = asyncio.create_task(asyncio.to_thread(asking.stop))
    answers = await asyncio.gather(*calls)
    assert {answer["failure"] for answer in answers} == {"timeout"}
    assert await ended == 0


async def test_calls_that_end_in_time_end_well_at_the_end(asking, server):
    """What is answered while the sidecar drains is answered as ever."""
    call = asyncio.create_task(asking.ask())
    await server.until(1)
    ended = asyncio.create_task(asyncio.to_thread(asking.stop))
    await until_true(lambda: "asks" not in (asking.looks("/readyz") or (0, ""))[1], "the beginning of the end")
    server.go.set()
    assert (await call)["value"]["status"] == 200
    assert await ended == 0


async def test_calls_that_wait_do_not_notice_that_the_supervisor_is_replaced(asking, server):
    """They belong to the worker, which goes on."""
    calls = [asyncio.create_task(asking.ask()) for _ in range(5)]
    await server.until(5)
    old = asking.supervisor
    os.kill(old, signal.SIGKILL)
    await until_true(lambda: asking.supervisor not in {old, None}, "another supervisor")
    server.go.set()
    answers = [await call for call in calls]
    assert [each["value"].get("status") for each in answers] == [200] * 5, answers


async def test_calls_that_wait_while_the_plugin_changes_end_with_the_version_that_they_began_with(
    asking, server, guests
):
    """No call is lost: the old version's question is answered to the old version."""
    calls = [asyncio.create_task(asking.ask()) for _ in range(5)]
    await server.until(5)
    old = asking.get("/v1/bundle")[1]["version"]
    asking.folder.plugin("asks", guests.saying("new"))
    await until_true(lambda: asking.get("/v1/bundle")[1]["version"] != old, "the new bundle")
    assert await asking.says() == "new"
    server.go.set()
    answers = [await call for call in calls]
    assert [each["value"].get("status") for each in answers] == [200] * 5, answers
