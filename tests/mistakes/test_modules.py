"""Mistakes in modules: what a compiler made is no plugin, and ``inspect``, ``call`` and ``check`` say why."""

from __future__ import annotations

import json

import wasmtime

from component_guests import component
from deliberate import Mistake, local, rows
from guests import Guests
from hookline_artifacts.module.annotate import with_sections

GUESTS = Guests()
PLAIN = {"pre_query": "(i64.const 0)"}
GOOD = GUESTS.module(PLAIN)
MEMORY = '(memory (export "memory") 2)'
ALLOC = '(func (export "alloc") (param i32) (result i32) (i32.const 1024))'
HOOK = '(func (export "{}") (param i32 i32) (result i64) (i64.const 0))'

CASES = [{"name": "a", "hook": "pre_quarry", "input": {"query": "q"}, "expect": {"action": "continue"}}]


def wat(*parts):
    """A module as text."""
    return bytes(wasmtime.wat2wasm(f"(module {' '.join(parts)})"))


def module(name, wasm, cause, step, *, done=("inspect", "guard.wasm"), **more):
    """A row about one module."""
    return Mistake(name=name, done=done, files={"guard.wasm": wasm}, cause=cause, step=step, **more)


CALL = ("call", "guard.wasm", "pre_query", "SELECT 1")
TEST = ("test", "guard.wasm")
MODULES = [
    module(
        "a text is no module", b"#!/bin/sh\n", ["this is not WebAssembly"], ["name, or push, the .wasm that was built"]
    ),
    module("an empty file", b"", ["it begins with nothing"], ["name, or push, the .wasm that was built"]),
    module(
        "a module that is cut", GOOD[: len(GOOD) // 2], ["truncated or damaged"], ["build it again, or copy it again"]
    ),
    module(
        "a component that declares no hooks",
        component(hooks=None),
        ["does not say which hooks it answers"],
        ["build it by 'hookline build', with its hooks in plugin.json"],
    ),
    module(
        "a component cut in half",
        component()[:200],
        ["component is truncated or damaged"],
        ["build it again, or copy it again"],
    ),
    module(
        "no memory",
        wat(ALLOC, HOOK.format("pre_query")),
        ["does not export its linear memory"],
        ["link it with --export-memory"],
    ),
    module("no alloc", wat(MEMORY, HOOK.format("pre_query")), ["does not export 'alloc'"], ["build it with an SDK"]),
    module(
        "alloc of a wrong type",
        wat(MEMORY, '(func (export "alloc") (param i64) (result i32) (i32.const 0))', HOOK.format("pre_query")),
        ["'alloc' is (i64) -> i32"],
        ["must be (i32) -> i32"],
    ),
    module(
        "a hook of a wrong type",
        wat(MEMORY, ALLOC, '(func (export "pre_query") (param i32) (result i32) (i32.const 0))'),
        ["'pre_query' is (i32) -> i32"],
        ["must be (i32, i32) -> i64"],
    ),
    module(
        "a hook with a misspelt name",
        wat(MEMORY, ALLOC, HOOK.format("pre_qeury")),
        ["the module exports no hook"],
        ["did you mean pre_query?"],
    ),
    module("no hook at all", wat(MEMORY, ALLOC), ["the module exports no hook"], ["the hooks are authenticate"]),
    module(
        "an import of nobody's",
        GUESTS.module(PLAIN, imports='(import "wasi_unstable" "fd_write" (func))'),
        ["does not offer"],
        ["docs/host-functions.md has those that it does"],
    ),
    module(
        "an import with a misspelt name",
        GUESTS.module(PLAIN, imports='(import "env" "kv_gett" (func (param i32 i32 i32 i32) (result i32)))'),
        ["'env.kv_gett'"],
        ["did you mean 'env.kv_get'?"],
    ),
    module(
        "an import of a wrong type",
        GUESTS.module(PLAIN, imports='(import "env" "kv_get" (func (param i32 i32) (result i32)))'),
        ["as (i32, i32) -> i32"],
        ["it is (i32, i32, i32, i32) -> i32: declare it so"],
    ),
    module(
        "a WASI command",
        wat(MEMORY, ALLOC, HOOK.format("pre_query"), '(func (export "_start"))'),
        ["a program to be run once"],
        ["build a reactor"],
    ),
    module(
        "memory of 64 bits",
        wat('(memory (export "memory") i64 2)', ALLOC, HOOK.format("pre_query")),
        ["needs 64-bit memory"],
        ["build for wasm32"],
    ),
    module(
        "threads",
        wat('(memory (export "memory") 2 3 shared)', ALLOC, HOOK.format("pre_query")),
        ["needs shared memory and atomics"],
        ["build for one thread"],
    ),
    module(
        "a description that is no JSON",
        with_sections(GOOD, {"hookline.plugin": b"{name: guard}"}),
        ["cannot be read"],
        ["the section hookline.plugin is ignored"],
        code=0,
    ),
    module(
        "cases that are no JSON",
        with_sections(GOOD, {"hookline.cases": b"[{]"}),
        ["is not JSON"],
        ["line 1, column 3"],
        done=TEST,
        code=2,
    ),
    module(
        "a case of another hook",
        with_sections(
            GOOD,
            {"hookline.cases": json.dumps(CASES).encode()},
        ),
        ["'pre_quarry' is no hook"],
        ["did you mean 'pre_query'?"],
        done=TEST,
        code=2,
    ),
    module("no cases at all", GOOD, ["carries no cases"], ["give --cases FILE"], done=TEST, code=3),
    module(
        "a start function that traps",
        GUESTS.module(PLAIN, parts="(func $t unreachable) (start $t)"),
        ["first instance failed"],
        ["mend what its start function or _initialize does"],
        done=CALL,
    ),
    module(
        "code that is not valid",
        GOOD.replace(b"\x42\x00\x0b", b"\x41\x00\x0b"),
        ["type mismatch"],
        ["build it again"],
        done=CALL,
    ),
    module(
        "a hook that it does not have",
        GOOD,
        ["does not export authorize"],
        ["it exports pre_query"],
        done=("call", "guard.wasm", "authorize", "{}"),
        code=2,
    ),
    module(
        "a memory larger than its limit",
        wat('(memory (export "memory") 4000)', ALLOC, HOOK.format("pre_query")),
        ["262144000 bytes of memory"],
        ["limits.memory is 67108864: raise it"],
        done=CALL,
        code=2,
    ),
    Mistake(
        name="a manifest names hooks that it does not have",
        done=["check", "p.yaml"],
        files={"guard.wasm": GOOD, "p.yaml": local(hooks=["authenticate"])},
        cause=["names authenticate"],
        step=["exports only pre_query"],
    ),
    Mistake(
        name="a module of another digest",
        done=["check", "p.yaml"],
        files={"guard.wasm": GOOD, "p.yaml": local(sha256="0" * 64)},
        cause=["the module's sha256 is"],
        step=["write the former there"],
    ),
    Mistake(
        name="a module that is not there",
        done=["inspect", "guard.wasm"],
        cause=["there is no file"],
        step=["'guard.wasm'"],
        code=3,
    ),
]


@rows(MODULES)
def test_a_mistake_in_a_module_is_told(make, mistake):
    """With its cause and the next step."""
    make(mistake)
