"""The plugins' caches in memory: one LMDB environment, shared by all workers of a pod, beside the key-value store's.

What holds for that one (``hookline_runtime.host.kv``) holds here: one writer at a time across processes, readers that
never wait, and a worker that dies leaves nothing half done. What differs is that nothing here has to be kept:

- Each cache has a share of the pod's bytes, and makes room by dropping what is its own: what is over, then what was
  used least recently of a few entries that are looked at (``SAMPLE``; of all, in a cache that has no more). So no
  plugin's cache takes anything of another's. Where all caches together want more than there is, all get less.
- When an entry was last used is not in LMDB: a hit must not be a transaction. It is a number in a shared file, at a
  place that follows from the entry's key. Two entries that meet there are both as fresh as the fresher one.
- A write that finds others writing gives up soon, and one that has to drop much drops so much and is refused: nobody
  waits for a cache for long.

LMDB's layout, by the first byte of a key::

    h                    what made the file: this layout's number, the machine's boot, places, and the salt of hashes
    n CACHE              entries and bytes of a cache, its plugin's name and its own
    d CACHE KEY          an entry: expiry, length and cost, and how its value begins
    c CACHE KEY NUMBER   the rest of the value, a page at a time

CACHE and KEY are hashes with a salt that no guest knows, so that entries are spread evenly and none can be found by
trying. Longer values are cut into pages because LMDB looks for pages that lie side by side, and in a file that is full
of holes it looks for long. Times are of the clock that no one sets (``CLOCK_MONOTONIC``). Entries come and go until
pages are less than half full: the file has 2.6 times their bytes at the most, measured for all sizes, and may have 3.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import mmap
import os
import shutil
import struct
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import lmdb

from hookline_api.abi import E_CAP, E_SIZE, E_UNAVAILABLE
from hookline_runtime.host.arguments import CodeError
from hookline_runtime.host.kv_file import (
    COUNTS,
    BusyError,
    WriterLock,
    alone,
    open_or_set_aside,
    set_aside,
    with_prefix,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_KEY: Final = 64 * 1024
MAX_VALUE: Final = 2**20
"""Bytes; in a small cache a quarter of its size."""
LEAST_COST: Final = 256
"""Bytes that an entry counts as at the least: so the number of entries is bounded too."""
DEFAULT_LIMIT: Final = 64 * 2**20
"""Bytes of the file at the most."""
LEAST_LIMIT: Final = 4 * 2**20
SAMPLE: Final = 16
"""Entries that are looked at for one that makes way; Redis looks at 5 (maxmemory-samples)."""
WORK: Final = 256
"""Pages and entries that one transaction drops: a millisecond or two of the writers' time."""
PATIENCE_S: Final = 0.05
"""How long a write waits for others: a cache is not worth more, and the worker's other calls wait with it."""

_EMPTY: Final = 2**20
"""Bytes of the files while there is nothing in them, and some pages more."""

_WHAT: Final = "store of the caches"
_LAYOUT: Final = b"1"
_HEADER: Final = b"h"
_CACHE: Final = b"n"
_ENTRY: Final = b"d"
_REST: Final = b"c"
_HEAD: Final = struct.Struct("<QII")
"""Of an entry: when it ends (ns), bytes of its value, what it counts as."""
_ID: Final = 8
_HASH: Final = 16
_SALT: Final = 32
_PAGE_HEADER: Final = 16
"""Bytes that LMDB keeps of a page."""
_NEVER: Final = 2**63
_PAUSE_S: Final = 0.001
_PLACE: Final = 8
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

log = logging.getLogger("hookline.cache")


def file_size(wanted: int, limit: int) -> int:
    """Bytes that the files come to have at the most, for caches that want so many together."""
    return min(limit, wanted * 16 // 5 + _EMPTY) if wanted else 0


class CacheError(CodeError):
    """A refused operation; ``code`` is one of the guest ABI's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code)
        self.message = message

    def __str__(self) -> str:
        return self.message


class CacheKey(NamedTuple):
    """Which cache."""

    plugin: str
    name: str


class Usage(NamedTuple):
    """What a cache has."""

    entries: int
    size: int
    """Bytes, as they count."""


class CacheStore:
    """All plugins' caches. Made after a fork, one per process; all methods may be called from any thread.

    All processes that open the same folder give the same ``limit``: bytes of its files together.
    """

    def __init__(self, folder: Path, *, limit: int = DEFAULT_LIMIT) -> None:
        self.folder = folder
        limit = max(limit, LEAST_LIMIT) // 16
        self.room = 5 * limit
        """Bytes of all entries together: a third of the file."""
        self._shares: dict[bytes, int] = {}
        places = 1 << (2 * self.room // LEAST_COST).bit_length()  # at most a sixteenth, too
        with alone(folder):
            self.env, header = _open(folder, 15 * limit // mmap.PAGESIZE * mmap.PAGESIZE, places)
        self.salt = header[-_SALT:]
        self.page = self.env.stat()["psize"] - _PAGE_HEADER
        """Bytes that fit into a page of LMDB's own."""
        self.mask = places - 1
        self._mapping = threading.Lock()
        self._memory: mmap.mmap | None = None
        self._used: memoryview | None = None
        self.writer = WriterLock(folder)
        self.env.reader_check()

    def close(self) -> None:
        """Close the environment; nothing may be under way."""
        self.env.close()
        self.writer.close()
        if self._used is not None and self._memory is not None:
            self._used.release()
            self._memory.close()

    @property
    def used(self) -> memoryview:
        """When what is at each place was last used, in ns. It takes memory from the first time that it is asked for."""
        with self._mapping:
            if self._used is None:
                self._memory = _map(self.folder / "used", (self.mask + 1) * _PLACE)
                self._used = memoryview(self._memory).cast("Q")
            return self._used

    def cache(self, plugin: str, name: str, size: int) -> PodCache:
        """One cache, which wants so many bytes."""
        return PodCache(self, CacheKey(plugin, name), size)

    def allot(self, sizes: Mapping[CacheKey, int]) -> None:
        """Share the room among these, by what they want. What a cache has beyond that goes with its next writes."""
        wanted = sum(sizes.values())
        self._shares = {
            self.identify(key): size if wanted <= self.room else size * self.room // wanted
            for key, size in sizes.items()
        }

    def share(self, identity: bytes, size: int) -> int:
        """Bytes that a cache may have. Before anything was allotted to it, that is little."""
        share = self._shares.get(identity)
        return min(size, self.room // 64) if share is None else share

    def identify(self, key: CacheKey) -> bytes:
        """What stands for a cache."""
        return self.hasher(key, _ID).digest()

    def hasher(self, key: CacheKey, size: int) -> hashlib.blake2b:
        """A hash that has been given the cache, for ``size`` bytes."""
        return hashlib.blake2b(f"{key.plugin}\0{key.name}\0".encode(), digest_size=size, key=self.salt)

    def usage(self) -> dict[CacheKey, Usage]:
        """Of each cache that has entries."""
        with self.env.begin() as txn:
            return {
                _key_of(counts): Usage(*COUNTS.unpack_from(counts))
                for _, counts in with_prefix(txn, _CACHE)
            }  # fmt: skip

    def tidy(self, sizes: Mapping[CacheKey, int]) -> None:
        """``allot``; then drop the caches that are not among these, and what others have too much. Raises nothing.

        It takes its time, so that others can write meanwhile: for a thread.
        """
        self.allot(sizes)
        try:
            for key in self.usage():
                cache = self.cache(*key, size=sizes.get(key, 0))
                while cache.shrink(0 if key not in sizes else self.share(cache.identity, cache.size)):
                    time.sleep(_PAUSE_S)
        except (lmdb.Error, CacheError) as error:
            log.warning("the caches cannot be tidied: %s", error)


class PodCache:
    """One cache of one plugin, in the store of the pod."""

    def __init__(self, store: CacheStore, key: CacheKey, size: int) -> None:
        self.size = size
        """Bytes that it wants."""
        self.identity = store.identify(key)
        self._key = key
        self._store = store
        self._env = store.env
        self._used = store.used
        self._mask = store.mask
        self._hasher = store.hasher(key, _HASH)
        self._entries = _ENTRY + self.identity
        self._counts = _CACHE + self.identity
        self._first = store.page - _HEAD.size
        """Bytes of a value that are beside its head."""
        self._most = min(size // 4, MAX_VALUE)

    def get(self, key: bytes) -> bytes | None:
        """The value, or None where there is none or its time is over."""
        where = self._where(key)
        now = time.monotonic_ns()
        with self._env.begin(buffers=True) as txn:
            head = txn.get(where)
            if head is None:
                return None
            expiry, length, _ = _HEAD.unpack_from(head)
            if expiry <= now:
                return None
            value = bytes(head[_HEAD.size :]) if length <= self._first else self._whole(txn, where, head)
        self._touch(where, now)
        return value

    def exists(self, key: bytes) -> bool:
        """Whether ``get`` would find something; it counts as a use."""
        where = self._where(key)
        now = time.monotonic_ns()
        with self._env.begin(buffers=True) as txn:
            head = txn.get(where)
            found = head is not None and _HEAD.unpack_from(head)[0] > now
        if found:
            self._touch(where, now)
        return found

    def set(self, key: bytes, value: bytes, ttl_ms: int, *, patience: float = PATIENCE_S) -> None:
        """Store for so long, 1 ms and more, and drop what has to make way.

        Raises CacheError: E_SIZE for a key or value that is too large, E_CAP where what has to make way for it is too
        much for one write (some of it has: another try gets further) or its share is too small for it, and
        E_UNAVAILABLE where others have been writing for ``patience`` seconds.
        """
        if len(key) > MAX_KEY or len(value) > self._most:
            raise CacheError(E_SIZE, f"a key has at most {MAX_KEY} bytes, and a value of this cache {self._most}")
        cost, share = max(len(key) + len(value), LEAST_COST), self._store.share(self.identity, self.size)
        if cost > share:
            raise CacheError(E_CAP, f"the entry has {cost} bytes, and the cache has {share} now")
        where, now = self._where(key), time.monotonic_ns()
        expiry = min(now + ttl_ms * 1_000_000, _NEVER)
        self._take(patience)
        try:
            with self._env.begin(write=True, buffers=True) as txn:
                books = _Books(txn, self._counts, self._key)
                self._remove(txn, where, books)
                self._make_room(txn, share - cost, books)
                done = books.size + cost <= share
                if done:
                    self._touch(where, now)
                    self._put(txn, where, _HEAD.pack(expiry, len(value), cost), value)
                    books.add(cost)
                books.write()
        except lmdb.MapFullError:
            done = False
            self._make_pages(cost)
        finally:
            self._store.writer.give()
        if not done:
            raise CacheError(E_CAP, "more would have to make way than one write may drop")

    def delete(self, key: bytes, *, patience: float = PATIENCE_S) -> bool:
        """Remove; whether it was there. Raises CacheError where nobody may write within ``patience`` seconds."""
        where, now = self._where(key), time.monotonic_ns()
        with self._env.begin(buffers=True) as txn:
            if txn.get(where) is None:
                return False
        self._take(patience)
        try:
            with self._env.begin(write=True, buffers=True) as txn:
                books = _Books(txn, self._counts, self._key)
                expiry = self._remove(txn, where, books)
                books.write()
        finally:
            self._store.writer.give()
        return expiry > now

    def shrink(self, size: int) -> bool:
        """Drop some entries, where it has more bytes; whether there is more to drop. Raises CacheError."""
        with self._env.begin() as txn:
            if _Books(txn, self._counts, self._key).size <= size:
                return False
        self._take(1.0)
        try:
            with self._env.begin(write=True, buffers=True) as txn:
                books = _Books(txn, self._counts, self._key)
                dropped = self._make_room(txn, size, books)
                books.write()
        finally:
            self._store.writer.give()
        return dropped > 0 and books.size > size

    def _where(self, key: bytes) -> bytes:
        hasher = self._hasher.copy()
        hasher.update(key)
        return self._entries + hasher.digest()

    def _place(self, where: bytes) -> int:
        return int.from_bytes(where[-_PLACE:]) & self._mask

    def _touch(self, where: bytes, now: int) -> None:
        self._used[self._place(where)] = now

    def _take(self, patience: float) -> None:
        try:
            self._store.writer.take(patience)
        except BusyError:
            raise CacheError(E_UNAVAILABLE, f"another process has been writing for {patience:g} s") from None

    def _whole(self, txn: lmdb.Transaction, where: bytes, head: memoryview) -> bytes | None:
        parts: list[bytes | memoryview] = [head[_HEAD.size :]]
        for rest in self._rests(where, _HEAD.unpack_from(head)[1]):
            part = txn.get(rest)
            if part is None:
                return None
            parts.append(part)
        return b"".join(parts)

    def _rests(self, where: bytes, length: int) -> Iterator[bytes]:
        """Where what follows the beginning of a value of that length is."""
        count = -(-max(0, min(length, MAX_VALUE) - self._first) // self._store.page)
        return (_REST + where[1:] + number.to_bytes(2) for number in range(count))

    def _put(self, txn: lmdb.Transaction, where: bytes, head: bytes, value: bytes) -> None:
        view, page = memoryview(value), self._store.page
        txn.put(where, head + view[: self._first])
        for number, rest in enumerate(self._rests(where, len(value))):
            begin = self._first + number * page
            txn.put(rest, view[begin : begin + page])

    def _remove(self, txn: lmdb.Transaction, where: bytes, books: _Books) -> int:
        """Remove what is there; when it would have ended, 0 where there is nothing."""
        head = txn.get(where)
        if head is None:
            return 0
        expiry, length, cost = _HEAD.unpack_from(head)
        rests = list(self._rests(where, length))
        txn.delete(where)
        for rest in rests:
            txn.delete(rest)
        books.remove(cost, pages=1 + len(rests))
        return int(expiry)

    def _make_room(self, txn: lmdb.Transaction, size: int, books: _Books) -> int:
        """Drop what is over, then what was used least recently; the number of entries dropped.

        It ends where the cache has no more than ``size`` bytes, or ``WORK`` is done.
        """
        before: int = books.entries
        while books.size > size and books.work < WORK:
            sampled = self._sample(txn)
            if not sampled:  # the counts are wrong: a defect, which must not last
                books.entries = books.size = 0
                break
            keep = 0 if len(sampled) < SAMPLE else SAMPLE // 2
            for _, where in sampled[: len(sampled) - keep]:
                self._remove(txn, where, books)
                if books.size <= size or books.work >= WORK:
                    break
        return before - books.entries

    def _make_pages(self, size: int) -> None:
        """The file is full, although the shares leave a reserve: somebody has been reading for long, or died so.

        LMDB needs pages to give some back, and there may be none: then nothing happens, but that the write is refused.
        """
        self._env.reader_check()
        with contextlib.suppress(lmdb.MapFullError), self._env.begin(write=True, buffers=True) as txn:
            books = _Books(txn, self._counts, self._key)
            self._make_room(txn, max(0, books.size - 2 * size), books)
            books.write()

    def _sample(self, txn: lmdb.Transaction) -> list[tuple[int, bytes]]:
        """Some entries, those first that may go first; all of them, where they are few."""
        now = time.monotonic_ns()
        found: list[tuple[int, bytes]] = []
        start = self._entries + os.urandom(_HASH)
        with txn.cursor() as cursor:
            for begin, end in ((start, None), (self._entries, start)):
                for where, head in cursor.iternext() if cursor.set_range(begin) else ():
                    at = bytes(where)
                    if not at.startswith(self._entries) or (end is not None and at >= end) or len(found) == SAMPLE:
                        break
                    is_over = _HEAD.unpack_from(head)[0] <= now
                    found.append((0 if is_over else self._used[self._place(at)], at))
        return sorted(found)


class _Books:
    """What a cache has, as a transaction sees and changes it."""

    def __init__(self, txn: lmdb.Transaction, where: bytes, key: CacheKey) -> None:
        self._txn = txn
        self._at = where
        self._key = key
        found = txn.get(where)
        counts: tuple[int, int] = COUNTS.unpack_from(found) if found is not None else (0, 0)
        self.entries, self.size = counts
        self.work = 0
        """Pages and entries that were dropped."""

    def add(self, cost: int) -> None:
        """Count an entry."""
        self.entries += 1
        self.size += cost

    def remove(self, cost: int, *, pages: int) -> None:
        """Count one less."""
        self.entries = max(0, self.entries - 1)
        self.size = max(0, self.size - cost)
        self.work += pages

    def write(self) -> None:
        """Write it down; nothing, where there is nothing."""
        if self.entries:
            name = f"{self._key.plugin}\0{self._key.name}".encode()
            self._txn.put(self._at, COUNTS.pack(self.entries, self.size) + name)
        else:
            self._txn.delete(self._at)


def _key_of(counts: bytes | memoryview) -> CacheKey:
    return CacheKey(*bytes(counts[COUNTS.size :]).decode().split("\0", 1))


def _open(folder: Path, limit: int, places: int) -> tuple[lmdb.Environment, bytes]:
    """The environment and its header. One of another boot, whose times mean nothing, or another layout is emptied."""
    try:
        boot = _BOOT_ID.read_bytes().strip()
    except OSError:
        boot = b""
    made = b"%s %s %d " % (_LAYOUT, boot, places)
    while True:
        env = open_or_set_aside(folder, _WHAT, map_size=limit)
        try:
            header = _header(env, made)
        except lmdb.Error as error:
            env.close()
            set_aside(folder, _WHAT, error)
            continue
        if header[:-_SALT] == made:
            return env, header
        env.close()
        shutil.rmtree(folder)


def _header(env: lmdb.Environment, made: bytes) -> bytes:
    """What is there, or is made for a new file. Raises lmdb.Error where it is damaged."""
    # DANGER: LMDB's own lock is waited for without end, and a process that is stopped may have it. So nothing is
    # written where there is a header; and where there is none, nobody else writes yet.
    with env.begin() as txn:
        found = txn.get(_HEADER)
        if found is not None:
            return bytes(found)
        if txn.stat()["entries"]:
            raise lmdb.CorruptedError("it has no header")
    with env.begin(write=True) as txn:
        header = made + os.urandom(_SALT)
        txn.put(_HEADER, header)
        return header


def _map(file: Path, size: int) -> mmap.mmap:
    """A file in memory; where there is no room for it, memory of this process alone."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # DANGER: whoever touches a page that the file system has no room for is killed.
        os.posix_fallocate(descriptor, 0, size)
        return mmap.mmap(descriptor, size)
    except OSError as error:
        log.warning(
            "%s: %s; each worker drops from the plugins' caches what it uses least itself", file, error.strerror
        )
        return mmap.mmap(-1, size)
    finally:
        os.close(descriptor)
