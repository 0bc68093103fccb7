"""The store: modules on disk by the sha256 of their bytes, and an index of what is known of them.

::

    ROOT/modules/<sha256>.wasm      mode 0600, complete or absent: written elsewhere, synced, renamed
    ROOT/index/<name>.json          what is known of an artifact: module, layout, description, who proved a right to it
    ROOT/key                        what names in the index are made with
    ROOT/tmp/                       files being written; left-overs of a crash go at the next start

A digest is not a password: whoever has seen a manifest knows it. So what is known is known for a *place* (a repository,
a URL) and a digest, and for a *holder* who has proven there that it may be had; another place has to give all the bytes
again. What was had for an *owner* (a namespace) is granted to it, and to no other, by the module's own sha256. Names in
the index are HMACs, since a holder is known by a hash of passwords.

A record says which module an artifact holds, which nobody finds out again: so it bears a seal where the store's owner
gives a key that is kept elsewhere. Else whoever may write to the folder makes any module that of a signed artifact.

Several processes may share a store: whoever reads opens a complete file and keeps it, whatever is dropped
meanwhile. A disk may lie, so a module is hashed again each time it is handed out, and a damaged one counts as
absent. When the modules exceed the cap, the owner who has the most loses its least recently used first, so that nobody
pushes out what others have; but never one that is pinned, nor one whose ``Artifact`` somebody in this process still
holds, nor what is known of who has it. Where those alone exceed the cap, it is exceeded.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import os
import secrets
import tempfile
import threading
import time
import weakref
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

import orjson

from hookline_artifacts.module.describe import PluginDescription
from hookline_artifacts.reference import DIGEST

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

_log = logging.getLogger(__name__)

_MAX_RECORD: Final = 1 << 20
_MAX_RECORDS: Final = 4096
"""Of what is known, and of modules however small: all of them are listed at each new one. What is pinned is beyond."""
_KEPT_PLACES: Final = 16
"""Places of a pinned module of which what is known never goes. There may be any number of places."""
_DROPPED: Final = _MAX_RECORDS // 16
"""Of those that go at once, since who goes is found by reading all of them."""
_MAX_PROOFS: Final = 64
"""Holders of one artifact that are remembered. The oldest goes, and proves it again."""
_KEY_BYTES: Final = 32
_ABANDONED_SECONDS: Final = 3600


@dataclass(frozen=True, kw_only=True, slots=True, weakref_slot=True)
class Artifact:
    """A module on disk, and where it came from. While it is held, the store keeps its file."""

    digest: str
    """``sha256:…``: of the manifest or index that the reference resolved to, else of the fetched file's bytes."""
    sha256: str
    """Of the module's own bytes, hex."""
    size: int
    """Of the module, in bytes."""
    layout: str
    """How it was packed: a name from ``layouts``."""
    path: Path
    """The module's file in the store. Read only."""
    description: PluginDescription | None
    """What the manifest's annotations or a packed manifest say; the module's own section is not read here."""
    described_by: Mapping[str, str] = field(default_factory=dict, hash=False)
    """``describe.described_by`` of all that this description was read from."""
    signatures: tuple[str, ...] = ()
    """What was packed beside the module as its signature; nothing of it is verified."""


class ArtifactStore:
    """Keeps modules. Every method may block on the disk, and may be called from any thread."""

    def __init__(self, root: Path, *, max_bytes: int = 1 << 30, seal: bytes | None = None) -> None:
        """With a key as ``seal``, of at most 64 bytes, only records that were written with it count."""
        self._max_bytes = max_bytes
        self._seal = None if seal is None else hashlib.blake2b(key=seal, person=b"artifacts", digest_size=32).digest()
        self._modules, self._index, self._tmp = (root.absolute() / name for name in ("modules", "index", "tmp"))
        self._lock = threading.Lock()
        self._pinned: frozenset[str] = frozenset()
        self._seen: dict[str, tuple[int, int, str, str]] = {}
        """By its file's name, a record's inode and size, owner and module."""
        self._held: weakref.WeakValueDictionary[int, Artifact] = weakref.WeakValueDictionary()
        self._make_folders()
        for left_over in self._tmp.iterdir():
            with contextlib.suppress(OSError):
                if time.time() - left_over.stat().st_mtime > _ABANDONED_SECONDS:
                    left_over.unlink()
        self._key = self._own_key(root.absolute() / "key")

    def _own_key(self, path: Path) -> bytes:
        """The store's key, made where there is none; of several processes one makes it."""
        if not path.exists():
            with self.scratch() as file:
                file.write(secrets.token_bytes(_KEY_BYTES))
                file.flush()
                with contextlib.suppress(FileExistsError):
                    os.link(file.name, path)
        return path.read_bytes()

    def _make_folders(self) -> None:
        for folder in (self._modules, self._index, self._tmp):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)

    def pin(self, sha256s: Iterable[str]) -> None:
        """Never drop these modules. Replaces what was pinned before; for this process only."""
        self._pinned = frozenset(sha256s)

    def _tag(self, *words: str) -> str:
        return hmac.new(self._key, "\0".join(words).encode(errors="surrogateescape"), "sha256").hexdigest()

    def _record(self, place: str, digest: str) -> Path:
        return self._index / f"{self._tag('record', place, digest)}.json"

    def get(self, digest: str, *, place: str = "", holder: str | None = None) -> Artifact | None:
        """The artifact of this digest from this place, its module checked again; None where it must be fetched.

        With a ``holder``, only one to which that holder has proven its right.
        """
        if not DIGEST.fullmatch(digest):
            return None
        record = self._record(place, digest)
        try:
            data = self._read(record)
            if holder is not None and self._tag("holder", holder) not in data["proofs"]:
                return None
            described_by, signatures = _beside(data, digest)
            artifact = Artifact(
                digest=digest,
                sha256=str(data["sha256"]),
                size=int(data["size"]),
                layout=str(data["layout"]),
                path=self._modules / f"{data['sha256']}.wasm",
                description=None
                if data["description"] is None
                else PluginDescription.model_validate(data["description"]),
                described_by=described_by,
                signatures=signatures,
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        self._hold(artifact)  # before the check: what passes must not be dropped between check and use
        if self.module(artifact.sha256) is None:
            return None
        with contextlib.suppress(OSError):
            os.utime(record)
        return artifact

    def module(self, sha256: str) -> Path | None:
        """The file of the module with this sha256, checked again and marked as used; None where it is absent."""
        if not DIGEST.fullmatch(f"sha256:{sha256}"):
            return None
        path = self._modules / f"{sha256}.wasm"
        try:
            with path.open("rb") as file:
                good = hashlib.file_digest(file, "sha256").hexdigest() == sha256
            if good:
                os.utime(path)
                return path
            _log.warning("%s is damaged and will be fetched again", path)
            path.unlink(missing_ok=True)
        except OSError:
            pass
        return None

    @contextlib.contextmanager
    def scratch(self) -> Iterator[BinaryIO]:
        """A new file on the store's disk, gone afterwards unless it was added."""
        self._make_folders()  # somebody may have cleaned up while we run
        with tempfile.NamedTemporaryFile(dir=self._tmp, delete=False) as wrapper:
            try:
                yield cast("BinaryIO", wrapper.file)
            finally:
                Path(wrapper.name).unlink(missing_ok=True)

    def add(
        self,
        file: BinaryIO,
        *,
        digest: str,
        sha256: str,
        size: int,
        layout: str,
        description: PluginDescription | None,
        described_by: Mapping[str, str] | None = None,
        signatures: tuple[str, ...] = (),
        place: str = "",
        holder: str | None = None,
        owner: str | None = None,
    ) -> Artifact:
        """Take a module from a ``scratch`` file whose bytes have this ``sha256``. Raises OSError."""
        artifact = Artifact(
            digest=digest,
            sha256=sha256,
            size=size,
            layout=layout,
            path=self._modules / f"{sha256}.wasm",
            description=description,
            described_by=described_by or {},
            signatures=signatures,
        )
        self._hold(artifact)
        _publish(file, artifact.path)
        proofs = [self._tag("holder", holder)] if holder is not None else []
        self._write(self._record(place, digest), artifact, proofs, owner=owner)
        self._evict()
        return artifact

    def prove(self, artifact: Artifact, *, place: str, holder: str) -> None:
        """Remember that ``holder`` may have what this place has. Raises OSError."""
        record, tag = self._record(place, artifact.digest), self._tag("holder", holder)
        with self._lock:
            try:
                proofs = list(self._read(record)["proofs"])
            except (OSError, ValueError, KeyError, TypeError):
                proofs = []
            self._write(record, artifact, [*(each for each in proofs if each != tag), tag][-_MAX_PROOFS:])

    def grant(self, artifact: Artifact, *, owner: str) -> None:
        """Remember that ``owner`` may have this module, whatever it was packed in. Raises OSError."""
        record = self._record(f"owner {owner}", f"sha256:{artifact.sha256}")
        try:
            os.utime(record)
        except FileNotFoundError:
            self._write(record, artifact, [], owner=owner)

    def grant_file(self, file: BinaryIO, *, owner: str, sha256: str, size: int) -> Artifact:
        """Take a module for its owner from a ``scratch`` file whose bytes have this ``sha256``. Raises OSError."""
        digest = f"sha256:{sha256}"
        return self.add(
            file, digest=digest, sha256=sha256, size=size, layout="raw", description=None, place=f"owner {owner}",
            owner=owner,
        )  # fmt: skip

    def granted(self, sha256: str, *, owner: str) -> Artifact | None:
        """The module of this sha256, checked again, where ``owner`` may have it. Its digest is its own bytes'."""
        return self.get(f"sha256:{sha256}", place=f"owner {owner}")

    def _write(self, path: Path, artifact: Artifact, proofs: list[str], *, owner: str | None = None) -> None:
        with self.scratch() as record:
            data = orjson.dumps(
                {
                    "sha256": artifact.sha256,
                    "size": artifact.size,
                    "layout": artifact.layout,
                    "description": artifact.description and artifact.description.model_dump(mode="json"),
                    "described_by": dict(artifact.described_by),
                    "signatures": artifact.signatures,
                    "proofs": proofs,
                    "owner": None if owner is None else self._tag("owner", owner),
                }
            )
            record.write(data + self._trailer(path, data))
            _publish(record, path)

    def _trailer(self, path: Path, data: bytes) -> bytes:
        """What stands behind a record: its seal, where there is a key for one."""
        if self._seal is None:
            return b""
        return b"\n" + hmac.new(self._seal, path.name.encode() + b"\0" + data, "sha256").hexdigest().encode()

    def _read(self, record: Path) -> dict[str, Any]:
        """Raises OSError, ValueError and TypeError."""
        with record.open("rb") as file:
            data = file.read(_MAX_RECORD)
        if self._seal is not None:
            data, _, _ = whole = data.rpartition(b"\n")
            if not hmac.compare_digest(b"".join(whole), data + self._trailer(record, data)):
                raise ValueError("it does not bear the seal of whoever has this store")
        return dict(orjson.loads(data))

    def _owned(self, record: Path) -> tuple[str, str]:
        """Whose a record is, by a tag, and of which module; empty where it is nobody's."""
        try:
            data = self._read(record)
            return str(data.get("owner") or ""), str(data["sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            return "", ""

    def _hold(self, artifact: Artifact) -> None:
        with self._lock:
            self._held[id(artifact)] = artifact

    def _evict(self) -> None:
        with self._lock:
            modules, files = _by_age(self._modules), _by_age(self._index)
            known = self._read_records(files)
            records = _loose_records(known, self._pinned)
            counted = sum(path.stem not in self._pinned for path, _ in modules)
            excess = sum(stat.st_size for _, stat in modules) - self._max_bytes
            if excess <= 0 and max(counted, len(records)) <= _MAX_RECORDS:
                return
            kept = self._pinned | {artifact.sha256 for artifact in self._held.values()}
            owners = defaultdict(set)
            for _, owner, sha256 in known:
                if owner:
                    owners[sha256].add(owner)
            has: Counter[str] = Counter()
            for path, stat in modules:
                for owner in owners.get(path.stem, {""}):
                    has[owner] += stat.st_size + 1  # an empty one counts too

            def most(entry: tuple[Path, os.stat_result]) -> int:
                return min(has[owner] for owner in owners.get(entry[0].stem, {""}))

            loose = [entry for entry in modules if entry[0].stem not in kept]
            count = counted - (_MAX_RECORDS - _DROPPED if counted > _MAX_RECORDS else counted)
            while loose and (excess > 0 or count > 0):
                path, stat = entry = max(loose, key=most)  # of equals the first, which was used the longest ago
                loose.remove(entry)
                path.unlink(missing_ok=True)
                excess, count = excess - stat.st_size, count - 1
                for owner in owners.get(path.stem, {""}):
                    has[owner] -= stat.st_size + 1
                _log.info("dropped %s from the store, least recently used", path.name)
            if len(records) > _MAX_RECORDS:
                _forget_records([(path, owner) for path, owner, _ in records])

    def _read_records(self, files: list[tuple[Path, os.stat_result]]) -> list[tuple[Path, str, str]]:
        """Path, owner and module of each record, the least recently used first; each version is read once."""
        read: dict[str, tuple[int, int, str, str]] = {}
        for path, stat in files:
            seen = self._seen.get(path.name)
            if seen is None or seen[:2] != (stat.st_ino, stat.st_size):  # written anew, it is another file
                seen = (stat.st_ino, stat.st_size, *self._owned(path))
            read[path.name] = seen
        self._seen = read
        return [(path, *read[path.name][2:]) for path, _ in files]


def _loose_records(known: list[tuple[Path, str, str]], pinned: AbstractSet[str]) -> list[tuple[Path, str, str]]:
    """Those that may go: all but what says who has a module that is pinned, and from where somebody had it lately."""
    loose, places = [], Counter[str]()
    for entry in reversed(known):
        _, owner, sha256 = entry
        places[sha256] += not owner
        if sha256 not in pinned or (not owner and places[sha256] > _KEPT_PLACES):
            loose.append(entry)
    return loose[::-1]


def _forget_records(known: list[tuple[Path, str]]) -> None:
    """Drop some, of whoever has the most: what is known of places, which anybody may ask again, counts as one's."""
    has = Counter(owner for _, owner in known)
    by_owner: dict[str, deque[Path]] = defaultdict(deque)
    for path, owner in known:
        by_owner[owner].append(path)
    for _ in range(len(known) - _MAX_RECORDS + _DROPPED):
        owner = max(has, key=has.__getitem__)
        has[owner] -= 1
        by_owner[owner].popleft().unlink(missing_ok=True)


def _beside(data: dict[str, Any], digest: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """What an artifact is described by, and its signatures. Raises KeyError, TypeError and AttributeError.

    A record of an older version has neither. That is right where the module was fetched by itself, and nowhere else.
    """
    if "described_by" not in data and digest == f"sha256:{data['sha256']}":
        return {}, ()
    described_by = {str(name): str(each) for name, each in data["described_by"].items()}
    return described_by, tuple(map(str, data["signatures"]))


def _publish(file: BinaryIO, path: Path) -> None:
    """Give a complete file its name, so that a crash leaves either all of it or nothing."""
    file.flush()
    os.fsync(file.fileno())
    Path(file.name).replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _by_age(folder: Path) -> list[tuple[Path, os.stat_result]]:
    """The files of a folder, the least recently used first."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # dropped by another process
                found.append((folder / entry.name, entry.stat()))
    return sorted(found, key=lambda pair: pair[1].st_mtime_ns)
