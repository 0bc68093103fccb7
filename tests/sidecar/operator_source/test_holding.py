"""A bundle that is held is prepared, and runs when the operator says so or its deadline has come."""

from __future__ import annotations

import os
import signal

from operator_reports import BLOCK, CHANGES, metric, reasons, states
from waiting import PATIENCE_S


async def test_a_held_bundle_is_prepared_and_runs_when_told(sidecar, operator, guests, reported, load):
    """What runs goes on answering until then; no call fails."""
    first = operator.send(operator.entry("p", guests.saying("one")))
    sidecar.start(workers=2)
    reported(running=first, ready=True)
    async with load(sidecar) as calls:
        second = operator.send(operator.entry("p", guests.saying("two")), hold=True)
        assert states(reported(prepared=second, running=first)) == {"p": "Updating"}
        await calls.reaches(50)
        assert {answer["value"] for answer in calls.answers} == {"one"}
        operator.commit("another")
        await calls.reaches(50)
        assert {answer["value"] for answer in calls.answers} == {"one"}
        operator.commit(second)
        assert states(reported(prepared=None, running=second)) == {"p": "Running"}
        await sidecar.wait_says("two")
    assert calls.failures == []


async def test_a_held_bundle_runs_at_its_deadline(sidecar, operator, guests, eventually):
    """Also with the operator gone by then."""
    operator.send(operator.entry("p", guests.saying("one")))
    sidecar.start()
    version = operator.send(operator.entry("p", guests.saying("two")), hold=True, deadline=5000)
    # On a machine that has too much to do the deadline may come first, and that is no less than what is promised.
    eventually(lambda: version in {operator.last.prepared, operator.last.running}, "a prepared bundle")
    operator.stop()
    await sidecar.wait_says("two")


async def test_a_newer_bundle_replaces_a_held_one(sidecar, operator, guests, reported):
    """Whose commit then means nothing."""
    operator.send(operator.entry("p", guests.saying("one")))
    sidecar.start()
    second = operator.send(operator.entry("p", guests.saying("two")), hold=True)
    reported(prepared=second)
    third = operator.send(operator.entry("p", guests.saying("three")), hold=True)
    reported(prepared=third)
    operator.commit(second)
    operator.commit(third)
    reported(running=third, prepared=None)
    assert await sidecar.says() == "three"


async def test_a_held_bundle_can_be_taken_back(sidecar, operator, guests, reported):
    """By the one that runs: nothing changes for anybody."""
    entry = operator.entry("p", guests.saying("one"))
    first = operator.send(entry)
    sidecar.start()
    reported(running=first)
    changes = metric(sidecar, CHANGES)
    reported(prepared=operator.send(operator.entry("p", guests.saying("two")), hold=True))
    operator.send(entry, hold=True)
    reported(prepared=None, running=first)
    assert await sidecar.says() == "one"
    assert metric(sidecar, CHANGES) == changes


async def test_a_commit_that_comes_first_is_remembered(sidecar, operator, guests, reported):
    """The module was not there yet."""
    operator.send(operator.entry("p", guests.saying("one")))
    sidecar.start()
    entry = operator.entry("p", guests.saying("two"))
    operator.faults[entry.artifact.sha256] = ["hang"]
    version = operator.send(entry, hold=True)
    assert operator.hung.wait(PATIENCE_S)
    operator.commit(version)
    assert await sidecar.says() == "one"
    operator.release()
    reported(running=version)
    assert await sidecar.says() == "two"


async def test_what_changes_nothing_runs_at_once_although_held(sidecar, operator, guests, reported):
    """The operator need not wait for who has nothing to do."""
    entry = operator.entry("p", guests.saying("one"), generation=1)
    version = operator.send(entry)
    sidecar.start()
    reported(running=version)
    operator.reports.clear()
    operator.send(entry.model_copy(update={"generation": 2}), hold=True)
    operator.drop()
    reported(running=version, prepared=None)


async def test_what_fails_here_does_not_keep_the_rest_from_being_prepared(sidecar, operator, guests, reported):
    """The report says prepared, and which plugin failed; on commit the rest switches, that one runs as it was."""
    guard = guests.answering(pre_query=BLOCK)
    operator.send(operator.entry("a", guests.saying("a1")), operator.entry("b", guard, hooks=["pre_query"]))
    sidecar.start()
    a, b = operator.entry("a", guests.saying("a2")), operator.entry("b", guests.configured(), hooks=["pre_query"])
    operator.faults[b.artifact.sha256] = [404]
    version = operator.send(a, b, hold=True)
    report = reported(prepared=version)
    assert states(report) == {"a": "Updating", "b": "LastGood"}
    assert "404" in report.plugins[1].failure.message
    operator.commit(version)
    report = reported(running=version)
    assert states(report) == {"a": "Running", "b": "LastGood"}
    assert await sidecar.says() == "a2"


async def test_what_no_worker_can_load_does_not_keep_the_rest_from_being_prepared(sidecar, operator, guests, reported):
    """It compiles, and traps when it is instantiated: that is found while the bundle is held."""
    a, b = operator.entry("a", guests.saying("a1"), priority=1), operator.entry("b", guests.saying("b1"))
    operator.send(a, b)
    sidecar.start(workers=2)
    boom = guests.module({"custom_hook": guests.echo}, parts="(func $boom unreachable) (start $boom)")
    version = operator.send(operator.entry("a", guests.saying("a2"), priority=1), operator.entry("b", boom), hold=True)
    report = reported(prepared=version)
    assert states(report) == {"a": "Updating", "b": "LastGood"}
    assert report.plugins[1].failure.cause == "verify"
    assert await sidecar.says() == "a1"
    operator.commit(version)
    assert states(reported(running=version)) == {"a": "Running", "b": "LastGood"}
    assert await sidecar.says() == "a2"


async def test_a_worker_that_dies_while_a_bundle_is_held_comes_back(sidecar, operator, guests, reported, eventually):
    """It runs what the others run, prepares what they hold, and switches with them."""
    first = operator.send(operator.entry("p", guests.saying("one")))
    sidecar.start(workers=2)
    second = operator.send(operator.entry("p", guests.saying("two")), hold=True)
    reported(prepared=second, running=first)
    before = sidecar.workers
    assert len(before) == 2
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: len(set(sidecar.workers) - set(before)) == 2, "two new workers")
    assert await sidecar.says() == "one"
    reported(prepared=second, running=first, ready=True)
    operator.commit(second)
    reported(running=second)
    for _ in range(20):
        assert await sidecar.says() == "two"
    assert sidecar.log.count("ended by signal 9") == 2


async def test_a_supervisor_that_dies_while_a_bundle_is_held_holds_it_again(
    sidecar, operator, guests, reported, eventually
):
    """The workers go on meanwhile."""
    first = operator.send(operator.entry("p", guests.saying("one")))
    sidecar.start()
    second = operator.send(operator.entry("p", guests.saying("two")), hold=True)
    reported(prepared=second, running=first)
    before = sidecar.supervisor
    operator.reports.clear()
    os.kill(before, signal.SIGKILL)
    assert await sidecar.says() == "one"
    eventually(lambda: sidecar.supervisor not in {None, before}, "a new supervisor")
    eventually(lambda: any(report.prepared is None for report in operator.reports), "the new one's first word")
    reported(prepared=second, running=first)
    operator.commit(second)
    reported(running=second)
    assert await sidecar.says() == "two"


async def test_a_first_bundle_that_is_held_is_not_ready(sidecar, operator, guests, reported):
    """Nothing is answered before it may run."""
    version = operator.send(operator.entry("p", guests.saying("one")), hold=True)
    sidecar.start(wait=False)
    reported(prepared=version, running=None, ready=False)
    assert "holds" in reasons(sidecar)
    operator.commit(version)
    reported(running=version, ready=True)
    assert await sidecar.says() == "one"


async def test_a_plugin_that_is_slow_to_come_holds_up_no_other(sidecar, operator, guests, reported, eventually):
    """But the version is claimed only when it is known how all of it ended."""
    first = operator.send(
        operator.entry("a", guests.saying("a1"), priority=1), operator.entry("b", guests.saying("b1"))
    )
    sidecar.start()
    reported(running=first)
    a, b = operator.entry("a", guests.saying("a2"), priority=1), operator.entry("b", guests.saying("b2"))
    operator.faults[b.artifact.sha256] = ["hang"]
    second = operator.send(a, b)
    await sidecar.wait_says("a2")
    eventually(lambda: states(operator.last) == {"a": "Running", "b": "Updating"}, "one of two")
    assert operator.last.running not in {first, second}
    operator.release()
    assert states(reported(running=second)) == {"a": "Running", "b": "Running"}


async def test_at_the_deadline_what_is_there_runs(sidecar, operator, guests, reported):
    """Although one plugin has not come: it is as it was."""
    operator.send(operator.entry("a", guests.saying("a1"), priority=1), operator.entry("b", guests.saying("b1")))
    sidecar.start()
    a, b = operator.entry("a", guests.saying("a2"), priority=1), operator.entry("b", guests.saying("b2"))
    operator.faults[b.artifact.sha256] = ["hang"]
    version = operator.send(a, b, hold=True, deadline=1000)
    await sidecar.wait_says("a2")
    assert operator.last.prepared is None
    operator.release()
    reported(running=version)
