"""What a detached Ed25519 signature covers, how it is kept, and which keys are none."""

from __future__ import annotations

import base64
import hashlib
import subprocess

import pytest
from cryptography.hazmat.primitives import serialization

from hookline_artifacts.errors import ConfigError
from hookline_artifacts.module.describe import PluginDescription, described_by
from hookline_artifacts.trust import ed25519
from hookline_artifacts.trust.keys import read_raw
from signed_plugins import Signer

MODULE = b"\0asm\x01\0\0\0"
SHA256 = hashlib.sha256(MODULE).hexdigest()
OCI = "org.opencontainers.image."

P = 2**255 - 19
SMALL = (
    0, 1, P - 1,
    0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
    0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
)  # fmt: skip


def key(signer):
    """Its public key."""
    return read_raw(signer.public, what="a key")


def test_the_message_is_three_lines():
    """Byte for byte: whoever signs with other tools writes the same."""
    documents = {"manifest.json": b'{"name": "guard"}', "plugin.yaml": b"name: guard\n", "other.txt": b"no part"}
    annotations = {OCI + "version": "1.0", "hookline.plugin": "{}", "hookline.signature": "x", "com.example": "y"}
    listed = ed25519.manifest_list(described_by(documents, annotations))
    assert listed == (
        b"sha256:4bf8fb851402f500b7e552fb8c73382434815fbfb44bdc8292698db00c57e408 plugin.yaml\n"
        b"sha256:31a3071e3dc4f295768ab3d45997365483086ea52ea8f768a99f0be3ea8c4a35 manifest.json\n"
        b"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a annotation:hookline.plugin\n"
        b"sha256:d0ff5974b6aa52cf562bea5921840c032a860a91a3512f7fe8f768f6bbe005f6 "
        b"annotation:org.opencontainers.image.version\n"
    )
    assert ed25519.message(SHA256, listed) == (
        b"hookline.dev/signature/v1\n"
        b"module sha256:93a44bbb96c751218e4c00d479e4c14358122a389acca16205b1e4d0dc5f9476\n"
        b"manifest sha256:" + hashlib.sha256(listed).hexdigest().encode() + b"\n"
    )
    assert ed25519.message(SHA256.upper(), None).endswith(f"module sha256:{SHA256}\nmanifest none\n".encode())


def test_openssl_signs_the_same(tmp_path):
    """A signature can be made without Hookline, and counts."""
    signer = Signer()
    form = serialization.PrivateFormat.PKCS8
    pem = signer.key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    (tmp_path / "plugin.wasm").write_bytes(MODULE)
    (tmp_path / "manifest.json").write_bytes(b"{}")
    script = """
      sha() { sha256sum "$1" | cut -d" " -f1; }
      printf 'sha256:%s manifest.json\\n' "$(sha manifest.json)" > list
      printf 'hookline.dev/signature/v1\\n' > m
      printf 'module sha256:%s\\nmanifest sha256:%s\\n' "$(sha plugin.wasm)" "$(sha list)" >> m
      openssl pkeyutl -sign -rawin -inkey key.pem -in m | base64
    """
    done = subprocess.run(["sh", "-ec", script], cwd=tmp_path, check=True, capture_output=True)
    assert b"\n" in done.stdout.strip(), "base64 breaks lines, which is no reason to refuse it"
    listed = ed25519.manifest_list(described_by({"manifest.json": b"{}"}, {}))
    assert ed25519.decode(done.stdout) == ed25519.decode(signer.sign(MODULE, {"manifest.json": b"{}"}))
    assert ed25519.verify(key(signer), ed25519.decode(done.stdout), module_sha256=SHA256, manifest=listed)


def test_every_annotation_that_is_read_is_covered():
    """None of them can be changed, added or taken away behind a signature's back. Others say nothing."""
    keys = [OCI + each for each in ("title", "version", "description", "authors", "licenses")] + ["hookline.plugin"]
    values = dict.fromkeys(keys, '{"hooks": ["auth"]}')
    assert [*described_by({}, values)] == sorted(f"annotation:{each}" for each in keys)
    for each in (OCI + "created", OCI + "source", "hookline.signature", "vendor"):
        assert PluginDescription.from_annotations({each: "x"}) is None
        assert described_by({}, {each: "x"}) == {}
    for odd in (1.5, 2, True, None, ["1.0"], {"a": 1}):
        assert PluginDescription.from_annotations({OCI + "version": odd, "hookline.plugin": odd}) is None
        assert described_by({}, {OCI + "version": odd}) == {}


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n", b" \t\n\n"], ids=["bare", "unix", "dos", "spaces"])
def test_white_space_around_a_signature_is_passed_over(ending):
    """As HeliosDB's loader trims it, and as tools write it."""
    text = Signer().sign(MODULE)
    assert len(ed25519.decode(text + ending)) == 64
    assert ed25519.decode(ending + text) == ed25519.decode(text) == ed25519.decode(text[:44] + b"\r\n" + text[44:])


@pytest.mark.parametrize(
    "text",
    [
        b"", b"\n", b"no base64!", b"\xff\xfe\x00", base64.b64encode(bytes(63)), base64.b64encode(bytes(65)),
        base64.b64encode(bytes(64)) * 2, base64.b64encode(bytes(64)) + b" " * 2000, bytes(64),
        base64.urlsafe_b64encode(b"\xff" * 64), base64.b64encode(bytes(64)).rstrip(b"="), bytes(64).hex().encode(),
    ],
    ids=["nothing", "a-line", "words", "bytes", "63", "65", "two", "too-long", "raw", "url-safe", "unpadded", "hex"],
)  # fmt: skip
def test_what_is_no_signature_decodes_to_nothing(text):
    """And nothing is by no key."""
    assert ed25519.decode(text) == b""
    assert not ed25519.verify(key(Signer()), b"", module_sha256=SHA256, manifest=None)


@pytest.mark.parametrize("length", [0, 1, 63, 65, 128])
def test_a_signature_of_another_length_is_none(length):
    """In evidence somebody may write any bytes."""
    raw = (ed25519.decode(Signer().sign(MODULE)) * 2)[:length]
    assert not ed25519.verify(key(Signer()), raw, module_sha256=SHA256, manifest=None)
    assert not ed25519.verify_legacy(key(Signer()), raw, module=MODULE)


def test_the_two_forms_never_stand_for_each_other():
    """What is signed in one form begins as nothing does that is signed in the other."""
    signer = Signer()
    new, old = (ed25519.decode(each) for each in (signer.sign(MODULE), signer.sign_as_heliosdb(MODULE)))
    public = key(signer)
    assert ed25519.verify(public, new, module_sha256=SHA256, manifest=None)
    assert ed25519.verify_legacy(public, old, module=MODULE)
    assert not ed25519.verify(public, old, module_sha256=SHA256, manifest=None)
    assert not ed25519.verify_legacy(public, new, module=MODULE)


def test_a_signature_with_a_bit_of_another_is_none():
    """Every bit counts, and so does the order of the group: S plus the order is no second spelling."""
    signer = Signer()
    raw = ed25519.decode(signer.sign(MODULE))
    for bit in range(0, 512, 7):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        assert not ed25519.verify(key(signer), bytes(flipped), module_sha256=SHA256, manifest=None)
    order = 2**252 + 27742317777372353535851937790883648493
    more = raw[:32] + (int.from_bytes(raw[32:], "little") + order).to_bytes(32, "little")
    assert not ed25519.verify(key(signer), more, module_sha256=SHA256, manifest=None)


@pytest.mark.parametrize("sign", [0, 1], ids=["even", "odd"])
@pytest.mark.parametrize("y", [*SMALL, P, P + 1, 2**255 - 1], ids=lambda y: f"{y:064x}"[:12])
def test_a_key_of_small_order_is_refused(y, sign):
    """One signature would be good for every module. So is a point that is not written as it should be."""
    raw = (y | sign << 255).to_bytes(32, "little")
    with pytest.raises(ConfigError, match="small order"):
        read_raw(base64.b64encode(raw).decode(), what="a key")
