"""The key-value store over processes: no update is lost, and one that dies, stops or does damage holds nobody up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hookline_api.abi import E_UNAVAILABLE
from hookline_runtime.host import kv_file
from hookline_runtime.host.kv import MAX_VALUE, KvError, KvStore
from waiting import PATIENCE_S, until

_PREAMBLE = """
import sys
from pathlib import Path
from hookline_runtime.host.kv import KvStore
kv = KvStore(Path(sys.argv[1]))
"""


def _process(script: str, *arguments: str, **options) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _PREAMBLE + script, *arguments], **options)


def test_many_processes_that_count_lose_no_update(tmp_path):
    """Four workers, three threads each, one counter per plugin and one for all."""
    script = """
import threading
def count():
    for _ in range(200):
        kv.increment("all", b"n", 1)
        kv.increment(sys.argv[2], b"n", 2)
threads = [threading.Thread(target=count) for _ in range(3)]
[thread.start() for thread in threads]; [thread.join() for thread in threads]
"""
    folder = str(tmp_path / "kv")
    workers = [_process(script, folder, f"p{number}") for number in range(4)]
    assert [worker.wait(PATIENCE_S) for worker in workers] == [0] * 4
    store = KvStore(tmp_path / "kv")
    assert store.get("all", b"n") == b"2400"
    assert [store.get(f"p{number}", b"n") for number in range(4)] == [b"1200"] * 4
    store.close()


def test_a_writer_that_is_killed_leaves_no_damage_and_no_lock(tmp_path):
    """Killed in the middle of writing, again and again: what was committed is there, and others go on."""
    script = """
print("ready", flush=True)
n = 0
while True:
    n += 1
    kv.put("p", b"%d" % (n % 50), bytes(5000)); kv.increment("p", b"n", 1)
"""
    folder = tmp_path / "kv"
    store = KvStore(folder)
    before = 0
    for _ in range(4):
        worker = _process(script, str(folder), stdout=subprocess.PIPE)
        assert worker.stdout.readline() == b"ready\n"
        while worker.poll() is None and int(store.get("p", b"n") or 0) < before + 20:
            pass
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        worker.stdout.close()
        now = store.increment("p", b"n", 1)
        assert now > before
        before = now
    keys, size = store.usage()["p"]
    listed = store.list_keys("p", b"")
    assert keys == len(listed)
    assert size == sum(len(key) + len(store.get("p", key)) for key in listed)
    store.close()


def test_a_writer_that_is_killed_inside_a_transaction_holds_nobody_up(tmp_path):
    """The lock is a robust one: it passes to the next writer, and the half-done change is gone."""
    script = """
txn = kv._env.begin(write=True)
txn.put(b"d" + bytes(48), b"half")
print("inside", flush=True)
sys.stdin.read()
"""
    worker = _process(script, str(tmp_path / "kv"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert worker.stdout.readline() == b"inside\n"
    store = KvStore(tmp_path / "kv")
    waiting = threading.Thread(target=store.put, args=("p", b"k", b"v"))
    waiting.start()
    worker.kill()
    worker.communicate()
    waiting.join(PATIENCE_S)
    assert not waiting.is_alive()
    assert store.get("p", b"k") == b"v"
    store.close()


def test_what_is_stored_survives_reopening(tmp_path):
    """Values, counts and time limits."""
    store = KvStore(tmp_path / "kv")
    store.put("p", b"k", b"v")
    store.put("p", b"gone", b"v")
    store.set_ttl("p", b"k", 3_600_000)
    store.set_ttl("p", b"gone", 1)
    store.close()
    store = KvStore(tmp_path / "kv")
    assert store.get("p", b"k") == b"v"
    assert store.usage() == {"p": (2, 7)}
    store.close()


@pytest.mark.parametrize("damage", ["garbage", "zeros", "short", "cut in half", "cut at the end", "zero pages"])
def test_a_damaged_store_is_set_aside_and_a_new_one_runs(tmp_path, damage, caplog):
    """Hooks go on without what was in it; nothing is deleted, and reading beyond a file's end kills nobody."""
    folder = tmp_path / "kv"
    store = KvStore(folder)
    for number in range(100):
        store.put("p", str(number).encode(), os.urandom(3000))
    store.close()
    file = folder / "data.mdb"
    whole = file.read_bytes()
    file.write_bytes({
        "garbage": os.urandom(len(whole)), "zeros": bytes(len(whole)), "short": whole[:100],
        "cut in half": whole[: len(whole) // 2], "cut at the end": whole[:-4096],
        "zero pages": whole[:8192] + bytes(len(whole) - 8192),
    }[damage])  # fmt: skip
    damaged = file.read_bytes()
    store = KvStore(folder)
    assert store.get("p", b"1") is None
    store.put("p", b"1", b"new")
    assert store.get("p", b"1") == b"new"
    store.close()
    assert (tmp_path / "kv.damaged" / "data.mdb").read_bytes() == damaged
    assert "set aside" in caplog.text


def test_several_processes_that_find_a_damaged_store_end_up_with_the_same_new_one(tmp_path):
    """None sets aside what another has just made."""
    folder = tmp_path / "kv"
    folder.mkdir()
    (folder / "data.mdb").write_bytes(b"\xff" * 100_000)
    workers = [_process("kv.increment('p', b'n', 1)", str(folder), stderr=subprocess.DEVNULL) for _ in range(4)]
    assert [worker.wait(PATIENCE_S) for worker in workers] == [0] * 4
    store = KvStore(folder)
    assert store.get("p", b"n") == b"4"
    store.close()
    assert (tmp_path / "kv.damaged" / "data.mdb").read_bytes() == b"\xff" * 100_000


def test_a_process_that_is_stopped_while_it_writes_stops_nobody(tmp_path):
    """Others wait for as long as they can afford, and go on; what reads does not wait at all."""
    script = """
import os, signal
with kv.changes() as changed:
    changed("p").put(b"k", b"of the one that was stopped")
    print("inside", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
"""
    worker = _process(script, str(tmp_path / "kv"), stdout=subprocess.PIPE)
    assert worker.stdout.readline() == b"inside\n"
    store = KvStore(tmp_path / "kv")
    until(lambda: Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "it is stopped")
    with pytest.raises(KvError) as refused:
        store.put("p", b"k", b"v", patience=0.01)
    assert refused.value.code == E_UNAVAILABLE
    assert store.get("p", b"k") is None
    worker.send_signal(signal.SIGCONT)
    assert worker.wait(PATIENCE_S) == 0
    worker.stdout.close()
    assert store.get("p", b"k") == b"of the one that was stopped"
    store.put("p", b"k", b"v", patience=0.01)
    store.close()


def test_a_store_of_an_older_version_gets_its_sums_and_its_index(tmp_path):
    """What it did not keep is made when it is opened: what spills over, and which entries end when."""
    store = KvStore(tmp_path / "kv")
    own = 4096
    for number in range(3):
        store.put("p", b"%d" % number, bytes(MAX_VALUE))
    store.put("q", b"ends", b"v")
    store.set_ttl("q", b"ends", 3_600_000)
    with store._env.begin(write=True) as txn:
        sums = txn.get(kv_file.TOTALS)
        ends = [key for key, _ in kv_file.with_prefix(txn, kv_file.EXPIRY)]
        txn.put(kv_file.TOTALS, sums[:16])
        txn.delete(ends[0])
    assert kv_file.SUMS.unpack(sums) == (2, 3 * MAX_VALUE + 3 + 5, 3 * MAX_VALUE + 3 - own)
    store.close()
    store = KvStore(tmp_path / "kv")
    with store._env.begin() as txn:
        assert txn.get(kv_file.TOTALS) == sums
        assert [key for key, _ in kv_file.with_prefix(txn, kv_file.EXPIRY)] == ends
    store.close()
