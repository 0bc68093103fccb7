"""A plugin that must see everything: on every way in the answer waits for room, also where the client goes away."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hookline_api.bundle import Bundle, BundleArtifact, BundlePlugin
from hookline_api.hooks import Hook
from hookline_runtime.guest.engine import compile_to
from hookline_runtime.plugin.backlog import MAX_BACKLOG
from hookline_runtime.plugin.stats import Summary
from hookline_runtime.runtime import Runtime
from hookline_sidecar.hooks.endpoint import Answering, Endpoint
from hookline_sidecar.settings import Settings
from waiting import until_true

_METRICS = b'{"event": {}}'
_BATCH = b'{"calls": [%s]}' % b", ".join([b'{"hook": "metrics", "input": {"event": {}}}'] * 3)


def _post(path, body, *, more=b""):
    head = b"POST %s HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n"
    return head % (path, len(body), more) + body


WAYS = {
    "a hook": (_post(b"/v1/hooks/metrics", _METRICS), 1, 1),
    "pipelined": (_post(b"/v1/hooks/metrics", _METRICS) * 3, 3, 3),
    "a batch": (_post(b"/v1/hooks:batch", _BATCH), 1, 3),
    "a subrequest": (b"GET /v1/auth HTTP/1.1\r\nHost: h\r\nX-Original-Uri: /a\r\n\r\n", 1, 2),
    # What the lane leaves to aiohttp.
    "chunked": (
        b"POST /v1/hooks/metrics HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 1, 1,
    ),
}  # fmt: skip
"""The request, how many answers it has, and how many calls are observed. By way of the lane, and without it."""


class Watched:
    """An endpoint with one plugin in shadow, whose calls are held until ``go``."""

    def __init__(self, runtime, server):
        self.runtime = runtime
        self.server = server
        self.go = asyncio.Event()
        self.seen = []
        self.backlog = runtime.plugins["watch"].backlog
        run = self.backlog._run

        async def held(hook, data):
            await self.go.wait()
            await run(hook, data)
            self.seen.append(hook)

        self.backlog._run = held

    async def fill(self):
        """Let one call be under way, and as many wait as may."""
        while isinstance(self.runtime.answer(Hook.METRICS, _METRICS), bytes):
            pass
        await _turns()
        assert isinstance(self.runtime.answer(Hook.METRICS, _METRICS), bytes)
        assert not isinstance(self.runtime.answer(Hook.METRICS, _METRICS), bytes)
        return MAX_BACKLOG + 1

    async def connect(self):
        """A connection of a client."""
        return await asyncio.open_connection(*self.server.sockets[0].getsockname())

    def counted(self, hook=Hook.METRICS):
        """The statistics of a hook."""
        return Summary.of([self.runtime._stats.row(0, hook).values()])


@pytest.fixture
async def watched(guests, tmp_path):
    """Makes one."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(*, lane, overflow="Wait"):
            hooks = ("metrics", "authenticate", "authorize")
            wasm = guests.module(dict.fromkeys(hooks, "(i64.const 0)"))
            compiled, digest = tmp_path / "watch.cwasm", hashlib.sha256(wasm).hexdigest()
            compile_to(wasm, compiled, fuel=False)
            artifact = BundleArtifact(
                digest=f"sha256:{digest}", sha256=digest, size=len(wasm), layout="file", reference="w"
            )
            entry = BundlePlugin(
                name="watch", artifact=artifact, hooks=[Hook(name) for name in hooks], mode="Shadow",
                observers={"overflow": overflow},
            )  # fmt: skip
            runtime = Runtime()
            await runtime.load(Bundle.of([entry]), lambda _: compiled)
            settings = Settings(
                plugins=Path(), operator=None, state=Path(), listen=None, socket=None, socket_mode=0,
                socket_group=None, health=None, admin=("", 0), admin_token=None, workers=1,
                max_body=2**20, body_timeout=10, drain=10,
            )  # fmt: skip
            made = Endpoint(Answering(runtime), settings, lane=lane).server(lambda: None)
            server = await asyncio.get_running_loop().create_server(made, "127.0.0.1", 0)
            watched = Watched(runtime, server)

            async def end():
                watched.go.set()
                server.close()
                made.pre_shutdown()
                await made.shutdown(10)
                await runtime.close()

            stack.push_async_callback(end)
            return watched

        yield make


async def _turns():
    for _ in range(10):
        await asyncio.sleep(0)


async def _until(condition):
    """Let others go on until it is so."""
    await until_true(condition, "what this test waits for", pause=0.001)


async def _answers(reader, count):
    """Read so many answers whole; their bodies, and the statuses in front of them."""
    found = []
    for _ in range(count):
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].split()[0]) if b"content-length:" in head else 0
        found.append((head.split()[1], await reader.readexactly(length)))
    return found


@pytest.mark.parametrize("lane", [True, False], ids=["lane", "aiohttp"])
@pytest.mark.parametrize("way", WAYS)
async def test_the_answer_waits_for_room_and_every_call_is_observed(watched, way, lane):
    """Nothing of it comes before there is room, and then all of it."""
    request, answers, calls = WAYS[way]
    it = await watched(lane=lane)
    before = await it.fill()
    reader, writer = await it.connect()
    writer.write(request)
    await _until(lambda: it.backlog._waiting)
    await _turns()
    assert len(it.backlog._waiting) == 1
    assert not reader._buffer
    it.go.set()
    found = await _answers(reader, answers)
    assert {status for status, _ in found} == ({b"401"} if way == "a subrequest" else {b"200"})
    if way == "a batch":
        assert [each["action"] for each in json.loads(found[0][1])["decisions"]] == ["accepted"] * 3
    await it.runtime.drained()
    assert len(it.seen) == before + calls
    hooks = [Hook.METRICS, Hook.AUTHENTICATE, Hook.AUTHORIZE]
    assert sum(it.counted(hook).waited for hook in hooks) >= 1
    assert sum(it.counted(hook).dropped for hook in hooks) == 0
    writer.close()


@pytest.mark.parametrize("lane", [True, False], ids=["lane", "aiohttp"])
@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_client_that_goes_away_ends_the_waiting_and_its_calls_are_recorded(watched, way, how, lane):
    """Nothing waits on its behalf, nothing is left of it, and none of its calls is lost unsaid."""
    request, _, calls = WAYS[way]
    it = await watched(lane=lane)
    before, tasks = await it.fill(), len(asyncio.all_tasks())
    for _ in range(3):
        _, writer = await it.connect()
        writer.write(request)
        await _until(lambda: it.backlog._waiting)
        if how == "close":
            writer.close()
        else:
            writer.transport.abort()
        await _until(lambda: not it.backlog._waiting)
    await _until(lambda: len(asyncio.all_tasks()) <= tasks)
    it.go.set()
    await it.runtime.drained()
    hooks = [Hook.METRICS, Hook.AUTHENTICATE, Hook.AUTHORIZE]
    assert sum(it.counted(hook).dropped for hook in hooks) == 0
    # What a pipelining client had sent behind the call that waited may be gone with the connection.
    least = 3 if way == "pipelined" else 3 * calls
    assert before + least <= len(it.seen) <= before + 3 * calls


@pytest.mark.parametrize("lane", [True, False], ids=["lane", "aiohttp"])
async def test_clients_that_come_and_go_leave_no_more_behind_than_the_bound(watched, lane):
    """Twice the backlog is kept; beyond it each call is dropped and counted."""
    it = await watched(lane=lane)
    before = await it.fill()
    goners = 400
    for _ in range(goners):
        _, writer = await it.connect()
        writer.write(_post(b"/v1/hooks:batch", _BATCH))
        await _until(lambda: it.backlog._waiting)
        writer.transport.abort()
        await _until(lambda: not it.backlog._waiting)
    await _until(lambda: it.counted().dropped == 3 * goners - MAX_BACKLOG)
    assert len(it.backlog._calls) == 2 * MAX_BACKLOG
    it.go.set()
    await it.runtime.drained()
    assert len(it.seen) + it.counted().dropped == before + 3 * goners


async def test_by_default_nobody_waits(watched):
    """On no way in: the call is dropped and counted, and its answer is there at once."""
    it = await watched(lane=True, overflow="Drop")
    for _ in range(MAX_BACKLOG):
        it.runtime.answer(Hook.METRICS, _METRICS)
    await _turns()
    it.runtime.answer(Hook.METRICS, _METRICS)
    for request, answers, _ in WAYS.values():
        reader, writer = await it.connect()
        writer.write(request)
        await _answers(reader, answers)
        writer.close()
    hooks = [Hook.METRICS, Hook.AUTHENTICATE, Hook.AUTHORIZE]
    assert sum(it.counted(hook).dropped for hook in hooks) == sum(calls for _, _, calls in WAYS.values())
    assert sum(it.counted(hook).waited for hook in hooks) == 0


EXAMPLES = Path(__file__).parents[3] / "examples"
_STATEMENT = json.dumps(
    [{"query": "select 1", "hook_context": {"identity": "ann"}}, {"success": True, "elapsed_us": 1}]
).encode()


@pytest.fixture(scope="module")
def audit_log(tmp_path_factory):
    """The example, built from its source."""
    out = tmp_path_factory.mktemp("built")
    subprocess.run([sys.executable, EXAMPLES / "build.py", "--out", out, "--only", "audit-log"], check=True)
    return (out / "audit-log.wasm").read_bytes()


async def test_a_sidecar_that_shuts_down_runs_what_it_was_to_observe(new_sidecar, audit_log):
    """The answers are there, and most of the records are still to be written when it is told to go."""
    sidecar = new_sidecar(workers=1, drain="300s")
    spec = yaml.safe_load((EXAMPLES / "plugins" / "audit-log" / "wasmplugin.yaml").read_text())["spec"]
    sidecar.folder.plugin("audit-log", audit_log, **spec | {"source": None, "observers": {"overflow": "Wait"}})
    sidecar.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", sidecar.port)
    writer.write(_post(b"/v1/hooks/post_query", _STATEMENT) * 1000)
    await _answers(reader, 1000)
    sidecar.stop(wait=False)
    writer.close()
    assert await asyncio.to_thread(sidecar.process.wait, 300) == 0
    sidecar.start()
    assert (await sidecar.ask("custom_hook", {"verify": True}))["value"]["newest"] == 1000


@pytest.mark.parametrize("overflow", ["Wait", "Drop"])
async def test_an_audit_log_has_every_statement_or_says_how_many_it_lacks(new_sidecar, audit_log, overflow, eventually):
    """Three thousand statements on three connections, as fast as they go, to two workers."""
    sidecar = new_sidecar(workers=2)
    spec = yaml.safe_load((EXAMPLES / "plugins" / "audit-log" / "wasmplugin.yaml").read_text())["spec"]
    sidecar.folder.plugin("audit-log", audit_log, **spec | {"source": None, "observers": {"overflow": overflow}})
    sidecar.start()

    async def client():
        reader, writer = await asyncio.open_connection("127.0.0.1", sidecar.port)
        for _ in range(10):
            writer.write(_post(b"/v1/hooks/post_query", _STATEMENT) * 100)
            assert {status for status, _ in await _answers(reader, 100)} == {b"200"}
        writer.close()

    await asyncio.gather(*(client() for _ in range(3)))

    def stats():
        found = sidecar.plugin("audit-log")["stats"]["post_query"]
        return found if found["calls"] == 3000 else None

    counted = eventually(stats, "the end of all calls")
    verified = (await sidecar.ask("custom_hook", {"verify": True}))["value"]
    assert verified["intact"]
    assert verified["newest"] + counted["dropped"] == 3000
    assert counted["failures"] == {"trap": 0, "timeout": 0, "result": 0, "overload": counted["dropped"], "store": 0}
    assert overflow == "Drop" or counted["dropped"] == 0
    assert overflow == "Wait" or counted["waited"] == 0
    total = sum(
        float(line.split()[-1])
        for line in sidecar.get("/metrics")[1].splitlines()
        if line.startswith("hookline_observers_dropped_total{")
    )
    assert total == counted["dropped"]
