"""A guest that misbehaves in a call fails that call, with a cause, and nothing else."""

from __future__ import annotations

import asyncio
import json

import pytest

from hookline_api.hooks import Hook
from hookline_artifacts.errors import VerifyError
from hookline_runtime.runtime import PrepareError

_PAGE = 65_536


def _packed(pointer: int, length: int) -> str:
    return f"(i64.const {(pointer & 0xFFFFFFFF) << 32 | length & 0xFFFFFFFF})"


def _closed(cause: str) -> dict[str, str]:
    return {"action": "block", "value": f"plugin 'guest' failed ({cause})", "failure": cause}


async def _fails(workshop, text, cause, says, *, body=0, **settings):
    """The call is answered closed, with the cause; what happened in detail is in the plugin's last failure."""
    runtime = await workshop.guest(text, **settings)
    decision = await runtime.call(Hook.CUSTOM, json.dumps(body).encode())
    assert {key: decision[key] for key in ("action", "value", "failure")} == _closed(cause)
    failure = runtime.plugins["guest"].last_failure
    assert failure.cause == cause
    assert says in failure.message
    assert "\n" not in failure.message
    return runtime


@pytest.mark.parametrize("pointer", [-1, -8, 0x7FFFFFFF, -0x80000000, 2 * _PAGE, 2 * _PAGE - 4, 0xFFFFFFF1])
async def test_an_alloc_that_answers_outside_memory_fails_the_call(workshop, wat, pointer):
    """Negative, past the end, and so near to 4 GiB that adding the length would wrap around."""
    alloc = f"""(func (export "alloc") (param $n i32) (result i32)
      (if (i32.or (i32.eq (local.get $n) (i32.const 64)) (i32.eq (local.get $n) (i32.const 65536)))
        (then (return (i32.const 65536))))
      (i32.const {pointer}))"""
    text = wat.module(alloc=alloc, hooks={"custom_hook": wat.echo})
    await _fails(workshop, text, "trap", "outside the guest's memory", body="x" * 100)


@pytest.mark.parametrize(
    ("alloc", "says"),
    [
        ("unreachable", "an input of 64 bytes was handed over when the module was tried, and alloc trapped: "),
        ("(i32.const -1)", "alloc(64) answered 4294967295 when it was tried, and the module's memory ends at 131072"),
        ("(i32.const 131009)", "alloc(64) answered 131009"),
    ],
    ids=["traps", "nowhere", "at-the-end"],
)
@pytest.mark.parametrize("mode", ["PerCall", "Pooled"])
async def test_a_module_that_cannot_take_an_input_is_not_loaded(workshop, wat, alloc, says, mode):
    """With a sentence: it would fail its calls, and the version before it goes on instead."""
    text = wat.module(
        alloc=f'(func (export "alloc") (param $n i32) (result i32) {alloc})', hooks={"custom_hook": wat.echo}
    )
    with pytest.raises(PrepareError) as caught:
        await workshop.guest(text, isolation={"mode": mode})
    assert caught.value.reason.cause == "verify"
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "alloc", ["(i32.const 65537)", "(i32.div_u (i32.const 65536) (i32.lt_u (local.get $n) (i32.const 65536)))"]
)
async def test_a_module_for_small_inputs_is_loaded(workshop, wat, alloc):
    """One that has no room for 64 KiB, or traps there: its calls may all be small."""
    text = wat.module(
        alloc=f'(func (export "alloc") (param $n i32) (result i32) {alloc})', hooks={"custom_hook": wat.echo}
    )
    runtime = await workshop.guest(text)
    assert (await runtime.call(Hook.CUSTOM, b"7"))["value"] == 7


async def test_a_dealloc_that_traps_is_refused_where_calls_need_it(workshop, wat):
    """With PerCall nobody calls it."""
    text = wat.module(dealloc='(func (export "dealloc") (param i32 i32) unreachable)', hooks={"custom_hook": wat.echo})
    assert (await workshop.ask(text, body=7))["value"] == 7
    with pytest.raises(PrepareError, match="an input of 64 bytes was handed over when the module was tried, and deal"):
        await workshop.guest(text, isolation={"mode": "Pooled"})


async def test_a_module_is_tried_with_no_larger_input_than_its_resource_allows(workshop, wat):
    """A small buffer is enough where inputs are small."""
    alloc = '(func (export "alloc") (param $n i32) (result i32) (i32.const 131000))'
    text = wat.module(alloc=alloc, hooks={"custom_hook": wat.echo})
    assert (await workshop.ask(text, body=7, limits={"input": 72}))["value"] == 7


async def test_an_alloc_that_never_ends_or_has_no_room_is_left_to_its_calls(workshop, wat):
    """A machine may be busy, and a guest full: each call says so by itself."""
    for alloc, cause in (("(loop $ever (br $ever)) (i32.const 8)", "timeout"), ("(i32.const 0)", "trap")):
        text = wat.module(
            alloc=f'(func (export "alloc") (param $n i32) (result i32) {alloc})', hooks={"custom_hook": wat.echo}
        )
        runtime = await workshop.guest(text, limits={"timeout": "50ms"}, name=cause)
        assert (await runtime.call(Hook.CUSTOM, b"1"))["failure"] == cause


async def test_an_alloc_that_answers_nothing_has_no_room(workshop, wat):
    """0 is not a place to write to."""
    alloc = '(func (export "alloc") (param i32) (result i32) (i32.const 0))'
    text = wat.module(alloc=alloc, hooks={"custom_hook": wat.echo})
    await _fails(workshop, text, "trap", "no room for the input")


@pytest.mark.parametrize(
    ("pointer", "length"),
    [
        (-1, 1),
        (2 * _PAGE, 1),
        (2 * _PAGE - 4, 5),
        (0xFFFFFFF0, 0x20),
        (0x80000000, 8),
        (0, 2 * _PAGE + 1),
        (-1, 0),
    ],
)
async def test_a_result_outside_memory_fails_the_call(workshop, wat, pointer, length):
    """Every pointer and length is unsigned and checked, also where their sum wraps around 32 bits."""
    text = wat.module(hooks={"custom_hook": _packed(pointer, length)})
    await _fails(workshop, text, "result", "outside memory")


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x80000000, 100 * 2**20])
async def test_a_result_of_a_hundred_megabytes_is_refused_by_its_length(workshop, wat, length):
    """Before its pointer is looked at, and before a byte is read; also with the largest limit there is."""
    text = wat.module(hooks={"custom_hook": _packed(-1, length)})
    await _fails(workshop, text, "result", "limits.output is 67108864", limits={"output": "64Mi"})


async def test_a_result_longer_than_allowed_fails_the_call_and_one_as_long_does_not(workshop, wat):
    """The limit is the plugin's own."""
    fits = wat.module(answers={"custom_hook": '"' + "x" * 98 + '"'})
    assert (await workshop.ask(fits, limits={"output": 100}))["value"] == "x" * 98
    await _fails(
        workshop,
        wat.module(answers={"custom_hook": '"' + "x" * 99 + '"'}),
        "result",
        "101 bytes",
        limits={"output": 100},
    )


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"no json", "not valid JSON"),
        (b'{"half": ', "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b'"\xc3\x28"', "not valid JSON"),
        (b'"\\ud800"', "not valid JSON"),
        (b"NaN", "not valid JSON"),
        (b"1 2", "not valid JSON"),
        (b"[" * 100_000, "20000 brackets"),
        (b"[" * 100_000 + b"]" * 100_000, "20000 brackets"),
        (b"[" * 300 + b"]" * 300, "nested too deeply"),
        (b'{"a":' * 500 + b"1" + b"}" * 500, "nested too deeply"),
    ],
)
async def test_a_result_that_is_no_writable_json_fails_the_call(workshop, wat, answer, says):
    """No JSON, not UTF-8, nested deeper than anybody can read: the proxy never sees any of it."""
    text = wat.module(answers={"custom_hook": answer}, memory='(memory (export "memory") 8)')
    await _fails(workshop, text, "result", says)


async def test_claims_that_are_nested_too_deeply_fail_the_call(workshop, wat):
    """The one other place where a guest's JSON goes to the proxy as it is."""
    deep: object = 1
    for _ in range(300):
        deep = [deep]
    identity = {"user_id": "1", "username": "u", "claims": {"deep": deep}}
    decision = await workshop.ask(
        wat.module(answers={"authenticate": {"action": "success", "identity": identity}}), "authenticate", {}
    )
    assert decision == {"action": "denied", "message": "plugin 'guest' failed (result)", "failure": "result"}


async def test_a_result_may_overlap_the_input(workshop, wat):
    """Guests answer in place; what is read is what they say."""
    tail = """(i64.or (i64.shl (i64.extend_i32_u (i32.add (local.get $p) (i32.const 1))) (i64.const 32))
                      (i64.extend_i32_u (i32.sub (local.get $n) (i32.const 1))))"""
    assert (await workshop.ask(wat.module(hooks={"custom_hook": wat.echo}), body=[1, 2]))["value"] == [1, 2]
    assert (await workshop.ask(wat.module(hooks={"custom_hook": tail}), body=123))["value"] == 23


@pytest.mark.parametrize("answer", ["echo", "empty", "inside"])
async def test_what_a_guest_answered_in_place_is_freed_once(workshop, wat, answer):
    """Freeing the same bytes twice is an allocator's undoing; here it traps."""
    dealloc = """(global $freed (mut i32) (i32.const 0))
    (func (export "dealloc") (param $at i32) (param $size i32)
      (if (i32.or (i32.eq (local.get $size) (i32.const 64)) (i32.eq (local.get $size) (i32.const 65536)))
        (then (return)))
      (if (global.get $freed) (then unreachable))
      (global.set $freed (i32.const 1)))"""
    body = {
        "echo": wat.echo,
        "empty": "(i64.shl (i64.extend_i32_u (local.get $p)) (i64.const 32))",
        "inside": """(i64.or (i64.shl (i64.extend_i32_u (i32.add (local.get $p) (i32.const 1))) (i64.const 32))
                             (i64.const 1))""",
    }[answer]
    text = wat.module(dealloc=dealloc, hooks={"custom_hook": body})
    assert "failure" not in await workshop.ask(text, body=12, isolation={"mode": "Pooled"})


async def test_a_guest_may_grow_its_memory_in_the_middle_of_a_call(workshop, wat):
    """The memory moves when it grows; the result is read where it is then."""
    grow = f"""(drop (memory.grow (i32.const 200)))
    (i32.store8 (i32.const {100 * _PAGE}) (i32.const 55))
    {_packed(100 * _PAGE, 1)}"""
    assert (await workshop.ask(wat.module(hooks={"custom_hook": grow})))["value"] == 7


async def test_a_guest_that_grows_its_memory_to_the_limit_is_told_no(workshop, wat):
    """``memory.grow`` answers -1 at the limit, the call goes on, and other plugins notice nothing."""
    eat = """(loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
    (call $number (i64.extend_i32_u (memory.size)))"""
    eater = await workshop.plugin(wat.module(hooks={"custom_hook": eat}), "eater", limits={"memory": "10Mi"})
    other = await workshop.plugin(wat.module(answers={"authorize": {"action": "allow"}}), "other")
    runtime = await workshop.run(eater, other)
    for _ in range(3):
        assert (await runtime.call(Hook.CUSTOM, b"0"))["value"] == 160
        assert (await runtime.call(Hook.AUTHORIZE, b'{"query": ""}'))["action"] == "allow"


async def test_a_guest_that_grows_a_table_to_the_limit_is_told_no(workshop, wat):
    """Tables are memory too: sixteen of 200,000 elements at the most."""
    eat = """(loop $more (br_if $more (i32.ne (table.grow $t (ref.null func) (i32.const 10000)) (i32.const -1))))
    (call $number (i64.extend_i32_u (table.size $t)))"""
    text = wat.module("(table $t 0 funcref)", hooks={"custom_hook": eat})
    assert (await workshop.ask(text))["value"] == 200_000


async def test_a_module_with_more_tables_than_allowed_is_refused(workshop, wat):
    """When it is compiled where instances come from a pool, else when its first instance is made."""
    with pytest.raises((VerifyError, PrepareError), match="table"):
        await workshop.run(
            await workshop.plugin(wat.module(*["(table 1 funcref)"] * 17, hooks={"route": wat.no_answer}))
        )


_SPIN = "(loop $ever (br $ever))"


@pytest.mark.parametrize("mode", ["PerCall", "Pooled"])
@pytest.mark.parametrize("where", ["hook", "alloc", "dealloc"])
async def test_an_endless_loop_is_cut_wherever_it_is(workshop, wat, where, mode):
    """In the hook, in ``alloc``, in ``dealloc``; PerCall never calls ``dealloc``, and answers."""
    text = wat.module(
        hooks={"custom_hook": (_SPIN if where == "hook" else "") + wat.echo},
        **(
            {"alloc": f'(func (export "alloc") (param i32) (result i32) {_SPIN} (i32.const 8))'}
            if where == "alloc"
            else {}
        ),
        **({"dealloc": f'(func (export "dealloc") (param i32 i32) {_SPIN})'} if where == "dealloc" else {}),
    )
    settings = {"limits": {"timeout": "20ms"}, "isolation": {"mode": mode}}
    if where == "dealloc" and mode == "PerCall":
        assert (await workshop.ask(text, **settings))["value"] == 0
        return
    runtime = await _fails(workshop, text, "timeout", "limits.timeout (20 ms)", **settings)
    assert not runtime.plugins["guest"]._instances.ready or where == "alloc"


@pytest.mark.usefixtures("unhurried")
async def test_an_endless_loop_is_cut_on_the_event_loop_too(workshop, wat):
    """Once a plugin is trusted to be quick its calls run inline; the clock is another thread's."""
    runtime = await workshop.guest(wat.switch(), limits={"timeout": "200ms"})
    plugin = runtime.plugins["guest"]
    while not plugin.inline:
        await runtime.call(Hook.CUSTOM, b"0")
    assert (await runtime.call(Hook.CUSTOM, b"2"))["failure"] == "timeout"
    assert not plugin.inline
    assert (await runtime.call(Hook.CUSTOM, b"0"))["value"] == 0


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("inline", [False, True])
async def test_a_stack_overflow_is_a_trap(workshop, wat, inline):
    """On a thread's stack and on the main one."""
    deep = "(func $deep (param i32) (result i32) (call $deep (i32.add (local.get 0) (i32.const 1))))"
    text = wat.module(
        deep,
        hooks={
            "custom_hook": f"""(if (i32.eq (i32.load8_u (local.get $p)) (i32.const {ord("1")}))
            (then (drop (call $deep (i32.const 0))))) {wat.echo}"""
        },
    )
    runtime = await workshop.guest(text)
    while inline and not runtime.plugins["guest"].inline:
        await runtime.call(Hook.CUSTOM, b"0")
    assert (await runtime.call(Hook.CUSTOM, b"1"))["failure"] == "trap"
    assert "stack" in runtime.plugins["guest"].last_failure.message


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("unreachable", "unreachable"),
        ("(i32.store (i32.const -1) (i32.const 0)) (i64.const 0)", "out of bounds memory access"),
        ("(i64.div_u (i64.const 1) (i64.const 0))", "divide by zero"),
        ("(call_indirect $none (result i64) (i32.const 0))", "uninitialized element"),
        ("(call_indirect $none (result i64) (i32.const 9))", "undefined element"),
    ],
)
async def test_every_kind_of_trap_is_named(workshop, wat, body, says):
    """A plugin's author reads what happened in one line."""
    await _fails(workshop, wat.module("(table $none 1 funcref)", hooks={"custom_hook": body}), "trap", says)


async def test_a_guest_cannot_recurse_through_its_host(workshop, wat):
    """``get_config`` calls the guest's ``alloc``; one that calls ``get_config`` in turn is told "not now"."""
    alloc = """(global $depth (mut i32) (i32.const 0)) (global $inner (export "inner") (mut i64) (i64.const 1))
    (func $alloc (export "alloc") (param $n i32) (result i32)
      (global.set $depth (i32.add (global.get $depth) (i32.const 1)))
      (if (i32.gt_u (global.get $depth) (i32.const 1))
        (then (global.set $inner (call $get_config (i32.const 0) (i32.const 0)))))
      (i32.const 70000))"""
    text = wat.module(
        imports=wat.host("hookline", "get_config", "i32 i32", "i64"),
        memory='(memory (export "memory") 3)',
        alloc=alloc,
        hooks={
            "custom_hook": """(drop (call $get_config (i32.const 0) (i32.const 0)))
            (call $number (global.get $inner))"""
        },
    )
    runtime = await workshop.guest(text, permissions=["config.read"], config={"a": 1})
    assert (await runtime.call(Hook.CUSTOM, b"0"))["value"] == 6


@pytest.mark.parametrize(
    ("alloc", "code"),
    [("(i32.const 0)", 6), ("(i32.const -1)", 1), ("(i32.const 131070)", 1), ("unreachable", 6)],
)
async def test_a_host_result_that_finds_no_room_is_an_error_code(workshop, wat, alloc, code):
    """The guest's ``alloc`` fails for the host's bytes only; the call goes on with a code."""
    text = wat.module(
        imports=wat.host("hookline", "get_config", "i32 i32", "i64"),
        alloc=f"""(global $calls (mut i32) (i32.const 0))
        (func (export "alloc") (param i32) (result i32)
          (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
          (if (i32.eq (global.get $calls) (i32.const 1)) (then (return (i32.const 65536))))
          {alloc})""",
        hooks={"custom_hook": "(call $number (call $get_config (i32.const 0) (i32.const 0)))"},
    )
    assert (await workshop.ask(text, permissions=["config.read"], config={"a": "bc"}))["value"] == code


async def test_a_guest_that_traps_on_each_call_is_no_trouble_to_another(workshop, wat):
    """Forty failing calls between forty good ones, all at the same time."""
    bad = await workshop.plugin(wat.module(hooks={"custom_hook": "unreachable"}), "bad")
    patient = {"timeout": 10_000}  # forty calls wait for sixteen threads, on a machine that may have other work
    text = wat.module(answers={"authorize": {"action": "allow"}})
    good = await workshop.plugin(text, "good", limits=patient)
    runtime = await workshop.run(bad, good)
    answers = await asyncio.gather(
        *(runtime.call(hook, b'{"query": ""}') for _ in range(40) for hook in (Hook.CUSTOM, Hook.AUTHORIZE))
    )
    assert {answer["action"] for answer in answers[::2]} == {"block"}
    assert {answer["action"] for answer in answers[1::2]} == {"allow"}


async def test_a_guests_own_words_are_in_no_failure(workshop, wat, caplog):
    """It may have made them of a Secret, or of somebody's query: failures are logged, and shown to administrators."""
    runtime = await workshop.guest(wat.module(answers={"pre_query": {"action": "s3cret"}}))
    decision = await runtime.call(Hook.PRE_QUERY, json.dumps({"query": "select 1"}).encode())
    failure = runtime.plugins["guest"].last_failure
    assert failure.message == "the result's action is not one of continue, rewrite, block, cached"
    assert "s3cret" not in json.dumps(decision) + caplog.text
