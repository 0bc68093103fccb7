"""Bytes that are small to send and dear to read. Each has its maker, so that none has to be kept."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping

import wasmtime

from guests import BUMP, Guests


def module(hook: str, body: str, *, imports: str = "", parts: str = "") -> bytes:
    """A module of the guest ABI with one hook; its input is ``$p`` and ``$n``, and ``$i`` is an i64."""
    return Guests().module({hook: body}, imports=imports, parts=parts)


def echo_module(name: str = "") -> bytes:
    """A module whose custom hook answers its input; ``name`` makes it another one."""
    return module("custom_hook", Guests.echo, parts=f'(data (i32.const 1024) "{name}")')


def greedy_module(mebibytes: int) -> bytes:
    """A module whose hook ``pre_query`` touches so much memory, and answers nothing after a while."""
    last = mebibytes * 2**20 - 4096
    body = f"""
      (drop (memory.grow (i32.const {mebibytes * 16 - 2})))
      (loop $touch
        (i64.store8 (i32.wrap_i64 (local.get $i)) (i64.const 1))
        (local.set $i (i64.add (local.get $i) (i64.const 4096)))
        (br_if $touch (i64.lt_u (local.get $i) (i64.const {last}))))
      (local.set $i (i64.const 0))
      (loop $more (local.set $i (i64.add (local.get $i) (i64.const 1)))
        (br_if $more (i64.lt_u (local.get $i) (i64.const 100000000))))
      (i64.const 0)"""
    return module("pre_query", body)


def filling_module() -> bytes:
    """A module whose hook ``pre_query`` writes 40 new keys of 60 KB, long after its store takes no more."""
    body = """
      (loop $more
        (drop (call $random (i32.const 1024) (i32.const 16)))
        (drop (call $set (i32.const 1024) (i32.const 16) (i32.const 2048) (i32.const 60000)))
        (local.set $i (i64.add (local.get $i) (i64.const 1)))
        (br_if $more (i64.lt_u (local.get $i) (i64.const 40))))
      (i64.const 0)"""
    return module(
        "pre_query",
        body,
        imports='(import "env" "kv_set" (func $set (param i32 i32 i32 i32) (result i32)))'
        '(import "hookline" "random" (func $random (param i32 i32) (result i32)))',
    )


def leb(number: int) -> bytes:
    """Unsigned LEB128."""
    out = bytearray()
    while True:
        number, low = number >> 7, number & 0x7F
        out.append(low | (0x80 if number else 0))
        if not number:
            return bytes(out)


def section(kind: int, body: bytes) -> bytes:
    """A section of a module."""
    return bytes([kind]) + leb(len(body)) + body


def many_params_module(count: int) -> bytes:
    """A module with one function type of so many parameters, a byte each, which a hook is of."""
    kind = b"\x60" + leb(count) + b"\x7f" * count + b"\x01\x7e"
    exports = leb(1) + leb(len("custom_hook")) + b"custom_hook" + b"\0\0"
    body = b"\x00\x42\x00\x0b"
    code = leb(1) + leb(len(body)) + body
    return (
        b"\0asm\x01\0\0\0" + section(1, leb(1) + kind) + section(3, leb(1) + b"\0") + section(7, exports)
        + section(10, code)
    )  # fmt: skip


def schema_module(number: int) -> bytes:
    """A module that describes its settings: a list of objects, one of many shapes each."""
    shapes = [{"type": "object", "required": [f"x{each}"]} for each in range(20)]
    items = {"anyOf": [*shapes, {"type": "object"}]}
    schema = {"type": "object", "properties": {"list": {"type": "array", "items": items}}}
    document = json.dumps({"name": f"checked-{number}", "config_schema": schema}).encode()
    name = b"hookline.plugin"
    return module("pre_query", "(i64.const 0)") + section(0, leb(len(name)) + name + document)


def slow_module(rounds: int, locals_: int = 1000) -> bytes:
    """A module that is small to send and long to compile: many values that all live through many blocks."""
    sets = "".join(
        f"(block $b{n} (br_table $b{n} $b{n} (local.get $p)))"
        f"(local.set {3 + n % locals_}"
        f" (i64.add (local.get {3 + (n * 7 + 1) % locals_}) (local.get {3 + n * 13 % locals_})))"
        f"(if (i32.and (local.get $n) (i32.const {1 << n % 31}))"
        f" (then (local.set {3 + (n * 5 + 2) % locals_} (local.get {3 + (n * 3 + 4) % locals_}))))"
        for n in range(rounds)
    )
    total = "".join(f"(local.set $i (i64.xor (local.get $i) (local.get {3 + n})))" for n in range(locals_))
    names = " ".join(["i64"] * locals_)
    body = f"(loop $again {sets} (br_if $again (i32.eqz (local.get $n)))) {total} (local.get $i)"
    text = (
        f'(module (memory (export "memory") 2) {BUMP}'
        f" (func $slow (param $p i32) (param $n i32) (result i64) (local $i i64) (local {names}) {body})"
        ' (func (export "custom_hook") (param $p i32) (param $n i32) (result i64)'
        " (call $slow (local.get 0) (local.get 1))))"
    )
    return bytes(wasmtime.wat2wasm(text))


def packed(files: Mapping[str, bytes]) -> bytes:
    """A tar.gz."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=9) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def deep_yaml() -> bytes:
    """A packed plugin whose ``plugin.yaml`` is brackets that open and never close."""
    return packed({"plugin.yaml": b"[" * 65_000, "plugin.wasm": echo_module("deep")})


def deep_toml() -> bytes:
    """A packed plugin whose ``plugin.toml`` nests by dots as deep as a file may be long."""
    return packed({"plugin.toml": b"a." * 32_000 + b"a = 1", "plugin.wasm": echo_module("toml")})


def empty_members(size: int) -> bytes:
    """So many bytes of gzip that unpack to nothing, and a module behind them."""
    member = gzip.compress(b"", mtime=0)
    return member * (size // len(member)) + packed({"plugin.wasm": echo_module("members")})


def commas(size: int) -> bytes:
    """JSON of so many bytes, and as many objects as fit."""
    return b"[" + b"{}," * ((size - 4) // 3) + b"{}]"


def large_config(size: int) -> dict[str, object]:
    """Settings of about so many bytes, in small pieces."""
    return {"list": [{} for _ in range(size // 3)]}


def challenge() -> str:
    """A ``WWW-Authenticate`` of 16 KiB: separators, and nothing that they separate."""
    return "," * 15_000 + '"'


def globs(count: int, host: str) -> bytes:
    """A docker config.json with so many patterns for a host, as long as keys may be, and dear to try."""
    first, _, rest = host.partition(".")
    auths = {f"{f'*{first[0]}' * 480}*{n}.{rest}": {"auth": "eDp5"} for n in range(count)}
    return json.dumps({"auths": auths}).encode()
