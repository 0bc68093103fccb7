"""How the connection to a source is protected, and that nothing of a Secret is left anywhere."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

import postgres
from waiting import until_true

_CA = {"caFrom": {"name": "db", "key": "ca"}}
_PAIR = {"certificateFrom": {"name": "db", "key": "cert"}, "keyFrom": {"name": "db", "key": "key"}}
_IN_USE = "select ssl from pg_stat_ssl where pid = pg_backend_pid()"


@pytest.mark.parametrize(
    ("tls", "encrypted"),
    [({"mode": "VerifyFull", **_CA}, True), ({"mode": "Require"}, True), ({"mode": "Require", **_CA}, True),
     ({"mode": "Disable"}, False), (_CA, True)],
)  # fmt: skip
async def test_each_mode_does_what_it_says(make, tls, encrypted):
    """VerifyFull is the default."""
    source = make(tls=tls)
    assert await source.one(_IN_USE) is encrypted
    assert await source.one("select pg_is_in_recovery()") is False


async def test_a_certificate_of_another_authority_is_refused(make):
    """And of none that is known."""
    wrong = make(tls=_CA, credentials={"db/ca": postgres.Authority().pem})
    assert await wrong.error("select 1") == ("failed", "08001")
    assert "SSL error" in wrong.unavailable["data source 'db'"]
    assert await make(tls={}).error("select 1") == ("failed", "08001")
    assert await make(tls={"mode": "Require", **_CA}, credentials={"db/ca": postgres.Authority().pem}).error(
        "select 1"
    ) == ("failed", "08001")


async def test_a_certificate_for_another_name_is_refused(make):
    """VerifyFull looks at the name that the source has."""
    source = make(host="127.0.0.2", tls=_CA)
    assert (await source.error("select 1"))[0] == "failed"
    named = make(host="localhost", tls=_CA)
    assert await named.one("select 1") == 1


async def test_an_authority_that_is_no_certificate_is_refused(make):
    """In one sentence, without its text."""
    source = make(tls=_CA, credentials={"db/ca": "not a certificate but a secret"})
    answer = await source.ask("select 1")
    assert answer["error"]["cause"] == "failed"
    assert "not a certificate" not in str(answer)


async def test_a_user_may_be_known_by_a_certificate(make):
    """Its key is in no file that anybody could open."""
    source = make(user="certified", passwordFrom=None, tls=_CA | _PAIR)
    assert await source.one("select current_user::text") == "certified"
    without = make(user="certified", passwordFrom=None, tls=_CA)
    assert (await without.error("select 1"))[0] == "failed"


async def test_a_query_is_cancelled_by_the_same_certificates(make, server):
    """A cancel request is a connection of its own, and has to be protected as well."""
    source = make(user="certified", passwordFrom=None, tls=_CA | _PAIR, statementTimeout="60s", poolSize=1)
    active = (
        "select count(*) from pg_stat_activity where usename = 'certified' and query ~ 'sleep' and state = 'active'"
    )
    call = asyncio.create_task(source.ask("select pg_sleep(50)"))
    await until_true(lambda: server.psql(active) == "1", "a query that runs")
    call.cancel()
    await asyncio.wait([call])
    await until_true(lambda: server.psql(active) == "0", "that it ended")
    assert await source.one("select 1") == 1


async def test_nothing_of_a_secret_is_left(make, tmp_path, monkeypatch, caplog):
    """No file, no log line, no error; and no descriptor once it is closed."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    caplog.set_level(logging.DEBUG)
    before = set(_descriptors())
    source = make(user="certified", passwordFrom=None, tls=_CA | _PAIR)
    assert await source.one("select 1") == 1
    assert any("memfd:hookline" in each for each in _descriptors())
    wrong = make(credentials={"db/password": "entirely-wrong"})
    told = str(await wrong.ask("select 1")) + str(wrong.unavailable) + caplog.text
    for secret in (*source.plugin.credentials.values(), "entirely-wrong"):
        assert secret not in told
    assert list(tmp_path.iterdir()) == []
    for each in (source, wrong):
        await each.idle()
        each.family.close()
    from hookline_runtime.host.backends import postgres as backend

    await until_true(lambda: not backend._closing, "the end of both")
    assert {each for each in _descriptors() if "memfd:hookline" in each} <= before


def _descriptors():
    links = []
    for each in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(each.readlink()))
        except FileNotFoundError:  # of the listing itself
            continue
    return links


async def test_a_password_is_not_sent_to_whoever_answers(make, server):
    """A server that asks for it in the clear gets none, unless its certificate was checked."""
    hba = server._data / "pg_hba.conf"
    saved = hba.read_text()
    hba.write_text("local all all trust\nhost all all 127.0.0.1/32 password\n")
    server.psql("select pg_reload_conf()")
    try:
        assert await make(tls=_CA).one("select 1") == 1
        for tls in ({"mode": "Require"}, {"mode": "Disable"}):
            source = make(tls=tls)
            assert (await source.error("select 1"))[0] == "failed"
    finally:
        hba.write_text(saved)
        server.psql("select pg_reload_conf()")
