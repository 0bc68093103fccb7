"""The functions for keys answer the same codes in the pod and on a server, whatever a guest hands them."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hookline_api.abi import E_MEMORY, E_SIZE, HOST_FUNCTIONS
from hookline_runtime.host.kv import MAX_KEY, MAX_KEYS
from host_calls import Memory

_LEAST = -(2**63)


def test_a_key_or_a_value_above_the_cap_is_refused(scoped):
    """64 KiB each, and one byte more is one too many."""
    memory, (made, call) = Memory(), scoped()
    assert call["kv_set"](memory, 0, MAX_KEY, 0, MAX_KEY) == 0
    assert call["kv_set"](memory, 0, MAX_KEY + 1, 0, 1) == -1
    assert call["kv_set"](memory, 0, 1, 0, MAX_KEY + 1) == -1
    assert call["kv_get"](memory, 0, MAX_KEY + 1, 0, 1) == -2
    assert made.refused == {"kv_set": 2, "kv_get": 1}


def test_a_plugin_at_its_cap_of_keys_is_told_and_seen(scoped):
    """The 1025th key; the operator of the pod sees it in the count of refusals."""
    memory, (made, call) = Memory(), scoped()
    for number in range(MAX_KEYS):
        assert call["kv_set"](memory, *memory.put(0, str(number).encode()), 0, 1) == 0
    assert call["kv_set"](memory, *memory.put(0, b"one more"), 0, 1) == -1
    assert call["kv_incr"](memory, *memory.put(0, b"one more"), 1) == _LEAST
    assert call["kv_set"](memory, *memory.put(0, b"7"), 0, 1) == 0
    assert made.refused == {"kv_set": 1, "kv_incr": 1}


def test_a_miss_is_no_refusal(scoped):
    """Asking for what is not there is everyday."""
    made, call = scoped()
    assert call["kv_get"](Memory(), 0, 3, 0, 3) == -1
    assert made.refused == {}


def test_the_other_kv_functions_answer_as_documented(scoped):
    """List in order, increment, compare and set, time to live."""
    memory, (_, call) = Memory(), scoped()
    assert memory.given(call["kv_list"](memory, 0, 0)) == []
    for key in (b"b", b"a", b"ab", b"\xff"):
        assert call["kv_set"](memory, *memory.put(0, key), 50, 1) == 0
    assert memory.given(call["kv_list"](memory, 0, 0)) == ["a", "ab", "b"]
    assert memory.given(call["kv_list"](memory, *memory.put(0, b"a"))) == ["a", "ab"]
    number = memory.put(0, b"number")
    assert call["kv_incr"](memory, *number, 5) == 5
    assert call["kv_incr"](memory, *number, -7) == -2
    assert call["kv_incr"](memory, *memory.put(10, b"a"), 1) == _LEAST
    old, new = memory.put(20, b"-2"), memory.put(30, b"new")
    assert call["kv_compare_and_set"](memory, *number, 20, -1, *new) == 0
    assert call["kv_compare_and_set"](memory, *number, *old, *new) == 1
    assert call["kv_compare_and_set"](memory, *number, *old, *new) == 0
    assert call["kv_set_ttl"](memory, *number, 60_000) == 1
    assert call["kv_set_ttl"](memory, *memory.put(40, b"absent"), 60_000) == 0
    assert call["kv_set_ttl"](memory, *number, 0) == 1


def test_plugins_do_not_see_each_others_keys(scoped):
    """The namespace is the plugin's name."""
    memory = Memory()
    key = memory.put(0, b"key")
    assert scoped("one")[1]["kv_set"](memory, *key, 0, 3) == 0
    assert scoped("two")[1]["kv_get"](memory, *key, 100, 100) == -1
    assert memory.given(scoped("two")[1]["kv_list"](memory, 0, 0)) == []


def test_a_list_of_keys_is_bounded_as_well(scoped):
    """1 MiB of keys at the most."""
    memory, (_, call) = Memory(1_300_000), scoped()
    for number in range(17):
        memory.put(0, b"%02d" % number + bytes(MAX_KEY - 2))
        assert call["kv_set"](memory, 0, MAX_KEY, 0, 0) == 0
    assert call["kv_list"](memory, *memory.put(0, b"0")) >> 32
    assert call["kv_list"](memory, 0, 0) == -E_SIZE


_KEYS = [key for key in HOST_FUNCTIONS if key[1].startswith("kv_")]


@pytest.mark.parametrize("key", _KEYS, ids=".".join)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_no_argument_does_anything_but_answer(scoped, key, data):
    """Each parameter over all of its type: a number, and never an exception."""
    function = HOST_FUNCTIONS[key]
    edges = {
        "i": st.one_of(st.integers(-(2**31), 2**31 - 1), st.sampled_from([0, -1, 299_999, 300_000, 70_000, 64])),
        "I": st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([0, -1, _LEAST])),
    }
    arguments = [data.draw(edges[letter]) for letter in function.params]
    answer = scoped()[1][key[1]](Memory(), *arguments)
    assert type(answer) is int
    assert -(2**63) <= answer < 2**63


@pytest.mark.parametrize("key", _KEYS, ids=".".join)
@pytest.mark.parametrize("place", [0, 2, 4])
def test_a_pointer_outside_memory_is_an_error_at_every_place(scoped, key, place):
    """Negative and past the end; nothing is written, and the refusal is counted."""
    function = HOST_FUNCTIONS[key]
    if place >= function.params.count("i"):
        return
    made, call = scoped()
    memory = Memory()
    assert call["kv_set"](memory, 4, 4, *memory.put(100, b"four")) == 0
    for bad in (-1, 300_000, 299_999, 2**31 - 1, -(2**31)):
        arguments = [4] * len(function.params)
        arguments[place] = bad
        before = bytes(memory.data)
        assert call[key[1]](memory, *arguments) in {E_MEMORY, -E_MEMORY, _LEAST}
        assert memory.data == before
    assert made.refused == {key[1]: 5}


def test_the_four_functions_of_heliosdb_do_what_they_do_there(scoped):
    """Return codes as in docs/author/guest-abi.md, each of them."""
    memory, (_, call) = Memory(), scoped()
    key, value = memory.put(0, b"key"), memory.put(100, b"value")
    assert call["kv_get"](memory, *key, 1000, 100) == -1
    assert call["kv_set"](memory, *key, *value) == 0
    assert call["kv_get"](memory, *key, 1000, 5) == 5
    assert memory.data[1000:1005] == b"value"
    assert call["kv_get"](memory, *key, 2000, 4) == -2
    assert memory.data[2000:2004] == bytes(4)
    assert call["kv_delete"](memory, *key) == 0
    assert call["kv_delete"](memory, *key) == 0
    assert call["kv_get"](memory, *key, 1000, 5) == -1
