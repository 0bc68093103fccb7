"""What a hook call may cost is bounded before it is parsed: in bytes by what its plugins take, and in values.

The memory is the worker's own highest, as the kernel saw it.
"""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import pytest

MIB = 2**20
OBJECTS = b'{"query": "", "more": [' + b"{}," * (16 * MIB // 3 - 20) + b"{}]}"
"""16 MiB that were 580 MiB of dictionaries."""
assert 15 * MIB < len(OBJECTS) <= 16 * MIB
SQL = json.dumps({"query": "insert into t values " + "('a,b:[{c', 1), " * 700_000}).encode()
"""11 MiB of brackets and commas that are one text."""


@pytest.fixture(scope="module")
def sidecar(new_sidecar, guests):
    """A guard with the default limits, one that takes large calls, and one that may be left out."""
    sidecar = new_sidecar()
    plugin = sidecar.folder.plugin
    block = {"action": "block", "value": "no"}
    plugin("guard", guests.answering(pre_query=block), hooks=["pre_query"])
    plugin("wide", guests.answering(rewrite=block), hooks=["rewrite"], limits={"input": "16Mi"})
    plugin(
        "optional",
        guests.answering(route={"action": "primary"}),
        hooks=["route"],
        failurePolicy={"overload": "Open"},
    )
    return sidecar.start()


@contextlib.contextmanager
def frugal(sidecar, most):
    """The one worker takes at most so many bytes more than it had."""
    (worker,) = sidecar.workers
    status = Path(f"/proc/{worker}/status")

    def peak():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line[:5] == "VmHWM") * 1024

    Path(f"/proc/{worker}/clear_refs").write_text("5")  # proc(5): the peak begins anew
    before = peak()
    yield
    assert sidecar.workers == [worker]
    assert peak() - before <= most


async def ask(sidecar, hook, body, *, chunks=False):
    """The status and the answer."""

    async def pieces():
        for at in range(0, len(body), MIB):
            yield body[at : at + MIB]

    async with (
        sidecar.client() as session,
        session.post(
            f"/v1/hooks{hook}",
            data=pieces() if chunks else io.BytesIO(body),
            headers={"Content-Type": "application/json"},
        ) as answer,
    ):
        return answer.status, await answer.json(content_type=None)


@pytest.mark.parametrize("chunks", [False, True])
async def test_a_call_larger_than_every_plugin_takes_is_an_overload_that_nobody_reads(sidecar, chunks):
    """It is dropped as it comes, and the plugin's policy decides, which is to refuse."""
    with frugal(sidecar, 8 * MIB):
        status, decision = await ask(sidecar, "/pre_query", OBJECTS, chunks=chunks)
    assert (status, decision["action"], decision["failure"]) == (200, "block", "overload")
    assert decision["plugin"] == "guard"
    assert decision["request_id"]
    assert f"the input has {len(OBJECTS)} bytes, and limits.input is 262144" in sidecar.settled_log()


async def test_a_plugin_that_may_be_left_out_is_left_out(sidecar):
    """Its policy for overload says so, and the overload is counted."""
    with frugal(sidecar, 8 * MIB):
        status, decision = await ask(sidecar, "/route", OBJECTS)
    assert (status, decision["action"], decision["plugin"]) == (200, "default", None)
    assert 'cause="overload"' in sidecar.get("/metrics")[1]


async def test_a_hook_without_plugins_reads_no_large_call(sidecar):
    """Nobody could say anything about it."""
    with frugal(sidecar, 8 * MIB):
        status, decision = await ask(sidecar, "/authorize", OBJECTS)
    assert (status, decision["action"]) == (200, "defer")


@pytest.mark.parametrize("hook", ["pre_query", "route", "authorize"])
async def test_a_call_of_a_batch_that_no_plugin_takes_is_not_looked_into(sidecar, hook):
    """As alone: nobody finds that its query is none, and what is beside it is answered."""
    large = b'{"query": 1, "more": "' + "\U0001f600".encode() + b"a" * 8 * MIB + b'"}'
    small = b'{"hook": "%b", "input": {"query": 1}}' % hook.encode()
    body = b'{"calls": [{"hook": "%b", "input": %b}, %b]}' % (hook.encode(), large, small)
    alone = (await ask(sidecar, f"/{hook}", large))[1]
    status, answer = await ask(sidecar, ":batch", body)
    decision, problem = answer["decisions"]
    assert (status, problem["status"]) == (200, 400)
    assert decision.pop("request_id") != alone.pop("request_id")
    assert decision == alone


@pytest.mark.parametrize("hook", ["/rewrite", ":batch"])
async def test_a_call_of_too_many_values_is_refused_before_it_is_parsed(sidecar, hook):
    """Also where a plugin takes as many bytes, and among the calls of a batch."""
    body = (
        OBJECTS
        if hook != ":batch"
        else b'{"calls": [{"hook": "custom_hook", "input": ' + OBJECTS[: -3 * 40] + b"{}]}}]}"
    )
    with frugal(sidecar, 5 * 16 * MIB):
        status, problem = await ask(sidecar, hook, body)
    assert status == 400
    assert problem["detail"].startswith(f"the body has {len(body)} bytes with more than 262144 values and names in")


async def test_a_large_text_full_of_commas_is_one_value(sidecar):
    """SQL is not counted as if it was JSON."""
    for hook, body in ("/rewrite", SQL), (":batch", b'{"calls":[{"hook":"rewrite","input":%b}]}' % SQL):
        status, answer = await ask(sidecar, hook, body)
        decision = answer if hook != ":batch" else answer["decisions"][0]
        assert (status, decision["action"], decision["plugin"]) == (200, "block", "wide")


async def test_a_call_of_the_default_size_is_read_whatever_is_in_it(sidecar):
    """256 KiB cost 9 MiB at the most."""
    body = b'{"query": "", "more": [' + b"{}," * 87_000 + b"{}]}"
    assert len(body) < 256 * 1024
    with frugal(sidecar, 32 * MIB):
        status, decision = await ask(sidecar, "/pre_query", body)
    assert (status, decision["value"]) == (200, "no")
