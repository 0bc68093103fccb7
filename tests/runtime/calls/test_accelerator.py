"""The accelerator never says anything else than the Python code that it stands for."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hookline_api.hooks import Hook
from hookline_api.resources import Match
from hookline_runtime.call import inputs, looks, shapes
from hookline_runtime.call.matching import Choice
from hookline_runtime.errors import CallError, InputError, TrapError
from hookline_runtime.guest import accelerator, engine
from hookline_runtime.guest.calls import Guest, Instance

pytestmark = pytest.mark.skipif(accelerator.unused is not None, reason=str(accelerator.unused))

_native = pytest.mark.skipif(os.environ.get("HOOKLINE_CALLS") == "official", reason="it calls no guest there")
_CONTEXT = {
    "request_id": "r-1", "client_id": None, "identity": "ann", "database": "shop", "branch": None,
    "attributes": {"tenant_id": "t", "ü": "\\"},
}  # fmt: skip
_QUERY = {"query": 'select "ä€𝄞" from t -- \n', "normalized": "select $1", "tables": ["t", "u"], "is_read_only": True}
_WHOLE = _QUERY | {"hook_context": _CONTEXT}
_BODIES = {
    Hook.PRE_QUERY: _WHOLE,
    Hook.REWRITE: _WHOLE,
    Hook.ROUTE: _WHOLE | {"more": {"of": [1, -2.5, None, True, [[]], {}, ""]}},
    Hook.AUTHORIZE: _WHOLE | {"identity": None, "action": "read", "resource": ""},
    Hook.CACHE_GET: _WHOLE | {"key": "k"},
    Hook.CACHE_SET: _WHOLE | {"key": "k", "value": "AA==", "ttl_ms": 5},
    Hook.METRICS: {"hook_context": _CONTEXT, "event": {"n": 0.5}},
}
_PIECES = [
    b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b" ", b"\n", b"\x00", b"\x1f", b"\x7f", b"\x80", b"\xc0\x80",
    b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xff", "é".encode(), "𝄞".encode(), b"\xef\xbb\xbf",
    b"null", b"true", b"fals", b"NaN", b"0", b"-0", b"01", b"1.", b".5", b"1e5", b"1e400", b"18446744073709551616",
    b"9" * 400, b'"x"', b'"\\ud800"', b'"\\ud834\\udd1e"', b'"\\u0041"', b"\\u00", b'"query":',
    b'"\\u0071uery":null,', b'"hook_context":{},', b'"request_id":"",', b'"tables":[1],',
    b'"request_id":"' + b"x" * 257 + b'",', b'"normalized":"",', b'"n":', b'"n":0,',
    b'"attributes":{"a":1},', b"[" * 40, b"[" * 40 + b"]" * 40, b"{}",
]  # fmt: skip


def _agrees(hook: Hook, body: bytes) -> bool:
    """Whether the accelerator finds it complete; and then it is, with that request id."""
    quoted, key = accelerator.scan(looks.LOOKS[hook], body) or (None, b"")
    assert key == b""
    within = accelerator.scan_from(looks.LOOKS[hook], b"[" + body + b"]", 1)
    if within is not None:
        assert accelerator.scan(looks.LOOKS[hook], body[: within[1] - 1]) == within[0]
    if quoted is None:
        return False
    document = orjson.loads(body)
    assert within == ((quoted, b""), 1 + len(body.rstrip(b" \n\r\t")))
    found = shapes.SHAPES[hook].fits(document)
    assert found is not None
    assert quoted == orjson.dumps(found)
    call = inputs.read_call(hook, body)
    assert (call.data, call.request_id, call.rewritten, call.unsaid) == (body, found, False, frozenset())
    assert call._document == document
    return True


@pytest.mark.parametrize("hook", _BODIES)
@pytest.mark.parametrize("form", [{}, {"indent": 3}, {"ensure_ascii": False, "separators": (",", ":")}])
def test_what_proxies_send_is_found_complete(hook, form):
    """Without this, all else here would hold of an accelerator that never knows."""
    body = json.loads(json.dumps(_BODIES[hook]))
    if form.get("ensure_ascii", True):
        body["hook_context"]["attributes"].pop("ü")  # its value is an escape; and 𝄞 is two
        if "query" in body:
            body["query"] = "select 'ä'"
    assert _agrees(hook, json.dumps(body, **form).encode())


@pytest.mark.parametrize("hook", _BODIES)
def test_whatever_is_cut_off_or_missing_is_left_to_python(hook):
    """Each prefix, and each body without one field, or with that field twice."""
    body = json.dumps(_BODIES[hook], ensure_ascii=False).encode()
    assert not any(_agrees(hook, body[:end]) for end in range(len(body)))
    for name in shapes.NAMES[hook]:
        assert not _agrees(hook, json.dumps({k: v for k, v in _BODIES[hook].items() if k != name}).encode())
        assert not _agrees(hook, b"{" + json.dumps({name: _BODIES[hook][name]}).encode()[1:-1] + b"," + body[1:])


@st.composite
def _mutated(draw):
    hook = draw(st.sampled_from(list(_BODIES)))
    body = json.dumps(_BODIES[hook], ensure_ascii=draw(st.booleans())).encode()
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(body)))
        piece = draw(st.sampled_from(_PIECES) | st.binary(max_size=3))
        body = body[:at] + piece + body[at + draw(st.integers(0, 6)) :]
    return hook, body


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def _changed(draw):
    hook = draw(st.sampled_from(list(_BODIES)))
    document = json.loads(json.dumps(_BODIES[hook]))
    for _ in range(draw(st.integers(1, 2))):
        target = draw(st.sampled_from([document, document["hook_context"], document["hook_context"]["attributes"]]))
        if isinstance(target, dict):
            target[draw(st.sampled_from([*target, "new"]))] = draw(_JSON)
        if not isinstance(document.get("hook_context"), dict) or not isinstance(
            document["hook_context"].get("attributes"), dict
        ):
            break
    return hook, json.dumps(document, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1]))).encode(
        errors="surrogatepass"
    )


_EXAMPLES = int(os.environ.get("HOOKLINE_FUZZ", "1500"))


@settings(max_examples=_EXAMPLES, deadline=None)
@given(_mutated() | _changed())
@example((Hook.METRICS, b'{"hook_context":{"request_id":"a\\n"}}'))
def test_never_is_anything_found_complete_that_is_not(case):
    """Bytes put in, left out and replaced, and values of every kind: in doubt it says nothing."""
    hook, body = case
    _agrees(hook, body)
    with pytest.MonkeyPatch.context() as patched:
        theirs = _read(hook, body)
        patched.setattr(inputs, "LOOKS", {})
        assert theirs == _read(hook, body)


def _read(hook, body):
    try:
        call = inputs.read_call(hook, body)
    except InputError as error:
        return str(error), error.field
    return call.data if call.data is body else call._document.keys(), call.query, call.tables, call.user, call.database


def test_a_body_of_any_length_is_read_to_its_end_and_no_further():
    """Strings end at each place relative to the eight bytes that are looked at together."""
    look = looks.LOOKS[Hook.ROUTE]
    for length in range(70):
        body = orjson.dumps(_WHOLE | {"query": "q" * length, "more": "é" * (length % 9)})
        assert accelerator.scan(look, body) == (b'"r-1"', b"")
        assert accelerator.scan(look, body + b" ") == (b'"r-1"', b"")
        assert accelerator.scan(look, body[:-1]) is None
    assert accelerator.scan(look, orjson.dumps(_WHOLE | {"query": "q" * 70_000})) is None


_TEXTS = {
    "database": [b"null", b'""', b'"shop"', b'"sh\\u006fp"', b'"other"', b'"shop\\"'],
    "identity": [b"null", b'""', b'"ann"', b'"bob"', b'"b\\u000ab"', b'"eve"'],
    "attributes": [
        b"{}", b'{"application_name":"till"}', b'{"a":"b", "application_name" : "web"}', b'{"application_name":""}',
        b'{"application_name":"till","application_name":"web"}', b'{"application\\u005fname":"till"}', b'{"\\n":""}',
    ],
    "tables": [b"[]", b'["items"]', b'[ "x" , "orders"]', b'["x", "orders"]', b'["x","\\u006frders"]', b'["x"]'],
    "is_read_only": [b"true", b"false"],
    "query": [
        b'"' + lead + word + rest + b'"'
        for lead in (b"", b" ", b"(", b"-- \\n", b"/*!*/", b"\\u0020", b"\\t")
        for word in (b"select", b"SeLeCt", b"delete", b"with", b"drop", b"")
        for rest in (b"", b" 1", b"1", b"\xc3\xa9", b";", b" 1;", b";;", b"; drop", rb"\u003b drop", rb"\\u003b drop",
                     rb"\n;\n", rb" \";", rb" from \"t\"", b" '" + b"x" * 600 + b"'")
    ],
}  # fmt: skip
_OUTSIDE = ["database", "username", "query", "tables", "is_read_only"]
_ODD = [b"null", b"false", b"0", b"1", b"12", b'"shop"', b'"ann"', b'["items"]', b'{"a": [0]}', b'"select 1"', b"true"]


@st.composite
def _said(draw):
    hook = draw(st.sampled_from(list(_BODIES)))
    document, context = ({k: json.dumps(v).encode() for k, v in part.items()} for part in (_BODIES[hook], _CONTEXT))
    for name, texts in _TEXTS.items():
        if name in context or name in document:
            (context if name in context else document)[name] = draw(st.sampled_from(texts))
    for name in draw(st.sets(st.sampled_from(_OUTSIDE), max_size=2)):
        document[name] = draw(st.sampled_from(_ODD if name not in _BODIES[hook] else _TEXTS[name]))
    document["hook_context"] = _object(draw, context)
    return hook, _object(draw, document)


def _object(draw, texts):
    space = draw(st.sampled_from([b"", b"", b" "]))
    members = [b'"%b":%b%b' % (name.encode(), space, text) for name, text in texts.items()]
    return b"{" + b",".join(reversed(members) if draw(st.booleans()) else members) + b"}"


_MATCHES = [
    Match(databases=["shop"]), Match(users=["ann", "b*"]), Match(applications=["till"]), Match(tables=["items", "o*"]),
    Match(query_classes=["write", "select"]), Match(query_classes=["ddl", "delete"]),
]  # fmt: skip
_CHOICES = [Choice(list(enumerate(each))) for each in [_MATCHES, *([one] for one in _MATCHES)]]
_chosen: dict[tuple[int, Hook, bytes], tuple[int, ...]] = {}


@settings(max_examples=_EXAMPLES, deadline=None)
@given(_said() | _said() | _mutated() | _changed())
def test_calls_of_one_key_are_for_the_same_plugins(case):
    """Whatever else they say; and the key is there wherever the request id alone would be, if it is short."""
    _check_key(*case)


@pytest.mark.parametrize("is_read_only", [True, False])
def test_queries_of_one_key_are_of_the_same_classes(is_read_only):
    """Every way to begin one, and to hide another statement behind it."""
    body = orjson.dumps(_WHOLE | {"query": "Q", "is_read_only": is_read_only})
    for query in _TEXTS["query"]:
        _check_key(Hook.ROUTE, body.replace(b'"Q"', query))


def _check_key(hook: Hook, body: bytes) -> None:
    for at, choice in enumerate(_CHOICES):
        found = accelerator.scan(looks.look(hook, choice.facts), body)
        if found is None:
            continue
        assert accelerator.scan(looks.LOOKS[hook], body) == (found[0], b"")
        chosen = choice._chosen(inputs.read_document(hook, inputs.read_json(body), body))
        assert _chosen.setdefault((at, hook, found[1]), chosen) == chosen


def test_a_key_has_no_more_of_a_query_than_its_class_needs():
    """So that the next query of its kind is known already. A fact that the proxy did not say is in no key."""

    def key(facts, **said):
        _, key = accelerator.scan(looks.look(Hook.ROUTE, frozenset(facts)), orjson.dumps(_WHOLE | said))
        return key

    assert key([]) == b""
    assert key(["classes"], query="select 1;") == key(["classes"], query='select "\n" from t') != b""
    assert len({key(["classes"], query=each) for each in ("select 1", "SELECT 1", "select 1; drop", "(select 1)")}) == 4
    assert key(["application"]) == b""
    assert len({key([fact]) for fact in ("database", "user", "tables", "classes")}) == 4
    assert key(["tables"], tables=["t" * 500]) != b""
    assert accelerator.scan(looks.look(Hook.ROUTE, {"tables"}), orjson.dumps(_WHOLE | {"tables": ["t" * 510]})) is None


def test_what_is_no_shape_is_refused():
    """Nothing but bytes of the right length and counts is read; a name that does not fit is no name."""
    look, body = looks.LOOKS[Hook.ROUTE], orjson.dumps(_WHOLE)
    size = len(look) // 3
    wrong = [None, look.decode("latin-1"), bytearray(look), b"", look[:-1], look + b"\0", look[:size]]
    wrong += [look[: size - 2] + b"\x11\x00" + look[size:], look[:-1] + b"\x01", look[:-2] + b"\xff\xff"]
    for each in wrong:
        with pytest.raises(TypeError, match="scan"):
            accelerator.scan(each, body)
    assert accelerator.scan(b"\xff" * (size - 2) + b"\x10\x10" + look[size:], body) is None
    for fields in ([("x" * 29, 1, 0, 0)], [("x", 1, 0, 0)] * 17):
        with pytest.raises(ValueError, match="too"):
            accelerator.shape(fields, 0)
    for start in (-1, len(body) + 1, 2**63, 2**64, -(2**64)):
        with pytest.raises((ValueError, OverflowError)):
            accelerator.scan_from(look, body, start)
    for body_, start in (body, "0"), (bytearray(body), 0), (body.decode(), 0), (None, 0):
        with pytest.raises((ValueError, TypeError)):
            accelerator.scan_from(look, body_, start)
    assert accelerator.scan_from(look, body, len(body)) is None


_ALLOC = """
(global $at (mut i32) (i32.const 65536))
(func $alloc (export "alloc") (param $n i32) (result i32)
  (if (i32.eq (local.get $n) (i32.const 13)) (then (return (i32.const 0))))
  (if (i32.eq (local.get $n) (i32.const 17)) (then unreachable))
  (if (i32.eq (local.get $n) (i32.const 19)) (then (return (i32.const 0xfffffff0))))
  (if (i32.eq (local.get $n) (i32.const 23)) (then (loop $ever (br $ever))))
  (if (i32.eq (local.get $n) (i32.const 29))
    (then (return (i32.mul (memory.grow (i32.const 1)) (i32.const 65536)))))
  (global.get $at))
"""
_DEALLOC = """
(global $freed (mut i32) (i32.const 0))
(func (export "dealloc") (param $p i32) (param $n i32)
  (if (i32.eq (i32.load8_u (local.get $p)) (i32.const 57)) (then unreachable))
  (if (i32.eq (i32.load8_u (local.get $p)) (i32.const 58)) (then (loop $ever (br $ever))))
  (global.set $freed (i32.add (global.get $freed) (local.get $n))))
"""
_REGION = f'(func (export "hookline_input") (result i64) (i64.const {70_000 << 32 | 12}))'
_HOOK = """
(local.set $i (i32.load8_u (local.get $p)))
(if (i32.eq (local.get $i) (i32.const 49)) (then unreachable))
(if (i32.eq (local.get $i) (i32.const 50)) (then (loop $ever (br $ever))))
(if (i32.eq (local.get $i) (i32.const 51)) (then (return (i64.const 0))))
(if (i32.eq (local.get $i) (i32.const 52)) (then (return (i64.const 0x7fffffff00000004))))
(if (i32.eq (local.get $i) (i32.const 53)) (then (return (i64.const 0x0000040000000800))))
(if (i32.eq (local.get $i) (i32.const 54))
  (then (drop (memory.grow (i32.const 1)))
        (return (i64.or (i64.shl (i64.extend_i32_u (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 8)))
                                 (i64.const 32)) (i64.const 8)))))
(if (i32.eq (local.get $i) (i32.const 55)) (then (return (call $get_config (local.get $p) (local.get $n)))))
(if (i32.eq (local.get $i) (i32.const 56))
  (then (return (call $number (i64.extend_i32_u (global.get $freed))))))
(if (i32.eq (local.get $i) (i32.const 48)) (then (return (i64.const 0x0000040000000005))))
"""


@_native
@pytest.mark.parametrize("region", ["", _REGION])
@pytest.mark.parametrize("frees", [_DEALLOC, "(global $freed i32 (i32.const 0))"])
async def test_every_call_comes_to_the_same_with_it_and_without(workshop, wat, region, frees):
    """Answers, refusals and their words, memory and what is freed: after calls that went the common way."""
    entry = await workshop.plugin(
        wat.module(
            region,
            imports=wat.host("hookline", "get_config", "i32 i32", "i64"),
            hooks={"custom_hook": _HOOK + wat.echo},
            data={1024: b"again"},
            alloc=_ALLOC,
            dealloc=frees,
        ),
        hooks=["custom_hook"],
        limits={"timeout": "20ms", "output": "1Ki"},
    )
    module = engine.load_compiled(workshop.find(entry), fuel=False)
    host = {("hookline", "get_config"): lambda memory, pointer, length: memory.give(memory.read(pointer, length) * 2)}
    with_it, without = (Guest(module, limits=entry.limits, host=host) for _ in range(2))
    assert with_it.accelerated
    without.accelerated = False
    ticker = engine.Ticker()
    ticker.start()
    try:
        for first in b"0123456789:x":
            for size in (1, 5, 12, 13, 16, 17, 19, 23, 29, 60):
                said = [_answers(guest, bytes([first]) * size) for guest in (with_it, without)]
                assert said[0] == said[1]
                said = [_said_once(guest, bytes([first]) * size) for guest in (with_it, without)]
                assert said[0] == said[1]
    finally:
        ticker.stop()


_START = """
(func $begin (local $said i64)
  (local.set $said (call $get_config (i32.const 1024) (i32.const 5)))
  (if (i64.eq (local.get $said) (i64.const 1)) (then unreachable))
  (if (i64.eq (local.get $said) (i64.const 2)) (then (loop $ever (br $ever))))
  (if (i64.eq (local.get $said) (i64.const 3)) (then (drop (memory.grow (i32.const 2))))))
(start $begin)
"""


@_native
async def test_every_instance_comes_up_the_same_with_it_and_without(workshop, wat):
    """Each in the place of the one before: also where the guest asks the host, traps, loops or grows as it comes up."""
    entry = await workshop.plugin(
        wat.module(
            _START,
            _REGION,
            imports=wat.host("hookline", "get_config", "i32 i32", "i64"),
            hooks={"custom_hook": f"(drop (call $get_config (i32.const 0) (i32.const 8))) {wat.echo}"},
            data={1024: b"again"},
        ),
        hooks=["custom_hook"],
        limits={"timeout": "20ms"},
    )
    module = engine.load_compiled(workshop.find(entry), fuel=False)
    seen: list[object] = []
    wanted = [0]

    def host(memory, pointer, length):
        seen.append((memory.read(pointer, length), memory.give(b"0123456789"), memory.read(65_536, 4)))
        return wanted[0]

    def come_up(guest: Guest, before: Instance | None, timeout_ms: int | None) -> Instance | None:
        try:
            instance = guest.instantiate(timeout_ms=timeout_ms, instead_of=before)
            for data in (b"secret", b"x" * 65_536 * 2):
                answer = instance.call("custom_hook", data, last=True)
                seen.append((answer, instance.memory, instance.calls))
        except CallError as error:
            seen.append((type(error), str(error)))
            assert before is None or before.closed
            return None
        return instance

    came_up = []
    ticker = engine.Ticker()
    ticker.start()
    try:
        for accelerated in (True, False):
            guest = Guest(module, limits=entry.limits, host={("hookline", "get_config"): host})
            assert guest.accelerated
            guest.accelerated = accelerated
            instance = None
            for said in (0, 1, 0, 2, 2, 0, 3, 0, 3, 1, 1, 0):
                for timeout_ms in (None, 20, 100):
                    wanted[0] = said
                    instance = come_up(guest, instance, timeout_ms)
            came_up.append(seen.copy())
            seen.clear()
    finally:
        ticker.stop()
    assert came_up[0] == came_up[1]
    assert len({str(each) for each in came_up[0]}) > 8


_GROWING = """(func (export "alloc") (param i32) (result i32)
  (if (i32.eqz (memory.size)) (then (drop (memory.grow (i32.const 2)))))
  (i32.const 65536))"""
_YIELD = '(import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))'


@_native
@pytest.mark.parametrize("imports", ["", _YIELD])
@pytest.mark.parametrize("timeout_ms", [None, 20, 100])
async def test_the_input_of_a_guest_whose_memory_is_empty_at_first_is_put_into_that_memory(
    workshop, wat, imports, timeout_ms
):
    """Whoever made the store: there is no size yet by which anybody would see where it is."""
    memory = '(memory (export "memory") 0)'
    text = wat.module(imports=imports, memory=memory, alloc=_GROWING, hooks={"custom_hook": wat.echo})
    entry = await workshop.plugin(text, hooks=["custom_hook"], limits={"timeout": "20ms"})
    guest = Guest(engine.load_compiled(workshop.find(entry), fuel=False), limits=entry.limits, host={})
    instance, others = None, []
    for data in (b"one", b"two", b"x" * 60_000):
        instance = guest.instantiate(timeout_ms=timeout_ms, instead_of=instance)
        assert instance.call("custom_hook", data, last=False) == data
        assert instance.call("custom_hook", data, last=True) == data
        others.append(guest.instantiate(timeout_ms=timeout_ms))  # takes the place in the pool that comes next
    for each in (instance, *others):
        each.close()


@_native
async def test_the_time_of_an_instance_that_did_not_come_up_is_not_the_next_ones(workshop, wat):
    """It is used again within the same tick of the clock, which stands still here."""
    text = wat.module(
        _START,
        imports=wat.host("hookline", "get_config", "i32 i32", "i64"),
        hooks={"custom_hook": wat.echo},
        data={1024: b"again"},
    )
    entry = await workshop.plugin(text, hooks=["custom_hook"], limits={"timeout": "20ms"})
    wanted = [1]
    host = {("hookline", "get_config"): lambda _memory, _pointer, _length: wanted[0]}
    guest = Guest(engine.load_compiled(workshop.find(entry), fuel=False), limits=entry.limits, host=host)
    with pytest.raises(TrapError):
        guest.instantiate(timeout_ms=5000)
    wanted[0] = 0
    instance = guest.instantiate()
    assert instance.left_ns() <= 20_000_000
    instance.close()


@_native
async def test_what_does_not_come_up_takes_no_place(workshop, wat):
    """The pool has some thousands; each of these is given back, and so is the instance before it."""
    start = "(func $begin unreachable) (start $begin)"
    entries = [
        await workshop.plugin(wat.module(*parts, hooks={"custom_hook": wat.no_answer}), hooks=["custom_hook"])
        for parts in ((), (start,))
    ]
    fine, broken = (
        Guest(engine.load_compiled(workshop.find(entry), fuel=False), limits=entry.limits, host={}) for entry in entries
    )
    for _ in range(engine._POOL["total_core_instances"] + 1):
        with contextlib.suppress(TrapError):
            broken.instantiate()
    instance = fine.instantiate()
    for _ in range(engine._POOL["total_core_instances"] + 1):
        instance = fine.instantiate(instead_of=instance)
    instance.close()


@_native
async def test_host_functions_see_their_own_guest_whatever_runs_on_other_threads(workshop, wat):
    """An instance that was called here before is called on another thread, in the midst of a call of another one."""
    ask = "(call $get_config (local.get $p) (local.get $n))"
    entry = await workshop.plugin(
        wat.module(
            imports=wat.host("hookline", "get_config", "i32 i32", "i64"),
            hooks={"custom_hook": f"(drop {ask}) {ask}"},
        ),
        hooks=["custom_hook"],
    )
    seen: list[tuple[int, bytes]] = []

    def host(memory, pointer, length):
        said = memory.read(pointer, length)
        seen.append((memory, said))
        if said == b"outer" and len(seen) % 2:
            thread = threading.Thread(target=lambda: inner.call("custom_hook", b"inner", last=False))
            thread.start()
            thread.join()
            seen.pop()
            seen.pop()
        return 0

    module = engine.load_compiled(workshop.find(entry), fuel=False)
    guest = Guest(module, limits=entry.limits, host={("hookline", "get_config"): host})
    inner, outer = guest.instantiate(), guest.instantiate()
    for _ in range(3):
        inner.call("custom_hook", b"first", last=False)
        outer.call("custom_hook", b"also", last=False)
    seen.clear()
    for _ in range(3):
        outer.call("custom_hook", b"outer", last=False)
    assert seen == [(outer, b"outer")] * 6
    inner.close()
    outer.close()


def _answers(guest: Guest, data: bytes) -> tuple[object, ...]:
    instance = guest.instantiate()
    try:
        before = [instance.call("custom_hook", each, last=False) for each in (b"0", b"a long one, 16b.", b"x")]
        assert bool(instance._quick) is guest.accelerated
        answers = [instance.call("custom_hook", each, last=False) for each in (data, b"xyz", data, b"8", b"")]
        answers.append(instance.call("custom_hook", data, last=True))
        return *before, *answers, instance.memory, instance.calls
    except CallError as error:
        return type(error), str(error), instance.memory, instance.calls
    finally:
        instance.close()


def _said_once(guest: Guest, data: bytes) -> tuple[object, ...]:
    """By an instance that is made ahead, for one call."""
    instance = guest.instantiate(timeout_ms=1000)
    try:
        return instance.call("custom_hook", data, last=True), instance.memory, instance.calls
    except CallError as error:
        return type(error), str(error), instance.memory, instance.calls
    finally:
        instance.close()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("os.environ['HOOKLINE_ACCELERATOR'] = 'off'", "HOOKLINE_ACCELERATOR is off"),
        ("sys.modules['hookline_accelerator'] = None", "there is none: "),
        ("import hookline_accelerator as it; it.source = '0'", "it was built from another source"),
        ("import hookline_accelerator as it; it.words = 9", "its blocks have 9 words"),
    ],
)
def test_without_it_the_runtime_says_why_and_goes_on(change, why):
    """One that is not ours, or that is not there, is never used."""
    script = f"""
import os, sys
{change}
from hookline_runtime.guest import accelerator
from hookline_runtime.guest.calls import Guest, Instance
from hookline_runtime.call.looks import LOOKS
print(accelerator.unused, accelerator.call, LOOKS)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.startswith(why)
    assert ended.stdout.strip().endswith("None {}")


def test_where_nothing_can_compile_nothing_is_built(tmp_path, monkeypatch):
    """A missing compiler, or one that refuses, is a sentence, and leaves no file."""
    monkeypatch.setenv("CC", "false")
    assert accelerator.build(tmp_path).startswith("no accelerator: ")
    monkeypatch.setattr(accelerator.sysconfig, "get_path", lambda _: str(tmp_path))
    assert accelerator.build(tmp_path).endswith("Python.h is not there")
    assert not list(tmp_path.iterdir())
