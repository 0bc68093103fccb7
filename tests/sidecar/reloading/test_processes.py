"""Supervisor and workers: whoever dies is replaced, and the hooks go on."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys

import aiohttp
import pytest

from waiting import PATIENCE_S, until_true


async def test_a_worker_that_is_killed_is_replaced_and_its_statistics_are_kept(sidecar, guests, load, eventually):
    """Under load: the other worker goes on, only calls on the dead one's connections are lost."""
    sidecar.folder.plugin("p", guests.saying("on"))
    sidecar.start(workers=2)
    first = sidecar.workers
    assert len(first) == 2
    async with load(sidecar, clients=8, reconnect=True) as running:
        await running.reaches(200)
        os.kill(first[0], signal.SIGKILL)
        await running.reaches(200)
        eventually(lambda: len(sidecar.workers) == 2 and first[0] not in sidecar.workers, "another worker")
        eventually(lambda: sidecar.get("/v1/plugins")[1]["workers"]["current"] == 2, "it runs the bundle")
        await running.reaches(200)
    assert len(running.failures) <= 8
    answered = len(running.answers)
    calls = sidecar.plugin("p")["stats"]["custom_hook"]["calls"]
    assert answered <= calls <= answered + len(running.failures)
    sidecar.logs(f"(process {first[0]}) ended by signal 9")
    assert "Traceback" not in sidecar.log


async def test_a_supervisor_that_is_killed_is_not_missed(sidecar, guests, load, eventually):
    """Hooks go on, the admin port comes back, and so do the next change and every figure."""
    sidecar.folder.plugin("a", guests.saying("one"), hooks=["custom_hook"])
    sidecar.start()
    sidecar.folder.plugin("b", guests.answering(pre_query={"action": "block", "value": "b"}))
    sidecar.wait_plugin("b", state="Running")
    sidecar.folder.plugin("0-first-by-name", guests.answering(route={"action": "primary"}))
    sidecar.wait_plugin("0-first-by-name", state="Running")
    worker, supervisor = sidecar.workers, sidecar.supervisor
    async with load(sidecar) as running:
        await running.reaches(100)
        os.kill(supervisor, signal.SIGKILL)
        eventually(lambda: sidecar.supervisor not in {supervisor, None}, "another supervisor")
        eventually(lambda: sidecar.get("/v1/plugins")[1]["workers"]["current"] == 1, "a worker that is known")
        await running.reaches(100)
        sidecar.folder.plugin("a", guests.saying("two"), hooks=["custom_hook"])
        await sidecar.wait_says("two")
    assert not running.failures
    assert sidecar.workers == worker
    await sidecar.ask("pre_query", {"query": ""})
    plugins = sidecar.plugins()
    assert plugins["a"]["stats"]["custom_hook"]["calls"] >= len(running.answers)
    assert plugins["b"]["stats"]["pre_query"]["calls"] == 1
    assert plugins["0-first-by-name"]["stats"] == {}


async def test_a_stop_lets_calls_under_way_end(sidecar, guests, all_gone):
    """SIGTERM: a slow call is answered, new connections are refused, the socket's file goes, the code is 0."""
    sidecar.folder.plugin("slow", guests.patient(), permissions=["kv.read"], limits={"timeout": "60s"})
    sidecar.start(drain="10m")
    family = sidecar.pids
    before = sidecar.used()
    async with sidecar.client() as session, sidecar.client(unix=True) as other:
        calls = [asyncio.create_task(each.post("/v1/hooks/custom_hook", json={"n": 1})) for each in (session, other)]
        await sidecar.wait_busy(before, 2)
        sidecar.stop(wait=False)
        await until_refused(sidecar)
        assert not sidecar.socket.exists()
        assert sidecar.get("/readyz")[0] == 503
        sidecar.let_go("slow")
        for call in calls:
            response = await call
            assert (response.status, (await response.json())["value"]) == (200, {"n": 1})
    assert sidecar.process.wait(PATIENCE_S) == 0
    assert all_gone(family)
    assert "Traceback" not in sidecar.log
    assert sidecar.log.count("stopping") == 1


async def until_refused(sidecar):
    """Return when a new connection is refused."""

    def refused():
        try:
            sidecar.connect().close()
        except ConnectionRefusedError:
            return True
        return False

    await until_true(refused, "a refused connection")


async def test_a_call_on_an_open_connection_during_a_stop_is_a_503(sidecar, guests):
    """The proxy may ask elsewhere; the connection is closed behind the answer, or before it."""
    sidecar.folder.plugin("slow", guests.patient(), permissions=["kv.read"], limits={"timeout": "60s"})
    sidecar.start(drain="10m")
    async with sidecar.client() as session:
        async with session.post("/v1/hooks/pre_query", json={"query": ""}) as response:
            assert response.status == 200
        before = sidecar.used()
        call = asyncio.create_task(session.post("/v1/hooks/custom_hook", json=1))
        await sidecar.wait_busy(before)
        half = sidecar.connect()
        half.sendall(b"POST /v1/hooks/custom_hook HTTP/1.1\r\nHost: x\r\n")
        sidecar.stop(wait=False)
        await until_refused(sidecar)
        sidecar.let_go("slow")
        assert (await call).status == 200
        half.close()
    assert sidecar.process.wait(PATIENCE_S) == 0


async def test_a_call_that_does_not_end_does_not_hold_up_a_stop(sidecar, guests):
    """Longer than ``--drain`` nobody waits."""
    sidecar.folder.plugin("slow", guests.module({"custom_hook": guests.forever}), limits={"timeout": "60s"})
    sidecar.start(drain="500ms")
    before = sidecar.used()
    async with sidecar.client() as session:
        call = asyncio.create_task(session.post("/v1/hooks/custom_hook", json=1))
        await sidecar.wait_busy(before)
        assert sidecar.stop() == 0
        with pytest.raises(aiohttp.ClientError):
            await call
    sidecar.logs("did not end within 0.5 s")


@pytest.mark.parametrize("what", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_of_an_idle_sidecar_is_clean(sidecar, guests, what):
    """Also Ctrl-C: exit code 0, nobody has to be waited for or killed, nothing in the log but what was asked for."""
    sidecar.folder.plugin("p", guests.saying("on"))
    sidecar.start(workers=2, drain="60s")
    sidecar.process.send_signal(what)
    assert sidecar.process.wait(PATIENCE_S) == 0
    assert "WARNING" not in sidecar.log.partition("stopping")[2]
    assert "ERROR" not in sidecar.log


def test_the_children_go_with_their_parent(sidecar, eventually, all_gone):
    """Killed with no chance to say so, it leaves no half of a sidecar that holds the ports."""
    sidecar.start(workers=2)
    family = sidecar.pids
    assert len(family) == 3
    sidecar.process.kill()
    sidecar.process.wait()
    eventually(lambda: all_gone(family), "an end of the children")
    sidecar.start()


async def test_a_hangup_reads_again_and_tries_again(sidecar, guests, eventually):
    """SIGHUP, also to the whole group as a closing terminal sends it: nobody ends, what failed is tried now."""
    sidecar.folder.plugin("p", guests.saying("one"))
    sidecar.start()
    family = sidecar.pids
    for pid in (*family, sidecar.process.pid):
        os.kill(pid, signal.SIGHUP)
    eventually(lambda: "SIGHUP" in sidecar.log, "a word about it")
    assert sidecar.pids == family
    sidecar.folder.plugin("q", source={"configMap": {"name": "later"}})
    sidecar.wait_plugin("q", state="LeftOut", failure=bool)
    os.kill(sidecar.process.pid, signal.SIGHUP)
    sidecar.wait_plugin("q", state="LeftOut", failure=bool)
    assert await sidecar.says() == "one"
    assert sidecar.pids == family


async def test_a_worker_that_keeps_dying_is_started_with_pauses(sidecar, guests, eventually):
    """And hooks are answered again when it stops dying."""
    sidecar.folder.plugin("p", guests.saying("alive"))
    sidecar.start()
    for _ in range(3):
        (worker,) = eventually(lambda: sidecar.workers, "a worker")
        os.kill(worker, signal.SIGKILL)
        eventually(lambda old=worker: sidecar.workers not in ([], [old]), "another worker")
    sidecar.wait_ready()
    await sidecar.wait_says("alive")
    assert sidecar.log.count("ended by signal 9") == 3


async def test_many_open_connections_are_more_than_a_shells_soft_limit(sidecar, guests):
    """A proxy may keep one for each of its clients: the soft limit of open files is raised to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = len(os.listdir("/proc/self/fd")) + 100  # noqa: PTH208 - a moment, and no loop to hold up
    if hard < 4 * few:
        pytest.skip("this machine's hard limit of open files is too low to try")
    sidecar.folder.plugin("p", guests.saying("alive"))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))  # the sidecar inherits it, and none of our files
        sidecar.start()
        resource.setrlimit(resource.RLIMIT_NOFILE, (4 * few, hard))
        idle = [sidecar.connect() for _ in range(few + 100)]
        assert await sidecar.says() == "alive"
        for each in idle:
            each.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_supervisor_leaves_the_processor_to_hooks_from_its_beginning():
    """One that is started again imports its part first, which takes a second of a busy machine."""
    script = (
        "import asyncio, os, sys\n"
        "from hookline_sidecar import parent\n"
        "os.nice = lambda by: sys.exit('hookline_sidecar.control.supervisor' in sys.modules)\n"
        "asyncio.run(parent._supervise(None, None, [], None, None))\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_a_sidecar_that_ends_while_its_supervisor_starts_ends_in_order(sidecar, eventually):
    """A signal that comes before the supervisor listens for it waits, and kills nobody."""
    sidecar.start()
    supervisor = sidecar.supervisor
    os.kill(supervisor, signal.SIGKILL)
    eventually(lambda: sidecar.supervisor not in {supervisor, None}, "another supervisor")
    assert sidecar.stop() == 0
    assert "signal 10" not in sidecar.log
