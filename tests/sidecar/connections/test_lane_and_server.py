"""What the lane answers and what aiohttp answers is the same, whatever the bytes. ``make fuzz`` does more of it."""

from __future__ import annotations

import pytest

import fuzz_endpoint


def test_lane_and_server_send_the_same_bytes_and_end_connections_alike():
    """A few thousand cases, the same ones each time; most answers that there are occur among them."""
    counts = fuzz_endpoint.run(4000, "always the same")
    assert {"200", "400", "401", "403", "404", "405", "408", "413", "415"} <= set(counts)
    assert counts["200"] > 1000
    assert counts["connections on which aiohttp answered"] < 3500


def test_a_difference_is_found_and_shown_in_short(monkeypatch):
    """The comparison can fail: here one of the two says something else about a name that is not a hook."""
    answers = fuzz_endpoint.Rig.play

    def other(rig, server, steps):
        sent, closed = answers(rig, server, steps)
        return (
            sent.replace(b"there is nothing at", b"there was something at") if server is rig.with_lane else sent
        ), closed

    monkeypatch.setattr(fuzz_endpoint.Rig, "play", other)
    monkeypatch.setattr(fuzz_endpoint, "SHRINKING_S", 1)
    with pytest.raises(AssertionError, match="there was something at") as found:
        fuzz_endpoint.run(200, "always the same")
    assert "--seed always the same --only" in str(found.value)
