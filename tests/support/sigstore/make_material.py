"""Signs one artifact in every way without a key that cosign has, and writes what it made where the tests read it.

Usage: ``python make_material.py COSIGN2 COSIGN3 CRANE OUTPUT``. Node.js has to be there, and ``npm ci`` to have run in
this folder. The services are those of ``server.mjs``; its authority is thrown away at the end, so nobody can sign
anything with it again. Each run changes every file: keys, times and digests are new.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent
ISSUER = "https://token.actions.githubusercontent.com"
SUBJECT = "https://github.com/acme/plugins/.github/workflows/release.yml@refs/tags/v1.2.3"
SOURCE = "https://github.com/acme/plugins"
BUILDER = "https://github.com/slsa-framework/generator/.github/workflows/build.yml@refs/tags/v2.1.0"
PREDICATES = {
    "slsaprovenance1": {
        "buildDefinition": {
            "buildType": "https://actions.github.io/buildtypes/workflow/v1",
            "externalParameters": {
                "workflow": {"ref": "refs/tags/v1.2.3", "repository": SOURCE, "path": ".github/workflows/release.yml"}
            },
            "resolvedDependencies": [
                {"uri": f"git+{SOURCE}@refs/tags/v1.2.3", "digest": {"gitCommit": "0" * 40}},
            ],
        },
        "runDetails": {"builder": {"id": BUILDER}},
    },
    "slsaprovenance": {
        "builder": {"id": BUILDER},
        "buildType": "https://github.com/slsa-framework/generator/generic@v1",
        "invocation": {"configSource": {"uri": f"git+{SOURCE}@refs/tags/v1.2.3", "digest": {"sha1": "0" * 40}}},
    },
    "spdxjson": {"spdxVersion": "SPDX-2.3", "SPDXID": "SPDXRef-DOCUMENT", "name": "guard", "packages": []},
    "cyclonedx": {"bomFormat": "CycloneDX", "specVersion": "1.6", "components": []},
}


class Maker:
    """One authority, one artifact, and a registry for each signature."""

    def __init__(self, cosign2: str, cosign3: str, crane: str, output: Path, work: Path) -> None:
        self.cosign2, self.cosign3, self.crane = cosign2, cosign3, crane
        self.output, self.work = output, work
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.registry = f"127.0.0.1:{free.getsockname()[1]}"
        self.repository = f"{self.registry}/acme/guard"
        self.token = _token()
        self.url = ""
        self.digest = ""

    def environment(self) -> dict[str, str]:
        """What tells cosign 2 whom to believe."""
        names = {"ROOT_FILE": "fulcio.pem", "REKOR_PUBLIC_KEY": "rekor.pub", "CT_LOG_PUBLIC_KEY_FILE": "ctfe.pub"}
        names["TSA_CERTIFICATE_FILE"] = "tsa.pem"
        told = {f"SIGSTORE_{name}": str(self.work / file) for name, file in names.items()}
        return os.environ | told | {"COSIGN_PASSWORD": ""}

    def run(self, *command: str) -> None:
        """A command that has to succeed."""
        subprocess.run(command, check=True, cwd=self.work, env=self.environment(), stdin=subprocess.DEVNULL)

    def version2(self, verb: str, *more: str, key: bool = False) -> None:
        """With cosign 2."""
        self.run(
            self.cosign2, verb, "--yes", "--allow-http-registry", *more,
            *(["--key=cosign.key", "--tlog-upload=false"] if key else
              [f"--fulcio-url={self.url}", f"--rekor-url={self.url}", f"--identity-token={self.token}"]),
            f"{self.repository}@{self.digest}",
        )  # fmt: skip

    def version3(self, verb: str, log: int, *more: str) -> None:
        """With cosign 3."""
        self.run(
            self.cosign3, verb, "--yes", "--allow-http-registry", f"--signing-config=signing_{log}.json",
            "--trusted-root=trusted_root.json", f"--identity-token={self.token}", *more,
            f"{self.repository}@{self.digest}",
        )  # fmt: skip

    def with_key3(self, verb: str, *more: str) -> None:
        """With cosign 3 and a key."""
        self.run(
            self.cosign3, verb, "--yes", "--allow-http-registry", "--key=cosign.key", "--use-signing-config=false",
            *more, f"{self.repository}@{self.digest}",
        )  # fmt: skip

    def sign_file(self, name: str, file: str) -> None:
        """What is left beside a file."""
        self.run(
            self.cosign3, "sign-blob", "--yes", "--signing-config=signing_1.json", "--trusted-root=trusted_root.json",
            f"--identity-token={self.token}", "--bundle=file.sigstore.json", file,
        )  # fmt: skip
        payload = _text((self.work / "file.sigstore.json").read_bytes())
        digest = f"sha256:{hashlib.sha256((self.work / file).read_bytes()).hexdigest()}"
        self._write(name, digest, [], [{"form": "bundle", "payload": payload, "signature": "", "annotations": {}}])

    def _write(self, name: str, digest: str, documents: list[str], signatures: list[dict[str, object]]) -> None:
        evidence = {"version": 1, "digest": digest, "documents": documents, "signatures": signatures}
        (self.output / f"{name}.json").write_text(json.dumps(evidence, indent=1) + "\n")

    @contextlib.contextmanager
    def case(self, name: str):
        """A registry that holds the artifact alone; afterwards, what was put beside it is written down."""
        server = subprocess.Popen([self.crane, "registry", "serve", "--address", self.registry])
        try:
            _wait(f"http://{self.registry}/v2/")
            self.run(self.crane, "append", "--oci-empty-base", "-f", "layer.tgz", "-t", f"{self.repository}:1")
            command = [self.crane, "digest", f"{self.repository}:1"]
            self.digest = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
            yield
            found = [*self._tagged("sig"), *self._tagged("att"), *self._referrers()]
            self._write(name, self.digest, [_text(self.get("manifests", self.digest))], found)
        finally:
            server.terminate()
            server.wait()

    def get(self, kind: str, name: str) -> bytes:
        """A document of the registry."""
        accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json"
        request = urllib.request.Request(f"http://{self.registry}/v2/acme/guard/{kind}/{name}")
        request.add_header("Accept", accept)
        with urllib.request.urlopen(request) as answer:
            return answer.read()

    def _tagged(self, kind: str):
        try:
            manifest = json.loads(self.get("manifests", f"{self.digest.replace(':', '-')}.{kind}"))
        except urllib.error.HTTPError:
            return
        for layer in manifest["layers"]:
            annotations = layer["annotations"]
            signature = annotations.get("dev.cosignproject.cosign/signature", "")
            payload = _text(self.get("blobs", layer["digest"]))
            form = "simple" if kind == "sig" else "dsse"
            yield {"form": form, "payload": payload, "signature": signature, "annotations": annotations}

    def _referrers(self):
        try:
            index = json.loads(self.get("manifests", self.digest.replace(":", "-")))
        except urllib.error.HTTPError:
            return
        for each in index["manifests"]:
            (layer,) = json.loads(self.get("manifests", each["digest"]))["layers"]
            payload = _text(self.get("blobs", layer["digest"]))
            yield {"form": "bundle", "payload": payload, "signature": "", "annotations": {}}


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _token() -> str:
    """An identity token as GitHub's; nobody checks its signature."""

    def part(data: dict[str, object]) -> str:
        return base64.urlsafe_b64encode(json.dumps(data).encode()).rstrip(b"=").decode()

    now = int(time.time())
    claims = {"iss": ISSUER, "sub": SUBJECT, "aud": "sigstore", "iat": now, "exp": now + 3600}
    claims["repository"] = "acme/plugins"
    return f"{part({'alg': 'RS256', 'typ': 'JWT'})}.{part(claims)}.{'A' * 342}"


def _wait(url: str) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), urllib.request.urlopen(url):
            return
        time.sleep(0.05)
    raise SystemExit(f"{url} does not answer")


def _make(maker: Maker) -> None:
    work, stamp = maker.work, f"--timestamp-server-url={maker.url}/api/v1/timestamp"
    with maker.case("signed-3-log-1"):
        maker.version3("sign", 1)
    with maker.case("signed-3-log-2"):
        maker.version3("sign", 2)
    with maker.case("signed-2"):
        maker.version2("sign")
    with maker.case("signed-2-stamped"):
        maker.version2("sign", stamp)
    for kind, predicate in PREDICATES.items():
        (work / f"{kind}.json").write_text(json.dumps(predicate))
        asked = (f"--type={kind}", f"--predicate={kind}.json")
        with maker.case(f"{kind}-3-log-1"):
            maker.version3("attest", 1, *asked)
        with maker.case(f"{kind}-2"):
            maker.version2("attest", *asked)
        with maker.case(f"{kind}-3-key"):
            maker.with_key3("attest", "--tlog-upload=false", *asked)
        if "slsa" in kind:
            with maker.case(f"{kind}-3-log-2"):
                maker.version3("attest", 2, *asked)
            with maker.case(f"{kind}-2-key"):
                maker.version2("attest", *asked, key=True)
    maker.sign_file("file-3-log-1", "plugin.wasm")
    with maker.case("signed-3-key"):
        maker.with_key3("sign", "--tlog-upload=false")


def main() -> None:
    """Make everything."""
    cosign2, cosign3, crane, target = sys.argv[1:]
    output = Path(target).resolve()
    output.mkdir(parents=True, exist_ok=True)
    for old in output.glob("*.json"):
        old.unlink()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        maker = Maker(cosign2, cosign3, crane, output, work)
        (work / "plugin.wasm").write_bytes(b"\0asm\1\0\0\0")
        with tarfile.open(work / "layer.tgz", "w:gz") as archive:
            archive.add(work / "plugin.wasm", "plugin.wasm")
        maker.run(cosign3, "generate-key-pair")
        server = subprocess.Popen(
            ["node", str(HERE / "server.mjs"), folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        maker.url = server.stdout.readline().strip()
        try:
            _make(maker)
        finally:
            server.stdin.close()
            server.wait()
        shutil.copy(work / "cosign.pub", output)
        root = json.loads((work / "trusted_root.json").read_text())
        (output / "trusted_root.json").write_text(json.dumps(root, indent=1) + "\n")
        told = {"repository": maker.repository, "issuer": ISSUER, "subject": SUBJECT, "source": SOURCE}
        told["builder"] = BUILDER
        (output / "about.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
