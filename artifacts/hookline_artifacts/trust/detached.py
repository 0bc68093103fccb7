"""Detached signatures of an artifact, wherever they are kept: in its registry, in its archive, beside its file."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from hookline_artifacts.net.body import Body
from hookline_artifacts.package.layouts import read_manifest
from hookline_artifacts.package.search import MAX_SIGNATURE
from hookline_artifacts.trust import ed25519
from hookline_artifacts.trust.evidence import Evidence, Signature

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hookline_artifacts.registry import Repository
    from hookline_artifacts.store import Artifact

MAX_DETACHED: Final = 8
"""Ed25519 signatures of one artifact in one place. Who rotates keys has two."""


async def in_registry(repository: Repository, evidence: Evidence) -> list[Signature]:
    """Those that the manifests of an artifact name: as layers, and as annotations. Raises FetchError, VerifyError."""
    found = []
    for document in evidence.documents.values():
        manifest = read_manifest(document)
        text = manifest.annotations.get(ed25519.ANNOTATION)
        if isinstance(text, str):
            found.append(kept(text.encode()))
        for layer in [each for each in manifest.layers if each.is_signature][:MAX_DETACHED]:
            buffer = io.BytesIO()
            if layer.size <= MAX_SIGNATURE:
                body = Body(buffer, what=f"the signature {layer.shown}", cap=MAX_SIGNATURE, expected=layer.size)
                await repository.blob(layer.digest, body)
                body.verify(layer.digest)
            found.append(kept(buffer.getvalue()))
    return found


def kept(text: bytes) -> Signature:
    """A signature as it is kept. What is none is one that proves nothing, so that it can be told."""
    return Signature(form="ed25519", payload=b"", signature=ed25519.decode(text))


def completed(evidence: Evidence, artifact: Artifact, more: Iterable[Signature] = ()) -> Evidence:
    """The same with the signatures in an artifact's archive, and with the manifest that detached ones cover."""
    packed = [kept(each.encode()) for each in artifact.signatures]
    manifest = ed25519.manifest_list(artifact.described_by) or b""
    found = [*evidence.signatures, *more, *packed]
    return replace(
        evidence,
        signatures=tuple(replace(each, payload=manifest) if each.form == "ed25519" else each for each in found),
    )
