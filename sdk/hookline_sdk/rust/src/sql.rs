//! SQL as PostgreSQL's lexer reads it: nested comments, all kinds of strings, quoted identifiers.
//! standard_conforming_strings is taken to be on.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Word,
    Quoted,
    /// `U&"…"`: its name is not what it looks like.
    Opaque,
    /// A string, a number or a parameter.
    Literal,
    Symbol,
}

#[derive(Debug, Clone, Copy)]
pub struct Token<'a> {
    pub kind: Kind,
    pub text: &'a str,
    /// Where it begins in the query.
    pub at: usize,
}

impl Token<'_> {
    /// Whether it is one of these keywords, given in lower case.
    pub fn is(&self, words: &[&str]) -> bool {
        self.kind == Kind::Word && words.iter().any(|word| self.text.eq_ignore_ascii_case(word))
    }

    pub fn is_symbol(&self, symbol: &str) -> bool {
        self.kind == Kind::Symbol && self.text == symbol
    }

    /// The name it stands for: unquoted ones are folded to lower case.
    pub fn name(&self) -> Option<String> {
        match self.kind {
            Kind::Word => Some(self.text.to_ascii_lowercase()),
            Kind::Quoted => Some(self.text[1..self.text.len() - 1].replace("\"\"", "\"")),
            _ => None,
        }
    }

    pub fn end(&self) -> usize {
        self.at + self.text.len()
    }
}

/// The tokens of a query; an error where a string, a comment or an identifier is unterminated.
pub fn tokens(query: &str) -> Result<Vec<Token<'_>>, &'static str> {
    let mut lexer = Lexer { bytes: query.as_bytes(), at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.blank()?;
        let at = lexer.at;
        match lexer.next()? {
            Some(kind) => tokens.push(Token { kind, text: &query[at..lexer.at], at }),
            None => return Ok(tokens),
        }
    }
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn done(&self) -> bool {
        self.at >= self.bytes.len()
    }

    fn sees(&self, what: &[u8]) -> bool {
        self.bytes[self.at.min(self.bytes.len())..].starts_with(what)
    }

    fn skip(&mut self, wanted: impl Fn(u8) -> bool) {
        while !self.done() && wanted(self.peek(0)) {
            self.at += 1;
        }
    }

    fn blank(&mut self) -> Result<(), &'static str> {
        loop {
            if self.sees(b"--") {
                self.skip(|c| c != b'\n' && c != b'\r');
            } else if self.sees(b"/*") {
                let mut depth = 0;
                loop {
                    if self.done() {
                        return Err("unterminated comment");
                    }
                    if self.sees(b"/*") {
                        depth += 1;
                        self.at += 2;
                    } else if self.sees(b"*/") {
                        depth -= 1;
                        self.at += 2;
                        if depth == 0 {
                            break;
                        }
                    } else {
                        self.at += 1;
                    }
                }
            } else if !self.done() && is_space(self.peek(0)) {
                self.at += 1;
            } else {
                return Ok(());
            }
        }
    }

    fn quoted(&mut self, quote: u8, backslashes: bool) -> Result<(), &'static str> {
        self.at += 1;
        while !self.done() {
            let c = self.peek(0);
            self.at += 1;
            if c == quote {
                if self.peek(0) != quote {
                    return Ok(());
                }
                self.at += 1;
            } else if c == b'\\' && backslashes {
                self.at += 1;
            }
        }
        Err(if quote == b'"' { "unterminated identifier" } else { "unterminated string" })
    }

    /// A string goes on, in the same dialect, where the next quote is on a later line.
    fn string(&mut self, backslashes: bool) -> Result<(), &'static str> {
        loop {
            self.quoted(b'\'', backslashes)?;
            let end = self.at;
            loop {
                self.skip(is_space);
                if !self.sees(b"--") {
                    break;
                }
                self.skip(|c| c != b'\n' && c != b'\r');
            }
            let newline = self.bytes[end..self.at].iter().any(|&c| c == b'\n' || c == b'\r');
            if !newline || self.peek(0) != b'\'' {
                self.at = end;
                return Ok(());
            }
        }
    }

    /// `$tag$…$tag$`, where there is one.
    fn dollar_string(&mut self) -> Result<bool, &'static str> {
        let rest = &self.bytes[self.at..];
        let tag_len = 1 + rest[1..].iter().take_while(|&&c| is_letter(c) || c.is_ascii_digit()).count();
        if rest.get(tag_len) != Some(&b'$') || rest[1].is_ascii_digit() {
            return Ok(false);
        }
        let tag = &rest[..=tag_len];
        let body = &rest[tag.len()..];
        let end = body.windows(tag.len()).position(|part| part == tag).ok_or("unterminated dollar-quoted string")?;
        self.at += tag.len() + end + tag.len();
        Ok(true)
    }

    fn next(&mut self) -> Result<Option<Kind>, &'static str> {
        if self.done() {
            return Ok(None);
        }
        let c = self.peek(0).to_ascii_lowercase();
        let unicode = c == b'u' && self.peek(1) == b'&';
        Ok(Some(if c == b'\'' {
            self.string(false)?;
            Kind::Literal
        } else if unicode && self.peek(2) == b'\'' {
            self.at += 2;
            self.string(false)?;
            Kind::Literal
        } else if unicode && self.peek(2) == b'"' {
            self.at += 2;
            self.quoted(b'"', false)?;
            Kind::Opaque
        } else if matches!(c, b'e' | b'b' | b'x' | b'n') && self.peek(1) == b'\'' {
            self.at += 1;
            self.string(c == b'e')?;
            Kind::Literal
        } else if c == b'"' {
            self.quoted(b'"', false)?;
            Kind::Quoted
        } else if is_letter(c) {
            self.skip(|c| is_letter(c) || c.is_ascii_digit() || c == b'$');
            Kind::Word
        } else if c.is_ascii_digit() || (c == b'.' && self.peek(1).is_ascii_digit()) {
            self.skip(|c| c.is_ascii_digit() || c == b'.');
            Kind::Literal
        } else if c == b'$' && self.dollar_string()? {
            Kind::Literal
        } else {
            self.at += 1;
            Kind::Symbol
        }))
    }
}
