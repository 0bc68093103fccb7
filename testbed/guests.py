"""A maker of small modules of the guest ABI: WebAssembly text, whose hooks are written by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import wasmtime

from hookline_api.hooks import Hook

BUMP = """
(global $top (mut i32) (i32.const 65536))
(func $alloc (export "alloc") (param $n i32) (result i32)
  (local $p i32)
  (local.set $p (global.get $top))
  (global.set $top (i32.add (global.get $top) (local.get $n)))
  (loop $more
    (if (i32.gt_u (global.get $top) (i32.mul (memory.size) (i32.const 65536)))
      (then (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))))
  (local.get $p))
"""
"""An ``alloc`` that never gives anything back; it takes more memory where there is too little."""


class Guests:
    """Makes small modules of the guest ABI."""

    echo = """(i64.or (i64.shl (i64.extend_i32_u (local.get $p)) (i64.const 32))
                      (i64.extend_i32_u (local.get $n)))"""
    forever = "(loop $ever (br $ever)) (i64.const 0)"
    trap = "unreachable"

    def module(
        self,
        hooks: Mapping[str, str],
        *,
        imports: str = "",
        data: Mapping[int, bytes] | None = None,
        parts: str = "",
    ) -> bytes:
        """The bytes of a module; ``hooks`` are bodies by name, in which ``$p`` and ``$n`` are the input."""
        functions = [
            f'(func (export "{name}") (param $p i32) (param $n i32) (result i64) (local $i i64) {body})'
            for name, body in hooks.items()
        ]
        segments = [
            '(data (i32.const {}) "{}")'.format(where, "".join(f"\\{byte:02x}" for byte in raw))
            for where, raw in (data or {}).items()
        ]
        text = ["(module", imports, '(memory (export "memory") 2)', *segments, BUMP, *functions, parts, ")"]
        return bytes(wasmtime.wat2wasm("\n".join(text)))

    def answering(self, **answers: Any) -> bytes:
        """A module whose hooks answer these constants, written as JSON."""
        bodies: dict[str, str] = {}
        data: dict[int, bytes] = {}
        at = 1024
        for name, answer in answers.items():
            data[at] = raw = json.dumps(answer).encode()
            bodies[name] = f"(i64.const {at << 32 | len(raw)})"
            at += len(raw) + 16
        return self.module(bodies, data=data)

    def saying(self, value: Any) -> bytes:
        """A module whose custom hook answers a constant: to tell versions apart."""
        return self.answering(custom_hook=value)

    def configured(self) -> bytes:
        """A module whose every hook answers what its config holds under the hook's name; nothing without."""
        names = {hook.value: 1024 + 64 * index for index, hook in enumerate(Hook)}
        return self.module(
            {name: f"(call $get_config (i32.const {where}) (i32.const {len(name)}))" for name, where in names.items()},
            imports='(import "hookline" "get_config" (func $get_config (param i32 i32) (result i64)))',
            data={where: name.encode() for name, where in names.items()},
        )

    def stored(self, hook: str = "custom_hook") -> bytes:
        """A module whose hook answers the value at the key ``k`` of the plugin's store; nothing without."""
        body = """
        (local.set $n (call $kv_get (i32.const 1024) (i32.const 1) (i32.const 4096) (i32.const 16384)))
        (if (i32.lt_s (local.get $n) (i32.const 0)) (then (return (i64.const 0))))
        (i64.or (i64.shl (i64.const 4096) (i64.const 32)) (i64.extend_i32_u (local.get $n)))"""
        return self.module(
            {hook: body},
            imports='(import "env" "kv_get" (func $kv_get (param i32 i32 i32 i32) (result i32)))',
            data={1024: b"k"},
        )

    def busy(self, rounds: int) -> bytes:
        """A module whose custom hook counts to ``rounds`` (about a nanosecond each), then answers its input."""
        counting = f"""(loop $more (local.set $i (i64.add (local.get $i) (i64.const 1)))
                       (br_if $more (i64.lt_u (local.get $i) (i64.const {rounds}))))"""
        return self.module({"custom_hook": counting + self.echo})

    def patient(self) -> bytes:
        """A module whose custom hook is at work until the key ``go`` is there, and then answers its input.

        It needs the permission ``kv.read``.
        """
        waiting = """(loop $until
          (local.set $i (i64.const 0))
          (loop $more (local.set $i (i64.add (local.get $i) (i64.const 1)))
            (br_if $more (i64.lt_u (local.get $i) (i64.const 3000000))))
          (br_if $until (i32.lt_s
            (call $kv_get (i32.const 1024) (i32.const 2) (i32.const 2048) (i32.const 8)) (i32.const 0))))"""
        return self.module(
            {"custom_hook": waiting + self.echo},
            imports='(import "env" "kv_get" (func $kv_get (param i32 i32 i32 i32) (result i32)))',
            data={1024: b"go"},
        )

    def counter(self) -> bytes:
        """A module whose custom hook adds one to the number at the key ``n`` and answers the sum."""
        body = """
        (local.set $i (call $incr (i32.const 1024) (i32.const 1) (i64.const 1)))
        (call $digits (local.get $i))"""
        digits = """
        (func $digits (param $v i64) (result i64) (local $at i32)
          (local.set $at (i32.const 4096))
          (loop $more
            (local.set $at (i32.sub (local.get $at) (i32.const 1)))
            (i32.store8 (local.get $at)
              (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (local.get $v) (i64.const 10)))))
            (local.set $v (i64.div_u (local.get $v) (i64.const 10)))
            (br_if $more (i64.ne (local.get $v) (i64.const 0))))
          (i64.or (i64.shl (i64.extend_i32_u (local.get $at)) (i64.const 32))
                  (i64.extend_i32_u (i32.sub (i32.const 4096) (local.get $at)))))"""
        return self.module(
            {"custom_hook": body},
            imports='(import "hookline" "kv_incr" (func $incr (param i32 i32 i64) (result i64)))',
            data={1024: b"n"},
            parts=digits,
        )
