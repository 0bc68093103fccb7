//! Strict JSON (RFC 8259) in a page, because a template should build without a registry. In a plugin of your
//! own, use serde_json.

use std::borrow::Cow;
use std::fmt;

pub(crate) const MAX_DEPTH: usize = 64;

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    /// As it was written.
    Number(String),
    Text(String),
    List(Vec<Value>),
    Object(Vec<(String, Value)>),
}

impl Value {
    /// The member of an object; of repeated keys the last.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.members().iter().rev().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    pub fn members(&self) -> &[(String, Value)] {
        if let Value::Object(members) = self { members } else { &[] }
    }

    pub fn items(&self) -> &[Value] {
        if let Value::List(items) = self { items } else { &[] }
    }

    pub fn text(&self) -> Option<&str> {
        if let Value::Text(text) = self { Some(text) } else { None }
    }

    /// The texts of the list that is a member, such as a setting; what else is in it is left out.
    pub fn texts<'a>(&'a self, key: &str) -> impl Iterator<Item = &'a str> + 'a {
        self.get(key).map_or(&[][..], Value::items).iter().filter_map(Value::text)
    }

    /// An integer, written as one.
    pub fn int(&self) -> Option<i64> {
        if let Value::Number(number) = self { number.parse().ok() } else { None }
    }
}

impl Default for Value {
    fn default() -> Value {
        Value::Null
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        let mut out = String::new();
        decimal(&mut out, number);
        Value::Number(out)
    }
}

impl From<Vec<Value>> for Value {
    fn from(items: Vec<Value>) -> Value {
        Value::List(items)
    }
}

impl<const N: usize> From<[(&str, Value); N]> for Value {
    /// `Value::from([("found", true.into()), ("rows", 7.into())])`
    fn from(members: [(&str, Value); N]) -> Value {
        Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}

/// As JSON.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mut out = String::new();
        self.write(&mut out);
        f.write_str(&out)
    }
}

impl Value {
    pub(crate) fn write(&self, out: &mut String) {
        match self {
            Value::Null => out.push_str("null"),
            Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Value::Number(number) => out.push_str(number),
            Value::Text(text) => quote(out, text),
            Value::List(items) => {
                out.push('[');
                for (i, each) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    each.write(out);
                }
                out.push(']');
            }
            Value::Object(members) => {
                out.push('{');
                for (i, (name, value)) in members.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    quote(out, name);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }
}

/// A number as it is written.
pub(crate) fn decimal(out: &mut String, number: i64) {
    let mut digits = [0; 20];
    let (mut left, mut at) = (number.unsigned_abs(), digits.len());
    for place in digits.iter_mut().rev() {
        *place = b'0' + (left % 10) as u8;
        left /= 10;
        at -= 1;
        if left == 0 {
            break;
        }
    }
    if number < 0 {
        out.push('-');
    }
    for &digit in digits.iter().skip(at) {
        out.push(char::from(digit));
    }
}

/// A part of a text, between two of its characters.
fn part(text: &str, from: usize, to: usize) -> &str {
    text.get(from..to).unwrap_or("") // as text[from..to], which brings formatting with it
}

/// An object of strings.
pub fn object(members: &[(&str, &str)]) -> String {
    let mut out = String::from("{");
    for (i, (key, value)) in members.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        quote(&mut out, key);
        out.push(':');
        quote(&mut out, value);
    }
    out.push('}');
    out
}

/// Text as a JSON string, with its quotes.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    quote(&mut out, text);
    out
}

pub(crate) fn quote(out: &mut String, text: &str) {
    let digit = |nibble: u8| char::from(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
    out.push('"');
    let mut copied = 0;
    for (at, &c) in text.as_bytes().iter().enumerate() {
        if c >= b' ' && c != b'"' && c != b'\\' {
            continue;
        }
        out.push_str(part(text, copied, at));
        copied = at + 1;
        if c >= b' ' {
            out.push('\\');
            out.push(char::from(c));
        } else {
            out.push_str("\\u00");
            out.push(digit(c >> 4));
            out.push(digit(c & 15));
        }
    }
    out.push_str(part(text, copied, text.len()));
    out.push('"');
}

/// The value of a whole document; None where it is malformed.
pub fn parse(text: &str) -> Option<Value> {
    let mut parser = Parser::new(text);
    let value = parser.value(1)?;
    parser.is_done().then(|| value)
}

pub(crate) struct Parser<'a> {
    text: &'a str,
    pub(crate) at: usize,
}

impl<'a> Parser<'a> {
    pub(crate) fn new(text: &'a str) -> Parser<'a> {
        Parser { text, at: 0 }
    }

    /// Whether nothing but space is left.
    pub(crate) fn is_done(&mut self) -> bool {
        self.space();
        self.at == self.text.len()
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub(crate) fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Takes exactly this, after any space.
    pub(crate) fn take(&mut self, token: &str) -> Option<()> {
        self.space();
        self.text.as_bytes().get(self.at..)?.starts_with(token.as_bytes()).then(|| self.at += token.len())
    }

    pub(crate) fn value(&mut self, depth: usize) -> Option<Value> {
        self.space();
        if depth > MAX_DEPTH {
            return None;
        }
        match self.peek()? {
            b'"' => self.string().map(|text| Value::Text(text.into_owned())),
            b'{' => {
                let mut members = Vec::new();
                self.take("{")?;
                while self.take("}").is_none() {
                    if !members.is_empty() {
                        self.take(",")?;
                        self.space();
                    }
                    let key = self.string()?.into_owned();
                    self.take(":")?;
                    members.push((key, self.value(depth + 1)?));
                }
                Some(Value::Object(members))
            }
            b'[' => {
                let mut items = Vec::new();
                self.take("[")?;
                while self.take("]").is_none() {
                    if !items.is_empty() {
                        self.take(",")?;
                    }
                    items.push(self.value(depth + 1)?);
                }
                Some(Value::List(items))
            }
            b't' => self.take("true").map(|()| Value::Bool(true)),
            b'f' => self.take("false").map(|()| Value::Bool(false)),
            b'n' => self.take("null").map(|()| Value::Null),
            _ => self.number().map(|number| Value::Number(number.to_owned())),
        }
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        (self.at > start).then(|| ())
    }

    /// As it is written.
    pub(crate) fn number(&mut self) -> Option<&'a str> {
        let start = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        self.text.get(start..self.at)
    }

    fn hex4(&mut self) -> Option<u32> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4)?;
        self.at += 4;
        digits.iter().try_fold(0, |sum, &digit| Some(sum * 16 + char::from(digit).to_digit(16)?))
    }

    fn escape(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(match c {
            b'"' | b'\\' | b'/' => char::from(c),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let mut code = self.hex4()?;
                if (0xd800..0xdc00).contains(&code) {
                    if self.text.as_bytes().get(self.at..self.at + 2)? != b"\\u" {
                        return None;
                    }
                    self.at += 2;
                    let low = self.hex4()?;
                    if !(0xdc00..0xe000).contains(&low) {
                        return None;
                    }
                    code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                }
                char::from_u32(code)? // a lone low surrogate is none
            }
            _ => return None,
        })
    }

    /// A part of the text itself where nothing in it is escaped.
    pub(crate) fn string(&mut self) -> Option<Cow<'a, str>> {
        if self.peek()? != b'"' {
            return None;
        }
        self.at += 1;
        let mut decoded = String::new();
        let mut is_plain = true;
        loop {
            let rest = self.text.as_bytes().get(self.at..)?;
            let length = rest.iter().position(|&c| c == b'"' || c == b'\\' || c < b' ')?;
            let part = self.text.get(self.at..self.at + length)?;
            let end = self.text.as_bytes().get(self.at + length)?;
            self.at += length + 1;
            match end {
                b'"' if is_plain => return Some(Cow::Borrowed(part)),
                b'"' => {
                    decoded.push_str(part);
                    return Some(Cow::Owned(decoded));
                }
                b'\\' => {
                    is_plain = false;
                    decoded.push_str(part);
                    decoded.push(self.escape()?);
                }
                _ => return None, // a control character
            }
        }
    }

    /// Goes over a value; None where it is malformed.
    pub(crate) fn skip(&mut self, depth: usize) -> Option<()> {
        self.space();
        if depth > MAX_DEPTH {
            return None;
        }
        let close = match self.peek()? {
            b'"' => return self.string().map(|_| ()),
            b'{' => "}",
            b'[' => "]",
            b't' => return self.take("true"),
            b'f' => return self.take("false"),
            b'n' => return self.take("null"),
            _ => return self.number().map(|_| ()),
        };
        self.at += 1;
        let mut is_first = true;
        while self.take(close).is_none() {
            if !is_first {
                self.take(",")?;
            }
            is_first = false;
            if close == "}" {
                self.space();
                self.string()?;
                self.take(":")?;
            }
            self.skip(depth + 1)?;
        }
        Some(())
    }
}
