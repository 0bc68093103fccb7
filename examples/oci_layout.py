"""Puts modules into an OCI layout folder, as a registry would keep them.

A layout folder (github.com/opencontainers/image-spec, image-layout.md) is what `source.oci.reference:
oci-layout:PATH:TAG` reads; tools such as skopeo, crane and oras copy it to a real registry and back.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

# https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/
CONFIG = "application/vnd.wasm.config.v0+json"
LAYER = "application/wasm"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"


def add(folder: Path, module: bytes, tag: str) -> str:
    """Add a module under a tag, which may be there already and then points to this one; the manifest's digest."""
    (folder / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    (folder / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
    config = _blob(folder, b'{"architecture":"wasm","os":"wasip1"}', CONFIG)
    layer = _blob(folder, module, LAYER)
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}
    entry = _blob(folder, json.dumps(manifest).encode(), MANIFEST)
    index = folder / "index.json"
    others = json.loads(index.read_text())["manifests"] if index.exists() else []
    kept = [each for each in others if each["annotations"][REF_NAME] != tag]
    tagged = {**entry, "annotations": {REF_NAME: tag}}
    partial = folder / "index.json.partial"
    partial.write_text(json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [*kept, tagged]}))
    partial.replace(index)
    return str(entry["digest"])


def _blob(folder: Path, data: bytes, media_type: str) -> dict[str, object]:
    digest = hashlib.sha256(data).hexdigest()
    (folder / "blobs" / "sha256" / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}
