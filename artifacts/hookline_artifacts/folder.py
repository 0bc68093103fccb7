"""OCI layout folders: the registry that is a folder. Everything is bounded and checked as from a registry.

Format: https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

import io
import os
import stat
from typing import TYPE_CHECKING, Final

from hookline_artifacts.errors import FetchError
from hookline_artifacts.net.body import Body
from hookline_artifacts.package.layouts import choose, read_manifest
from hookline_artifacts.reference import DIGEST, LayoutReference
from hookline_artifacts.threads import in_thread, open_at_once

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hookline_artifacts.limits import FetchLimits
    from hookline_artifacts.package.layouts import Descriptor

_CHUNK: Final = 1 << 18
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

    async def manifest(self, name: str) -> bytes:
        """The manifest of a digest, checked, or of a tag."""
        digest = name if DIGEST.fullmatch(name) else await in_thread(self._find, name)
        buffer = io.BytesIO()
        body = Body(buffer, what=f"the manifest {digest} of {self._reference}", cap=self._limits.manifest)
        await self.blob(digest, body)
        body.verify(digest)
        return buffer.getvalue()

    async def tagged(self, tag: str) -> bytes | None:
        """The manifest of a tag that need not be there."""
        digest = await in_thread(self._named, tag)
        return None if digest is None else await self.manifest(digest)

    async def referrers(self, digest: str) -> Sequence[Descriptor]:
        """Those under the fallback tag, and everything else that the index names: whoever asks looks into each."""
        fallback = await self.tagged(digest.replace(":", "-"))
        found = list(read_manifest(fallback).entries or ()) if fallback is not None else []
        return [*found, *(each for each in await in_thread(self._entries) if each.digest != digest)]

    async def blob(self, digest: str, into: Body) -> None:
        """Copy a blob."""
        path = self._root / "blobs" / "sha256" / digest.removeprefix("sha256:")
        await in_thread(read_file, path, into)

    def _find(self, tag: str | None) -> str:
        digest = choose(self._entries()).digest if tag is None else self._named(tag)
        if digest is None:
            raise FetchError(
                f"{self._root} has no artifact with the tag {tag!r:.80}; check {_REF_NAME} in its index.json",
                transient=False,
            )
        return digest

    def _entries(self) -> Sequence[Descriptor]:
        buffer = io.BytesIO()
        index = self._root / "index.json"
        read_file(index, Body(buffer, what=f"the index {index}", cap=self._limits.manifest))
        return read_manifest(buffer.getvalue()).entries or ()

    def _named(self, tag: str) -> str | None:
        for entry in self._entries():
            name = entry.annotations.get(_REF_NAME)
            # some tools write the tag there, others the whole reference
            if isinstance(name, str) and (name == tag or name.endswith(f":{tag}")):
                return entry.digest
        return None


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
        raise FetchError(f"{into.what} cannot be read from {path}: {why}", transient=False) from None
    into.finish()
