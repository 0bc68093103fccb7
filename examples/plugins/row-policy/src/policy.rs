//! What is done to a query.

use hookline::json::Value;
use hookline::sql::{self, Kind, Token};
use hookline::Rewrite;
use std::borrow::Cow;

pub struct Policy<'a> {
    /// Each table, and the column that holds its tenant.
    pub tables: &'a [(String, Value)],
    pub tenant: Option<&'a str>,
}

/// What the statement, or one pair of parentheses, is about.
#[derive(Clone, Copy, Default)]
struct Frame {
    /// A SELECT began here.
    query: bool,
    /// Inside of its FROM: tables may follow.
    from: bool,
}

impl Policy<'_> {
    fn column_of(&self, token: &Token) -> Option<&str> {
        let name = token.name()?;
        self.tables.iter().find(|(table, _)| *table == name)?.1.text()
    }

    fn has(&self, table: &str) -> bool {
        let last = table.rsplit('.').next().unwrap_or(table);
        self.tables.iter().any(|(name, _)| name.eq_ignore_ascii_case(last))
    }

    /// `seen` are the tables that the proxy found in the query.
    pub fn apply(&self, query: &str, seen: &[Cow<str>]) -> Rewrite {
        let tokens = match sql::tokens(query) {
            Ok(tokens) => tokens,
            Err(why) => return Rewrite::block(why),
        };
        if tokens.iter().any(|token| token.kind == Kind::Opaque) {
            return Rewrite::block("an identifier in U& form hides its name");
        }
        let named = tokens.iter().any(|token| self.column_of(token).is_some());
        if !named && !seen.iter().any(|table| self.has(table)) {
            return Rewrite::Continue;
        }
        let tenant = match self.tenant {
            Some(tenant) => tenant,
            None => return Rewrite::block("a query of no tenant names a table that belongs to tenants"),
        };
        for statement in tokens.split(|token| token.is_symbol(";")) {
            if let Some(word) = self.unlimited(statement) {
                return Rewrite::Block(format!("the rows of {word} cannot be limited"));
            }
        }
        match self.limit(query, &tokens, tenant) {
            Some(limited) => Rewrite::Rewrite(limited),
            None => Rewrite::block("a table that belongs to tenants is not read directly"),
        }
    }

    /// The word that makes this statement more than a SELECT, where it names one of the tables.
    fn unlimited<'a>(&self, statement: &[Token<'a>]) -> Option<&'a str> {
        statement.iter().find(|token| self.column_of(token).is_some())?;
        let first = statement.iter().find(|token| !token.is_symbol("("))?;
        if !first.is(&["select", "with", "explain", "values"]) {
            return Some(first.text);
        }
        let mut before = None;
        for token in statement {
            let label = before.map_or(false, |t: &Token| t.is_symbol(".") || t.is(&["for", "key"]));
            if !label && token.is(&["insert", "update", "delete", "merge", "into", "table", "only", "tablesample"]) {
                return Some(token.text);
            }
            before = Some(token);
        }
        None
    }

    /// The query with each table in a FROM replaced by its rows of this tenant; None where there was none.
    fn limit(&self, query: &str, tokens: &[Token], tenant: &str) -> Option<String> {
        let literal = format!("'{}'", tenant.replace('\'', "''"));
        let mut out = String::with_capacity(query.len() + 128);
        let mut copied = 0;
        let mut frames = vec![Frame::default()];
        for (i, token) in tokens.iter().enumerate() {
            let before = i.checked_sub(1).map(|k| &tokens[k]);
            let follows = |words: &[&str]| before.map_or(false, |t| t.is(words));
            let follows_symbol = |symbol: &str| before.map_or(false, |t| t.is_symbol(symbol));
            let depth = frames.len() - 1;
            let frame = &mut frames[depth];
            let label = follows(&["as"]) || follows_symbol(".");
            if token.is_symbol("(") {
                // Parentheses around joins are still FROM; a function's arguments and USING (…) are not.
                let join = follows(&["from", "join"]) || follows_symbol(",") || follows_symbol("(");
                let from = frame.from && join;
                frames.push(Frame { query: from, from });
            } else if token.is_symbol(")") {
                if depth > 0 {
                    frames.pop();
                }
            } else if token.is_symbol(";") {
                frames = vec![Frame::default()];
            } else if token.is(&["select"]) && !follows_symbol(".") {
                *frame = Frame { query: true, from: false };
            } else if token.is(&["from"]) && !label {
                let distinct = follows(&["distinct"]) && i >= 2 && tokens[i - 2].is(&["is", "not"]);
                frame.from = frame.from || (frame.query && !distinct);
            } else if token.is(&["where", "group", "having", "window", "order", "limit", "offset", "fetch", "union",
                "except", "intersect"]) && !label
            {
                frame.from = false;
            } else if let Some(column) = self.column_of(token) {
                let start = chain_start(tokens, i);
                let introduced = start.checked_sub(1).map_or(false, |k| {
                    tokens[k].is(&["from", "join"]) || tokens[k].is_symbol(",") || tokens[k].is_symbol("(")
                });
                let qualifier = tokens.get(i + 1).map_or(false, |t| t.is_symbol("."));
                if frame.from && introduced && !qualifier {
                    let table = &query[tokens[start].at..token.end()];
                    out.push_str(&query[copied..tokens[start].at]);
                    out.push_str(&format!("(SELECT * FROM {table} WHERE {column} = {literal})"));
                    if !has_alias(tokens.get(i + 1)) {
                        out.push_str(&format!(" AS {}", token.text));
                    }
                    copied = token.end();
                }
            }
        }
        out.push_str(&query[copied..]);
        (copied > 0).then(|| out)
    }
}

/// Where schema.table begins, of which `last` is the last part.
fn chain_start(tokens: &[Token], last: usize) -> usize {
    let mut start = last;
    while start >= 2 && tokens[start - 1].is_symbol(".") && tokens[start - 2].name().is_some() {
        start -= 2;
    }
    start
}

/// Whether a name of the query's own follows a table.
fn has_alias(next: Option<&Token>) -> bool {
    const KEYWORDS: &[&str] = &[
        "where", "join", "left", "right", "full", "inner", "cross", "natural", "on", "using", "group", "order",
        "having", "limit", "offset", "fetch", "for", "window", "union", "except", "intersect",
    ];
    next.map_or(false, |token| token.name().is_some() && !token.is(KEYWORDS))
}
