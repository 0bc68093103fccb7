"""The plugins' key-value store: one LMDB environment, shared by all workers of a pod, kept over a restart.

LMDB gives what the promises need and no more: one writer at a time across processes (so every operation here is
atomic, and a worker that dies within one leaves nothing behind), readers that never wait, and a file that
survives the process. It is not synced to disk at each write: the store outlives processes, not power cuts.

An entry's key in LMDB is a hash, because LMDB's own keys end at 511 bytes and a guest's may have 64 KiB; the
entry holds the key itself. Counts and sizes per plugin and in all are kept in the same transaction as the data,
so that a cap is a comparison. Beside them is, for each plugin, a record of what its resource's ``kv.initial`` put
there (``hookline_runtime.kv_initial``).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import heapq
import logging
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import lmdb

from hookline_api.abi import E_ARGUMENT, E_CAP, E_SIZE

# HeliosDB-Proxy's caps, docs/guest-abi.md.
MAX_KEY: Final = 64 * 1024
MAX_VALUE: Final = 64 * 1024
MAX_KEYS: Final = 1024
MAX_NAMESPACES: Final = 256
MAX_BYTES: Final = 64 * 2**20

_MAP_SIZE: Final = 4 * MAX_BYTES  # copy-on-write pages and fragments; the file grows only as far as it is used
_OPTIONS: Final[dict[str, Any]] = {
    "map_size": _MAP_SIZE, "sync": False, "metasync": False, "max_readers": 1024, "mode": 0o600,
}  # fmt: skip
_TOTALS: Final = b"t"
_NAMESPACE: Final = b"n"
_DATA: Final = b"d"
_RECORD: Final = b"r"
_ENTRY: Final = struct.Struct("<QI")  # expiry in ms since 1970 (0: none), length of the key
_COUNTS: Final = struct.Struct("<QQ")  # keys (or namespaces), bytes
_TRIED_BYTES: Final = 4 * 2**20
_LEAST_I64: Final = -(2**63)
_MOST_I64: Final = 2**63 - 1

log = logging.getLogger("hookline.kv")


class KvError(Exception):
    """A refused operation; ``code`` is one of the guest ABI's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Found(NamedTuple):
    """A value, and what is left of its time."""

    value: bytes
    ttl_ms: int | None
    """None where it has no end."""


class Listed(NamedTuple):
    """An entry without its value."""

    key: bytes
    size: int
    """Bytes of the value."""
    ttl_ms: int | None


class KvStore:
    """All plugins' entries. Made after a fork, one per process; all methods may be called from any thread."""

    def __init__(self, folder: Path) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # One process at a time: who finds it damaged must not set aside what another has just made anew.
        with folder.with_name(f"{folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                self._env = _open(folder)
            except lmdb.Error as error:
                # A damaged store must not keep the hooks from running. What was in it is set aside, not deleted.
                aside = folder.with_name(f"{folder.name}.damaged")
                log.warning("the key-value store does not open (%s); set aside as %s", error, aside)
                shutil.rmtree(aside, ignore_errors=True)
                folder.rename(aside)
                self._env = _open(folder)
        self._env.reader_check()

    def close(self) -> None:
        """Close the environment; nothing may be under way."""
        self._env.close()

    def get(self, namespace: str, key: bytes) -> bytes | None:
        """The value, or None where there is none or its time is over."""
        with self._env.begin(buffers=True) as txn:
            found = txn.get(_data_key(namespace, key))
            return _value(found, _now()) if found is not None else None

    def look(self, namespace: str, key: bytes) -> Found | None:
        """``get``, with the time that is left."""
        now = _now()
        with self._env.begin(buffers=True) as txn:
            entry = txn.get(_data_key(namespace, key))
            value = _value(entry, now) if entry is not None else None
            return Found(value, _left(entry, now)) if entry is not None and value is not None else None

    def put(self, namespace: str, key: bytes, value: bytes) -> None:
        """Store, without a time limit. Raises KvError where a cap is reached."""
        with self._change(namespace) as change:
            change.put(key, value)

    def delete(self, namespace: str, key: bytes) -> None:
        """Remove; no error where there is nothing."""
        with self._change(namespace) as change:
            change.remove(_data_key(namespace, key))

    def increment(self, namespace: str, key: bytes, by: int) -> int:
        """Add to a decimal number, starting from 0, and keep its time limit; the sum.

        Raises KvError where the value is no number, the sum leaves 64 bits, or a cap is reached.
        """
        with self._change(namespace) as change:
            held = change.entry(key)
            expiry, old = held or (0, b"0")
            try:
                total = int(old) + by if len(old) <= 20 else _MOST_I64 + 1  # noqa: PLR2004 - digits of an i64
            except ValueError:
                raise KvError(E_ARGUMENT, "the value is no decimal number") from None
            if not _LEAST_I64 < total <= _MOST_I64:  # the least is how the guest ABI says "failed"
                raise KvError(E_ARGUMENT, "the sum does not fit into 64 bits")
            change.put(key, str(total).encode(), expiry=expiry)
            return total

    def compare_and_set(self, namespace: str, key: bytes, old: bytes | None, new: bytes) -> bool:
        """Store ``new`` if the value is ``old`` (None: if there is none); whether it was. Drops a time limit."""
        with self._change(namespace) as change:
            held = change.entry(key)
            if (held[1] if held else None) != old:
                return False
            change.put(key, new)
            return True

    def change(
        self, namespace: str, key: bytes, value: bytes | None, *, when: Callable[[bytes | None], bool]
    ) -> tuple[bytes | None, bool]:
        """Store ``value``, or remove for None, if ``when`` is true of what is there; that, and whether it was done.

        ``when`` gets None where there is nothing. Raises KvError where a cap is reached.
        """
        with self._change(namespace) as change:
            entry = change.entry(key)
            held = entry[1] if entry else None
            if not when(held):
                return held, False
            if value is None:
                change.remove(_data_key(namespace, key))
            else:
                change.put(key, value)
            return held, True

    def set_ttl(self, namespace: str, key: bytes, ttl_ms: int) -> bool:
        """Let the entry end after that time, or never for 0 and less; whether there is one."""
        with self._change(namespace) as change:
            held = change.entry(key)
            if held is None:
                return False
            expiry = min(_now() + ttl_ms, 2**62) if ttl_ms > 0 else 0
            change.put(key, held[1], expiry=expiry)
            return True

    def list_keys(self, namespace: str, prefix: bytes, *, at_most: int = MAX_BYTES) -> list[bytes]:
        """The keys with that prefix, sorted. Raises KvError where they have more than ``at_most`` bytes together."""
        now, keys, size = _now(), [], 0
        with self._env.begin(buffers=True) as txn:
            for _, entry in _entries(txn, namespace):
                expiry, length = _ENTRY.unpack_from(entry)
                if length >= len(prefix) and not 0 < expiry <= now:
                    if entry[_ENTRY.size : _ENTRY.size + len(prefix)] != prefix:
                        continue
                    size += length
                    if size > at_most:  # before they are copied: 64 MiB of keys are nobody's answer
                        raise KvError(E_SIZE, f"the keys have more than {at_most} bytes")
                    keys.append(bytes(entry[_ENTRY.size : _ENTRY.size + length]))
        return sorted(keys)

    def page(
        self, namespace: str, prefix: bytes, *, after: bytes | None, at_most: int, most_bytes: int
    ) -> tuple[list[Listed], bool]:
        """Entries with that prefix and behind the key ``after``, by key; and whether there are more.

        At most ``at_most``, and one at least but otherwise no more than have ``most_bytes`` of keys together.
        """
        now = _now()
        with self._env.begin(buffers=True) as txn:
            least = heapq.nsmallest(at_most + 1, _listed(txn, namespace, prefix, after, now))
        size, count = 0, 0
        for each in least[:at_most]:
            size += len(each.key)
            if count and size > most_bytes:
                break
            count += 1
        return least[:count], len(least) > count

    def usage(self) -> dict[str, tuple[int, int]]:
        """Keys and bytes of each namespace."""
        with self._env.begin() as txn, txn.cursor() as cursor:
            found = {}
            if cursor.set_range(_NAMESPACE):
                for key, value in cursor:
                    if not key.startswith(_NAMESPACE):
                        break
                    found[value[_COUNTS.size :].decode()] = _COUNTS.unpack_from(value)
            return found

    def make_room(self, keep: set[str]) -> None:
        """Drop the entries of plugins that are gone, once half of the namespaces are taken. Raises nothing."""
        try:
            names = self.usage().keys()
            for name in names - keep if len(names) * 2 > MAX_NAMESPACES else ():
                with self._change(name) as change:
                    change.clear()
                    change.set_record(b"")
            self._forget(keep | names)
        except lmdb.Error as error:
            log.warning("the key-value store cannot be tidied: %s", error)

    def record(self, namespace: str) -> bytes:
        """What was last given to ``Change.set_record``; empty where there is nothing."""
        with self._env.begin() as txn:
            return bytes(txn.get(_RECORD + _hash(namespace.encode())[:16]) or b"")

    @contextlib.contextmanager
    def changes(self, *, only_try: bool = False) -> Iterator[Callable[[str], Change]]:
        """One transaction over several namespaces: given up where the block raises, or after ``only_try``."""
        with self._env.begin(write=True, buffers=False) as txn:
            yield lambda namespace: Change(txn, namespace)
            if only_try:
                txn.abort()

    @contextlib.contextmanager
    def _change(self, namespace: str) -> Iterator[Change]:
        # The transaction is committed where the block ends well, and given up where it raises.
        with self._env.begin(write=True, buffers=False) as txn:
            yield Change(txn, namespace)

    def _forget(self, keep: set[str]) -> None:
        """Drop the records of plugins that are gone, once there are more than plugins may have keys."""
        with self._env.begin() as txn:
            records = [bytes(key) for key, _ in _with_prefix(txn, _RECORD)]
        if len(records) > MAX_NAMESPACES:
            kept = {_RECORD + _hash(name.encode())[:16] for name in keep}
            with self._env.begin(write=True) as txn:
                for key in records:
                    if key not in kept:
                        txn.delete(key)


def _open(folder: Path) -> lmdb.Environment:
    """The environment; raises lmdb.Error where it is damaged."""
    folder.mkdir(exist_ok=True, mode=0o700)
    environment = lmdb.open(str(folder), **_OPTIONS)
    pages, page = environment.info()["last_pgno"] + 1, environment.stat()["psize"]
    if pages * page > (folder / "data.mdb").stat().st_size:
        # Cut off, it seems; but the last pages may also be free ones that were never written. Reading beyond a
        # file's end kills the process, so another one tries.
        environment.close()
        reader = [sys.executable, "-m", __name__, str(folder)]
        tried = subprocess.run(reader, check=False, stderr=subprocess.DEVNULL)  # noqa: S603 - our own interpreter
        if tried.returncode != 0:
            raise lmdb.CorruptedError(f"{folder}: the file is cut off")
        environment = lmdb.open(str(folder), **_OPTIONS)
    try:
        with environment.begin() as txn:
            txn.get(_TOTALS)
    except lmdb.Error:
        environment.close()
        raise
    return environment


class Change:
    """A write transaction's view of one namespace."""

    def __init__(self, txn: lmdb.Transaction, namespace: str) -> None:
        self._txn = txn
        self._name = namespace
        self._meta = _NAMESPACE + _hash(namespace.encode())[:16]
        self._record = _RECORD + self._meta[1:]
        self._now = _now()

    def entry(self, key: bytes) -> tuple[int, bytes] | None:
        """Expiry and value; None where there is none or its time is over."""
        found = self._txn.get(_data_key(self._name, key))
        value = _value(found, self._now) if found is not None else None
        return (_ENTRY.unpack_from(found)[0], value) if found is not None and value is not None else None

    def record(self) -> bytes:
        """As ``KvStore.record``."""
        return bytes(self._txn.get(self._record) or b"")

    def set_record(self, record: bytes) -> None:
        """Keep some bytes beside the namespace, which count for no cap; none at all for no bytes."""
        if record:
            self._txn.put(self._record, record)
        else:
            self._txn.delete(self._record)

    def put(self, key: bytes, value: bytes, *, expiry: int = 0) -> None:
        """Store; ``expiry`` in ms since 1970, 0 for none. Raises KvError where a cap is reached."""
        if len(key) > MAX_KEY or len(value) > MAX_VALUE:
            raise KvError(E_SIZE, f"a key has at most {MAX_KEY} bytes and a value {MAX_VALUE}")
        where = _data_key(self._name, key)
        old = self._txn.get(where)
        if self._full(len(key) + len(value), old) is not None:
            self._purge()
            old = self._txn.get(where)
            full = self._full(len(key) + len(value), old)
            if full is not None:
                raise KvError(E_CAP, full)
        self._account(keys=0 if old is not None else 1, size=len(key) + len(value) - _size(old))
        self._txn.put(where, _ENTRY.pack(expiry, len(key)) + key + value)

    def remove(self, where: bytes) -> None:
        """Remove the entry at this place in LMDB, if there is one."""
        old = self._txn.get(where)
        if old is not None:
            self._txn.delete(where)
            self._account(keys=-1, size=-_size(old))

    def clear(self) -> None:
        """Remove all entries."""
        for where in [bytes(key) for key, _ in _entries(self._txn, self._name)]:
            self.remove(where)

    def _purge(self) -> None:
        expired = [
            bytes(key)
            for key, entry in _entries(self._txn, self._name)
            if 0 < _ENTRY.unpack_from(entry)[0] <= self._now
        ]
        for where in expired:
            self.remove(where)

    def _full(self, size: int, old: bytes | memoryview | None) -> str | None:
        """Which cap leaves no room for so many bytes in the place of ``old``; None where none does."""
        keys, _ = self._counts(self._meta)
        namespaces, total = self._counts(_TOTALS)
        if old is None and keys >= MAX_KEYS:
            return f"the plugin has its {MAX_KEYS} keys already"
        if keys == 0 and namespaces >= MAX_NAMESPACES:
            return f"{MAX_NAMESPACES} plugins have keys already, and no more may"
        if total + size - _size(old) > MAX_BYTES:
            return f"the store has {total} bytes of all plugins, and at most {MAX_BYTES}"
        return None

    def _counts(self, key: bytes) -> tuple[int, int]:
        found = self._txn.get(key)
        return _COUNTS.unpack_from(found) if found is not None else (0, 0)

    def _account(self, *, keys: int, size: int) -> None:
        count, held = self._counts(self._meta)
        namespaces, total = self._counts(_TOTALS)
        if count + keys:
            self._txn.put(self._meta, _COUNTS.pack(count + keys, held + size) + self._name.encode())
        else:
            self._txn.delete(self._meta)
        namespaces += (count == 0) - (count + keys == 0)
        self._txn.put(_TOTALS, _COUNTS.pack(namespaces, total + size))


def _hash(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _data_key(namespace: str, key: bytes) -> bytes:
    return _DATA + _hash(namespace.encode())[:16] + _hash(key)


def _entries(txn: lmdb.Transaction, namespace: str) -> Iterator[tuple[bytes | memoryview, bytes | memoryview]]:
    return _with_prefix(txn, _DATA + _hash(namespace.encode())[:16])


def _with_prefix(txn: lmdb.Transaction, prefix: bytes) -> Iterator[tuple[bytes | memoryview, bytes | memoryview]]:
    with txn.cursor() as cursor:
        if cursor.set_range(prefix):
            for key, entry in cursor:
                if bytes(key[: len(prefix)]) != prefix:
                    return
                yield key, entry


def _listed(txn: lmdb.Transaction, namespace: str, prefix: bytes, after: bytes | None, now: int) -> Iterator[Listed]:
    for _, entry in _entries(txn, namespace):
        expiry, length = _ENTRY.unpack_from(entry)
        if 0 < expiry <= now or entry[_ENTRY.size : _ENTRY.size + min(length, len(prefix))] != prefix:
            continue
        key = bytes(entry[_ENTRY.size : _ENTRY.size + length])
        if after is None or key > after:
            yield Listed(key, len(entry) - _ENTRY.size - length, _left(entry, now))


def _left(entry: bytes | memoryview, now: int) -> int | None:
    (expiry, _) = _ENTRY.unpack_from(entry)
    return expiry - now if expiry else None


def _value(entry: bytes | memoryview, now: int) -> bytes | None:
    expiry, length = _ENTRY.unpack_from(entry)
    return None if 0 < expiry <= now else bytes(entry[_ENTRY.size + length :])


def _size(entry: bytes | memoryview | None) -> int:
    return 0 if entry is None else len(entry) - _ENTRY.size


def _now() -> int:
    return time.time_ns() // 1_000_000


def _try_out(folder: str) -> None:
    """Touch every entry, and look for free pages; the process dies where a page is not there."""
    with lmdb.open(folder, map_size=_MAP_SIZE) as environment, environment.begin(write=True, buffers=True) as txn:
        for _, entry in txn.cursor():
            bytes(entry)
        with contextlib.suppress(lmdb.MapFullError):
            txn.put(_TOTALS, bytes(_TRIED_BYTES))
        txn.abort()


if __name__ == "__main__":
    _try_out(sys.argv[1])
