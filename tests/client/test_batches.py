"""Several calls in one request: the decisions come in order, and each call fails by itself."""

from __future__ import annotations

import json

import pytest

from hookline_api.hooks import MAX_CALLS, Hook, QueryInput
from hookline_client import HookClient, HookError, Policy, RefusedError
from waiting import PATIENCE_S as DEADLINE


@pytest.fixture(scope="module")
def sidecar(new_sidecar, guests):
    """An echo behind the custom hook, a guard that blocks, and a route."""
    sidecar = new_sidecar()
    sidecar.folder.plugin("echo", guests.module({"custom_hook": guests.echo}))
    answers = {"pre_query": {"action": "block", "value": "no"}, "route": {"action": "node", "target": "n7"}}
    sidecar.folder.plugin("decider", guests.answering(**answers))
    return sidecar.start()


async def test_a_batch_is_answered_in_order(sidecar):
    """Whatever the hooks, and in whichever form the inputs are."""
    async with HookClient(str(sidecar.socket), timeout=DEADLINE) as hooks:
        calls = [(Hook.CUSTOM, n) for n in range(30)]
        calls[10:10] = [(Hook.PRE_QUERY, QueryInput(query="q")), (Hook.ROUTE, b'{"query": "q"}'), (Hook.METRICS, {})]
        decisions = await hooks.batch(calls)
        assert [each.action for each in decisions[10:13]] == ["block", "node", "accepted"]
        assert [each.value for each in decisions[:10] + decisions[13:]] == list(range(30))
        assert decisions[10].plugin == "decider"
        assert len({each.bundle for each in decisions}) == 1
        assert hooks.calls == 33
        assert await hooks.batch([]) == []
        assert not hooks.failures


@pytest.mark.parametrize("bad", [{"query": 5}, {"query": "\ud800"}, b"{", b'"q"},{"hook":"custom_hook","input":1'])
async def test_an_input_that_is_refused_costs_the_others_nothing(sidecar, bad):
    """Not even one that would like to be two: what another client sends decides about no other call."""
    calls = [(Hook.CUSTOM, "before"), (Hook.PRE_QUERY, bad), (Hook.CUSTOM, "after")]
    async with HookClient(str(sidecar.socket), timeout=DEADLINE, policy=Policy.OPEN) as hooks:
        before, refused, after = await hooks.batch(calls)
        assert (before.value, after.value) == ("before", "after")
        assert (refused.action, refused.failure) == ("block", "refused")
        assert hooks.failures == {(Hook.PRE_QUERY, "refused", Policy.CLOSED): 1}
    async with HookClient(str(sidecar.socket), timeout=DEADLINE, policy=Policy.RAISE) as hooks:
        with pytest.raises(RefusedError):
            await hooks.batch(calls)


async def test_a_batch_that_is_too_long_is_refused_as_a_whole(sidecar):
    """None of it was processed."""
    async with HookClient(str(sidecar.socket), timeout=DEADLINE) as hooks:
        decisions = await hooks.batch([(Hook.CUSTOM, 1)] * (MAX_CALLS + 1))
        assert {each.failure for each in decisions} == {"refused"}
        assert len(decisions) == MAX_CALLS + 1


async def test_without_an_answer_each_hook_has_its_own_policy(tmp_path):
    """A guard is closed, an observer open; where one policy is to raise, the batch raises."""
    calls = [(Hook.PRE_QUERY, {"query": "q"}), (Hook.METRICS, {}), (Hook.ROUTE, {"query": "q"})]
    async with HookClient(str(tmp_path / "none.sock"), policy={Hook.ROUTE: Policy.OPEN}) as hooks:
        decisions = await hooks.batch(calls)
        assert [each.action for each in decisions] == ["block", "accepted", "default"]
        assert {each.failure for each in decisions} == {"unreachable"}
        assert hooks.failures.total() == 3
    async with HookClient(str(tmp_path / "none.sock"), policy={Hook.ROUTE: Policy.RAISE}) as hooks:
        with pytest.raises(HookError):
            await hooks.batch(calls)


_YES = {"action": "continue", "request_id": "r-1"}


@pytest.mark.parametrize(
    ("answer", "failures"),
    [
        ({"decisions": [_YES]}, ["malformed", "malformed"]),
        ({"decisions": [_YES] * 3}, ["malformed", "malformed"]),
        ({"decisions": {"0": _YES, "1": _YES}}, ["malformed", "malformed"]),
        ([_YES, _YES], ["malformed", "malformed"]),
        ({"decisions": [_YES, _YES | {"request_id": "r-2"}]}, [None, "malformed"]),
        ({"decisions": [None, _YES]}, ["malformed", None]),
        ({"decisions": [_YES, {"status": 503, "detail": "why"}]}, [None, "failed"]),
        ({"decisions": [{"status": 400, "detail": "why"}, _YES]}, ["refused", None]),
        ({"decisions": [{"status": "400"}, _YES]}, ["malformed", None]),
    ],
)
async def test_what_is_no_answer_is_told_apart_by_call(faulty, answer, failures):
    """A list that is too short or too long says nothing about any call."""

    async def behave(peer, _):
        await peer.call()
        raw = json.dumps(answer).encode()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(raw), raw))
        await peer.gone()

    async with faulty.behaving(behave), HookClient(faulty.path, timeout=DEADLINE) as hooks:
        call = (Hook.PRE_QUERY, {"query": "q", "hook_context": {"request_id": "r-1"}})
        decisions = await hooks.batch([call, call])
        assert [each.failure for each in decisions] == failures
        assert [each.refuses for each in decisions] == [failure is not None for failure in failures]
