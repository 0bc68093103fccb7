"""What no honest service makes: certificates and log entries that nearly fit prove nothing."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

import keyless_cases as cases
from hookline_artifacts.errors import ConfigError
from hookline_artifacts.trust import keyless
from hookline_artifacts.trust.evidence import Signature
from own_sigstore import ISSUER, SUBJECT, OwnSigstore, at

DIGEST = "sha256:" + "1" * 64
OTHER = "sha256:" + "2" * 64
SIGNER = cases.identity(issuer=ISSUER, subject=SUBJECT)


@pytest.fixture(scope="module")
def own():
    """An authority that a test believes."""
    return OwnSigstore()


def _judged(own, *signatures, by=SIGNER, root=None):
    return cases.judged(cases.asked(by, root=root or own.root()), cases.evidence_of(DIGEST, *signatures))


def _refused(own, *signatures, by=SIGNER, root=None):
    return cases.refusal(cases.asked(by, root=root or own.root()), cases.evidence_of(DIGEST, *signatures))


def test_what_the_tests_below_alter_counts_as_it_is(own):
    """Though its certificate is over for long: it was not, when the log took the signature."""
    (proof,) = _judged(own, own.bundle(DIGEST))
    assert (proof.identity, proof.log_index, proof.time) == (SUBJECT, 7, "2025-01-10T12:05:00Z")


def test_an_authority_that_made_itself_is_believed_by_nobody(own):
    """Neither with its own root in the bundle, nor with a log entry that is in order."""
    stranger = OwnSigstore()
    stranger.ct, stranger.log = own.ct, own.log

    def with_chain(made):
        material = made["verificationMaterial"]
        root = {"rawBytes": base64.b64encode(stranger.certificate.public_bytes(Encoding.DER)).decode()}
        material["x509CertificateChain"] = {"certificates": [material.pop("certificate"), root]}
        made["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=0.2"

    for change in (None, with_chain):
        assert "certificate chain" in _refused(own, stranger.bundle(DIGEST, change=change))
    assert _judged(stranger, stranger.bundle(DIGEST, change=with_chain))


@pytest.mark.parametrize("when", [at(10, 11), at(9), at(20)])
def test_a_certificate_counts_at_its_own_time_alone(own, when):
    """A minute late is too late, and before it was made as well."""
    assert "not valid at" in _refused(own, own.bundle(DIGEST, when=when))


def test_an_entry_of_another_artifact_is_no_entry_of_this(own):
    """The log's word is good, and about something else; also by the same identity and the same certificate."""
    certified = own.certify()
    other = json.loads(own.bundle(OTHER, certified=certified).payload)["verificationMaterial"]["tlogEntries"][0]
    assert "does not match" in _refused(own, own.bundle(DIGEST, certified=certified, entry=other))


def test_an_entry_by_the_key_of_another_log_is_none(own):
    """Also where that log is one of certificates, which the root names."""
    for key in (own.ct, OwnSigstore().log):
        assert "invalid signature" in _refused(own, own.bundle(DIGEST, log=key))


def test_a_promise_by_another_log_beside_a_proof_in_order(own):
    """Both are verified where both are there: the time is the promise's."""

    def change(made):
        (entry,) = made["verificationMaterial"]["tlogEntries"]
        body = base64.b64decode(entry["canonicalizedBody"])
        entry["inclusionPromise"] = own.entry(body, log=own.ct)["inclusionPromise"]

    assert "promise" in _refused(own, own.bundle(DIGEST, change=change))


def test_a_certificate_that_is_in_no_log_of_certificates(own):
    """Or in one that the root does not name."""
    for ct in (False, own.log, OwnSigstore().ct):
        assert "SCT" in _refused(own, own.bundle(DIGEST, certified=own.certify(ct=ct)))


@pytest.mark.parametrize("name", ["tlogs", "ctlogs", "certificateAuthorities"])
@pytest.mark.parametrize(
    "when", [{"start": "2025-01-11T00:00:00Z"}, {"start": "2024-01-01T00:00:00Z", "end": "2025-01-09T00:00:00Z"}]
)
def test_who_was_not_to_be_trusted_then_proves_nothing(own, name, when):
    """A root says from when to when; whoever steals the key of a log that is closed signs nothing with it."""
    parts = json.loads(own.root())[name]
    for each in parts:
        (each if name == "certificateAuthorities" else each["publicKey"])["validFor"] = when
    assert "trusted then" in _refused(own, own.bundle(DIGEST), root=own.root(**{name: parts}))


@pytest.mark.parametrize(
    ("subject", "by"),
    [
        ("https://github.com/acme-evil/plugins/.github/workflows/x.yml@refs/tags/v1", "https://github.com/acme"),
        ("https://github.com/acme.evil/plugins/.github/workflows/x.yml@refs/tags/v1", "https://github.com/acme"),
        ("https://github.com@evil.example/acme/x", "https://github.com"),
        ("https://github.com:8443/acme/x", "https://github.com"),
        ("https://github.com.evil.example/acme/x", "https://github.com"),
        ("release@acme.org.evil.example", "release@acme.org"),
        ("https://evil.example/https://github.com/acme/", "https://github.com/acme/"),
    ],
)
def test_a_name_that_only_begins_alike_is_not_meant(own, subject, by):
    """What a prefix names ends where a name ends."""
    names = None if "://" in subject else [x509.RFC822Name(subject)]
    signature = own.bundle(DIGEST, certified=own.certify(subject=subject, names=names))
    assert "it is signed by" in _refused(own, signature, by=cases.identity(issuer=ISSUER, subjectPrefix=by))


@pytest.mark.parametrize("source", ["acme-evil/plugins", "acme/a/b", "", "ACME/x"])
def test_another_source_repository_is_not_meant(own, source):
    """Nor is a certificate that names none: its subject is no repository."""
    signature = own.bundle(DIGEST, certified=own.certify(source=source and f"https://github.com/{source}"))
    assert _refused(own, signature, by=cases.identity(issuer=ISSUER, repository="https://github.com/acme/*"))


@pytest.mark.parametrize(
    "names",
    [
        [x509.DNSName("github.com")],
        [x509.RFC822Name("https://github.com/acme/x")],
        [x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.7"), b"\x0c\x03://")],
        [x509.OtherName(x509.ObjectIdentifier("1.2.3.4"), b"\x0c\x01a")],
        [x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.7"), b"\x04\x01a")],
        [x509.RegisteredID(x509.ObjectIdentifier("1.2.3.4"))],
        [x509.UniformResourceIdentifier(SUBJECT), x509.UniformResourceIdentifier("https://evil.example")],
        [x509.UniformResourceIdentifier(SUBJECT)] * 200,
    ],
    ids=["host", "mail", "user", "other", "broken", "id", "two", "many"],
)
def test_a_name_of_another_kind_is_no_subject(own, names):
    """A URL counts as a URL alone, and a certificate has one name."""
    signature = own.bundle(DIGEST, certified=own.certify(names=names))
    by = cases.identity(issuer=ISSUER, subjectPrefix="https://github.com")
    assert "does not count" in _refused(own, signature, by=by)


def test_a_mail_address_and_a_user_name_are_subjects(own):
    """Exactly."""
    user = x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.7"), b"\x0c\x07a!acme!")
    for name, text in ((x509.RFC822Name("a@acme.org"), "a@acme.org"), (user, "a!acme!")):
        signature = own.bundle(DIGEST, certified=own.certify(names=[name]))
        assert _judged(own, signature, by=cases.identity(issuer=ISSUER, subject=text))
        assert _refused(own, signature, by=cases.identity(issuer=ISSUER, subject=text + "x"))


def test_an_issuer_is_the_certificate_s_and_exactly_that(own):
    """The newer of the two places, where both are there."""
    old = ("1", b"https://accounts.google.com")
    signature = own.bundle(DIGEST, certified=own.certify(issuer="https://evil.example", more=[old]))
    for issuer in (ISSUER, old[1].decode(), "https://evil.example/"):
        assert "it is signed by" in _refused(own, signature, by=cases.identity(issuer=issuer, subject=SUBJECT))
    assert _judged(own, signature, by=cases.identity(issuer="https://evil.example", subject=SUBJECT))


def test_what_is_not_signed_with_a_certificate_s_key_is_refused(own):
    """The certificate of somebody else, whose signature is nowhere."""
    (certificate, _), (_, key) = own.certify(), own.certify()
    assert "does not count" in _refused(own, own.bundle(DIGEST, certified=(certificate, key)))


@pytest.mark.parametrize("kind", ["application/vnd.dev.sigstore.bundle.v0.9+json", "", "application/json", 3])
def test_a_bundle_of_another_kind_is_refused(own, kind):
    """Nobody knows what it would have to hold."""
    assert _refused(own, own.bundle(DIGEST, change=lambda made: made.update(mediaType=kind)))


def _more(made, **parts):
    made["verificationMaterial"].update(parts)


def _entry(made):
    return made["verificationMaterial"]["tlogEntries"][0]


def _checkpoint(made, text):
    _entry(made)["inclusionProof"]["checkpoint"]["envelope"] = text


def _stamps(made, number):
    _more(made, timestampVerificationData={"rfc3161Timestamps": [{"signedTimestamp": "AAAA"}] * number})


_MESSAGE = {"messageDigest": {"algorithm": "SHA2_256", "digest": "A" * 43 + "="}, "signature": "AAAA"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda m: _more(m, x509CertificateChain={"certificates": [{"rawBytes": "AAAA"}] * 500}), "certificates"),
        (lambda m: _more(m, certificate={"rawBytes": "A" * 20_000}), "too large"),
        (lambda m: _more(m, tlogEntries=m["verificationMaterial"]["tlogEntries"] * 100), "100 log entries"),
        (lambda m: _more(m, tlogEntries=[]), "0 log entries"),
        (lambda m: _entry(m)["kindVersion"].update(kind="intoto"), "of the kind 'intoto'"),
        (lambda m: _entry(m).pop("inclusionProof"), "no inclusion proof"),
        (lambda m: _entry(m)["inclusionProof"].update(hashes=["AAAA"] * 65), "long"),
        (lambda m: _checkpoint(m, "x" * 20_000), "long"),
        (lambda m: _checkpoint(m, f"x\n{'9' * 9000}\nAAAA\n\n\u2014 x AAAAAAAA\n"), "does not count"),
        (lambda m: _stamps(m, 5), "5 time stamps"),
        (lambda m: _stamps(m, 1), "does not count"),
        (lambda m: m["dsseEnvelope"].update(signatures=m["dsseEnvelope"]["signatures"] * 9), "exactly one"),
        (lambda m: m.update(messageSignature=_MESSAGE), "does not count"),
        (lambda m: _more(m, certificate={"rawBytes": "MIIB"}), "does not count"),
        (lambda m: _more(m, certificate=None), "does not count"),
    ],
)  # fmt: skip
def test_a_bundle_with_too_much_or_nonsense_is_refused(own, change, why):
    """Before anything of it is verified, where there is too much."""
    assert why in _refused(own, own.bundle(DIGEST, change=change))


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b"null", b'{"verificationMaterial": 1}', b"[" * 5000, b"\xff" * 64]
)
def test_nonsense_in_place_of_a_bundle_is_none(own, text):
    """And hides no good one."""
    junk = [Signature(form=form, payload=text) for form in ("bundle", "dsse", "simple")]
    junk += [Signature(form="simple", payload=text, annotations={keyless.CERTIFICATE: text.decode("latin-1")})]
    assert _refused(own, *junk)
    assert _judged(own, *junk, own.bundle(DIGEST))


@pytest.mark.parametrize("name", [keyless.CERTIFICATE, keyless.ENTRY, keyless.STAMP])
@pytest.mark.parametrize("text", ["", "{}", "x" * 600_000, "[" * 9000, '{"Payload": {"body": "e30="}}'])
def test_nonsense_in_annotations_is_refused(name, text):
    """In each of them, however long."""
    signature = cases.material("signed-2-stamped").signatures[0]
    made = Signature(
        form="simple",
        payload=signature.payload,
        signature=signature.signature,
        annotations=signature.annotations | {name: text},
    )
    evidence = cases.evidence_of(cases.material("signed-2-stamped").digest, made)
    if name == keyless.STAMP and not text:
        assert cases.judged(cases.asked(cases.identity()), evidence)  # as cosign leaves it where nobody stamps
    else:
        assert cases.refusal(cases.asked(cases.identity()), evidence)


def test_a_hundred_bad_ones_hide_no_good_one(own):
    """Each is looked at."""
    bad = [own.bundle(DIGEST, when=at(20)) for _ in range(3)] * 20
    assert _judged(own, *bad, own.bundle(DIGEST))


def test_what_is_signed_of_another_digest_does_not_count(own):
    """The right identity, and the wrong artifact."""
    assert "another digest" in _refused(own, own.bundle(OTHER))


@pytest.mark.parametrize("name", ["tlogs", "ctlogs", "certificateAuthorities"])
def test_a_root_that_lacks_a_part_or_has_too_many_is_told(own, name):
    """It could prove nothing, or take a morning."""
    parts = json.loads(own.root())[name]
    for wrong in ([], parts * 33):
        with pytest.raises(ConfigError, match=r"^here: there is no trust root"):
            keyless.check_root(own.root(**{name: wrong}), "here")


def test_a_root_has_not_more_stampers_than_each_stamp_can_be_held_against(own):
    """With 32 of them and four stamps, one signature of 512 would take a twentieth of a second."""
    (stamper,) = json.loads(cases.ROOT)["timestampAuthorities"]
    assert keyless.check_root(own.root(timestampAuthorities=[stamper] * 8), "here")
    with pytest.raises(ConfigError, match="more than 8 time stamp authorities"):
        keyless.check_root(own.root(timestampAuthorities=[stamper] * 9), "here")


def test_of_hundreds_of_good_ones_no_more_are_verified_than_it_takes(own, monkeypatch):
    """Each takes milliseconds, and an artifact that is signed each night has them all."""
    verified, inner = [], keyless.verify
    monkeypatch.setattr(keyless, "verify", lambda *args: verified.append(1) or inner(*args))
    certified = own.certify()
    other = own.bundle(DIGEST, certified=own.certify(subject=SUBJECT.replace("release", "other")))
    good = [own.bundle(DIGEST, certified=certified, index=number) for number in range(20)]
    assert _judged(own, other, *good)
    assert len(verified) == 2
    assert _refused(own, other, *good, by=cases.identity(issuer=ISSUER, subject="https://github.com/acme/nobody"))
    assert len(verified) == 2 + 21
