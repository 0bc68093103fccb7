"""``hookline verify``: what real cosign signed, who is asked for, and how it ends."""

from __future__ import annotations

import asyncio
import base64
import json
import tarfile
from pathlib import Path

import pytest

_DATA = json.loads((Path(__file__).parents[1] / "support" / "signed" / "signed.json").read_text())
NAME = _DATA["name"]
SIMPLE = [case for case in _DATA["cases"] if case.startswith("simple-") and case != "simple-referrer"]
KINDS = ("p256", "p384", "p521", "rsa2048")
CASES = [f"{form}-{kind}" for form in ("simple", "bundle") for kind in KINDS]
LAYOUTS = sorted(case for case in _DATA["cases"] if "-of-" in case)


def content(name):
    """The bytes of a digest."""
    kept = _DATA["contents"][name]
    return base64.b64decode(kept["base64"]) if isinstance(kept, dict) else kept.encode()


def parts(name):
    """A manifest and those that it names, each with its blobs; inner ones first."""
    document = content(name)
    data = json.loads(document)
    for each in data.get("manifests", []):
        yield from parts(each["digest"])
    blobs = [data["config"], *data["layers"]] if "layers" in data else []
    yield name, document, [content(each["digest"]) for each in blobs]


@pytest.fixture
def cosigned(docker_registry, tmp_path):
    """Pushes a case of what cosign signed; its reference. The public keys are files."""
    for kind, pem in _DATA["keys"].items():
        (tmp_path / f"{kind}.pub").write_text(pem)

    async def push(case):
        for tag, name in _DATA["cases"][case].items():
            for each, document, blobs in parts(name):
                where = f":{tag}" if each == name else f"@{each}"
                await docker_registry.push(f"cosigned/{case}{where}", document, *blobs)

    def run(case):
        asyncio.run(push(case))
        return f"{docker_registry.host}/cosigned/{case}:v1"

    return run


@pytest.mark.parametrize("case", CASES)
def test_what_cosign_signed_is_verified(hookline, cosigned, case):
    """With each kind of key, in both forms; and by no other key."""
    reference = cosigned(case)
    kind = case.partition("-")[2]
    arguments = ["verify", reference, "--signed-as", NAME, "--insecure", "--json"]
    done = hookline(*arguments, "--key", f"{kind}.pub")
    assert done.code == 0, done
    assert done.json["verified"]
    assert done.json["digest"] == _DATA["cases"][case]["v1"]
    refused = hookline(*arguments, "--key", "other.pub")
    assert refused.code == 1
    assert refused.json["exit"] == 1
    assert "not signed by" in refused.json["error"]


@pytest.mark.parametrize("case", LAYOUTS)
def test_each_layout_is_verified(hookline, cosigned, case):
    """However the module is packed, it is fetched too, and its layout told."""
    done = hookline("verify", cosigned(case), "--key", "p256.pub", "--signed-as", NAME, "--insecure", "--json")
    assert done.code == 0, done
    assert done.json["layout"]
    assert done.json["proofs"][0]["keyId"].startswith("sha256:")


@pytest.mark.parametrize("folder", sorted(_DATA["folders"]))
def test_folders_of_other_tools_are_verified(hookline, tmp_path, folder):
    """As ``cosign save`` and ``oras copy`` write them, offline."""
    blobs = tmp_path / "folder" / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (tmp_path / "folder" / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (tmp_path / "folder" / "index.json").write_text(_DATA["folders"][folder]["index"])
    for name in _DATA["folders"][folder]["blobs"]:
        (blobs / name.removeprefix("sha256:")).write_bytes(content(name))
    (tmp_path / "p256.pub").write_text(_DATA["keys"]["p256"])
    signed = next(iter(_DATA["cases"].values()))["v1"]
    target = f"oci-layout:folder@{signed}"
    done = hookline("verify", target, "--key", "p256.pub", "--signed-as", NAME)
    expected = 0 if folder in {"oras-copy-simple", "oras-copy-bundle"} else done.code
    assert done.code == expected, done
    assert hookline("verify", target, "--key", "none.pub").code == 2


def test_it_says_who_signed(hookline, cosigned):
    """For people: key, form, digest, layout."""
    done = hookline("verify", cosigned("bundle-p256"), "--key", "p256.pub", "--insecure")
    assert done.code == 0
    for each in ("verified:", "signed by", "bundle", "key sha256:", "layout wasm-oci", "spec.verify"):
        assert each in done.out


MANIFEST = """\
apiVersion: hookline.dev/v1alpha1
kind: WasmPlugin
metadata: {{name: guard, namespace: apps}}
spec:
  source: {{oci: {{reference: "{reference}", insecure: true}}}}
  verify: {{anyOf: [{{name: release, key: {{from: {{file: {key}.pub}}}}}}]}}
"""
POLICY = """\
apiVersion: hookline.dev/v1alpha1
kind: PluginTrustPolicy
metadata: {{name: signed}}
spec:
  mode: {mode}
  repositories: ["{pattern}"]
  signatures: {{anyOf: [{{key: {{from: {{file: {key}.pub}}}}}}]}}
"""


@pytest.mark.parametrize(("key", "code"), [("p256", 0), ("other", 1)])
def test_a_resource_says_who_must_have_signed(hookline, cosigned, tmp_path, key, code):
    """With the keys beside it, as a folder's sidecar reads them."""
    reference = cosigned("bundle-p256")
    (tmp_path / "guard.yaml").write_text(MANIFEST.format(reference=reference, key=key))
    assert hookline("verify", "--manifest", "guard.yaml").code == code


@pytest.mark.parametrize(
    ("mode", "key", "pattern", "code"),
    [
        ("Enforce", "p256", "**", 0),
        ("Enforce", "other", "**", 1),
        ("Enforce", "p256", "elsewhere/*", 1),
        ("Audit", "other", "elsewhere/*", 0),
    ],
)
def test_a_policy_counts_too(hookline, cosigned, tmp_path, mode, key, pattern, code):
    """In Audit it is told, and passes."""
    reference = cosigned("bundle-p256")
    (tmp_path / "policy.yaml").write_text(POLICY.format(mode=mode, key=key, pattern=pattern))
    done = hookline("verify", reference, "--policy", "policy.yaml", "--insecure", "--json")
    assert done.code == code, done
    if mode == "Audit":
        assert len(done.json["audits"]) == 2
    elif code:
        assert "PluginTrustPolicy 'signed'" in done.json["error"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "give a TARGET"),
        (["{reference}"], 2, "nothing says who must have signed"),
        (["{reference}", "--key", "none.pub"], 2, "none.pub cannot be read"),
        (["{reference}", "--ed25519", "p256.pub"], 2, "not an Ed25519 public key"),
        (["{reference}", "--key", "p256.pub", "--identity", "a@b.example"], 2, "--issuer"),
        (["{reference}", "--key", "p256.pub", "--minimum", "2"], 2, "minimum is 2"),
        (["{reference}", "--key", "p256.pub", "--trust-root", "p256.pub"], 2, "--trust-root is for --identity"),
        (["{reference}", "--key", "p256.pub", "--manifest", "none.yaml"], 2, "none.yaml cannot be read"),
        (["{reference}", "--key", "p256.pub", "--ca", "none.pem"], 2, "none.pem cannot be read"),
        (["{reference}x", "--key", "p256.pub"], 3, "answered 404"),
        (["127.0.0.1:1/a/b:1", "--key", "p256.pub"], 3, "cannot be fetched"),
        (["none.tar.gz", "--key", "p256.pub"], 3, "there is no file"),
    ],
)
def test_each_failure_has_its_code_and_a_sentence(hookline, cosigned, arguments, code, said):
    """Usage, refusal, and what cannot be had are told apart."""
    reference = cosigned("bundle-p256")
    given = [each.format(reference=reference) for each in arguments]
    done = hookline("verify", *given, "--insecure")
    assert done.code == code, done
    assert said in done.sentence


def test_a_proxy_that_is_none_is_told(hookline, cosigned, monkeypatch):
    """By its variable, without what is in it."""
    monkeypatch.setenv("HTTP_PROXY", "ftp://user:secret@proxy")
    done = hookline("verify", cosigned("bundle-p256"), "--key", "p256.pub", "--insecure")
    assert done.code == 2
    assert "HTTP_PROXY is not the URL of a proxy" in done.sentence
    assert "secret" not in done.err


def test_a_registry_that_is_no_registry_is_said_to_be_plain(hookline, cosigned):
    """What to do stands in the words of the command line."""
    done = hookline("verify", cosigned("bundle-p256"), "--key", "p256.pub")
    assert done.code == 3
    assert "give --insecure" in done.sentence


# ---- what is asked for beside keys

FILES = Path(__file__).parents[1] / "artifacts" / "trust" / "signed_files"
ISSUER = "https://token.actions.githubusercontent.com"
WORKFLOW = "https://github.com/acme/plugins/.github/workflows/release.yml@refs/tags/v1.2.3"


@pytest.fixture
def keyless(tmp_path):
    """A file that somebody signed without a key, as cosign does, and the root of its authority."""
    with tarfile.open(FILES / "packed.tar.gz") as tar:
        (tmp_path / "plugin.wasm").write_bytes(tar.extractfile("plugin.wasm").read())
    bundle = (FILES / "keyless-plugin.wasm.sigstore.json").read_bytes()
    (tmp_path / "plugin.wasm.sigstore.json").write_bytes(bundle)
    (tmp_path / "root.json").write_bytes((FILES / "trusted_root.json").read_bytes())
    return "plugin.wasm"


@pytest.mark.parametrize(
    ("identity", "issuer", "code"),
    [
        (WORKFLOW, ISSUER, 0),
        ("https://github.com/acme/plugins/*", ISSUER, 0),
        ("https://github.com/acme/plug", ISSUER, 1),
        (WORKFLOW, "https://issuer.example", 1),
    ],
)
def test_an_identity_is_verified_offline(hookline, keyless, identity, issuer, code):
    """By the root that is given; it says who signed, and where that is logged."""
    done = hookline(
        "verify", keyless, "--identity", identity, "--issuer", issuer, "--trust-root", "root.json", "--json"
    )
    assert done.code == code, done
    if code == 0:
        (proof,) = done.json["proofs"]
        assert proof["identity"] == WORKFLOW
        assert proof["keyId"] is None
        assert proof["logIndex"] is not None
        assert proof["time"]


@pytest.mark.parametrize("form", ["bundle", "simple"])
def test_an_attestation_is_asked_for_beside_a_signature(hookline, keys, cosigned, form):
    """By one of the signers, of that type; a statement is no signature, and a signature no statement."""
    reference = cosigned(f"attested-{form}-slsaprovenance1")
    arguments = ["verify", reference, "--key", "p256.pub", "--key", "release.pub", "--insecure", "--json"]
    provenance, sbom = "https://slsa.dev/provenance/v1", "https://spdx.dev/Document"
    assert "not signed by" in hookline(*arguments, "--attestation", provenance).json["error"]
    assert hookline("sign", reference, "--key", "release.key", "--insecure").code == 0
    done = hookline(*arguments, "--attestation", provenance)
    assert done.code == 0, done
    assert len(done.json["proofs"]) == 2
    assert hookline(*arguments, "--attestation", sbom).code == 1
