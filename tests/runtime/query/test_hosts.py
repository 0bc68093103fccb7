"""The hosts that data sources name: how they are looked up, and which are never asked."""

from __future__ import annotations

import socket

import pytest

from silent_names import SILENT, silent_names
from waiting import until_true


@pytest.fixture
def threads(monkeypatch):
    """Those that look silent names up."""
    with silent_names(monkeypatch) as threads:
        yield threads


async def test_a_source_whose_name_is_not_found_takes_no_thread_of_the_event_loop(make, threads):
    """Reloads and other plugins' keys need those, and a resolver keeps each for most of a minute."""
    source = make(host=SILENT, wait="200ms")
    assert await source.error("select 1") == ("failed", "08001")
    await until_true(lambda: threads, "the name is looked up")
    assert all(each.startswith("names") for each in threads)


@pytest.mark.parametrize("host", ["169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254"])
async def test_a_source_at_a_metadata_service_is_not_asked(make, host):
    """However the address is written, and told in a sentence."""
    source = make(host=host)
    answer = await source.ask("select 1")
    assert "is not asked" in answer["error"]["message"]
    assert "are never asked" in source.unavailable["data source 'db'"]


async def test_a_name_that_leads_to_a_metadata_service_is_not_asked(make, monkeypatch):
    """What counts is the address at this moment."""

    def asked(_host, port, *_, **__):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", port))]

    monkeypatch.setattr(socket, "getaddrinfo", asked)
    answer = await make(host="db.test").ask("select 1")
    assert "is not asked: link-local addresses are never asked" in answer["error"]["message"]


async def test_each_address_of_a_name_is_tried(make, server, monkeypatch):
    """As a source has several where its server listens on one of them."""

    def asked(_host, port, *_, **__):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("127.0.0.9", server.host)]

    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *a, **k: (asked if host == "db.test" else real)(host, *a, **k)
    )
    assert await make(host="db.test", tls={"mode": "Disable"}).one("select 1") == 1
