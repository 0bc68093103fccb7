"""Collects the signatures of an artifact from where it is kept: every form, every place, nothing believed.

cosign up to version 2 puts signatures under the tag ``sha256-<hex>.sig``, and attestations under ``….att``. Version 3
and other tools push a bundle as a *referrer*: a manifest whose ``subject`` is the artifact. What an index says of a
referrer's kind is often wrong, so each is opened, those first that look like signatures; and one counts only where it
does not name another subject.

Whoever may push to the repository may put anything there. So what cannot be read is passed over, whatever it is, and
hides nothing that can; what cannot be read *now* (a time-out, a refused login) ends the collection, because nobody
knows what is there.

https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md and BUNDLE_SPEC.md
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import itertools
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from hookline_artifacts.errors import FetchError, VerifyError
from hookline_artifacts.net.body import Body
from hookline_artifacts.net.transport import StatusError
from hookline_artifacts.package.layouts import choose, read_manifest
from hookline_artifacts.package.search import MAX_SIGNATURE
from hookline_artifacts.threads import in_thread_if_large
from hookline_artifacts.trust import ed25519
from hookline_artifacts.trust.detached import kept
from hookline_artifacts.trust.evidence import Evidence, Signature
from hookline_artifacts.trust.keyless import CERTIFICATE, ENTRY, STAMP

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from hookline_artifacts.package.layouts import Descriptor, Manifest
    from hookline_artifacts.registry import Repository

SIMPLE_SIGNING: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
DSSE: Final = "application/vnd.dsse.envelope.v1+json"
BUNDLE: Final = "application/vnd.dev.sigstore.bundle"
"""How the media types of bundles of all versions begin."""
SIGNATURE: Final = "dev.cosignproject.cosign/signature"
_LIKELY: Final = (BUNDLE, "application/vnd.dev.cosign.", ed25519.MEDIA_TYPE)
"""How the types of manifests with signatures begin."""
_VAGUE: Final = frozenset({"", "application/vnd.oci.empty.v1+json", "application/vnd.oci.image.config.v1+json"})
"""Types of manifests that say nothing: some registries take them for the type of a bundle."""
MAX_OPENED: Final = 512
"""Referrers of one digest that are opened. An artifact that is signed again each day has 365 in a year."""
MAX_DETACHED: Final = 8
"""Detached signatures that are layers of the artifact itself. Who rotates keys has two."""
MAX_COLLECTED: Final = 512
"""Signatures that are kept for the verdict."""
_MAX_DEPTH: Final = 4
_MAX_MANIFEST: Final = 1 << 20
"""Bytes of a manifest under a tag of cosign's: 100 keyless signatures."""
_MAX_REFERRER: Final = 64 * 1024
"""Bytes of a referrer's manifest: cosign's has 900."""
_MAX_BLOB: Final = 512 * 1024
"""Bytes of a payload, a bundle or an envelope: cosign writes 250 to sign. A larger SBOM is not looked into."""
_MAX_ALL: Final = 8 << 20
"""Bytes of all manifests, and as many of all blobs: those that are opened leave room for what they name."""
_MAX_ANNOTATION: Final = 64 * 1024
_MAX_ANNOTATIONS: Final = 32
_AT_ONCE: Final = 8
"""Requests."""
_REFUSED: Final = frozenset({401, 403})


T = TypeVar("T")

_Key = tuple[str, str, str, tuple[str, ...]]


class _Layer(NamedTuple):
    """What of a layer is kept until its blob is here: beside its signature anybody may have put megabytes."""

    digest: str
    size: int
    annotations: dict[str, str]


async def collect(repository: Repository, digest: str) -> Evidence:
    """Everything that may be a signature of this artifact. Raises FetchError and VerifyError.

    These are of the artifact's own manifests, and of a repository that cannot be asked now.
    """
    documents: dict[str, bytes] = {}
    manifests: dict[str, Manifest] = {}
    current = digest
    for _ in range(_MAX_DEPTH):
        documents[current] = await repository.manifest(current)
        manifests[current] = manifest = await in_thread_if_large(read_manifest, documents[current])
        if manifest.entries is None:
            break
        current = choose(manifest.entries).digest
    collector = _Collector(repository, {"", *documents})
    for each, manifest in manifests.items():
        await collector.look(each)
        collector.look_within(manifest)
    signatures = await collector.signatures()
    return Evidence(digest=digest, documents=documents, signatures=signatures, notes=collector.notes())


class _Collector:
    """Collects within one budget."""

    def __init__(self, repository: Repository, subjects: set[str]) -> None:
        self._repository = repository
        self._subjects = subjects
        """What a manifest may be about. A list may name one that is about another manifest of the same artifact."""
        self._wanted: dict[_Key, _Layer] = {}
        """Layers by ``_key``, so that one that is listed twice is there once."""
        self._annotated: list[Signature] = []
        self._left_of_manifests = self._left_of_blobs = _MAX_ALL
        self._opened: set[str] = set()
        self._unopened = 0
        self._unread = 0

    def notes(self) -> tuple[str, ...]:
        """What was left out, in words."""
        found = []
        if self._unopened:
            found.append(f"{self._unopened} more referrers not opened: remove old ones")
        if self._unread:
            found.append(f"{self._unread} more not readable")
        return tuple(found)

    async def look(self, digest: str) -> None:
        """Everything of one manifest."""
        tag = digest.replace(":", "-")
        for suffix in (".sig", ".att"):
            await self._take(await self._read(partial(self._repository.tagged, f"{tag}{suffix}", most=_MAX_MANIFEST)))
        listed = await _unless_junk(self._repository.referrers(digest))
        self._unread += listed is None
        wanted = [each for each in _likely_first(listed or ()) if each not in self._opened]
        self._unopened += len(wanted[MAX_OPENED:])
        for some in _batches(wanted[:MAX_OPENED]):
            self._opened.update(some)
            manifests = (self._read(partial(self._repository.manifest, each, most=_MAX_REFERRER)) for each in some)
            for document in await _all(manifests):
                await self._take(document)

    def look_within(self, manifest: Manifest) -> None:
        """The detached signatures that a manifest itself names: as layers, and as an annotation."""
        text = manifest.annotations.get(ed25519.ANNOTATION)
        if isinstance(text, str):
            self._annotated.append(kept(text.encode(errors="replace")))
        layers = [each for each in manifest.layers if each.is_signature]
        wanted = _wanted_of(layers[:MAX_DETACHED])
        self._wanted |= wanted
        self._unread += len(layers) - len(wanted)

    async def _take(self, document: bytes | None) -> None:
        """Note the signatures of a manifest, where it is about the artifact or about none."""
        if document is None:
            return
        try:
            subject, wanted = await in_thread_if_large(_named_in, document)
        except VerifyError:
            return  # whatever it is, it is no signature
        if subject in self._subjects:
            self._wanted |= wanted

    async def signatures(self) -> tuple[Signature, ...]:
        """All that was noted, read: small ones first, so that large ones use up nobody's share."""
        wanted = sorted(self._wanted.items(), key=lambda item: item[1].size)
        sizes = {each.digest: each.size for _, each in reversed(wanted)}
        blobs: dict[str, bytes | None] = {}
        for some in _batches(list(dict.fromkeys(each.digest for _, each in wanted))[:MAX_COLLECTED]):
            blobs |= zip(some, await _all(self._blob(each, sizes[each]) for each in some), strict=True)
        read = [_signature(key, each, blobs.get(each.digest)) for key, each in wanted]
        found = [each for each in read if each is not None][:MAX_COLLECTED]
        self._unread += len(wanted) - len(found)
        return (*self._annotated, *found)

    async def _blob(self, digest: str, size: int) -> bytes | None:
        """The bytes of a layer; None where it cannot be had, or is larger than it may be."""
        if size > min(_MAX_BLOB, self._left_of_blobs):
            return None
        buffer = io.BytesIO()
        # A cap, and not what is expected: one that is shorter than its manifest says is no reason to ask again.
        body = Body(buffer, what=f"a signature ({digest})", cap=size)

        async def read() -> bytes:
            await self._repository.blob(digest, body)
            body.verify(digest)
            return buffer.getvalue()

        data = await _unless_junk(read())
        self._left_of_blobs -= body.length
        return data

    async def _read(self, ask: Callable[[], Awaitable[bytes | None]]) -> bytes | None:
        """A manifest, counted; None where there is none that can be read."""
        if self._left_of_manifests <= 0:
            self._unread += 1
            return None
        document = await _unless_junk(ask())
        self._left_of_manifests -= len(document or b"")
        return document


def _key(layer: Descriptor) -> _Key | None:
    """The form of signature that a layer has, its blob, what is signed beside it, and what else is there to prove it.

    None for any other layer. What else is there may be anybody's: the same signature with another certificate or
    another log entry is another one, or junk would stand in its place.
    """
    text = layer.annotations.get(SIGNATURE)
    others = (layer.annotations.get(each) for each in (CERTIFICATE, ENTRY, STAMP))
    beside = tuple(each if isinstance(each, str) else "" for each in others)
    if layer.media_type == SIMPLE_SIGNING:
        fits = isinstance(text, str) and len(text) <= _MAX_ANNOTATION
        return ("simple", layer.digest, str(text), beside) if fits else None
    if layer.media_type == DSSE:
        return "dsse", layer.digest, "", beside
    if layer.media_type.startswith(BUNDLE):
        return "bundle", layer.digest, "", ()
    return ("ed25519", layer.digest, "", ()) if layer.is_signature and layer.size <= MAX_SIGNATURE else None


def _named_in(document: bytes) -> tuple[str, dict[_Key, _Layer]]:
    """The subject of a manifest, and the signatures that it names. Raises VerifyError."""
    manifest = read_manifest(document)
    return manifest.subject, _wanted_of(manifest.layers)


def _wanted_of(layers: Iterable[Descriptor]) -> dict[_Key, _Layer]:
    return {key: _lean(layer) for layer in layers if (key := _key(layer)) is not None}


def _lean(layer: Descriptor) -> _Layer:
    annotations = {
        name: value
        for name, value in itertools.islice(layer.annotations.items(), _MAX_ANNOTATIONS)
        if isinstance(value, str) and len(value) <= _MAX_ANNOTATION
    }
    return _Layer(layer.digest, layer.size, annotations)


def _signature(key: _Key, layer: _Layer, payload: bytes | None) -> Signature | None:
    """The signature in a layer with these bytes; None where it is none."""
    if payload is None:
        return None
    form, _, text, _ = key
    if form == "bundle":
        return Signature(form="bundle", payload=payload)
    if form == "ed25519":
        return kept(payload)
    if form == "dsse":
        return Signature(form="dsse", payload=payload, annotations=layer.annotations)
    try:
        raw = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return None
    return Signature(form="simple", payload=payload, signature=raw, annotations=layer.annotations)


def _likely_first(listed: Sequence[Descriptor]) -> list[str]:
    """Digests in the order in which they are opened: by what they seem to be, small ones and the last listed first."""

    def rank(each: Descriptor) -> tuple[int, int]:
        kind = each.artifact_type
        seems = 0 if kind.startswith(_LIKELY) else 1 if kind in _VAGUE else 2
        return (3 if each.size > _MAX_REFERRER else seems), each.size // 4096

    newest = list(reversed(listed))
    return list(dict.fromkeys(each.digest for each in sorted(newest, key=rank)))


def _batches(items: list[str]) -> Iterator[list[str]]:
    return (items[at : at + _AT_ONCE] for at in range(0, len(items), _AT_ONCE))


async def _all(work: Iterable[Awaitable[bytes | None]]) -> list[bytes | None]:
    """What each gives; none is left behind where one fails."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for each in results:
        if isinstance(each, BaseException):
            raise each
    return [each for each in results if not isinstance(each, BaseException)]


async def _unless_junk(answer: Awaitable[T]) -> T | None:
    """None where it cannot be read and never will be. Raises FetchError where that may be otherwise later."""
    try:
        return await answer
    except VerifyError:
        return None
    except FetchError as error:
        if error.transient or (isinstance(error, StatusError) and error.status in _REFUSED):
            raise
        return None
