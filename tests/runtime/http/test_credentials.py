"""The host adds a rule's credential, and the guest does not see it: not in answers, errors, logs, or what is kept."""

from __future__ import annotations

import json
import logging

import pytest
from aiohttp import web

from hookline_artifacts.errors import ConfigError
from http_guests import HttpGuest, body, cause

SECRET = "s3cr3t-value-of-a-secret"


def rule(site, **fields):
    """One with a credential."""
    credential = {"header": "X-Api-Key", "prefix": "Key ", "valueFrom": {"name": "api", "key": "key"}}
    return site.rule(credential=credential | fields)


async def echo(request):
    """Shows what it was asked, as some servers do when they are asked to debug."""
    return web.json_response(dict(request.headers), headers={"X-Echo": request.headers.get("X-Api-Key", "")})


async def test_it_is_added_and_a_guest_cannot_see_or_replace_it(site, guest):
    """Whoever shows it as it came shows it to nobody."""
    site.pages["/"] = echo
    asks = guest(rule(site), credentials={"api/key": SECRET + "\n"})
    answer = await asks.fetch(site.url())
    assert site.requests[0][2]["x-api-key"] == f"Key {SECRET}"
    assert SECRET not in json.dumps(answer)
    assert answer["headers"]["x-echo"] == "Key <redacted>"
    assert json.loads(body(answer))["x-api-key"] == "Key <redacted>"
    for name in ("X-Api-Key", "x-api-key"):
        assert cause(await asks.fetch(site.url(), headers={name: "mine"})) == "denied"
    assert len(site.requests) == 1


async def test_it_is_in_no_error_and_no_log(site, guest, caplog):
    """Nor is the URL's path and query, in which others sign."""
    caplog.set_level(logging.DEBUG)
    asks = guest(
        rule(
            site,
        ),
        rule(site) | {"host": "127.0.0.2", "port": 1},
        credentials={"api/key": SECRET},
    )
    site.page("/cut", status=302, Location=f"/cut?{SECRET}")
    told = [await asks.fetch(site.url("/cut?signed=hidden-query")), await asks.fetch("https://127.0.0.2:1/hidden-path")]
    told += [await asks.fetch("https://127.0.0.2:1/hidden-path") for _ in range(3)]
    assert [cause(each) for each in told] == ["denied", *["failed"] * 4]
    everything = json.dumps([told, asks.host.unavailable]) + caplog.text
    assert "egress host '127.0.0.2'" in everything
    assert SECRET not in everything
    assert "hidden" not in everything


async def test_it_does_not_stand_in_what_is_kept(site, guest):
    """A response that shows it is kept without it."""

    async def kept(request):
        return web.Response(text=request.headers["X-Api-Key"], headers={"Cache-Control": "max-age=60"})

    site.pages["/"] = kept
    asks = guest(rule(site), credentials={"api/key": SECRET})
    await asks.fetch(site.url())
    assert (await asks.fetch(site.url()))["fromCache"] is True
    assert SECRET not in repr(asks.client._cache._kept)
    assert SECRET not in repr(asks.client._flights)


@pytest.mark.parametrize(
    ("value", "fields"),
    [
        (None, {}),
        ("a\r\nHost: evil", {}),
        ("a\x00b", {}),
        ("ü", {}),
        ("", {"prefix": ""}),
        ("x" * 9000, {}),
        ("x", {"header": "Accept-Encoding"}),
    ],
)
async def test_what_cannot_be_sent_is_told_when_the_plugin_is_loaded(site, value, fields):
    """And its value is not shown."""
    credentials = {} if value is None else {"api/key": value}
    rules = [rule(site, **fields) | {"caFrom": None}]
    with pytest.raises(ConfigError, match=r"spec\.egress\[0\]\.credential") as refused:
        HttpGuest(rules, credentials=credentials)
    assert not value or len(value) < 2 or value not in str(refused.value)


@pytest.mark.parametrize(
    "pem", [None, "", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
async def test_an_authority_that_cannot_be_read_is_told_when_the_plugin_is_loaded(site, pem):
    """As one that is missing."""
    with pytest.raises(ConfigError, match=r"spec\.egress\[0\]\.caFrom"):
        HttpGuest([site.rule()], credentials={} if pem is None else {"tls/ca": pem})
