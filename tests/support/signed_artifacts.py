"""What real cosign signed (``signed/make_signed.py`` says how), pushed again into any registry or folder.

And what it would not sign, signed here with keys of the test's own.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hookline_api.resources import WasmPlugin
from hookline_artifacts.trust.collect import BUNDLE, SIGNATURE, SIMPLE_SIGNING
from hookline_artifacts.trust.cosign import SIGN_PREDICATE, pae
from registries import sha256

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
IN_TOTO = "application/vnd.in-toto+json"
_DATA = json.loads((Path(__file__).parent / "signed" / "signed.json").read_text())
NAME = _DATA["name"]
"""The repository that simple signing names there."""
KEYS = _DATA["keys"]
"""Public keys in PEM by their kinds; ``other`` has signed beside ``p256``."""
CASES = _DATA["cases"]
"""Digests by tags, by cases: what was in one repository."""
FOLDERS = _DATA["folders"]
LAYOUTS = sorted(case.removeprefix("simple-of-") for case in CASES if case.startswith("simple-of-"))


def content(digest):
    """The bytes of a digest."""
    kept = _DATA["contents"][digest]
    return base64.b64decode(kept["base64"]) if isinstance(kept, dict) else kept.encode()


def digest_of(case):
    """Of the artifact of a case."""
    return CASES[case]["v1"]


def signature_tags(case):
    """The tags beside the artifact's own."""
    return [tag for tag in CASES[case] if tag != "v1"]


def _parts(digest):
    """The manifest of a digest, and those that it names, each with its blobs: inner ones first."""
    document = content(digest)
    data = json.loads(document)
    for each in data.get("manifests", []):
        yield from _parts(each["digest"])
    blobs = [data["config"], *data["layers"]] if "layers" in data else []
    yield digest, document, [content(each["digest"]) for each in blobs]


async def push(registry, case, repository, *, fallback=True):
    """Push a case into a repository.

    Without ``fallback`` its referrers come without their tag, for a registry that lists them itself.
    """
    for tag, digest in CASES[case].items():
        for each, document, blobs in _parts(digest):
            last = each == digest
            if not fallback and last and tag == digest_tag(case):
                continue  # the index of the fallback tag
            await registry.push(f"{repository}:{tag}" if last else f"{repository}@{each}", document, *blobs)


def digest_tag(case):
    """The fallback tag of a case's artifact."""
    return digest_of(case).replace(":", "-")


def put(server, case, repository):
    """Put a case into a ``registries.Server``."""
    for tag, digest in CASES[case].items():
        for each, document, blobs in _parts(digest):
            server.put(f"{repository}:{tag if each == digest else each.replace(':', '-')}", document, *blobs)


def write_folder(name, path):
    """Write an OCI layout folder as its tool did."""
    blobs = path / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (path / "index.json").write_text(FOLDERS[name]["index"])
    for digest in FOLDERS[name]["blobs"]:
        (blobs / digest.removeprefix("sha256:")).write_bytes(content(digest))


def plugin(source, **verify):
    """A plugin of a source that asks for signatures. ``keys`` are short for ``anyOf``."""
    return WasmPlugin.model_validate({
        "metadata": {"name": "guard", "namespace": "apps"},
        "spec": {"source": source, "verify": verify, "hooks": ["authorize"]},
    })  # fmt: skip


def signer(pem, *, signed_as=(NAME,), **more):
    """An entry of ``anyOf``: a key that may sign for the name in the fixtures too."""
    return {"key": {"pem": pem}, "signedAs": list(signed_as), **more}


class NoObjects:
    """A cluster without Secrets and ConfigMaps."""

    async def secret(self, *_):
        """None."""

    async def config_map(self, *_):
        """None."""


class Key:
    """A key of a test's own, and what it signs."""

    def __init__(self):
        self.private = ec.generate_private_key(ec.SECP256R1())
        self.pem = self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ).decode()  # fmt: skip

    def sign(self, message):
        """A signature over a message."""
        return self.private.sign(message, ec.ECDSA(hashes.SHA256()))

    def simple(self, digest, name=NAME):
        """A payload of simple signing, and its signature."""
        critical = {"identity": {"docker-reference": name}, "image": {"docker-manifest-digest": digest},
                    "type": "cosign container image signature"}  # fmt: skip
        payload = json.dumps({"critical": critical, "optional": None}).encode()
        return payload, self.sign(payload)

    def envelope(self, digest, *, predicate_type=SIGN_PREDICATE, kind=IN_TOTO, predicate=None):
        """A DSSE envelope over a statement."""
        statement = json.dumps({
            "_type": "https://in-toto.io/Statement/v1", "predicateType": predicate_type, "predicate": predicate or {},
            "subject": [{"digest": {"sha256": digest.removeprefix("sha256:")}}],
        }).encode()  # fmt: skip
        signature = base64.b64encode(self.sign(pae(kind, statement))).decode()
        return {
            "payload": base64.b64encode(statement).decode(),
            "payloadType": kind,
            "signatures": [{"sig": signature}],
        }

    def bundle(self, digest, **more):
        """A bundle."""
        envelope = self.envelope(digest, **more)
        return json.dumps({"mediaType": f"{BUNDLE}.v0.3+json", "dsseEnvelope": envelope}).encode()


def sig_manifest(*signed):
    """The manifest of a ``.sig`` tag for pairs of payload and signature."""
    layers = [
        {"mediaType": SIMPLE_SIGNING, "digest": sha256(payload), "size": len(payload),
         "annotations": {SIGNATURE: base64.b64encode(signature).decode()}}
        for payload, signature in signed
    ]  # fmt: skip
    return _manifest(layers)


def referrer(subject, blob, *, kind=f"{BUNDLE}.v0.3+json", **more):
    """The manifest of a referrer with one layer."""
    about = {"subject": {"mediaType": MANIFEST, "digest": subject, "size": 1}} if subject else {}
    return _manifest([{"mediaType": kind, "digest": sha256(blob), "size": len(blob), **more}], **about)


def _manifest(layers, **more):
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2}
    return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers, **more}).encode()


def listing(*manifests, kind=f"{BUNDLE}.v0.3+json"):
    """A list of referrers; each entry is a manifest's bytes, or a descriptor."""
    entries = [
        each if isinstance(each, dict)
        else {"mediaType": MANIFEST, "digest": sha256(each), "size": len(each), "artifactType": kind}
        for each in manifests
    ]  # fmt: skip
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()


def write_case(case, path):
    """Write a case as an OCI layout folder with an entry for each tag, as ``skopeo copy`` of each would."""
    blobs = path / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    entries = []
    for tag, digest in CASES[case].items():
        for each, document, parts in _parts(digest):
            for part in (document, *parts):
                (blobs / sha256(part).removeprefix("sha256:")).write_bytes(part)
            if each == digest:
                kind = json.loads(document)["mediaType"]
                entries.append({
                    "mediaType": kind, "digest": digest, "size": len(document),
                    "annotations": {"org.opencontainers.image.ref.name": tag},
                })  # fmt: skip
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}))


class Place:
    """An artifact on a ``registries.Server``, and what is put around it."""

    def __init__(self, server, digest):
        self.server = server
        self.digest = digest
        self.key = Key()
        self.source = server.source("acme/p:v1")
        self.tag = digest.replace(":", "-")

    def sig(self, *pairs):
        """Simple signing under its tag."""
        self.server.put(f"acme/p:{self.tag}.sig", sig_manifest(*pairs), *(payload for payload, _ in pairs))

    def refer(self, *entries):
        """The list under the fallback tag; manifests with their blobs, or descriptors."""
        for each in entries:
            if isinstance(each, tuple):
                manifest, *blobs = each
                self.server.put(f"acme/p:{sha256(manifest)[-12:]}", manifest, *blobs)
        listed = [each[0] if isinstance(each, tuple) else each for each in entries]
        self.server.put(f"acme/p:{self.tag}", listing(*listed))

    def good(self):
        """A bundle that counts, and its manifest."""
        bundle = self.key.bundle(self.digest)
        return referrer(self.digest, bundle), bundle

    def signers(self):
        """Who has to have signed."""
        return {"anyOf": [signer(self.key.pem)]}

    def junk(self, number=0):
        """A referrer that is none of ours, and looks as if."""
        blob = b'{"junk": %d}' % number
        return referrer(self.digest, blob), blob
