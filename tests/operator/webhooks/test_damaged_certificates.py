"""Whatever the Secret holds, something usable comes of it, and the private key stays in memory."""

from __future__ import annotations

import base64
import os
import ssl
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from certificate_stores import DAY, NAMES, NOW, SECRET, Store, entries, keeper, shown
from hookline_operator.cluster.authority import (
    AUTHORITY_LIFE,
    OVERLAP,
    KeyPair,
    Material,
    due,
    issue,
    new_authority,
    renew,
)


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
