"""Small components of the world ``hookline:plugin``, written as text: a core module with a shell around it."""

from __future__ import annotations

import json
from typing import Any

import wasmtime

from hookline_api.component import FUNCTIONS
from hookline_artifacts.module.annotate import with_sections

ECHO = "(call $answer (local.get $input) (local.get $length))"
"""The body of a ``call`` that answers its input."""

_CORE = {"string": "i32 i32", "u32": "i32", "s64": "i64", "f64": "f64"}

_MODULE = """
(core module $m
  {imports}
  (memory (export "memory") {pages})
  (global $top (mut i32) (i32.const 4096))
  (global $calls (mut i32) (i32.const 0))
  (func $alloc (param $n i32) (result i32) (local $p i32)
    (local.set $p (global.get $top))
    (global.set $top (i32.and (i32.add (i32.add (local.get $p) (local.get $n)) (i32.const 7)) (i32.const -8)))
    (block $enough (loop $more
      (br_if $enough (i32.le_u (global.get $top) (i32.mul (memory.size) (i32.const 65536))))
      (br_if $enough (i32.eq (memory.grow (i32.const 16)) (i32.const -1)))
      (br $more)))
    (local.get $p))
  (func (export "realloc") (param i32 i32 i32 i32) (result i32) (call $alloc (local.get 3)))
  (func $answer (param i32 i32) (result i32) (local $p i32)
    (local.set $p (call $alloc (i32.const 8)))
    (i32.store (local.get $p) (local.get 0))
    (i32.store offset=4 (local.get $p) (local.get 1))
    (local.get $p))
  {data}
  {parts}
  (func (export "call") (param $hook i32) (param $named i32) (param $input i32) (param $length i32) (result i32)
    (local $i i32) (local $j i32)
    {body})
  (func (export "done") (param i32) (global.set $top (i32.const 4096))))
"""


def component(
    body: str = ECHO,
    *,
    uses: tuple[str, ...] = (),
    data: dict[int, bytes] | None = None,
    parts: str = "",
    outside: str = "",
    pages: int = 1,
    hooks: tuple[str, ...] | None = ("custom_hook",),
    permissions: tuple[str, ...] = (),
) -> bytes:
    """A component whose ``call`` has this body, with its description.

    ``uses`` are host functions, callable as ``$name``; with ``hooks`` None it has no description.
    """
    imports, lowered, instances = "", "", ""
    if uses:
        types = " ".join(f'(export "{name}" (func {_written(name)}))' for name in uses)
        outside = f'(import "hookline:plugin/host" (instance $host {types})) {outside}'
        for name in uses:
            imports += f'(import "host" "{name}" (func ${name} {_core(name)}))\n'
            lowered += (
                f'(core func ${name} (canon lower (func $host "{name}") (memory (core memory $lib "memory")) '
                f'(realloc (core func $lib "realloc"))))\n'
            )
            instances += f'(export "{name}" (func ${name}))'
    segments = "".join(f'(data (i32.const {at}) "{_quoted(raw)}")' for at, raw in (data or {}).items())
    if not uses:
        module = _MODULE.format(imports="", pages=pages, data=segments, parts=parts, body=body)
        shell = "(core instance $i (instantiate $m))"
    else:
        # A function is lowered into a memory that is there already: a module of its own has it, as toolchains do.
        imports += '(import "lib" "memory" (memory 1))'
        module = _LIBRARY + _MODULE.format(imports=imports, pages=pages, data=segments, parts=parts, body=body).replace(
            f'(memory (export "memory") {pages})', '(export "memory" (memory 0))'
        )
        shell = f"""(core instance $lib (instantiate $library))
          {lowered}
          (core instance $given {instances})
          (core instance $i (instantiate $m (with "host" (instance $given)) (with "lib" (instance $lib))))"""
    text = f"""(component {outside} {module} {shell}
      (func (export "call") (param "hook" string) (param "input" string) (result string)
        (canon lift (core func $i "call") (memory (core memory $i "memory")) (realloc (core func $i "realloc"))
          (post-return (core func $i "done")))))"""
    return described(bytes(wasmtime.wat2wasm(text)), hooks=hooks, permissions=permissions)


_LIBRARY = """
(core module $library
  (memory (export "memory") 1)
  (global $top (mut i32) (i32.const 32768))
  (func (export "realloc") (param i32 i32 i32 i32) (result i32) (local $p i32)
    (if (i32.gt_u (global.get $top) (i32.const 60000)) (then (global.set $top (i32.const 32768))))
    (local.set $p (global.get $top))
    (global.set $top (i32.add (global.get $top) (local.get 3)))
    (local.get $p)))
"""


def described(
    wasm: bytes, *, hooks: tuple[str, ...] | None = ("custom_hook",), permissions: tuple[str, ...] = ()
) -> bytes:
    """A component with its description."""
    if hooks is None:
        return wasm
    told: dict[str, Any] = {"hooks": list(hooks), "permissions": list(permissions)}
    return with_sections(wasm, {"hookline.plugin": json.dumps(told).encode()})


def _written(name: str) -> str:
    """A host function's type in the text format."""
    function = FUNCTIONS[name]
    params = " ".join(f'(param "{param}" {_type(kind)})' for param, kind in function.params)
    return f"{params} (result {_type(function.result)})" if function.result else params


def _type(kind: str) -> str:
    return {
        "result<_, string>": "(result (error string))",
        "result<bool, string>": "(result bool (error string))",
        "result<s64, string>": "(result s64 (error string))",
        "result<string, string>": "(result string (error string))",
        "result<option<string>, string>": "(result (option string) (error string))",
        "result<list<string>, string>": "(result (list string) (error string))",
        "option<string>": "(option string)",
    }.get(kind, kind)


def _core(name: str) -> str:
    """Its core type: what has more than one number as a result takes a place for it."""
    function = FUNCTIONS[name]
    params = " ".join(_CORE[kind] for _, kind in function.params)
    if function.result == "u64":
        return f"(param {params}) (result i64)"
    return f"(param {params} {'i32' if function.result else ''})"


def _quoted(raw: bytes) -> str:
    return "".join(f"\\{byte:02x}" for byte in raw)
