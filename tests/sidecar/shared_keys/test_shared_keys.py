"""Keys that all pods share, with real sidecars: they count together, and lose nothing where the server dies."""

from __future__ import annotations

import asyncio
import json

import pytest

from sidecars import decide
from valkey import PACKAGE, PROGRAM, redis_server
from waiting import until_true

CLIENTS = 4


@pytest.fixture
def server(need, tmp_path):
    """A server that has on its disk what it has acknowledged."""
    with redis_server(need(PROGRAM, PACKAGE), tmp_path / "redis", durable=True) as started:
        yield started


def counting(new_sidecar, guests, server, **spec):
    """A pod of two workers that counts on the server; its calls fail at once where that is away."""
    sidecar = new_sidecar(workers=2)
    kv = {"scope": "Cluster", "valkey": {"url": f"redis://127.0.0.1:{server.port}", "timeout": "10s"}}
    fields = {"permissions": ["kv.write"], "limits": {"wait": "20s"}, "kv": kv, **spec}
    sidecar.folder.plugin("counter", guests.counter(), **fields)
    return sidecar.start()


def held(server):
    """What the server has counted."""
    return int(server.ask("HGET", "hookline:{/counter}:entries", "n"))


async def test_two_pods_count_together_and_lose_nothing_where_the_server_dies(new_sidecar, guests, server):
    """Each sum is answered once, by whichever worker of whichever pod; what was not acknowledged has failed."""
    pods = [counting(new_sidecar, guests, server) for _ in range(2)]
    for pod in pods:
        pod.wait_workers()
    sums, failures, going = [], [], True

    async def client(pod):
        async with pod.client() as session:
            while going:
                decision = await decide(session)
                if "failure" in decision:
                    failures.append(decision["failure"])
                    await asyncio.sleep(0.01)
                else:
                    sums.append(decision["value"])

    async with asyncio.TaskGroup() as tasks:
        for pod in pods:
            for _ in range(CLIENTS):
                tasks.create_task(client(pod))
        for _ in range(2):
            before = len(sums)
            await until_true(lambda: len(sums) > before + 200, "counts")  # noqa: B023 - asked in this turn alone
            server.kill()
            failed = len(failures)
            await until_true(lambda: len(failures) > failed + 20, "calls that fail")  # noqa: B023 - the same
            await asyncio.to_thread(server.start)
        before = len(sums)
        await until_true(lambda: len(sums) > before + 200, "counts after the last restart")
        going = False
    assert len(set(sums)) == len(sums)
    assert len(sums) <= held(server) <= len(sums) + 2 * len(pods) * CLIENTS
    assert set(failures) == {"store"}
    for pod in pods:
        assert pod.get("/readyz")[0] == 200


async def test_a_pod_counts_for_itself_where_the_policy_says_so(new_sidecar, guests, server):
    """And goes on where all are, once the server is back."""
    pod = counting(new_sidecar, guests, server, failurePolicy={"store": "PodLocal"})
    assert [await pod.says() for _ in range(3)] == [1, 2, 3]
    server.kill()
    assert [await pod.says() for _ in range(3)] == [1, 2, 3]
    server.start()

    async def goes_on() -> bool:
        return await pod.says() == held(server)

    await until_true(goes_on, "a count that goes on")
    assert held(server) == 4


async def test_a_password_that_changes_loses_no_call(new_sidecar, guests, server, load):
    """The Secret is read anew; the calls that are under way end on the connection that they began on."""

    def secret(password):
        return {
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "valkey"},
            "stringData": {"username": "own", "password": password},
        }  # fmt: skip

    server.ask("ACL", "SETUSER", "own", "on", ">first", "~hookline:*", "+@all")
    sidecar = new_sidecar(workers=2)
    sidecar.folder.write("secret.yaml", json.dumps(secret("first")))
    url = {"url": f"redis://127.0.0.1:{server.port}", "timeout": "10s"}
    login = {f"{name}From": {"name": "valkey", "key": name} for name in ("username", "password")}
    kv = {"scope": "Cluster", "valkey": url | login}
    sidecar.folder.plugin("counter", guests.counter(), permissions=["kv.write"], limits={"wait": "20s"}, kv=kv)
    sidecar.start()
    async with load(sidecar) as going:
        await going.reaches(50)
        revision = sidecar.plugin("counter")["revision"]
        server.ask("ACL", "SETUSER", "own", ">second")
        sidecar.folder.write("secret.yaml", json.dumps(secret("second")))
        await until_true(lambda: sidecar.plugin("counter")["revision"] != revision, "another revision")
        server.ask("ACL", "SETUSER", "own", "<first")
        await going.reaches(len(going.answers) + 50)
    assert going.failures == []
    assert [each for each in going.answers if "failure" in each] == []
    assert held(server) == len(going.answers)
