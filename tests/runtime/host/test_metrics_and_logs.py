"""What a guest counts and logs is bounded, named, and shows no secret."""

from __future__ import annotations

import json
import logging

from hookline_api.abi import E_ARGUMENT, E_CAP, E_MEMORY, E_SIZE
from hookline_runtime.host import basics
from host_calls import Memory, calls


def test_metrics_are_named_bounded_and_of_one_kind(host):
    """32 of them, by a pattern, finite; a counter does not fall."""
    memory, made = Memory(), host()
    call = calls(made)
    hits = memory.put(0, b"hits_total")
    assert call["metric_inc"](memory, *hits, 2.5) == 0
    assert call["metric_inc"](memory, *hits, -1.0) == E_ARGUMENT
    assert call["metric_gauge"](memory, *hits, 1.0) == E_ARGUMENT
    assert call["metric_observe"](memory, *memory.put(50, b"size"), 3.0) == 0
    assert call["metric_observe"](memory, *memory.put(50, b"size"), 4.0) == 0
    for name in (b"", b"Hits", b"9", b"a b", b"a\n", b"a" * 65, b"\xff"):
        assert call["metric_gauge"](memory, *memory.put(100, name), 1.0) in {E_ARGUMENT, E_SIZE}
    for value in (float("nan"), float("inf"), float("-inf")):
        assert call["metric_gauge"](memory, *memory.put(100, b"g"), value) == E_ARGUMENT
    for number in range(30):
        assert call["metric_gauge"](memory, *memory.put(100, b"g%d" % number), 1.0) == 0
    assert call["metric_gauge"](memory, *memory.put(100, b"one_more"), 1.0) == E_CAP
    assert made.metrics["hits_total"].value == 2.5
    assert (made.metrics["size"].count, made.metrics["size"].value) == (2, 7.0)
    assert len(made.metrics) == 32


def test_a_log_line_is_one_line_of_printable_characters(host, caplog):
    """Newlines, escapes, bytes that are not text: a guest writes no line of its own choosing into our log."""
    memory, call = Memory(), calls(host())
    caplog.set_level(1)
    assert (
        call["log"](memory, 3, *memory.put(0, b"one\nWARNING hookline two\r\x1b[31m\x00\xff\xe2\x80\xa8 100% \xc3\xa9"))
        == 0
    )
    (record,) = caplog.records
    message = record.getMessage()
    assert record.levelno == logging.WARNING
    assert message.startswith("guest: one\\nWARNING")
    assert message.isprintable()
    assert message.isascii()


def test_a_value_of_a_secret_is_in_no_log_line(host, caplog):
    """Nor a line of one that has several; a guest that logs its settings does so by mistake."""
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0\n-----END KEY-----"
    config = {"upstream": {"token": "hunter2-s3cret", "key": key}, "pin": "12", "url": "http://x"}
    made = host(config=config, secretPaths=["upstream.token", "upstream.key", "pin", "nowhere.at.all"])
    memory, call = Memory(), calls(made)
    caplog.set_level(1)
    for text in (json.dumps(config["upstream"]["token"]), key, "first MIIEvQIBADANBg then http://x, 12 times"):
        assert call["log"](memory, 2, *memory.put(0, text.encode())) == 0
    told = [record.getMessage() for record in caplog.records]
    assert told[0] == 'guest: "<redacted>"'
    assert told[1] == "guest: <redacted>"
    assert told[2] == "guest: first <redacted> then http://x, 12 times"


def test_log_levels_and_lengths_are_bounded(host, caplog):
    """Levels 0 to 4, 4 KiB a line; a longer one is cut and not refused."""
    memory, call = Memory(), calls(host())
    caplog.set_level(1)
    for level in (-1, 5, 2**31 - 1):
        assert call["log"](memory, level, 0, 1) == E_ARGUMENT
    assert call["log"](memory, 0, 0, 200_000) == 0
    assert len(caplog.records[-1].getMessage()) == len("guest: ") + 4096  # after escaping
    assert call["log"](memory, 1, 299_000, 4096) == E_MEMORY


def test_log_lines_are_limited_to_twenty_a_second(host, caplog, monkeypatch):
    """A guest that writes without end fills no disk."""
    now = [100.0]
    monkeypatch.setattr(basics.time, "monotonic", lambda: now[0])
    memory, made = Memory(), host()
    log = calls(made)["log"]
    caplog.set_level(1)
    assert [log(memory, 2, 0, 1) for _ in range(25)] == [0] * 20 + [E_CAP] * 5
    now[0] += 1
    assert log(memory, 2, 0, 1) == 0
    assert len(caplog.records) == 21
    assert made.refused == {"log": 5}
