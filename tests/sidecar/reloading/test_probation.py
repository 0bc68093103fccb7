"""A new version that fails goes back by itself, and nobody who asks has noticed; one that is sound proves itself."""

from __future__ import annotations

import json
import os
import signal
import stat
from pathlib import Path

import pytest

from hookline_api.resources import Probation
from hookline_runtime.host.kv import MAX_KEYS, KvStore
from waiting import until_true

_SLOW = {"timeout": "20ms"}


def _allow(reason):
    return {"action": "allow", "reason": reason}


@pytest.fixture
def versions(guests):
    """A good version, and one that begins to fail with the calls whose first byte is ``{``: all of them."""

    class Versions:
        good = guests.answering(authorize=_allow("one"))
        better = guests.answering(authorize=_allow("two"))
        trap = guests.module({"authorize": guests.trap})
        loop = guests.module({"authorize": guests.forever})
        nonsense = guests.module({"authorize": "(i64.const 4398046511112)"})
        large = guests.module({
            # Traps where the input is longer than 60 bytes, and has no opinion else.
            "authorize": "(if (i32.gt_u (local.get $n) (i32.const 60)) (then unreachable)) (i64.const 0)"
        })  # fmt: skip

    return Versions


@pytest.fixture(params=[1, 2], ids=["one worker", "two workers"])
def workers(request):
    """How many."""
    return request.param


_BODY = {"query": "select 1"}
_LONG = {"query": "select '" + "x" * 100 + "'"}


async def _back(sidecar):
    """The plugin once it has gone back, while others ask."""
    return await until_true(
        lambda: (found := sidecar.plugin("p")) and found["rolled_back"] and found["state"] == "LastGood" and found,
        "a plugin that has gone back",
    )


def _failed(answers):
    return [each for each in answers if "failure" in each or each["action"] == "deny"]


@pytest.mark.parametrize("kind", ["trap", "loop", "nonsense"])
async def test_a_version_that_fails_on_each_call_goes_back_and_no_call_is_lost(sidecar, load, versions, workers, kind):
    """Under load: not one refused call; what it went back from is told, and the version before is the very one."""
    sidecar.folder.plugin("p", versions.good, limits=_SLOW)
    sidecar.start(workers=workers)
    before = sidecar.wait_plugin("p", state="Running")["revision"]
    async with load(sidecar, hook="authorize", body=_BODY) as running:
        await running.reaches(50)
        sidecar.folder.write("p.wasm", getattr(versions, kind))
        found = await _back(sidecar)
        await running.reaches(100)
    assert running.failures == []
    assert _failed(running.answers) == []
    assert {each["reason"] for each in running.answers} == {"one"}
    assert found["revision"] == before
    told = found["rolled_back"]
    cause = {"trap": "trap", "loop": "timeout", "nonsense": "result"}[kind]
    assert told["cause"] == cause
    assert told["failures"] >= 5
    said = found["failure"]["message"]
    assert found["failure"]["cause"] == "verify"
    assert said.startswith(f"revision {told['revision']} failed {told['failures']} of its first {told['calls']} calls")
    assert f"({cause}: {told['message']}); the version before it goes on" in said
    assert not found["probation"]


async def test_it_stays_back_over_a_restart_and_a_sighup_until_something_else_is_wanted(sidecar, versions):
    """Also where a supervisor is killed; another version is tried, and the same one only after that."""
    sidecar.folder.plugin("p", versions.good)
    sidecar.start()
    sidecar.wait_plugin("p", state="Running")
    sidecar.folder.write("p.wasm", versions.trap)
    for _ in range(8):
        await sidecar.ask("authorize", _BODY)
    told = await _until_back(sidecar)
    kept = sidecar.state / "probation.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    sidecar.stop()
    sidecar.start()
    assert sidecar.wait_plugin("p", rolled_back=bool)["rolled_back"] == told
    assert (await sidecar.ask("authorize", _BODY))["reason"] == "one"
    os.kill(sidecar.supervisor, signal.SIGHUP)
    os.kill(sidecar.supervisor, signal.SIGKILL)
    assert sidecar.wait_plugin("p", rolled_back=bool)["rolled_back"] == told
    sidecar.folder.plugin("p", priority=7)  # not what is refused, and yet the same module
    sidecar.wait_plugin("p", rolled_back=None, priority=7, state="Running")
    await _until_back(sidecar)
    sidecar.folder.write("p.wasm", versions.better)
    sidecar.wait_plugin("p", rolled_back=None, state="Running")
    assert (await sidecar.ask("authorize", _BODY))["reason"] == "two"


async def _until_back(sidecar):
    """Ask until the plugin has gone back; what is told of it."""
    async with sidecar.client() as session:
        while not (sidecar.plugin("p") or {}).get("rolled_back"):
            async with session.post("/v1/hooks/authorize", json=_BODY) as answer:
                decision = await answer.json()
                assert "failure" not in decision, decision
    return sidecar.plugin("p")["rolled_back"]


async def test_a_sound_version_proves_itself_and_the_one_before_it_is_given_back(
    sidecar, load, versions, workers, eventually
):
    """After as many calls as are asked for; its module is then mapped in no worker."""
    sidecar.folder.plugin("p", versions.good, rollout={"probation": {"calls": 300}})
    sidecar.start(workers=workers)
    sidecar.wait_plugin("p", state="Running")
    sidecar.wait_workers()
    sidecar.folder.write("p.wasm", versions.better)
    sidecar.wait_plugin("p", state="Running", probation=True)
    sidecar.wait_workers()
    assert all(len(_modules(pid)) == 2 for pid in sidecar.workers)
    async with load(sidecar, hook="authorize", body=_BODY) as running:
        await running.reaches(400)
    sidecar.wait_plugin("p", state="Running", probation=False, rolled_back=None)
    eventually(lambda: all(len(_modules(pid)) == 1 for pid in sidecar.workers), "workers without the version before")
    assert running.failures == []
    assert _failed(running.answers) == []
    sidecar.logs("has proven itself")


def _modules(pid):
    """The compiled modules that a process has mapped."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {line.split()[5] for line in lines if ".cwasm" in line}


async def test_its_time_ends_probation_where_nobody_asks(sidecar, versions):
    """Also with no call at all."""
    sidecar.folder.plugin("p", versions.good, rollout={"probation": {"for": "1s"}})
    sidecar.start()
    before = sidecar.wait_plugin("p", state="Running")["revision"]
    sidecar.folder.write("p.wasm", versions.better)
    sidecar.wait_plugin("p", state="Running", probation=False, revision=lambda revision: revision != before)
    sidecar.logs("is on probation")
    sidecar.logs("has proven itself (0 calls)")


async def test_without_probation_a_version_fails_as_it_always_did(sidecar, versions):
    """``calls: 0``: nothing is asked of the version before."""
    off = {"probation": {"calls": 0}}
    sidecar.folder.plugin("p", versions.good, rollout=off)
    sidecar.start()
    before = sidecar.wait_plugin("p", state="Running")["revision"]
    sidecar.folder.write("p.wasm", versions.trap)
    sidecar.wait_plugin("p", state="Running", revision=lambda revision: revision != before)
    assert (await sidecar.ask("authorize", _BODY))["failure"] == "trap"
    assert sidecar.plugin("p")["rolled_back"] is None


async def test_some_inputs_are_enough(sidecar, load, versions):
    """A version that fails on some calls only goes back too, and each of those was answered."""
    sidecar.folder.plugin("p", versions.good)
    sidecar.start()
    sidecar.wait_plugin("p", state="Running")
    async with load(sidecar, hook="authorize", body=_LONG, clients=1) as long, load(
        sidecar, hook="authorize", body=_BODY, clients=1
    ) as short:  # fmt: skip
        await long.reaches(5)
        sidecar.folder.write("p.wasm", versions.large)
        await _back(sidecar)
        await long.reaches(20)
        await short.reaches(20)
    assert _failed([*long.answers, *short.answers]) == []
    assert {each["reason"] for each in long.answers} == {"one"}


async def test_where_the_version_before_failed_too_it_does_not_go_back(sidecar, versions, guests):
    """It would be no better: the failure is told as any other, and the new version proves itself."""
    sidecar.folder.plugin("p", versions.trap, rollout={"probation": {"calls": 12}})
    sidecar.start()
    before = sidecar.wait_plugin("p", state="Running")["revision"]
    for _ in range(3):
        assert (await sidecar.ask("authorize", _BODY))["failure"] == "trap"
    sidecar.folder.write("p.wasm", guests.module({"authorize": guests.trap}, parts="(func)"))
    sidecar.wait_plugin("p", state="Running", revision=lambda revision: revision != before)
    for _ in range(15):
        assert (await sidecar.ask("authorize", _BODY))["failure"] == "trap"
    found = sidecar.wait_plugin("p", probation=False)
    assert (found["rolled_back"], found["state"]) == (None, "Running")


async def test_a_worker_that_is_replaced_meanwhile_gets_both(sidecar, versions, eventually):
    """And one that dies takes no count with it: failures are counted where all see them."""
    rule = {"probation": {"calls": 1000, "maxFailures": 1000}}
    sidecar.folder.plugin("p", versions.good, rollout=rule)
    sidecar.start()
    sidecar.wait_plugin("p", state="Running")
    sidecar.folder.write("p.wasm", versions.trap)
    sidecar.wait_plugin("p", state="Running", probation=True)
    sidecar.wait_workers()
    assert (await sidecar.ask("authorize", _BODY))["reason"] == "one"
    (old,) = sidecar.workers
    os.kill(old, signal.SIGKILL)
    eventually(lambda: sidecar.workers and sidecar.workers != [old], "another worker")
    sidecar.wait_workers()
    for _ in range(3):
        assert (await sidecar.ask("authorize", _BODY))["reason"] == "one"


async def test_a_restart_in_the_middle_loses_no_way_back(sidecar, versions):
    """Both versions are there again, and the new one goes back as it would have."""
    sidecar.folder.plugin("p", versions.good)
    sidecar.start()
    sidecar.wait_plugin("p", state="Running")
    sidecar.folder.write("p.wasm", versions.trap)
    sidecar.wait_plugin("p", state="Running", probation=True)
    assert (await sidecar.ask("authorize", _BODY))["reason"] == "one"
    sidecar.stop()
    sidecar.start()
    sidecar.wait_plugin("p", state="Running", probation=True)
    assert (await _until_back(sidecar))["cause"] == "trap"


async def test_where_there_is_no_way_back_the_new_version_goes_on_and_it_is_said_once(sidecar, versions, eventually):
    """A guest has filled its store, so that the initial keys of the version before find no room: no endless tries."""
    settings = {"permissions": ["kv.read", "kv.write"], "limits": {"timeout": "900ms"}}
    sidecar.folder.plugin("p", versions.good, kv={"initial": {"k": "1"}, "overwrite": "OnChange"}, **settings)
    sidecar.start()
    sidecar.wait_plugin("p", state="Running")
    sidecar.folder.plugin("p", versions.trap, kv={"initial": {"k": "2"}, "overwrite": "OnChange"}, **settings)
    sidecar.wait_plugin("p", state="Running", probation=True)
    store = KvStore(sidecar.state / "kv")
    store.delete("p", b"k")
    for number in range(MAX_KEYS):
        store.put("p", b"%d" % number, b"")
    store.close()
    for _ in range(6):
        await sidecar.ask("authorize", _BODY)
    eventually(lambda: "cannot go back to revision" in sidecar.log, lambda: sidecar.log)
    found = sidecar.wait_plugin("p", state="Running", probation=False)
    assert found["rolled_back"] is None
    assert (await sidecar.ask("authorize", _BODY))["failure"] == "trap"
    assert sidecar.log.count("cannot go back to revision") == 1
    assert sidecar.log.count("cannot be loaded") == 1


async def test_what_a_guest_says_is_not_told_where_it_has_secrets(sidecar, versions, guests):
    """Its answer that is not a decision is quoted in its failure, and may be the password."""
    source = {"secretRef": {"name": "s"}, "key": "k", "path": "authorize"}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "hunter2hunter2"}}
    sidecar.folder.write("secret.yaml", secret)
    spec = {"permissions": ["config.read"], "configFrom": [source]}
    sidecar.folder.plugin("p", versions.good, **spec)
    sidecar.start()
    sidecar.wait_plugin("p", state="Running")
    sidecar.folder.write("p.wasm", guests.configured())
    sidecar.folder.plugin("p", hooks=["authorize"], **spec)
    told = await _until_back(sidecar)
    assert "hunter2" not in json.dumps(sidecar.plugin("p")["rolled_back"])
    assert told["cause"] == "result"


async def test_the_operator_hears_of_it(new_sidecar, operator, versions, eventually):
    """On probation, and then what it went back from; what the operator sends then is what runs already."""
    one = operator.entry("p", versions.good, hooks=["authorize"])
    two = operator.entry("p", versions.trap, hooks=["authorize"])
    sidecar = new_sidecar(plugins=None, operator=operator.url, operator_ca=operator.ca, operator_token=operator.token)

    def said(**facts):
        def there():
            found = next(iter(operator.last.plugins), None)
            is_so = found is not None and all(fact(getattr(found, name)) for name, fact in facts.items())
            return found if is_so else None

        return eventually(there, lambda: f"a report with {list(facts)}; the last was {operator.last}")

    operator.send(one)
    sidecar.start()
    said(revision=lambda revision: revision == one.revision)
    operator.send(two)
    said(probation=bool, revision=lambda revision: revision == two.revision)
    await _until_back(sidecar)
    found = said(rolled_back=bool)
    assert (found.state, found.revision, found.probation) == ("LastGood", one.revision, False)
    assert found.rolled_back.revision == two.revision
    assert found.failure.cause == "verify"
    held = one.model_copy(update={"failure": found.failure, "probation": Probation(calls=0)})
    operator.send(held)
    found = said(rolled_back=lambda told: told is None, state=lambda state: state == "LastGood")
    assert (found.state, found.revision) == ("LastGood", one.revision)
    assert (await sidecar.ask("authorize", _BODY))["reason"] == "one"
    sidecar.end()
