"""Keys that all pods share: what happens where the server is away, and what it refuses."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from faulty_valkey import FaultyValkey
from hookline_api.abi import E_CAP, HOST_FUNCTIONS
from hookline_api.bundle import BundlePlugin
from hookline_artifacts.errors import ConfigError
from hookline_runtime.errors import StoreError
from hookline_runtime.host.context import HostContext
from hookline_runtime.host.functions import PluginHost
from hookline_runtime.host.kv_cluster import ClusterKv
from host_calls import EVERYTHING, Memory
from kv_scopes import on_server
from valkey import redis_server
from waiting import until_true


@pytest.fixture
async def host(kv):
    """Makes plugins' hosts."""
    made = []

    def make(**fields):
        entry = BundlePlugin.model_validate({"name": "guest", "permissions": EVERYTHING, **fields})
        made.append(PluginHost(entry, HostContext(kv=kv)))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize("policy", [None, "Closed", "Open"])
async def test_a_server_that_is_away_ends_the_call_and_its_count_goes_on_when_it_is_back(
    host, kv, redis_program, tmp_path, policy
):
    """What the call then comes to is the chain's; nothing is counted in the pod, and nothing is counted twice."""
    with redis_server(redis_program, tmp_path / "redis", durable=True) as server:
        settings = on_server(server, failurePolicy={"store": policy})
        made = host(**settings)
        incr = made.functions()["hookline", "kv_incr"].run
        assert await incr(Memory(), 0, 1, 1) == 1
        server.kill()
        with pytest.raises(StoreError, match="the keys of plugin 'guest' cannot be asked: the server at"):
            await incr(Memory(), 0, 1, 1)
        await until_true(lambda: made.unavailable, "that it is away")
        assert made.unavailable["kv"].startswith(f"the server at 127.0.0.1:{server.port} ")
        server.start()
        await until_true(lambda: not made.unavailable, "the server again")
        assert await incr(Memory(), 0, 1, 1) == 2
        assert kv.usage() == {}
        tag = f"hookline:{{{settings['namespace']}/guest}}"
        assert server.ask("HVALS", f"{tag}:entries") == b"2\n"


async def test_in_the_pods_store_meanwhile_all_functions_do_what_they_do(host, redis_program, tmp_path):
    """Each of the seven; nothing of it is on the server afterwards, and nothing of the server's in the pod."""
    with redis_server(redis_program, tmp_path / "redis") as server:
        server.kill()
        made = host(**on_server(server, failurePolicy={"store": "PodLocal"}))
        call = {name: function.run for (_, name), function in made.functions().items() if name.startswith("kv_")}
        memory = Memory()
        key, value = memory.put(0, b"key"), memory.put(100, b"7")
        assert await call["kv_get"](memory, *key, 1000, 100) == -1
        assert await call["kv_set"](memory, *key, *value) == 0
        assert await call["kv_get"](memory, *key, 1000, 100) == 1
        assert await call["kv_incr"](memory, *key, 5) == 12
        assert await call["kv_compare_and_set"](memory, *key, *memory.put(200, b"12"), *value) == 1
        assert await call["kv_list"](memory, 0, 0) == b'["key"]'
        assert await call["kv_set_ttl"](memory, *key, 60_000) == 1
        assert await call["kv_delete"](memory, *key) == 0
        assert await call["kv_incr"](memory, *key, 1) == 1
        server.start()
        await until_true(lambda: not made.unavailable, "the server")
        assert await call["kv_get"](memory, *key, 1000, 100) == -1
        assert await call["kv_list"](memory, 0, 0) == b"[]"


async def test_a_server_that_refuses_ends_the_call_and_is_said(host, redis_program, tmp_path):
    """A user who may not run scripts: the connection stands, and no key can be had."""
    options = ("--user", "weak", "on", ">word", "~*", "+@all", "-eval", "-evalsha")
    with redis_server(redis_program, tmp_path / "redis", *options) as server:
        url = {"s/url": f"redis://weak:word@127.0.0.1:{server.port}"}
        valkey = {"urlFrom": {"name": "s", "key": "url"}, "timeout": "10s"}
        made = host(kv={"scope": "Cluster", "valkey": valkey}, credentials=url)
        get = made.functions()["env", "kv_get"].run
        for _ in range(2):
            with pytest.raises(StoreError, match="answers NOPERM: look at the user"):
                await get(Memory(), 0, 1, 100, 1)
        assert list(made.unavailable) == ["kv"]
        assert "127.0.0.1" not in made.unavailable["kv"]  # it is in a Secret
        server.ask("ACL", "SETUSER", "weak", "+eval", "+evalsha")
        assert await get(Memory(), 0, 1, 100, 1) == -1
        assert made.unavailable == {}


async def test_a_user_needs_few_rights(host, redis_program, tmp_path):
    """Those that docs/operate/keys.md names are enough for all functions and for initial keys."""
    page = (Path(__file__).parents[3] / "docs" / "operate" / "keys.md").read_text()
    [rights] = re.findall(r"`(~hookline:\S+ [^`]+)` and the commands of the scripts: `([^`]+)`", page)
    options = ("--user", "own", "on", ">word", *" ".join(rights).split())
    with redis_server(redis_program, tmp_path / "redis", *options) as server:
        url = {"s/url": f"redis://own:word@127.0.0.1:{server.port}/2"}
        valkey = {"urlFrom": {"name": "s", "key": "url"}, "timeout": "10s"}
        made = host(kv={"scope": "Cluster", "valkey": valkey, "initial": {"k": "1"}}, credentials=url)
        memory = Memory()
        memory.put(0, b"k2")
        answers = [
            await function.run(memory, *[1 if letter == "i" else 9 for letter in HOST_FUNCTIONS[key].params])
            for key, function in made.functions().items()
            if key[1].startswith("kv_")
        ]
        assert len(answers) == 7
        assert made.refused == {}
        assert made.unavailable == {}


async def test_a_server_without_memory_is_a_cap(host, redis_program, tmp_path):
    """As where the pod's store is full: the guest gets its code, and reads go on."""
    with redis_server(redis_program, tmp_path / "redis") as server:
        made = host(**on_server(server))
        run = {name: function.run for (_, name), function in made.functions().items() if name.startswith("kv_")}
        memory = Memory()
        assert await run["kv_set"](memory, 0, 1, 0, 1) == 0
        server.ask("CONFIG", "SET", "maxmemory", "1")
        assert await run["kv_set"](memory, 0, 2, 0, 1) == -1
        assert await run["kv_compare_and_set"](memory, 0, 2, 0, -1, 0, 1) == E_CAP
        assert await run["kv_get"](memory, 0, 1, 0, 1) == 1
        assert await run["kv_delete"](memory, 0, 1) == 0
        assert made.refused == {"kv_set": 1, "kv_compare_and_set": 1}
        assert made.unavailable == {}


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("kv_get", b":1\r\n"), ("kv_get", b"*1\r\n$1\r\na\r\n"), ("kv_set", b"+OK\r\n"), ("kv_set", b":-99\r\n"),
        ("kv_set", b"$-1\r\n"), ("kv_delete", b"*0\r\n"), ("kv_list", b":0\r\n"), ("kv_list", b"*1\r\n:1\r\n"),
        ("kv_list", b"$-1\r\n"), ("kv_incr", b"$20\r\n99999999999999999999\r\n"), ("kv_incr", b"$1\r\nx\r\n"),
        ("kv_incr", b"$20\r\n-9223372036854775808\r\n"), ("kv_incr", b"$-1\r\n"), ("kv_set_ttl", b"$1\r\n1\r\n"),
        ("kv_compare_and_set", b"*-1\r\n"),
    ],
)  # fmt: skip
async def test_an_answer_that_no_script_gives_is_none(host, name, answer):
    """Whoever answers is no server of ours: the call ends, and no guest takes it for its own."""
    async with FaultyValkey(answer) as server:
        made = host(kv={"scope": "Cluster", "valkey": server.settings("10s")})
        [key] = [each for each in HOST_FUNCTIONS if each[1] == name]
        with pytest.raises(StoreError, match="answers a script as it should not"):
            await made.functions()[key].run(Memory(), *[1] * len(HOST_FUNCTIONS[key].params))


async def test_settings_that_cannot_be_used_are_refused_when_the_plugin_is_loaded(host):
    """And not at its first call."""
    reference = {"name": "s", "key": "gone"}
    with pytest.raises(ConfigError, match=r"spec.kv.valkey.urlFrom names the key 'gone' of Secret 's'"):
        host(kv={"scope": "Cluster", "valkey": {"urlFrom": reference}})


async def test_what_is_over_is_cleared_by_those_who_write(redis):
    """A few entries each, and not only where there is no room: a guest whose keys all end leaves little behind."""
    plugin = BundlePlugin.model_validate({"name": "guest", **on_server(redis)})
    keys = ClusterKv(plugin, plugin.kv.valkey, {})
    for number in range(20):
        await keys.put(b"%d" % number, b"v")
        assert await keys.set_ttl(b"%d" % number, 1)
    entries = keys._keys[0]

    async def cleared() -> bool:
        await keys.put(b"one", b"v")
        return await keys._valkey.command(b"HLEN", entries) == 1

    await until_true(cleared, "an end of what is over")
    assert await keys.list_keys(b"") == [b"one"]
    keys.close()


async def test_a_call_that_is_cancelled_leaves_the_others_theirs(host, redis):
    """Its guest has reached `limits.wait`, or its client has gone."""
    made = host(**on_server(redis))
    incr = made.functions()["hookline", "kv_incr"].run
    assert await incr(Memory(), 0, 1, 1) == 1
    tasks = [asyncio.ensure_future(incr(Memory(), 0, 1, 1)) for _ in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert answers[1::2] == list(range(3, 22, 2))  # those that were cancelled had been sent, and were counted
    assert await incr(Memory(), 0, 1, 0) == 21
