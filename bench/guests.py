"""The plugins that are measured, made here and the same every time; no binary is kept in the repository.

All of them answer constants, so that what is measured is the runtime. Each names a fixed region for its input, so
that no host has to ask its ``alloc``, and answers without white space, so that what a host makes of it can be
compared byte for byte.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import wasmtime

if TYPE_CHECKING:
    from collections.abc import Mapping

MARK: Final = "v000000"
"""Stands in an answer for the number of the module's version."""
_ANSWERS_AT: Final = 1024
INPUT_AT: Final = 65536
_INPUT_SIZE: Final = 2 * 65536

_FILLER: Final = """
(func $f{n} (param $a i32) (param $b i32) (result i32) (local $c i32) (local $d i64)
  (local.set $c (i32.const {k}))
  (block $end (loop $more
    (br_if $end (i32.eqz (local.get $b)))
    (local.set $c (i32.add (i32.mul (local.get $c) (i32.const {m}))
                           (i32.load offset={o} (i32.and (local.get $a) (i32.const 0xfff8)))))
    (local.set $d (i64.rotl (i64.xor (local.get $d) (i64.extend_i32_u (local.get $c))) (i64.const {r})))
    (if (i32.lt_u (local.get $c) (local.get $b))
      (then (i64.store offset={o} (i32.and (local.get $c) (i32.const 0x7ff8)) (local.get $d)))
      (else (local.set $c (i32.xor (local.get $c) (call $f{next} (local.get $c) (i32.const 0))))))
    (local.set $a (i32.add (local.get $a) (i32.const 8)))
    (local.set $b (i32.sub (local.get $b) (i32.const 1)))
    (br $more)))
  (i32.add (local.get $c) (i32.wrap_i64 (local.get $d))))
"""


def guest(answers: Mapping[str, Any], *, loop_on: str | None = None, host_calls: int = 0, filler: int = 0) -> bytes:
    """A module that answers each of these hooks with its constant.

    With ``loop_on`` a call whose input begins with that character never ends. With ``host_calls`` each call asks
    the host for the time first, so often. ``filler`` adds functions that nobody calls and a compiler has to compile
    all the same: that is what makes a module large.
    """
    parts, functions, at = [f'(data (i32.const 0) "{MARK}")'], [], _ANSWERS_AT
    loop = (
        f"(if (i32.eq (i32.load8_u (local.get $p)) (i32.const {ord(loop_on)})) (then (loop $ever (br $ever))))"
        if loop_on
        else ""
    )
    host = (
        f"(local $i i32) (local.set $i (i32.const {host_calls})) (loop $again (drop (call $time))"
        " (br_if $again (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))"
        if host_calls
        else ""
    )
    for hook, answer in answers.items():
        raw = json.dumps(answer, separators=(",", ":")).encode()
        quoted = "".join(f"\\{byte:02x}" for byte in raw)
        parts.append(f'(data (i32.const {at}) "{quoted}")')
        functions.append(
            f'(func (export "{hook}") (param $p i32) (param $n i32) (result i64)'
            f" {host} {loop} (i64.const {at << 32 | len(raw)}))"
        )
        at += len(raw) + 16
    if host_calls:
        parts.insert(0, '(import "hookline" "get_time" (func $time (result i64)))')
    parts.append('(memory (export "memory") 3)')
    parts.append(f'(func (export "alloc") (param i32) (result i32) (i32.const {INPUT_AT}))')
    region = INPUT_AT << 32 | _INPUT_SIZE
    parts.append(f'(func (export "hookline_input") (result i64) (i64.const {region}))')
    fill = [
        _FILLER.format(n=n, next=(n * 7 + 1) % filler, k=n * 2654435761 % 2**31, m=n * 2 + 3, o=n % 4096 * 8, r=n % 63)
        for n in range(filler)
    ]
    return bytes(wasmtime.wat2wasm("\n".join(["(module", *parts, *functions, *fill, ")"])))


def version(wasm: bytes, number: int) -> bytes:
    """The same module with other bytes: what stands for its version, also in an answer, is this number."""
    return wasm.replace(MARK.encode(), b"v%06d" % number)


def _query(**more: Any) -> str:
    context = {
        "request_id": "r-1", "client_id": "c-1", "identity": "app", "database": "shop", "branch": None,
        "attributes": {"tenant_id": "t-17"},
    }  # fmt: skip
    return json.dumps(
        {"query": "select name, price from items where id = $1", "normalized": None, "tables": ["items"],
         "is_read_only": True, "hook_context": context, **more}
    )  # fmt: skip


_EVENT: Final = json.dumps({"hook_context": json.loads(_query())["hook_context"], "event": {"kind": "open"}})
_LOGIN: Final = {
    "headers": {"authorization": "Bearer t", "x-request-id": "r-1"}, "username": "app", "password": None,
    "client_ip": None, "database": None,
}  # fmt: skip
_OUTCOME: Final = {"success": True, "target_node": None, "elapsed_us": 5, "response_bytes": 10, "error": None}

QUERY: Final = _query()
"""The body of a hook call about a query, with every field, so that the guest gets the bytes as they came."""

HOOKS: Final[dict[str, tuple[str, Any, str]]] = {
    "route": (QUERY, {"action": "node", "target": MARK}, "node"),
    "pre_query": (QUERY, {"action": "block", "value": "not today"}, "block"),
    "rewrite": (QUERY, {"action": "rewrite", "value": "select 1"}, "rewrite"),
    "authenticate": (
        json.dumps(_LOGIN), {"action": "success", "identity": {"user_id": "u-1", "username": "app"}}, "success",
    ),
    "authorize": (_query(identity=None, action="read", resource="items"), {"action": "allow"}, "allow"),
    "cache_get": (_query(key="k"), {"action": "hit", "data_base64": "aGk=", "ttl_ms": 1000}, "hit"),
    "cache_set": (_query(key="k", value="aGk=", ttl_ms=1000), {"action": "skip"}, "skip"),
    "custom_hook": (
        '{"any": "thing", "hook_context": {"request_id": "r-1"}}', {"some": "answer"}, "answered",
    ),
    "post_query": (
        json.dumps([json.loads(QUERY), _OUTCOME]), {}, "accepted",
    ),
    "on_connect": (_EVENT, {}, "accepted"),
}  # fmt: skip
"""Hook → a call's body, what the guest answers, and the action that the proxy must get. As many as ten plugins."""
