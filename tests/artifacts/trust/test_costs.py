"""Whoever may push to a repository may put megabytes beside an artifact: to look through them costs little."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import threading
import tracemalloc
from types import SimpleNamespace

import pytest
from aiohttp import web

from hookline_artifacts import limits
from hookline_artifacts.errors import SignatureError
from hookline_artifacts.package.layouts import Descriptor, read_list, read_manifest
from hookline_artifacts.trust import collect as collecting
from hookline_artifacts.trust import cosign, direct, patterns, provenance, trial
from hookline_artifacts.trust.attestations import why_not
from hookline_artifacts.trust.collect import BUNDLE, collect
from hookline_artifacts.trust.evidence import Evidence, Signature
from hookline_artifacts.trust.keys import read_pem
from hookline_artifacts.trust.requirement import Authority, Requirement
from hookline_artifacts.trust.trial import Trial
from hookline_artifacts.trust.verdict import judge, subject_of
from signing import SigningKey

MIB = 2**20
SMALL = ["[]", '{"":0}', '{"":{"":{}}}']
"""Values that take 20 to 40 times their bytes in memory."""


def digest(data):
    """As OCI writes it."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


MANIFEST = json.dumps({"layers": [{"mediaType": "application/wasm", "digest": digest(b"m"), "size": 1}]}).encode()
ARTIFACT = digest(MANIFEST)


class Place:
    """A repository of one artifact, and what somebody has put beside it."""

    def __init__(self):
        self.documents = {ARTIFACT: MANIFEST}
        self.blobs = {}
        self.listed = []

    def refer(self, layer, payload):
        """One referrer with a layer."""
        self.blobs[digest(payload)] = payload
        named = {"mediaType": BUNDLE, "digest": digest(payload), "size": len(payload), **layer}
        document = json.dumps({"layers": [named], "subject": {"digest": ARTIFACT}}, separators=(",", ":")).encode()
        self.documents[digest(document)] = document
        self.listed.append(
            Descriptor(media_type="", digest=digest(document), size=len(document), annotations={}, platform={},
                       artifact_type=BUNDLE)
        )  # fmt: skip

    async def manifest(self, name, *, most=None):
        """By its digest."""
        del most
        return self.documents[name]

    async def tagged(self, tag, *, most=None):
        """Nothing."""
        del tag, most

    async def referrers(self, _digest):
        """All, of any."""
        return self.listed

    async def blob(self, name, into):
        """By its digest."""
        into.write(self.blobs[name])
        into.finish()


def envelope(value, number, size=60_000):
    """A bundle with a statement about the artifact, full of one small value."""
    head = json.dumps({
        "_type": "https://in-toto.io/Statement/v1", "predicateType": "x", "number": number,
        "subject": [{"digest": {"sha256": ARTIFACT.removeprefix("sha256:")}}],
    })  # fmt: skip
    statement = f'{head[:-1]}, "predicate": [{",".join([value] * (size // (len(value) + 1)))}]}}'
    payload = base64.b64encode(statement.encode()).decode()
    dsse = {"payloadType": cosign.IN_TOTO, "payload": payload, "signatures": [{"sig": "AAAA"}]}
    return json.dumps({"dsseEnvelope": dsse, "verificationMaterial": {}}).encode()


def kept(work):
    """What work gives, and how many bytes are held for it beyond those that were."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        made = work()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return made, after - before


@pytest.mark.parametrize("value", SMALL)
def test_predicates_are_not_kept(value):
    """Of a statement its subject, its type and its provenance are asked about, and nothing else is held."""
    found = [Signature(form="bundle", payload=envelope(value, number)) for number in range(40)]
    read, held = kept(lambda: cosign.Signatures(found, frozenset({ARTIFACT})))
    assert (len(read), read.about) == (40, 40)
    # What is signed is held once, to be verified.
    assert held < 40 * 60_000 + MIB


async def test_what_stands_beside_a_signature_is_not_kept():
    """Annotations may hold any JSON, and are as large as a manifest may be."""
    place = Place()
    for number in range(24):
        place.refer(
            {"annotations": {"junk": [{"": number}] * 7_000}, "platform": {"junk": [[]] * 1000}}, b"%d" % number
        )
    assert sum(map(len, place.documents.values())) > MIB
    collector = collecting._Collector(place, {ARTIFACT})

    def look():
        for each in place.listed:
            asyncio.run(collector._take(place.documents[each.digest]))

    _, held = await asyncio.to_thread(kept, look)
    assert len(collector._wanted) == 24
    assert held < MIB // 4


def keys(number):
    """Signers who have signed nothing."""
    return tuple(
        Authority(kind="key", label=f"k{i}", keys=(read_pem(SigningKey().pem, what="k"),)) for i in range(number)
    )


def blob_bundle(number):
    """One over a file, as ``cosign sign-blob`` leaves it."""
    return json.dumps({"messageSignature": {"signature": "AAAA"}, "number": number}).encode()


@pytest.fixture
def parsed(monkeypatch):
    """Every document that was parsed for a verdict."""
    found = []

    def parse(document):
        found.append(document)
        return limits.parse_foreign(document)

    monkeypatch.setattr(cosign, "parse_foreign", parse)
    monkeypatch.setattr(direct, "parse_foreign", parse)
    return found


def test_a_bundle_over_a_file_is_read_once_whoever_is_asked_for(parsed):
    """However many signers there are: for each anew, 64 bundles of 90 kB would take half a minute."""
    found = tuple(Signature(form="bundle", payload=blob_bundle(number)) for number in range(10))
    evidence = Evidence(digest=ARTIFACT, documents={ARTIFACT: MANIFEST}, signatures=found)
    subject = subject_of(evidence, repository="r.example/p", plugin="p")
    with pytest.raises(SignatureError):
        judge(Requirement(any_of=keys(12)), evidence, subject, whose="it")
    assert len(parsed) == len(set(parsed)) == 10


def test_twenty_policies_read_each_signature_once_and_try_each_key_once(parsed, monkeypatch):
    """What one has found out of a key the next one knows; each has as many pairs as it would have alone."""
    tried = []

    def has_signed(key, signature, message):
        tried.append((key.id, signature, message))
        return False

    monkeypatch.setattr("hookline_artifacts.trust.keys.PublicKey.has_signed", has_signed)
    found = [Signature(form="bundle", payload=envelope("[]", number, size=100)) for number in range(5)]
    found += [Signature(form="bundle", payload=blob_bundle(number)) for number in range(3)]
    evidence = Evidence(digest=ARTIFACT, documents={ARTIFACT: MANIFEST}, signatures=tuple(found))
    shared, policies = keys(2), []
    for number in range(20):
        requirement = Requirement(any_of=(*shared, *keys(1)), fingerprint=str(number))
        policies.append(
            SimpleNamespace(name=f"p{number}", label=f"p{number}", enforced=False, requirement=requirement, spec=None)
        )
    plugin = SimpleNamespace(metadata=SimpleNamespace(name="p"))
    monkeypatch.setattr(trial, "asked_by", lambda _: SimpleNamespace(repository="r.example/p"))
    judged = Trial(plugin, policies, None)
    judged.check_beside(evidence)
    assert len(judged.result().audits) == 20
    # An envelope and the statement in it.
    assert len(parsed) == len(set(parsed)) == 5 * 2 + 3
    assert len(tried) == len(set(tried)) == 5 * (2 + 20)


def test_each_requirement_has_its_own_bound(monkeypatch):
    """Whoever fills one policy's tries takes none of another's."""
    monkeypatch.setattr(cosign, "MAX_TRIED", 4)
    found = cosign.Signatures(
        [Signature(form="bundle", payload=envelope("[]", number, size=100)) for number in range(3)],
        frozenset({ARTIFACT}),
    )
    first, second, third = (read_pem(SigningKey().pem, what="k") for _ in range(3))
    found.begin()
    for key in (first, second):
        assert not list(found.by(key))
    assert found.exhausted
    found.begin()
    for key in (first, third):
        assert not list(found.by(key))
    assert not found.exhausted
    assert len(found._known) == 7


async def test_large_manifests_are_parsed_on_a_thread(monkeypatch):
    """Of megabytes a parser takes a tenth of a second; small ones are done sooner than a thread begins."""
    where = {}

    def read(document):
        where[len(document)] = threading.current_thread() is threading.main_thread()
        return read_manifest(document)

    monkeypatch.setattr(collecting, "read_manifest", read)
    place = Place()
    large = MANIFEST[:-1] + b', "annotations": {"a": "' + b"a" * MIB + b'"}}'
    place.documents[digest(large)] = large
    place.refer({}, b"small")
    place.refer({"annotations": {"a": "a" * 60_000}}, b"large")
    await collect(place, digest(large))
    assert [on_loop for _, on_loop in sorted(where.items())] == [True, False, False]


V1 = "https://slsa.dev/provenance/v1"


def from_sources(*uris, builder="https://builder.example"):
    """Provenance that does not tell which one it was built from."""
    return {
        "buildDefinition": {"resolvedDependencies": [{"uri": each} for each in uris]},
        "runDetails": {"builder": {"id": builder}},
    }


def claim(predicate):
    """A statement of provenance."""
    return cosign.Claim(digests=frozenset({ARTIFACT}), predicate_type=V1, provenance=provenance.read(V1, predicate))


@pytest.mark.parametrize(
    ("uris", "says"),
    [
        ([f"git+https://github.com/acme/{number}@r" for number in range(256)], None),
        ([f"git+https://github.com/acme/{number}@r" for number in range(257)], "more than 256 source repositories"),
        (["git+https://github.com/acme/x@r", "git+https://github.com/acme/" + "y" * 2048], "one that is too long"),
        (["git+https://github.com/acme/" + "y" * 2048], "one that is too long"),
        (["pkg:npm/x"] * 1000, "names no source repository"),
    ],
)
def test_of_provenance_so_much_is_kept_and_more_proves_nothing(uris, says):
    """All sources have to be meant, also those that are not looked at."""
    asked = SimpleNamespace(predicate_type=V1, builder=None, source_repository="https://github.com/acme/**")
    found = claim(from_sources(*uris))
    assert len(found.provenance.sources) <= 257
    why = why_not(asked, found)
    assert why is None if says is None else says in why


def test_a_builder_whose_name_is_too_long_is_nobody():
    """A megabyte is no name."""
    asked = SimpleNamespace(predicate_type=V1, builder="**", source_repository=None)
    assert "nobody who is named" in why_not(asked, claim(from_sources(builder="b" * MIB)))
    assert why_not(asked, claim(from_sources(builder="b"))) is None


def simple(key, repository):
    """Simple signing by a key, that names a repository."""
    critical = {
        "type": cosign.SIMPLE_TYPE, "image": {"docker-manifest-digest": ARTIFACT},
        "identity": {"docker-reference": repository},
    }  # fmt: skip
    payload = json.dumps({"critical": critical}).encode()
    return Signature(form="simple", payload=payload, signature=key.sign(payload))


def judged(signers, *signatures):
    """As ``judge`` does it."""
    evidence = Evidence(digest=ARTIFACT, documents={ARTIFACT: MANIFEST}, signatures=signatures)
    subject = subject_of(evidence, repository="r.example/p", plugin="p")
    return judge(Requirement(any_of=tuple(signers)), evidence, subject, whose="it")


def test_a_repository_of_half_a_megabyte_is_compared_with_no_pattern(monkeypatch):
    """Whoever has the key wrote the patterns as well: of 5,000 patterns, each would take half a minute."""
    compared = []
    inner = patterns._matches_parts
    monkeypatch.setattr(patterns, "_matches_parts", lambda *args: compared.append(1) or inner(*args))
    key = SigningKey()
    signer = Authority(
        kind="key", label="k", keys=(read_pem(key.pem, what="k"),), signed_as=("*" + "a" * 500 + "b", "**")
    )
    with pytest.raises(SignatureError, match="for the repository aaaa"):
        judged([signer], simple(key, "a" * 500_000))
    assert not compared
    assert judged([signer], simple(key, "elsewhere.example/p"))


def test_signers_with_many_patterns_and_many_signatures_are_compared_for_so_long(monkeypatch):
    """Then none counts, and the sentence says what to do."""
    monkeypatch.setattr(patterns, "MAX_STEPS", 50_000)
    key = SigningKey()
    signers = [
        Authority(kind="key", label=f"k{number}", keys=(read_pem(key.pem, what="k"),), signed_as=("**/x/*",) * 32)
        for number in range(16)
    ]
    found = [simple(key, f"elsewhere.example/{number:0100}") for number in range(20)]
    with pytest.raises(SignatureError, match="more than are compared; remove old ones"):
        judged(signers, *found)
    assert judged(signers, simple(key, "r.example/p"), *found)


@pytest.fixture
def verified(monkeypatch):
    """Whatever was held against a key; nothing is by any."""
    found = []
    monkeypatch.setattr("hookline_artifacts.trust.keys.PublicKey.has_signed", lambda *args: found.append(args))
    monkeypatch.setattr(direct, "_is_of", lambda *args: found.append(args))
    return found


def test_each_signature_of_an_envelope_counts(verified, monkeypatch):
    """Eight in each would be half a minute of Ed25519, where four seconds are meant."""
    monkeypatch.setattr(cosign, "MAX_TRIED", 40)
    payload = base64.b64encode(b'{"_type":"https://in-toto.io/Statement/v1","subject":[],"predicateType":"x"}').decode()
    signatures = [{"sig": base64.b64encode(b"%d" % number).decode()} for number in range(8)]
    dsse = {"payloadType": cosign.IN_TOTO, "payload": payload, "signatures": signatures}
    found = [Signature(form="dsse", payload=json.dumps(dsse | {"n": number}).encode()) for number in range(10)]
    with pytest.raises(SignatureError, match="40 pairs are tried"):
        judged(keys(2), *found)
    assert len(verified) == 40


def test_not_more_bundles_over_a_file_are_tried_than_a_bound(verified, monkeypatch):
    """Each takes milliseconds with the slower kinds of keys."""
    monkeypatch.setattr(direct, "MAX_PAIRS", 80)
    found = [Signature(form="bundle", payload=blob_bundle(number)) for number in range(20)]
    with pytest.raises(SignatureError, match="80 pairs are tried"):
        judged(keys(2), *found)
    assert len(verified) == 10


def listing(junk, number=50):
    """A page of the referrers API, with junk beside each entry."""
    entries = [
        {"mediaType": BUNDLE, "digest": digest(b"%d" % n), "size": n, "artifactType": BUNDLE, **junk}
        for n in range(number)
    ]
    return json.dumps({"manifests": entries}, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "junk",
    [
        {"annotations": {"junk": [{"": 0}] * 300}},
        {"platform": {"junk": [[]] * 300}},
        {"annotations": {"junk": "x" * 20_000}},
        {"mediaType": "x" * 20_000},
        {"artifactType": "x" * 20_000},
    ],
)
def test_of_a_list_only_what_is_looked_at_is_kept(junk):
    """Thirty pages of it would be hundreds of megabytes."""
    page = listing(junk)
    read, held = kept(lambda: read_list(page))
    assert len(read) == 50
    assert held < 64 * 1024


async def test_so_many_bytes_of_lists_are_read(server, fetcher, monkeypatch):
    """However many pages there are, and however large each is."""
    monkeypatch.setattr("hookline_artifacts.registry._MAX_LISTS", 20_000)
    server.put("acme/p:v1", MANIFEST)
    path = f"/v2/acme/p/referrers/{ARTIFACT}"
    asked = []

    async def page(request):
        asked.append(request.query_string)
        headers = {"Link": f'<{path}?n={len(asked)}>; rel="next"'}
        return web.Response(body=listing({"annotations": {"a": "x" * 100}}, 40), headers=headers)

    server.on(path, page)
    await fetcher.signatures(server.source("acme/p:v1"), ARTIFACT)
    size = len(listing({"annotations": {"a": "x" * 100}}, 40))
    assert len(asked) == 20_000 // size + 1
