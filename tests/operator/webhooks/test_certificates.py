"""All replicas serve under one authority, clients trust it across every change, and nothing needs a restart."""

from __future__ import annotations

import asyncio
import base64
import random
import ssl

import pytest
from cryptography import x509

from certificate_stores import DAY, NAMES, NOW, SECRET, Store, client, entries, keeper, shown
from hookline_operator.cluster.authority import (
    AUTHORITY_LIFE,
    OVERLAP,
    SERVING_LIFE,
    Material,
    issue,
    new_authority,
    peer_name,
)

CONFIG_MAP = "/api/v1/namespaces/hookline-system/configmaps/hookline-ca"


async def test_the_first_replica_makes_everything_and_a_client_connects():
    """By each of the names that the operator is called by, and by no other."""
    store = Store()
    one = keeper(store)
    assert one.not_ready() == ["there is no serving certificate yet"]
    with pytest.raises(RuntimeError, match="has not been made yet"):
        _ = one.bundle
    await one.sync()
    assert one.not_ready() == []
    assert store.objects[CONFIG_MAP]["data"]["ca.crt"] == one.bundle
    assert store.objects[SECRET]["type"] == "kubernetes.io/tls"
    for name in (*NAMES, "peer.hookline-operator.hookline-system.svc"):
        await shown(one.context, one.bundle, name)
    assert peer_name("hookline-operator", "hookline-system") in NAMES
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        await shown(one.context, one.bundle, "kubernetes.default.svc")
    assert one.client_context().check_hostname


async def test_old_versions_of_tls_are_refused():
    """TLS 1.2 at least."""
    one = keeper(Store())
    await one.sync()
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=one.context)
    async with server:
        old = client(one.bundle)
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, OSError)):
            await asyncio.open_connection(*server.sockets[0].getsockname(), ssl=old, server_hostname=NAMES[0])


@pytest.mark.parametrize("seed", range(10))
async def test_replicas_that_start_together_share_one_authority(seed):
    """Whoever loses the race serves what the winner made."""
    random.seed(seed)
    store = Store()
    keepers = [keeper(store) for _ in range(5)]
    await asyncio.gather(*(each.sync() for each in keepers))
    assert {each.bundle for each in keepers} == {entries(store)["ca.crt"]}
    assert store.writes.count(SECRET) == 1
    assert store.writes.count(CONFIG_MAP) == 1
    serials = {await shown(each.context, keepers[0].bundle) for each in keepers}
    assert len(serials) == 1


@pytest.mark.parametrize("seed", range(5))
async def test_replicas_that_renew_together_agree(seed):
    """The same race, with a Secret that is there."""
    random.seed(seed)
    store = Store()
    clock = [NOW]
    keepers = [keeper(store, now=lambda: clock[0]) for _ in range(4)]
    await asyncio.gather(*(each.sync() for each in keepers))
    clock[0] += SERVING_LIFE * 2 / 3
    await asyncio.gather(*(each.sync() for each in keepers))
    assert store.writes.count(SECRET) == 2
    held = x509.load_pem_x509_certificate(entries(store)["tls.crt"].encode()).serial_number
    assert {each._material.serving.certificate.serial_number for each in keepers} == {held}


async def test_with_nothing_due_nothing_is_written():
    """Level-triggered: a look costs reads."""
    store = Store()
    for _ in range(3):
        await keeper(store).sync()
    assert sorted(store.writes) == sorted([SECRET, CONFIG_MAP])


async def test_the_certificate_is_renewed_without_a_restart():
    """At two thirds of its life: the same context, the same authority, a new certificate; open connections stay."""
    begin = NOW - DAY * 61  # real handshakes are made today
    store, clock = Store(), [begin]
    one = keeper(store, now=lambda: clock[0])
    await one.sync()
    context, bundle = one.context, one.bundle
    first = await shown(context, bundle)
    clock[0] = begin + DAY * 58
    await one.sync()
    assert await shown(context, bundle) == first
    clock[0] = NOW
    await one.sync()
    assert one.context is context
    assert one.bundle == bundle
    second = await shown(context, bundle)
    assert second != first
    other = keeper(store, now=lambda: clock[0])
    await other.sync()
    assert await shown(other.context, bundle) == second


async def test_a_client_of_the_old_authority_connects_throughout_the_overlap():
    """From the successor's first day to its signing a year later, and with the bundle of that year for long after."""
    # The clock stands at the overlap's end now, so that real handshakes can be made with real certificates.
    begin = NOW - OVERLAP - DAY
    life = AUTHORITY_LIFE
    old = new_authority(now=begin - life * 2 / 3 - DAY)
    store, clock = Store(), [begin - DAY * 30]
    made = Material(authority=old, serving=issue(old, NAMES, now=clock[0])).entries()
    data = {name: base64.b64encode(text.encode()).decode() for name, text in made.items()}
    store.put(SECRET, {"metadata": {"name": "hookline-operator-tls"}, "data": data})
    one = keeper(store, now=lambda: clock[0])
    clock[0] = begin
    await one.sync()
    assert one.bundle.startswith(old.certificate_pem)
    assert one.bundle.count("BEGIN CERTIFICATE") == 2, "the successor is published at once"
    overlapping = one.bundle
    assert store.objects[CONFIG_MAP]["data"]["ca.crt"] == overlapping

    signed_by_the_old = 0
    while clock[0] + DAY * 30 < begin + OVERLAP:
        clock[0] += DAY * 30
        await one.sync()
        one._material.serving.certificate.verify_directly_issued_by(old.certificate)
        signed_by_the_old += 1
        assert one.bundle == overlapping
    assert signed_by_the_old == 12
    clock[0] = NOW
    await one.sync()
    await shown(one.context, overlapping)
    await shown(one.context, one.bundle)
    assert old.certificate_pem in one.bundle, "what it signed is still about"
    assert not one.bundle.startswith(old.certificate_pem)
    with pytest.raises(ssl.SSLCertVerificationError):
        await shown(one.context, old.certificate_pem)

    clock[0] = old.certificate.not_valid_after_utc + DAY
    await one.sync()
    assert old.certificate_pem not in one.bundle, "an authority that has ended is forgotten"


async def test_a_client_of_the_old_authority_connects_with_what_is_served_during_the_overlap():
    """A real handshake in the middle of the overlap, with the old bundle, the new one and a fresh certificate."""
    begin = NOW - OVERLAP / 2
    old = new_authority(now=begin - AUTHORITY_LIFE * 2 / 3)
    store, clock = Store(), [begin]
    made = Material(authority=old, serving=issue(old, NAMES, now=begin)).entries()
    data = {name: base64.b64encode(text.encode()).decode() for name, text in made.items()}
    store.put(SECRET, {"metadata": {"name": "hookline-operator-tls"}, "data": data})
    one = keeper(store, now=lambda: clock[0])
    await one.sync()
    clock[0] = NOW
    await one.sync()
    await shown(one.context, old.certificate_pem)
    await shown(one.context, one.bundle)
