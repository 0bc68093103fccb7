"""``--log-decisions``: what a sidecar at somebody's desk says of each decision."""

from __future__ import annotations

import json

import pytest

from hookline_api.hooks import Hook
from hookline_sidecar.hooks.decision_log import DecisionLog
from waiting import until

GUARD = {"pre_query": {"action": "block", "value": "no"}, "authenticate": {"action": "denied", "message": "no"}}


def decisions(sidecar):
    """Those that its log has."""
    lines = [line for line in sidecar.log.splitlines() if line.startswith('{"hookline.decision"')]
    return [json.loads(line)["hookline.decision"] for line in lines]


async def ask(sidecar, path, body):
    """One call, whatever is answered."""
    async with sidecar.client() as session, session.post(path, json=body) as answer:
        return await answer.json()


@pytest.mark.parametrize("what", [None, "decisions", "inputs"])
async def test_each_decision_is_a_line_where_that_is_asked_for(new_sidecar, guests, what):
    """Of a call, and of each of a batch; what was asked only with ``inputs``, and nothing at all by default."""
    sidecar = new_sidecar(log_decisions=what)
    sidecar.folder.plugin("guard", guests.configured(), config=GUARD, permissions=["config.read"])
    sidecar.start()
    told = await ask(sidecar, "/v1/hooks/pre_query", {"query": "select 'secret'"})
    call = {"hook": "pre_query", "input": {"query": "select 2"}}
    await ask(sidecar, "/v1/hooks:batch", {"calls": [call, call]})
    if what is None:
        assert decisions(sidecar) == []
        return
    until(lambda: len(decisions(sidecar)) == 3, "three decisions in the log")
    first, *rest = decisions(sidecar)
    assert (first["hook"], first["decision"]) == ("pre_query", told)
    assert first["us"] > 0
    assert ("secret" in first.get("input", "")) == (what == "inputs")
    assert len(rest) == 2


@pytest.fixture
def written(monkeypatch):
    """What is written, in place of stderr's descriptor."""
    lines = []
    monkeypatch.setattr("os.write", lambda _, line: lines.append(line))
    return lines


def test_a_line_is_bounded(written):
    """So that those of two workers do not mix: of a long decision there is its action, and its length."""
    log = DecisionLog(inputs=True)
    long = json.dumps({"action": "rewrite", "value": "x" * 10_000}).encode()
    log(Hook.PRE_QUERY, b"y" * 10_000, long, 1000)
    log(Hook.PRE_QUERY, b"\xff" * 10_000, b'{"action":"continue"}', 1000)
    first, second = (json.loads(line)["hookline.decision"] for line in written)
    assert first == {"hook": "pre_query", "us": 1, "decision": {"action": "rewrite", "cut": len(long)}}
    assert second["decision"] == {"action": "continue"}
    assert all(len(line) <= 4097 for line in written)


def test_lines_are_bounded_in_a_second(written, monkeypatch):
    """The next line says how many were left out."""
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    log = DecisionLog(inputs=False)
    for _ in range(250):
        log(Hook.ROUTE, b"{}", b'{"action":"default"}', 1000)
    assert len(written) == 200
    now = 101.0
    log(Hook.ROUTE, b"{}", b'{"action":"default"}', 1000)
    assert json.loads(written[-1])["hookline.decision"]["leftOut"] == 50
