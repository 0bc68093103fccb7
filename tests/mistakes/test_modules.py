"""Mistakes in modules: what a compiler made is no plugin, and ``inspect``, ``call`` and ``check`` say why."""

from __future__ import annotations

import wasmtime
from component_guests import component

from deliberate import Mistake, local, rows
from guests import Guests
from hookline_artifacts.module.annotate import with_sections
from module_bytes import section

GUESTS = Guests()
PLAIN = {"pre_query": "(i64.const 0)"}
GOOD = GUESTS.module(PLAIN)
MEMORY = '(memory (export "memory") 2)'
ALLOC = '(func (export "alloc") (param i32) (result i32) (i32.const 1024))'
HOOK = '(func (export "{}") (param i32 i32) (result i64) (i64.const 0))'


def wat(*parts):
    """A module as text."""
    return bytes(wasmtime.wat2wasm(f"(module {' '.join(parts)})"))


def module(name, wasm, cause, step, *, done=("inspect", "guard.wasm"), **more):
    """A row about one module."""
    return Mistake(name=name, done=done, files={"guard.wasm": wasm}, cause=cause, step=step, **more)


CALL = ("call", "guard.wasm", "pre_query", "SELECT 1")
TEST = ("test", "guard.wasm")
MODULES = [
    module("a text is no module", b"#!/bin/sh\n", (), ()),
    module("an empty file", b"", (), ()),
    module("a module that is cut", GOOD[: len(GOOD) // 2], (), ()),
    module("a component that declares no hooks", component(hooks=None), (), ()),
    module("a component cut in half", component()[:200], (), ()),
    module("no memory", wat(ALLOC, HOOK.format("pre_query")), (), ()),
    module("no alloc", wat(MEMORY, HOOK.format("pre_query")), (), ()),
    module("alloc of a wrong type", wat(MEMORY, '(func (export "alloc") (param i64) (result i32) (i32.const 0))', HOOK.format("pre_query")), (), ()),
    module("a hook of a wrong type", wat(MEMORY, ALLOC, '(func (export "pre_query") (param i32) (result i32) (i32.const 0))'), (), ()),
    module("a hook with a misspelt name", wat(MEMORY, ALLOC, HOOK.format("pre_qeury")), (), ()),
    module("no hook at all", wat(MEMORY, ALLOC), (), ()),
    module("an import of nobody's", GUESTS.module(PLAIN, imports='(import "wasi_unstable" "fd_write" (func))'), (), ()),
    module("an import with a misspelt name", GUESTS.module(PLAIN, imports='(import "env" "kv_gett" (func (param i32 i32 i32 i32) (result i32)))'), (), ()),
    module("an import of a wrong type", GUESTS.module(PLAIN, imports='(import "env" "kv_get" (func (param i32 i32) (result i32)))'), (), ()),
    module("a WASI command", wat(MEMORY, ALLOC, HOOK.format("pre_query"), '(func (export "_start"))'), (), ()),
    module("memory of 64 bits", wat('(memory (export "memory") i64 2)', ALLOC, HOOK.format("pre_query")), (), ()),
    module("threads", wat('(memory (export "memory") 2 3 shared)', ALLOC, HOOK.format("pre_query")), (), ()),
    module("a description that is no JSON", with_sections(GOOD, {"hookline.plugin": b"{name: guard}"}), (), ()),
    module("a description with a wrong type", with_sections(GOOD, {"hookline.plugin": b'{"name": 5}'}), (), ()),
    module("cases that are no JSON", with_sections(GOOD, {"hookline.cases": b"[{]"}), (), (), done=TEST),
    module("a case of another hook", with_sections(GOOD, {"hookline.cases": b'[{"name": "a", "hook": "pre_quarry", "input": {"query": "q"}, "expect": {"action": "continue"}}]'}), (), (), done=TEST),
    module("no cases at all", GOOD, (), (), done=TEST),
    module("a start function that traps", GUESTS.module(PLAIN, parts="(func $t unreachable) (start $t)"), (), (), done=CALL),
    module("code that is not valid", GOOD.replace(b"\x42\x00\x0b", b"\x41\x00\x0b"), (), (), done=CALL),
    module("a hook that it does not have", GOOD, (), (), done=("call", "guard.wasm", "authorize", "{}")),
    module("a memory larger than its limit", wat('(memory (export "memory") 4000)', ALLOC, HOOK.format("pre_query")), (), (), done=CALL),
    Mistake(name="a manifest names hooks that it does not have", done=["check", "p.yaml"], files={"guard.wasm": GOOD, "p.yaml": local(hooks=["authenticate"])}, cause=(), step=()),
    Mistake(name="a module of another digest", done=["check", "p.yaml"], files={"guard.wasm": GOOD, "p.yaml": local(sha256="0" * 64)}, cause=(), step=()),
    Mistake(name="a module that is not there", done=["inspect", "guard.wasm"], cause=(), step=(), code=3),
]


@rows(MODULES)
def test_a_mistake_in_a_module_is_told(make, mistake):
    """With its cause and the next step."""
    make(mistake)
