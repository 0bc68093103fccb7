"""The caches in a pod's memory: what was used least goes first, nothing outlives its time, and all bounds hold."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random

import pytest

from hookline_api.abi import E_CAP, E_SIZE, E_UNAVAILABLE
from hookline_runtime.host import kv_file
from hookline_runtime.host.cache_store import (
    LEAST_COST,
    MAX_KEY,
    MAX_VALUE,
    WORK,
    CacheError,
    CacheKey,
    CacheStore,
    file_size,
)
from waiting import until

SMALL = 64 * 1024
HOUR = 3_600_000


@pytest.fixture
def cache(store):
    """A cache of 64 KiB."""
    store.allot({CacheKey("p", "c"): SMALL})
    return store.cache("p", "c", SMALL)


def apart(cache, count):
    """Keys whose times of use are at places of their own."""
    found = {}
    for number in range(10 * count):
        key = b"key %d" % number
        found.setdefault(cache._place(cache._where(key)), key)
    return list(found.values())[:count]


def code(operation, *arguments, **options):
    """Why an operation is refused."""
    with pytest.raises(CacheError) as refused:
        operation(*arguments, **options)
    assert str(refused.value)
    return refused.value.code


@pytest.mark.parametrize("size", [0, 1, 2030, 4064, 4065, 8144, 8145, 100_000, MAX_VALUE])
def test_a_value_of_any_size_comes_back_whole(store, size):
    """Also where it is cut into pages, and with another in its place that is shorter or longer."""
    cache = store.cache("p", "c", 16 * 2**20)
    store.allot({CacheKey("p", "c"): 16 * 2**20})
    for length in (size, MAX_VALUE, size, 10, size):
        value = os.urandom(length)
        cache.set(b"k", value, HOUR)
        assert cache.get(b"k") == value
        assert cache.exists(b"k")
        assert store.usage() == {("p", "c"): (1, max(LEAST_COST, length + 1))}
    assert cache.delete(b"k")
    assert not cache.delete(b"k")
    assert cache.get(b"k") is None
    assert store.usage() == {}
    with store.env.begin() as txn:
        assert txn.stat()["entries"] == 1  # the header: no page of a value is left behind


def test_the_least_recently_used_goes_first(cache):
    """Exactly so in a cache with few entries: reading one, or asking for it, is a use."""
    keys = apart(cache, 9)
    for key in keys[:7]:
        cache.set(key, bytes(8 * 1024), HOUR)
    assert cache.get(keys[0])
    assert cache.exists(keys[2])
    assert cache.get(b"another") is None
    for key in keys[7:]:
        cache.set(key, bytes(8 * 1024), HOUR)
    assert [key for key in keys if cache.exists(key)] == [keys[0], keys[2], *keys[4:]]


def test_of_many_entries_those_in_use_stay(store):
    """Few are looked at for one that makes way; but what is used between two writes is never the oldest of them."""
    store.allot({CacheKey("p", "c"): 2**20})
    cache = store.cache("p", "c", 2**20)
    hot = [b"hot %d" % number for number in range(50)]
    for key in hot:
        cache.set(key, bytes(500), HOUR)
    for number in range(6000):
        cache.set(b"cold %d" % number, bytes(500), HOUR)
        cache.get(hot[number % 50])
    assert all(cache.exists(key) for key in hot)
    cold = [number for number in range(6000) if cache.exists(b"cold %d" % number)]
    assert sum(cold) / len(cold) > 4500  # mostly the newer half of them


def test_an_entry_ends_with_its_time(cache, store):
    """It is not found any more, whoever asks; and goes before any other where room is needed."""
    cache.set(b"short", bytes(8 * 1024), 1)
    until(lambda: cache.get(b"short") is None, "its time is over")
    assert not cache.exists(b"short")
    assert store.usage()["p", "c"].entries == 1
    for number in range(6):
        cache.set(b"%d" % number, bytes(8 * 1024), HOUR)
    cache.set(b"short", bytes(8 * 1024), 1)
    until(lambda: not cache.exists(b"short"), "its time is over")
    cache.set(b"last", bytes(8 * 1024), HOUR)
    assert all(cache.exists(b"%d" % number) for number in range(6))
    cache.set(b"short", b"v", 1)
    until(lambda: not cache.exists(b"short"), "its time is over")
    assert not cache.delete(b"short")


def test_a_time_beyond_all_numbers_is_a_long_one(cache):
    """The clock's own numbers end somewhere."""
    cache.set(b"k", b"v", 2**63)
    assert cache.get(b"k") == b"v"


def test_no_cache_takes_anything_of_another(store):
    """Not of the same plugin, and not of one with the same name."""
    keys = [CacheKey("a", "c"), CacheKey("a", "d"), CacheKey("ab", "c"), CacheKey("b", "c")]
    store.allot(dict.fromkeys(keys, SMALL))
    caches = {key: store.cache(*key, SMALL) for key in keys}
    for key, cache in caches.items():
        for number in range(10):
            cache.set(b"%d" % number, repr(key).encode(), HOUR)
    for number in range(2000):
        caches["b", "c"].set(b"n%d" % number, bytes(1000), HOUR)
    for key in keys[:3]:
        assert [caches[key].get(b"%d" % number) for number in range(10)] == [repr(key).encode()] * 10
    assert store.usage()["b", "c"].size <= SMALL


def test_what_is_too_large_is_refused(cache, store):
    """A key of more than 64 KiB, a value of more than a quarter of the cache or 1 MiB, an entry beyond its share."""
    assert code(cache.set, bytes(MAX_KEY + 1), b"v", HOUR) == E_SIZE
    assert code(cache.set, b"k", bytes(SMALL // 4 + 1), HOUR) == E_SIZE
    assert code(cache.set, bytes(MAX_KEY), b"v", HOUR) == E_CAP
    cache.set(b"k", bytes(SMALL // 4), HOUR)
    large = store.cache("p", "large", 2**30)
    assert code(large.set, b"k", bytes(MAX_VALUE + 1), HOUR) == E_SIZE


def test_the_number_of_entries_is_bounded_too(cache, store):
    """An entry of nothing counts as 256 bytes."""
    for number in range(2000):
        cache.set(b"%d" % number, b"", HOUR)
    assert store.usage()["p", "c"] == (SMALL // LEAST_COST, SMALL)


def test_a_write_drops_a_bounded_number_of_entries(store):
    """One for which more would have to go is refused; what has gone is gone, and so another try gets further."""
    store.allot({CacheKey("p", "c"): 4 * 2**20})
    cache = store.cache("p", "c", 4 * 2**20)
    for number in range(4 * 2**20 // LEAST_COST):
        cache.set(b"%d" % number, b"", HOUR)
    before = store.usage()["p", "c"].entries
    assert code(cache.set, b"large", bytes(MAX_VALUE), HOUR) == E_CAP
    after = store.usage()["p", "c"].entries
    assert 0 < before - after <= WORK
    tries = -(-(MAX_VALUE + 5) // (WORK * LEAST_COST)) - 2
    assert [code(cache.set, b"large", bytes(MAX_VALUE), HOUR) for _ in range(tries)] == [E_CAP] * tries
    cache.set(b"large", bytes(MAX_VALUE), HOUR)
    assert cache.get(b"large") == bytes(MAX_VALUE)


@pytest.mark.parametrize("sizes", [(256,), (300,), (1000,), (2041,), (10, 300, 2041, 4065, 9000, 70_000)])
def test_the_files_stay_within_the_limit(tmp_path, sizes):
    """Whatever the values' sizes are, and however much comes and goes: and no write is refused for want of pages."""
    limit = 4 * 2**20
    store = CacheStore(tmp_path / "cache", limit=limit)
    store.allot({CacheKey("p", "c"): 2**30})
    cache = store.cache("p", "c", 2**30)
    random_, written = random.Random(7), 0
    while written < 12 * 2**20:
        value = bytes(random_.choice(sizes))
        written += max(len(value), LEAST_COST)
        cache.set(b"%d" % random_.randrange(10**9), value, HOUR)
    assert store.usage()["p", "c"].size <= store.room
    files = sum(each.stat().st_size for each in (tmp_path / "cache").iterdir() if each.name != "lock.mdb")
    assert store.room < files <= limit
    assert file_size(2**30, limit) == limit
    store.close()


def test_the_file_has_what_a_plan_counts_for_caches_that_are_smaller(tmp_path):
    """A pod whose caches are small gives no memory for large ones."""
    store = CacheStore(tmp_path / "cache")
    store.allot({CacheKey("p", "c"): 2**20})
    cache = store.cache("p", "c", 2**20)
    for number in range(30_000):
        cache.set(b"%d" % number, bytes(300), HOUR)
    blocks = sum(each.stat().st_blocks * 512 for each in (tmp_path / "cache").iterdir())
    # What the times of use take of their file depends on how many places are ever used.
    assert blocks <= file_size(2**20, store.room) + (tmp_path / "cache" / "used").stat().st_size
    assert file_size(0, store.room) == 0
    store.close()


def test_a_file_that_is_full_all_the_same_refuses_writes_and_goes_on(tmp_path):
    """Nothing breaks: what is there can be read, and some of it makes way for what comes."""
    store = CacheStore(tmp_path / "cache", limit=4 * 2**20)
    store.room *= 100  # a defect
    store.allot({CacheKey("p", "c"): 2**30})
    cache = store.cache("p", "c", 2**30)
    refusals, stored, later = [], {}, 0
    for number in range(4000):
        key, value = b"%d" % number, os.urandom(2100)
        try:
            cache.set(key, value, HOUR)
        except CacheError as error:
            refusals.append(error.code)
        else:
            stored[key] = value
            later += bool(refusals)
    assert set(refusals) == {E_CAP}
    assert later > 100
    found = {key: cache.get(key) for key in stored}
    assert all(value in {None, stored[key]} for key, value in found.items())
    assert store.usage()["p", "c"].entries == sum(value is not None for value in found.values())
    store.close()


def test_where_the_disk_has_no_room_for_the_times_of_use_each_process_has_its_own(store, monkeypatch, caplog):
    """It is said, and nothing else changes."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    store.allot({CacheKey("p", "c"): SMALL})
    cache = store.cache("p", "c", SMALL)
    keys = apart(cache, 8)
    for key in keys[:7]:
        cache.set(key, bytes(8 * 1024), HOUR)
    assert cache.get(keys[0])
    cache.set(keys[7], bytes(8 * 1024), HOUR)
    assert [key for key in keys if cache.exists(key)] == [keys[0], *keys[2:]]
    assert "No space left" in caplog.text


def test_caches_that_want_more_than_there_is_have_less_each(store):
    """By what they want; and one that nothing was allotted to has little."""
    keys = [CacheKey("p", "a"), CacheKey("p", "b")]
    store.allot({keys[0]: store.room, keys[1]: 3 * store.room})
    caches = [store.cache(*key, 2**30) for key in keys]
    shares = [store.share(cache.identity, cache.size) for cache in caches]
    assert shares == [store.room // 4, store.room * 3 // 4]
    unknown = store.cache("p", "c", 2**30)
    assert store.share(unknown.identity, unknown.size) == store.room // 64
    store.allot({keys[0]: SMALL, keys[1]: 10**9 * store.room})
    assert code(caches[0].set, b"k", b"", HOUR) == E_CAP  # nothing is left for it


def test_a_cache_whose_share_has_shrunk_gives_back_with_its_writes(store):
    """A bounded number of entries with each, until it is within its share."""
    key = CacheKey("p", "c")
    store.allot({key: 2**20})
    cache = store.cache(*key, 2**20)
    for number in range(4096):
        cache.set(b"%d" % number, b"", HOUR)
    store.allot({key: SMALL})
    sizes = [2**20]
    while sizes[-1] > SMALL:
        with contextlib.suppress(CacheError):
            cache.set(b"new", b"", HOUR)
        sizes.append(store.usage()[key].size)
    assert all(0 < before - after <= WORK * LEAST_COST for before, after in itertools.pairwise(sizes))
    cache.set(b"new", b"", HOUR)
    assert cache.get(b"new") == b""
    assert store.usage()[key].size == SMALL


def test_tidying_drops_what_belongs_to_nobody(store):
    """And what others have too much."""
    keys = [CacheKey("gone", "c"), CacheKey("p", "c"), CacheKey("p", "smaller")]
    store.allot(dict.fromkeys(keys, 2**20))
    for key in keys:
        for number in range(3000):
            store.cache(*key, 2**20).set(b"%d" % number, b"", HOUR)
    store.tidy({keys[1]: 2**20, keys[2]: SMALL})
    usage = store.usage()
    assert usage == {keys[1]: (3000, 3000 * LEAST_COST), keys[2]: (SMALL // LEAST_COST, SMALL)}


def test_who_cannot_write_in_time_is_told_so(store, cache):
    """And who reads does not wait at all."""
    cache.set(b"k", b"v", HOUR)
    other = kv_file.WriterLock(store.folder)
    other.take(1)
    assert code(cache.set, b"k", b"new", HOUR, patience=0.01) == E_UNAVAILABLE
    assert code(cache.delete, b"k", patience=0.01) == E_UNAVAILABLE
    assert not cache.delete(b"none", patience=0.01)
    assert cache.get(b"k") == b"v"
    other.give()
    other.close()
    cache.set(b"k", b"new", HOUR, patience=0.01)
