"""Rust: structures that borrow from the input, and an enumeration of each hook's answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hookline_api.hooks import Hook
from sdk_types.model import Kind

if TYPE_CHECKING:
    from sdk_types.model import Answer, Contract, Field, HookShape, Struct

TARGET: Final = "sdk/hookline_sdk/rust/src/types.rs"
_WIDTH: Final = 118
_HEAD: Final = """\
//! What each hook is asked, and what it answers.
// Written by scripts/write_sdk.py from the contract; do not edit.

use crate::answer::{run, Answer, Outcomes, Written};
use crate::base64;
use crate::json::{self, Value};
use crate::read::{read, read_pair, Malformed, Map, Read, Reader};
use std::borrow::Cow;
"""
_TYPES: Final = {
    Kind.TEXT: "Cow<'a, str>",
    Kind.FLAG: "bool",
    Kind.INTEGER: "i64",
    Kind.TEXTS: "Vec<Cow<'a, str>>",
    Kind.MAP: "Map<'a>",
    Kind.JSON: "Value",
}
_OWN: Final = {Kind.TEXT: "String", Kind.INTEGER: "i64", Kind.BYTES: "Vec<u8>"}


def render(contract: Contract) -> str:
    """The whole file."""
    parts = [_HEAD, *map(_struct, contract.structs), _write_identity(contract)]
    for shape in contract.hooks:
        parts += [_answers(shape), _entry(shape)]
    return "\n".join(part for part in parts if part)


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def _doc(text: str, indent: str = "") -> str:
    lines, line = [], ""
    for word in text.replace("``", "`").split():
        if line and len(f"{indent}/// {line} {word}") > _WIDTH:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "".join(f"{indent}/// {each}\n" for each in [*lines, line] if each)


def _type(field: Field) -> str:
    name = f"{field.of}<'a>" if field.of else _TYPES[field.kind]
    return f"Option<{name}>" if field.nullable else name


def _struct(struct: Struct) -> str:
    fields = "".join(f"{_doc(field.text, '    ')}    pub {field.name}: {_type(field)},\n" for field in struct.fields)
    needed = [field for field in struct.fields if field.required]
    arms = "".join(
        f"                {at} => has_{field.name} = reader.field(&mut found.{field.name})?,\n"
        if field.required
        else f"                {at} => _ = reader.field(&mut found.{field.name})?,\n"
        for at, field in enumerate(struct.fields)
    )
    names = ", ".join(f'"{field.name}"' for field in struct.fields)
    flags = "".join(f"        let mut has_{field.name} = false;\n" for field in needed)
    checks = "".join(f'        reader.need(has_{field.name}, "{field.name}")?;\n' for field in needed)
    return f"""\
{_doc(struct.text)}#[derive(Debug, Clone, Default, PartialEq)]
pub struct {struct.name}<'a> {{
{fields}}}

impl<'a> Read<'a> for {struct.name}<'a> {{
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {{
        let mut found = Self::default();
{flags}        let mut is_first = true;
        while let Some(at) = reader.member(&[{names}], &mut is_first)? {{
            match at {{
{arms}                _ => unreachable!(),
            }}
        }}
{checks}        Ok(found)
    }}
}}
{_helpers(struct)}"""


def _helpers(struct: Struct) -> str:
    """What is asked most, in few words."""
    names = {field.name for field in struct.fields}
    if "attributes" in names:
        attribute = "self.attributes.get(name)"
        roles = """self.roles().any(|each| each == role)
    }

    /// The roles of who asks: the attribute `identity.roles`, at its commas.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        let roles = self.attributes.get("identity.roles").unwrap_or("");
        roles.split(',').map(|role| role.trim_matches(' ')).filter(|role| !role.is_empty())"""
    elif "hook_context" in names:
        attribute, roles = "self.hook_context.attribute(name)", "self.hook_context.has_role(role)"
    else:
        return ""
    return f"""
impl {struct.name}<'_> {{
    /// An attribute that the proxy sent, such as `tenant_id`.
    pub fn attribute(&self, name: &str) -> Option<&str> {{
        {attribute}
    }}

    /// Whether the attribute `identity.roles` names this role.
    pub fn has_role(&self, role: &str) -> bool {{
        {roles}
    }}
}}
"""


def _write_identity(contract: Contract) -> str:
    """The structures that an answer holds are written, too."""
    held = {field.of for shape in contract.hooks for answer in shape.answers for field in answer.fields if field.of}
    return "\n".join(_writer(struct) for struct in contract.structs if struct.name in held)


def _writer(struct: Struct) -> str:
    writes = []
    for field in struct.fields:
        value = "value" if field.nullable else f"self.{field.name}"
        match field.kind:
            case Kind.TEXT:
                line = (
                    f'out.push((json::quoted("{field.name}"), json::quoted({"" if field.nullable else "&"}{value})));'
                )
            case Kind.TEXTS:
                line = (
                    f"let texts: Vec<String> = {value}.iter().map(|each| json::quoted(each)).collect();\n"
                    f'        out.push((json::quoted("{field.name}"), format!("[{{}}]", texts.join(","))));'
                )
            case Kind.JSON:
                line = (
                    f"if {value} != Value::Null {{\n"
                    f'            out.push((json::quoted("{field.name}"), {value}.to_string()));\n        }}'
                )
            case _:
                raise TypeError(f"{struct.name}.{field.name}: an answer holds no {field.kind} yet")
        if field.nullable:
            line = f"if let Some(value) = &self.{field.name} {{\n            {line}\n        }}"
        writes.append(f"        {line}\n")
    return f"""\
impl {struct.name}<'_> {{
    fn json(&self) -> String {{
        let mut out: Vec<(String, String)> = Vec::new();
{"".join(writes)}        let members: Vec<String> = out.into_iter().map(|(name, value)| name + ":" + &value).collect();
        format!("{{{{{{}}}}}}", members.join(","))
    }}
}}
"""


def _own(field: Field) -> str:
    name = f"{field.of}<'static>" if field.of else _OWN[field.kind]
    return f"Option<{name}>" if field.nullable else name


def _variant(answer: Answer) -> str:
    name = _camel(answer.action)
    if not answer.fields:
        return name
    if len(answer.fields) == 1:
        return f"{name}({_own(answer.fields[0])})"
    return f"{name} {{ {', '.join(f'{field.name}: {_own(field)}' for field in answer.fields)} }}"


def _pattern(answer: Answer) -> str:
    names = ", ".join(field.name for field in answer.fields)
    if not answer.fields:
        return _camel(answer.action)
    return f"{_camel(answer.action)}({names})" if len(answer.fields) == 1 else f"{_camel(answer.action)} {{ {names} }}"


def _put(field: Field) -> str:
    value = field.name
    match field.kind:
        case Kind.TEXT:
            return f'.text("{field.name}", {value})'
        case Kind.INTEGER:
            return f'.number("{field.name}", *{value})'
        case Kind.BYTES:  # base64 has nothing to escape
            return f'.text("{field.name}_base64", &base64::encode({value}))'
        case Kind.OBJECT:
            return f'.json("{field.name}", &{value}.json())'
        case _:
            raise TypeError(f"{field.name}: an answer holds no {field.kind} yet")


def _arm(answer: Answer, enum: str, default: str) -> str:
    head = f"            {enum}::{_pattern(answer)} => "
    start = f'Written::new("{answer.action}")'
    must = "".join(_put(field) for field in answer.fields if not field.nullable)
    may = [field for field in answer.fields if field.nullable]
    if answer.action == default and not must:
        if not may:
            return f"{head}String::new(),\n"
        (field,) = may
        return (
            f"{head}match {field.name} {{\n                None => String::new(),\n"
            f"                Some({field.name}) => {start}{_put(field)}.done(),\n            }},\n"
        )
    if not may:
        return f"{head}{start}{must}.done(),\n"
    (field,) = may
    return (
        f"{head}{{\n                let out = {start}{must};\n                match {field.name} {{\n"
        f"                    None => out.done(),\n"
        f"                    Some({field.name}) => out{_put(field)}.done(),\n                }}\n            }}\n"
    )


def _maker(answer: Answer, enum: str) -> str:
    """So that a text need not be a String."""
    (field,) = answer.fields
    value = "Some(text.into())" if field.nullable else "text.into()"
    return f"""\
{_doc(answer.text, "    ")}    pub fn {answer.action}(text: impl Into<String>) -> {enum} {{
        {enum}::{_camel(answer.action)}({value})
    }}
"""


def _answers(shape: HookShape) -> str:
    if not shape.answers:
        return ""
    enum = _camel(shape.hook.value)
    variants = "".join(f"{_doc(each.text, '    ')}    {_variant(each)},\n" for each in shape.answers)
    arms = "".join(_arm(each, enum, shape.default) for each in shape.answers)
    makers = [_maker(each, enum) for each in shape.answers if [field.kind for field in each.fields] == [Kind.TEXT]]
    made = f"impl {enum} {{\n" + "\n".join(makers) + "}\n\n" if makers else ""
    return f"""\
/// What `{shape.hook.value}` answers.
#[derive(Debug, Clone, PartialEq)]
pub enum {enum} {{
{variants}}}

{made}impl Answer for {enum} {{
    fn written(&self) -> String {{
        match self {{
{arms}        }}
    }}
}}
"""


def _entry(shape: HookShape) -> str:
    hook = shape.hook.value
    answer = _camel(hook) if shape.answers else "Option<Value>" if shape.hook is Hook.CUSTOM else "()"
    inputs = [f"{name}<'a>" for name in shape.inputs] or ["Value"]
    takes = ", ".join(f"&{each}" for each in inputs)
    what = f"takes `{takes}` and answers `{answer}`".replace("<'a>", "")
    bound = f"impl for<'a> FnOnce({takes}) -> R" if shape.inputs else f"impl FnOnce({takes}) -> R"
    plain = [f"{name}<'_>" for name in shape.inputs] or ["Value"]
    if len(inputs) == 1:
        body = f"    run(read::<{plain[0]}>(text).map(|input| body(&input)))\n"
    else:
        body = f"    run(read_pair::<{', '.join(plain)}>(text).map(|(first, second)| body(&first, &second)))\n"
    return f"""\
/// Exports `{hook}`: a function, or a closure, that {what}, or a `Result` of it.
#[macro_export]
macro_rules! {hook} {{
    ($body:expr) => {{
        $crate::export!({hook}, |input| $crate::ask_{hook}(input, $body));
    }};
}}

#[doc(hidden)]
pub fn ask_{hook}<R: Outcomes<{answer}>>(text: &str, body: {bound}) -> String {{
{body}}}
"""
