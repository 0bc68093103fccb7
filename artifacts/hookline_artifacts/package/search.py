"""The search for the module in what was downloaded: one file, or the layers of an image. Nothing is believed.

What bytes are is decided by the bytes alone. In an archive ``plugin.wasm`` is meant wherever it stands, then one of
that name in a folder, then the only ``.wasm``; what macOS, pax and overlay file systems put beside it is nothing. The
layers of an image lie over each other, and what a later one replaced or removed is not there.

Every archive is read twice: once to see what is in it, and once to copy what is meant.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Final

from hookline_artifacts.errors import VerifyError
from hookline_artifacts.limits import parse_foreign
from hookline_artifacts.module.describe import MAX_DOCUMENT, PACKED_MANIFESTS, PluginDescription, described_by
from hookline_artifacts.package.archive import Budget, is_archive, is_gzipped_module, packer, walk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hookline_artifacts.limits import FetchLimits
    from hookline_artifacts.package.archive import Entry

_MODULE: Final = b"\0asm\x01\0\0\0"
_COMPONENT: Final = b"\0asm\x0d\0\x01\0"  # https://github.com/WebAssembly/component-model, Binary.md
_CHUNK: Final = 1 << 16
_PLUGIN: Final = "plugin.wasm"
_SUFFIX: Final = ".wasm"
# https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts
_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"
_MAX_NAMED: Final = 3
_MAX_FOLDERS: Final = 64
_SIGNATURE: Final = ".sig"
_MAX_SIGNATURES: Final = 8
"""Of one archive. A tool writes one."""
MAX_SIGNATURE: Final = 1024
"""Bytes of a file with a signature: it takes 88."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unpacked:
    """What was found in an artifact's bytes."""

    layout: str
    sha256: str
    size: int
    description: PluginDescription | None
    described_by: Mapping[str, str] = field(default_factory=dict)
    """``describe.described_by`` of the files that the description was read from."""
    signatures: tuple[str, ...] = ()
    """What the files beside the module hold that are called like its signature; empty for one that is too large."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Member:
    """A file of an archive that may be the module or its description."""

    archive: BinaryIO
    number: int
    """Which entry of the archive it is."""
    path: str
    size: int
    is_file: bool
    is_link: bool
    is_sparse: bool

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def folder(self) -> str:
        return self.path.rpartition("/")[0]

    @property
    def is_signature(self) -> bool:
        return self.name.lower().endswith(_SIGNATURE)


class Search:
    """Looks for the module in one file, or in the layers of an image from the last to the first.

    The files must stay open until ``take``. Every method raises VerifyError, in a sentence without the layer.
    """

    def __init__(self, *, limits: FetchLimits) -> None:
        self._limits = limits
        self._budget = Budget(unpacked=limits.unpacked, entries=limits.entries)
        self._members: list[_Member] = []
        self._module: BinaryIO | None = None
        """A file that is the module itself."""
        self._others: list[tuple[str, bytes]] = []
        """What was looked into and is neither a module nor an archive."""
        self._looked = 0
        self._replaced: set[str] = set()
        """Paths that a later layer has."""
        self._removed: set[str] = set()
        """Paths that a later layer removed, or put a file at: nothing below them is left either."""
        self._emptied: set[str] = set()
        """Folders of which a later layer removed what was in them."""

    def look(self, file: BinaryIO, *, shown: str = "") -> bool:
        """Look into the next file; True where no other needs to be looked into."""
        self._looked += 1
        file.seek(0)
        head = file.read(512)
        file.seek(0)
        if not is_archive(head):
            if (name := packer(head)) is not None:
                raise not_read(name)
            if head.startswith(_MODULE[:4]):
                self._module = file
                return True
            self._others.append((shown, head[: len(_MODULE)]))
            return False
        if is_gzipped_module(file):
            raise VerifyError("this is a module in gzip without a tar around it; take the module itself, or a tar.gz")
        return self._list(file)

    def needs(self, file: BinaryIO) -> bool:
        """Whether a file that was looked into may be read again."""
        return self._module is file or any(member.archive is file for member in self._members)

    def _list(self, file: BinaryIO) -> bool:
        names, removed, emptied, sure = set(), set(), set(), False
        for number, entry in enumerate(walk(file, budget=self._budget)):
            folder, _, name = entry.name.rpartition("/")
            if name == _OPAQUE:
                emptied.add(folder)
            elif name.startswith(_WHITEOUT):
                removed.add(f"{folder}/{name.removeprefix(_WHITEOUT)}".lstrip("/"))
            else:
                names.add(entry.name)
                if not entry.is_folder:
                    removed.add(entry.name)
                    sure = self._note(entry, number, file) or sure
        self._replaced |= names
        self._removed |= removed
        self._emptied |= emptied
        return sure

    def _note(self, entry: Entry, number: int, file: BinaryIO) -> bool:
        """Keep a file that may matter; True for the one that is meant whatever else there is."""
        member = _Member(
            archive=file,
            number=number,
            path=entry.name,
            size=entry.size,
            is_file=entry.is_file,
            is_link=entry.is_link,
            is_sparse=entry.is_sparse,
        )
        matters = member.name in PACKED_MANIFESTS or member.name.lower().endswith((_SUFFIX, _SIGNATURE))
        if not matters or _is_nothing(member.path) or self._is_gone(member.path):
            return False
        if member.path == _PLUGIN and member.is_file and member.size > self._limits.module:
            raise _too_large(self._limits)
        self._members.append(member)
        return member.path == _PLUGIN

    def _is_gone(self, path: str) -> bool:
        """Whether a later layer has something else there, or nothing."""
        if path in self._replaced:
            return True
        above = path
        while True:
            if above in self._removed:
                return True
            if not above:
                return False
            above = above.rpartition("/")[0]
            if above in self._emptied:
                return True

    def take(self, out: BinaryIO, *, layout: str) -> Unpacked:
        """Write the module that is meant to ``out``, which is empty before."""
        if self._module is not None:
            file = self._module
            file.seek(0)
            sha256, size = _copy_module(iter(lambda: file.read(_CHUNK), b""), out=out, limits=self._limits)
            return Unpacked(layout="raw" if layout == "image" else layout, sha256=sha256, size=size, description=None)
        member = self._meant()
        names = {*PACKED_MANIFESTS, *signature_names(member.name)}
        beside = [each for each in self._members if each.name in names and each.folder == member.folder]
        documents: dict[str, bytes] = {}
        signatures: list[str] = []
        copied: tuple[str, int] | None = None
        for archive in {id(each.archive): each.archive for each in (member, *beside)}.values():
            wanted = {each.number: each for each in (member, *beside) if each.archive is archive}
            budget = Budget(unpacked=self._limits.unpacked, entries=self._limits.entries)
            for number, entry in enumerate(walk(archive, budget=budget)):
                if number not in wanted:
                    continue
                found = wanted.pop(number)
                if found is member:
                    copied = _copy_module(entry.chunks(), out=out, limits=self._limits)
                elif found.is_signature:
                    if entry.is_file and len(signatures) < _MAX_SIGNATURES:
                        text = entry.read() if entry.size <= MAX_SIGNATURE else b""
                        signatures.append(text.decode("ascii", "replace"))
                elif entry.is_file and entry.size <= MAX_DOCUMENT:
                    documents[entry.name.rpartition("/")[2]] = entry.read()
                if not wanted:
                    break
        assert copied is not None  # noqa: S101 - it is where it was
        return _described(*copied, documents=documents, layout=layout, signatures=tuple(signatures))

    def _meant(self) -> _Member:
        """The member that is the module."""
        modules = [each for each in self._members if each.name.lower().endswith(_SUFFIX)]
        at_top = [each for each in modules if each.path == _PLUGIN]
        called_so = [each for each in modules if each.name == _PLUGIN]
        for group in (at_top, called_so, modules):
            files = [each for each in group if each.is_file]
            if len(files) == 1:
                if files[0].size > self._limits.module:
                    raise _too_large(self._limits)
                return files[0]
            if files and group is at_top:
                raise VerifyError(f"the archive holds {_PLUGIN} twice; pack it again")
            if files:
                some = ", ".join(f"{each.path!r:.80}" for each in files[:_MAX_NAMED])
                raise VerifyError(
                    f"the archive holds several modules and none is {_PLUGIN} ({some}); pack one under that name"
                )
            if group and group[0].is_sparse:
                raise VerifyError(
                    f"{group[0].path!r:.80} in the archive is stored without its holes (a sparse file); "
                    "pack it again without --sparse, on macOS with --no-read-sparse"
                )
            if group:
                kind = "a link" if group[0].is_link else "no regular file"
                raise VerifyError(f"{group[0].path!r:.80} in the archive is {kind}; pack the module itself")
        if self._others and self._looked == 1:
            _check_magic(self._others[0][1])
        if self._others:
            some = "; ".join(
                f"{shown} begins with {head.hex() or 'nothing'}" for shown, head in self._others[:_MAX_NAMED]
            )
            raise VerifyError(f"none of its {self._looked} layers holds a module ({some}); push the module by itself")
        raise VerifyError(f"the archive holds no {_PLUGIN}; pack the module under that name")


def signature_names(module: str) -> tuple[str, ...]:
    """What a file with the detached signature of a module of this name is called: ``plugin.sig``, and by its name."""
    return tuple(dict.fromkeys((f"plugin{_SIGNATURE}", *signature_names_beside(module))))


def signature_names_beside(file: str) -> tuple[str, ...]:
    """The same beside a file that is not in an archive, where other plugins may lie too."""
    stem = file.removesuffix(_SUFFIX)
    return tuple(dict.fromkeys((f"{file}{_SIGNATURE}", f"{stem}{_SIGNATURE}")))


def _copy_module(chunks: Iterator[bytes], *, out: BinaryIO, limits: FetchLimits) -> tuple[str, int]:
    digest, size, head = hashlib.sha256(), 0, b""
    for chunk in chunks:
        if len(head) < len(_MODULE):
            head += chunk[: len(_MODULE)]
        size += len(chunk)
        if size > limits.module:
            raise _too_large(limits)
        digest.update(chunk)
        out.write(chunk)
    _check_magic(head[: len(_MODULE)])
    return digest.hexdigest(), size


def _check_magic(head: bytes) -> None:
    if head in {_MODULE, _COMPONENT}:
        return
    if head[:4] == _MODULE[:4]:
        raise VerifyError(f"this is WebAssembly of an unknown version (bytes 4 to 8 are {head[4:].hex()})")
    if (name := packer(head)) is not None:
        raise not_read(name)
    raise VerifyError(
        f"this is not WebAssembly: it begins with {head.hex() or 'nothing'} and a module with {_MODULE.hex()}; "
        "name, or push, the .wasm that was built"
    )


def _too_large(limits: FetchLimits) -> VerifyError:
    return VerifyError(f"the module is larger than the {limits.module} bytes that are allowed; make it smaller")


def _stated_sha256(document: bytes | None) -> str | None:
    try:
        data = parse_foreign(document or b"null")
    except ValueError:
        return None
    stated = data.get("wasm_sha256") if isinstance(data, dict) else None
    return stated.lower() if isinstance(stated, str) else None


def _described(
    sha256: str, size: int, *, documents: Mapping[str, bytes], layout: str, signatures: tuple[str, ...]
) -> Unpacked:
    description = PluginDescription.from_packed(documents)
    stated = _stated_sha256(documents.get("manifest.json"))
    if stated not in {None, sha256}:
        raise VerifyError(
            f"manifest.json in the archive says that the module's sha256 is {stated:.64} and it is {sha256}; "
            "pack it again"
        )
    if documents:
        layout = "heliosdb-tar"
    elif layout != "image":
        layout = "tar"
    return Unpacked(
        layout=layout,
        sha256=sha256,
        size=size,
        description=description,
        described_by=described_by(documents, {}),
        signatures=signatures,
    )


def _is_nothing(path: str) -> bool:
    """Whether a path is where a tool keeps its own notes: macOS' attributes, pax headers as files."""
    parts = path.split("/")
    return len(parts) > _MAX_FOLDERS or any(
        part.startswith(("._", "PaxHeader")) or part == "__MACOSX" for part in parts
    )


def not_read(name: str) -> VerifyError:
    """What to raise for a compression of this name."""
    return VerifyError(
        f"it is compressed with {name}, and Hookline reads gzip; pack it again as tar.gz, or push the module itself"
    )
