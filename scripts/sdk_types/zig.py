"""Zig's types: a struct for each input, which ``read.zig`` fills, and a tagged union for each hook's answers."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

from sdk_types.model import Answer, Contract, Field, HookShape, Kind, Struct

if TYPE_CHECKING:
    from collections.abc import Iterable

TARGET: Final = "sdk/hookline_sdk/zig/types.zig"

_HEAD: Final = """\
//! Generated from hookline_api/hooks.py by scripts/write_sdk.py; do not edit.
//!
//! What the proxy says, and what hooks answer. Slices are gone when the call ends.

const std = @import("std");
const json = @import("json.zig");
const Map = json.Map;
"""
_TYPES: Final = {
    Kind.TEXT: "[]const u8", Kind.FLAG: "bool", Kind.INTEGER: "i64", Kind.TEXTS: "[]const []const u8",
    Kind.MAP: "Map", Kind.JSON: "json.Value", Kind.BYTES: "[]const u8",
}  # fmt: skip
_EMPTY: Final = {
    Kind.TEXT: '""', Kind.FLAG: "false", Kind.INTEGER: "0", Kind.TEXTS: "&.{}", Kind.MAP: ".{}", Kind.JSON: ".null",
    Kind.OBJECT: ".{}",
}  # fmt: skip
_WORDS: Final = {"continue", "error", "defer"}
"""Zig's own."""


def pascal(name: str) -> str:
    """``pre_query`` as ``PreQuery``."""
    return "".join(part.capitalize() for part in name.split("_"))


def named(name: str) -> str:
    """A name that may be one of Zig's own words."""
    return f'@"{name}"' if name in _WORDS else name


def comment(text: str, indent: str = "") -> str:
    """Lines of a doc comment, none where there is no text."""
    plain = text.replace("``", "`")
    lines = textwrap.wrap(plain, 115 - len(indent), break_long_words=False, break_on_hyphens=False)
    return "".join(f"{indent}/// {line}\n" for line in lines)


def _type(field: Field) -> str:
    kind = field.of or _TYPES[field.kind]
    return f"?{kind}" if field.nullable else kind


def _row(field: Field) -> str:
    default = "" if field.required else " = null" if field.nullable else f" = {_EMPTY[field.kind]}"
    return f"{comment(field.text, '    ')}    {named(field.name)}: {_type(field)}{default},\n"


def _struct(struct: Struct) -> str:
    rows = "".join(_row(field) for field in struct.fields)
    return f"\n{comment(struct.text)}pub const {struct.name} = struct {{\n{rows}}};\n"


def _payload(answer: Answer) -> str:
    if not answer.fields:
        return ""
    if len(answer.fields) == 1 and not answer.fields[0].nullable:
        return f": {_type(answer.fields[0])}"
    rows = ", ".join(f"{named(each.name)}: {_type(each)}{' = null' if each.nullable else ''}" for each in answer.fields)
    return f": struct {{ {rows} }}"


def _written(answer: Answer) -> str:
    name = f".{named(answer.action)}"
    if not answer.fields:
        return f'            {name} => to.action("{answer.action}"),\n'
    lines = ""
    for field in answer.fields:
        value = "value" if len(answer.fields) == 1 and not field.nullable else f"value.{named(field.name)}"
        verb = {Kind.TEXT: "text", Kind.INTEGER: "integer", Kind.BYTES: "base64"}.get(field.kind, "any")
        key = f"{field.name}_base64" if field.kind is Kind.BYTES else field.name
        if field.nullable:
            lines += f'                if ({value}) |some| to.{verb}("{key}", some);\n'
        else:
            lines += f'                to.{verb}("{key}", {value});\n'
    return f'            {name} => |value| {{\n                to.action("{answer.action}");\n{lines}            }},\n'


def _answer(shape: HookShape) -> str:
    fields = "".join(
        f"{comment(answer.text, '    ')}    {named(answer.action)}{_payload(answer)},\n" for answer in shape.answers
    )
    writes = "".join(_written(answer) for answer in shape.answers)
    return (
        f"\n/// What `{shape.hook.value}` answers.\npub const {pascal(shape.hook)}Answer = union(enum) {{\n{fields}\n"
        f"    pub fn write(self: @This(), to: *json.Writer) void {{\n        switch (self) {{\n{writes}        }}\n"
        "    }\n};\n"
    )


def _table(shapes: Iterable[HookShape], name: str, what: str, of: str) -> str:
    rows = ""
    for shape in shapes:
        rows += f"        .{shape.hook.value} => {_input(shape) if of == 'inputs' else _result(shape)},\n"
    return f"\n/// {what}\npub fn {name}(comptime hook: Hook) type {{\n    return switch (hook) {{\n{rows}    }};\n}}\n"


def _input(shape: HookShape) -> str:
    if not shape.inputs:
        return "json.Value"
    return shape.inputs[0] if len(shape.inputs) == 1 else f"struct {{ {', '.join(shape.inputs)} }}"


def _result(shape: HookShape) -> str:
    if not shape.inputs:
        return "?json.Value"
    return f"{pascal(shape.hook)}Answer" if shape.answers else "void"


def render(contract: Contract) -> str:
    """The file's text, as `zig fmt` writes it."""
    hooks = "".join(f"    {shape.hook.value},\n" for shape in contract.hooks)
    deciding = [shape for shape in contract.hooks if shape.answers and shape.inputs]  # custom_hook answers any JSON
    return "".join((
        _HEAD,
        f"\n/// The points at which a proxy asks.\npub const Hook = enum {{\n{hooks}}};\n",
        *(_struct(struct) for struct in contract.structs),
        *(_answer(shape) for shape in deciding),
        _table(contract.hooks, "Input", "What a hook is called with; `post_query` has two.", "inputs"),
        _table(contract.hooks, "Answer", "What it answers; observing ones nothing.", "answers"),
    ))  # fmt: skip
