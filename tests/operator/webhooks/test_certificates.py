"""All replicas serve under one authority, clients trust it across every change, and nothing needs a restart."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import os
import random
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from hookline_operator.cluster.authority import (
    AUTHORITY_LIFE,
    OVERLAP,
    SERVING_LIFE,
    KeyPair,
    Material,
    due,
    issue,
    names_of,
    new_authority,
    peer_name,
    renew,
)
from hookline_operator.cluster.kube import KubeError
from hookline_operator.webhooks.certificates import CertificateKeeper

NAMES = names_of("hookline-operator", "hookline-system")
NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)

SECRET = "/api/v1/namespaces/hookline-system/secrets/hookline-operator-tls"
CONFIG_MAP = "/api/v1/namespaces/hookline-system/configmaps/hookline-ca"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/{}/hookline"


class Store:
    """An API server as the keeper sees it: resourceVersions, conflicts, JSON patches; other tasks run in between."""

    def __init__(self):
        self.objects = {}
        self.version = 0
        self.writes = []
        self.broken = None

    async def get(self, where):
        """An object or None."""
        await self._turn()
        return copy.deepcopy(self.objects.get(where))

    async def request(self, method, where, *, body=None, content_type="application/json"):
        """POST, PUT or PATCH."""
        await self._turn()
        if method == "POST":
            where = f"{where}/{body['metadata']['name']}"
            if where in self.objects:
                raise KubeError(409, "already exists")
            stored = copy.deepcopy(body)
        elif where not in self.objects:
            raise KubeError(404, "not found")
        elif method == "PUT":
            if body["metadata"]["resourceVersion"] != self.objects[where]["metadata"]["resourceVersion"]:
                raise KubeError(409, "the object has been modified")
            stored = copy.deepcopy(body)
        else:
            assert content_type == "application/json-patch+json"
            stored = copy.deepcopy(self.objects[where])
            for operation in body:
                *parents, last = operation["path"].removeprefix("/").split("/")
                target = stored
                for part in parents:
                    target = target[int(part) if isinstance(target, list) else part]
                if operation["op"] == "test" and target[last] != operation["value"]:
                    raise KubeError(422, "the test failed")
                target[last] = operation["value"]
        self.put(where, stored)
        self.writes.append(where)
        return copy.deepcopy(stored)

    def put(self, where, stored):
        """Store it, as the API server does."""
        self.version += 1
        stored["metadata"]["resourceVersion"] = str(self.version)
        self.objects[where] = stored

    async def _turn(self):
        for _ in range(random.randrange(3)):
            await asyncio.sleep(0)
        if self.broken:
            raise self.broken


def keeper(store, *, now=lambda: NOW, **changes):
    """A replica's."""
    return CertificateKeeper(store, service="hookline-operator", namespace="hookline-system", now=now, **changes)


def entries(store):
    """The Secret's, decoded."""
    return {name: base64.b64decode(value).decode() for name, value in store.objects[SECRET]["data"].items()}


def client(bundle):
    """A client's context, as strict as Python knows."""
    context = ssl.create_default_context(cadata=bundle)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


async def shown(context, bundle, name=NAMES[2]):
    """The serial number of the certificate that a real handshake shows; ssl.SSLError where a client refuses it."""
    done = asyncio.Event()

    async def answer(_, writer):
        await done.wait()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        try:
            address = server.sockets[0].getsockname()
            _, writer = await asyncio.open_connection(*address, ssl=client(bundle), server_hostname=name)
        finally:
            done.set()
        found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return x509.load_der_x509_certificate(found).serial_number


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


def _damaged():
    one = new_authority(now=NOW)
    good = Material(authority=one, serving=issue(one, NAMES, now=NOW)).entries()
    other = new_authority(now=NOW)
    expired = new_authority(now=NOW - AUTHORITY_LIFE - DAY)
    leaf = issue(one, NAMES, now=NOW)
    strange = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    strange_pem = strange.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    half = good["ca.crt"][:200]
    return good, {
        "nothing": ({}, True),
        "no authority": ({"tls.crt": good["tls.crt"], "tls.key": good["tls.key"]}, True),
        "half an authority": ({**good, "ca.crt": half}, True),
        "no key": ({**good, "ca.key": ""}, True),
        "garbage for a key": ({**good, "ca.key": "garbage"}, True),
        "another's key": ({**good, "ca.key": other.key_pem}, True),
        "an RSA key": ({**good, "ca.key": strange_pem}, True),
        "an authority that has ended": ({**good, "ca.crt": expired.certificate_pem, "ca.key": expired.key_pem}, True),
        "no authority at all": ({**good, "ca.crt": leaf.certificate_pem, "ca.key": leaf.key_pem}, True),
        "no certificate": ({**good, "tls.crt": ""}, False),
        "no certificate's key": ({**good, "tls.key": ""}, False),
        "another certificate's key": ({**good, "tls.key": other.key_pem}, False),
        "of another authority": ({**good, "tls.crt": (stray := issue(other, NAMES, now=NOW)).certificate_pem,
                                  "tls.key": stray.key_pem}, False),
        "for another name": ({**good, "tls.crt": (bad := issue(one, ["x"], now=NOW)).certificate_pem,
                              "tls.key": bad.key_pem}, False),
        "a broken successor": ({**good, "next-ca.crt": half, "next-ca.key": "x"}, False),
    }  # fmt: skip


DAMAGED = _damaged()


@pytest.mark.parametrize("damage", DAMAGED[1])
async def test_what_is_damaged_is_made_anew_and_said(damage, caplog):
    """A Secret that somebody edited, lost or cut: the operator serves again, and the log says what was made."""
    good, cases = DAMAGED
    broken, loses_authority = cases[damage]
    caplog.set_level("INFO", "hookline.certificates")
    store = Store()
    metadata = {"name": "hookline-operator-tls", "labels": {"own": "label"}}
    data = {name: base64.b64encode(text.encode()).decode() for name, text in broken.items()}
    store.put(SECRET, {"metadata": metadata, "type": "Opaque", "data": data})
    one = keeper(store)
    await one.sync()
    await shown(one.context, one.bundle)
    assert (good["ca.crt"] not in one.bundle or not one.bundle.startswith(good["ca.crt"])) == loses_authority
    assert "hookline-system/hookline-operator-tls" in caplog.text
    assert ("new certificate authority was made" in caplog.text) == loses_authority
    assert "PRIVATE" not in caplog.text
    assert store.objects[SECRET]["metadata"]["labels"] == {"own": "label"}
    assert renew(entries(store), names=NAMES, now=NOW)[1] == []


async def test_an_authority_that_strict_clients_refuse_goes_on_and_is_said(caplog):
    """Somebody's own, without key usage: older Pythons take it, so nothing stops, and the log says who will not."""
    made = new_authority(now=NOW)
    lax = (
        x509.CertificateBuilder(
            issuer_name=made.certificate.issuer, subject_name=made.certificate.subject,
            public_key=made.key.public_key(), serial_number=7,
            not_valid_before=NOW - DAY, not_valid_after=NOW + AUTHORITY_LIFE,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=False)
        .sign(made.key, hashes.SHA256())
    )  # fmt: skip
    pair = KeyPair(certificate=lax, key=made.key)
    entered = Material(authority=pair, serving=issue(pair, NAMES, now=NOW)).entries()
    data = {name: base64.b64encode(text.encode()).decode() for name, text in entered.items()}
    store = Store()
    store.put(SECRET, {"metadata": {"name": "hookline-operator-tls"}, "data": data})
    one = keeper(store)
    await one.sync()
    await one.sync()
    assert one.bundle == entered["ca.crt"]
    [said] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "basicConstraints (critical), keyUsage (keyCertSign), subjectKeyIdentifier" in said
    assert "Delete the Secret" in said
    with pytest.raises(ssl.SSLCertVerificationError):
        await shown(one.context, one.bundle)


async def test_an_own_authority_lacks_nothing(caplog):
    """What is made here passes the strictest client, and no warning is logged."""
    one = keeper(Store())
    await one.sync()
    await shown(one.context, one.bundle)
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


async def test_a_lost_authority_is_followed_by_the_successor_that_everybody_knows():
    """So that nobody has to be told."""
    begin = NOW - OVERLAP / 2
    old = new_authority(now=begin - AUTHORITY_LIFE * 2 / 3)
    made, _ = renew(Material(authority=old, serving=issue(old, NAMES, now=begin)).entries(), names=NAMES, now=begin)
    assert made.successor is not None
    after, notes = renew({**made.entries(), "ca.key": "lost"}, names=NAMES, now=NOW)
    assert after.authority.certificate == made.successor.certificate
    assert old.certificate in after.retired, "replicas that did not notice yet are still trusted"
    assert notes[0] == "the certificate authority in ca.crt has no key that can be read"


_VALUES = ["", "garbage", "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", *DAMAGED[0].values()]


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from([*DAMAGED[0], "next-ca.crt", "next-ca.key", "x"]), st.sampled_from(_VALUES)))
def test_whatever_the_secret_holds_something_usable_comes_of_it(found):
    """And the second look finds nothing to do."""
    material, _ = renew(found, names=NAMES, now=NOW)
    material.serving.certificate.verify_directly_issued_by(material.authority.certificate)
    again, nothing = renew(material.entries(), names=NAMES, now=NOW)
    assert nothing == []
    assert again.entries() == material.entries()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 1500), min_size=1, max_size=25))
def test_through_the_decades_the_certificate_is_always_of_a_published_authority(steps):
    """However irregular the looks; never shown after its end, and the Secret stays small."""
    found, now = {}, NOW
    for days in steps:
        material, _ = renew(found, names=NAMES, now=now)
        found = material.entries()
        serving = material.serving.certificate
        serving.verify_directly_issued_by(material.authority.certificate)
        assert serving.not_valid_before_utc < now < serving.not_valid_after_utc
        assert serving.not_valid_after_utc <= material.authority.certificate.not_valid_after_utc
        assert material.bundle.count("BEGIN") <= 6
        now += timedelta(days=days)


def test_a_clock_that_is_late_is_tolerated():
    """Certificates are valid since an hour before they are made; due at two thirds."""
    authority = new_authority(now=NOW)
    leaf = issue(authority, NAMES, now=NOW).certificate
    assert leaf.not_valid_before_utc == NOW - timedelta(hours=1)
    assert not due(leaf, now=NOW - timedelta(minutes=50))
    assert not due(leaf, now=NOW + DAY * 59)
    assert due(leaf, now=NOW + DAY * 60)


async def test_the_private_key_is_in_no_file_and_in_no_descriptor(tmp_path, monkeypatch):
    """Loaded through memory of this process alone."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    made, real = [], os.memfd_create

    def memfd(*args):
        made.append(real(*args))
        return made[-1]

    monkeypatch.setattr(os, "memfd_create", memfd)
    one = keeper(Store())
    await one.sync()
    assert len(made) == 1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(made[0])
    assert list(tmp_path.iterdir()) == []


def _configuration(*services):
    return {
        "metadata": {"name": "hookline"},
        "webhooks": [
            {"name": f"w{index}", "clientConfig": {"service": {"name": name, "namespace": namespace}}}
            for index, (name, namespace) in enumerate(services)
        ],
    }


async def test_the_api_server_is_made_to_trust_our_entries_and_no_others():
    """Patched where it differs, and again where somebody spoils it."""
    store = Store()
    ours = ("hookline-operator", "hookline-system")
    for kind in ("mutating", "validating"):
        config = _configuration(ours, ("hookline-operator", "elsewhere"), ("other", "hookline-system"), ours)
        config["webhooks"].append({"name": "by-url", "clientConfig": {"url": "https://example.org"}})
        store.put(WEBHOOKS.format(f"{kind}webhookconfigurations"), config)
    one = keeper(store, webhooks="hookline")
    await one.sync()
    bundle = base64.b64encode(one.bundle.encode()).decode()
    where = WEBHOOKS.format("mutatingwebhookconfigurations")
    for kind in ("mutating", "validating"):
        entries_ = store.objects[WEBHOOKS.format(f"{kind}webhookconfigurations")]["webhooks"]
        assert [entry["clientConfig"].get("caBundle") for entry in entries_] == [bundle, None, None, bundle, None]
    writes = len(store.writes)
    await one.sync()
    assert len(store.writes) == writes
    store.objects[where]["webhooks"][0]["clientConfig"]["caBundle"] = "c3BvaWx0"
    await one.sync()
    assert store.writes[writes:] == [where]
    assert store.objects[where]["webhooks"][0]["clientConfig"]["caBundle"] == bundle


async def test_replicas_that_introduce_themselves_together_agree():
    """Conflicts are looked at again."""
    store = Store()
    for kind in ("mutating", "validating"):
        where = WEBHOOKS.format(f"{kind}webhookconfigurations")
        store.put(where, _configuration(("hookline-operator", "hookline-system")))
    keepers = [keeper(store, webhooks="hookline") for _ in range(4)]
    await asyncio.gather(*(each.sync() for each in keepers))
    bundle = base64.b64encode(keepers[0].bundle.encode()).decode()
    for kind in ("mutating", "validating"):
        where = WEBHOOKS.format(f"{kind}webhookconfigurations")
        assert store.objects[where]["webhooks"][0]["clientConfig"]["caBundle"] == bundle
        assert store.writes.count(where) == 1
    assert all(each.not_ready() == [] for each in keepers)


async def test_without_a_webhook_configuration_the_rest_goes_on(caplog):
    """A chart may have none."""
    one = keeper(Store(), webhooks="hookline")
    await one.sync()
    assert one.not_ready() == []
    await one.sync()
    assert caplog.text.count("mutatingwebhookconfigurations/hookline") == 1, "said once"


async def test_an_api_server_that_goes_away_takes_no_readiness_with_it():
    """What was there once goes on until it expires."""
    store, clock = Store(), [NOW]
    one = keeper(store, now=lambda: clock[0])
    store.broken = KubeError(0, "the API server cannot be reached")
    with pytest.raises(KubeError):
        await one.sync()
    assert one.not_ready() == ["there is no serving certificate yet"]
    store.broken = None
    await one.sync()
    store.broken = KubeError(0, "the API server cannot be reached")
    with pytest.raises(KubeError):
        await one.sync()
    assert one.not_ready() == []
    clock[0] += SERVING_LIFE + DAY
    assert one.not_ready() == ["the serving certificate has expired, and no new one could be stored"]


async def test_the_keeper_runs_on_when_the_api_server_refuses(monkeypatch, caplog):
    """It says so, waits and looks again."""
    pauses = []
    real = asyncio.sleep

    async def sleep(seconds):
        if seconds:
            pauses.append(seconds)
            if len(pauses) == 4:
                store.broken = None
        await real(0)

    store = Store()
    store.broken = KubeError(403, "secrets is forbidden")
    one = keeper(store)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    task = asyncio.create_task(one.run())
    while len(pauses) < 5:
        await real(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "secrets is forbidden" in caplog.text
    assert one.not_ready() == []
    assert pauses[0] < pauses[2] <= 36
    assert pauses[4] >= 24


async def test_a_namespace_that_is_missing_is_an_error_and_no_conflict():
    """It would be tried again without end."""

    class Missing(Store):
        async def request(self, method, where, **_):
            await self._turn()
            raise KubeError(404, f"namespaces not found: {method} {where}")

    with pytest.raises(KubeError, match="namespaces not found"):
        await keeper(Missing()).sync()


def test_the_kube_client_is_an_api():
    """What the operator passes fits the protocol, by name and by kind of argument."""
    import inspect

    from hookline_operator.cluster.kube import Kube
    from hookline_operator.webhooks.certificates import Api

    for name in ("get", "request"):
        wanted = inspect.signature(getattr(Api, name)).parameters
        has = inspect.signature(getattr(Kube, name)).parameters
        assert {key for key, each in wanted.items() if each.kind is each.KEYWORD_ONLY} <= {*has}
        assert inspect.iscoroutinefunction(getattr(Kube, name))
