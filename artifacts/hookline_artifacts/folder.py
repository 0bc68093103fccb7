"""OCI layout folders: the registry that is a folder. Everything is bounded and checked as from a registry.

Format: https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import stat
from typing import TYPE_CHECKING, Final

from hookline_artifacts.errors import FetchError, VerifyError
from hookline_artifacts.net.body import Body
from hookline_artifacts.package.layouts import Descriptor, choose, read_list, read_manifest
from hookline_artifacts.reference import DIGEST, LayoutReference
from hookline_artifacts.registry import MAX_LISTED
from hookline_artifacts.threads import in_thread, in_thread_if_large, open_at_once

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hookline_artifacts.limits import FetchLimits

_CHUNK: Final = 1 << 18
_SMALL: Final = 64 * 1024
"""Bytes of a manifest that is a referrer: cosign's has 900."""
_MAX_SEARCHED: Final = 8 << 20
"""Bytes of blobs in which a subject is looked for."""
_BESIDE: Final = re.compile(r"(?:.*[:/@])?sha256-[0-9a-f]{64}(?:\.[a-z]+)?")
"""Tags of what is about another artifact."""
_KIND: Final = "kind"
"""An annotation of ``cosign save``."""
_KINDS_BESIDE: Final = frozenset({"dev.cosignproject.cosign/sigs", "dev.cosignproject.cosign/atts"})
_TYPES_BESIDE: Final = ("application/vnd.dev.sigstore.bundle", "application/vnd.dev.cosign.artifact.")
_REF_NAME: Final = "org.opencontainers.image.ref.name"


class LayoutFolder:
    """A repository in a folder."""

    def __init__(self, reference: LayoutReference, *, base: Path, limits: FetchLimits) -> None:
        self._reference = reference
        self._root = base / reference.path
        self._limits = limits

    async def resolve(self) -> str:
        """The digest that ``index.json`` has for the reference's tag, or of the only artifact there."""
        if self._reference.digest is not None:
            return self._reference.digest
        return await in_thread(self._find, self._reference.tag)

    async def manifest(self, name: str, *, most: int | None = None) -> bytes:
        """The manifest of a digest, checked, or of a tag, of at most so many bytes."""
        digest = name if DIGEST.fullmatch(name) else await in_thread(self._find, name)
        buffer = io.BytesIO()
        cap = min(most or self._limits.manifest, self._limits.manifest)
        body = Body(buffer, what=f"the manifest {digest} of {self._reference}", cap=cap)
        await self.blob(digest, body)
        body.verify(digest)
        return buffer.getvalue()

    async def tagged(self, tag: str, *, most: int | None = None) -> bytes | None:
        """The manifest of a tag that need not be there."""
        digest = await in_thread(self._named, tag)
        return None if digest is None else await self.manifest(digest, most=most)

    async def referrers(self, digest: str) -> Sequence[Descriptor]:
        """Those under the fallback tag, all else that the index names, and manifests that it does not name.

        Whoever asks looks into each. ``cosign save`` of version 3 leaves bundles among the blobs and names them
        nowhere; version 2 names signatures in the index without a tag.
        """
        found: list[Descriptor] = []
        with contextlib.suppress(FetchError, VerifyError):  # one list that cannot be read hides no other
            fallback = await self.tagged(digest.replace(":", "-"))
            found = await in_thread_if_large(read_list, fallback) if fallback is not None else []
        found += await in_thread(self._entries)
        found += await in_thread(self._unnamed, {each.digest for each in found})
        return [each for each in found if each.digest != digest][:MAX_LISTED]

    async def blob(self, digest: str, into: Body) -> None:
        """Copy a blob."""
        path = self._root / "blobs" / "sha256" / digest.removeprefix("sha256:")
        await in_thread(read_file, path, into)

    def _find(self, tag: str | None) -> str:
        meant = None if tag is not None else [each for each in self._entries() if not _is_beside(each)]
        digest = choose(meant).digest if meant is not None else self._named(tag or "")
        if digest is None:
            raise FetchError(
                f"{self._root} has no artifact with the tag {tag!r:.80}; check {_REF_NAME} in its index.json",
                transient=False,
            )
        return digest

    def _unnamed(self, named: set[str]) -> list[Descriptor]:
        """The small blobs that may be manifests with a subject. Blocks."""
        found, left = [], _MAX_SEARCHED
        try:
            paths = sorted(itertools.islice((self._root / "blobs" / "sha256").iterdir(), MAX_LISTED))
        except OSError:
            return []
        for path in paths:
            digest = f"sha256:{path.name}"
            if digest in named or not DIGEST.fullmatch(digest):
                continue
            data = _start_of(path)
            left -= len(data)
            if left < 0:
                break
            if data[:1] == b"{" and b'"subject"' in data:
                found.append(Descriptor(media_type="", digest=digest, size=len(data), annotations={}, platform={}))
        return found

    def _entries(self) -> Sequence[Descriptor]:
        buffer = io.BytesIO()
        index = self._root / "index.json"
        read_file(index, Body(buffer, what="the index", cap=self._limits.manifest))
        return read_manifest(buffer.getvalue()).entries or ()

    def _named(self, tag: str) -> str | None:
        for entry in self._entries():
            name = entry.annotations.get(_REF_NAME)
            # some tools write the tag there, others the whole reference
            if isinstance(name, str) and (name == tag or name.endswith(f":{tag}")):
                return entry.digest
        return None


def _is_beside(entry: Descriptor) -> bool:
    """Whether an entry of the index is about another: a signature, and no plugin."""
    name = entry.annotations.get(_REF_NAME)
    return (
        str(entry.annotations.get(_KIND)) in _KINDS_BESIDE
        or entry.artifact_type.startswith(_TYPES_BESIDE)
        or (isinstance(name, str) and _BESIDE.fullmatch(name) is not None)
    )


def _start_of(path: Path) -> bytes:
    """The bytes of a small file; none of a large one, or where there is no file. Blocks."""
    try:
        with open(path, "rb", opener=open_at_once) as file:
            status = os.fstat(file.fileno())
            return file.read(_SMALL) if stat.S_ISREG(status.st_mode) and status.st_size <= _SMALL else b""
    except OSError:
        return b""


def read_file(path: Path, into: Body) -> None:
    """Copy a regular file into ``into``; raises FetchError for anything else. Blocks."""
    try:
        with open(path, "rb", opener=open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise FetchError(f"{path} is not a regular file; name a .wasm or a packed .tar.gz", transient=False)
            into.expect(status.st_size)
            while chunk := file.read(_CHUNK):
                into.write(chunk)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "this is not a file name"
        advice = "; put it there, or name another" if isinstance(error, FileNotFoundError) else ""
        raise FetchError(f"{into.what} cannot be read from {path}: {why}{advice}", transient=False) from None
    into.finish()
