"""A host that does not answer is named in the state, with why; and no more once it answers."""

from __future__ import annotations

import logging

from hookline_api.bundle import BundlePlugin
from hookline_runtime.host.http_client import Reach
from http_guests import LOOPBACK, body, served, spoken
from waiting import until_true


async def test_a_host_that_fails_again_and_again_is_unavailable_until_it_answers(guest, caplog):
    """It is logged once for each change; whatever status it answers is an answer."""
    caplog.set_level(logging.INFO, logger="hookline.host")
    async with spoken(None) as port:
        pass
    asks = guest(*({"scheme": "http", "host": "127.0.0.1", "port": each, "addresses": LOOPBACK} for each in (port,)))
    url = f"http://127.0.0.1:{port}/"
    for _ in range(2):
        await asks.fetch(url)
        assert asks.host.unavailable == {}
    for _ in range(3):
        await asks.fetch(url)
        assert asks.host.unavailable == {
            "egress host '127.0.0.1'": f"http://127.0.0.1:{port} cannot be asked: Connection refused"
        }
    async with served(None, port=port) as site:
        assert (await asks.fetch(site.url()))["status"] == 404
    assert asks.host.unavailable == {}
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_what_is_denied_says_nothing_of_a_host(plain, guest):
    """Nor do limits, and errors of the guest's own."""
    plain.page("/large", bytes(2**20 + 1))
    plain.page("/", "x")
    asks = guest(plain.rule())
    for _ in range(5):
        await asks.fetch(plain.url(), method="POST")
        await asks.fetch(plain.url("/large"))
    assert asks.host.unavailable == {}
    assert body(await asks.fetch(plain.url())) == b"x"


async def test_a_host_that_is_silent_is_unavailable(guest):
    """As one that refuses; a caller that has gone counts for nothing."""

    async def silent(reader, _):
        await reader.read()

    async with spoken(silent) as port:
        asks = guest({"scheme": "http", "host": "127.0.0.1", "port": port, "addresses": LOOPBACK})

        async def is_shown():  # on a busy machine, one may not even have been asked in its time
            await asks.fetch(f"http://127.0.0.1:{port}/", timeoutMs=30)
            return asks.host.unavailable

        shown = await until_true(is_shown, "the host is unavailable")
        assert "did not answer within 30 ms" in shown["egress host '127.0.0.1'"]


def test_hosts_that_fail_are_bounded():
    """A wildcard may be for any number of names."""
    shown = {}
    reach = Reach(BundlePlugin(name="guest"), shown)
    for number in range(1000):
        for _ in range(3):
            reach.failed(f"h{number}.test", "why")
    assert len(shown) == 64
    assert "egress host 'h999.test'" in shown


def test_a_host_that_a_guest_made_up_is_in_no_log(caplog):
    """Where the plugin has values of Secrets: a guest could make names of them. And many of them are few lines."""
    plugin = BundlePlugin.model_validate(
        {
            "name": "guest",
            "permissions": ["http.fetch"],
            "egress": [{"host": "*.example.com"}, {"host": "named.example.com"}],
            "credentials": {"s/k": "value"},
        }
    )
    reach = Reach(plugin, {})
    for host in ("value.example.com", "other.example.com", "named.example.com"):
        for _ in range(3):
            reach.failed(host, f"{host} does not answer")
    assert "value" not in caplog.text
    assert "other" not in caplog.text
    assert len(caplog.records) == 2
    assert "named.example.com" in caplog.text
