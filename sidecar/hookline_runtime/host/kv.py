"""The plugins' key-value store: one LMDB environment, shared by all workers of a pod, kept over a restart.

LMDB gives what the promises need and no more: one writer at a time across processes (so every operation here is
atomic, and a worker that dies within one leaves nothing behind), readers that never wait, and a file that
survives the process. It is not synced to disk at each write: the store outlives processes, not power cuts.

One writer at a time means that a write of one plugin can hold up those of all others, on their event loops. So what a
transaction does is small and bounded: a cap is a comparison of counts that are kept in the same transaction as the
data, what is over or belongs to nobody goes a few entries at a time, and every change is tried on a reader's view
first, where what is refused, or changes nothing, holds up nobody. And who waits to write waits as long as it can
afford (``kv_file.WriterLock``). Beside the entries is, for each plugin, a record of what its resource's ``kv.initial``
put there (``hookline_runtime.host.kv_initial``). ``kv_file`` says how all of it is laid out.
"""

from __future__ import annotations

import contextlib
import functools
import heapq
import itertools
import logging
import re
import time
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import lmdb

from hookline_api.abi import E_ARGUMENT, E_CAP, E_SIZE, E_UNAVAILABLE
from hookline_runtime.host.kv_file import (
    COUNTS,
    DATA,
    ENTRY,
    EXPIRY,
    NAMESPACE,
    RECORD,
    SUMS,
    TOTALS,
    BusyError,
    Pair,
    WriterLock,
    alone,
    bring_up_to_date,
    digest,
    end_key,
    open_or_set_aside,
    with_prefix,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# HeliosDB-Proxy's caps, docs/author/guest-abi.md.
MAX_KEY: Final = 64 * 1024
MAX_VALUE: Final = 64 * 1024
MAX_KEYS: Final = 1024
MAX_NAMESPACES: Final = 256
MAX_BYTES: Final = 64 * 2**20
"""Of keys and values, for whichever plugins come first. Beyond it each plugin has 4 KiB that nobody else can take: the
counters and flags of a guard stay writable where another plugin's cache has filled the rest."""

PATIENCE_S: Final = 60.0
"""How long an operation waits for whoever writes, unless its caller says otherwise: longer than those who ask by HTTP,
or deploy, wait for an answer."""
PURGED_AT_ONCE: Final = 16
"""Entries whose time is over that one transaction clears, where there is no room: some 0.2 ms."""
DROPPED_AT_ONCE: Final = 64
"""Entries, or records, of plugins that are gone that one transaction clears: some 0.7 ms of the writers' time."""
_DROP_PAUSE_S: Final = 0.001
"""Between two of these, for those who wait to write."""
_LEAST_I64: Final = -(2**63)
_MOST_I64: Final = 2**63 - 1

_NUMBER: Final = re.compile(rb"[ \t\n\v\f\r]*[+-]?[0-9]+[ \t\n\v\f\r]*")

log = logging.getLogger("hookline.kv")


class KvError(Exception):
    """A refused operation; ``code`` is one of the guest ABI's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


_T = TypeVar("_T")


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
        self._folder = folder
        with alone(folder):
            self._env = open_or_set_aside(folder, "key-value store")
            bring_up_to_date(self._env, _spill)
        self._writer = WriterLock(folder)
        self._env.reader_check()

    def close(self) -> None:
        """Close the environment; nothing may be under way."""
        self._env.close()
        self._writer.close()

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

    def put(self, namespace: str, key: bytes, value: bytes, *, patience: float = PATIENCE_S) -> None:
        """Store, without a time limit.

        Raises KvError where a cap is reached, or nobody may write within ``patience`` seconds, as all changes do.
        """
        self._change(namespace, lambda change: change.put(key, value), patience)

    def delete(self, namespace: str, key: bytes, *, patience: float = PATIENCE_S) -> None:
        """Remove; no error where there is nothing."""
        self._change(namespace, lambda change: change.remove(_data_key(namespace, key)), patience)

    def increment(self, namespace: str, key: bytes, by: int, *, patience: float = PATIENCE_S) -> int:
        """Add to a decimal number, starting from 0, and keep its time limit; the sum.

        Raises KvError where the value is not a number, the sum leaves 64 bits, or a cap is reached.
        """

        def add(change: Change) -> int:
            held = change.entry(key)
            expiry, old = held or (0, b"0")
            if len(old) > 20 or not _NUMBER.fullmatch(old) or not _LEAST_I64 <= int(old) <= _MOST_I64:  # noqa: PLR2004 - digits
                raise KvError(E_ARGUMENT, "the value is not a decimal number of 64 bits")
            total = int(old) + by
            if not _LEAST_I64 < total <= _MOST_I64:  # the least is how the guest ABI says "failed"
                raise KvError(E_ARGUMENT, "the sum does not fit into 64 bits")
            change.put(key, str(total).encode(), expiry=expiry)
            return total

        return self._change(namespace, add, patience)

    def compare_and_set(
        self, namespace: str, key: bytes, old: bytes | None, new: bytes, *, patience: float = PATIENCE_S
    ) -> bool:
        """Store ``new`` if the value is ``old`` (None: if there is none); whether it was. Drops a time limit."""
        return self.change(namespace, key, new, when=lambda held: held == old, patience=patience)[1]

    def change(
        self,
        namespace: str,
        key: bytes,
        value: bytes | None,
        *,
        when: Callable[[bytes | None], bool],
        patience: float = PATIENCE_S,
    ) -> tuple[bytes | None, bool]:
        """Store ``value``, or remove for None, if ``when`` is true of what is there; that, and whether it was done.

        ``when`` gets None where there is nothing. Raises KvError where a cap is reached.
        """

        def apply(change: Change) -> tuple[bytes | None, bool]:
            entry = change.entry(key)
            held = entry[1] if entry else None
            if not when(held):
                return held, False
            if value is None:
                change.remove(_data_key(namespace, key))
            else:
                change.put(key, value)
            return held, True

        return self._change(namespace, apply, patience)

    def set_ttl(self, namespace: str, key: bytes, ttl_ms: int, *, patience: float = PATIENCE_S) -> bool:
        """Let the entry end after that time, or never for 0 and less; whether there is one."""

        def limit(change: Change) -> bool:
            held = change.entry(key)
            if held is None:
                return False
            change.put(key, held[1], expiry=min(_now() + ttl_ms, 2**62) if ttl_ms > 0 else 0)
            return True

        return self._change(namespace, limit, patience)

    def list_keys(self, namespace: str, prefix: bytes, *, at_most: int = MAX_BYTES) -> list[bytes]:
        """The keys with that prefix, sorted. Raises KvError where they have more than ``at_most`` bytes together."""
        now, keys, size = _now(), [], 0
        with self._env.begin(buffers=True) as txn:
            for _, entry in _entries(txn, namespace):
                expiry, length = ENTRY.unpack_from(entry)
                if length >= len(prefix) and not 0 < expiry <= now:
                    if entry[ENTRY.size : ENTRY.size + len(prefix)] != prefix:
                        continue
                    size += length
                    if size > at_most:  # before they are copied: 64 MiB of keys are nobody's answer
                        raise KvError(E_SIZE, f"the keys have more than {at_most} bytes")
                    keys.append(bytes(entry[ENTRY.size : ENTRY.size + length]))
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
            if cursor.set_range(NAMESPACE):
                for key, value in cursor:
                    if not key.startswith(NAMESPACE):
                        break
                    found[value[COUNTS.size :].decode()] = COUNTS.unpack_from(value)
            return found

    def make_room(self, keep: set[str]) -> None:
        """Drop the entries of plugins that are gone, once half of the namespaces are taken. Raises nothing.

        It takes its time, so that others can write meanwhile: for a thread.
        """
        try:
            names = self.usage().keys()
            for name in names - keep if len(names) * 2 > MAX_NAMESPACES else ():
                while self._drop(name):
                    time.sleep(_DROP_PAUSE_S)
            self._forget(keep | names)
        except (lmdb.Error, KvError) as error:
            log.warning("the key-value store cannot be tidied: %s", error)

    def record(self, namespace: str) -> bytes:
        """What was last given to ``Change.set_record``; empty where there is nothing."""
        with self._env.begin() as txn:
            return bytes(txn.get(RECORD + _name_hash(namespace)) or b"")

    @contextlib.contextmanager
    def changes(self, *, only_try: bool = False, patience: float = PATIENCE_S) -> Iterator[Callable[[str], Change]]:
        """One transaction over several namespaces: given up where the block raises, or after ``only_try``."""
        with self._writing(patience) as txn:
            yield lambda namespace: Change(txn, namespace)
            if only_try:
                txn.abort()

    def _change(self, namespace: str, operation: Callable[[Change], _T], patience: float) -> _T:
        """Do something in a transaction; first without one, where what is refused or is nothing to do ends."""
        with self._env.begin(buffers=True) as txn:
            trial = Change(txn, namespace, only_try=True)
            result = operation(trial)
            if not trial.wants_to_write:
                return result
        self._take(patience)
        try:
            with self._env.begin(write=True, buffers=True) as txn:
                return operation(Change(txn, namespace))
        finally:
            self._writer.give()

    @contextlib.contextmanager
    def _writing(self, patience: float) -> Iterator[lmdb.Transaction]:
        # The transaction is committed where the block ends well, and given up where it raises.
        self._take(patience)
        try:
            with self._env.begin(write=True, buffers=True) as txn:
                yield txn
        finally:
            self._writer.give()

    def _take(self, patience: float) -> None:
        try:
            self._writer.take(patience)
        except BusyError:
            raise KvError(E_UNAVAILABLE, f"another process has been writing for {patience:g} s") from None

    def _drop(self, name: str) -> bool:
        """Drop some entries of a namespace; whether there are more."""
        with self._writing(PATIENCE_S) as txn:
            change = Change(txn, name)
            more = change.clear(DROPPED_AT_ONCE)
            if not more:
                change.set_record(b"")
            return more

    def _forget(self, keep: set[str]) -> None:
        """Drop the records of plugins that are gone, once there are more than plugins may have keys."""
        with self._env.begin() as txn:
            records = [bytes(key) for key, _ in with_prefix(txn, RECORD)]
        if len(records) > MAX_NAMESPACES:
            kept = {RECORD + _name_hash(name) for name in keep}
            gone = [key for key in records if key not in kept]
            for at in range(0, len(gone), DROPPED_AT_ONCE):
                with self._writing(PATIENCE_S) as txn:
                    for key in gone[at : at + DROPPED_AT_ONCE]:
                        txn.delete(key)
                time.sleep(_DROP_PAUSE_S)


class Change:
    """A transaction's view of one namespace. With ``only_try`` it is a reader's, and changes nothing."""

    def __init__(self, txn: lmdb.Transaction, namespace: str, *, only_try: bool = False) -> None:
        self._txn = txn
        self._name = namespace
        self._only_try = only_try
        self.wants_to_write = False
        """Whether something would have been changed."""
        self._meta = NAMESPACE + _name_hash(namespace)
        self._record = RECORD + self._meta[1:]
        self._now = _now()

    def entry(self, key: bytes) -> tuple[int, bytes] | None:
        """Expiry and value; None where there is none or its time is over."""
        found = self._txn.get(_data_key(self._name, key))
        value = _value(found, self._now) if found is not None else None
        return (ENTRY.unpack_from(found)[0], value) if found is not None and value is not None else None

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
        where, size = _data_key(self._name, key), len(key) + len(value)
        full = self._full(where, size)
        if full is not None and self._purge():
            full = None if self._only_try else self._full(where, size)
        if full is not None:
            raise KvError(E_CAP, full)
        self.wants_to_write = True
        if self._only_try:
            return
        old = self._held(where)
        if old is not None and old[1] not in {0, expiry}:
            self._txn.delete(end_key(old[1], where))
        self._account(self._meta, keys=old is None, size=size - (old[0] if old else 0))
        self._txn.put(where, ENTRY.pack(expiry, len(key)) + key + value)
        if expiry:
            self._txn.put(end_key(expiry, where), b"")

    def remove(self, where: bytes) -> None:
        """Remove the entry at this place in LMDB, if there is one."""
        old = self._held(where)
        if old is None:
            return
        self.wants_to_write = True
        if not self._only_try:
            self._txn.delete(where)
            if old[1]:
                self._txn.delete(end_key(old[1], where))
            self._account(NAMESPACE + where[1:17], keys=-1, size=-old[0])

    def clear(self, at_most: int) -> bool:
        """Remove so many entries; whether there are more."""
        found = [bytes(where) for where, _ in itertools.islice(_entries(self._txn, self._name), at_most + 1)]
        for where in found[:at_most]:
            self.remove(where)
        return len(found) > at_most

    def _purge(self) -> bool:
        """Remove some entries whose time is over, of whichever plugin; whether there are any."""
        expired: list[bytes] = []
        for end, _ in with_prefix(self._txn, EXPIRY):
            if int.from_bytes(end[1:9]) > self._now or len(expired) == PURGED_AT_ONCE:
                break
            expired.append(DATA + bytes(end[9:]))
        for where in expired if not self._only_try else ():
            self.remove(where)
        return bool(expired)

    def _held(self, where: bytes) -> tuple[int, int] | None:
        """Bytes and expiry of an entry, over or not."""
        found = self._txn.get(where)
        return None if found is None else (len(found) - ENTRY.size, ENTRY.unpack_from(found)[0])

    def _full(self, where: bytes, size: int) -> str | None:
        """Which cap leaves no room for so many bytes there; None where none does."""
        old = self._held(where)
        keys, held = self._counts(self._meta)
        namespaces, _, beyond = self._sums()
        if old is None and keys >= MAX_KEYS:
            return f"the plugin has its {MAX_KEYS} keys already"
        if keys == 0 and namespaces >= MAX_NAMESPACES:
            return f"{MAX_NAMESPACES} plugins have keys already, and no more may"
        before, after = _spill(held), _spill(held + size - (old[0] if old else 0))
        if after > before and beyond - before + after > MAX_BYTES:
            return (
                f"the store has {beyond} bytes of all plugins, and at most {MAX_BYTES}; the first {_own()} of each "
                "plugin do not count"
            )
        return None

    def _counts(self, key: bytes) -> tuple[int, int]:
        found = self._txn.get(key)
        return COUNTS.unpack_from(found) if found is not None else (0, 0)

    def _sums(self) -> tuple[int, int, int]:
        found = self._txn.get(TOTALS)
        return SUMS.unpack_from(found) if found is not None else (0, 0, 0)

    def _account(self, meta: bytes, *, keys: int, size: int) -> None:
        found = self._txn.get(meta)
        count, held = COUNTS.unpack_from(found) if found is not None else (0, 0)
        name = bytes(found[COUNTS.size :]) if found is not None else self._name.encode()
        namespaces, total, beyond = self._sums()
        if count + keys:
            self._txn.put(meta, COUNTS.pack(count + keys, held + size) + name)
        else:
            self._txn.delete(meta)
        namespaces += (count == 0) - (count + keys == 0)
        self._txn.put(TOTALS, SUMS.pack(namespaces, total + size, beyond + _spill(held + size) - _spill(held)))


def key_on_server(namespace: str | None, plugin: str, part: str) -> str:
    """The name of a plugin's keys on a server, where all pods share them (``hookline_runtime.host.kv_scripts``)."""
    return f"hookline:{{{namespace or ''}/{plugin}}}:{part}"


def _own() -> int:
    """Bytes that each namespace has for itself."""
    return MAX_BYTES // (64 * MAX_NAMESPACES)


def _spill(held: int) -> int:
    """What a namespace with so many bytes has of those that all share."""
    return max(0, held - _own())


def _data_key(namespace: str, key: bytes) -> bytes:
    return DATA + _name_hash(namespace) + digest(key)


@functools.lru_cache(maxsize=2 * MAX_NAMESPACES)
def _name_hash(namespace: str) -> bytes:
    return digest(namespace.encode())[:16]


def _entries(txn: lmdb.Transaction, namespace: str) -> Iterator[Pair]:
    return with_prefix(txn, DATA + _name_hash(namespace))


def _listed(txn: lmdb.Transaction, namespace: str, prefix: bytes, after: bytes | None, now: int) -> Iterator[Listed]:
    for _, entry in _entries(txn, namespace):
        expiry, length = ENTRY.unpack_from(entry)
        if 0 < expiry <= now or entry[ENTRY.size : ENTRY.size + min(length, len(prefix))] != prefix:
            continue
        key = bytes(entry[ENTRY.size : ENTRY.size + length])
        if after is None or key > after:
            yield Listed(key, len(entry) - ENTRY.size - length, _left(entry, now))


def _left(entry: bytes | memoryview, now: int) -> int | None:
    (expiry, _) = ENTRY.unpack_from(entry)
    return expiry - now if expiry else None


def _value(entry: bytes | memoryview, now: int) -> bytes | None:
    expiry, length = ENTRY.unpack_from(entry)
    return None if 0 < expiry <= now else bytes(entry[ENTRY.size + length :])


def _now() -> int:
    return time.time_ns() // 1_000_000
