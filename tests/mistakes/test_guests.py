"""Bugs of guests, and what a resource does not grant them: ``hookline call`` and ``test`` say what to do."""

from __future__ import annotations

import json

from deliberate import SECRET, Mistake, local, rows
from guests import BUMP, Guests
from hookline_artifacts.module.annotate import with_sections

GUESTS = Guests()
CALL = ("call", "guard.wasm", "pre_query", "SELECT 1")
LOG = '(import "hookline" "log" (func $log (param i32 i32 i32) (result i32)))'
KEY = '(import "env" "kv_get" (func $kv_get (param i32 i32 i32 i32) (result i32)))'
FETCH = '(import "hookline" "http_fetch" (func $http_fetch (param i32 i32) (result i64)))'
EXIT = '(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))'
PANIC = b"panic: index 7 is out of bounds at guard.c:12"


def at(where, text):
    """What a hook answers: the text at this place."""
    return f"(i64.const {where << 32 | len(text)})"


def guest(name, body, cause, step, *, done=CALL, hook="pre_query", code=1, **more):
    """A row about one hook."""
    return Mistake(name=name, done=done, files={"guard.wasm": GUESTS.module({hook: body}, **more)}, cause=cause, step=step, code=code)


def said(name, answer, cause, step, *, hook="pre_query", given="SELECT 1", **more):
    """A row about one answer."""
    raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return guest(name, at(1024, raw), cause, step, hook=hook, data={1024: raw}, done=("call", "guard.wasm", hook, given), **more)


CONTINUES = b'{"action": "continue"}'
FAILING = [{"name": "drop is blocked", "hook": "pre_query", "input": {"query": "DROP TABLE t"}, "expect": {"action": "block"}}]
GUESTS_BUGS = [
    guest("it traps", "unreachable", (), ()),
    guest("it panics", f"(drop (call $log (i32.const 4) (i32.const 2048) (i32.const {len(PANIC)}))) unreachable", (), (), imports=LOG, data={2048: PANIC}),
    guest("it divides by zero", "(drop (i32.div_u (i32.const 1) (i32.const 0))) (i64.const 0)", (), ()),
    guest("it never ends", GUESTS.forever, (), ()),
    guest("it calls itself for ever", "(call 1 (local.get 0) (local.get 1))", (), ()),
    guest("it reads beyond its memory", "(drop (i32.load (i32.const 99999999))) (i64.const 0)", (), ()),
    guest("it exits", "(call $exit (i32.const 1)) (i64.const 0)", (), (), imports=EXIT),
    guest("its answer is beyond its memory", f"(i64.const {99999999 << 32 | 20})", (), ()),
    guest("its answer is too long", f"(i64.const {1024 << 32 | 2**31 - 1})", (), ()),
    said("its answer is no JSON", b"continue", (), ()),
    said("its answer is no UTF-8", b'"\xff\xfe"', (), ()),
    said("it has an action that is none", {"action": "blok"}, (), ()),
    said("it rewrites without a query", {"action": "rewrite"}, (), ()),
    said("it blocks with a number as the reason", {"action": "block", "reason": 5}, (), ()),
    said("it answers another hook", {"action": "allow"}, (), ()),
    said("it answers a list", ["continue"], (), ()),
    Mistake(name="alloc traps", done=CALL, cause=(), step=(), files={"guard.wasm": GUESTS.module({"pre_query": "(i64.const 0)"}).replace(b"\0", b"\0")}),
    Mistake(name="its own case does not hold", done=["test", "guard.wasm"], cause=(), step=(), files={
        "guard.wasm": with_sections(GUESTS.module({"pre_query": at(1024, CONTINUES)}, data={1024: CONTINUES}), {"hookline.cases": json.dumps(FAILING).encode()})}),
    guest("a key without the permission", "(drop (call $kv_get (i32.const 0) (i32.const 1) (i32.const 8) (i32.const 8))) unreachable", (), (), imports=KEY, done=(*CALL, "--no-permissions")),
    guest("a permission with a misspelt name", "(i64.const 0)", (), (), done=(*CALL, "--permission", "kv.raed"), code=2),
    guest("a hook with a misspelt name is called", "(i64.const 0)", (), (), done=("call", "guard.wasm", "pre_qeury", "SELECT 1"), code=2),
    guest("an input that is no JSON", "(i64.const 0)", (), (), hook="authorize", done=("call", "guard.wasm", "authorize", "{user: 1}"), code=2),
    guest("an input that is not there", "(i64.const 0)", (), (), done=("call", "guard.wasm", "pre_query", "@input.json"), code=3),
    guest("an input without what the hook needs", "(i64.const 0)", (), (), done=("call", "guard.wasm", "pre_query"), code=2),
    guest("a limit with a misspelt name", "(i64.const 0)", (), (), done=(*CALL, "--limit", "timout=5ms"), code=2),
    guest("an input larger than its limit", "(i64.const 0)", (), (), done=(*CALL, "--limit", "input=8")),
]


@rows(GUESTS_BUGS)
def test_a_bug_of_a_guest_is_told(make, mistake):
    """With its cause and the next step."""
    make(mistake)
