"""Inspection has no engine, and refuses what the engine would: its limits, and what it does not run.

What it leaves to the engine is whether the instructions of a function fit together. Both are asked here about the same
bytes: what the engine takes, inspection takes, within bounds of its own that are ten times what modules have.
"""

from __future__ import annotations

import random
import re

import pytest
import wasmtime

from hookline_artifacts.errors import VerifyError
from hookline_artifacts.module import sections as sections_module
from hookline_artifacts.module.inspection import inspect_module
from hookline_artifacts.module.proposals import Proposal, ProposalError, UnknownTypeError
from hookline_artifacts.module.reader import MalformedError
from hookline_artifacts.module.sections import Sections
from hookline_runtime.guest.engine import compile_to, engine
from module_bytes import CODE, I32, MEMORY, NO_TYPE, PLAIN, body, leb, module, section, vector

OF_BODIES = re.compile(
    r"type mismatch|unknown (?:label|local|global|type|function|table|elem segment|data segment|memory)|memop alignment"
    r"|values remaining|operators remaining|control frames remain|`else` found|SIMD index|invalid lane"
    r"|global is immutable|undeclared function reference|END opcode|unexpected end|data count section required"
    r"|invalid local|expression"
)
"""What the engine says where the instructions of a function do not fit together, or name what is not there."""


def with_code(code, local_groups=b"\0"):
    """A module with all that instructions may name, each once, and a function of this code."""
    return module(
        *PLAIN,
        section(4, vector(b"\x70\0\x01")),
        section(5, vector(b"\0\x01")),
        section(6, vector(b"\x7f\x01\x41\0\x0b")),
        section(7, vector(b"\x01f\0\0")),
        section(9, vector(b"\x01\0\x01\0")),
        section(12, b"\x01"),
        section(10, vector(body(code, local_groups))),
        section(11, vector(b"\x01\0")),
    )


def inspected(wasm):
    """What inspection has against the bytes as a module, or None."""
    try:
        Sections().read(wasm)
    except (MalformedError, ProposalError, UnknownTypeError, UnicodeDecodeError, IndexError) as error:
        return str(error) or "?"
    return None


def validated(wasm):
    """What the engine has against them, or None."""
    try:
        wasmtime.Module.validate(engine(fuel=False), wasm)
    except wasmtime.WasmtimeError as error:
        return str(error).strip().rpartition("\n")[2].strip()
    return None


def agree(wasm):
    """Neither is stricter, but for what is the engine's alone."""
    ours, theirs = inspected(wasm), validated(wasm)
    if theirs is None:
        assert ours is None, (ours, wasm.hex()[:2000])
    elif ours is None:
        assert OF_BODIES.search(theirs), (theirs, wasm.hex()[:2000])
    return theirs is None


OPCODES = [
    *(bytes((code,)) for code in range(256) if code not in {0xFB, 0xFC, 0xFD, 0xFE}),
    *(bytes((prefix,)) + leb(code) for prefix in (0xFB, 0xFC, 0xFD, 0xFE) for code in range(0x128)),
    *(bytes((prefix, code | 0x80, 0x80, 0)) for prefix in (0xFC, 0xFD) for code in range(0x20)),
]
BEHIND = [
    b"", b"\0", b"\0\0", b"\0\0\0", b"\0" * 8, b"\0" * 16, b"\x40\x0b", b"\x70", b"\x6f", b"\x01\x7f", b"\x01\x6f",
    b"\x40\0\0", b"\x80\x80\x80\x80\0", b"\x80\x80\x80\x80\x80\0", b"\xff\xff\xff\xff\x1f", b"\0\x80\x80\x80\x80\x10",
]  # fmt: skip


@pytest.mark.parametrize("first", range(0, len(OPCODES), 100))
def test_every_instruction_is_refused_where_the_engine_does_not_run_it(first):
    """In code that is never reached, where everything fits: what remains is whether it is an instruction."""
    taken = 0
    for opcode in OPCODES[first : first + 100]:
        for behind in BEHIND:
            taken += agree(with_code(b"\0" + opcode + behind + b"\0\x0b"))
    assert taken or OPCODES[first][0] >= 0xC4


PROPOSALS = {
    "exceptions as they were": (b"\x06\x40\x19\x0b\x0b", Proposal.EXCEPTIONS),
    "exceptions": (b"\x1f\x40\0\x0b\x0b", Proposal.EXCEPTIONS),
    "throw": (b"\x08\0\x0b", Proposal.EXCEPTIONS),
    "throw a reference": (b"\0\x0a\x0b", Proposal.EXCEPTIONS),
    "atomics": (b"\0\xfe\x10\x02\0\x0b", Proposal.THREADS),
    "a fence": (b"\xfe\x03\0\x0b", Proposal.THREADS),
    "a call of a reference": (b"\0\x14\0\x0b", Proposal.FUNCTION_REFERENCES),
    "a branch on null": (b"\0\xd5\0\x0b", Proposal.FUNCTION_REFERENCES),
    "a struct": (b"\xfb\x01\0\x1a\x0b", Proposal.GC),
    "a small reference": (b"\0\xfb\x1c\x1a\x0b", Proposal.GC),
    "a null of the host": (b"\xd0\x6f\x1a\x0b", Proposal.REFERENCE_TYPES),
    "a null of any": (b"\xd0\x6e\x1a\x0b", Proposal.GC),
    "a block of a host's reference": (b"\x02\x6f\0\x0b\x1a\x0b", Proposal.REFERENCE_TYPES),
    "a continuation": (b"\0\xe0\0\x0b", Proposal.STACK_SWITCHING),
    "another memory's size": (b"\x3f\x01\x1a\x0b", Proposal.MULTI_MEMORY),
    "another memory's load": (b"\0\x28\x42\x01\0\x1a\x0b", Proposal.MULTI_MEMORY),
    "another memory's copy": (b"\0\xfc\x0a\x01\0\x0b", Proposal.MULTI_MEMORY),
    "another memory's fill": (b"\0\xfc\x0b\x01\x0b", Proposal.MULTI_MEMORY),
    "a far offset": (b"\0\x28\x02\x80\x80\x80\x80\x80\x01\x1a\x0b", Proposal.MEMORY64),
}


@pytest.mark.parametrize("what", PROPOSALS)
def test_what_only_code_shows_is_refused_by_name_without_an_engine(what):
    """The operator says so, and not first each pod."""
    code, proposal = PROPOSALS[what]
    wasm = with_code(code)
    assert validated(wasm) is not None
    with pytest.raises(VerifyError) as refused:
        inspect_module(wasm)
    assert str(refused.value) == proposal.sentence


@pytest.mark.parametrize(
    ("wat", "proposal"),
    [
        ("(func (local externref))", Proposal.REFERENCE_TYPES),
        ("(global externref (ref.null extern))", Proposal.REFERENCE_TYPES),
        ("(func (local exnref))", Proposal.EXCEPTIONS),
        ("(func (local (ref null func)))", None),
        ("(func (local i31ref))", Proposal.GC),
        ("(global (mut i31ref) (ref.i31 (i32.const 1)))", Proposal.GC),
        ("(type $f (func)) (func (local (ref null $f)))", Proposal.FUNCTION_REFERENCES),
        ("(type $f (func)) (global (ref null $f) (ref.null $f))", Proposal.FUNCTION_REFERENCES),
        ("(elem externref (ref.null extern))", Proposal.REFERENCE_TYPES),
        ("(table 1 externref)", Proposal.REFERENCE_TYPES),
        ("(memory 1 2 shared)", Proposal.THREADS),
        ("(global (shared mut i32) (i32.const 0))", Proposal.THREADS),
        ("(memory i64 1)", Proposal.MEMORY64),
        ("(memory 1) (memory 1)", Proposal.MULTI_MEMORY),
        ("(tag)", Proposal.EXCEPTIONS),
        ("(memory 1 (pagesize 1))", Proposal.CUSTOM_PAGE_SIZES),
        ("(type $f (func)) (type $c (cont $f))", Proposal.STACK_SWITCHING),
        ("(rec (type (struct)))", Proposal.GC),
    ],
)
def test_what_any_section_shows_of_a_proposal_is_refused_by_name(wat, proposal):
    """Types of locals and globals, constants and segments of elements too."""
    wasm = bytes(wasmtime.wat2wasm(f"(module {wat})"))
    if proposal is None:
        agree(wasm)
    else:
        assert validated(wasm) is not None
        assert inspected(wasm) == proposal.sentence


LIMITS = {
    "parameters": lambda n: module(section(1, vector(b"\x60" + vector(*[I32] * (1000 + n)) + b"\0"))),
    "results": lambda n: module(section(1, vector(b"\x60\0" + vector(*[I32] * (1000 + n))))),
    "locals": lambda n: with_code(b"\x0b", vector(leb(50_000 + n) + I32)),
    "locals in groups": lambda n: with_code(b"\x0b", vector(*[b"\x01" + I32] * (50_000 + n))),
    "a body": lambda n: with_code(b"\x01" * (7_654_319 + n) + b"\x0b"),
    "pages": lambda n: module(section(5, vector(b"\0" + leb(65_536 + n)))),
    "most pages": lambda n: module(section(5, vector(b"\x01\0" + leb(65_536 + n)))),
    "less than it begins with": lambda n: module(section(5, vector(b"\x01\x02" + leb(2 - n)))),
    "a name": lambda n: module(*PLAIN, section(7, vector(leb(100_000 + n) + b"x" * (100_000 + n) + b"\0\0")),
                               CODE),
    "an imported name": lambda n: module(PLAIN[0], section(2, vector(b"\0" + leb(100_000 + n) + b"x" * (100_000 + n)
                                                                    + b"\0\0"))),
    "a custom name": lambda n: module(section(0, leb(100_000 + n) + b"x" * (100_000 + n))),
    "segments of data": lambda n: module(MEMORY, section(11, vector(*[b"\x01\0"] * (100_000 + n)))),
    "segments of data, told": lambda n: module(MEMORY, section(12, leb(n))),
    "segments of elements": lambda n: module(section(9, vector(*[b"\x01\0\0"] * (100_000 + n)))),
    "functions and code": lambda n: module(*PLAIN, section(10, vector(*[body(b"\x0b")] * (1 + n)))),
    "a type that is not there": lambda n: module(PLAIN[0], section(3, vector(leb(n))), CODE),
    "a start that is not there": lambda n: module(*PLAIN, section(8, leb(n)), CODE),
    "an export that is not there": lambda n: module(MEMORY, section(7, vector(b"\x01m\x02" + leb(n)))),
    "an export twice": lambda n: module(MEMORY, section(7, vector(*[b"\x01m\x02\0"] * (1 + n)))),
    "a section behind its place": lambda n: module(*(PLAIN if n == 0 else PLAIN[::-1]), CODE),
    "a section twice": lambda n: module(*[section(1, vector(NO_TYPE))] * (1 + n)),
    "bytes behind a section's end": lambda n: module(section(1, vector(NO_TYPE) + b"\0" * n)),
    "an unknown section": lambda n: module(section(14 * n, b"\x01x")),
    "no UTF-8": lambda n: module(section(0, b"\x01" + (b"x", b"\xff")[n])),
    "a number of six bytes": lambda n: module(section(1, b"\x80\x80\x80\x80" + b"\x80" * n + b"\0")),
    "a constant of another type": lambda n: module(section(6, vector(I32 + b"\0" + bytes((0x41 + n,)) + b"\0\x0b"))),
    "a constant without a value": lambda n: module(section(6, vector(I32 + b"\0" + (b"\x41\0\x0b", b"\x0b")[n]))),
    "a constant of a sum": lambda n: module(section(6, vector(I32 + b"\0\x41\0\x41\0" + bytes((0x6A + 18 * n, 11))))),
    "a constant of a global": lambda n: module(section(6, vector(I32 + b"\0\x41\0\x0b", *[I32 + b"\0\x23\0\x0b"] * n))),
    "data without a memory": lambda n: module(*[MEMORY] * (1 - n), section(11, vector(b"\0\x41\0\x0b\0"))),
    "elements without a table": lambda n: module(*[section(4, vector(b"\x70\0\0"))] * (1 - n),
                                                 section(9, vector(b"\0\x41\0\x0b\0"))),
    "elements that are not there": lambda n: module(*PLAIN, section(9, vector(b"\x01\0\x01" + leb(n))),
                                                    CODE),
    "a type of a value": lambda n: module(section(1, vector(b"\x60\x01" + bytes((0x7B - n,)) + b"\0"))),
    "a select of values": lambda n: with_code(b"\0\x1c" + vector(*[I32] * (1 + n)) + b"\x1a\x0b"),
}  # fmt: skip


@pytest.mark.parametrize("what", LIMITS)
def test_the_engines_limits_are_inspections_too(what):
    """At the limit both take it, and neither does above it."""
    make = LIMITS[what]
    assert (inspected(make(0)), validated(make(0))) == (None, None)
    assert inspected(make(1)) is not None
    assert validated(make(1)) is not None


@pytest.mark.parametrize("tables", [b"\x03" + b"\x70\0\x01" * 3, b"\x01\x70\0" + leb(200_001)])
def test_what_the_engines_pool_has_no_room_for_is_refused(tmp_path, tables):
    """Two tables of 200,000 elements: the pool of instances is made for that (docs/limits.md)."""
    wasm = module(section(4, tables))
    assert inspected(wasm) is not None
    with pytest.raises(VerifyError):
        compile_to(wasm, tmp_path / "out", fuel=False)


def test_bounds_of_our_own_are_told(monkeypatch):
    """Each where it is passed, in a sentence with the number."""
    made = {
        "_MAX_SECTIONS": module(*[section(0, b"\x01x")] * 11),
        "_MAX_GLOBALS": module(section(6, vector(*[I32 + b"\0\x41\0\x0b"] * 11))),
        "_MAX_ELEMENTS": module(*PLAIN, section(9, vector(b"\x01\0\x0b" + b"\0" * 11)), CODE),
        "_MAX_CONSTANT_STEPS": module(section(6, vector(I32 + b"\0" + b"\x41\0" * 6 + b"\x6a" * 5 + b"\x0b"))),
        "_MAX_LOCAL_GROUPS": with_code(b"\x0b", vector(*[b"\0" + I32] * 11)),
        "_MAX_NAME_BYTES": module(MEMORY, section(7, vector(b"\x0bxxxxxxxxxxx\x02\0"))),
        "_MAX_NAMES": module(MEMORY, section(7, vector(*[b"\x01" + bytes((97 + n,)) + b"\x02\0" for n in range(11)]))),
    }  # fmt: skip
    for name, wasm in made.items():
        assert (inspected(wasm), validated(wasm)) == (None, None)
        with monkeypatch.context() as changed:
            changed.setattr(sections_module, name, 10)
            assert "more than 10 " in inspected(wasm)


RICH = """(module
  (type $t (func (param i32 i64 f32 f64) (result i32)))
  (import "env" "kv_get" (func (param i32 i32) (result i64)))
  (table 3 10 funcref) (memory (export "memory") 1 4)
  (global $g (mut i32) (i32.const -7)) (global i64 (i64.const 1234567890123)) (global f32 (f32.const 1.5))
  (global f64 (f64.const 2.5)) (global v128 (v128.const i64x2 1 2)) (global funcref (ref.func $f))
  (elem (i32.const 0) $f $h) (elem func $f) (elem funcref (ref.func $h) (ref.null func)) (elem declare func $h)
  (data (i32.const 8) "some data") (data "passive")
  (func $f (type $t) (local i32 i64 f32 f64 v128 funcref)
    (block $a (result i32)
      (loop $b (br_if $b (i32.eqz (local.get 0))) (br_table $b $b $b (local.get 0)))
      (if (result i32) (local.get 0) (then (i32.load offset=70000 align=2 (i32.const 4))) (else (memory.size)))
    )
    (memory.copy (i32.const 0) (i32.const 8) (i32.const 4)) (memory.fill (i32.const 0) (i32.const 1) (i32.const 4))
    (memory.init 1 (i32.const 0) (i32.const 0) (i32.const 3)) (data.drop 1)
    (table.init 1 (i32.const 0) (i32.const 0) (i32.const 1)) (elem.drop 1) (drop (table.size 0))
    (drop (table.grow (ref.null func) (i32.const 1))) (table.set (i32.const 0) (table.get (i32.const 1)))
    (local.set 8 (i8x16.shuffle 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 (local.get 8) (v128.const i32x4 1 2 3 4)))
    (drop (i8x16.extract_lane_s 3 (local.get 8))) (v128.store offset=3 (i32.const 0) (local.get 8))
    (drop (v128.load8_lane 2 (i32.const 0) (local.get 8))) (drop (i32x4.relaxed_trunc_f32x4_s (local.get 8)))
    (drop (select (result i64) (local.get 1) (i64.const -1) (local.get 0)))
    (drop (call_indirect (type $t) (i32.const 1) (i64.const 2) (f32.const 3) (f64.const 4) (i32.const 0)))
    (drop (i64.trunc_sat_f64_u (local.get 3))) (global.set $g (i32.extend8_s (local.get 0))))
  (func $h (export "h") (param i32) (result i32) (return_call $k (local.get 0)))
  (func $k (param i32) (result i32) (drop (memory.grow (i32.const 1))) (i32.popcnt (local.get 0)))
)"""


@pytest.mark.parametrize("seed", range(20))
def test_of_mutated_modules_inspection_says_what_the_engine_says(seed):
    """One byte or two are changed, put in or left out, wherever they are."""
    wasm = bytes(wasmtime.wat2wasm(RICH))
    assert agree(wasm)
    dice = random.Random(seed)
    for _ in range(250):
        mutated = bytearray(wasm)
        for _ in range(dice.choice((1, 1, 1, 2))):
            at = dice.randrange(8, len(mutated))
            match dice.randrange(5):
                case 0 | 1:
                    mutated[at] = dice.randrange(256)
                case 2:
                    mutated[at] ^= 1 << dice.randrange(8)
                case 3:
                    mutated.insert(at, dice.randrange(256))
                case 4:
                    del mutated[at]
        agree(bytes(mutated))
