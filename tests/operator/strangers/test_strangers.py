"""Strangers who open connections and never come to an end cost the operator little, on either of its ports."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

import pytest

from strangers import MANY, ask, besiege, kinds, resident, silent, upgraded
from waiting import PATIENCE_S, until

MIB = 2**20
_HEALTH = kinds(get=b"/metrics", post=b"/healthz", upgrade=b"/healthz")
_HTTPS = kinds(get=b"/v1/nothing", post=b"/webhooks/validate", upgrade=b"/v1/distribution")


async def _hello_and_no_more(line):
    """The beginning of a TLS handshake."""
    await line.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100)


async def _hello_in_drips(line):
    """The same, byte by byte."""
    await line.drip(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 600)


async def test_strangers_do_not_make_an_operator_large(operator, control_plane, guarded, tenant):
    """Each kind of them on each port, four hundred at a time; honest requests and sidecars are served all the while."""
    sidecar = await guarded(operator)
    pid, health = operator.process.pid, ("127.0.0.1", operator.health)
    https, name = ("127.0.0.1", operator.port), f"hookline-operator.{operator.home}.svc"
    authority = control_plane.get("configmap", "hookline-ca", f"--namespace={operator.home}")["data"]["ca.crt"]
    trust = ssl.create_default_context(cadata=authority)
    token = await asyncio.to_thread(tenant.token, "a")
    before = resident(pid)
    grown = {}

    async def holds(what, where, kind, tls):
        async with besiege(where, kind, tls=tls, name=name) as lines:
            async with asyncio.timeout(PATIENCE_S):
                assert await ask(health, b"/healthz") == 200
                assert await ask(https, b"/v1/nothing", tls=trust, name=name) == 404
            assert len(lines) >= MANY // 8
            grown[what] = resident(pid) - before

    for title, kind in _HEALTH.items():
        await holds(f"health: {title}", health, kind, None)
    for title, kind in {"silent": silent, "hello": _hello_and_no_more, "drips": _hello_in_drips}.items():
        await holds(f"no TLS: {title}", https, kind, None)
    for title, kind in _HTTPS.items():
        await holds(f"https: {title}", https, kind, trust)
    # A handshake is 200 KiB, and a fleet behind one address may have 256 of them under way.
    assert max(grown.values()) < 128 * MIB, {what: size // MIB for what, size in grown.items()}
    assert sidecar.runs()
    # A token that is good is one pod's: whoever connects with it again takes the place of whoever was there.
    async with besiege(https, lambda line: upgraded(b"/v1/distribution", token, line), count=50, tls=trust, name=name):
        assert await ask(https, b"/v1/nothing", tls=trust, name=name) == 404
    closed = {
        name.split('port="')[1].replace('",reason="', " ").rstrip('"}'): count
        for name, count in operator.metrics().items()
        if name.startswith("hookline_operator_connections_closed_total")
    }
    assert closed["https crowd"] > 0
    assert closed["health crowd"] > 0
    assert closed["health malformed"] > 0
    assert operator.process.poll() is None


@pytest.mark.parametrize("name", ["2", "3"])
async def test_another_address_is_not_kept_out(operator, name):
    """Hundreds of handshakes that never end come from one address; a connection from another is left alone."""
    https = ("127.0.0.1", operator.port)
    reader, writer = await asyncio.open_connection(*https, local_addr=(f"127.0.0.{name}", 0))
    async with besiege(https, silent):
        assert not reader.at_eof()
        crowd = 'hookline_operator_connections_closed_total{port="https",reason="crowd"}'
        await asyncio.to_thread(until, lambda: operator.metrics()[crowd] > 0, "some that were let go")
        assert not reader.at_eof()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
