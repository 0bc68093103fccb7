"""A module as an artifact of a registry: the CNCF's layout for WebAssembly, ``wasm-oci`` in ``package.layouts``.

The same module with the same annotations is the same artifact, digest and all: no time is written into it.

Specification: https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/ .
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hookline_artifacts.module.describe import OCI_ANNOTATIONS
from hookline_artifacts.net.cargo import Cargo
from hookline_artifacts.targets import MANIFEST, digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hookline_artifacts.module.describe import PluginDescription
    from hookline_artifacts.store import Artifact
    from hookline_artifacts.targets import Target

CONFIG: Final = "application/vnd.wasm.config.v0+json"
LAYER: Final = "application/wasm"


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """What is pushed."""

    config: bytes
    manifest: bytes

    @property
    def digest(self) -> str:
        """Of the manifest: what a reference by digest names."""
        return digest_of(self.manifest)


def annotations_of(description: PluginDescription) -> dict[str, str]:
    """What a module says of itself, as OCI annotations."""
    said = {key: getattr(description, name) for name, key in OCI_ANNOTATIONS.items()}
    return {key: text for key, text in said.items() if text}


def packed(artifact: Artifact, annotations: Mapping[str, str]) -> Packed:
    """The documents around a module."""
    layer = f"sha256:{artifact.sha256}"
    config = json.dumps({"architecture": "wasm", "os": "wasip1", "layerDigests": [layer]}).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": digest_of(config), "size": len(config)},
        "layers": [{"mediaType": LAYER, "digest": layer, "size": artifact.size}],
        **({"annotations": dict(sorted(annotations.items()))} if annotations else {}),
    }
    return Packed(config=config, manifest=json.dumps(manifest).encode())


async def push(
    target: Target, artifact: Artifact, made: Packed, *, tag: str | None, sent: Callable[[int], None] | None = None
) -> None:
    """Put it there; the tag last, so that nobody finds a part of it. Raises FetchError and VerifyError."""
    layer = f"sha256:{artifact.sha256}"
    await target.put_blob(digest_of(made.config), Cargo.of(made.config))
    await target.put_blob(layer, Cargo.of_file(artifact.path, artifact.size, sent))
    await target.put_manifest(made.manifest, tag=tag)
