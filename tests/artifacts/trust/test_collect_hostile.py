"""Whoever may push to a repository may put anything there: it is bounded, and hides no good signature."""

from __future__ import annotations

import base64
import json

import pytest
from aiohttp import web

import signed_artifacts as signed
from hookline_api.policies import PluginTrustPolicySpec
from hookline_api.trust import Signatures
from hookline_artifacts.errors import FetchError, SignatureError, VerifyError
from hookline_artifacts.resolve import resolve
from hookline_artifacts.trust import collect
from hookline_artifacts.trust.collect import BUNDLE, SIGNATURE, SIMPLE_SIGNING
from hookline_artifacts.trust.policy import Policy
from hookline_artifacts.trust.requirement import load
from registries import sha256

MEGABYTE = 1 << 20


def big(size, *, says=None):
    """An answer of many bytes; its Content-Length may be another."""

    async def answer(request):
        response = web.StreamResponse(headers={"Content-Length": str(says)} if says else {})
        await response.prepare(request)
        try:
            for _ in range(size // MEGABYTE):
                await response.write(bytes(MEGABYTE))
        except (ConnectionError, OSError):
            pass
        return response

    return answer


VAST = "a hundred thousand values"
JUNK_MANIFESTS = {
    "no JSON": b"<html>",
    "nothing": b"",
    "a list": b"[]",
    "deep": b"[" * 60_000,
    "both kinds": b'{"layers": [], "manifests": []}',
    "a layer without a digest": b'{"layers": [{}]}',
    "sha512": json.dumps({"layers": [{"digest": "sha512:" + "0" * 128, "size": 1}]}).encode(),
    "a size that is none": json.dumps({"layers": [{"digest": "sha256:" + "0" * 64, "size": "many"}]}).encode(),
    "too many layers": json.dumps({"layers": [{"digest": "sha256:" + "0" * 64, "size": 1}] * 1100}).encode(),
    VAST: b'{"layers": [' + b"1," * 100_000 + b"1]}",
}


@pytest.mark.parametrize("where", [".sig", ".att", "referrer", "list of the API"])
@pytest.mark.parametrize("name", [each for each in JUNK_MANIFESTS if each != VAST])
async def test_a_junk_manifest_hides_no_good_one(place, resolve_signed, name, where):
    """Under either tag, among the referrers, or as the answer of the referrers API."""
    junk = JUNK_MANIFESTS[name]
    place.refer((junk,), place.good())
    if where == "list of the API":

        async def answer(_request):
            return web.Response(body=junk)

        place.server.on(f"/v2/acme/p/referrers/{place.digest}", answer)
    elif where != "referrer":
        place.refer(place.good())
        place.server.put(f"acme/p:{place.tag}{where}", junk)
    assert (await resolve_signed(place.source, **place.signers())).trust.proofs


@pytest.mark.parametrize("where", [".sig", ".att", "referrer"])
async def test_a_vast_manifest_hides_no_good_one(place, resolve_signed, where):
    """It is small in bytes, and would be large in memory."""
    place.refer((JUNK_MANIFESTS[VAST],), place.good())
    if where != "referrer":
        place.server.put(f"acme/p:{place.tag}{where}", JUNK_MANIFESTS[VAST])
    assert (await resolve_signed(place.source, **place.signers())).trust.proofs


async def test_a_vast_list_is_told_of(place, resolve_signed):
    """Nobody knows what is in it, so the refusal says that there was something; what has a tag counts all the same."""

    async def vast(_request):
        return web.Response(body=JUNK_MANIFESTS[VAST])

    place.server.on(f"/v2/acme/p/referrers/{place.digest}", vast)
    with pytest.raises(SignatureError, match=r"it has no signature \(1 more not readable\)"):
        await resolve_signed(place.source, **place.signers())
    place.sig(place.key.simple(place.digest))
    assert (await resolve_signed(place.source, **place.signers())).trust.proofs


@pytest.mark.parametrize("name", ["no base64", "no text", "none", "too long", "wrong type", "missing blob"])
async def test_a_junk_layer_hides_no_good_one(place, resolve_signed, name):
    """Of a .sig manifest with a good one behind it."""
    payload, signature = place.key.simple(place.digest)
    document = json.loads(signed.sig_manifest((b"junk", b"junk"), (payload, signature)))
    annotations = document["layers"][0]["annotations"]
    match name:
        case "no base64":
            annotations[SIGNATURE] = "?"
        case "no text":
            annotations[SIGNATURE] = {"a": ["b"]}
        case "none":
            del annotations[SIGNATURE]
        case "too long":
            annotations[SIGNATURE] = "A" * 70_000
        case "wrong type":
            document["layers"][0]["mediaType"] = "text/plain"
    blobs = [payload] if name == "missing blob" else [payload, b"junk"]
    place.server.put(f"acme/p:{place.tag}.sig", json.dumps(document).encode(), *blobs)
    assert (await resolve_signed(place.source, **place.signers())).trust.proofs


async def test_a_thousand_referrers_hide_no_good_one(place, resolve_signed, fetcher):
    """Those that seem to be signatures are opened first, a few at a time, and no more than the bound."""
    others = [signed.referrer(place.digest, b"%d" % n, kind="text/plain") for n in range(1000)]
    entries = [
        {"mediaType": signed.MANIFEST, "digest": sha256(each), "size": len(each), "artifactType": "text/plain"}
        for each in others
    ]
    place.refer(*entries, place.good(), *entries)
    listed = place.server._content[f"/v2/acme/p/manifests/{place.tag}"]
    assert len(json.loads(listed)["manifests"]) == 2001

    assert (await resolve_signed(place.source, **place.signers())).trust.proofs
    opened = [path for path in place.server.paths() if "/manifests/sha256:" in path]
    assert len(opened) <= collect.MAX_OPENED + 10

    place.refer(*entries)
    evidence = await fetcher.signatures(place.source, place.digest)
    assert evidence.notes == (f"{1000 - collect.MAX_OPENED} more referrers not opened: remove old ones",)
    with pytest.raises(SignatureError, match=r"it has no signature \(488 more referrers not"):
        await resolve_signed(place.source, keys=[signed.Key().pem])


async def test_as_many_signatures_of_others_as_are_opened_hide_no_good_one(place, resolve_signed):
    """They are all of the same kind and about the same artifact."""
    stranger = signed.Key()
    entries = [place.junk(n) for n in range(200)]
    for _ in range(200):
        bundle = stranger.bundle(place.digest)
        entries.append((signed.referrer(place.digest, bundle), bundle))
    entries.insert(150, place.good())
    place.refer(*entries)
    assert (await resolve_signed(place.source, **place.signers())).trust.proofs


async def test_what_is_listed_twice_is_asked_for_once(place, resolve_signed):
    """The same descriptor a hundred times, and the same layer."""
    manifest, bundle = place.good()
    document = json.loads(manifest)
    document["layers"] *= 50
    place.refer(*[(json.dumps(document).encode(), bundle)] * 100)
    resolved = await resolve_signed(place.source, **place.signers())
    assert len(resolved.trust.proofs) == 1
    assert place.server.paths().count(f"/v2/acme/p/blobs/{sha256(bundle)}") == 1


async def test_a_loop_of_referrers_ends(place, resolve_signed):
    """Referrers of referrers are nobody's signatures, so none is followed."""
    second = signed.referrer(sha256(b"first"), b"x")
    first = signed.referrer(sha256(second), b"x")
    place.refer((first, b"x"), (second, b"x"), place.good())
    for each in (first, second):
        place.server.put(f"acme/p:{sha256(each).replace(':', '-')}", signed.listing(first, second))
    assert (await resolve_signed(place.source, **place.signers())).trust.proofs
    assert not any(sha256(first).replace(":", "-") in path for path in place.server.paths())


@pytest.mark.parametrize("says", [None, 100 * MEGABYTE])
@pytest.mark.parametrize("what", ["referrer", "blob", "blob that lies", ".sig", "list", "API"])
async def test_a_hundred_megabytes_are_not_read(place, resolve_signed, what, says):
    """Whether they are announced, or lied about: the good one beside them counts, or the refusal comes at once."""
    manifest, bundle = place.good()
    huge = sha256(b"huge")
    path = {
        "referrer": f"manifests/{huge}",
        "blob": f"blobs/{huge}",
        "blob that lies": f"blobs/{huge}",
        ".sig": f"manifests/{place.tag}.sig",
        "list": f"manifests/{place.tag}",
        "API": f"referrers/{place.digest}",
    }[what]
    layer = {"mediaType": f"{BUNDLE}.v0.3+json", "digest": huge, "size": 100 * MEGABYTE if what == "blob" else 600}
    described = json.loads(signed.referrer(place.digest, b"x"))
    described["layers"] = [layer]
    named = {"mediaType": signed.MANIFEST, "digest": huge, "size": 900, "artifactType": f"{BUNDLE}.v0.3+json"}
    place.refer(named if what == "referrer" else (json.dumps(described).encode(),), (manifest, bundle))
    if what in {"list", "API"}:
        place.sig(place.key.simple(place.digest))
    place.server.on(f"/v2/acme/p/{path}", big(100 * MEGABYTE, says=says))
    assert (await resolve_signed(place.source, **place.signers())).trust.proofs
    assert what != "blob" or f"/v2/acme/p/{path}" not in place.server.paths()


async def test_signatures_that_are_too_large_together_are_left_out(place, fetcher):
    """Eight megabytes are read of it all, small ones first."""
    entries = [place.good()]
    for n in range(40):
        blob = b"%d" % n + bytes(400_000)
        entries.append((signed.referrer(place.digest, blob), blob))
    place.refer(*entries)
    evidence = await fetcher.signatures(place.source, place.digest)
    assert evidence.signatures[0].payload == entries[0][1]
    assert sum(len(each.payload) for each in evidence.signatures) < 12 * MEGABYTE
    assert "more not readable" in evidence.notes[0]


async def test_manifests_that_are_too_large_together_are_left_out(place, fetcher, resolve_signed):
    """Small ones are opened first; once eight megabytes are read, no more are asked for."""
    entries = [place.good()]
    for n in range(200):
        document = json.loads(signed.referrer(place.digest, b"x"))
        document["annotations"] = {"junk": f"{n}" + "x" * 60_000}
        entries.append((json.dumps(document).encode(),))
    place.refer(*entries)
    assert (await resolve_signed(place.source, **place.signers())).trust.proofs
    (note,) = (await fetcher.signatures(place.source, place.digest)).notes
    assert int(note.partition(" ")[0]) > 50
    assert note.endswith("more not readable")


@pytest.mark.parametrize("status", [401, 403, 500, 503, 429])
@pytest.mark.parametrize("where", ["sig", "referrers", "manifest", "blob"])
async def test_a_registry_that_will_not_tell_is_no_proof_that_there_is_nothing(place, make_fetcher, status, where):
    """A refused login and a broken server fail the fetch, with the advice that belongs to them; nothing runs."""
    manifest, bundle = place.good()
    place.refer((manifest, bundle))
    path = {
        "sig": f"manifests/{place.tag}.sig",
        "referrers": f"referrers/{place.digest}",
        "manifest": f"manifests/{sha256(manifest)}",
        "blob": f"blobs/{sha256(bundle)}",
    }[where]

    async def refuse(_request):
        return web.Response(status=status)

    place.server.on(f"/v2/acme/p/{path}", refuse)
    with pytest.raises(FetchError, match=str(status)):
        await make_fetcher(attempts=2).signatures(place.source, place.digest)


async def test_a_manifest_that_is_another_the_second_time_is_refused(place, resolve_signed):
    """What was verified is what is pulled: by digest, whatever the registry says then."""
    place.refer(place.good())
    path = f"/v2/acme/p/manifests/{place.digest}"
    honest = place.server._content[path]
    seen = []

    async def fickle(_request):
        seen.append(1)
        return web.Response(body=honest if len(seen) == 1 else honest.replace(b"wasm.config", b"wasm.confiG"))

    place.server.on(path, fickle)
    with pytest.raises(VerifyError, match="has another digest"):
        await resolve_signed(place.source, **place.signers())
    assert len(seen) == 2


async def test_a_tag_that_moves_between_resolve_and_pull_changes_nothing(place, resolve_signed):
    """The tag is asked once, and everything after that is by digest."""
    place.refer(place.good())
    path = "/v2/acme/p/manifests/v1"
    seen = []

    async def moving(_request):
        seen.append(1)
        digest = place.digest if len(seen) == 1 else sha256(b"another")
        return web.Response(headers={"Docker-Content-Digest": digest})

    place.server.on(path, moving)
    assert (await resolve_signed(place.source, **place.signers())).artifact.digest == place.digest
    assert len(seen) == 1


async def test_a_signature_that_was_copied_to_another_digest_does_not_count(place, resolve_signed):
    """In each form: its own signed digest is looked at, not where it was put."""
    other = sha256(b"another artifact")
    bundle = place.key.bundle(other)
    place.refer((signed.referrer(place.digest, bundle), bundle))
    place.sig(place.key.simple(other))
    with pytest.raises(SignatureError, match=f"have signed is another digest; have them sign {place.digest}"):
        await resolve_signed(place.source, **place.signers())


async def test_a_referrer_of_another_artifact_is_not_read(place, fetcher):
    """Though the list says that it is of this one."""
    bundle = place.key.bundle(place.digest)
    place.refer((signed.referrer(sha256(b"another"), bundle), bundle))
    assert not (await fetcher.signatures(place.source, place.digest)).signatures
    assert f"/v2/acme/p/blobs/{sha256(bundle)}" not in place.server.paths()


@pytest.mark.parametrize("signed_one", [0, 1])
async def test_of_an_index_that_entry_must_be_signed_which_runs(place, server, oci, resolve_signed, signed_one):
    """Two entries for WebAssembly: the first is taken, and a signature on the second proves nothing of it."""
    wasm = {"platform": {"os": "wasip1", "architecture": "wasm"}}
    module = next(body for path, body in server._content.items() if "/blobs/" in path and body.startswith(b"\0asm"))
    entries = [oci.manifest(module, annotations={"entry": name}) for name in ("first", "second")]
    for each in entries:
        server.put(f"acme/i:{sha256(each)[-9:]}", each, module)
    server.put("acme/i:v1", oci.index(*((each, wasm) for each in entries)))
    about = sha256(entries[signed_one])
    bundle = place.key.bundle(about)
    referrer = signed.referrer(about, bundle)
    server.put(f"acme/i:{sha256(referrer)[-9:]}", referrer, bundle)
    for each in (*map(sha256, entries), sha256(oci.index(*((each, wasm) for each in entries)))):
        server.put(f"acme/i:{each.replace(':', '-')}", signed.listing(referrer))
    if signed_one == 0:
        assert (await resolve_signed(server.source("acme/i:v1"), **place.signers())).trust.proofs
    else:
        with pytest.raises(SignatureError, match="it has no signature"):
            await resolve_signed(server.source("acme/i:v1"), **place.signers())


@pytest.mark.parametrize("mode", ["Audit", "Enforce"])
async def test_a_registry_that_will_not_tell_stops_none_that_is_only_audited(place, fetcher, mode):
    """A policy in Audit counts it and lets it pass; one in Enforce fails the fetch."""
    asked = Signatures.model_validate(place.signers())
    requirement = await load(asked, objects=signed.NoObjects(), namespace="apps", base=None, where="spec.signatures")
    policy = Policy(name="ours", spec=PluginTrustPolicySpec(mode=mode, signatures=asked), requirement=requirement)

    async def refuse(_request):
        return web.Response(status=403)

    place.server.on(f"/v2/acme/p/referrers/{place.digest}", refuse)
    wanted = signed.plugin({"oci": place.source.model_dump(by_alias=True, exclude_unset=True)})
    run = resolve(wanted, fetcher=fetcher, objects=signed.NoObjects(), policies=[policy])
    if mode == "Enforce":
        with pytest.raises(FetchError, match="403"):
            await run
    else:
        ((name, why),) = (await run).trust.audits
        assert name == "ours"
        assert "it has no signature (its signatures cannot be had: the list of what refers" in why


async def test_a_blob_that_was_changed_does_not_count(place, resolve_signed):
    """Its digest is checked, and of a payload that is honest the signature."""
    payload, signature = place.key.simple(place.digest)
    place.sig((payload, signature))
    place.server._content[f"/v2/acme/p/blobs/{sha256(payload)}"] = payload.replace(b"acme", b"evil")
    with pytest.raises(SignatureError, match=r"it has no signature \(1 more not readable"):
        await resolve_signed(place.source, **place.signers())

    changed = payload.replace(b"acme", b"evil")
    place.sig((changed, signature))
    with pytest.raises(SignatureError, match="its signature is by other keys"):
        await resolve_signed(place.source, **place.signers())


async def test_an_annotation_that_was_changed_does_not_count(place, resolve_signed):
    """The signature itself stands in one."""
    payload, signature = place.key.simple(place.digest)
    document = json.loads(signed.sig_manifest((payload, signature)))
    changed = bytes([*signature[:-1], signature[-1] ^ 1])
    document["layers"][0]["annotations"] = {SIGNATURE: base64.b64encode(changed).decode()}
    assert document["layers"][0]["mediaType"] == SIMPLE_SIGNING
    place.server.put(f"acme/p:{place.tag}.sig", json.dumps(document).encode(), payload)
    with pytest.raises(SignatureError, match="by other keys"):
        await resolve_signed(place.source, **place.signers())


async def test_a_configuration_that_was_changed_is_never_read(place, resolve_signed):
    """Nothing is in it for us. One that the manifest names is another artifact, which nobody has signed."""
    place.refer(place.good())
    manifest = json.loads(place.server._content["/v2/acme/p/manifests/v1"])
    path = f"/v2/acme/p/blobs/{manifest['config']['digest']}"
    place.server._content[path] = b'{"config": "evil"}'
    assert (await resolve_signed(place.source, **place.signers())).trust.proofs
    assert path not in place.server.paths()

    manifest["config"]["digest"] = sha256(b"evil")
    place.server.put("acme/p:v1", json.dumps(manifest).encode())
    with pytest.raises(SignatureError, match="it has no signature"):
        await resolve_signed(place.source, **place.signers())
