"""What real cosign signed is verified by a key: both forms, every kind of key, every layout, every place."""

from __future__ import annotations

import base64
import json

import pytest

import signed_artifacts as signed
from hookline_artifacts.errors import FetchError, SignatureError, VerifyError
from hookline_artifacts.login.access import RegistryAccess
from hookline_artifacts.trust.cosign import claim_of
from hookline_artifacts.trust.keys import read_pem

KINDS = ("p256", "p384", "p521", "rsa2048", "ed25519")
FORMS = ("simple", "bundle")


@pytest.fixture(params=["fallback tag", "referrers API"])
def place(request):
    """A registry of each kind, and whether it lists referrers by itself."""
    api = request.param == "referrers API"
    return request.getfixturevalue("referrers_registry" if api else "registry"), api


async def pushed(place, case):
    """A source of a case, in a repository of its own."""
    registry, api = place
    repository = f"signed/{case}"
    await signed.push(registry, case, repository, fallback=not api)
    return registry.source(f"{repository}:v1")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", FORMS)
async def test_a_signature_of_each_kind_of_key_counts(place, resolve_signed, form, kind):
    """And the same artifact is refused to another key, in words that say whose signatures there are."""
    source = await pushed(place, f"{form}-{kind}")
    resolved = await resolve_signed(source, anyOf=[signed.signer(signed.KEYS[kind])])
    ((whose, proof),) = resolved.trust.proofs
    assert (whose, proof.key) == ("spec.verify", read_pem(signed.KEYS[kind], what="it").id)
    assert resolved.trust.evidence is not None

    with pytest.raises(SignatureError, match="by other keys") as caught:
        await resolve_signed(source, anyOf=[signed.signer(signed.KEYS["other"])])
    assert (proof.key[:19] in str(caught.value)) == (form == "bundle")  # simple signing names no key


@pytest.mark.parametrize("layout", signed.LAYOUTS)
@pytest.mark.parametrize("form", FORMS)
async def test_an_artifact_of_each_layout_is_verified(place, resolve_signed, form, layout):
    """Also an index that is signed, and an index of which the entry is."""
    source = await pushed(place, f"{form}-of-{layout}")
    resolved = await resolve_signed(source, anyOf=[signed.signer(signed.KEYS["p256"])])
    assert resolved.artifact.digest == signed.digest_of(f"{form}-of-{layout}")
    expected = {"index": "wasm-oci", "entry": "wasm-oci"}.get(layout, layout)
    assert resolved.entry.artifact.layout == expected


@pytest.mark.parametrize("form", FORMS)
async def test_two_signers_are_counted(place, resolve_signed, form):
    """One artifact with two signatures meets a minimum of two, and one key twice does not."""
    source = await pushed(place, f"{form}-by-two")
    both = [signed.signer(signed.KEYS[name]) for name in ("p256", "other")]
    resolved = await resolve_signed(source, anyOf=both, minimum=2)
    assert len({proof.key for _, proof in resolved.trust.proofs}) == 2

    with pytest.raises(SignatureError, match="signed by 1 of those"):
        await resolve_signed(source, anyOf=[both[0], signed.signer(signed.KEYS["p384"])], minimum=2)
    with pytest.raises(SignatureError, match="signed by 1 of those"):
        await resolve_signed(source, anyOf=[both[0], both[0]], minimum=2)


async def test_simple_signing_as_a_referrer_counts(place, resolve_signed):
    """As cosign 2 pushes it with --registry-referrers-mode=oci-1-1."""
    source = await pushed(place, "simple-referrer")
    resolved = await resolve_signed(source, anyOf=[signed.signer(signed.KEYS["p256"])])
    assert len(resolved.trust.proofs) == 1


async def test_a_signature_for_another_repository_does_not_count(place, resolve_signed):
    """It names what it was signed as; who copies artifacts allows that name by signedAs."""
    source = await pushed(place, "simple-elsewhere")
    with pytest.raises(SignatureError, match=r"for the repository registry\.example/acme/elsewhere.*signedAs"):
        await resolve_signed(source, anyOf=[signed.signer(signed.KEYS["p256"])])
    with pytest.raises(SignatureError, match="for the repository"):
        await resolve_signed(source, keys=[signed.KEYS["p256"]])
    assert await resolve_signed(
        source, anyOf=[signed.signer(signed.KEYS["p256"], signed_as=["registry.example/acme/*"])]
    )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("statement", ["spdxjson", "slsaprovenance1"])
async def test_an_attestation_is_no_signature(place, resolve_signed, fetcher, form, statement):
    """It is collected, and its claim is the signer's; but who may attest need not be who may sign."""
    case = f"attested-{form}-{statement}"
    source = await pushed(place, case)
    evidence = await fetcher.signatures(source, signed.digest_of(case))
    (found,) = evidence.signatures
    claim = claim_of(found, read_pem(signed.KEYS["p256"], what="it"))
    assert (found.form, claim.digests) == ({"simple": "dsse"}.get(form, form), {signed.digest_of(case)})
    assert claim.predicate_type in {"https://spdx.dev/Document", "https://slsa.dev/provenance/v1"}
    assert (claim.provenance is not None) is (statement == "slsaprovenance1")
    assert claim_of(found, read_pem(signed.KEYS["other"], what="it")) is None

    with pytest.raises(SignatureError, match="only attested https://s"):
        await resolve_signed(source, anyOf=[signed.signer(signed.KEYS["p256"])])


async def test_an_unsigned_artifact_is_refused_before_a_byte_of_it_is_unpacked(registry, resolve_signed, store):
    """And the sentence says what to sign."""
    await signed.push(registry, "unsigned", "signed/unsigned")
    with pytest.raises(SignatureError, match=f"it has no signature; sign {signed.digest_of('unsigned')}"):
        await resolve_signed(registry.source("signed/unsigned:v1"), keys=[signed.KEYS["p256"]])
    assert store.get(signed.digest_of("unsigned"), place=f"http://{registry.host}/v2/signed/unsigned") is None


@pytest.mark.parametrize(
    ("folder", "reference"),
    [(folder, how) for folder in sorted(signed.FOLDERS) for how in ("digest", "none")]
    + [(folder, "v1") for folder in sorted(signed.FOLDERS) if folder.startswith("oras")],  # cosign writes no tag
)
async def test_a_folder_brings_its_signatures_along(tmp_path, resolve_signed, folder, reference):
    """As ``cosign save`` of both versions and ``oras copy`` make them."""
    signed.write_folder(folder, tmp_path / "layout")
    case = "bundle-p256" if folder.endswith(("-3", "-bundle")) else "simple-p256"
    name = {"v1": ":v1", "digest": f"@{signed.digest_of(case)}", "none": ""}[reference]
    source = {"oci": {"reference": f"oci-layout:layout{name}"}}
    resolved = await resolve_signed(source, base=tmp_path, anyOf=[signed.signer(signed.KEYS["p256"])])
    assert resolved.artifact.digest == signed.digest_of(case)
    with pytest.raises(SignatureError, match="by other keys"):
        await resolve_signed(source, base=tmp_path, anyOf=[signed.signer(signed.KEYS["other"])])


@pytest.mark.parametrize("layout", signed.LAYOUTS)
@pytest.mark.parametrize("form", FORMS)
async def test_a_folder_with_tags_brings_every_layout_along(tmp_path, resolve_signed, form, layout):
    """As ``skopeo copy`` of the artifact and of the tags beside it makes one; by its tag, and as the only artifact."""
    signed.write_case(f"{form}-of-{layout}", tmp_path / "layout")
    for name in (":v1", ""):
        source = {"oci": {"reference": f"oci-layout:layout{name}"}}
        resolved = await resolve_signed(source, base=tmp_path, anyOf=[signed.signer(signed.KEYS["p256"])])
        assert resolved.artifact.digest == signed.digest_of(f"{form}-of-{layout}")


async def test_a_layer_of_a_signed_artifact_that_was_changed_is_refused(tmp_path, resolve_signed):
    """The signature covers the manifest, and the manifest the layer."""
    signed.write_folder("cosign-save-2", tmp_path / "layout")
    module = next(each for each in (tmp_path / "layout/blobs/sha256").iterdir() if each.read_bytes()[:4] == b"\0asm")
    module.write_bytes(module.read_bytes()[:-1] + b"\x01")
    source = {"oci": {"reference": "oci-layout:layout"}}
    with pytest.raises(VerifyError, match="has another digest"):
        await resolve_signed(source, base=tmp_path, anyOf=[signed.signer(signed.KEYS["p256"])])


@pytest.fixture(params=["password_registry", "token_registry", "tls_registry"])
def guarded(request):
    """A registry that wants a login, or an authority of its own; and which repository may be pushed to."""
    # the token to push is for one repository
    name = "pushed" if request.param == "token_registry" else "signed"
    return request.getfixturevalue(request.param), name


@pytest.mark.parametrize("form", FORMS)
async def test_signatures_come_with_the_login_of_the_artifact(guarded, fetcher, oci, form):
    """By Basic and by tokens, over TLS of an own authority; and without it nobody is told that there are none."""
    registry, repository = guarded
    await signed.push(registry, f"{form}-p256", repository)
    auth = base64.b64encode(f"{oci.user}:{oci.password}".encode()).decode()
    secret = json.dumps({"auths": {registry.host: {"auth": auth}}})
    access = RegistryAccess(dockerconfigs=(secret,), ca_pem=registry.ca_pem)
    source, digest = registry.source(f"{repository}:v1"), signed.digest_of(f"{form}-p256")

    evidence = await fetcher.signatures(source, digest, access=access)
    assert form in [each.form for each in evidence.signatures]
    with pytest.raises(FetchError, match=r"without credentials|not trusted|without a login"):
        await fetcher.signatures(source, digest)


def test_the_file_was_made_by_both_versions_of_cosign():
    """A case for each form, kind and layout: none is proven by its absence."""
    assert {f"{form}-{kind}" for form in FORMS for kind in KINDS} <= set(signed.CASES)
    assert {f"{form}-of-{layout}" for form in FORMS for layout in signed.LAYOUTS} <= set(signed.CASES)
    assert len(signed.LAYOUTS) == 9
