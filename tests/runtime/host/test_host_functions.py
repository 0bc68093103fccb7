"""Host functions answer their documented codes, whatever a guest hands them, and only with their permission."""

from __future__ import annotations

import hashlib
import hmac
import logging

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hookline_api.abi import E_ARGUMENT, E_DENIED, E_MEMORY, E_SIZE, E_UNAVAILABLE, HOST_FUNCTIONS
from hookline_api.bundle import BundlePlugin
from hookline_api.hooks import Hook
from hookline_runtime.host.context import HostContext
from hookline_runtime.host.functions import PluginHost
from hookline_runtime.plugin import breaker
from hookline_runtime.runtime import PrepareError
from host_calls import EVERYTHING, Memory, calls

_TYPES = {"i": "i32", "I": "i64", "F": "f64"}
_LEAST = -(2**63)
LOCAL = [key for key in HOST_FUNCTIONS if not key[1].startswith(("query_", "cache_", "http_"))]
"""Those that ask nobody else: the others have tests beside what they ask."""


def _failure(name: str, code: int) -> int:
    """How a function says a code (docs/author/guest-abi.md)."""
    module = "env" if ("env", name) in HOST_FUNCTIONS else "hookline"
    if module == "env":
        return E_SIZE if name == "kv_get" and code == E_SIZE else -1
    if name == "kv_incr":
        return _LEAST
    return -code if HOST_FUNCTIONS[module, name].results == "I" else code


@pytest.mark.parametrize("key", [key for key, function in HOST_FUNCTIONS.items() if function.permission], ids=".".join)
async def test_a_call_without_its_permission_answers_its_code_and_is_counted(workshop, wat, key):
    """In a real guest: it does not trap, runs nothing, and the denial is to be seen."""
    module, name = key
    function = HOST_FUNCTIONS[key]
    arguments = " ".join(
        "(f64.const 1)" if letter == "F" else f"({_TYPES[letter]}.const 1024)" for letter in function.params
    )
    call = f"(call ${name} {arguments})"
    text = wat.module(
        imports=wat.host(
            module, name, " ".join(_TYPES[letter] for letter in function.params), _TYPES[function.results]
        ),
        hooks={"custom_hook": f"(call $number {call if function.results == 'I' else f'(i64.extend_i32_s {call})'})"},
    )
    runtime = await workshop.guest(text, permissions=[each for each in EVERYTHING if each != function.permission])
    answer = (await runtime.call(Hook.CUSTOM, b"0")).get("value")
    said = {"error": {"cause": "denied", "message": f"{name} needs the permission {function.permission}"}}
    if name.startswith(("query_", "http_")):  # they say it in JSON, where the guest's alloc says
        assert answer > 0
        assert answer & 0xFFFFFFFF == len(orjson.dumps(said))
    else:
        assert answer == _failure(name, E_DENIED) or (name == "kv_incr" and str(answer).startswith("-"))
    assert runtime.plugins["guest"].host.denied == {name: 1}
    assert workshop.kv.usage() == {}


@pytest.mark.parametrize("key", HOST_FUNCTIONS, ids=".".join)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_no_argument_of_a_host_function_does_anything_but_answer(host, key, data):
    """Each parameter of each function, over all of its type: a number, and never an exception."""
    function = HOST_FUNCTIONS[key]
    edges = {
        "i": st.one_of(st.integers(-(2**31), 2**31 - 1), st.sampled_from([0, -1, 299_999, 300_000, 70_000, 64])),
        "I": st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([0, -1, _LEAST])),
        "F": st.floats(),
    }
    arguments = [data.draw(edges[letter]) for letter in function.params]
    answer = host(config={"a": 1}).functions()[key](Memory(), *arguments)
    bits = 64 if function.results == "I" else 32
    assert type(answer) is int
    assert -(2 ** (bits - 1)) <= answer < 2**bits


@pytest.mark.parametrize("key", [key for key in LOCAL if HOST_FUNCTIONS[key].params.startswith("ii")], ids=".".join)
@pytest.mark.parametrize("place", range(6))
def test_a_pointer_outside_memory_is_an_error_at_every_place(host, kv, key, place):
    """Negative and past the end; nothing is written, and the refusal is counted."""
    module, name = key
    function = HOST_FUNCTIONS[key]
    # Pairs of pointer and length, but for the outputs: sha256_hex's and hmac's last, random's first.
    pointers = {"log": (1,), "random": (0,), "sha256_hex": (0, 2), "hmac_sha256": (0, 2, 4)}.get(
        name, tuple(range(0, function.params.count("i"), 2))
    )
    if place not in pointers:
        return
    made = host(config={"a": 1})
    kv.put("guest", bytes(4), b"four")
    for bad in (-1, 300_000, 299_999, 2**31 - 1, -(2**31)):
        arguments = [1.0 if letter == "F" else 4 for letter in function.params]
        arguments[place] = bad
        memory = Memory()
        before = bytes(memory.data)
        assert made.functions()[module, name](memory, *arguments) == _failure(name, E_MEMORY)
        assert memory.data == before
    assert made.refused == {name: 5}


def test_a_digest_is_written_where_the_guest_wants_it(host):
    """Lower-case hexadecimal digits, as HeliosDB does."""
    memory, call = Memory(), calls(host())
    assert call["sha256_hex"](memory, *memory.put(100, b"value"), 3000) == 64
    assert memory.data[3000:3064] == hashlib.sha256(b"value").hexdigest().encode()


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (b"", {"a": {"b": [1]}, "n": None}), (b"a", {"b": [1]}), (b"a.b", [1]), (b"n", None),
        (b"a.c", 0), (b"x", 0), (b"a.b.0", 0), (b"a..b", 0), (b".", 0), (b"a" * 1024, 0),
    ],
)  # fmt: skip
def test_settings_are_read_by_path(host, path, found):
    """A dotted path into the config; 0 where there is nothing."""
    memory = Memory()
    answer = calls(host(config={"a": {"b": [1]}, "n": None}))["get_config"](memory, *memory.put(0, path))
    assert (memory.given(answer) if answer else 0) == found


@pytest.mark.parametrize(("path", "code"), [(b"\xff", -E_ARGUMENT), (b"a" * 1025, -E_SIZE)])
def test_a_malformed_path_is_told_apart_from_nothing_there(host, path, code):
    """Not UTF-8, and too long."""
    memory = Memory()
    assert calls(host(config={"a": 1}))["get_config"](memory, *memory.put(0, path)) == code


def test_a_setting_that_cannot_be_written_as_json_is_an_error_in_the_functions_own_way(host):
    """An integer of more than 64 bits: a code without its sign, and no pointer to the end of memory."""
    memory = Memory()
    made = host(config={"n": 2**70})
    assert calls(made)["get_config"](memory, *memory.put(0, b"n")) == -E_UNAVAILABLE
    assert made.refused == {"get_config": 1}


def test_without_a_store_the_kv_functions_say_not_now():
    """A runtime that was given no store."""
    call = calls(PluginHost(BundlePlugin.model_validate({"name": "p", "permissions": EVERYTHING}), HostContext()))
    assert call["kv_list"](Memory(), 0, 0) == -E_UNAVAILABLE
    assert call["kv_incr"](Memory(), 0, 0, 1) == _LEAST
    assert call["kv_set"](Memory(), 0, 0, 0, 0) == -1


def test_codes_and_random_and_time(host):
    """The small ones."""
    memory, made = Memory(), host()
    call = calls(made)
    assert call["hmac_sha256"](memory, *memory.put(0, b"key"), *memory.put(10, b"text"), 100) == 32
    assert memory.data[100:132] == hmac.digest(b"key", b"text", "sha256")
    assert call["random"](memory, 1000, 4096) == 0
    assert memory.data[1000:5096] != bytes(4096)
    assert call["random"](memory, 1000, 4097) == E_SIZE
    assert 1_700_000_000_000 < call["get_time"](memory) < 10**14


def test_hashing_is_bounded_so_that_one_call_cannot_outlast_its_deadline(host):
    """A host function is not interrupted: what it does in one call has to be small."""
    memory = Memory(20 * 2**20)
    made = host()
    assert calls(made)["sha256_hex"](memory, 0, 16 * 2**20, 0) == 64
    assert calls(made)["sha256_hex"](memory, 0, 16 * 2**20 + 1, 0) == -1
    assert calls(made)["hmac_sha256"](memory, 0, 16 * 2**20 + 1, 0, 1, 0) == E_SIZE
    assert calls(made)["hmac_sha256"](memory, 0, 1, 0, 16 * 2**20 + 1, 0) == E_SIZE


@pytest.mark.parametrize("pages", [0, 2])
async def test_a_start_function_may_call_the_host(workshop, wat, caplog, pages):
    """Its memory is there while the library has not said yet where; each instance has its own."""
    text = wat.module(
        f"""(start $begin)
        (func $begin
          (drop (memory.grow (i32.const 2)))
          (memory.init $word (i32.const 1024) (i32.const 0) (i32.const 5))
          (drop (call $log (i32.const 4) (i32.const 1024) (i32.const 5)))
          (drop (call $log (i32.const 4) (i32.const {(pages + 2) * 65536 - 2}) (i32.const 3)))
          (global.set $given (call $get_config (i32.const 0) (i32.const 0))))
        (data $word "hello")
        (global $given (mut i64) (i64.const 0))""",
        imports=wat.host("hookline", "log", "i32 i32 i32", "i32")
        + wat.host("hookline", "get_config", "i32 i32", "i64"),
        memory=f'(memory (export "memory") {pages})',
        hooks={"custom_hook": "(global.get $given)"},
    )
    runtime = await workshop.guest(text, config={"a": [1]}, permissions=["config.read"])
    with caplog.at_level(logging.ERROR, "hookline.guest"):
        for _ in range(20):
            assert (await runtime.call(Hook.CUSTOM, b"0"))["value"] == {"a": [1]}
    assert {record.message for record in caplog.records} == {"guest: hello"}


async def test_a_start_function_that_traps_behind_a_host_call_harms_nobody(workshop, wat, monkeypatch):
    """What it left is not what the next instance in its place sees."""
    text = wat.module(
        """(start $begin)
        (func $begin
          (drop (call $random (i32.const 100) (i32.const 1)))
          (if (i32.lt_u (i32.load8_u (i32.const 100)) (i32.const 100)) (then unreachable)))""",
        imports=wat.host("hookline", "random", "i32 i32", "i32"),
        hooks={"custom_hook": wat.echo},
    )
    monkeypatch.setattr(breaker, "_THRESHOLD", 1000)
    entry = await workshop.plugin(text)
    for _ in range(64):  # its first instance is as likely to trap
        try:
            runtime = await workshop.run(entry)
            break
        except PrepareError:
            continue
    answers = [await runtime.call(Hook.CUSTOM, b"7") for _ in range(60)]
    assert {answer.get("failure", answer.get("value")) for answer in answers} == {"trap", 7}


def test_large_settings_are_kept_as_json_and_say_the_same(host):
    """Whatever is asked of them, and however often: as of small ones, byte for byte."""
    deep = {"a": {"b": [1, 2.5, None, "ä"], "": 0, "list": ["x"]}, "b": "text", "": {"": 1}, "a.b": 2}
    small, large = host(config=deep), host(config={**deep, "filler": "x" * 20_000})
    asked = ["", "a", "a.b", "a.b.c", "a.", "a.list", "b", "b.c", "none", "none.x", ".", "a..", "a.list.0", "a.b"]
    for path in asked[1:]:
        one, other = Memory(), Memory()
        packed = calls(small)["get_config"](one, *one.put(0, path.encode()))
        assert calls(large)["get_config"](other, *other.put(0, path.encode())) == packed
        assert one.data == other.data
    memory = Memory()
    packed = calls(large)["get_config"](memory, 0, 0)
    assert memory.given(packed) == {**deep, "filler": "x" * 20_000}
