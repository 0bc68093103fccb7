"""Detached signatures as they are kept, and what completes them: the manifest that they cover, too."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hookline_artifacts.trust import ed25519
from hookline_artifacts.trust.evidence import Evidence, Signature

if TYPE_CHECKING:
    from hookline_artifacts.store import Artifact


def kept(text: bytes) -> Signature:
    """A signature as it is kept. What is none is one that proves nothing, so that it can be told."""
    return Signature(form="ed25519", payload=b"", signature=ed25519.decode(text))


def completed(evidence: Evidence, artifact: Artifact) -> Evidence:
    """The same with the signatures in an artifact's archive, and with the manifest that detached ones cover."""
    packed = [kept(each.encode()) for each in artifact.signatures]
    manifest = ed25519.manifest_list(artifact.described_by) or b""
    found = [*evidence.signatures, *packed]
    return replace(
        evidence,
        signatures=tuple(replace(each, payload=manifest) if each.form == "ed25519" else each for each in found),
    )
