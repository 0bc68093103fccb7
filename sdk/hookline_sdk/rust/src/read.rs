//! Reads an input straight into its type: nothing is copied that is not escaped, and what is malformed is said.

use crate::json::{self, Parser, Value};
use std::borrow::Cow;
use std::fmt;

/// Why an input cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    why: &'static str,
    /// The field that it is about; empty where there is none.
    field: &'static str,
    at: usize,
}

impl Malformed {
    // Without the machinery of fmt, which is larger than all else in a small plugin.
    pub(crate) fn sentence(&self) -> String {
        let mut out = String::from("the input is malformed: ");
        if !self.field.is_empty() {
            out.push_str(self.field);
            out.push(' ');
        }
        out.push_str(self.why);
        out.push_str(" (at byte ");
        json::decimal(&mut out, self.at as i64);
        out.push(')');
        out
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.sentence())
    }
}

impl std::error::Error for Malformed {}

/// What an input, or a part of one, is read into.
pub trait Read<'a>: Default {
    #[doc(hidden)]
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed>;
}

/// The input of one hook, whole. Also for tests: `hookline::read::<QueryInput>(r#"{"query": "select 1"}"#)`.
pub fn read<'a, T: Read<'a>>(text: &'a str) -> Result<T, Malformed> {
    let mut reader = Reader::new(text);
    let value = T::read(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// An input that is an array of two: a statement, and how it went.
pub(crate) fn read_pair<'a, T: Read<'a>, U: Read<'a>>(text: &'a str) -> Result<(T, U), Malformed> {
    let mut reader = Reader::new(text);
    reader.expect("[", "is no list")?;
    let first = T::read(&mut reader)?;
    reader.expect(",", "has one element, and should have two")?;
    let second = U::read(&mut reader)?;
    reader.expect("]", "has more than two elements")?;
    reader.end()?;
    Ok((first, second))
}

#[doc(hidden)]
pub struct Reader<'a> {
    parser: Parser<'a>,
    depth: usize,
    /// The field that is being read.
    field: &'static str,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(text: &'a str) -> Reader<'a> {
        Reader { parser: Parser::new(text), depth: 1, field: "" }
    }

    #[inline(never)]
    fn malformed(&self, why: &'static str) -> Malformed {
        Malformed { why, field: self.field, at: self.parser.at }
    }

    /// Whether nothing is left.
    pub(crate) fn end(&mut self) -> Result<(), Malformed> {
        if self.parser.is_done() {
            return Ok(());
        }
        self.field = "";
        Err(self.malformed("there is something behind it"))
    }

    /// Takes a token, or says what was expected.
    #[inline(never)]
    pub(crate) fn expect(&mut self, token: &'static str, why: &'static str) -> Result<(), Malformed> {
        self.parser.take(token).ok_or_else(|| self.malformed(why))
    }

    /// The name of an object's next member, with all that is before its value; None at the end.
    #[inline(never)]
    fn name(&mut self, is_first: bool) -> Result<Option<Cow<'a, str>>, Malformed> {
        if is_first {
            self.expect("{", "is no object")?;
            self.depth += 1;
        }
        if self.parser.take("}").is_some() {
            self.depth -= 1;
            return Ok(None);
        }
        if !is_first {
            self.expect(",", "is no JSON: a comma is missing")?;
        }
        self.parser.space();
        let name = self.parser.string().ok_or_else(|| self.malformed("is no JSON: a name was expected"))?;
        self.expect(":", "is no JSON: a colon is missing")?;
        Ok(Some(name))
    }

    /// Which of the fields comes next in an object; None at the end. What else is in it is gone over: a newer host may
    /// say more.
    #[inline(never)]
    pub(crate) fn member(&mut self, fields: &[&'static str], is_first: &mut bool) -> Result<Option<usize>, Malformed> {
        while let Some(name) = self.name(*is_first)? {
            *is_first = false;
            if let Some(at) = fields.iter().position(|field| *field == name) {
                self.field = fields.get(at).copied().unwrap_or("");
                return Ok(Some(at));
            }
            self.parser.skip(self.depth).ok_or_else(|| self.malformed("is no JSON"))?;
        }
        Ok(None)
    }

    #[inline(never)]
    fn is_null(&mut self) -> bool {
        self.parser.space();
        self.parser.peek() == Some(b'n') && self.parser.take("null").is_some()
    }

    /// Reads a field; false where it is null, which is as if it were not there.
    pub(crate) fn field<T: Read<'a>>(&mut self, into: &mut T) -> Result<bool, Malformed> {
        let is_there = !self.is_null();
        *into = if is_there { T::read(self)? } else { T::default() };
        Ok(is_there)
    }

    pub(crate) fn need(&mut self, is_there: bool, field: &'static str) -> Result<(), Malformed> {
        if is_there {
            return Ok(());
        }
        self.field = field;
        Err(self.malformed("is missing"))
    }
}

impl<'a> Read<'a> for Cow<'a, str> {
    #[inline(never)]
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        reader.parser.space();
        reader.parser.string().ok_or_else(|| reader.malformed("is no text"))
    }
}

impl<'a> Read<'a> for bool {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        if reader.parser.take("true").is_some() {
            return Ok(true);
        }
        reader.expect("false", "is neither true nor false").map(|()| false)
    }
}

impl<'a> Read<'a> for i64 {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        reader.parser.space();
        let number = reader.parser.number().and_then(|number| number.parse().ok());
        number.ok_or_else(|| reader.malformed("is no whole number"))
    }
}

impl<'a> Read<'a> for Value {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        reader.parser.value(reader.depth).ok_or_else(|| reader.malformed("is no JSON"))
    }
}

impl<'a, T: Read<'a>> Read<'a> for Option<T> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        T::read(reader).map(Some)
    }
}

impl<'a, T: Read<'a>> Read<'a> for Vec<T> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        reader.expect("[", "is no list")?;
        let mut items = Vec::new();
        while reader.parser.take("]").is_none() {
            if !items.is_empty() {
                reader.expect(",", "is no JSON: a comma is missing")?;
            }
            items.push(T::read(reader)?);
        }
        Ok(items)
    }
}

/// Texts by name, such as attributes and headers, in the order in which they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Map<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Map<'a> {
    /// None where there is no such name; of repeated names the last.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, text)| &**text)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, text)| (&**name, &**text))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a, const N: usize> From<[(&'a str, &'a str); N]> for Map<'a> {
    /// For tests: `Map::from([("tenant_id", "acme")])`.
    fn from(members: [(&'a str, &'a str); N]) -> Map<'a> {
        Map(members.into_iter().map(|(name, text)| (name.into(), text.into())).collect())
    }
}

impl<'a> Read<'a> for Map<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let mut members = Vec::new();
        while let Some(name) = reader.name(members.is_empty())? {
            members.push((name, Cow::read(reader)?));
        }
        Ok(Map(members))
    }
}
