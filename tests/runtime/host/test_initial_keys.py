"""``spec.kv.initial``: in the store before a plugin's first call, once for each reason, all of it or nothing."""

from __future__ import annotations

import multiprocessing

import pytest

from hookline_api.bundle import Bundle, BundleArtifact, BundlePlugin
from hookline_api.hooks import Hook
from hookline_runtime.host import kv_initial
from hookline_runtime.host.kv import MAX_BYTES, MAX_KEYS, MAX_NAMESPACES, KvStore
from hookline_runtime.runtime import PrepareError, Runtime
from waiting import PATIENCE_S

_ARTIFACT = BundleArtifact(digest="sha256:" + "0" * 64, sha256="0" * 64, size=8, layout="file", reference="p")


def entry(name="p", overwrite="Never", **initial):
    """A plugin with these initial keys; no module is ever looked for."""
    kv = {"initial": initial, "overwrite": overwrite}
    return BundlePlugin.model_validate({"name": name, "artifact": _ARTIFACT, "kv": kv})


def held(kv, name="p"):
    """All that is in a plugin's namespace."""
    return {key.decode(): kv.get(name, key).decode() for key in kv.list_keys(name, b"")}


def reader(wat):
    """A module whose custom hook answers what is at the key ``k``, and ``0`` where there is nothing."""
    return wat.module(
        imports=wat.host("env", "kv_get", "i32 i32 i32 i32", "i32"),
        data={1024: b"k"},
        hooks={
            "custom_hook": """
            (local.set $i (call $kv_get (i32.const 1024) (i32.const 1) (i32.const 2048) (i32.const 4096)))
            (if (i32.lt_s (local.get $i) (i32.const 0)) (then (return (call $number (i64.const 0)))))
            (i64.or (i64.const 8796093022208) (i64.extend_i32_u (local.get $i)))"""
        },
    )


def test_a_placeholder_and_a_plugin_without_initial_keys_write_nothing(kv):
    """Not a byte, also not of what is remembered."""
    closed = entry(k="1").model_copy(update={"artifact": None})
    kv_initial.write(kv, [closed, entry("q")])
    assert kv.usage() == {}
    assert kv.record("p") == kv.record("q") == b""


def test_what_does_not_fit_is_refused_with_the_plugins_name_and_nothing_is_written(kv):
    """Of no plugin: the whole is one transaction."""
    for number in range(MAX_KEYS - 1):
        kv.put("full", b"%d" % number, b"")
    with pytest.raises(kv_initial.InitialKeysError, match=f"has its {MAX_KEYS} keys already") as refused:
        kv_initial.write(kv, [entry("first", k="1"), entry("full", a="1", b="1")])
    assert refused.value.plugin == "full"
    assert refused.value.cause == "config"
    assert kv.usage().keys() == {"full"}
    assert kv.record("first") == b""
    kv.delete("full", b"0")
    kv_initial.write(kv, [entry("first", k="1"), entry("full", a="1", b="1")])
    assert held(kv, "first") == {"k": "1"}


def test_the_bytes_of_all_plugins_and_their_number_bound_it_too(kv):
    """Each with a sentence of its own."""
    for number in range(MAX_BYTES // (2**16 + 3)):
        kv.put("big", b"%03d" % number, bytes(2**16))
    with pytest.raises(kv_initial.InitialKeysError, match="bytes of all plugins"):
        kv_initial.write(kv, [entry(**{f"k{number}": "x" * 60_000 for number in range(8)})])
    for number in range(MAX_NAMESPACES - 1):
        kv.put(f"n{number}", b"k", b"")
    with pytest.raises(kv_initial.InitialKeysError, match=f"{MAX_NAMESPACES} plugins have keys"):
        kv_initial.write(kv, [entry(k="1")])


def test_a_try_tells_what_would_be_and_writes_nothing(kv):
    """For a bundle that is held."""
    kv_initial.write(kv, [entry(k="1")], only_try=True)
    assert kv.usage() == {}
    assert kv.record("p") == b""
    for number in range(MAX_KEYS):
        kv.put("p", b"%d" % number, b"")
    with pytest.raises(kv_initial.InitialKeysError):
        kv_initial.write(kv, [entry(k="1")], only_try=True)


def test_what_is_remembered_is_bounded(kv):
    """Keys that come and go are forgotten beyond 2,048; those that the resource has are not."""
    for turn in range(5):
        for key in kv.list_keys("p", b""):
            kv.delete("p", key)
        kv_initial.write(kv, [entry(**{f"{turn}-{number}": "1" for number in range(MAX_KEYS)})])
        assert len(kv.record("p")) <= 2048 * 32
        assert len(kv.list_keys("p", b"")) == MAX_KEYS
    kv.delete("p", b"4-0")
    kv_initial.write(kv, [entry(**{f"4-{number}": "1" for number in range(MAX_KEYS)})])
    assert kv.get("p", b"4-0") is None


def test_plugins_that_are_gone_are_forgotten_in_the_end(kv):
    """Their records do not add up for ever, though their keys were all deleted; who is still there is remembered."""
    for number in range(MAX_NAMESPACES + 1):
        kv_initial.write(kv, [entry(f"p{number}", k="1")])
        kv.delete(f"p{number}", b"k")
    kv.make_room({"p0"})
    assert kv.record("p0") != b""
    assert {kv.record(f"p{number}") for number in range(1, MAX_NAMESPACES + 1)} == {b""}
    kv_initial.write(kv, [entry("p0", k="1")])
    assert kv.get("p0", b"k") is None


def _write_and_count(folder, begin, counts):
    store = KvStore(folder)
    begin.wait()
    kv_initial.write(store, [entry(overwrite="OnChange", n="0", **{f"k{number}": "x" * 999 for number in range(99)})])
    for _ in range(200):
        store.increment("p", b"n", 1)
    counts.put(len(store.list_keys("p", b"")))
    store.close()


def test_many_processes_that_begin_at_once_write_once(tmp_path):
    """Each counts on after its own look: were one to write again, counts would be lost."""
    spawn = multiprocessing.get_context("spawn")
    begin, counts = spawn.Barrier(4), spawn.Queue()
    several = [
        spawn.Process(target=_write_and_count, args=(tmp_path / "kv", begin, counts), daemon=True) for _ in range(4)
    ]
    for each in several:
        each.start()
    assert [counts.get(timeout=PATIENCE_S) for _ in several] == [100] * 4
    for each in several:
        each.join(PATIENCE_S)
    store = KvStore(tmp_path / "kv")
    assert store.get("p", b"n") == b"800"
    store.close()
    counts.close()


async def test_a_runtime_has_them_before_the_first_call(workshop, wat):
    """Embedded, without a sidecar; and a new version of the plugin reads what was changed since."""
    settings = {"permissions": ["kv.read"], "kv": {"initial": {"k": '"first"'}}}
    runtime = await workshop.guest(reader(wat), **settings)

    async def says():
        return (await runtime.call(Hook.CUSTOM, b"0"))["value"]

    assert await says() == "first"
    workshop.kv.put("guest", b"k", b'"changed"')
    for kv, wanted in (
        ({"initial": {"k": '"second"'}}, "changed"),
        ({"initial": {"k": '"second"'}, "overwrite": "OnChange"}, "second"),
    ):
        plugin = await workshop.plugin(reader(wat), **settings | {"kv": kv})
        await runtime.load(Bundle.of([plugin]), workshop.find)
        assert await says() == wanted


async def test_a_runtime_whose_store_does_not_take_them_goes_on_as_it_was(workshop, wat):
    """The failure names the plugin, its cause is the settings, and what ran is still there."""
    runtime = await workshop.guest(reader(wat), permissions=["kv.read"])
    for number in range(MAX_KEYS):
        workshop.kv.put("guest", b"%d" % number, b"")
    plugin = await workshop.plugin(reader(wat), permissions=["kv.read"], kv={"initial": {"k": "1"}})
    with pytest.raises(PrepareError, match="plugin 'guest': the keys of spec\\.kv\\.initial do not fit") as refused:
        await runtime.load(Bundle.of([plugin]), workshop.find)
    assert refused.value.reason.cause == "config"
    assert (await runtime.call(Hook.CUSTOM, b"0"))["value"] == 0


async def test_a_runtime_without_a_store_refuses_them(workshop, wat):
    """They would be read as missing, and a guard as one without rules."""
    runtime = Runtime()
    plugin = await workshop.plugin(reader(wat), permissions=["kv.read"], kv={"initial": {"k": "1"}})
    try:
        with pytest.raises(PrepareError, match="needs a key-value store"):
            await runtime.load(Bundle.of([plugin]), workshop.find)
    finally:
        await runtime.close()


@pytest.mark.parametrize(("policy", "written"), [("Closed", {}), ("PodLocal", {"k": "1"})])
def test_keys_that_all_pods_share_are_in_the_pod_only_where_it_stands_in(kv, policy, written):
    """While the server is away; they are written on the server by whoever connects to it."""
    shared = {"kv": {"scope": "Cluster", "valkey": {"url": "redis://h"}, "initial": {"k": "1"}}}
    settings = {"name": "p", "artifact": _ARTIFACT, "failurePolicy": {"store": policy}, **shared}
    kv_initial.write(kv, [BundlePlugin.model_validate(settings)])
    assert held(kv) == written
