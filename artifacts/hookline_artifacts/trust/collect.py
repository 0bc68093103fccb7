"""Collects the signatures of an artifact from where it is kept: every form, every place, nothing believed.

cosign up to version 2 puts signatures under the tag ``sha256-<hex>.sig``, and attestations under ``….att``. Version 3
and other tools push a bundle as a *referrer*: a manifest whose ``subject`` is the artifact. What an index says of a
referrer's kind is often wrong, so each is opened, and counts only where its own subject is what it is asked for. A
detached Ed25519 signature may be a referrer, too.

https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md and BUNDLE_SPEC.md
"""

from __future__ import annotations

import base64
import binascii
import io
from typing import TYPE_CHECKING, Final

from hookline_artifacts.errors import FetchError, VerifyError
from hookline_artifacts.net.body import Body
from hookline_artifacts.package.layouts import choose, read_manifest
from hookline_artifacts.package.search import MAX_SIGNATURE
from hookline_artifacts.trust import ed25519
from hookline_artifacts.trust.evidence import MAX_SIGNATURES, Evidence, Signature

if TYPE_CHECKING:
    from hookline_artifacts.package.layouts import Descriptor, Manifest
    from hookline_artifacts.registry import Repository

SIMPLE_SIGNING: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
BUNDLE: Final = "application/vnd.dev.sigstore.bundle"
"""How the media types of bundles of all versions begin."""
SIGNATURE: Final = "dev.cosignproject.cosign/signature"
_MAX_REFERRERS: Final = 256
"""That are opened. An artifact that is signed again each day has 365 in a year: who signs, cleans up."""
_MAX_DEPTH: Final = 4
_MAX_PAYLOAD: Final = 64 * 1024
"""Bytes of what simple signing signs: cosign writes 250."""
_MAX_BUNDLE: Final = 256 * 1024
_MAX_ALL: Final = 4 << 20
"""Bytes of all that is collected."""
_MAX_ANNOTATION: Final = 64 * 1024


async def collect(repository: Repository, digest: str) -> Evidence:
    """Everything that may be a signature of this artifact. Raises FetchError and VerifyError."""
    documents: dict[str, bytes] = {}
    current = digest
    for _ in range(_MAX_DEPTH):
        documents[current] = await repository.manifest(current)
        manifest = read_manifest(documents[current])
        if manifest.entries is None:
            break
        current = choose(manifest.entries).digest
    collector = _Collector(repository)
    for each in documents:
        await collector.look(each)
    return Evidence(digest=digest, documents=documents, signatures=tuple(collector.found[:MAX_SIGNATURES]))


class _Collector:
    """Collects within one budget."""

    def __init__(self, repository: Repository) -> None:
        self.found: list[Signature] = []
        self._repository = repository
        self._left = _MAX_ALL
        self._opened: set[str] = set()

    async def look(self, digest: str) -> None:
        """Everything of one manifest."""
        document = await self._repository.tagged(f"{digest.replace(':', '-')}.sig")
        if document is not None:
            await self._simple(read_manifest(document))
        referrers = await self._repository.referrers(digest)
        if len(referrers) > _MAX_REFERRERS:
            raise VerifyError(
                f"the artifact has {len(referrers)} referrers, and {_MAX_REFERRERS} are looked into; remove old "
                "signatures from its repository"
            )
        for each in referrers:
            if each.digest not in self._opened:
                self._opened.add(each.digest)
                await self._referrer(each, digest)

    async def _simple(self, manifest: Manifest) -> None:
        for layer in manifest.layers[:MAX_SIGNATURES]:
            text = layer.annotations.get(SIGNATURE)
            if layer.media_type != SIMPLE_SIGNING or not isinstance(text, str):
                continue
            annotations = {
                key: value
                for key, value in layer.annotations.items()
                if isinstance(value, str) and len(value) <= _MAX_ANNOTATION
            }
            try:
                signature = base64.b64decode(text, validate=True)
            except (ValueError, binascii.Error):
                continue
            payload = await self._blob(layer, _MAX_PAYLOAD)
            if payload is not None:
                self.found.append(
                    Signature(form="simple", payload=payload, signature=signature, annotations=annotations)
                )

    async def _referrer(self, descriptor: Descriptor, subject: str) -> None:
        try:
            manifest = read_manifest(await self._repository.manifest(descriptor.digest))
        except VerifyError:
            return  # whatever it is, it is no signature
        if manifest.subject != subject:
            return
        for layer in manifest.layers[:1]:
            if layer.media_type.startswith(BUNDLE):
                payload = await self._blob(layer, _MAX_BUNDLE)
                if payload is not None:
                    self.found.append(Signature(form="bundle", payload=payload))
            elif layer.is_signature:
                text = await self._blob(layer, MAX_SIGNATURE)
                if text is not None:
                    self.found.append(Signature(form="ed25519", payload=b"", signature=ed25519.decode(text)))

    async def _blob(self, layer: Descriptor, most: int) -> bytes | None:
        """The bytes of a layer; None where it is too large to be what it is said to be."""
        if layer.size > min(most, self._left):
            return None
        self._left -= layer.size
        buffer = io.BytesIO()
        body = Body(buffer, what=f"a signature ({layer.digest})", cap=most, expected=layer.size)
        try:
            await self._repository.blob(layer.digest, body)
            body.verify(layer.digest)
        except FetchError as error:
            if error.transient:
                raise
            return None  # it is named, and it is not there
        return buffer.getvalue()
