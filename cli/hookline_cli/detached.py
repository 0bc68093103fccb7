"""Signatures beside a file, and into a package; and Ed25519's, put beside an artifact in a registry."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hookline_artifacts.errors import FetchError
from hookline_artifacts.limits import FetchLimits
from hookline_artifacts.net.cargo import Cargo
from hookline_artifacts.package.archive import Budget, is_archive, walk
from hookline_artifacts.package.search import Search, signature_names
from hookline_artifacts.targets import EMPTY, described, digest_of
from hookline_artifacts.threads import in_thread
from hookline_artifacts.trust import ed25519, signing
from hookline_artifacts.trust.collect import collect
from hookline_cli.bounded import opened

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hookline_artifacts.package.search import Unpacked
    from hookline_artifacts.store import Artifact
    from hookline_artifacts.targets import Target
    from hookline_artifacts.trust.private_keys import PrivateKey

_PACKED: Final = "plugin.sig"
_BUNDLE: Final = ".sigstore.json"
_WASM: Final = ".wasm"


def sign_file(path: Path, key: PrivateKey, *, legacy: bool, form: str) -> str:
    """Sign a file; the name of the file that has the signature then. Blocks. Raises FetchError and VerifyError."""
    with _opened(path) as file:
        if form == "bundle":
            beside = path.with_name(f"{path.name}{_BUNDLE}")
            _write(beside, signing.file_bundle(file.read(), key))
            return str(beside)
        search, module = Search(limits=FetchLimits()), io.BytesIO()
        search.look(file)
        found = search.take(module, layout="raw")
        text = _signature(found, found.described_by, module.getvalue(), key, legacy=legacy)
        file.seek(0)
        if not is_archive(file.read(512)):
            beside = path.with_name(f"{path.name.removesuffix(_WASM)}.sig")
            _write(beside, text + b"\n")
            return str(beside)
        _write(path, _with_signature(file, text))
        return f"{_PACKED} in {path}"


async def attach(target: Target, digest: str, artifact: Artifact, key: PrivateKey, *, legacy: bool) -> bool:
    """Put a detached signature beside an artifact of a registry; False where it is there already."""
    evidence = await collect(target.reader, digest)
    module = await in_thread(artifact.path.read_bytes)
    text = _signature(artifact, artifact.described_by, module, key, legacy=legacy)
    # Ed25519 signs the same thing the same way.
    if any(each.form == "ed25519" and each.signature == ed25519.decode(text) for each in evidence.signatures):
        return False
    manifest = signing.referrer(text, ed25519.MEDIA_TYPE, described(evidence.documents[digest]), {})
    for blob in (text, EMPTY):
        await target.put_blob(digest_of(blob), Cargo.of(blob))
    await target.attach(manifest, digest)
    return True


def _signature(
    found: Unpacked | Artifact, parts: Mapping[str, str], module: bytes, key: PrivateKey, *, legacy: bool
) -> bytes:
    if legacy:
        return ed25519.encode(key.sign(module))
    return ed25519.sign(key.key, module_sha256=found.sha256, manifest=ed25519.manifest_list(parts))


def _opened(path: Path) -> io.BufferedReader:
    """A file that is not too large to be an artifact. Raises FetchError."""
    most = FetchLimits().download
    try:
        file = opened(path)
        size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise FetchError(f"{path} cannot be read: {error.strerror}", transient=False) from None
    if size > most:
        file.close()
        raise FetchError(f"{path} has more than the {most} bytes that are allowed", transient=False)
    return file


def _write(path: Path, data: bytes) -> None:
    """A file, complete or as it was. Raises FetchError."""
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}.part")  # nobody can have put a link there
    try:
        temporary.write_bytes(data)
        if path.exists():
            temporary.chmod(path.stat().st_mode & 0o777)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise FetchError(f"{path} cannot be written: {error.strerror}", transient=False) from None


def _with_signature(file: io.BufferedReader, text: bytes) -> bytes:
    """A package with a signature beside its module. It was read through already, so its bounds are kept."""
    module = _module_of(file)
    folder, _, name = module.rpartition("/")
    others = set(signature_names(name))
    file.seek(0)
    is_packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    with tempfile.TemporaryFile() as made:
        with tarfile.open(fileobj=file, mode="r:*") as source, tarfile.open(fileobj=made, mode="w") as target:
            for entry in source:
                path = "/".join(part for part in entry.name.split("/") if part not in {"", "."})
                if path.rpartition("/")[0] == folder and path.rpartition("/")[2] in others:
                    continue
                target.addfile(entry, source.extractfile(entry) if entry.isreg() else None)
            added = tarfile.TarInfo(f"{folder}/{_PACKED}" if folder else _PACKED)
            added.size = len(text)
            target.addfile(added, io.BytesIO(text))
        made.seek(0)
        data = made.read()
    packed = gzip.compress(data, mtime=0) if is_packed else data
    search = Search(limits=FetchLimits())
    search.look(io.BytesIO(packed))
    if text.decode() not in search.take(io.BytesIO(), layout="raw").signatures:
        raise FetchError(
            "the package does not keep its signature where it is looked for; pack it again", transient=False
        )
    return packed


def _module_of(file: io.BufferedReader) -> str:
    """The path of the module in a package, which has one."""
    limits = FetchLimits()
    names = [
        entry.name
        for entry in walk(file, budget=Budget(unpacked=limits.unpacked, entries=limits.entries))
        if entry.is_file and entry.name.lower().endswith(_WASM) and not _is_note(entry.name)
    ]
    return min(names, key=lambda name: (name != "plugin.wasm", name.rpartition("/")[2] != "plugin.wasm"))


def _is_note(path: str) -> bool:
    return any(part.startswith("._") or part == "__MACOSX" for part in path.split("/"))
