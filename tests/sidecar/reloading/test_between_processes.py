"""What the supervisor and its workers say to each other: typed, bounded, and checked at the other end."""

from __future__ import annotations

import asyncio
import struct

import orjson
import pytest

from hookline_api.bundle import Bundle, BundlePlugin
from hookline_runtime.plugin.budget import Plan
from hookline_sidecar import messages
from hookline_sidecar.messages import TO_SUPERVISOR, TO_WORKER

BUNDLE = Bundle.of([BundlePlugin(name="a", config={"key": "ü\n"}), BundlePlugin(name="b", priority=5)])
FAILURE = messages.CallFailure(
    hook="pre_query", cause="trap", message="it trapped", at=1.5, line="no rule", backtrace=("check",)
)
FACTS = messages.PluginFacts(
    revision="0", inline=True, paused={"route": messages.Paused(failures=5, until=2.5)}, last_failure=FAILURE,
    last_fault=None, last_failures={"pre_query": FAILURE}, denied={"kv_get": 1}, refused={},
    metrics={"seen": messages.GuestMetric(type="counter", value=3.0, count=2)},
)  # fmt: skip
PREPARE = messages.Prepare(
    version=BUNDLE.version,
    bundle=BUNDLE,
    before=(BundlePlugin(name="a"),),
    numbers={"a": 0, "b": 1},
    memory=Plan.of(2**30, workers=2, state=0),
)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (TO_WORKER, PREPARE),
        (TO_WORKER, messages.Commit(version="0")),
        (TO_WORKER, messages.Discard(version="0")),
        (TO_WORKER, messages.Proven(revisions={"a": "0"})),
        (TO_SUPERVISOR, messages.Hello(index=1, pid=2)),
        (TO_SUPERVISOR, messages.Prepared(version="0", guests=5, alone={"a": "no room"})),
        (TO_SUPERVISOR, messages.LoadRefused(version="0", plugin="a", cause="verify", message="no", damaged=True)),
        (TO_SUPERVISOR, messages.Committed(version="0")),
        (TO_SUPERVISOR, messages.Report(plugins={"a": FACTS})),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_message_comes_as_it_was_sent(kinds, message):
    """Also a bundle, whose plugins keep their settings and their order."""
    assert kinds.decode(messages.encode(message)) == message


def test_a_large_bundle_is_read_plugin_by_plugin(monkeypatch):
    """And is the same one."""
    monkeypatch.setattr(messages, "_SMALL", 0)
    assert TO_WORKER.decode(messages.encode(PREPARE)) == PREPARE


async def received(*parts, kinds=TO_SUPERVISOR):
    """All messages that a peer gets of these bytes, until the connection is at its end for it."""
    reader = asyncio.StreamReader()
    for part in parts:
        reader.feed_data(struct.pack(">I", len(part)) + part)
    reader.feed_eof()
    found = []
    while (message := await messages.receive(reader, kinds)) is not None:
        found.append(message)
    return found


async def test_a_message_of_an_unknown_kind_is_passed_over(caplog):
    """With a word in the log; what comes after it counts."""
    hello = messages.Hello(index=0, pid=1)
    assert await received(b'{"kind": "newer"}', messages.encode(hello)) == [hello]
    assert "unknown kind 'newer'" in caplog.text


@pytest.mark.parametrize(
    "broken",
    [
        b"no json",
        b"[]",
        b"{}",
        b'{"kind": 5}',
        b'{"kind": "hello"}',
        b'{"kind": "hello", "index": -1, "pid": 1}',
        b'{"kind": "prepared", "version": "hunter2", "guests": -5, "alone": {}}',
        orjson.dumps({"kind": "commit", "version": "0"}),
    ],
    ids=repr,
)
async def test_a_broken_message_ends_the_connection(broken, caplog):
    """A new one begins from the start. One of the other direction is of no known kind; nothing that came is quoted."""
    after = messages.encode(messages.Hello(index=0, pid=1))
    assert await received(broken, after) == ([messages.Hello(index=0, pid=1)] if b"commit" in broken else [])
    assert "hunter2" not in caplog.text


async def test_a_length_is_bounded():
    """Whatever the first bytes say, so much is never waited for."""
    reader = asyncio.StreamReader()
    reader.feed_data(struct.pack(">I", 2**32 - 1))
    assert await messages.receive(reader, TO_WORKER) is None
