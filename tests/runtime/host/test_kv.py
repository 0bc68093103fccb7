"""The key-value store: capped per plugin, with entries that end at their time; what it keeps, it keeps in order."""

from __future__ import annotations

import pytest

from hookline_api.abi import E_ARGUMENT, E_CAP, E_SIZE, E_UNAVAILABLE
from hookline_runtime.host import kv as kv_module
from hookline_runtime.host import kv_file
from hookline_runtime.host.kv import MAX_BYTES, MAX_KEYS, MAX_NAMESPACES, MAX_VALUE, KvError, KvStore


def test_the_store_is_for_its_owner_only(tmp_path):
    """Guests keep sessions and counters in it."""
    KvStore(tmp_path / "kv").close()
    assert (tmp_path / "kv").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "kv" / "data.mdb").stat().st_mode & 0o777 == 0o600


def test_there_are_256_namespaces_and_those_of_plugins_that_are_gone_make_room(kv):
    """A plugin that is there keeps its entries, whether it could be loaded or not."""
    for number in range(MAX_NAMESPACES):
        kv.put(f"p{number}", b"k", b"v")
    with pytest.raises(KvError) as refused:
        kv.put("one more", b"k", b"v")
    assert refused.value.code == E_CAP
    kv.make_room({"p3", "p4"})
    assert kv.usage() == {"p3": (1, 2), "p4": (1, 2)}
    kv.put("one more", b"k", b"v")
    kv.make_room({"p3"})
    assert set(kv.usage()) == {"p3", "p4", "one more"}


def test_all_plugins_together_have_64_mebibytes(kv, monkeypatch):
    """Counted in keys and values; here with a smaller number."""
    monkeypatch.setattr(kv_module, "MAX_BYTES", 10_000)
    assert MAX_BYTES == 64 * 2**20
    kv.put("p", b"a", bytes(4999))
    kv.put("q", b"b", bytes(4999))
    with pytest.raises(KvError) as refused:
        kv.put("r", b"c", b"")
    assert refused.value.code == E_CAP
    kv.put("q", b"b", bytes(4000))
    kv.put("r", b"c", bytes(900))


def test_a_store_at_all_of_its_caps_still_fits_into_its_map(tmp_path):
    """The file's own bound is above the promised one: 64 MiB of the largest values, overwritten and deleted."""
    store = KvStore(tmp_path / "kv")
    for turn in range(2):
        for number in range(MAX_KEYS - 1):
            store.put("p", b"%d" % number, bytes([turn]) * (MAX_VALUE - 100))
    for number in range(0, MAX_KEYS - 1, 3):
        store.delete("p", b"%d" % number)
    store.put("q", b"k", bytes(MAX_VALUE))
    store.close()


def test_each_plugin_has_some_room_that_others_cannot_take(kv, monkeypatch):
    """Beyond the bytes that all share; here with smaller numbers."""
    assert MAX_BYTES // (64 * MAX_NAMESPACES) == 4096
    monkeypatch.setattr(kv_module, "MAX_BYTES", 64 * MAX_NAMESPACES * 100)
    shared = kv_module.MAX_BYTES
    for number in range(shared // MAX_VALUE):
        kv.put("p", b"%d" % number, bytes(MAX_VALUE - len(b"%d" % number)))
    kv.put("p", b"rest", bytes(shared % MAX_VALUE + 100 - 4))
    with pytest.raises(KvError) as refused:
        kv.put("p", b"", b"1")
    assert refused.value.code == E_CAP
    for name in ("q", "r"):
        kv.put(name, b"c", bytes(99))
        with pytest.raises(KvError):
            kv.put(name, b"d", b"")
    kv.put("p", b"rest", bytes(shared % MAX_VALUE + 100 - 4 - 50))
    kv.put("q", b"c", bytes(149))
    with pytest.raises(KvError):
        kv.put("r", b"d", b"")


class _Refuser:
    """Stands where the lock for writers is: nobody gets it, and how often somebody wanted it is counted."""

    def __init__(self) -> None:
        self.asked = 0

    def take(self, _patience):
        self.asked += 1
        raise kv_file.BusyError

    def close(self):
        pass


def test_what_is_refused_or_changes_nothing_holds_up_no_writer(kv):
    """It is told from counts, before any lock is asked for: a plugin at its cap costs the others nothing."""
    for number in range(MAX_KEYS):
        kv.put("p", b"%d" % number, b"5")
    lock, kv._writer = kv._writer, _Refuser()
    for refused in (
        lambda: kv.put("p", b"more", b""),
        lambda: kv.increment("p", b"more", 1),
        lambda: kv.compare_and_set("p", b"more", None, b"v"),
        lambda: kv.change("p", b"more", b"v", when=lambda _: True),
        lambda: kv.put("p", b"k", bytes(MAX_VALUE + 1)),
        lambda: kv.increment("p", b"1", 2**63 - 1),
    ):
        with pytest.raises(KvError) as error:
            refused()
        assert error.value.code in {E_CAP, E_SIZE, E_ARGUMENT}
    kv.delete("p", b"nothing")
    assert not kv.set_ttl("p", b"nothing", 5)
    assert not kv.compare_and_set("p", b"1", b"other", b"v")
    assert kv.change("p", b"1", b"v", when=lambda _: False) == (b"5", False)
    assert kv._writer.asked == 0
    with pytest.raises(KvError) as error:
        kv.put("p", b"1", b"6")
    assert error.value.code == E_UNAVAILABLE
    assert kv._writer.asked == 1
    kv._writer = lock


class _Counted:
    """A transaction of LMDB that counts what is asked of it."""

    def __init__(self, txn) -> None:
        self.txn = txn
        self.asked = 0

    def __getattr__(self, name):
        self.asked += 1
        return getattr(self.txn, name)


@pytest.mark.parametrize("expired", [100, MAX_KEYS])
def test_a_transaction_purges_a_few_entries_however_many_are_over(kv, monkeypatch, expired):
    """Also those of other plugins; what it does within the lock does not grow with what there is."""
    now = kv_module._now()
    monkeypatch.setattr(kv_module, "_now", lambda: now)
    for number in range(MAX_KEYS):
        kv.put("p", b"%d" % number, bytes(100))
        if number < expired:
            kv.set_ttl("p", b"%d" % number, 10)
    now += 10
    with kv._env.begin(write=True, buffers=True) as txn:
        counted = _Counted(txn)
        with monkeypatch.context() as patched:
            patched.setattr(kv_module, "with_prefix", lambda _, prefix: kv_file.with_prefix(txn, prefix))
            kv_module.Change(counted, "p").put(b"more", b"v")
    assert kv.usage()["p"][0] == MAX_KEYS - kv_module.PURGED_AT_ONCE + 1
    assert counted.asked < 16 * kv_module.PURGED_AT_ONCE
    for number in range(kv_module.PURGED_AT_ONCE):
        kv.put("p", b"more%d" % number, b"v")
    assert kv.get("p", b"more3") == b"v"


def test_a_plugins_expired_entries_make_room_for_others(kv, monkeypatch):
    """The budget is one, so what is over is over for all."""
    monkeypatch.setattr(kv_module, "MAX_BYTES", 1000)
    kv.put("p", b"a", bytes(999))
    kv.set_ttl("p", b"a", 10)
    with pytest.raises(KvError):
        kv.put("q", b"b", bytes(200))
    now = kv_module._now()
    monkeypatch.setattr(kv_module, "_now", lambda: now + 10)
    kv.put("q", b"b", bytes(200))
    assert set(kv.usage()) == {"q"}


def test_namespaces_of_plugins_that_are_gone_are_dropped_a_few_entries_at_a_time(kv, tmp_path, monkeypatch):
    """Each transaction is small, and the lock is free in between."""
    for number in range(MAX_NAMESPACES // 2):
        kv.put(f"p{number}", b"k", b"v")
    for number in range(300):
        kv.put("large", b"%d" % number, bytes(100))
    free, taken = [], kv_file.WriterLock(tmp_path / "kv")
    monkeypatch.setattr(kv_module.time, "sleep", lambda _: free.append(_is_free(taken)))
    kv.make_room({"p1"})
    assert set(kv.usage()) == {"p1"}
    assert free == [True] * (300 // kv_module.DROPPED_AT_ONCE)
    taken.close()


def _is_free(lock) -> bool:
    lock.take(0)
    lock.give()
    return True
