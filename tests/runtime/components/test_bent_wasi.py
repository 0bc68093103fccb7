"""Components that import WASI's functions with other types than WASI has: a component chooses what it says they are."""

from __future__ import annotations

import pytest
import wasmtime

from component_guests import described
from hookline_api.hooks import Hook

RANDOM = "wasi:random/random@0.2.0"
STREAMS = "wasi:io/streams@0.2.0"


def bent(interface: str, name: str, kind: str, core: str, call: str) -> bytes:
    """A component that imports the function with this type, and calls it so in its hook."""
    text = f"""(component
      (core module $library (memory (export "memory") 2)
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 64)))
      (core instance $lib (instantiate $library))
      (import "{interface}" (instance $wasi (export "{name}" (func {kind}))))
      (core func $f (canon lower (func $wasi "{name}") (memory (core memory $lib "memory"))
        (realloc (core func $lib "realloc"))))
      (core instance $given (export "f" (func $f)))
      (core module $m
        (import "wasi" "f" (func $f {core}))
        (memory (export "memory") 1)
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 64))
        (func (export "call") (param i32 i32 i32 i32) (result i32) {call} (i32.const 0)))
      (core instance $i (instantiate $m (with "wasi" (instance $given))))
      (func (export "call") (param "hook" string) (param "input" string) (result string)
        (canon lift (core func $i "call") (memory (core memory $i "memory")) (realloc (core func $i "realloc")))))"""
    return described(bytes(wasmtime.wat2wasm(text)))


@pytest.mark.parametrize(
    ("interface", "name"),
    [
        (RANDOM, "get-random-u64"),
        ("wasi:random/insecure@0.2.0", "get-insecure-random-u64"),
        ("wasi:random/insecure-seed@0.2.0", "insecure-seed"),
        ("wasi:clocks/wall-clock@0.2.0", "now"),
        ("wasi:clocks/monotonic-clock@0.2.0", "resolution"),
        ("wasi:cli/environment@0.2.0", "get-environment"),
        ("wasi:cli/environment@0.2.0", "initial-cwd"),
        ("wasi:cli/stdout@0.2.0", "get-stdout"),
        ("wasi:filesystem/preopens@0.2.0", "get-directories"),
    ],
)
async def test_a_function_imported_without_its_result_ends_the_call_and_not_the_worker(
    workshop, interface, name
) -> None:
    """The engine has no place for a result that is not asked for, and whoever writes one writes into its memory."""
    runtime = await workshop.guest(bent(interface, name, "", "", "(call $f)"))
    assert (await runtime.call(Hook.CUSTOM, b"0"))["failure"] == "trap"
    told = runtime.plugins["guest"].last_failure.message
    assert told == f"custom_hook failed: it imports {name} with another result than it has"


@pytest.mark.parametrize(
    ("interface", "name", "kind", "core", "call", "message"),
    [
        (RANDOM, "get-random-bytes", '(param "n" s64) (result (list u8))', "(param i64 i32)",
         "(call $f (i64.const -1) (i32.const 32))", "asked for -1 random bytes"),
        (RANDOM, "get-random-bytes", "(result (list u8))", "(param i32)", "(call $f (i32.const 32))",
         "asked for None random bytes"),
        (RANDOM, "get-random-u64", "(result string)", "(param i32)", "(call $f (i32.const 32))",
         "expected string, found u64"),
        (RANDOM, "get-random-u64", "(result (tuple u64 u64 u64))", "(param i32)", "(call $f (i32.const 32))",
         "expected tuple, found u64"),
        ("wasi:cli/exit@0.2.0", "exit", "", "", "(call $f)", "ended the program with exit code 1"),
        (STREAMS, "check-write", '(param "to" u32)', "(param i32)", "(call $f (i32.const 0))", "has not been defined"),
    ],
)  # fmt: skip
async def test_a_function_imported_with_other_types_ends_the_call(  # noqa: PLR0917 - the parts of a type
    workshop, caplog, interface, name, kind, core, call, message
) -> None:
    """With a sentence, and without a stack of ours in the log for each call."""
    runtime = await workshop.guest(bent(interface, name, kind, core, call))
    assert (await runtime.call(Hook.CUSTOM, b"0"))["failure"] == "trap"
    assert message in runtime.plugins["guest"].last_failure.message
    assert not [record for record in caplog.records if record.name == "hookline.component"]


@pytest.mark.parametrize(
    ("data", "core", "call"),
    [
        ('(param "data" u32)', "(param i32 i32)", "(call $f (local.get 0) (i32.const 9))"),
        ("", "(param i32)", "(call $f (local.get 0))"),
    ],
)
async def test_a_write_of_what_is_not_bytes_ends_the_call(workshop, caplog, data, core, call) -> None:
    """To a stream that the guest was given, and with other parameters than WASI's."""
    text = f"""(component
      (core module $library (memory (export "memory") 2))
      (core instance $lib (instantiate $library))
      (import "{STREAMS}" (instance $streams
        (export "output-stream" (type $out (sub resource)))
        (export "[method]output-stream.write" (func (param "self" (borrow $out)) {data} (result (result))))))
      (alias export $streams "output-stream" (type $stream))
      (import "wasi:cli/stdout@0.2.0" (instance $stdout
        (alias outer 1 $stream (type $s)) (export "output-stream" (type $t (eq $s)))
        (export "get-stdout" (func (result (own $t))))))
      (core func $get (canon lower (func $stdout "get-stdout")))
      (core func $f (canon lower (func $streams "[method]output-stream.write") (memory (core memory $lib "memory"))))
      (core instance $given (export "f" (func $f)) (export "get" (func $get)))
      (core module $m
        (import "wasi" "f" (func $f {core} (result i32)))
        (import "wasi" "get" (func $get (result i32)))
        (memory (export "memory") 1)
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 64))
        (func (export "call") (param i32 i32 i32 i32) (result i32)
          (local.set 0 (call $get)) (drop {call}) (i32.const 0)))
      (core instance $i (instantiate $m (with "wasi" (instance $given))))
      (func (export "call") (param "hook" string) (param "input" string) (result string)
        (canon lift (core func $i "call") (memory (core memory $i "memory")) (realloc (core func $i "realloc")))))"""
    runtime = await workshop.guest(described(bytes(wasmtime.wat2wasm(text))))
    assert (await runtime.call(Hook.CUSTOM, b"0"))["failure"] == "trap"
    assert "wrote to a stream that it was not given, or what" in runtime.plugins["guest"].last_failure.message
    assert not [record for record in caplog.records if record.name == "hookline.component"]
