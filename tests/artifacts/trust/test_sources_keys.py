"""Ed25519 keys from a folder, a Secret and a ConfigMap: found, bounded, and what is wrong with them said."""

from __future__ import annotations

import base64
import os

import pytest

from hookline_api.trust import Verify
from hookline_artifacts.errors import ConfigError, SignatureError
from hookline_artifacts.trust.requirement import MAX_DOCUMENT, MAX_KEYS, load
from signed_plugins import Rig, Signer, module, objects

MODULE = module("keys")
SIGNERS = [Signer(number) for number in range(1, 4)]
PUBLIC = [each.public for each in SIGNERS]
KINDS = ["file", "secret", "configMap"]


@pytest.fixture
def rig(tmp_path, fetcher):
    """Resolves plugins of a folder."""
    return Rig(tmp_path / "plugins", fetcher)


def asked(kind, **more):
    """``spec.verify`` with the keys of a document of this kind."""
    document = {"file": "trust"} if kind == "file" else {kind: {"name": "trust", **more}}
    return {"anyOf": [{"ed25519": {"from": document}}]}


async def read(rig, kind, files, **more):
    """The requirement with these files, or keys of an object."""
    data = {name: text.encode() if isinstance(text, str) else text for name, text in files.items()}
    if kind == "file":
        for name, text in data.items():
            rig.put(f"trust/{name}", text)
    held = objects(
        secrets={"trust": data} if kind == "secret" else {}, config_maps={"trust": data} if kind == "configMap" else {}
    )
    verify = Verify.model_validate(asked(kind, **more))
    return await load(verify.signatures, objects=held, namespace="team", base=rig.folder, where="spec.verify")


@pytest.mark.parametrize("kind", KINDS)
async def test_any_key_of_a_folder_counts(rig, kind):
    """Every ``*.pub``, with or without a line feed, and nothing else that lies there."""
    files = {"a.pub": PUBLIC[0], "b.pub": PUBLIC[1] + "\n", "README.md": "not a key", "b.pub.bak": "neither"}
    (authority,) = (await read(rig, kind, files)).any_of
    assert len(authority.keys) == 2
    rig.put("p.sig", SIGNERS[1].sign(MODULE))
    data = {name: text.encode() for name, text in files.items()}
    more = {"file": {}, "secret": {"secrets": {"trust": data}}, "configMap": {"config_maps": {"trust": data}}}[kind]
    assert (await rig.file("p.wasm", MODULE, asked(kind), **more)).trust.proofs
    rig.put("p.sig", SIGNERS[2].sign(MODULE))
    with pytest.raises(SignatureError):
        await rig.file("p.wasm", MODULE, asked(kind), **more)


@pytest.mark.parametrize("kind", KINDS[1:])
async def test_one_key_of_an_object_can_be_named(rig, kind):
    """Whatever it is called; the others count for nothing then."""
    files = {"releases": PUBLIC[0], "other.pub": PUBLIC[1]}
    (authority,) = (await read(rig, kind, files, key="releases")).any_of
    assert len(authority.keys) == 1
    with pytest.raises(ConfigError, match="has none of the key 'nowhere'"):
        await read(rig, kind, files, key="nowhere")


async def test_a_file_can_be_named(rig):
    """One key by itself."""
    rig.put("releases.pub", PUBLIC[0].encode())
    rig.put("p.sig", SIGNERS[0].sign(MODULE))
    verify = {"anyOf": [{"ed25519": {"from": {"file": "releases.pub"}}}]}
    assert (await rig.file("p.wasm", MODULE, verify)).trust.proofs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not an Ed25519 public key: write its 32 bytes in base64"),
        ("not base64", "is not an Ed25519 public key"),
        (base64.b64encode(bytes(31)).decode(), "is not an Ed25519 public key"),
        (base64.b64encode(bytes(64)).decode(), "is not an Ed25519 public key"),
        ("-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----\n", "is not an Ed25519 public key"),
        (base64.b64encode(bytes(32)).decode(), "small order"),
        (b"\xff\xfe", "is not text"),
        ("ключ", "is not an Ed25519 public key"),
    ],
    ids=["empty", "words", "31", "64", "pem", "small-order", "bytes", "letters"],
)
async def test_a_key_that_is_none_is_told_with_its_name(rig, kind, text, why):
    """And the good ones beside it do not hide it: a key that was meant to count would be missing."""
    with pytest.raises(ConfigError, match=rf"spec\.verify\.anyOf\[0\]\.ed25519\.from: .*{why}") as found:
        await read(rig, kind, {"bad.pub": text, "good.pub": PUBLIC[0]})
    assert "bad.pub" in str(found.value) or why == "is not text"


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_where_keys_should_be_is_told(rig, kind):
    """A signer without a key would be one whom nobody can satisfy, for a reason that nobody sees."""
    with pytest.raises(ConfigError, match=r"has none of .*\*\.pub"):
        await read(rig, kind, {"README": "x"})


@pytest.mark.parametrize("kind", KINDS)
async def test_more_keys_than_are_allowed_are_refused(rig, kind):
    """And as many as are allowed are not."""
    files = {f"{number:03}.pub": Signer(number).public for number in range(1, MAX_KEYS + 1)}
    (authority,) = (await read(rig, kind, files)).any_of
    assert len(authority.keys) == MAX_KEYS
    with pytest.raises(ConfigError, match=rf"there are {MAX_KEYS + 1} keys, and {MAX_KEYS} are allowed"):
        await read(rig, kind, {**files, "more.pub": Signer(99).public})


@pytest.mark.parametrize("kind", KINDS)
async def test_a_key_of_megabytes_is_refused(rig, kind):
    """A file is read no further than that."""
    with pytest.raises(ConfigError, match=f"more than {MAX_DOCUMENT} bytes"):
        await read(rig, kind, {"a.pub": "A" * (MAX_DOCUMENT + 1)})


@pytest.mark.parametrize("kind", KINDS[1:])
async def test_an_object_that_is_not_there_is_told(rig, kind):
    """By its kind and name."""
    verify = Verify.model_validate(asked(kind))
    shown = "Secret" if kind == "secret" else "ConfigMap"
    with pytest.raises(ConfigError, match=rf"spec\.verify\.anyOf\[0\]\.ed25519\.from: there is no {shown} 'trust'"):
        await load(verify.signatures, objects=objects(), namespace="team", base=rig.folder, where="spec.verify")


async def test_a_file_that_is_not_there_or_is_none_is_told(rig):
    """Nor is one waited for: a pipe has no end."""
    with pytest.raises(ConfigError, match="trust cannot be read: No such file or directory"):
        await load(
            Verify.model_validate(asked("file")).signatures,
            objects=objects(),
            namespace=None,
            base=rig.folder,
            where="spec.verify",
        )
    rig.put("trust/x", b"")
    os.mkfifo(rig.folder / "trust" / "pipe.pub")
    with pytest.raises(ConfigError, match=r"spec\.verify\.anyOf\[0\]\.ed25519\.from"):
        await read(rig, "file", {})


async def test_files_are_for_folders_alone(rig):
    """In a cluster they would be the operator's own disk."""
    with pytest.raises(ConfigError, match="is for manifest folders and for policies that are files"):
        await load(
            Verify.model_validate(asked("file")).signatures,
            objects=objects(),
            namespace="team",
            base=None,
            where="spec.verify",
        )
    assert rig.fetcher


@pytest.mark.parametrize("kind", KINDS)
async def test_another_key_is_another_requirement(rig, kind):
    """What was met is remembered by its fingerprint, which changes when keys do."""
    first = await read(rig, kind, {"a.pub": PUBLIC[0]})
    again = await read(rig, kind, {"a.pub": PUBLIC[0]})
    other = await read(rig, kind, {"a.pub": PUBLIC[1]})
    assert first.fingerprint == again.fingerprint != other.fingerprint
