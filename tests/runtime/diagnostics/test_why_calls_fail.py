"""A failure's sentence has the guest's own last words, and a backtrace has the names of its functions."""

from __future__ import annotations

import logging
import resource
from pathlib import Path

import pytest
import wasmtime

from hookline_api.hooks import Hook
from hookline_artifacts.errors import VerifyError
from hookline_artifacts.module.annotate import custom_sections
from hookline_runtime.errors import load_sentence
from hookline_runtime.runtime import PrepareError

TRAP = "custom_hook trapped: wasm `unreachable` instruction executed"


async def _failed(workshop, text, calls=1, body=b"0", **settings):
    runtime = await workshop.guest(text, **settings)
    for _ in range(calls):
        decision = await runtime.call(Hook.CUSTOM, body)
    assert decision["failure"]
    return runtime.plugins["guest"].last_failure


def _resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("mode", ["PerCall", "Pooled"])
@pytest.mark.parametrize(
    ("said", "why", "line"),
    [
        ([(4, b"the table is empty")], "the table is empty", "the table is empty"),
        ([(4, b"panicked at src/lib.rs:12: no rule"), (3, b"bye")], "panicked at src/lib.rs:12: no rule", "bye"),
        (
            [("err", b"thread 'main' panicked at src/lib.rs:3:5:\nno rule\nnote: run with `RUST_BACKTRACE=1`\n")],
            "thread 'main' panicked at src/lib.rs:3:5: no rule",
            "note: run with `RUST_BACKTRACE=1`",
        ),
        (
            [("err", b"panic: "), ("err", b"no rule"), ("err", b"\n\ngoroutine 1 [running]:\nmain.run()\n\t/x.go:3\n")],
            "panic: no rule",
            "/x.go:3",
        ),
        ([("out", b"before\n"), (2, b"only looked")], None, "only looked"),
        ([(3, b"odd"), ("out", b"going on")], "odd", "going on"),
        ([], None, None),
    ],
)  # fmt: skip
async def test_a_traps_sentence_has_the_guests_last_words(workshop, talkers, mode, said, why, line):
    """What a runtime writes when it gives up; else the last warning or error. The line is the last of all."""
    text = talkers.module(*said, then="unreachable")
    failure = await _failed(workshop, text, calls=2, isolation={"mode": mode})
    assert failure.message == (f"{TRAP}: {why}" if why else TRAP)
    assert failure.line == line


async def test_only_what_was_said_in_that_call_counts(workshop, talkers, wat):
    """An instance that is used again does not answer for the call before."""
    says, data = talkers.says((4, b"broken"))
    imports = wat.host("hookline", "log", "i32 i32 i32", "i32")
    body = f"(if (i32.eq (local.get $n) (i32.const 1)) (then {says} (return (i64.const 0)))) unreachable"
    text = wat.module(imports=imports, data=data, hooks={"custom_hook": body})
    runtime = await workshop.guest(text, isolation={"mode": "Pooled"})
    for data in (b"1", b"22"):
        await runtime.call(Hook.CUSTOM, data)
    failure = runtime.plugins["guest"].last_failure
    assert (failure.message, failure.line) == (TRAP, None)


async def test_who_exits_has_said_why_as_well(workshop, talkers):
    """Go ends its program where it panics, and does not trap."""
    failure = await _failed(
        workshop, talkers.module(("err", b"panic: no rule\n"), then="(call $proc_exit (i32.const 2)) (i64.const 0)")
    )
    assert failure.message == "custom_hook ended the program with exit code 2: panic: no rule"


async def test_an_answer_that_is_no_decision_has_the_last_line_beside_it(workshop, talkers):
    """The sentence is about the answer."""
    text = talkers.module((2, b"so far so good"), then="(i64.const 0x7fffffff00000001)")
    failure = await _failed(workshop, text)
    assert (failure.cause, failure.line) == ("result", "so far so good")
    assert "so far" not in failure.message


CHAIN = """
(func $check (param i32) (if (i32.eqz (local.get 0)) (then {end})) (call $check (i32.sub (local.get 0) (i32.const 1))))
(func $_ZN9my_plugin4rule17h0123456789abcdefE (call $check (i32.const 3)))
"""
CALLS = "(call $_ZN9my_plugin4rule17h0123456789abcdefE) (i64.const 0)"


@pytest.mark.parametrize("mode", ["PerCall", "Pooled"])
async def test_a_trap_says_in_which_functions_it_was(workshop, wat, mode):
    """The innermost first, one of a recursion once; what the section of names does not name is named by its export."""
    text = wat.module(CHAIN.format(end="unreachable"), hooks={"custom_hook": CALLS})
    failure = await _failed(workshop, text, calls=2, isolation={"mode": mode})
    assert failure.backtrace == ("check (4 times)", "my_plugin::rule", "custom_hook")


@pytest.mark.parametrize(
    ("end", "limits", "cause"),
    [
        ("(loop $ever (br $ever))", {"timeout": "20ms"}, "timeout"),
        ("(loop $ever (br $ever))", {"fuel": 10_000}, "timeout"),
        ("(drop (i32.load (i32.const -1)))", {}, "trap"),
        ("(drop (i32.div_u (i32.const 1) (i32.const 0)))", {}, "trap"),
    ],
)
async def test_every_way_to_be_ended_says_where(workshop, wat, end, limits, cause):
    """Loops too: that is where the time went."""
    text = wat.module(CHAIN.format(end=end), hooks={"custom_hook": CALLS})
    failure = await _failed(workshop, text, limits=limits)
    assert failure.cause == cause
    assert failure.backtrace[-2:] == ("my_plugin::rule", "custom_hook")


async def test_a_stack_that_ran_over_is_a_short_backtrace(workshop, wat):
    """Thousands of frames of one function."""
    text = wat.module(
        "(func $deep (call $deep) (drop (i32.const 1)))", hooks={"custom_hook": "(call $deep) (i64.const 0)"}
    )
    failure = await _failed(workshop, text)
    assert failure.message == "custom_hook trapped: call stack exhausted"
    assert failure.backtrace == ("deep (20 times)",)


async def test_functions_without_names_have_numbers(workshop, wat):
    """A module that was stripped is read by its exports, and by numbers that its author can look up."""
    wasm = bytes(wasmtime.wat2wasm(wat.module(CHAIN.format(end="unreachable"), hooks={"custom_hook": CALLS})))
    assert "name" in custom_sections(wasm)
    failure = await _failed(workshop, wasm.replace(b"\x04name", b"\x04nome"))
    assert failure.backtrace[-1] == "custom_hook"
    assert all(name.startswith("function ") for name in failure.backtrace[:-1])


async def test_names_and_words_that_a_guest_chooses_are_bounded_and_escaped(workshop, talkers, wat):
    """They come where people read them."""
    long = "check\\0a\\1b[31m" + "x" * 5000
    functions = f'(func $"12{long}" unreachable)' + "".join(
        f'(func $"{number}{long}" (call $"{number + 1}{long}"))' for number in range(12)
    )
    body, data = talkers.says(("err", b"panic: a\rb\x1b[31m\xff" + b"y" * 3000))
    imports = talkers.module(("err", b"")).split("(memory", 1)[0].split("(module", 1)[1]
    text = wat.module(
        functions, imports=imports, data=data, hooks={"custom_hook": f'{body} (call $"0{long}") (i64.const 0)'}
    )
    failure = await _failed(workshop, text)
    assert len(failure.backtrace) == 8
    assert failure.backtrace[-2:] == ("...", "custom_hook")
    for shown in (*failure.backtrace, failure.line, failure.message):
        assert shown.isascii()
        assert shown.isprintable()
    assert max(map(len, failure.backtrace)) == 96
    assert len(failure.line) == 480
    assert len(failure.message) < 600


async def test_what_does_not_come_up_says_why_too(workshop, talkers, wat):
    """A panic while the plugin is loaded is in the sentence why it does not load, unless it has values of Secrets."""
    body, data = talkers.says((4, b"the config has no rules"))
    text = wat.module(
        f'(func (export "_initialize") {body} unreachable)',
        imports=wat.host("hookline", "log", "i32 i32 i32", "i32"), data=data, answers={"custom_hook": 1},
    )  # fmt: skip
    with pytest.raises(PrepareError) as caught:
        await workshop.guest(text)
    reason = caught.value.reason
    assert isinstance(reason, VerifyError)
    assert "instruction executed: the config has no rules; mend " in load_sentence(reason, secrets=False)
    assert "the config" not in load_sentence(reason, secrets=True)


@pytest.mark.parametrize("settings", [{"config": {"token": "hunter2-s3cret"}, "secretPaths": ["token"]}])
async def test_a_plugin_with_secrets_tells_its_words_to_the_log_alone(workshop, talkers, settings, lines, caplog):
    """Whatever a guest says may be one of them, in a spelling that nobody knows."""
    text = talkers.module(("err", b"panic: 2retnuh\n"), then=CALLS, parts=CHAIN.format(end="unreachable"))
    failure = await _failed(workshop, text, **settings)
    assert failure.line is None
    assert failure.backtrace == ()
    assert failure.message.endswith("instruction executed (no more is said, as values of Secrets are in its settings)")
    assert lines() == ["WARNING guest: panic: 2retnuh"]
    (told,) = [each for each in caplog.records if each.name == "hookline.plugin" and each.levelno == logging.WARNING]
    assert "2retnuh" not in told.getMessage()
    assert told.getMessage().endswith(", in check (4 times) < my_plugin::rule < custom_hook")


async def test_the_last_of_many_failures_says_as_much_as_the_first(workshop, talkers, wat):
    """And nothing of those before it is kept: neither the engine's frames, nor lines."""
    body, data = talkers.says((4, b"no rule"))
    imports = wat.host("hookline", "log", "i32 i32 i32", "i32")
    text = wat.module(
        CHAIN.format(end="unreachable"), imports=imports, data=data, hooks={"custom_hook": f"{body} {CALLS}"}
    )
    runtime = await workshop.guest(text)
    plugin = runtime.plugins["guest"]
    sizes, seen = [], set()
    for _ in range(3):
        for _ in range(2000):
            plugin.hooks[Hook.CUSTOM].breaker.count_success()
            await runtime.call(Hook.CUSTOM, b"0")
            seen.add((plugin.last_failure.message, plugin.last_failure.line, plugin.last_failure.backtrace))
        sizes.append(_resident())
    assert seen == {(f"{TRAP}: no rule", "no rule", ("check (4 times)", "my_plugin::rule", "custom_hook"))}
    assert sizes[2] - sizes[1] < 2**19
