"""The caches over processes: all workers see the same, and one that dies, stops or does damage holds nobody up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hookline_api.abi import E_UNAVAILABLE
from hookline_runtime.host import cache_store
from hookline_runtime.host.cache_store import CacheError, CacheKey, CacheStore
from waiting import PATIENCE_S, until

HOUR = 3_600_000
SIZE = 2**20
_PREAMBLE = """
import hashlib, sys
from pathlib import Path
from hookline_runtime.host.cache_store import CacheError, CacheKey, CacheStore
store = CacheStore(Path(sys.argv[1]))
store.allot({CacheKey("p", "c"): 2**20})
cache = store.cache("p", "c", 2**20)

def value(key):
    size = int(key) % 9 * 1500
    return (hashlib.sha256(key).digest() * (size // 32 + 1))[:size]
"""
_WRITER = """
import itertools
for number in itertools.count(int(sys.argv[2])):
    key = b"%d" % (number % 400)
    try:
        cache.set(key, value(key), 3_600_000, patience=60)
        if number % 7 == 0:
            cache.delete(key, patience=60)
    except CacheError as error:
        if error.code != -6:
            raise
    found = cache.get(b"%d" % (number * 31 % 400))
    assert found in (None, value(b"%d" % (number * 31 % 400))), number
    print(number, flush=True)
"""


def process(script, folder, *arguments, **options):
    """One more process that has the store open."""
    return subprocess.Popen([sys.executable, "-c", _PREAMBLE + script, str(folder), *arguments], **options)


def open_cache(folder):
    """The store and the cache, as the other processes have them."""
    store = CacheStore(folder)
    store.allot({CacheKey("p", "c"): SIZE})
    return store, store.cache("p", "c", SIZE)


def check_books(store):
    """What is counted is what is there, and every page belongs to an entry."""
    with store.env.begin() as txn:
        heads = [bytes(head) for key, head in txn.cursor() if key[:1] == b"d"]
        rests = sum(key[:1] == b"c" for key, _ in txn.cursor())
    read = [cache_store._HEAD.unpack_from(head) for head in heads]
    first = store.page - cache_store._HEAD.size
    assert rests == sum(-(-max(0, length - first) // store.page) for _, length, _ in read)
    usage = store.usage().values()
    assert sum(each.entries for each in usage) == len(heads)
    assert sum(each.size for each in usage) == sum(cost for _, _, cost in read)


def test_what_one_process_stores_all_others_find(tmp_path):
    """At once; and a deletion too."""
    store, cache = open_cache(tmp_path / "cache")
    script = "cache.set(b'k', b'v', 3_600_000); assert cache.delete(b'd'); print(cache.get(b'mine'))"
    cache.set(b"mine", b"from here", HOUR)
    cache.set(b"d", b"", HOUR)
    worker = process(script, tmp_path / "cache", stdout=subprocess.PIPE)
    assert worker.communicate(timeout=PATIENCE_S)[0] == b"b'from here'\n"
    assert cache.get(b"k") == b"v"
    assert not cache.exists(b"d")
    store.close()


def test_a_use_in_one_process_keeps_an_entry_in_all(tmp_path):
    """When it was last used is shared, too."""
    store, cache = open_cache(tmp_path / "cache")
    for number in range(16):
        cache.set(b"%d" % number, bytes(60_000), HOUR)
    worker = process("assert cache.exists(b'0')", tmp_path / "cache")
    assert worker.wait(PATIENCE_S) == 0
    for number in range(16, 30):
        cache.set(b"%d" % number, bytes(60_000), HOUR)
        if number == 20:
            worker = process("assert cache.get(b'0')", tmp_path / "cache")
            assert worker.wait(PATIENCE_S) == 0
    assert cache.exists(b"0")
    assert not cache.exists(b"1")
    store.close()


def test_processes_that_write_at_the_same_time_lose_no_count(tmp_path):
    """Three that store, replace, delete and push out: no value is ever another's or half of one."""
    folder = tmp_path / "cache"
    script = _WRITER.replace("    print", "    if number > int(sys.argv[2]) + 800: break\n    print")
    workers = [process(script, folder, str(100 * number), stdout=subprocess.DEVNULL) for number in range(3)]
    assert [worker.wait(PATIENCE_S) for worker in workers] == [0] * 3
    store, _ = open_cache(folder)
    check_books(store)
    assert 0 < store.usage()["p", "c"].size <= SIZE
    store.close()


def test_a_process_that_is_killed_in_the_middle_of_a_write_leaves_nothing_half_done(tmp_path):
    """Again and again: the books are right, no value is damaged, and the next one goes on with what is there."""
    folder = tmp_path / "cache"
    store, cache = open_cache(folder)
    kept = store.cache("p", "other", SIZE)
    kept.set(b"k", b"v", HOUR)
    for round_ in range(5):
        worker = process(_WRITER, folder, str(round_ * 97), stdout=subprocess.PIPE)
        for _ in range(30 + 13 * round_):
            assert worker.stdout.readline()
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        worker.stdout.close()
        cache.set(b"new %d" % round_, b"v", HOUR, patience=PATIENCE_S)
        check_books(store)
    assert kept.get(b"k") == b"v"
    store.close()


def test_a_process_that_is_killed_inside_a_transaction_holds_nobody_up(tmp_path):
    """Both locks pass to the next writer, and what was begun is gone."""
    script = """
store.writer.take(1)
txn = store.env.begin(write=True)
txn.put(b"d" + cache.identity + bytes(16), bytes(5000))
print("inside", flush=True)
sys.stdin.read()
"""
    worker = process(script, tmp_path / "cache", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert worker.stdout.readline() == b"inside\n"
    store, cache = open_cache(tmp_path / "cache")
    with pytest.raises(CacheError) as refused:
        cache.set(b"k", b"v", HOUR, patience=0.01)
    assert refused.value.code == E_UNAVAILABLE
    worker.kill()
    worker.communicate()
    cache.set(b"k", b"v", HOUR, patience=PATIENCE_S)
    assert cache.get(b"k") == b"v"
    check_books(store)
    store.close()


def test_a_process_that_is_stopped_while_it_writes_stops_nobody(tmp_path):
    """A write is refused soon; what is there is found meanwhile."""
    script = """
import os, signal
cache.set(b"k", b"v", 3_600_000)
store.writer.take(1)
print("inside", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
store.writer.give()
"""
    worker = process(script, tmp_path / "cache", stdout=subprocess.PIPE)
    assert worker.stdout.readline() == b"inside\n"
    until(lambda: Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "it is stopped")
    store, cache = open_cache(tmp_path / "cache")
    with pytest.raises(CacheError) as refused:
        cache.set(b"k", b"new", HOUR, patience=0.01)
    assert refused.value.code == E_UNAVAILABLE
    assert cache.get(b"k") == b"v"
    worker.send_signal(signal.SIGCONT)
    assert worker.wait(PATIENCE_S) == 0
    worker.stdout.close()
    cache.set(b"k", b"new", HOUR, patience=0.01)
    store.close()


def test_a_process_that_is_stopped_while_it_reads_costs_writes_at_the_most(tmp_path):
    """LMDB keeps the pages that it looks at. The file does not grow beyond its bound, and is used again afterwards."""
    script = """
import os, signal
with store.env.begin():
    print("inside", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
"""
    folder = tmp_path / "cache"
    store, cache = open_cache(folder)
    worker = process(script, folder, stdout=subprocess.PIPE)
    assert worker.stdout.readline() == b"inside\n"
    refused = 0
    for number in range(1500):
        try:
            cache.set(b"%d" % (number % 10), bytes(100_000), HOUR)
        except CacheError:
            refused += 1
        if refused > 3:
            break
    assert refused > 3
    assert sum(each.stat().st_size for each in folder.iterdir() if each.name != "lock.mdb") <= cache_store.DEFAULT_LIMIT
    worker.kill()
    worker.communicate()

    def stores() -> bool:
        try:
            cache.set(b"again", bytes(1000), HOUR)
        except CacheError:
            return False
        return True

    until(stores, "what the dead one looked at is used again")
    check_books(store)
    store.close()


def test_a_disk_that_is_full_refuses_writes_alone(tmp_path):
    """What is there is found; and there is room again once the disk has some."""
    script = """
import lmdb, resource, signal
cache.set(b"k", b"v", 3_600_000)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
before = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, before[1]))
refused = 0
for number in range(20):
    try:
        cache.set(b"%d" % number, bytes(10_000), 3_600_000)
    except lmdb.Error:
        refused += 1
assert refused == 20, refused
assert cache.get(b"k") == b"v"
resource.setrlimit(resource.RLIMIT_FSIZE, before)
cache.set(b"again", b"v", 3_600_000)
assert cache.get(b"again") == b"v"
"""
    assert process(script, tmp_path / "cache").wait(PATIENCE_S) == 0
    store, cache = open_cache(tmp_path / "cache")
    assert cache.get(b"again") == b"v"
    check_books(store)
    store.close()


def test_a_process_that_starts_again_finds_what_was_there(tmp_path):
    """A worker that is replaced loses no entry."""
    store, cache = open_cache(tmp_path / "cache")
    cache.set(b"k", bytes(10_000), HOUR)
    store.close()
    store, cache = open_cache(tmp_path / "cache")
    assert cache.get(b"k") == bytes(10_000)
    store.close()


@pytest.mark.parametrize("other", ["boot", "layout", "places"])
def test_what_another_boot_or_version_has_left_is_not_read(tmp_path, monkeypatch, other):
    """Its times mean nothing here."""
    store, cache = open_cache(tmp_path / "cache")
    cache.set(b"k", b"v", HOUR)
    store.close()
    if other == "boot":
        (tmp_path / "boot").write_text("another\n")
        monkeypatch.setattr(cache_store, "_BOOT_ID", tmp_path / "boot")
    elif other == "layout":
        monkeypatch.setattr(cache_store, "_LAYOUT", b"0")
    limit = 2**22 if other == "places" else cache_store.DEFAULT_LIMIT
    store = CacheStore(tmp_path / "cache", limit=limit)
    assert store.usage() == {}
    assert store.cache("p", "c", SIZE).get(b"k") is None
    store.close()


@pytest.mark.parametrize("damage", ["garbage", "zeros", "short", "cut in half", "cut at the end", "zero pages"])
def test_a_damaged_store_is_set_aside_and_a_new_one_runs(tmp_path, damage, caplog):
    """Hooks go on without what was in it, and reading beyond a file's end kills nobody."""
    folder = tmp_path / "cache"
    store, cache = open_cache(folder)
    for number in range(100):
        cache.set(b"%d" % number, os.urandom(3000), HOUR)
    store.close()
    file = folder / "data.mdb"
    whole = file.read_bytes()
    file.write_bytes({
        "garbage": os.urandom(len(whole)), "zeros": bytes(len(whole)), "short": whole[:100],
        "cut in half": whole[: len(whole) // 2], "cut at the end": whole[: -32 * 4096],
        "zero pages": whole[:8192] + bytes(len(whole) - 8192),
    }[damage])  # fmt: skip
    damaged = file.read_bytes()
    store, cache = open_cache(folder)
    assert cache.get(b"1") is None
    cache.set(b"1", b"new", HOUR)
    assert cache.get(b"1") == b"new"
    store.close()
    assert (tmp_path / "cache.damaged" / "data.mdb").read_bytes() == damaged
    assert "the store of the caches does not open" in caplog.text


def test_several_processes_that_find_a_damaged_store_end_up_with_the_same_new_one(tmp_path):
    """None sets aside what another has just made."""
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "data.mdb").write_bytes(b"\xff" * 100_000)
    script = "cache.set(sys.argv[2].encode(), b'v', 3_600_000, patience=60)"
    workers = [process(script, folder, str(number), stderr=subprocess.DEVNULL) for number in range(4)]
    assert [worker.wait(PATIENCE_S) for worker in workers] == [0] * 4
    store, cache = open_cache(folder)
    assert [cache.get(b"%d" % number) for number in range(4)] == [b"v"] * 4
    store.close()
