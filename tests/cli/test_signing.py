"""What ``hookline sign`` writes, ``hookline verify`` takes: in both kinds of registries, in folders, beside files."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import tarfile
import urllib.request

import pytest

from hookline_artifacts.package.layouts import read_manifest
from local_registry import digest, manifest_of
from registries import sha256
from waiting import PATIENCE_S

MODULE = b"\0asm\x01\0\0\0"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
SIGNED = digest(manifest_of(MODULE))
FORMS = {"bundle": "release", "simple": "release", "ed25519": "acme"}


def verified(hookline, target, key, *more):
    """How verifying with one key ends."""
    option = "--ed25519" if key == "acme" else "--key"
    return hookline("verify", target, option, f"{key}.pub", "--insecure", *more)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_signed_is_verified(hookline, keys, push, form):
    """In each form, and by no other key."""
    reference = push(f"signed/{form}:1")
    assert verified(hookline, reference, FORMS[form]).code == 1
    done = hookline("sign", reference, "--key", f"{FORMS[form]}.key", "--form", form, "--insecure", "--json")
    assert done.code == 0, done
    assert done.json["signed"] == SIGNED
    found = verified(hookline, reference, FORMS[form], "--json")
    assert found.code == 0, found
    assert [(each["form"], each["keyId"]) for each in found.json["proofs"]] == [(form, done.json["keyId"])]
    assert verified(hookline, reference, "other").code == 1


@pytest.mark.parametrize("form", FORMS)
def test_who_has_signed_already_does_not_again(hookline, keys, push, form):
    """A pipeline that signs each night leaves one signature."""
    reference = push(f"again/{form}:1")
    arguments = ["sign", reference, "--key", f"{FORMS[form]}.key", "--form", form, "--insecure", "--json"]
    assert [hookline(*arguments).json["new"] for _ in range(3)] == [True, False, False]


@pytest.mark.parametrize("form", ["bundle", "simple"])
def test_another_signature_stays_beside_it(hookline, keys, push, form):
    """Both count, and two are asked for."""
    reference = push(f"two/{form}:1")
    for key in ("release", "other"):
        assert hookline("sign", reference, "--key", f"{key}.key", "--form", form, "--insecure").code == 0
    done = hookline(
        "verify", reference, "--key", "release.pub", "--key", "other.pub", "--minimum", 2, "--insecure", "--json"
    )
    assert done.code == 0, done
    assert len(done.json["proofs"]) == 2


def test_what_somebody_else_attached_stays_listed(hookline, keys, docker_registry):
    """The list under the fallback tag is read, changed and written again."""
    module = b"\0asm\x01\0\0\0\0\x02\x01x"
    reference = f"{docker_registry.host}/listed:1"
    subject = asyncio.run(docker_registry.push("listed:1", manifest_of(module), module))
    tag = f"listed:{subject.replace(':', '-')}"
    document = manifest_of(module)
    theirs = {"mediaType": MANIFEST, "digest": subject, "size": len(document), "annotations": {"by": "somebody"}}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [theirs]}
    asyncio.run(docker_registry.push(tag, json.dumps(index).encode()))
    assert hookline("sign", reference, "--key", "release.key", "--insecure").code == 0
    where = f"http://{docker_registry.host}/v2/{tag.replace(':', '/manifests/')}"
    request = urllib.request.Request(where, headers={"Accept": INDEX})
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        listed = json.loads(answer.read())["manifests"]
    assert listed[0] == theirs
    assert [each.get("artifactType") for each in listed[1:]] == ["application/vnd.dev.sigstore.bundle.v0.3+json"]
    assert verified(hookline, reference, "release").code == 0


@pytest.mark.parametrize("form", FORMS)
def test_a_folder_is_signed_as_a_registry_is(hookline, keys, push, form):
    """An OCI layout folder, as ``hookline load --to`` writes it."""
    reference = push(f"folder/{form}:1")
    assert hookline("save", reference, "-o", "saved.tar", "--insecure").code == 0
    loaded = hookline("load", "saved.tar", "--to", "mirror", "--json")
    folder = loaded.json["artifacts"][0]["reference"]
    assert hookline("sign", folder, "--key", f"{FORMS[form]}.key", "--form", form).code == 0
    assert verified(hookline, folder, FORMS[form]).code == 0
    assert verified(hookline, folder, "other").code == 1


def test_a_signature_of_simple_signing_is_for_its_repository(hookline, keys, push, registry):
    """A copy with it is refused, unless it is said where it came from."""
    reference = push("origin/plugin:1")
    assert hookline("sign", reference, "--key", "release.key", "--form", "simple", "--insecure").code == 0
    assert hookline("save", reference, "-o", "saved.tar", "--insecure").code == 0
    assert hookline("load", "saved.tar", f"{registry.host}/copied", "--insecure").code == 0
    copied = f"{registry.host}/copied/origin/plugin:1"
    done = verified(hookline, copied, "release")
    assert done.code == 1
    assert f"for the repository {registry.host}/origin/plugin" in done.sentence
    assert verified(hookline, copied, "release", "--signed-as", f"{registry.host}/origin/plugin").code == 0


# ---- files


@pytest.mark.parametrize(("key", "beside"), [("release", "guard.wasm.sigstore.json"), ("acme", "guard.sig")])
def test_a_file_is_signed_beside_it(hookline, keys, tmp_path, key, beside):
    """And a byte more in it is found out."""
    (tmp_path / "guard.wasm").write_bytes(MODULE)
    assert hookline("sign", "guard.wasm", "--key", f"{key}.key").code == 0
    assert (tmp_path / beside).exists()
    assert verified(hookline, "guard.wasm", key).code == 0
    (tmp_path / "guard.wasm").write_bytes(MODULE + b"\0\x02\x01x")
    assert verified(hookline, "guard.wasm", key).code == 1


def package(**files):
    """A package as HeliosDB's tool makes it."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name.replace("_", "."))
            entry.size, entry.mode = len(data), 0o640
            tar.addfile(entry, io.BytesIO(data))
    return gzip.compress(made.getvalue())


def test_a_package_has_its_signature_inside(hookline, keys, tmp_path):
    """It covers the manifest too; the rest of the package is as it was, and a second signature replaces the first."""
    manifest = json.dumps({"name": "guard", "wasm_sha256": sha256(MODULE).removeprefix("sha256:")}).encode()
    path = tmp_path / "guard.tar.gz"
    path.write_bytes(package(manifest_json=manifest, plugin_wasm=MODULE))
    for _ in range(2):
        assert hookline("sign", path, "--key", "acme.key").code == 0
    with tarfile.open(path) as tar:
        assert [(each.name, each.mode) for each in tar][:2] == [("manifest.json", 0o640), ("plugin.wasm", 0o640)]
        assert tar.getnames() == ["manifest.json", "plugin.wasm", "plugin.sig"]
    assert verified(hookline, path, "acme").code == 0
    with tarfile.open(path) as tar:
        signature = tar.extractfile("plugin.sig").read()
    changed = json.dumps({"name": "other", "wasm_sha256": sha256(MODULE).removeprefix("sha256:")}).encode()
    path.write_bytes(package(manifest_json=changed, plugin_wasm=MODULE, plugin_sig=signature))
    assert verified(hookline, path, "acme").code == 1


def test_a_signature_over_the_module_alone_is_asked_for(hookline, keys, tmp_path):
    """As HeliosDB's tool makes it; it counts where that is said."""
    manifest = json.dumps({"name": "guard"}).encode()
    path = tmp_path / "guard.tar.gz"
    path.write_bytes(package(manifest_json=manifest, plugin_wasm=MODULE))
    assert hookline("sign", path, "--key", "acme.key", "--legacy").code == 0
    assert verified(hookline, path, "acme").code == 1
    assert verified(hookline, path, "acme", "--legacy").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["guard.wasm", "--key", "release.key", "--form", "simple"], 2, "registries"),
        (["guard.wasm", "--key", "release.key", "--form", "ed25519"], 2, "--type ed25519"),
        (["guard.wasm", "--key", "release.key", "--legacy"], 2, "--form ed25519"),
        (["guard.wasm", "--key", "none.key"], 2, "none.key cannot be read"),
        (["none.wasm", "--key", "release.key"], 3, "there is no file"),
        (["broken.wasm", "--key", "acme.key"], 1, "not WebAssembly"),
        (["a//b:1", "--key", "release.key"], 3, "not an artifact reference"),
        (["127.0.0.1:1/a/b:1", "--key", "release.key", "--insecure"], 3, "cannot be fetched"),
        (["oci-layout:nowhere:1", "--key", "release.key"], 3, "cannot be read"),
    ],
)
def test_what_cannot_be_signed_is_told(hookline, keys, tmp_path, arguments, code, said):
    """In one sentence, with the exit code of its kind."""
    (tmp_path / "guard.wasm").write_bytes(MODULE)
    (tmp_path / "broken.wasm").write_bytes(b"not a module")
    done = hookline("sign", *arguments)
    assert done.code == code, done
    assert said in done.sentence


def test_a_signature_is_no_layer_of_what_is_signed(hookline, keys, push):
    """The artifact stays what it was: signing changes no digest."""
    reference = push("same/plugin:1")
    for form, key in FORMS.items():
        assert hookline("sign", reference, "--key", f"{key}.key", "--form", form, "--insecure").code == 0
    done = verified(hookline, reference, "release", "--json")
    assert done.json["digest"] == SIGNED
    assert read_manifest(manifest_of(MODULE)).subject == ""
