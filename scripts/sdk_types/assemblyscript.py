"""AssemblyScript: a class of each input, a class of each hook's answers, and a function that answers a call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hookline_api.hooks import Hook
from sdk_types.model import Kind

if TYPE_CHECKING:
    from sdk_types.model import Answer, Contract, Field, HookShape, Struct

TARGET: Final = "sdk/hookline_sdk/assemblyscript/types.ts"
_WIDTH: Final = 118
_HEAD: Final = """\
// What each hook is asked, and what it answers. A hook is one line: `return hook.pre_query(at, len, decide);`
// Written by scripts/write_sdk.py from the contract; do not edit.

import { encode } from "./base64";
import { answer, text } from "./hookline";
import { quoted } from "./json";
import { Reader, Texts, hasPart } from "./read";

/** What a hook answers: JSON, or nothing for its default. */
export class Answer {
  constructor(public json: string) {}
}

function texts(values: string[]): string {
  let out = "";
  for (let i = 0; i < values.length; i++) out += (i ? "," : "") + quoted(values[i]);
  return "[" + out + "]";
}
"""
_TYPES: Final = {
    Kind.TEXT: ("string", '""'),
    Kind.FLAG: ("bool", "false"),
    Kind.INTEGER: ("i64", "0"),
    Kind.TEXTS: ("string[]", "[]"),
    Kind.MAP: ("Texts", "new Texts()"),
    Kind.JSON: ("string", '"{}"'),
}
_READS: Final = {
    Kind.TEXT: "text",
    Kind.FLAG: "flag",
    Kind.INTEGER: "integer",
    Kind.TEXTS: "texts",
    Kind.MAP: "map",
    Kind.JSON: "raw",
}


def render(contract: Contract) -> str:
    """The whole file."""
    held = {field.of for shape in contract.hooks for answer in shape.answers for field in answer.fields if field.of}
    parts = [_HEAD, *(_struct(each, is_answered=each.name in held) for each in contract.structs)]
    parts += [_answers(shape) for shape in contract.hooks if shape.answers]
    parts.append(
        "/** Each reads the input of a call, asks a function, and packs what it answers. */\nexport namespace hook {\n"
        + "\n".join(_entry(shape) for shape in contract.hooks)
        + "}\n"
    )
    return "\n".join(parts)


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _class(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def _doc(text: str, more: str, indent: str) -> str:
    words = f"{text} {more}".replace("``", "`").split()
    if not words:
        return ""
    lines, line = [], ""
    for word in words:
        if line and len(f"{indent} * {line} {word}") > _WIDTH - 4:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    lines.append(line)
    if len(lines) == 1:
        return f"{indent}/** {lines[0]} */\n"
    return f"{indent}/**\n" + "".join(f"{indent} * {each}\n" for each in lines) + f"{indent} */\n"


def _declared(field: Field) -> tuple[str, str, str]:
    """Type, value at first, and what has to be said of it."""
    if field.of:
        return (f"{field.of} | null", "null", "") if field.nullable else (field.of, f"new {field.of}()", "")
    kind, empty = _TYPES[field.kind]
    if field.kind is Kind.JSON:
        return kind, empty, "JSON, as it is written."
    if not field.nullable:
        return kind, empty, ""
    if field.kind is Kind.INTEGER:  # no number is null in this language, and none of the contract's is negative
        return kind, "-1", "-1 where nothing is said."
    return f"{kind} | null", "null", ""


def _struct(struct: Struct, *, is_answered: bool) -> str:
    fields, arms = "", ""
    for at, field in enumerate(struct.fields):
        kind, empty, more = _declared(field)
        name = _camel(field.name)
        fields += f"{_doc(field.text, more, '  ')}  {name}: {kind} = {empty};\n"
        value = f"{field.of}.read(reader)" if field.of else f"reader.{_READS[field.kind]}()"
        seen = f" seen |= {1 << at};" if field.required else ""
        body = f"{{ found.{name} = {value};{seen} }}" if seen else f"found.{name} = {value};"
        arms += f'      {"else " if at else ""}if (reader.is("{field.name}")) {body}\n'
    needs = "".join(
        f'    reader.need((seen & {1 << at}) != 0, "{field.name}");\n'
        for at, field in enumerate(struct.fields)
        if field.required
    )
    seen = "    let seen = 0;\n" if needs else ""
    return f"""\
{_doc(struct.text, "", "")}export class {struct.name} {{
{fields}
  static read(reader: Reader): {struct.name} {{
    const found = new {struct.name}();
{seen}    reader.open();
    for (let first = true; reader.next(first); first = false) {{
{arms}      else reader.skip();
    }}
{needs}    return found;
  }}
{_helpers(struct)}{_writer(struct) if is_answered else ""}}}
"""


def _helpers(struct: Struct) -> str:
    names = {field.name for field in struct.fields}
    if "attributes" in names:
        attribute = "return this.attributes.get(name);"
        roles = """const roles = this.attributes.get("identity.roles");
    return roles !== null && hasPart(roles, role);"""
    elif "hook_context" in names:
        attribute = "return this.hookContext.attribute(name);"
        roles = "return this.hookContext.hasRole(role);"
    else:
        return ""
    return f"""
  /** An attribute that the proxy sent, such as `tenant_id`. */
  attribute(name: string): string | null {{
    {attribute}
  }}

  /** Whether the attribute `identity.roles` names this role. */
  hasRole(role: string): bool {{
    {roles}
  }}
"""


def _writer(struct: Struct) -> str:
    lines = []
    for at, field in enumerate(struct.fields):
        name, comma = _camel(field.name), "," if at else "{"
        match field.kind:
            case Kind.TEXT if field.nullable:
                lines.append(
                    f"    const {name} = this.{name};\n"
                    f"    if ({name} !== null) out += '{comma}\"{field.name}\":' + quoted({name});"
                )
            case Kind.TEXT:
                lines.append(f"    out += '{comma}\"{field.name}\":' + quoted(this.{name});")
            case Kind.TEXTS:
                lines.append(f"    out += '{comma}\"{field.name}\":' + texts(this.{name});")
            case Kind.JSON:
                lines.append(f"    out += '{comma}\"{field.name}\":' + this.{name};")
            case _:
                raise TypeError(f"{struct.name}.{field.name}: an answer holds no {field.kind} yet")
    return (
        '\n  /** As JSON. */\n  written(): string {\n    let out = "";\n'
        + "\n".join(lines)
        + '\n    return out + "}";\n  }\n'
    )


def _parameter(field: Field) -> str:
    match field.kind:
        case Kind.BYTES:
            return f"{field.name}: Uint8Array"
        case Kind.INTEGER:
            return f"{_camel(field.name)}: i64 = -1"
        case Kind.TEXT:
            return f"{field.name}: string" + (" | null = null" if field.nullable else "")
        case Kind.OBJECT:
            return f"{field.name}: {field.of}"
        case _:
            raise TypeError(f"{field.name}: an answer holds no {field.kind} yet")


def _put(field: Field) -> str:
    name = _camel(field.name)
    match field.kind:
        case Kind.BYTES:
            return f"    out += ',\"{field.name}_base64\":\"' + encode({name}) + '\"';\n"
        case Kind.INTEGER:
            return f"    if ({name} >= 0) out += ',\"{field.name}\":' + {name}.toString();\n"
        case Kind.TEXT if field.nullable:
            return f"    if ({name} !== null) out += ',\"{field.name}\":' + quoted({name});\n"
        case Kind.TEXT:
            return f"    out += ',\"{field.name}\":' + quoted({name});\n"
        case _:
            return f"    out += ',\"{field.name}\":' + {name}.written();\n"


def _maker(answer: Answer, owner: str, default: str) -> str:
    parameters = ", ".join(_parameter(field) for field in answer.fields)
    if not answer.fields:
        json = "" if answer.action == default else f'{{"action":"{answer.action}"}}'
        body = f"    return new {owner}('{json}');\n"
    else:
        puts = "".join(_put(field) for field in answer.fields)
        body = f'    let out = \'{{"action":"{answer.action}"\';\n{puts}    return new {owner}(out + "}}");\n'
    return f"{_doc(answer.text, '', '  ')}  static {answer.action}({parameters}): {owner} {{\n{body}  }}\n"


def _answers(shape: HookShape) -> str:
    owner = _class(shape.hook.value)
    makers = "\n".join(_maker(each, owner, shape.default) for each in shape.answers)
    return f"/** What `{shape.hook.value}` answers. */\nexport class {owner} extends Answer {{\n{makers}}}\n"


def _entry(shape: HookShape) -> str:
    hook = shape.hook.value
    if shape.hook is Hook.CUSTOM:
        return f"""\
  /** The input is any JSON; so is the answer. Null is none. */
  export function {hook}(at: usize, len: i32, decide: (json: string) => string | null): u64 {{
    const json = decide(text(at, len));
    return json === null ? 0 : answer(json);
  }}
"""
    result = _class(hook) if shape.answers else "void"
    takes = ", ".join(f"{'input' if not at else 'outcome'}: {name}" for at, name in enumerate(shape.inputs))
    reads = "    const reader = new Reader(text(at, len));\n"
    if len(shape.inputs) == 1:
        reads += f"    const input = {shape.inputs[0]}.read(reader);\n"
        names = "input"
    else:
        first, second = shape.inputs
        reads += (
            f"    reader.part(0x5b);\n    const input = {first}.read(reader);\n    reader.part(0x2c);\n"
            f"    const outcome = {second}.read(reader);\n    reader.part(0x5d);\n"
        )
        names = "input, outcome"
    ask = f"    return answer(decide({names}).json);\n" if shape.answers else f"    decide({names});\n    return 0;\n"
    return f"""\
  export function {hook}(at: usize, len: i32, decide: ({takes}) => {result}): u64 {{
{reads}    reader.end();
{ask}  }}
"""
