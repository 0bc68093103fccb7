"""Bugs of guests, and what a resource does not grant them: ``hookline call`` and ``test`` say what to do."""

from __future__ import annotations

import json

import wasmtime

from deliberate import Mistake, rows
from guests import Guests
from hookline_artifacts.module.annotate import with_sections

GUESTS = Guests()
CALL = ("call", "guard.wasm", "pre_query", "SELECT 1")
LOG = '(import "hookline" "log" (func $log (param i32 i32 i32) (result i32)))'
KEY = '(import "env" "kv_get" (func $kv_get (param i32 i32 i32 i32) (result i32)))'
FETCH = '(import "hookline" "http_fetch" (func $http_fetch (param i32 i32) (result i64)))'
EXIT = '(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))'
PANIC = b"panic: index 7 is out of bounds at guard.c:12"


def wat(alloc):
    """A module with another alloc."""
    hook = '(func (export "pre_query") (param i32 i32) (result i64) (i64.const 0))'
    return bytes(wasmtime.wat2wasm(f'(module (memory (export "memory") 2) {alloc} {hook})'))


def at(where, text):
    """What a hook answers: the text at this place."""
    return f"(i64.const {where << 32 | len(text)})"


def guest(name, body, cause, step, *, done=CALL, hook="pre_query", code=1, **more):
    """A row about one hook."""
    return Mistake(
        name=name,
        done=done,
        files={"guard.wasm": GUESTS.module({hook: body}, **more)},
        cause=cause,
        step=step,
        code=code,
    )


def said(name, answer, cause, step, *, hook="pre_query", given="SELECT 1", **more):
    """A row about one answer."""
    raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return guest(
        name, at(1024, raw), cause, step, hook=hook, data={1024: raw}, done=("call", "guard.wasm", hook, given), **more
    )


CONTINUES = b'{"action": "continue"}'
FAILING = [
    {"name": "drop is blocked", "hook": "pre_query", "input": {"query": "DROP TABLE t"}, "expect": {"action": "block"}}
]
GUESTS_BUGS = [
    guest("it traps", "unreachable", ["`unreachable` instruction executed"], ["see what it logged"]),
    guest(
        "it panics",
        f"(drop (call $log (i32.const 4) (i32.const 2048) (i32.const {len(PANIC)}))) unreachable",
        ["panic: index 7 is out of bounds at guard.c:12"],
        ["see what it logged"],
        imports=LOG,
        data={2048: PANIC},
    ),
    guest(
        "it divides by zero",
        "(drop (i32.div_u (i32.const 1) (i32.const 0))) (i64.const 0)",
        ["integer divide by zero"],
        ["whether it checks what it is sent"],
    ),
    guest("it never ends", GUESTS.forever, ["longer than limits.timeout (100 ms)"], ["look for a loop without an end"]),
    guest(
        "it calls itself for ever",
        "(call 1 (local.get 0) (local.get 1))",
        ["call stack exhausted"],
        ["see what it logged"],
    ),
    guest(
        "it reads beyond its memory",
        "(drop (i32.load (i32.const 99999999))) (i64.const 0)",
        ["out of bounds memory access"],
        ["whether it checks what it is sent"],
    ),
    guest(
        "it exits",
        "(call $exit (i32.const 1)) (i64.const 0)",
        ["ended the program with exit code 1"],
        ["see what it logged"],
        imports=EXIT,
    ),
    guest(
        "its answer is beyond its memory",
        f"(i64.const {99999999 << 32 | 20})",
        ["outside memory: 20 bytes at 99999999"],
        ["return pointer << 32 | length"],
    ),
    guest(
        "its answer is too long",
        f"(i64.const {1024 << 32 | 2**31 - 1})",
        ["2147483647 bytes, and limits.output is 1048576"],
        ["answer less, or allow more: --limit output=2Mi"],
    ),
    said("its answer is no JSON", b"continue", ["not valid JSON"], ["answer with JSON in UTF-8"]),
    said("its answer is no UTF-8", b'"\xff\xfe"', ["it is not UTF-8"], ["answer with JSON in UTF-8"]),
    said(
        "it has an action that is none",
        {"action": "blok"},
        ["action is not one of continue, rewrite, block, cached"],
        ["docs/reference/hooks.md has those that are"],
    ),
    said(
        "it rewrites without a query",
        {"action": "rewrite"},
        ["lacks 'value' or 'sql', a string"],
        ["docs/reference/hooks.md"],
    ),
    said(
        "it blocks with a number as the reason",
        {"action": "block", "reason": 5},
        ["lacks 'value' or 'reason', a string"],
        ["docs/reference/hooks.md"],
    ),
    said(
        "it answers another hook", {"action": "allow"}, ["action is not one of continue"], ["docs/reference/hooks.md"]
    ),
    said("it answers a list", ["continue"], ["not a JSON object"], ["docs/reference/hooks.md"]),
    Mistake(
        name="alloc traps",
        done=CALL,
        cause=["alloc trapped"],
        step=["mend alloc and dealloc"],
        files={"guard.wasm": wat('(func (export "alloc") (param i32) (result i32) unreachable)')},
    ),
    Mistake(
        name="alloc answers a place that is not there",
        done=CALL,
        cause=["alloc(64) answered 4294967288"],
        step=["has to answer where these bytes fit"],
        files={"guard.wasm": wat('(func (export "alloc") (param i32) (result i32) (i32.const -8))')},
    ),
    Mistake(
        name="its own case does not hold",
        done=["test", "guard.wasm"],
        cause=['action is "continue"'],
        step=['should be "block"'],
        files={
            "guard.wasm": with_sections(
                GUESTS.module({"pre_query": at(1024, CONTINUES)}, data={1024: CONTINUES}),
                {"hookline.cases": json.dumps(FAILING).encode()},
            )
        },
    ),
    guest(
        "a key without the permission",
        "(drop (call $kv_get (i32.const 0) (i32.const 1) (i32.const 8) (i32.const 8))) unreachable",
        ["called kv_get without the permission"],
        ["grant it with --permission kv.read"],
        imports=KEY,
        done=(*CALL, "--no-permissions"),
    ),
    guest(
        "a permission with a misspelt name",
        "(i64.const 0)",
        ["'kv.raed' is no permission"],
        ["did you mean 'kv.read'?"],
        done=(*CALL, "--permission", "kv.raed"),
        code=2,
    ),
    guest(
        "a hook with a misspelt name is called",
        "(i64.const 0)",
        ["'pre_qeury' is no hook"],
        ["did you mean 'pre_query'?"],
        done=("call", "guard.wasm", "pre_qeury", "SELECT 1"),
        code=2,
    ),
    guest(
        "an input that is no JSON",
        "(i64.const 0)",
        ["the input is not JSON"],
        ["line 1, column 2"],
        hook="authorize",
        done=("call", "guard.wasm", "authorize", "{user: 1}"),
        code=2,
    ),
    guest(
        "an input that is not there",
        "(i64.const 0)",
        ["the input:"],
        ["there is no file input.json"],
        done=("call", "guard.wasm", "pre_query", "@input.json"),
        code=3,
    ),
    guest(
        "an input without what the hook needs",
        "(i64.const 0)",
        ["pre_query needs an input with query"],
        ["give JSON, @FILE, - for stdin, or SQL alone"],
        done=("call", "guard.wasm", "pre_query"),
        code=2,
    ),
    guest(
        "a limit with a misspelt name",
        "(i64.const 0)",
        ["--limit timout: there is no such limit"],
        ["did you mean 'timeout'?"],
        done=(*CALL, "--limit", "timout=5ms"),
        code=2,
    ),
    guest(
        "an input larger than its limit",
        "(i64.const 0)",
        ["limits.input is 8"],
        ["--limit input=1Mi"],
        done=(*CALL, "--limit", "input=8"),
    ),
]


@rows(GUESTS_BUGS)
def test_a_bug_of_a_guest_is_told(make, mistake):
    """With its cause and the next step."""
    make(mistake)
