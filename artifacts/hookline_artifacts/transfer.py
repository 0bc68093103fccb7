"""Transfer: an artifact with everything that belongs to it, from one place to another, or into one file and out of it.

What belongs to an artifact: the manifests below it and their blobs; under tags made of its digest, cosign's signatures,
attestations and SBOMs; and what refers to it, and to that. Each is counted, and checked against its digest, on the way.
Its own tag is written last, so nobody finds it there before its signatures.

The file is a tar of one OCI layout folder (``oci-archive:`` to others), and holds keys and trust roots beside it.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hookline_artifacts.errors import FetchError, VerifyError
from hookline_artifacts.folder import LayoutFolder
from hookline_artifacts.limits import FetchLimits, parse_foreign
from hookline_artifacts.net.body import Body
from hookline_artifacts.net.cargo import Cargo
from hookline_artifacts.package.archive import Budget, walk
from hookline_artifacts.package.layouts import read_manifest
from hookline_artifacts.reference import DIGEST, LayoutReference, Reference, is_tag, parse
from hookline_artifacts.targets import REF_NAME, LayoutTarget, digest_of
from hookline_artifacts.threads import in_thread, open_at_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from hookline_artifacts.package.archive import Entry
    from hookline_artifacts.package.layouts import Descriptor
    from hookline_artifacts.registry import Repository
    from hookline_artifacts.targets import Target

MAX_MANIFESTS: Final = 1024
"""Of one artifact, with all that refers to it."""
MAX_BYTES: Final = 16 << 30
"""Of one artifact, and of what a saved file unpacks to."""
MAX_FILES: Final = 65_536
"""In a saved file."""
MAX_REFERENCES: Final = 256
"""In a saved file."""
_MAX_REFERRERS: Final = 256
_MAX_DEPTH: Final = 4
"""Of what refers to what refers to …, and of an index in an index in …"""
_SUFFIXES: Final = ("sig", "att", "sbom")
_MAX_TRUST: Final = 1 << 20
_TRUST: Final = "trust"
_BLOBS: Final = "blobs/sha256"


@dataclass(slots=True)
class Closure:
    """An artifact and what belongs to it."""

    digest: str
    manifests: dict[str, bytes] = field(default_factory=dict, repr=False)
    """By digest, in the order in which they may be put somewhere: what one names stands before it."""
    blobs: dict[str, int] = field(default_factory=dict)
    """Their sizes by digest."""
    subjects: dict[str, str] = field(default_factory=dict)
    """Of those manifests that refer to another, the digest of that one."""
    tags: dict[str, str] = field(default_factory=dict)
    """Tags of signatures and the like, and the digest of each."""

    size: int = 0
    """Bytes of all."""

    def add(self, digest: str, document: bytes, blobs: Iterable[tuple[str, int]]) -> None:
        """One manifest more, behind the blobs that it names."""
        for name, size in blobs:
            self.size += size - self.blobs.get(name, 0)
            self.blobs[name] = size
        self.manifests[digest] = document
        self.size += len(document)


async def gather(repository: Repository, digest: str, *, names: str = "") -> Closure:
    """What belongs to an artifact. Raises FetchError and VerifyError.

    ``names`` stands before each tag there, where the tags of several repositories are.
    """
    gatherer = _Gatherer(repository, Closure(digest=digest), names)
    await gatherer.manifest(digest)
    await gatherer.beside(digest, 0)
    return gatherer.closure


class _Gatherer:
    def __init__(self, repository: Repository, closure: Closure, names: str) -> None:
        self.closure = closure
        self._repository = repository
        self._names = names
        self._seen: set[str] = set()
        self._looked: set[str] = set()

    async def manifest(self, digest: str, document: bytes | None = None, depth: int = 0) -> None:
        """A manifest and what it names, before itself. ``depth`` is in how many indexes it is."""
        if digest in self._seen:
            return
        self._seen.add(digest)
        if len(self._seen) > MAX_MANIFESTS:
            raise VerifyError(f"more than {MAX_MANIFESTS} manifests belong to it; remove old signatures and referrers")
        document = document if document is not None else await self._repository.manifest(digest)
        found = read_manifest(document)
        blobs: list[tuple[str, int]] = []
        if found.entries is None:
            blobs = [*((each.digest, each.size) for each in found.layers), *_config(document)]
        elif found.entries and depth >= _MAX_DEPTH:
            raise VerifyError(f"it is an index of indexes, and {_MAX_DEPTH} of them in each other are followed")
        for each in found.entries or ():
            await self.manifest(each.digest, depth=depth + 1)
        if found.subject:
            self.closure.subjects[digest] = found.subject
        self.closure.add(digest, document, blobs)
        if self.closure.size > MAX_BYTES:
            raise VerifyError(f"what belongs to it has more than {MAX_BYTES} bytes")

    async def beside(self, digest: str, depth: int) -> None:
        """What is under tags made of this digest, and what refers to it; of each manifest below it, too."""
        if digest in self._looked:
            return
        self._looked.add(digest)
        stem = digest.replace(":", "-")
        for suffix in _SUFFIXES:
            tag = f"{stem}.{suffix}"
            document = await self._repository.tagged(f"{self._names}{tag}")
            if document is not None:
                self.closure.tags[tag] = digest_of(document)
                await self.manifest(digest_of(document), document)
        listed = await self._repository.referrers(digest)
        if len(listed) > _MAX_REFERRERS:
            raise VerifyError(
                f"{len(listed)} manifests refer to {digest}, and {_MAX_REFERRERS} are looked into; remove old ones"
            )
        for each in listed:
            await self._referrer(each.digest, digest, depth)
        for entry in read_manifest(self.closure.manifests[digest]).entries or ():
            await self.beside(entry.digest, depth)

    async def _referrer(self, digest: str, subject: str, depth: int) -> None:
        if digest in self._seen:
            return
        try:
            document = await self._repository.manifest(digest)
            if read_manifest(document).subject != subject:
                return
        except VerifyError:
            return  # whatever it is, it refers to nothing
        if depth >= _MAX_DEPTH:
            raise VerifyError(f"referrers of referrers are followed {_MAX_DEPTH} deep, and {digest} is deeper")
        await self.manifest(digest, document)
        await self.beside(digest, depth + 1)


def _config(document: bytes) -> Iterator[tuple[str, int]]:
    """Digest and size of a manifest's config."""
    config = parse_foreign(document).get("config")
    if isinstance(config, dict):
        digest, size = config.get("digest"), config.get("size")
        if not isinstance(digest, str) or not DIGEST.fullmatch(digest) or not isinstance(size, int) or size < 0:
            raise VerifyError("the manifest has a config without a sha256 digest or a size")
        yield digest, size


async def copy(
    closure: Closure, source: Repository, target: Target, *, tag: str | None, told: Callable[[int], None] | None = None
) -> int:
    """Put an artifact and what belongs to it into a target; how many bytes were sent. ``told`` is told of each number.

    What is there is left alone. Raises FetchError and VerifyError.
    """
    sent = 0
    for digest, size in closure.blobs.items():
        if await target.has(digest):
            if told is not None:
                told(size)
            continue
        with tempfile.TemporaryDirectory(prefix="hookline-") as folder:
            path = Path(folder) / "blob"
            with path.open("w+b") as file:
                body = Body(file, what=f"the blob {digest}", cap=MAX_BYTES, expected=size)
                await source.blob(digest, body)
                body.verify(digest)
            await target.put_blob(digest, Cargo.of_file(path, size, told))
        sent += size
    for digest, document in closure.manifests.items():
        if digest in closure.subjects:
            await target.attach(document, closure.subjects[digest])
        elif digest != closure.digest:
            await target.put_manifest(document)
    for name, digest in closure.tags.items():
        await target.put_manifest(closure.manifests[digest], tag=name)
    await target.put_manifest(closure.manifests[closure.digest], tag=tag)
    return sent


@dataclass(frozen=True, kw_only=True, slots=True)
class Saved:
    """One artifact of a saved file."""

    name: str
    """As the index has it: ``registry/repository:tag``, or a tag alone where another tool wrote it."""
    digest: str

    @property
    def reference(self) -> Reference | None:
        """Where it is from; None where the file does not tell."""
        if "/" not in self.name:
            return None
        try:
            found = parse(self.name)
        except FetchError:
            return None
        return found if isinstance(found, Reference) else None


class _SavedFolder(LayoutFolder):
    """A layout of many artifacts: what its manifests refer to is read once, and not again for each of them."""

    def __init__(self, folder: Path, *, limits: FetchLimits) -> None:
        super().__init__(LayoutReference(path=".", tag=None, digest=None), base=folder, limits=limits)
        self._referring: dict[str, list[Descriptor]] | None = None

    async def referrers(self, digest: str) -> Sequence[Descriptor]:
        """Those under the fallback tag, as other tools write it, and those of the index."""
        fallback = await self.tagged(digest.replace(":", "-"))
        found = list(read_manifest(fallback).entries or ()) if fallback is not None else []
        if self._referring is None:
            self._referring = {}
            for each in await in_thread(self._entries):
                subject = read_manifest(await self.manifest(each.digest)).subject
                if subject:
                    self._referring.setdefault(subject, []).append(each)
        return [*found, *self._referring.get(digest, ())]


class Archive:
    """A saved file, unpacked into a folder of its own: ``with Archive(folder) as archive``."""

    def __init__(self, folder: Path, *, limits: FetchLimits) -> None:
        self.folder = folder
        self.repository = _SavedFolder(folder, limits=limits)

    def target(self, origin: Reference) -> LayoutTarget:
        """Where artifacts of an origin are put."""
        return LayoutTarget(self.folder, reader=self.repository, names=f"{origin.registry}/{origin.repository}:")

    def artifacts(self) -> list[Saved]:
        """What it holds, without the signatures and the like. Raises FetchError and VerifyError."""
        path = self.folder / "index.json"
        if not path.exists():
            raise VerifyError("the file has no index.json, so it is no OCI layout; make it with 'hookline save'")
        found = []
        for each in read_manifest(path.read_bytes()).entries or ():
            name = each.annotations.get(REF_NAME)
            if isinstance(name, str) and name and not _is_beside(name):
                saved = Saved(name=name, digest=each.digest)
                if saved.reference is None and not is_tag(name):
                    raise VerifyError(f"the file names an artifact {name!r:.120}, which is no reference and no tag")
                found.append(saved)
        if len(found) > MAX_REFERENCES:
            raise VerifyError(f"the file has {len(found)} artifacts, and {MAX_REFERENCES} are allowed; save fewer")
        return found

    def add_trust(self, name: str, data: bytes) -> None:
        """A key or a trust root, beside the artifacts."""
        path = self.folder / _TRUST / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)

    def trust(self) -> dict[str, bytes]:
        """The keys and trust roots."""
        folder = self.folder / _TRUST
        return {each.name: each.read_bytes() for each in sorted(folder.iterdir())} if folder.is_dir() else {}

    def pack(self, file: Path) -> int:
        """Write the file, complete or not at all; its size. Blocks. Raises FetchError."""
        part = file.with_name(f".{file.name}.{os.urandom(8).hex()}.part")  # nobody can have put a link there
        try:
            with tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as tar:
                for path in sorted(each for each in self.folder.rglob("*") if each.is_file()):
                    entry = tarfile.TarInfo(path.relative_to(self.folder).as_posix())
                    entry.size, entry.mode = path.stat().st_size, 0o644
                    with path.open("rb") as source:
                        tar.addfile(entry, source)
            size = part.stat().st_size
            part.replace(file)
            return size
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink()
            raise FetchError(f"{file} cannot be written: {error.strerror}", transient=False) from None

    def unpack(self, file: Path) -> None:
        """Read a file, every blob checked against its name. Blocks. Raises FetchError and VerifyError."""
        budget = Budget(unpacked=MAX_BYTES, entries=MAX_FILES)
        try:
            with open(file, "rb", opener=open_at_once) as source:
                if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
                    raise FetchError(f"{file} is not a regular file; name what 'hookline save' wrote", transient=False)
                for entry in walk(source, budget=budget):
                    if entry.is_file:
                        self._take(entry)
        except OSError as error:
            raise FetchError(f"{file} cannot be unpacked: {error.strerror}", transient=False) from None

    def _take(self, entry: Entry) -> None:
        """One file of an archive. Its name is used where it is one of ours, and made of nothing that leads away."""
        folder, _, name = entry.name.rpartition("/")
        digest = f"sha256:{name}"
        if entry.name in {"index.json", "oci-layout"}:
            most = FetchLimits().manifest
        elif folder == _BLOBS and DIGEST.fullmatch(digest):
            most = MAX_BYTES
        elif folder == _TRUST and is_trust_name(name):
            most = _MAX_TRUST
        else:
            return  # other tools put files of their own there
        path = self.folder / entry.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w+b") as file:
            body = Body(file, what=f"{entry.name} in the file", cap=most, expected=entry.size)
            for chunk in entry.chunks():
                body.write(chunk)
            body.finish()
        if folder == _BLOBS:
            body.verify(digest)


def is_trust_name(name: str) -> bool:
    """Whether a key or a trust root may be called so: nothing that is hidden, an option, or no text."""
    return name.endswith((".pub", ".json", ".pem")) and name[0] not in ".-" and name.isprintable()


def _is_beside(name: str) -> bool:
    """Whether a name of an index is a tag made of another manifest's digest."""
    tag = name.rpartition(":")[2]
    return tag.startswith("sha256-") and DIGEST.fullmatch(tag.partition(".")[0].replace("-", ":")) is not None


async def unpacked(file: Path, folder: Path, *, limits: FetchLimits) -> Archive:
    """A saved file in a folder. Raises FetchError and VerifyError."""
    archive = Archive(folder, limits=limits)
    await in_thread(archive.unpack, file)
    return archive
