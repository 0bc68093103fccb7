"""A name is looked up once, every address that it has is judged, and one of those is dialled."""

from __future__ import annotations

import pytest

from hookline_runtime.host.egress import read_url
from hookline_runtime.host.http_message import HttpError
from http_guests import LOOPBACK, body, cause


async def test_the_server_sees_its_name(site, guest, names):
    """As Host, and in the handshake: its certificate is checked for that name."""
    names["api.test"] = [["127.0.0.1"]]
    site.page("/", "here")
    assert body(await guest(site.rule(host="api.test")).fetch(site.url(host="API.test"))) == b"here"
    assert site.requests[0][2]["host"] == f"api.test:{site.port}"
    assert names["asked"] == ["api.test"]


async def test_a_name_that_changes_between_look_up_and_dial_changes_nothing(site, guest, names):
    """The second answer is nobody's: there is no second look-up for one connection."""
    names["api.test"] = [["127.0.0.1"], ["169.254.169.254"]]
    site.page("/", "here")
    asks = guest(site.rule(host="api.test"))
    assert body(await asks.fetch(site.url(host="api.test"))) == b"here"
    assert names["asked"] == ["api.test"]
    other = guest(site.rule(host="api.test"))
    answer = await other.fetch(site.url(host="api.test"))
    assert cause(answer) == "denied"
    assert "169.254.169.254" in answer["error"]["message"]
    assert len(site.requests) == 1


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1", "169.254.169.254"], ["169.254.169.254", "127.0.0.1"], ["127.0.0.1", "10.0.0.1"],
     ["127.0.0.1", "::ffff:169.254.169.254"], ["127.0.0.1", "fe80::1"], ["127.0.0.1", "64:ff9b::a9fe:a9fe"],
     ["0.0.0.0"], ["::"], ["127.0.0.1", "224.0.0.1"], ["2002:a9fe:a9fe::1"]],
)  # fmt: skip
async def test_one_address_that_may_not_be_asked_is_one_too_many(site, guest, names, addresses):
    """Whichever it is, and however it is written: the name is not asked at all."""
    names["api.test"] = [addresses]
    answer = await guest(site.rule(host="api.test")).fetch(site.url(host="api.test"))
    assert cause(answer) == "denied"
    assert "its name has the address" in answer["error"]["message"]
    assert site.requests == []


async def test_a_private_address_is_asked_where_the_rule_names_it(site, guest, names):
    """And not because another rule does."""
    names["api.test"] = names["other.test"] = [["127.0.0.1"]]
    site.page("/", "here")
    asks = guest(site.rule(host="api.test", addresses=LOOPBACK), site.rule(host="other.test", addresses=["10.0.0.0/8"]))
    assert body(await asks.fetch(site.url(host="api.test"))) == b"here"
    assert cause(await asks.fetch(site.url(host="other.test"))) == "denied"


async def test_an_address_as_host_names_itself(site, guest):
    """And nothing beside it."""
    site.page("/", "here")
    assert body(await guest(site.rule(addresses=[])).fetch(site.url())) == b"here"


async def test_a_socket_is_judged_whatever_led_to_it(site, guest):
    """The last one to look: past the rules, and past the resolver, which aiohttp does not ask about an address."""
    client = guest(site.rule(host="api.test", addresses=["10.0.0.0/8"])).client
    with pytest.raises(HttpError, match="private address") as refused:
        await client._backend.exchange(client._egress.rules[0], "GET", read_url(site.url()), {}, None)
    assert refused.value.cause == "denied"
    assert site.requests == []


async def test_a_name_that_nobody_knows_is_told(guest):
    """As what it is."""
    answer = await guest({"host": "nobody.invalid"}).fetch("https://nobody.invalid/")
    assert cause(answer) in {"failed", "timeout"}
