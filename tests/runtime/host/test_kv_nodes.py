"""A server in cluster mode: whichever node is named, a plugin's keys are found, and all of them on one node."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from faulty_valkey import FaultyValkey
from hookline_api.bundle import BundlePlugin
from hookline_runtime.host.backends import valkey as valkey_module
from hookline_runtime.host.backends.valkey import Valkey, ValkeyAwayError, ValkeyReplyError
from hookline_runtime.host.kv_cluster import ClusterKv
from kv_scopes import on_server
from local_ports import reserve_port
from valkey import redis_server
from waiting import until, until_true


@pytest.fixture(scope="module")
def nodes(redis_program, tmp_path_factory):
    """Two nodes, each with half of the slots."""
    with contextlib.ExitStack() as stack:
        made = []
        for number in range(2):
            bus = reserve_port()
            options = ("--cluster-enabled", "yes", "--cluster-port", str(bus))
            folder = tmp_path_factory.mktemp(f"node{number}")
            made.append((stack.enter_context(redis_server(redis_program, folder, *options)), bus))
        (first, _), (second, bus) = made
        first.ask("CLUSTER", "ADDSLOTSRANGE", "0", "8191")
        second.ask("CLUSTER", "ADDSLOTSRANGE", "8192", "16383")
        first.ask("CLUSTER", "MEET", "127.0.0.1", str(second.port), str(bus))
        for node in (first, second):
            until(lambda node=node: b"cluster_state:ok" in node.ask("CLUSTER", "INFO"), "a cluster")
        yield first, second


@pytest.mark.parametrize("initial", [{}, {"n": "10"}], ids=["", "initial"])
async def test_whichever_node_is_named_each_plugin_finds_its_keys(nodes, initial):
    """Half of them are elsewhere: the client goes there, once, and calls do not notice."""
    settings = on_server(nodes[0])
    unavailable: dict[str, str] = {}
    made = []
    for number in range(16):
        kv = {**settings["kv"], "initial": initial}
        plugin = BundlePlugin.model_validate({"name": f"p{number}", "namespace": settings["namespace"], "kv": kv})
        made.append(ClusterKv(plugin, plugin.kv.valkey, unavailable))
    for keys in made:
        sums = await asyncio.gather(*(keys.increment(b"n", 1) for _ in range(20)))
        first = int(initial.get("n", 0)) + 1
        assert sorted(sums) == list(range(first, first + 20))
    assert unavailable == {}
    there = [each._valkey._node for each in made]
    assert {None, ("127.0.0.1", nodes[1].port)} == {*there}
    for keys in made:
        keys.close()


async def test_keys_of_several_nodes_do_not_make_it_run_to_and_fro(client_of, nodes, monkeypatch):
    """It moves once, where all that it was asked meanwhile is answered; who then asks for the others is told."""
    monkeypatch.setattr(valkey_module, "_LEAST_STAY_S", 3600)
    asked = client_of(nodes[0].settings())
    asked._moved_at = -7200
    names = [b"k%d" % number for number in range(40)]
    assert await asyncio.gather(*(asked.command(b"SET", name, b"v") for name in names)) == [b"OK"] * 40
    answers = await asyncio.gather(*(asked.command(b"SET", name, b"v") for name in names), return_exceptions=True)
    refused = [each for each in answers if isinstance(each, ValkeyReplyError)]
    assert refused
    assert {each.code for each in refused} == {"MOVED"}
    assert len(refused) + answers.count(b"OK") == len(names)


async def test_a_node_that_leads_nowhere_is_left_for_the_one_that_is_named(client_of):
    """A failover: what it said was true a moment ago."""
    async with FaultyValkey(b"-MOVED 5 127.0.0.1:1\r\n") as server:
        asked = client_of(server.settings("10s"))
        with pytest.raises(ValkeyAwayError, match="cannot be reached"):
            await asked.command(b"GET", b"k")
        await until_true(lambda: asked._why is None, "the node that is named")
        assert await asked.command(b"ECHO", b"x") == b"x"


@pytest.mark.parametrize("words", [b"", b" 1", b" 1 ", b" 1 a:b", b" 1 a:", b" 1 " + b"9" * 50, b" 1 a:999999"])
async def test_a_redirection_that_is_none_is_an_error(client_of, words):
    """And nobody goes anywhere."""
    async with FaultyValkey(b"-MOVED" + words + b"\r\n") as server:
        with pytest.raises(ValkeyReplyError, match="answers MOVED: it is a node of a cluster"):
            await client_of(server.settings()).command(b"GET", b"k")
        assert server.connections == 1


@pytest.fixture
async def client_of():
    """Makes clients."""
    made = []

    def make(server):
        made.append(Valkey(server, {}, {}, "keys"))
        return made[-1]

    yield make
    for each in made:
        each.close()
