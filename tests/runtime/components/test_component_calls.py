"""Calls into components that are made of text: what each call promises, as for core modules."""

from __future__ import annotations

import json

import pytest

from component_guests import ECHO, component
from hookline_api.hooks import Hook
from hookline_runtime.errors import CallError
from hookline_runtime.runtime import PrepareError

POOLED = {"isolation": {"mode": "Pooled", "size": 1}}
COUNTS = """
(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
(i32.store8 (i32.const 64) (i32.add (i32.const 48) (global.get $calls)))
(call $answer (i32.const 64) (i32.const 1))
"""
LOOP = "(loop $ever (br $ever)) (unreachable)"
LOG = "(call $log (i32.const 1024) (i32.const 4) (local.get $input) (local.get $length))"
FAIL = "(call $fail (local.get $input) (local.get $length))"


async def failure(workshop, wasm, body=0, **settings):
    """The failure of one call: its cause and its message."""
    runtime = await workshop.guest(wasm, **settings)
    await runtime.call(Hook.CUSTOM, json.dumps(body).encode())
    last = runtime.plugins["guest"].last_failure
    return last.cause, last.message


async def test_a_component_gets_the_input_and_its_answer_is_the_decision(workshop) -> None:
    """As text, of any length and in any script."""
    for value in ({"a": 1}, "grüße", "x" * 200_000):
        assert await workshop.ask(component(), body=value) == {"action": "answered", "value": value}


async def test_a_component_is_told_which_hook_it_answers(workshop) -> None:
    """One function answers all hooks."""
    quoted = """
    (i32.store8 (i32.const 64) (i32.const 34))
    (memory.copy (i32.const 65) (local.get $hook) (local.get $named))
    (i32.store8 (i32.add (i32.const 65) (local.get $named)) (i32.const 34))
    (call $answer (i32.const 64) (i32.add (local.get $named) (i32.const 2)))"""
    assert (await workshop.ask(component(quoted)))["value"] == "custom_hook"


async def test_an_empty_answer_is_the_default(workshop) -> None:
    """A component cannot answer nothing, so an empty text is nothing."""
    assert await workshop.ask(component("(call $answer (i32.const 0) (i32.const 0))")) == {"action": "empty"}


async def test_each_call_has_fresh_memory_unless_it_is_pooled(workshop) -> None:
    """PerCall and Pooled mean what they mean for modules."""
    for settings, expected in (({}, [1, 1, 1]), (POOLED, [1, 2, 3])):
        runtime = await workshop.guest(component(COUNTS), **settings)
        answers = [await runtime.call(Hook.CUSTOM, b"0") for _ in range(3)]
        assert [each["value"] for each in answers] == expected


async def test_a_loop_ends_at_the_deadline(workshop) -> None:
    """The engine's clock interrupts it."""
    cause, message = await failure(workshop, component(LOOP), limits={"timeout": "50ms"})
    assert (cause, message) == ("timeout", "custom_hook took longer than limits.timeout (50 ms)")


async def test_a_loop_while_the_instance_is_made_does_not_load(workshop) -> None:
    """A start function runs when the plugin is loaded, under a bound of its own."""
    wasm = component(parts="(func $start (loop $ever (br $ever))) (start $start)")
    entry = await workshop.plugin(wasm)
    with pytest.raises(PrepareError, match="first instance failed: instantiation took longer than 5000 ms"):
        await workshop.run(entry)


async def test_fuel_ends_a_call(workshop) -> None:
    """Where it is counted."""
    cause, message = await failure(workshop, component(LOOP), limits={"fuel": 10_000})
    assert (cause, message) == ("timeout", "custom_hook used up limits.fuel (10000)")


async def test_memory_is_bounded(workshop) -> None:
    """It does not grow beyond limits.memory, whatever the component asks for."""
    grows = """
    (loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
    (i32.store (i32.const 64) (i32.const 0x30303030))
    (i32.store8 (i32.const 64) (i32.add (i32.const 48) (i32.div_u (memory.size) (i32.const 16))))
    (call $answer (i32.const 64) (i32.const 1))"""
    assert (await workshop.ask(component(grows), limits={"memory": "4Mi"}))["value"] == 4


async def test_a_trap_is_a_failure_and_its_instance_is_never_used_again(workshop) -> None:
    """The next call has a new one, pooled or not."""
    odd = f"""
    (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
    (if (i32.eq (global.get $calls) (i32.const 2)) (then unreachable))
    {ECHO}"""
    runtime = await workshop.guest(component(odd), **POOLED)
    actions = [(await runtime.call(Hook.CUSTOM, b"7"))["action"] for _ in range(4)]
    assert actions == ["answered", "block", "answered", "block"]
    assert runtime.plugins["guest"].last_failure.message == (
        "custom_hook trapped: wasm `unreachable` instruction executed"
    )


async def test_an_answer_that_is_too_long_is_a_failure(workshop) -> None:
    """It is not copied."""
    cause, message = await failure(workshop, component(), "x" * 5000, limits={"output": 1024})
    assert (cause, message) == ("result", "the result has 5002 bytes, and limits.output is 1024")


@pytest.mark.parametrize(("start", "size"), [(0, 0xFFFFFFFF), (0xFFFFFFF0, 16), (65_530, 100)])
async def test_an_answer_outside_of_memory_is_a_failure(workshop, start, size) -> None:
    """The engine looks at each pointer; nothing of ours does."""
    cause, message = await failure(workshop, component(f"(call $answer (i32.const {start}) (i32.const {size}))"))
    assert cause == "trap", message


async def test_an_answer_that_is_not_text_is_a_failure(workshop) -> None:
    """Bytes that are not UTF-8 never leave the engine."""
    body = "(i32.store8 (i32.const 64) (i32.const 255)) (call $answer (i32.const 64) (i32.const 1))"
    cause, message = await failure(workshop, component(body))
    assert cause == "trap"
    assert "utf-8" in message


async def test_a_component_ends_its_call_with_words_of_its_own(workshop) -> None:
    """`fail` does not return, and its text is the failure's."""
    cause, message = await failure(workshop, component(FAIL + "(loop $e (br $e)) unreachable", uses=("fail",)), "no")
    assert (cause, message) == ("trap", 'the plugin failed: "no"')


async def test_a_component_logs_by_the_rules_of_the_log(workshop, caplog) -> None:
    """At its level, on one line."""
    caplog.set_level("INFO", "hookline.guest")
    wasm = component(f"{LOG} {ECHO}", uses=("log",), data={1024: b"warn"})
    await workshop.ask(wasm, body="two\nlines")
    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [("WARNING", 'guest: "two\\\\nlines"')]


def kv(name: str) -> bytes:
    """Sets a key to the input, or counts one, and answers 1 where that is an error, else 0."""
    call = {
        "kv-set": """(call $kv-set (i32.const 1024) (i32.const 1) (local.get $input) (local.get $length)
                       (i32.const 128))""",
        "kv-incr": "(call $kv-incr (i32.const 1024) (i32.const 1) (i64.const 2) (i32.const 128))",
    }[name]
    body = f"""{call}
    (i32.store8 (i32.const 64) (i32.add (i32.const 48) (i32.load8_u (i32.const 128))))
    (call $answer (i32.const 64) (i32.const 1))"""
    return component(body, uses=(name,), data={1024: b"k"}, permissions=("kv.write",))


async def test_host_functions_do_what_they_do_for_modules(workshop) -> None:
    """The same stores, by the same names."""
    settings = {"permissions": ["kv.write"]}
    assert (await workshop.ask(kv("kv-set"), body=41, **settings))["value"] == 0
    assert workshop.kv.get("guest", b"k") == b"41"
    assert (await workshop.ask(kv("kv-incr"), **settings))["value"] == 0
    assert workshop.kv.get("guest", b"k") == b"43"


async def test_a_function_without_its_permission_is_an_error_for_the_guest(workshop) -> None:
    """It runs nothing and is counted, as for modules."""
    runtime = await workshop.guest(kv("kv-set"))
    assert (await runtime.call(Hook.CUSTOM, b"1"))["value"] == 1
    assert workshop.kv.get("guest", b"k") is None
    assert runtime.plugins["guest"].host.denied == {"kv_set": 1}


async def test_texts_that_are_none_never_reach_the_engine(workshop) -> None:
    """It would end the process."""
    runtime = await workshop.guest(component())
    instance = runtime.plugins["guest"]._instances.guest.instantiate()
    with pytest.raises(CallError, match="not text in UTF-8"):
        instance.call("custom_hook", b"\xff", last=True)
    instance.close()


async def test_calls_of_one_plugin_run_side_by_side(workshop) -> None:
    """What one call is told is never another's."""
    import asyncio

    runtime = await workshop.guest(component(), isolation={"mode": "Pooled", "size": 4})
    bodies = [json.dumps({"n": number, "x": "y" * number}).encode() for number in range(64)]
    answers = await asyncio.gather(*(runtime.call(Hook.CUSTOM, body) for body in bodies))
    assert [each["value"]["n"] for each in answers] == list(range(64))


async def test_a_component_and_a_module_replace_each_other(workshop, wat) -> None:
    """A change of the artifact's kind is a change like any other."""
    from hookline_api.bundle import Bundle

    runtime = await workshop.guest(component())
    for text in (wat.module(hooks={"custom_hook": wat.echo}), component(COUNTS)):
        entry = await workshop.plugin(text, hooks=["custom_hook"])
        await runtime.load(Bundle.of([entry]), workshop.find)
        assert (await runtime.call(Hook.CUSTOM, b"1"))["value"] == 1
