"""Makes ``signed.json`` beside it: artifacts, and what real cosign writes where it signs them.

    PATH=$PATH:FOLDER PYTHONPATH=testbed python tests/support/signed/make_signed.py

``FOLDER`` holds ``cosign2`` and ``cosign3``, built by ``go install`` from ``github.com/sigstore/cosign/v2/cmd/cosign``
(v2.6.5) and ``github.com/sigstore/cosign/v3/cmd/cosign`` (v3.1.3) and named so; Debian's docker-registry is needed too.
oras and crane are built as the cluster's programs are. The private keys are made here and thrown away, so a new file
has new public keys. The tests need nothing of this: they push the file's content into a registry again
(``signed_artifacts``).
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import re
import subprocess
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from cluster.binaries import binary
from guests import Guests
from local_registry import MANIFEST, LocalRegistry, digest

HERE = Path(__file__).resolve().parent
NAME = "registry.example/acme/plugin"
"""The repository that simple signing names."""
INDEX = "application/vnd.oci.image.index.v1+json"
_ACCEPT = f"{INDEX}, {MANIFEST}, application/vnd.docker.distribution.manifest.v2+json"
_OFFLINE_2 = ["--tlog-upload=false", "--allow-http-registry"]
_OFFLINE_3 = ["--tlog-upload=false", "--use-signing-config=false", "--allow-http-registry"]
KEYS: dict[str, Callable[[], Any]] = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "other": lambda: ec.generate_private_key(ec.SECP256R1()),
}
_PREDICATES = {
    "spdxjson": {"spdxVersion": "SPDX-2.3", "SPDXID": "SPDXRef-DOCUMENT", "name": "plugin"},
    "slsaprovenance1": {
        "buildDefinition": {
            "buildType": "https://example.com/build/v1",
            "externalParameters": {"workflow": {"repository": "https://github.com/acme/plugin", "ref": "refs/tags/v1"}},
            "resolvedDependencies": [{"uri": "git+https://github.com/acme/plugin@refs/tags/v1"}],
        },
        "runDetails": {"builder": {"id": "https://github.com/acme/builder/.github/workflows/build.yml@refs/tags/v1"}},
    },
}


def _tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), mtime=0)


class Maker:
    """Pushes, has it signed, and takes down what then lies in the registry."""

    def __init__(self, registry: LocalRegistry, folder: Path) -> None:
        self.host = registry.host
        self.folder = folder
        self.contents: dict[str, bytes] = {}
        self.cases: dict[str, Any] = {}
        self.folders: dict[str, Any] = {}
        self.keys: dict[str, str] = {}
        self.module = Guests().answering(authorize={"allow": True})
        (folder / "plugin.wasm").write_bytes(self.module)
        for name, make in KEYS.items():
            text = make().private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            (folder / f"{name}.pem").write_bytes(text)
            self.run("cosign2", "import-key-pair", f"--key={name}.pem", f"--output-key-prefix={name}")
            self.keys[name] = (folder / f"{name}.pub").read_text()

    def run(self, *command: str) -> None:
        """Run a program in the folder."""
        environment = {**os.environ, "COSIGN_PASSWORD": "", "COSIGN_EXPERIMENTAL": "1", "HOME": str(self.folder)}
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{command}: {done.stdout}{done.stderr}")

    def ask(self, method: str, path: str, data: bytes | None = None, kind: str = "") -> Any:
        """One request to the registry; the answer's headers and bytes."""
        url = path if path.startswith("http") else f"http://{self.host}/v2/acme/{path}"
        headers = {"Accept": _ACCEPT, **({"Content-Type": kind} if kind else {})}
        with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method)) as answer:
            return answer.headers, answer.read()

    def push(self, case: str, document: dict[str, Any], *blobs: bytes, tag: str = "v1") -> str:
        """Put a manifest, whose blobs these are; its digest."""
        for blob in blobs:
            place = self.ask("POST", f"{case}/blobs/uploads/")[0]["Location"]
            self.ask("PUT", f"{place}&digest={digest(blob)}", blob, "application/octet-stream")
        text = json.dumps({"schemaVersion": 2, **document}).encode()
        self.ask("PUT", f"{case}/manifests/{tag}", text, document["mediaType"])
        return digest(text)

    def layer(self, case: str, layer: bytes, kind: str, *, config: str = "application/vnd.oci.empty.v1+json",
              more: tuple[tuple[bytes, str], ...] = (), **fields: Any) -> None:  # fmt: skip
        """A manifest with one layer, and others beside it."""
        described = [
            {"mediaType": each, "digest": digest(data), "size": len(data)} for data, each in (*more, (layer, kind))
        ]
        self.push(
            case,
            {"mediaType": MANIFEST, "config": {"mediaType": config, "digest": digest(b"{}"), "size": 2},
             "layers": described, **fields},
            b"{}", layer, *(data for data, _ in more),
        )  # fmt: skip

    def sign(self, case: str, key: str, *more: str, version: int, of: str = "", name: str = NAME) -> None:
        """``cosign sign``; of the tag's artifact, or of another digest."""
        of = of or self.ask("HEAD", f"{case}/manifests/v1")[0]["Docker-Content-Digest"]
        offline = [*_OFFLINE_2, f"--sign-container-identity={name}"] if version == 2 else _OFFLINE_3
        self.run(f"cosign{version}", "sign", "-y", f"--key={key}.key", *offline, *more, f"{self.host}/acme/{case}@{of}")

    def attest(self, case: str, key: str, kind: str, *, version: int) -> None:
        """``cosign attest`` of the tag's artifact."""
        of = self.ask("HEAD", f"{case}/manifests/v1")[0]["Docker-Content-Digest"]
        (self.folder / "predicate.json").write_text(json.dumps(_PREDICATES[kind]))
        offline = _OFFLINE_2 if version == 2 else _OFFLINE_3
        self.run(f"cosign{version}", "attest", "-y", f"--key={key}.key", f"--type={kind}",
                 "--predicate=predicate.json", *offline, f"{self.host}/acme/{case}@{of}")  # fmt: skip

    def take(self, case: str) -> None:
        """Take down what lies in the case's repository: its tags, in the order in which they may be pushed again."""
        tags = sorted(json.loads(self.ask("GET", f"{case}/tags/list")[1])["tags"], key=lambda tag: (tag != "v1", tag))
        self.cases[case] = {}
        for tag in tags:
            document = self.ask("GET", f"{case}/manifests/{tag}")[1]
            self.cases[case][tag] = self._take(case, document)

    def _take(self, case: str, document: bytes) -> str:
        self.contents[digest(document)] = document
        data = json.loads(document)
        for each in data.get("manifests", []):
            self._take(case, self.ask("GET", f"{case}/manifests/{each['digest']}")[1])
        for each in [data["config"], *data["layers"]] if "layers" in data else []:
            self.contents[each["digest"]] = self.ask("GET", f"{case}/blobs/{each['digest']}")[1]
        return digest(document)

    def take_folder(self, name: str, path: Path) -> None:
        """Take down an OCI layout folder."""
        blobs = {f"sha256:{each.name}": each.read_bytes() for each in (path / "blobs" / "sha256").iterdir()}
        self.contents |= blobs
        self.folders[name] = {"index": (path / "index.json").read_text(), "blobs": sorted(blobs)}

    def written(self) -> bytes:
        """The file. What is text stays text, so that a person can read it."""
        return json.dumps(
            {
                "name": NAME,
                "keys": self.keys,
                "cases": self.cases,
                "folders": self.folders,
                "contents": {key: _text(data) for key, data in sorted(self.contents.items())},
            },
            indent=1,
        ).encode() + b"\n"  # fmt: skip


def _text(data: bytes) -> Any:
    try:
        return data.decode() if b"\0" not in data else {"base64": base64.b64encode(data).decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _plain(maker: Maker, case: str) -> None:
    maker.layer(case, maker.module, "application/wasm", config="application/vnd.wasm.config.v0+json")


def _index(maker: Maker, case: str) -> str:
    """An index of the module and of something else; the digest of the module's entry."""
    _plain(maker, case)
    entry = maker.ask("GET", f"{case}/manifests/v1")[1]
    maker.layer(case, b"something else", "text/plain", more=((maker.module, "application/wasm"),))
    other = maker.ask("GET", f"{case}/manifests/v1")[1]
    platforms = [(entry, "wasip1", "wasm"), (other, "linux", "amd64")]
    entries = [
        {"mediaType": MANIFEST, "digest": digest(each), "size": len(each), "platform": {"os": os, "architecture": arch}}
        for each, os, arch in platforms
    ]
    maker.push(case, {"mediaType": INDEX, "manifests": entries})
    return digest(entry)


def _helios(maker: Maker) -> bytes:
    described = json.dumps({"name": "plugin", "version": "1.0.0"}).encode()
    return _tar({"manifest.json": described, "plugin.wasm": maker.module})


LAYOUTS: dict[str, Callable[[Maker, str], object]] = {
    "wasm-oci": _plain,
    "artifact-type": lambda m, case: m.run(
        str(binary("oras")), "push", "--plain-http", "--artifact-type=application/vnd.acme.plugin",
        f"{m.host}/acme/{case}:v1", "plugin.wasm:application/wasm"),
    "wasm-layer": lambda m, case: m.layer(case, m.module, "application/wasm"),
    "krustlet": lambda m, case: m.layer(case, m.module, "application/vnd.wasm.content.layer.v1+wasm"),
    "module-wasm": lambda m, case: m.layer(
        case, m.module, "application/vnd.module.wasm.content.layer.v1+wasm",
        more=((b'{"name": "plugin"}', "application/vnd.module.wasm.config.v1+json"),)),
    "image": lambda m, case: (
        (m.folder / "layer.tar.gz").write_bytes(_tar({"plugin.wasm": m.module})),
        m.run(str(binary("crane")), "append", "--insecure", "--oci-empty-base", "-f", "layer.tar.gz",
              "-t", f"{m.host}/acme/{case}:v1")),
    "heliosdb-tar": lambda m, case: m.layer(case, _helios(m), "application/gzip"),
    "index": _index,
}  # fmt: skip


def _make(maker: Maker) -> None:
    for key in ("p256", "p384", "p521", "rsa2048", "ed25519"):
        for form, version in (("simple", 2), ("bundle", 3)):
            _plain(maker, f"{form}-{key}")
            maker.sign(f"{form}-{key}", key, "--annotations=env=test", version=version)
    for layout, push in LAYOUTS.items():
        for form, version in (("simple", 2), ("bundle", 3)):
            case = f"{form}-of-{layout}"
            push(maker, case)
            maker.sign(case, "p256", version=version)
    for form, version in (("simple", 2), ("bundle", 3)):
        entry = _index(maker, f"{form}-of-entry")
        maker.sign(f"{form}-of-entry", "p256", version=version, of=entry)
        _plain(maker, f"{form}-by-two")
        maker.sign(f"{form}-by-two", "other", version=version)
        maker.sign(f"{form}-by-two", "p256", version=version)
        for kind in _PREDICATES:
            case = f"attested-{form}-{kind}"
            _plain(maker, case)
            maker.attest(case, "p256", kind, version=version)
    _plain(maker, "unsigned")
    _plain(maker, "simple-referrer")
    maker.sign("simple-referrer", "p256", "--registry-referrers-mode=oci-1-1", version=2)
    _plain(maker, "simple-elsewhere")
    maker.sign("simple-elsewhere", "p256", version=2, name="registry.example/acme/elsewhere")
    listed = maker.ask("GET", f"http://{maker.host}/v2/_catalog?n=1000")[1]
    for name in json.loads(listed)["repositories"]:
        maker.take(name.removeprefix("acme/"))
    for form, version in (("simple", 2), ("bundle", 3)):
        case = f"{form}-p256"
        of = maker.cases[case]["v1"]
        target = f"cosign-save-{version}"
        maker.run(
            f"cosign{version}", "save", f"--dir={target}", "--allow-http-registry", f"{maker.host}/acme/{case}@{of}"
        )
        maker.take_folder(target, maker.folder / target)
        target = f"oras-copy-{form}"
        copied = ["v1"] if form == "bundle" else ["v1", next(tag for tag in maker.cases[case] if tag.endswith(".sig"))]
        for tag in copied:
            maker.run(str(binary("oras")), "copy", "-r", "--from-plain-http", "--to-oci-layout",
                      f"{maker.host}/acme/{case}:{tag}", f"{target}:{tag}")  # fmt: skip
        maker.take_folder(target, maker.folder / target)


def main() -> None:
    """Write the file."""
    with tempfile.TemporaryDirectory() as folder:
        registry = LocalRegistry("docker-registry", Path(folder) / "registry")
        registry.start()
        try:
            maker = Maker(registry, Path(folder))
            _make(maker)
            written = maker.written()
        finally:
            registry.stop()
    ours = (b"PRIVATE KEY", *(f"{each}/".encode() for each in (tempfile.gettempdir(), Path.home())))
    leaked = re.search(b"|".join(map(re.escape, ours)), written)
    if leaked:
        raise SystemExit(f"{leaked[0]!r} must not be in the file")
    (HERE / "signed.json").write_bytes(written)


if __name__ == "__main__":
    main()
