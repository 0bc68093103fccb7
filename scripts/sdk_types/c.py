"""C's types: a struct of slices for each input, its reader, a macro for each hook, a function for each answer."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING, Final

from sdk_types.model import Answer, Contract, Field, HookShape, Kind, Struct

if TYPE_CHECKING:
    from collections.abc import Iterable

TARGET: Final = "sdk/hookline_sdk/c/types.h"

_HEAD: Final = """\
// Generated from hookline_api/hooks.py by scripts/write_sdk.py; do not edit.

#ifndef HOOKLINE_TYPES_H
#define HOOKLINE_TYPES_H

#include "read.h"

// ---- What the proxy says. ----
//
// A text is HL_NONE where it may be missing and is. Lists, maps and other JSON are slices of the input, checked: walk
// them with json_each(), look into them with json_get() or hl_in(). All of it is gone when the call ends.
"""
_TYPES: Final = {Kind.TEXT: "hl_str", Kind.FLAG: "bool", Kind.INTEGER: "int64_t"}
_READERS: Final = {
    Kind.TEXT: "text", Kind.FLAG: "flag", Kind.INTEGER: "integer", Kind.TEXTS: "texts", Kind.MAP: "map",
    Kind.JSON: "object",
}  # fmt: skip
_EMPTY: Final = {Kind.TEXT: 'HL("")', Kind.TEXTS: 'HL("[]")', Kind.MAP: 'HL("{}")', Kind.JSON: 'HL("{}")'}
_NOTES: Final = {Kind.TEXTS: "a JSON array of texts", Kind.MAP: "a JSON object of texts", Kind.JSON: "a JSON object"}
_HAVING: Final = {Kind.INTEGER, Kind.OBJECT, Kind.FLAG}
"""What says by a second field whether it is there."""


def snake(name: str) -> str:
    """``QueryInput`` as ``query_input``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def comment(text: str, indent: str = "") -> str:
    """Lines of a comment, none where there is no text."""
    plain = text.replace("``", "`")
    lines = textwrap.wrap(plain, 116 - len(indent), break_long_words=False, break_on_hyphens=False)
    return "".join(f"{indent}// {line}\n" for line in lines)


def _row(field: Field) -> str:
    kind = f"hl_{snake(field.of)}" if field.of else _TYPES.get(field.kind, "hl_str")
    note = f"  // {_NOTES[field.kind]}" if field.kind in _NOTES else ""
    having = f"    bool has_{field.name};\n" if field.nullable and field.kind in _HAVING else ""
    return f"{comment(field.text, '    ')}{having}    {kind} {field.name};{note}\n"


def _reader(struct: Struct) -> str:
    name = snake(struct.name)
    empty = [(field, _EMPTY[field.kind]) for field in struct.fields if field.kind in _EMPTY and not field.nullable]
    empty += [
        (field, f'hl_read_{snake(field.of)}(HL("{{}}"), "")')
        for field in struct.fields
        if field.of and not field.nullable
    ]
    starts = "".join(f"    in.{field.name} = {start};\n" for field, start in empty if not field.required)
    cases = ""
    for at, field in enumerate(struct.fields):
        what = f"hl_read_{snake(field.of) if field.of else _READERS[field.kind]}"
        read = f'in.{field.name} = {what}(walk.value, "{field.name}");'
        if field.nullable and field.kind in _HAVING:
            read = f"in.has_{field.name} = true, {read}"
        # Null is as if it were not there.
        before = f"has_{field.name} = true," if field.required else "if (json_kind(walk.value) != 'n')"
        read = f"{before} {read}"
        other = "        else " if at else "        "
        cases += f'{other}if (hl_equal(name, HL("{field.name}"))) {{\n            {read}\n        }}\n'
    cases = cases.replace("}\n        else if", "} else if")
    required = [field for field in struct.fields if field.required]
    flags = "".join(f"    bool has_{field.name} = false;\n" for field in required)
    needs = "".join(f'    if (!has_{field.name}) hl_misread("{field.name}", "is missing");\n' for field in required)
    return (
        f"\nstatic inline hl_{name} hl_read_{name}(hl_str json, const char *of) {{\n    hl_{name} in = {{0}};\n"
        f"{starts}{flags}    json_walk walk = hl_members(json, of);\n    while (json_next(&walk)) {{\n"
        f"        hl_str name = json_text(walk.key);\n{cases}    }}\n{needs}    return in;\n}}\n"
    )


def _struct(struct: Struct) -> str:
    rows = "".join(_row(field) for field in struct.fields)
    name = snake(struct.name)
    return f"\n{comment(f'{struct.text}')}typedef struct {{\n{rows}}} hl_{name};\n{_reader(struct)}"


def _parameter(field: Field) -> str:
    if field.of:
        return f"const hl_{snake(field.of)} *{field.name}"
    return f"{_TYPES.get(field.kind, 'hl_str')} {field.name}"


def _writing(field: Field) -> str:
    if field.kind is Kind.TEXT:
        line = f'json_put_member(&json, "{field.name}", {field.name});'
        return f"    if ({field.name}.at) {line}\n" if field.nullable else f"    {line}\n"
    if field.kind is Kind.INTEGER:
        line = f'hl_put_int(json_put_key(&json, "{field.name}"), {field.name});'
        return f"    if ({field.name} >= 0) {line}\n"
    if field.kind is Kind.BYTES:
        return f'    json_put_base64(json_put_key(&json, "{field.name}_base64"), {field.name});\n'
    return f'    hl_put_{snake(field.of or "")}(json_put_key(&json, "{field.name}"), {field.name});\n'


def _answer(name: str, answer: Answer) -> str:
    notes = [f"Without {field.name}: HL_NONE." for field in answer.fields if field.kind is Kind.TEXT and field.nullable]
    notes += [f"Without {field.name}: -1." for field in answer.fields if field.kind is Kind.INTEGER]
    text = " ".join([answer.text, *notes])
    takes = ", ".join(_parameter(field) for field in answer.fields)
    head = f"\n{comment(text)}static inline int64_t hl_{name}({takes or 'void'}) {{\n"
    if not answer.fields:
        return f'{head}    return hl_just("{answer.action}");\n}}\n'
    if len(answer.fields) == 1 and answer.fields[0].kind is Kind.TEXT and not answer.fields[0].nullable:
        field = answer.fields[0].name
        return f'{head}    return hl_say("{answer.action}", "{field}", {field});\n}}\n'
    body = "".join(_writing(field) for field in answer.fields)
    return f'{head}    hl_buf json = hl_begin("{answer.action}");\n{body}    return hl_end(&json);\n}}\n'


def _writers(contract: Contract) -> str:
    """Of structures that an answer holds."""
    answers = (answer for shape in contract.hooks for answer in shape.answers)
    names = dict.fromkeys(field.of for answer in answers for field in answer.fields if field.of)
    made = ""
    for struct in contract.structs:
        if struct.name in names:
            body = "".join(_member(field) for field in struct.fields)
            name = snake(struct.name)
            made += (
                f"\n// Of lists, maps and other JSON those count that are not empty.\n"
                f"static inline void hl_put_{name}(hl_buf *json, const hl_{name} *in) {{\n"
                f"    hl_put_char(json, '{{');\n{body}    hl_put_char(json, '}}');\n}}\n"
            )
    return made


def _member(field: Field) -> str:
    if field.kind is Kind.TEXT:
        line = f'json_put_member(json, "{field.name}", in->{field.name});'
        return f"    {line}\n" if field.required else f"    if (in->{field.name}.at) {line}\n"
    if field.kind in _NOTES:
        return f'    if (in->{field.name}.len) hl_put(json_put_key(json, "{field.name}"), in->{field.name});\n'
    raise ValueError(f"an answer's {field.name} is {field.kind}; say in scripts/sdk_types/c.py how C writes it")


def _answers(shapes: Iterable[HookShape]) -> str:
    """One function for each action; a second shape of the same has the hook's name before its own."""
    seen: dict[str, tuple[Field, ...]] = {}
    made = "\n// ---- What hooks answer; 0 is a hook's default. ----\n"
    for shape in shapes:
        if not shape.answers or not shape.inputs:  # custom_hook answers any JSON
            continue
        names = []
        for answer in shape.answers:
            own = answer.action if seen.get(answer.action, answer.fields) == answer.fields else ""
            name = own or f"{shape.hook.value}_{answer.action}"
            names.append(f"hl_{name}")
            if name not in seen:
                made += _answer(name, answer)
            seen.setdefault(name, answer.fields)
        text = f"{shape.hook.value}: {', '.join(names)}; 0 is {shape.default}."
        made += f"\n{comment(text)}"
    return made


def _macro(shape: HookShape) -> str:
    name = f"HL_{shape.hook.value.upper()}"
    verb = "DECIDES" if shape.answers else "OBSERVES"
    inputs = [snake(each) for each in shape.inputs]
    if len(inputs) == 2:
        return f"#define {name}(in, how) HL_{verb}_PAIR({shape.hook.value}, {', '.join(inputs)}, in, how)\n"
    return f"#define {name}(in) HL_{verb}({shape.hook.value}, {inputs[0]}, in)\n"


def render(contract: Contract) -> str:
    """The header's text."""
    structs = "".join(_struct(struct) for struct in contract.structs)
    macros = "".join(_macro(shape) for shape in contract.hooks if shape.inputs)
    return (
        f"{_HEAD}{structs}{_writers(contract)}{_answers(contract.hooks)}"
        "\n// ---- Hooks: HL_PRE_QUERY(in) { … in->query … return hl_continue(); } ----\n"
        "//\n// Observing ones return nothing. A custom_hook has its JSON: HL_HOOK(custom_hook, json).\n\n"
        f"{macros}\n#endif\n"
    )
