"""Make the files beside this one anew: modules that real cosign has signed, and the evidence of that.

    python tests/sidecar/trust/material/make.py COSIGN3 COSIGN2

Both programs are built from their Go modules (github.com/sigstore/cosign/v3/cmd/cosign, …/v2/…). The keys are thrown
away; what is kept are the public ones.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[3] / part) for part in ("testbed", "tests/support")]

from guests import Guests  # noqa: E402
from hookline_api.resources import OCISource  # noqa: E402
from hookline_artifacts.fetch import Fetcher  # noqa: E402
from hookline_artifacts.store import ArtifactStore  # noqa: E402
from hookline_artifacts.trust.collect import collect  # noqa: E402
from local_registry import MANIFEST, LocalRegistry, digest  # noqa: E402
from registries import Registry  # noqa: E402

PASSWORD = "thrown away"


def packed(module: bytes) -> bytes:
    """A tar.gz with the module, always the same bytes."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name, data in (
            ("plugin.wasm", module),
            ("manifest.json", b'{"name": "packed", "version": "2.0.0", "hooks": ["custom_hook"]}'),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return gzip.compress(plain.getvalue(), mtime=0)


def manifest(layer: bytes, kind: str, **annotations: str) -> bytes:
    """Of one layer."""
    return json.dumps({
        "schemaVersion": 2, "mediaType": MANIFEST, "annotations": annotations,
        "config": {"mediaType": "application/vnd.wasm.config.v0+json", "digest": digest(b"{}"), "size": 2},
        "layers": [{"mediaType": kind, "digest": digest(layer), "size": len(layer)}],
    }).encode()  # fmt: skip


async def main(cosign3: str, cosign2: str) -> None:
    """Make them."""
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        server = LocalRegistry("docker-registry", work / "registry")
        server.start()
        try:
            await _make(server.host, work, cosign3, cosign2)
        finally:
            server.stop()


async def _make(host: str, work: Path, cosign3: str, cosign2: str) -> None:
    environment = os.environ | {"COSIGN_PASSWORD": PASSWORD, "COSIGN_YES": "true", "HOME": str(work)}

    def run(*command: str) -> None:
        subprocess.run(command, env=environment, cwd=work, check=True)

    for name in ("signer", "stranger"):
        run(cosign2, "generate-key-pair", "--output-key-prefix", name)
        (HERE / f"{name}.pub").write_bytes((work / f"{name}.pub").read_bytes())
    guests, registry = Guests(), Registry(host)
    signed = guests.saying("signed")
    layer = packed(guests.saying("packed"))
    made = {
        "signed": (signed, "application/wasm", signed),
        "older": (older := guests.saying("older"), "application/wasm", older),
        "packed": (layer, "application/vnd.oci.image.layer.v1.tar+gzip", guests.saying("packed")),
    }
    fetcher = Fetcher(ArtifactStore(work / "store"))
    for name, (blob, kind, module) in made.items():
        version = "1.0.0" if name == "older" else "2.0.0"
        annotations = {"org.opencontainers.image.version": version} if name != "packed" else {}
        found = await registry.push(f"acme/{name}:1", manifest(blob, kind, **annotations), blob)
        reference = f"{host}/acme/{name}@{found}"
        (HERE / f"{name}.module").write_bytes(module)
        if name == "packed":
            (HERE / "packed.tar.gz").write_bytes(blob)
        source = OCISource(reference=f"{host}/acme/{name}:1", insecure=True)
        run(
            cosign3, "sign", "--key", "stranger.key", "--tlog-upload=false", "--use-signing-config=false",
            "--allow-insecure-registry", "--allow-http-registry", reference,
        )  # fmt: skip
        await _keep(fetcher, source, found, f"{name}.stranger.evidence")
        run(
            cosign3, "sign", "--key", "signer.key", "--tlog-upload=false", "--use-signing-config=false",
            "--allow-insecure-registry", "--allow-http-registry", reference,
        )  # fmt: skip
        await _keep(fetcher, source, found, f"{name}.evidence")
    # cosign 2's form names the repository that it was signed in.
    other = await registry.push("acme/tagged:1", manifest(signed, "application/wasm", about="tagged"), signed)
    run(
        cosign2, "sign", "--key", "signer.key", "--tlog-upload=false", "--allow-insecure-registry",
        "--allow-http-registry", "--sign-container-identity", "r.test/acme/tagged", f"{host}/acme/tagged@{other}",
    )  # fmt: skip
    source = OCISource(reference=f"{host}/acme/tagged:1", insecure=True)
    await _keep(fetcher, source, other, "tagged.evidence")
    await fetcher.close()


async def _keep(fetcher: Fetcher, source: OCISource, found: str, name: str) -> None:
    evidence = await collect(fetcher.repository(source), found)
    assert evidence.signatures
    (HERE / name).write_bytes(evidence.write())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
