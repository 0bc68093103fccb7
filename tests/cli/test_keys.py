"""Keys: made, kept behind a password, and cosign's own read."""

from __future__ import annotations

import base64
import json
import re

import pytest

from hookline_artifacts.trust import private_keys

# By cosign v3.1.3: COSIGN_PASSWORD=secret cosign generate-key-pair. It signs nothing but what is here.
COSIGN_KEY = """\
-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----
eyJrZGYiOnsibmFtZSI6InNjcnlwdCIsInBhcmFtcyI6eyJOIjo2NTUzNiwiciI6
OCwicCI6MX0sInNhbHQiOiIya1VGRGxXb2pLY0czcERHbW1oMDUrV0pNdXlic0Jx
SzBKcG1sQ29WbTJnPSJ9LCJjaXBoZXIiOnsibmFtZSI6Im5hY2wvc2VjcmV0Ym94
Iiwibm9uY2UiOiJWbk1hTWpBNThzT3djSndBMVM3WFcxVzFpeDE1MEFGZiJ9LCJj
aXBoZXJ0ZXh0IjoiZzNYcWFGc1RtS2dXVFN2VGNpNGFyOUxHQ3UweDR3NFV1ZE5r
MExPMUNnT3dGRkxhSDE3TnZ3Snd4ZVYrenJKemdaQWx2WDdNYngrRzE2ZUExMUhy
VmwrZTNyaDlvZmZwZGtqMHBLdmVRaks1MzRSeGNaT3NzOEVlQW1NY2M2aDI0eXRw
ZmZNRmhMU0RNODFuOVBKMlZENGlsZkhBMm4rVnp1enliakp4d0xnZ1NvSFcwZXV1
ak13NkZWSk5Jck05SWhWYm9Fd0k1OWxtdmc9PSJ9
-----END ENCRYPTED SIGSTORE PRIVATE KEY-----
"""
COSIGN_PUBLIC = """\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEUjg9AdwEwrzK6qtPXDRFFd7Tl6Ad
aWLLsrTLaWGeHFjMxQkLvVnDeNFUP97eHtCJdHbSQ5Ftw8tN9iVTyfttZQ==
-----END PUBLIC KEY-----
"""


def test_a_key_is_written_as_cosign_writes_its_own(hookline, tmp_path):
    """In the same envelope with the same parameters; only its owner may read it."""
    done = hookline("keygen", "--output", "release", "--json")
    assert done.code == 0
    assert done.json["type"] == "ecdsa"
    assert done.json["encrypted"]
    private, public = tmp_path / "release.key", tmp_path / "release.pub"
    assert private.stat().st_mode & 0o777 == 0o600
    assert public.read_text().startswith("-----BEGIN PUBLIC KEY-----")
    ours, theirs = (_opened(each) for each in (private.read_text(), COSIGN_KEY))
    assert ours["kdf"]["params"] == theirs["kdf"]["params"]
    assert ours["cipher"]["name"] == theirs["cipher"]["name"]
    key = private_keys.read(private.read_bytes(), b"secret", what="the key")
    assert key.public.id == done.json["keyId"]


def test_a_key_of_cosign_is_read(hookline, tmp_path):
    """It has the public key that cosign wrote beside it, and signs."""
    key = private_keys.read(COSIGN_KEY.encode(), b"secret", what="the key")
    assert key.pem_public == COSIGN_PUBLIC
    assert key.public.has_signed(key.sign(b"message"), b"message")
    assert not key.public.has_signed(key.sign(b"message"), b"another")
    (tmp_path / "cosign.key").write_text(COSIGN_KEY)
    (tmp_path / "plugin.wasm").write_bytes(b"\0asm\x01\0\0\0")
    assert hookline("sign", "plugin.wasm", "--key", "cosign.key").code == 0


def test_a_key_of_ed25519_has_heliosdbs_form(hookline, tmp_path):
    """32 bytes in base64; the private one is PKCS#8, behind the password."""
    assert hookline("keygen", "--type", "ed25519", "--output", "acme").code == 0
    assert len(base64.b64decode((tmp_path / "acme.pub").read_text(), validate=False)) == 32
    private = (tmp_path / "acme.key").read_text()
    assert "BEGIN ENCRYPTED PRIVATE KEY" in private
    key = private_keys.read(private.encode(), b"secret", what="the key")
    assert key.raw_public == (tmp_path / "acme.pub").read_text().strip()


def test_a_key_without_a_password_is_said_to_be(hookline, tmp_path, monkeypatch):
    """An empty password: of ed25519 the key is kept as it is, of ecdsa as cosign does it."""
    monkeypatch.setenv("HOOKLINE_PASSWORD", "")
    assert "without a password" in hookline("keygen", "--type", "ed25519", "--output", "acme").out
    assert "BEGIN PRIVATE KEY" in (tmp_path / "acme.key").read_text()
    assert hookline("keygen", "--output", "release").code == 0
    assert private_keys.read((tmp_path / "release.key").read_bytes(), b"", what="the key")


def test_cosigns_variable_counts_too(hookline, tmp_path, monkeypatch):
    """So a pipeline that has it for cosign needs no other."""
    monkeypatch.delenv("HOOKLINE_PASSWORD")
    monkeypatch.setenv("COSIGN_PASSWORD", "theirs")
    assert hookline("keygen", "--output", "release").code == 0
    assert private_keys.read((tmp_path / "release.key").read_bytes(), b"theirs", what="the key")


def test_who_cannot_be_asked_for_a_password_is_told(hookline, monkeypatch, tmp_path):
    """No terminal and no variable: nothing is written."""
    monkeypatch.delenv("HOOKLINE_PASSWORD")
    done = hookline("keygen", "--output", "release")
    assert done.code == 2
    assert "HOOKLINE_PASSWORD" in done.sentence
    assert not (tmp_path / "release.key").exists()


@pytest.mark.parametrize("there", ["release.key", "release.pub"])
def test_no_key_is_overwritten(hookline, tmp_path, there):
    """Neither of both files."""
    (tmp_path / there).write_text("mine")
    done = hookline("keygen", "--output", "release")
    assert done.code == 2
    assert there in done.sentence
    assert (tmp_path / there).read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == [there]


def test_a_wrong_password_is_told(hookline, tmp_path, monkeypatch):
    """And not shown."""
    (tmp_path / "cosign.key").write_text(COSIGN_KEY)
    (tmp_path / "plugin.wasm").write_bytes(b"\0asm\x01\0\0\0")
    monkeypatch.setenv("HOOKLINE_PASSWORD", "a wrong one")
    done = hookline("sign", "plugin.wasm", "--key", "cosign.key")
    assert done.code == 2
    assert "does not open with that password" in done.sentence
    assert "a wrong one" not in done.err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "not a private key"),
        ("x" * 70_000, "more than 65536 bytes"),
        (COSIGN_PUBLIC, "is a public key"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "not a private key"),
        (COSIGN_KEY.replace("eyJr", "AAAA"), "damaged"),
        ("@cost@", "in a way that cosign does not use"),
        ("@kdf@", "in a way that cosign does not use"),
    ],
)  # fmt: skip
def test_what_is_no_private_key_is_told(hookline, tmp_path, content, said):
    """One sentence, whatever it is; a file does not decide how much memory its password takes."""
    if content == "@cost@":
        content = _sealed(lambda data: data["kdf"]["params"].update(N=2**30))
    elif content == "@kdf@":
        content = _sealed(lambda data: data["kdf"].update(name="none"))
    (tmp_path / "a.key").write_text(content)
    (tmp_path / "plugin.wasm").write_bytes(b"\0asm\x01\0\0\0")
    done = hookline("sign", "plugin.wasm", "--key", "a.key")
    assert done.code == 2
    assert said in done.sentence


def _opened(pem):
    inside = re.search(r"-----\s+(.+?)\s+-----END", pem, re.DOTALL)[1]
    return json.loads(base64.b64decode("".join(inside.split())))


def _sealed(change):
    """The key of cosign with something else in its envelope."""
    data = _opened(COSIGN_KEY)
    change(data)
    text = base64.b64encode(json.dumps(data).encode()).decode()
    word = "ENCRYPTED SIGSTORE PRIVATE KEY"
    return f"-----BEGIN {word}-----\n{text}\n-----END {word}-----\n"
