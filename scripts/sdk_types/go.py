"""Go's types: a struct for each input, which reads itself, and a small type for each answer."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

from sdk_types.model import Answer, Contract, Field, HookShape, Kind, Struct

if TYPE_CHECKING:
    from collections.abc import Iterable

TARGET: Final = "sdk/hookline_sdk/go/types.go"

_HEAD: Final = """\
// Code generated from hookline_api/hooks.py by scripts/write_sdk.py; DO NOT EDIT.

package hookline

// What the proxy says. A pointer is nil where it says nothing, or null.
"""
_INITIALISMS: Final = {"id": "ID", "ip": "IP", "ttl": "TTL"}
_TYPES: Final = {
    Kind.TEXT: "string", Kind.FLAG: "bool", Kind.INTEGER: "int64", Kind.TEXTS: "[]string",
    Kind.MAP: "map[string]string", Kind.JSON: "map[string]any", Kind.BYTES: "[]byte",
}  # fmt: skip
_READERS: Final = {
    Kind.FLAG: "flag", Kind.INTEGER: "integer", Kind.TEXTS: "texts", Kind.MAP: "textMap", Kind.JSON: "anyMap",
}  # fmt: skip


def pascal(name: str) -> str:
    """``client_ip`` as ``ClientIP``."""
    return "".join(_INITIALISMS.get(part, part.capitalize()) for part in name.split("_"))


def camel(name: str) -> str:
    """``pre_query`` as ``preQuery``."""
    first, *rest = name.split("_")
    return first + "".join(_INITIALISMS.get(part, part.capitalize()) for part in rest)


def comment(text: str, indent: str = "") -> str:
    """Lines of a comment, none where there is no text."""
    lines = textwrap.wrap(text.replace("``", "`"), 110, break_long_words=False, break_on_hyphens=False)
    return "".join(f"{indent}// {line}\n" for line in lines)


def _type(field: Field) -> str:
    kind = field.of if field.kind is Kind.OBJECT and field.of else _TYPES[field.kind]
    return f"*{kind}" if field.nullable else kind


def _tag(field: Field) -> str:
    omitted = "" if field.required else ",omitempty"
    return f'`json:"{field.name}{omitted}"`'


def _struct(struct: Struct) -> str:
    sections: list[list[Field]] = []
    for field in struct.fields:
        if field.text or not sections:  # gofmt aligns what has no comment in between
            sections.append([])
        sections[-1].append(field)
    rows = "".join(_section(section) for section in sections)
    return f"\n{comment(f'{struct.name}: {struct.text}')}type {struct.name} struct {{\n{rows}}}\n{_reader(struct)}"


def _section(fields: list[Field]) -> str:
    wide = max(len(pascal(field.name)) for field in fields)
    types = max(len(_type(field)) for field in fields)
    rows = (f"\t{pascal(field.name):<{wide}} {_type(field):<{types}} {_tag(field)}\n" for field in fields)
    return comment(fields[0].text, "\t") + "".join(rows)


def _reading(field: Field) -> str:
    """What reads one field."""
    if field.kind is Kind.OBJECT:
        return f"r.maybe{field.of}()" if field.nullable else f"r.{camel_of(field.of or '')}OrNone()"
    if field.kind is Kind.TEXT:
        return f"r.{'maybeText' if field.nullable else 'plainText' if field.required else 'textOrNone'}()"
    if field.kind is Kind.INTEGER and field.nullable:
        return "r.maybeInteger()"
    if field.kind is Kind.FLAG and field.required:
        return "r.plainFlag()"
    return f"r.{_READERS[field.kind]}()"


def camel_of(name: str) -> str:
    """``QueryInput`` as ``queryInput``."""
    return name[0].lower() + name[1:]


def _reader(struct: Struct) -> str:
    required = [field for field in struct.fields if field.required]
    cases = ""
    for field in struct.fields:
        there = f"\t\t\thas{pascal(field.name)} = true\n" if field.required else ""
        cases += f'\t\tcase "{field.name}":\n\t\t\tin.{pascal(field.name)} = {_reading(field)}\n{there}'
    has = ", ".join(f"has{pascal(field.name)}" for field in required)
    flags = f"\tvar {has} bool\n" if required else ""
    needs = "".join(f'\tr.need(has{pascal(field.name)}, "{field.name}")\n' for field in required)
    return (
        f"\nfunc (r *reader) {camel_of(struct.name)}() (in {struct.name}) {{\n{flags}"
        "\tfor key, ok := r.first(); ok; key, ok = r.more() {\n\t\tswitch string(key) {\n"
        f"{cases}\t\tdefault:\n\t\t\tr.skip(1)\n\t\t}}\n\t}}\n{needs}\treturn in\n}}\n"
    )


def _optional_readers(structs: Iterable[Struct]) -> str:
    """Of structures within others, which may be null."""
    fields = {(field.of or "", field.nullable) for struct in structs for field in struct.fields if field.of}
    made = ""
    for name, nullable in sorted(fields):
        if nullable:
            made += (
                f"\nfunc (r *reader) maybe{name}() *{name} {{\n\tif r.null() {{\n\t\treturn nil\n\t}}\n"
                f"\tin := r.{camel_of(name)}()\n\treturn &in\n}}\n"
            )
        else:
            made += (
                f"\nfunc (r *reader) {camel_of(name)}OrNone() (in {name}) {{\n\tif r.null() {{\n\t\treturn in\n\t}}\n"
                f"\treturn r.{camel_of(name)}()\n}}\n"
            )
    return made


def _answer_type(answer: Answer) -> str:
    """What an answer is in Go: a text is a string, so that ``Block("…")`` makes one."""
    if not answer.fields:
        return "struct{}"
    if len(answer.fields) == 1:
        [field] = answer.fields
        if field.kind is Kind.TEXT:
            return "string"
        if field.kind is Kind.OBJECT and not field.nullable:
            return field.of or ""
        if field.kind is Kind.BYTES:
            return "[]byte"
    wide = max(len(pascal(field.name)) for field in answer.fields)
    rows = "".join(f"\t{pascal(field.name):<{wide}} {_type(field)}\n" for field in answer.fields)
    return f"struct {{\n{rows}}}"


def _written(answer: Answer) -> str:
    """The expression that writes it."""
    made = f'action("{answer.action}")'
    whole = {"string": "string(a)", "[]byte": "a"}.get(_answer_type(answer), "a")
    for field in answer.fields:
        value = whole if len(answer.fields) == 1 and not _answer_type(answer).startswith("struct") else ""
        value = value or f"a.{pascal(field.name)}"
        maybe = "" if field.required else "maybe"
        verb = {Kind.TEXT: "text", Kind.INTEGER: "integer", Kind.BYTES: "bytes"}.get(field.kind, "any")
        verb = maybe + verb.capitalize() if maybe else verb
        made += f'.{verb}("{field.name}", {value})'
    return f"{made}.end()"


def _answers(contract: Contract) -> str:
    deciding = [shape for shape in contract.hooks if shape.answers and shape.inputs]  # custom_hook answers any JSON
    made = "\n// What hooks answer. Nil is a hook's default.\n"
    for shape in deciding:
        names = [pascal(answer.action) for answer in shape.answers]
        text = f"{pascal(shape.hook)}Answer is one of {', '.join(names)}. Nil is the default: {shape.default}."
        method = f"\t{camel(shape.hook)}() []byte\n"
        made += f"\n{comment(text)}type {pascal(shape.hook)}Answer interface {{\n{method}}}\n"
    seen: dict[str, str] = {}
    for shape in deciding:
        for answer in shape.answers:
            name = pascal(answer.action)
            kind = _answer_type(answer)
            if name not in seen:
                made += f"\n{comment(f'{name}: {answer.text}')}type {name} {kind}\n"
            if seen.setdefault(name, kind) != kind:
                raise ValueError(f"the answer {answer.action} has two shapes; Go wants two names for them")
            receiver = f"a {name}" if answer.fields else name
            made += f"\nfunc ({receiver}) {camel(shape.hook)}() []byte {{\n\treturn {_written(answer)}\n}}\n"
    return made


def _runner(shape: HookShape) -> str:
    """The function that a hook's export calls."""
    name = f"On{pascal(shape.hook).removeprefix('On')}"
    takes = ", ".join(f"*{each}" for each in shape.inputs)
    result = f" {pascal(shape.hook)}Answer" if shape.answers else ""
    body = "\tdefer recovered()\n"
    if len(shape.inputs) == 1:
        [each] = shape.inputs
        body += f"\tin, err := read(Input(at, size), (*reader).{camel_of(each)})\n"
        call = "hook(&in)"
    else:
        body += "\tvar in QueryInput\n\tvar outcome Outcome\n\terr := readPair(Input(at, size), &in, &outcome)\n"
        call = "hook(&in, &outcome)"
    body += "\tif err != nil {\n\t\tFail(err.Error())\n\t}\n"
    if result:
        body += f"\tif answer := {call}; answer != nil {{\n\t\treturn written(answer.{camel(shape.hook)}())\n\t}}\n"
    else:
        body += f"\t{call}\n"
    what = f"{name} runs a {shape.hook.value} hook on what the host wrote."
    return (
        f"\n{comment(what)}func {name}(at, size uint32, hook func({takes}){result}) uint64 {{\n{body}\treturn 0\n}}\n"
    )


def render(contract: Contract) -> str:
    """The file's text, as gofmt writes it."""
    parts = [_HEAD, *(_struct(struct) for struct in contract.structs), _optional_readers(contract.structs)]
    runners = "".join(_runner(shape) for shape in contract.hooks if shape.inputs)
    return "".join((*parts, _answers(contract), "\n// Hooks.\n", runners))
