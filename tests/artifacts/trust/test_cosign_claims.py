"""What a signature says is believed as far as it is signed, and no further."""

from __future__ import annotations

import base64
import contextlib
import json
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import signed_artifacts as signed
from hookline_api.trust import Signatures
from hookline_artifacts.errors import SignatureError
from hookline_artifacts.limits import parse_foreign
from hookline_artifacts.trust import cosign, trial, verdict
from hookline_artifacts.trust.cosign import NotAClaimError, claim_of
from hookline_artifacts.trust.evidence import Evidence, Signature
from hookline_artifacts.trust.keys import read_pem
from hookline_artifacts.trust.requirement import load
from hookline_artifacts.trust.verdict import Subject, judge

DIGEST = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32
SBOM = "https://spdx.dev/Document"
OURS = signed.Key()
STRANGER = signed.Key()
KEY = read_pem(OURS.pem, what="it")


def simple(signer=OURS, digest=DIGEST, name=signed.NAME):
    """Simple signing, as it is collected."""
    payload, signature = signer.simple(digest, name)
    return Signature(form="simple", payload=payload, signature=signature)


def bundle(signer=OURS, digest=DIGEST, **more):
    """A bundle, as it is collected."""
    return Signature(form="bundle", payload=signer.bundle(digest, **more))


def dsse(signer=OURS, digest=DIGEST, **more):
    """An envelope, as it is collected."""
    return Signature(form="dsse", payload=json.dumps(signer.envelope(digest, **more)).encode())


async def judged(*signatures, repository=signed.NAME, plugin="guard", notes=(), digest=DIGEST, **asked):
    """The verdict on these."""
    asked = asked or {"anyOf": [signed.signer(OURS.pem, signed_as=())]}
    requirement = await load(
        Signatures.model_validate(asked), objects=signed.NoObjects(), namespace="apps", base=None, where="spec.verify"
    )
    evidence = Evidence(digest=digest, signatures=tuple(signatures), notes=notes)
    subject = Subject(repository=repository, plugin=plugin, digests=frozenset({digest}))
    return judge(requirement, evidence, subject, whose="spec.verify")


def changed(signature, *path, to):
    """The same with another value in its envelope."""
    data = json.loads(signature.payload)
    node = data
    for name in path[:-1]:
        node = node[name]
    node[path[-1]] = to
    return Signature(form=signature.form, payload=json.dumps(data).encode(), signature=signature.signature)


@pytest.mark.parametrize("make", [simple, bundle])
async def test_a_good_signature_counts_beside_bad_ones(make):
    """Before and after it: strangers', broken ones, others' digests and statements."""
    bad = [
        make(STRANGER), make(digest=OTHER), dsse(STRANGER), bundle(predicate_type=SBOM),
        Signature(form="simple", payload=b"", signature=b""), Signature(form="bundle", payload=b"[" * 50_000),
        Signature(form="dsse", payload=b"null"), Signature(form="ed25519", payload=b"", signature=b"x" * 64),
    ]  # fmt: skip
    good = make()
    (proof,) = await judged(*bad, good, *bad)
    assert (proof.signature, proof.key) == (good, KEY.id)


@pytest.mark.parametrize("form", ["bundle", "dsse"])
def test_an_envelope_s_type_is_signed_and_is_in_toto_s(form):
    """Another type changes what is signed, and one that was signed so is no statement."""
    make = {"bundle": bundle, "dsse": dsse}[form]
    path = ("dsseEnvelope", "payloadType") if form == "bundle" else ("payloadType",)
    assert claim_of(make(), KEY).digests == {DIGEST}
    for other in ("application/json", "application/vnd.in-toto+json ", "", None, 7, ["application/vnd.in-toto+json"]):
        with pytest.raises(NotAClaimError):
            claim_of(changed(make(), *path, to=other), KEY)
    with pytest.raises(NotAClaimError):
        claim_of(make(kind="application/json"), KEY)


def test_a_payload_that_was_changed_is_not_signed():
    """The claim comes from the bytes that the signature covers."""
    data = json.loads(bundle().payload)
    statement = base64.b64decode(data["dsseEnvelope"]["payload"]).replace(b"ab", b"cd")
    assert claim_of(changed(bundle(), "dsseEnvelope", "payload", to=base64.b64encode(statement).decode()), KEY) is None
    payload, signature = OURS.simple(DIGEST)
    other = Signature(form="simple", payload=payload.replace(b"ab", b"cd"), signature=signature)
    assert claim_of(other, KEY) is None


def test_a_good_signature_of_several_in_an_envelope_counts():
    """Beside one that is no base64, and one of a stranger."""
    envelope = OURS.envelope(DIGEST)
    envelope["signatures"] = [{"sig": "?"}, {}, 7, STRANGER.envelope(DIGEST)["signatures"][0], *envelope["signatures"]]
    found = Signature(form="dsse", payload=json.dumps(envelope).encode())
    assert claim_of(found, KEY).digests == {DIGEST}


@pytest.mark.parametrize(
    "critical",
    [
        {},
        {"type": "atomic container signature"},
        {"image": {"docker-manifest-digest": "sha512:" + "0" * 128}},
        {"image": {"docker-manifest-digest": DIGEST.upper()}},
        {"image": {"docker-manifest-digest": [DIGEST]}},
        {"image": DIGEST},
        {"identity": {"docker-reference": ["registry.example/acme/plugin"]}},
    ],
)
def test_a_payload_that_is_not_simple_signing_is_no_claim(critical):
    """Though it is signed by the right key."""
    good = json.loads(OURS.simple(DIGEST)[0])["critical"]
    payload = json.dumps({"critical": {**good, **critical} if critical else {}}).encode()
    with pytest.raises(NotAClaimError):
        claim_of(Signature(form="simple", payload=payload, signature=OURS.sign(payload)), KEY)


@pytest.mark.parametrize("field", ["_type", "subject", "predicateType"])
@pytest.mark.parametrize("value", [None, "", 7, [], {}, "https://in-toto.io/Statement/v2"])
async def test_a_statement_that_makes_no_sense_is_no_signature(field, value):
    """Without a type it would pass for a bare signature; a wrong subject is about nothing."""
    statement = json.loads(base64.b64decode(OURS.envelope(DIGEST)["payload"]))
    statement[field] = value
    text = json.dumps(statement).encode()
    envelope = {
        "payload": base64.b64encode(text).decode(), "payloadType": signed.IN_TOTO,
        "signatures": [{"sig": base64.b64encode(OURS.sign(cosign.pae(signed.IN_TOTO, text))).decode()}],
    }  # fmt: skip
    with pytest.raises(SignatureError):
        await judged(Signature(form="dsse", payload=json.dumps(envelope).encode()))


LEAVES = st.none() | st.integers() | st.text(max_size=5)
NAMES = st.sampled_from(["dsseEnvelope", "payload", "payloadType", "signatures", "critical", "sig"])


@settings(max_examples=40)
@given(st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner), max_leaves=8))
def test_any_json_is_read_without_another_exception(value):
    """In every form."""
    for form in ("simple", "bundle", "dsse", "ed25519"):
        with contextlib.suppress(NotAClaimError):
            assert claim_of(Signature(form=form, payload=json.dumps(value).encode()), KEY) is None


async def test_docker_hub_s_names_are_one():
    """Signers write index.docker.io where references say docker.io."""
    assert await judged(simple(name="index.docker.io/acme/plugin"), repository="docker.io/acme/plugin")
    for name in ("index.docker.io/acme/other", "docker.io/acme/plugin/more", "docker.io/acme"):
        with pytest.raises(SignatureError, match="for the repository"):
            await judged(simple(name=name), repository="docker.io/acme/plugin")


SENTENCES = {
    "nothing": ([], "it has no signature; sign sha256:ab"),
    "one of others": ([simple(STRANGER)], "its signature is by other keys; sign"),
    "two of others": ([simple(STRANGER), bundle(STRANGER)], "its 2 signatures are by other keys; sign"),
    "another digest": ([bundle(digest=OTHER)], "what they have signed is another digest; have them sign"),
    "others' other digest": ([bundle(STRANGER, digest=OTHER)], "its signature is of another digest; sign"),
    "another repository": ([simple(name="ghcr.io/evil/p")], "for the repository ghcr.io/evil/p; have them sign it"),
    "a statement": ([bundle(predicate_type=SBOM)], f"only attested {SBOM}, and that is no signature"),
    "malformed": ([Signature(form="bundle", payload=b"{}")] * 3, "its 3 signatures are malformed; sign"),
    "the nearest": (
        [simple(STRANGER), bundle(digest=OTHER), simple(name="ghcr.io/evil/p"), simple(STRANGER)],
        "for the repository ghcr.io/evil/p",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SENTENCES)
async def test_a_refusal_says_what_there_is_instead(name):
    """What happened, why, and what to do: of several reasons that of the signature that came nearest."""
    signatures, words = SENTENCES[name]
    with pytest.raises(SignatureError) as caught:
        await judged(*signatures)
    text = str(caught.value)
    assert words in text
    assert text.startswith(f"spec.verify: it is not signed by {KEY.id:.19}: ")
    assert len(text) <= 400


async def test_a_hint_is_shown_and_not_believed():
    """A bundle that says that it is by our key is a stranger's for all that."""
    data = json.loads(STRANGER.bundle(DIGEST))
    hint = base64.b64encode(bytes.fromhex(KEY.id.removeprefix("sha256:"))).decode()
    data["verificationMaterial"] = {"publicKey": {"hint": hint}}
    with pytest.raises(SignatureError, match=f"by other keys .{KEY.id:.19}."):
        await judged(Signature(form="bundle", payload=json.dumps(data).encode()))


async def test_no_name_makes_a_sentence_long():
    """Whatever strangers called their things, it is one line of 400 characters."""
    data = json.loads(STRANGER.bundle(DIGEST))
    data["verificationMaterial"] = {"publicKey": {"hint": "h\n" * 64}}
    worst = [
        simple(name="r" * 5000), bundle(predicate_type="https://p/" + "p" * 5000),
        Signature(form="bundle", payload=json.dumps(data).encode()),
    ]  # fmt: skip
    signers = [signed.signer(OURS.pem, signed_as=(), name="n" * 63) for _ in range(16)]
    notes = ("99 more referrers not opened: remove old ones", "99 more not readable")
    for some in (worst[:1], worst[1:2], worst[2:], worst, []):
        with pytest.raises(SignatureError) as caught:
            await judged(*some, repository="registry.example/" + "a" * 500, notes=notes, anyOf=signers)
        text = str(caught.value)
        assert len(text) <= 400, text
        assert "\n" not in text


async def test_the_work_on_one_artifact_is_bounded(monkeypatch):
    """Hundreds of strangers' signatures, and as many keys: a good one that is about the artifact is tried first."""
    tried = []
    has_signed = type(KEY).has_signed
    monkeypatch.setattr(type(KEY), "has_signed", lambda key, s, m: tried.append(1) or has_signed(key, s, m))
    strangers = [bundle(STRANGER, digest=OTHER, predicate={"n": n}) for n in range(500)]
    keys = [signed.signer(signed.Key().pem, signed_as=()) for _ in range(15)]
    (proof,) = await judged(*strangers, bundle(), anyOf=[signed.signer(OURS.pem, signed_as=()), *keys])
    assert proof.key == KEY.id
    assert len(tried) <= cosign.MAX_TRIED

    tried.clear()
    about = [bundle(STRANGER, predicate={"n": n}) for n in range(500)]
    with pytest.raises(SignatureError, match=f"{cosign.MAX_TRIED} pairs are tried"):
        await judged(*about, anyOf=keys)
    assert len(tried) == cosign.MAX_TRIED


async def test_each_signature_is_read_once(monkeypatch):
    """However many signers there are."""
    read = []
    monkeypatch.setattr(cosign, "parse_foreign", lambda text: read.append(1) or parse_foreign(text))
    signers = [signed.signer(signed.Key().pem, signed_as=()) for _ in range(8)]
    await judged(simple(), simple(STRANGER), anyOf=[*signers, signed.signer(OURS.pem, signed_as=())])
    assert len(read) == 2


async def test_signatures_are_verified_on_a_thread(server, resolve_signed, monkeypatch):
    """The event loop goes on meanwhile."""
    signed.put(server, "simple-p256", "acme/p")
    where = []

    def watched(*args, **more):
        where.append(threading.current_thread())
        return judge(*args, **more)

    assert trial.judge is verdict.judge
    monkeypatch.setattr(trial, "judge", watched)
    await resolve_signed(server.source("acme/p:v1"), anyOf=[signed.signer(signed.KEYS["p256"])])
    assert where
    assert threading.main_thread() not in where
