"""A name server that never answers takes no thread that others need."""

from __future__ import annotations

import pytest

from hookline_api.outbound import ValkeyServer
from hookline_runtime.host.backends.valkey import ValkeyAwayError
from silent_names import SILENT, silent_names
from waiting import until_true


@pytest.fixture
def threads(monkeypatch):
    """Those that look silent names up."""
    with silent_names(monkeypatch) as threads:
        yield threads


async def test_a_server_whose_name_is_not_found_takes_no_thread_of_the_event_loop(client, threads):
    """Reloads and other plugins' keys need those, and a resolver keeps each for most of a minute."""
    unavailable = {}
    made = client(ValkeyServer(url=f"redis://{SILENT}"), unavailable=unavailable)
    with pytest.raises(ValkeyAwayError):
        await made.command(b"GET", b"a")
    await until_true(lambda: "does not answer" in unavailable.get("keys", ""), lambda: f"said so: {unavailable}")
    assert threads
    assert all(each.startswith("names") for each in threads)


async def test_a_server_at_an_address_that_is_never_asked_is_said(client):
    """A tenant names a host, and a cloud's metadata service is none."""
    unavailable = {}
    made = client(ValkeyServer(url="redis://169.254.169.254"), unavailable=unavailable)
    with pytest.raises(ValkeyAwayError, match="is not asked: link-local addresses are never asked"):
        await made.command(b"GET", b"a")
