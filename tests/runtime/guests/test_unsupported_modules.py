"""A module that Hookline does not run is refused by the name of what it needs, with how to build it without.

The operator, which has no engine, and the sidecar say the same, wherever the module's header shows it.
"""

from __future__ import annotations

import pytest
import wasmtime

from hookline_api.hooks import Hook
from hookline_artifacts.errors import VerifyError
from hookline_artifacts.module.inspection import inspect_module
from hookline_artifacts.module.proposals import Proposal, named_in
from hookline_runtime.guest.engine import compile_to, first_line

_HEADERS = {
    "exceptions": ("(tag $e (param i32))", Proposal.EXCEPTIONS),
    "exceptions that are imported": ('(import "env" "e" (tag $e (param i32)))', Proposal.EXCEPTIONS),
    "references to exceptions": ("(func (param exnref))", Proposal.EXCEPTIONS),
    "64-bit memory": ("(memory i64 1)", Proposal.MEMORY64),
    "64-bit tables": ("(table i64 1 funcref)", Proposal.MEMORY64),
    "structs": ("(type $s (struct (field i32)))", Proposal.GC),
    "arrays": ("(type $a (array i8))", Proposal.GC),
    "recursive types": ("(rec (type $r (struct (field (ref null $r)))))", Proposal.GC),
    "subtypes": ("(type $t (sub (func)))", Proposal.GC),
    "small numbers as references": ("(func (param i31ref))", Proposal.GC),
    "any references": ("(func (result anyref) unreachable)", Proposal.GC),
    "references to host objects": ("(func (param externref))", Proposal.REFERENCE_TYPES),
    "tables of host objects": ("(table 1 externref)", Proposal.REFERENCE_TYPES),
    "typed function references": ("(type $f (func)) (func (param (ref $f)))", Proposal.FUNCTION_REFERENCES),
    "tables with a first value": (
        "(func $f) (elem declare func $f) (table 1 (ref func) (ref.func $f))", Proposal.FUNCTION_REFERENCES,
    ),
    "two memories": ("(memory 1)", Proposal.MULTI_MEMORY),
    "shared memory": ("(memory 1 2 shared)", Proposal.THREADS),
    "shared memory that is imported": ('(import "env" "memory" (memory 1 2 shared))', Proposal.THREADS),
    "continuations": ("(type $f (func)) (type $c (cont $f))", Proposal.STACK_SWITCHING),
    "pages of a byte": ("(memory 1 (pagesize 1))", Proposal.CUSTOM_PAGE_SIZES),
}  # fmt: skip
_INSTRUCTIONS = {
    "atomics": ("(func (drop (i32.atomic.load (i32.const 0))))", Proposal.THREADS),
    "a fence": ("(func (atomic.fence))", Proposal.THREADS),
    "a block that catches": ("(func (block $b (try_table (catch_all $b))))", Proposal.EXCEPTIONS),
    "a local of host objects": ("(func (local externref))", Proposal.REFERENCE_TYPES),
    "a global of host objects": ("(global externref (ref.null extern))", Proposal.REFERENCE_TYPES),
}
_RUN = {
    "vectors": "(func (drop (i32x4.splat (i32.const 0))))",
    "relaxed vectors": """(func (drop (i8x16.relaxed_swizzle (v128.const i64x2 0 0) (v128.const i64x2 0 0))))""",
    "tail calls": "(func $f (return_call $f))",
    "several results": "(func (result i32 i32) (i32.const 1) (i32.const 1))",
    "bulk memory": "(func (memory.fill (i32.const 0) (i32.const 0) (i32.const 0)))",
    "constants that are reckoned": "(global i32 (i32.add (i32.const 1) (i32.const 2)))",
    "numbers of 128 bits": """(func (param i64 i64) (result i64 i64)
        (i64.mul_wide_u (local.get 0) (local.get 1)))""",
    "function references in tables": "(table 1 funcref) (func $f) (elem (i32.const 0) $f)",
    "rounding that does not trap": "(func (result i32) (i32.trunc_sat_f32_s (f32.const nan)))",
}


def _module(wat, part: str) -> bytes:
    """A plugin with that in it; a memory in the part stands in front of its own."""
    memory = '(memory (export "memory") 2)'
    if part.startswith("(import"):
        return bytes(wasmtime.wat2wasm(wat.module(imports=part, hooks={"route": wat.no_answer}, memory=memory)))
    return bytes(wasmtime.wat2wasm(wat.module(part, hooks={"route": wat.no_answer}, memory=memory)))


@pytest.mark.parametrize("what", _HEADERS)
def test_what_a_header_shows_is_refused_by_name_before_the_engine_sees_it(wat, tmp_path, what):
    """Inspection is all that the operator has; the engine would refuse it too, and be told with the same sentence."""
    part, proposal = _HEADERS[what]
    wasm = _module(wat, part)
    with pytest.raises(VerifyError) as refused:
        inspect_module(wasm)
    assert str(refused.value) == proposal.sentence
    with pytest.raises(VerifyError, match="which Hookline does not run; "):
        compile_to(wasm, tmp_path / "out", fuel=False)


@pytest.mark.parametrize("what", _INSTRUCTIONS)
def test_what_only_its_code_shows_is_refused_by_name_when_it_is_compiled(wat, tmp_path, what):
    """With what the engine says of it, which names the place."""
    part, proposal = _INSTRUCTIONS[what]
    with pytest.raises(VerifyError) as refused:
        compile_to(_module(wat, part), tmp_path / "out", fuel=False)
    assert str(refused.value).startswith(proposal.sentence)
    assert "offset" in str(refused.value)


@pytest.mark.parametrize(
    ("code", "proposal"),
    [
        (b"\x06\x40\x19\x0b", Proposal.EXCEPTIONS),  # try … catch_all … end, and no tag: what destructors become
        (b"\x06\x40\x18\x00", Proposal.EXCEPTIONS),  # try … delegate
    ],
)
def test_exceptions_as_they_were_at_first_are_refused_by_name_too(wat, tmp_path, code, proposal):
    """Emscripten and older compilers write those; no text format of today has them."""
    wasm = _module(wat, "(func nop nop nop nop)")
    assert wasm.count(b"\x01\x01\x01\x01") == 1
    with pytest.raises(VerifyError) as refused:
        compile_to(wasm.replace(b"\x01\x01\x01\x01", code), tmp_path / "out", fuel=False)
    assert str(refused.value).startswith(proposal.sentence)


def test_what_the_engine_requires_is_named_whoever_it_says_it_of():
    """Wasmparser says "require", "requires" and "required"."""
    assert named_in("shared globals require the shared-everything-threads proposal") == Proposal.THREADS.sentence


@pytest.mark.parametrize("what", _RUN)
async def test_what_is_part_of_webassembly_and_needs_no_collector_runs(workshop, wat, what):
    """What compilers use by themselves does not get a plugin refused."""
    wasm = _module(wat, _RUN[what])
    assert inspect_module(wasm).hooks == (Hook.ROUTE,)
    runtime = await workshop.guest(wasm)
    assert (await runtime.call(Hook.ROUTE, b'{"query": "select 1"}'))["action"] == "default"


@pytest.mark.parametrize(
    ("error", "essence"),
    [
        ("failed to parse\n\nCaused by:\n    exceptions proposal not enabled (at offset 0x14)\n",
         "exceptions proposal not enabled (at offset 0x14)"),
        ("failed to compile\n\nCaused by:\n    0: translation error\n    1: Invalid input: at offset 24: oh\n",
         "Invalid input: at offset 24: oh"),
        ("failed\n\nCaused by:\n    0: one\n    1: two\n       goes on here\n", "two goes on here"),
        ("failed\n\nCaused by:\n    one cause\n    on two lines\n", "one cause on two lines"),
        ("error at wasm backtrace:\n    0:   0x1b - m!f\n\nCaused by:\n    wasm trap: oh", "wasm trap: oh"),
        ("one\n\nCaused by:\n    two\n\nCaused by:\n    three\n", "three"),
        ("just this", "just this"), ("first\nsecond", "first"), ("", "?"), ("\n\nCaused by:\n", "?"),
    ],
)  # fmt: skip
def test_of_an_engines_error_the_last_cause_is_told_however_it_is_written(error, essence):
    """Several causes are numbered and a single one is not."""
    assert first_line(error) == essence


def test_a_fault_that_is_no_proposal_is_told_as_the_engine_says_it(tmp_path):
    """Only a part of WebAssembly that is off has a sentence of ours."""
    wrong = bytes(wasmtime.wat2wasm('(module (func (export "exceptions") (result i32)))'))
    with pytest.raises(VerifyError, match=r"is not valid WebAssembly: .*type mismatch: expected i32"):
        compile_to(wrong, tmp_path / "out", fuel=False)
    assert named_in("type mismatch: expected i32, found f32") is None


# ── programs that have to be started ──

_FLAG = "(global $set_up (mut i32) (i32.const 0))"
_SAYS = {"custom_hook": "(call $number (i64.extend_i32_u (global.get $set_up)))"}


def _sets_up(name: str) -> str:
    return f'(func (export "{name}") (global.set $set_up (i32.add (global.get $set_up) (i32.const 1))))'


def test_a_program_that_has_to_be_started_is_refused_with_how_to_build_a_reactor(wat):
    """Nothing would run its ``main``, or set it up for its hooks; operator and sidecar see it alike."""
    text = wat.module(_FLAG, _sets_up("_start"), hooks=_SAYS)
    with pytest.raises(VerifyError, match="exports '_start' and no '_initialize'") as refused:
        inspect_module(bytes(wasmtime.wat2wasm(text)))
    for way in ("-mexec-model=reactor", "-buildmode=c-shared", "cdylib", "--exportStart"):
        assert way in str(refused.value)


@pytest.mark.parametrize("mode", ["PerCall", "Pooled"])
@pytest.mark.parametrize(
    "parts",
    [
        (_sets_up("_initialize"),),
        (_sets_up("_initialize"), '(func (export "_start") unreachable)'),
        (_sets_up("_initialize"), '(func (export "__wasm_call_ctors") unreachable)'),
        (_sets_up("__wasm_call_ctors"),),
        (_sets_up("__wasm_call_ctors"), '(func (export "main") (param i32 i32) (result i32) unreachable)'),
        ("(start $begin) (func $begin (global.set $set_up (i32.const 1)))",),
    ],
    ids=["reactor", "both", "reactor with constructors", "constructors", "a main beside them", "start section"],
)
async def test_each_instance_is_set_up_once_before_its_first_call(workshop, wat, mode, parts):
    """By ``_initialize``, by the constructors where nothing else calls them, or by the module's own start."""
    runtime = await workshop.guest(wat.module(_FLAG, *parts, hooks=_SAYS), isolation={"mode": mode})
    assert [(await runtime.call(Hook.CUSTOM, b"0"))["value"] for _ in range(3)] == [1, 1, 1]


async def test_an_export_of_that_name_that_is_no_function_starts_nothing(workshop, wat):
    """Nor do constructors of another type."""
    odd = '(global (export "_start") i32 (i32.const 0)) (func (export "__wasm_call_ctors") (param i32))'
    runtime = await workshop.guest(wat.module(_FLAG, odd, hooks=_SAYS))
    assert (await runtime.call(Hook.CUSTOM, b"0"))["value"] == 0
