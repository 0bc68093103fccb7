"""The file of the key-value store: how it is laid out, how it is opened, and who may write.

LMDB's own lock for writers is waited for without end, so a process that is stopped while it writes (SIGSTOP, a frozen
cgroup) would stop all others at their next write. Whoever writes therefore takes a lock of this module first, which
is waited for as long as the caller can afford. The kernel gives it back when its process dies.

LMDB's layout, by the first byte of a key::

    t                        totals: namespaces, bytes, bytes beyond what each namespace has for itself
    n NAMESPACE              keys and bytes of a namespace, and its name
    d NAMESPACE KEY          an entry: its expiry, the length of its key, key and value
    x EXPIRY NAMESPACE KEY   for each entry with an end: nothing; so those that are over come first
    r NAMESPACE              what ``kv_initial`` remembers

NAMESPACE and KEY are hashes, because LMDB's own keys end at 511 bytes and a guest's may have 64 KiB.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import lmdb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MAP_SIZE: Final = 4 * 64 * 2**20
"""Bytes of the file at the most: the data's own bound, copy-on-write pages and fragments. It grows as far as used."""
_OPTIONS: Final[dict[str, Any]] = {"sync": False, "metasync": False, "max_readers": 1024, "mode": 0o600}

TOTALS: Final = b"t"
NAMESPACE: Final = b"n"
DATA: Final = b"d"
EXPIRY: Final = b"x"
RECORD: Final = b"r"
ENTRY: Final = struct.Struct("<QI")
"""Of an entry: expiry in ms since 1970 (0: none), length of the key."""
COUNTS: Final = struct.Struct("<QQ")
"""Of a namespace: keys, bytes."""
SUMS: Final = struct.Struct("<QQQ")
"""Of all: namespaces, bytes, bytes beyond the namespaces' own. Without the third, it is of an older version."""

_TRY: Final = fcntl.LOCK_EX | fcntl.LOCK_NB
_TRIED_BYTES: Final = 4 * 2**20
_POLL_FIRST_S: Final = 0.00005
_POLL_LAST_S: Final = 0.002
"""How often who waits looks again: mostly, a writer is done within some tens of microseconds."""

log = logging.getLogger("hookline.kv")

Pair = tuple[bytes | memoryview, bytes | memoryview]


class BusyError(Exception):
    """Somebody else writes, and has not ended in time."""


class WriterLock:
    """Who has it may write. For all threads of all processes that have opened the same folder."""

    def __init__(self, folder: Path) -> None:
        self._mine = threading.Lock()
        self._file = os.open(folder / "writer.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def close(self) -> None:
        """Give the file back; nobody may have the lock, or want it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def take(self, patience: float) -> None:
        """Have it, after at most that many seconds, until ``give``. Raises BusyError."""
        if not self._mine.acquire(timeout=patience):
            raise BusyError
        try:
            fcntl.flock(self._file, _TRY)
        except BlockingIOError:
            try:
                self._wait(patience)
            except BaseException:
                self._mine.release()
                raise

    def give(self) -> None:
        """Give it back."""
        fcntl.flock(self._file, fcntl.LOCK_UN)
        self._mine.release()

    def _wait(self, patience: float) -> None:
        end, pause = time.monotonic() + patience, _POLL_FIRST_S
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(pause, left))
            pause = min(2 * pause, _POLL_LAST_S)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._file, _TRY)
                return
        raise BusyError


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time: who finds a store damaged must not set aside what another has just made anew."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def open_or_set_aside(folder: Path, what: str, *, map_size: int = MAP_SIZE) -> lmdb.Environment:
    """The environment, or a new one where it does not open; ``what`` it is, for the log. To be ``alone``.

    A damaged store must not keep the hooks from running. What was in it is set aside, not deleted.
    """
    try:
        return open_environment(folder, map_size=map_size)
    except lmdb.Error as error:
        set_aside(folder, what, error)
        return open_environment(folder, map_size=map_size)


def set_aside(folder: Path, what: str, why: Exception) -> None:
    """Let a damaged store make way. To be ``alone``, and nobody here has it open."""
    aside = folder.with_name(f"{folder.name}.damaged")
    log.warning("the %s does not open (%s); set aside as %s", what, why, aside)
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)


def open_environment(folder: Path, *, map_size: int = MAP_SIZE) -> lmdb.Environment:
    """The environment; raises lmdb.Error where it is damaged. To be ``alone``."""
    folder.mkdir(exist_ok=True, mode=0o700)
    environment = lmdb.open(str(folder), map_size=map_size, **_OPTIONS)
    pages, page = environment.info()["last_pgno"] + 1, environment.stat()["psize"]
    if pages * page > (folder / "data.mdb").stat().st_size:
        # Cut off, it seems; but the last pages may also be free ones that were never written. Reading beyond a
        # file's end kills the process, so another one tries.
        environment.close()
        reader = [sys.executable, "-m", __name__, str(folder), str(map_size)]
        tried = subprocess.run(reader, check=False, stderr=subprocess.DEVNULL)  # noqa: S603 - our own interpreter
        if tried.returncode != 0:
            raise lmdb.CorruptedError(f"{folder}: the file is cut off")
        environment = lmdb.open(str(folder), map_size=map_size, **_OPTIONS)
    try:
        with environment.begin() as txn:
            txn.get(TOTALS)
    except lmdb.Error:
        environment.close()
        raise
    return environment


def bring_up_to_date(environment: lmdb.Environment, spill: Callable[[int], int]) -> None:
    """Make what an older version did not keep: the third of the sums, by ``spill`` of each, and the index of ends."""
    with environment.begin() as txn:
        if len(txn.get(TOTALS) or bytes(SUMS.size)) >= SUMS.size:
            return
    with environment.begin(write=True, buffers=True) as txn:
        namespaces, total = COUNTS.unpack_from(txn.get(TOTALS) or b"")
        beyond = sum(spill(COUNTS.unpack_from(counts)[1]) for _, counts in with_prefix(txn, NAMESPACE))
        ends = [
            end_key(ENTRY.unpack_from(entry)[0], bytes(where))
            for where, entry in with_prefix(txn, DATA)
            if ENTRY.unpack_from(entry)[0]
        ]
        for key in ends:
            txn.put(key, b"")
        txn.put(TOTALS, SUMS.pack(namespaces, total, beyond))


def digest(data: bytes) -> bytes:
    """What stands for a name or a key."""
    return hashlib.sha256(data).digest()


def end_key(expiry: int, where: bytes) -> bytes:
    """Where the index has an entry that is at ``where`` and ends then."""
    return EXPIRY + expiry.to_bytes(8) + where[len(DATA) :]


def with_prefix(txn: lmdb.Transaction, prefix: bytes) -> Iterator[Pair]:
    """Everything whose key begins so."""
    with txn.cursor() as cursor:
        if cursor.set_range(prefix):
            for key, entry in cursor:
                if bytes(key[: len(prefix)]) != prefix:
                    return
                yield key, entry


def _try_out(folder: str, map_size: int) -> None:
    """Touch every entry, and look for free pages; the process dies where a page is not there."""
    with lmdb.open(folder, map_size=map_size) as environment, environment.begin(write=True, buffers=True) as txn:
        for _, entry in txn.cursor():
            bytes(entry)
        with contextlib.suppress(lmdb.MapFullError):
            txn.put(TOTALS, bytes(_TRIED_BYTES))
        txn.abort()


if __name__ == "__main__":
    _try_out(sys.argv[1], int(sys.argv[2]))
