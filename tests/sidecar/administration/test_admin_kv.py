"""``/admin/kv``: an administrator reads and writes plugins' keys, and guests see it at once."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from urllib.parse import quote

import pytest

from admin_kv import PERMISSIONS
from hookline_runtime.host.kv import MAX_KEYS, MAX_NAMESPACES, KvError, KvStore
from waiting import until


async def say_all(sidecar, count=8):
    """What the workers say on so many connections that are open together."""
    sidecar.wait_workers()
    async with contextlib.AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(sidecar.client()) for _ in range(count)]
        said = []
        for session in sessions:
            async with session.post("/v1/hooks/custom_hook", json=0) as response:
                said.append((await response.json()).get("value"))
        assert all(sidecar.connections())
        return said


# ── what HeliosDB's scripts do ──


async def test_a_value_is_there_for_the_next_call_in_all_workers(admin, running):
    """Written, changed, deleted: with HeliosDB's paths and fields."""
    for value in ("one", "two"):
        status, _, body = admin("PUT", "/admin/kv/p/k", json.dumps(value))
        assert (status, body["ok"]) == (200, True)
        assert await say_all(running) == [value] * 8
        assert admin("GET", "/admin/kv/p/k")[2] == {"plugin": "p", "key": "k", "value": f'"{value}"', "ttl_ms": None}
    assert admin("DELETE", "/admin/kv/p/k")[2]["ok"] is True
    assert admin("DELETE", "/admin/kv/p/k")[:1] == (200,)
    assert all(isinstance(said, int) for said in await say_all(running))  # the plugin behind it answers


def test_a_key_may_hold_slashes_dots_and_any_byte(admin):
    """What stands behind the plugin's name is the key, percent-decoded, and no path is made shorter."""
    for path, key in {
        "budget/tenant-a": b"budget/tenant-a",
        "tenant:acme:budget": b"tenant:acme:budget",
        "..%2f..%2fhealthz": b"../../healthz",
        "../../healthz": b"../../healthz",
        "a//b/": b"a//b/",
        "%2F": b"/",
        "a%3Fb%23c+d%20e": b"a?b#c+d e",
        "%C3%A9%F0%9F%98%80": "é😀".encode(),
        "%00%0a%ff%fe": b"\0\n\xff\xfe",
        "k?x=1&y": b"k",
    }.items():
        assert admin("PUT", f"/admin/kv/p/{path}", path.encode())[0] == 200, path
        plain, _, query = path.partition("?")
        status, _, body = admin("GET", f"/admin/kv/p/{quote(key, safe='')}" + (f"?{query}" if query else ""))
        assert status == 200
        assert body["value"] == path
        found = body.get("key", "").encode() or base64.b64decode(body.get("key_base64", ""))
        assert found == key, plain
    listed = admin("GET", "/admin/kv/p/?limit=1024")[2]
    assert len(listed["keys"]) == 9
    for each in listed["entries"]:
        assert not {".", ".."} & {*each["path"].split("/")}
        assert admin("GET", each["path"])[0] == 200


@pytest.mark.parametrize("value", [b"", b"x" * 65536, bytes(range(256)), '{"a": "é"}'.encode(), b"\xff"])
def test_a_value_may_be_any_bytes(admin, value):
    """Text comes as text, all else in base64 under another name; or byte for byte where that is asked for."""
    assert admin("PUT", "/admin/kv/p/v", value)[0] == 200
    _, headers, body = admin("GET", "/admin/kv/p/v")
    found = body["value"].encode() if "value" in body else base64.b64decode(body["value_base64"])
    assert found == value
    status, raw_headers, raw = admin("GET", "/admin/kv/p/v", headers={"Accept": "application/octet-stream"})
    assert (status, raw) == (200, value)
    assert headers["ETag"] == raw_headers["ETag"]


def test_a_value_in_chunks_is_one_value(admin):
    """As curl sends from a pipe."""
    assert admin("PUT", "/admin/kv/p/v", iter([b"a" * 1000, b"b" * 1000]))[0] == 200
    assert admin("GET", "/admin/kv/p/v")[2]["value"] == "a" * 1000 + "b" * 1000


def test_a_list_has_names_sizes_and_what_is_left_of_their_time(admin, running):
    """Sorted, with or without the last slash; a prefix is percent-decoded, and + is not a blank."""
    for key in ("b", "a/1", "a/2", "a+b"):
        admin("PUT", f"/admin/kv/p/{key}", "12345")
    with contextlib.closing(KvStore(running.state / "kv")) as store:
        store.set_ttl("p", b"b", 3_600_000)
    for path in ("/admin/kv/p", "/admin/kv/p/"):
        status, _, body = admin("GET", path)
        assert (status, body["plugin"], body["keys"]) == (200, "p", ["a+b", "a/1", "a/2", "b"])
        assert [(each["key"], each["size"], each["path"]) for each in body["entries"]][1] == (
            "a/1",
            5,
            "/admin/kv/p/a/1",
        )
        assert [each["ttl_ms"] for each in body["entries"]][:3] == [None] * 3
        assert 0 < body["entries"][3]["ttl_ms"] <= 3_600_000
        assert body["next"] is None
    assert 0 < admin("GET", "/admin/kv/p/b")[2]["ttl_ms"] <= 3_600_000
    assert admin("GET", "/admin/kv/p/?prefix=a%2F")[2]["keys"] == ["a/1", "a/2"]
    assert admin("GET", "/admin/kv/p/?prefix=a+")[2]["keys"] == ["a+b"]
    assert admin("GET", "/admin/kv/p?prefix=nothing")[2]["keys"] == []


def test_lists_come_in_pages_that_lead_to_each_key_once(admin, running):
    """Bounded in keys and in bytes, whatever the keys are."""
    with contextlib.closing(KvStore(running.state / "kv")) as store:
        keys = sorted([b"%03d" % number for number in range(250)] + [b"\xff" * 60_000 + bytes([n]) for n in range(9)])
        for key in keys:
            store.put("p", key, b"")
    found, sizes, page = [], [], "/admin/kv/p?prefix="
    while page is not None:
        body = admin("GET", page)[2]
        found += [
            base64.b64decode(e["key_base64"]) if "key_base64" in e else e["key"].encode() for e in body["entries"]
        ]
        sizes.append(len(body["entries"]))
        page = body["next"]
    assert found == keys
    assert sizes == [100, 100, 54, 4, 1]
    assert admin.problem("GET", "/admin/kv/p?limit=0") == (400, "limit is a number from 1 to 1024")
    assert admin.problem("GET", "/admin/kv/p?limit=1025")[0] == 400


def test_the_plugins_are_listed_too(admin):
    """Those that are loaded, and those that have keys."""
    admin("PUT", "/admin/kv/p/k", "12345")
    admin("PUT", "/admin/kv/later/k?prepare=true", "1")
    found = {each["plugin"]: each for each in admin("GET", "/admin/kv")[2]["plugins"]}
    assert found["p"] == {"plugin": "p", "loaded": True, "keys": 1, "bytes": 6}
    assert found["later"]["loaded"] is False
    assert "counter" in found
    admin("DELETE", "/admin/kv/later/k")


# ── what cannot be ──


def test_each_mistake_has_its_status_and_its_sentence(admin):
    """Problem documents, as everywhere on this port."""
    assert admin.problem("GET", "/admin/kv/p/nope") == (404, "plugin 'p' has no key 'nope'")
    assert admin.problem("GET", "/admin/kv//k")[0] == 400
    assert admin.problem("GET", "/admin/kv/p/%zz")[0] == 400
    assert admin.problem("GET", "/admin/kvx/p/k")[0] == 404
    assert admin.problem("GET", "/admin/other")[0] == 404
    assert admin.problem("POST", "/admin/kv/p/k", "v")[0] == 405
    assert admin("POST", "/admin/kv/p/k", "v")[1]["Allow"] == "GET, PUT, DELETE"
    assert admin("DELETE", "/admin/kv/p")[1]["Allow"] == "GET"
    assert admin.problem("PUT", "/admin/kv/p/", "v")[0] == 405
    assert admin.problem("PUT", "/admin/kv/p/v", b"x" * 65537) == (413, "a value has at most 65536 bytes")
    assert admin.problem("PUT", "/admin/kv/p/v", iter([b"x" * 65536, b"x"]))[0] == 413
    assert admin("PUT", f"/admin/kv/p/{'x' * 65536}", "v")[0] == 200
    assert admin("DELETE", f"/admin/kv/p/{'%78' * 65536}", "v")[2] == {"ok": True, "existed": True}
    assert admin.problem("PUT", f"/admin/kv/p/{'x' * 65537}", "v")[0] == 413
    assert admin.problem("PUT", "/admin/kv/p/v", "v", headers={"Content-Encoding": "gzip"})[0] == 415
    assert admin("GET", "/admin/kv/p")[2]["keys"] == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_plugin_that_is_not_there_is_told_with_those_that_are(admin, method):
    """HeliosDB's name of a plugin is often not its metadata.name here."""
    status, sentence = admin.problem(method, "/admin/kv/helios-plugin-p/k", "v" if method == "PUT" else None)
    assert status == 404
    assert "there is no plugin 'helios-plugin-p', but counter, p; a plugin's keys go by its metadata.name" in sentence
    assert admin.problem("GET", "/admin/kv/helios-plugin-p")[0] == 404
    assert admin.problem("PUT", "/admin/kv/Not_A_Name/k?prepare=true", "v")[0] == 400


async def test_keys_may_be_there_before_their_plugin(admin, running, guests):
    """With ``?prepare=true``, once; then the plugin has a namespace."""
    assert admin("PUT", "/admin/kv/soon/k?prepare=true", '"prepared"')[0] == 200
    assert admin("PUT", "/admin/kv/soon/more", "1")[0] == 200
    running.folder.plugin(
        "soon", guests.stored(), permissions=PERMISSIONS, priority=5, kv={"initial": {"k": '"initial"'}}
    )
    await running.wait_says("prepared")
    running.folder.remove("soon.yaml")
    for key in ("k", "more"):
        admin("DELETE", f"/admin/kv/soon/{key}")


def test_a_full_store_says_which_cap_it_is(admin, running):
    """507; an existing key can still be changed, and room be made."""
    with contextlib.closing(KvStore(running.state / "kv")) as store:
        for number in range(MAX_KEYS):
            store.put("p", b"%d" % number, b"")
    status, sentence = admin.problem("PUT", "/admin/kv/p/more", "v")
    assert (status, "the plugin has its 1024 keys already" in sentence) == (507, True)
    assert admin("PUT", "/admin/kv/p/0", "v")[0] == 200
    assert admin("DELETE", "/admin/kv/p/1")[0] == 200
    assert admin("PUT", "/admin/kv/p/more", "v")[0] == 200
    with contextlib.closing(KvStore(running.state / "kv")) as store:
        names = [f"n{number}" for number in range(MAX_NAMESPACES)]

        def refused():
            # The sidecar may be dropping the keys of plugins that are gone, as it does after each new bundle.
            admin("DELETE", "/admin/kv/another/k")  # which got in while there was room, and would keep one of ours out
            with contextlib.suppress(KvError):
                for name in names:
                    store.put(name, b"k", b"")
            status, _, body = admin("PUT", "/admin/kv/another/k?prepare=true", "v")
            return body["detail"] if status == 507 else None

        assert f"{MAX_NAMESPACES} plugins have keys already" in until(refused, "a full store")
        for name in names:
            store.delete(name, b"k")


# ── two at once ──


def test_a_change_may_depend_on_what_is_there(admin):
    """If-Match and If-None-Match, for writing and deleting; what is not changed is said with what is there."""
    put = ("PUT", "/admin/kv/p/k")
    assert admin.problem(*put, "0", headers={"If-Match": "*"})[0] == 412
    status, headers, _ = admin(*put, "1", headers={"If-None-Match": "*"})
    assert status == 200
    first = headers["ETag"]
    assert admin("GET", "/admin/kv/p/k")[1]["ETag"] == first
    assert admin.problem(*put, "2", headers={"If-None-Match": "*"}) == (
        412, f"nothing is changed: the key 'k' is {first}, and If-Match or If-None-Match differs"
    )  # fmt: skip
    assert admin(*put, "2", headers={"If-Match": f'"other", {first}'})[0] == 200
    assert admin.problem(*put, "3", headers={"If-Match": first})[0] == 412
    assert admin.problem("DELETE", "/admin/kv/p/k", headers={"If-Match": first})[0] == 412
    assert admin("GET", "/admin/kv/p/k")[2]["value"] == "2"
    assert admin.problem(*put, "3", headers={"If-Match": "2"})[0] == 400
    assert admin("DELETE", "/admin/kv/p/k", headers={"If-Match": "*"})[2] == {"ok": True, "existed": True}


async def test_guests_that_count_and_an_administrator_lose_no_update(admin, running):
    """Calls in two workers add to a number while an administrator adds to it too, by If-Match."""
    calls, mine = 120, 0
    admin("PUT", "/admin/kv/counter/n", "0")

    async def count(session):
        for _ in range(calls // 4):
            async with session.post("/v1/hooks/custom_hook", json=0) as response:
                assert (await response.json())["action"] != "block"

    async with contextlib.AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(running.client()) for _ in range(4)]
        counting = [asyncio.create_task(count(session)) for session in sessions]
        while not all(task.done() for task in counting) or mine < 20:
            _, headers, body = await asyncio.to_thread(admin, "GET", "/admin/kv/counter/n")
            added = str(int(body["value"]) + 1)
            status, _, _ = await asyncio.to_thread(
                admin, "PUT", "/admin/kv/counter/n", added, headers={"If-Match": headers["ETag"]}
            )
            assert status in {200, 412}
            mine += status == 200
        await asyncio.gather(*counting)
    assert admin("GET", "/admin/kv/counter/n")[2]["value"] == str(calls + mine)
