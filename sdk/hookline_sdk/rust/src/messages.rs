//! What goes to databases and servers, and what comes back.

use crate::base64;
use crate::json::{self, Value};

/// A statement's parameters, `$1` first: `Params::new().text("acme").int(7)`.
#[derive(Debug, Clone, Default)]
pub struct Params(String);

impl Params {
    pub fn new() -> Params {
        Params::default()
    }

    /// A value that is JSON already.
    pub fn json(mut self, json: &str) -> Params {
        self.0.push(if self.0.is_empty() { '[' } else { ',' });
        self.0.push_str(json);
        self
    }

    pub fn null(self) -> Params {
        self.json("null")
    }

    pub fn bool(self, value: bool) -> Params {
        self.json(if value { "true" } else { "false" })
    }

    pub fn int(self, value: i64) -> Params {
        self.json(&value.to_string())
    }

    /// Infinities and NaN go as text, as PostgreSQL writes them.
    pub fn float(self, value: f64) -> Params {
        match value {
            _ if value.is_finite() => self.json(&format!("{:?}", value)),
            _ if value.is_nan() => self.text("NaN"),
            _ => self.text(if value > 0.0 { "Infinity" } else { "-Infinity" }),
        }
    }

    pub fn text(self, value: &str) -> Params {
        self.json(&json::quoted(value))
    }

    pub fn bytes(self, value: &[u8]) -> Params {
        self.text(&base64::encode(value))
    }

    pub fn texts<'a>(self, values: impl IntoIterator<Item = &'a str>) -> Params {
        let quoted: Vec<String> = values.into_iter().map(json::quoted).collect();
        self.json(&format!("[{}]", quoted.join(",")))
    }

    pub(crate) fn written(self) -> String {
        if self.0.is_empty() { String::new() } else { self.0 + "]" }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// As PostgreSQL names it.
    pub kind: String,
}

/// What a statement came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Value>>,
    /// Those that it answered or changed.
    pub row_count: u64,
}

/// What a statement takes and answers, without running it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// Types, as PostgreSQL names them.
    pub parameters: Vec<String>,
    pub columns: Vec<Column>,
}

/// A request: `Request::new("GET", url).header("accept", "application/json")`.
#[derive(Debug, Clone)]
pub struct Request {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
    timeout_ms: Option<u64>,
}

impl Request {
    pub fn new(method: &str, url: &str) -> Request {
        Request { method: method.into(), url: url.into(), headers: Vec::new(), body: None, timeout_ms: None }
    }

    pub fn header(mut self, name: &str, value: &str) -> Request {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn body(mut self, body: &[u8]) -> Request {
        self.body = Some(body.into());
        self
    }

    /// Without it, the plugin's `limits.wait` alone.
    pub fn timeout_ms(mut self, timeout: u64) -> Request {
        self.timeout_ms = Some(timeout);
        self
    }

    pub(crate) fn written(&self) -> String {
        let headers: Vec<(&str, &str)> = self.headers.iter().map(|(name, value)| (&name[..], &value[..])).collect();
        let (method, url) = (json::quoted(&self.method), json::quoted(&self.url));
        let mut out = format!(r#"{{"method":{},"url":{},"headers":{}"#, method, url, json::object(&headers));
        if let Some(body) = &self.body {
            out.push_str(&format!(r#","bodyBase64":"{}""#, base64::encode(body)));
        }
        if let Some(timeout) = self.timeout_ms {
            out.push_str(&format!(r#","timeoutMs":{}"#, timeout));
        }
        out + "}"
    }
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// With names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub from_cache: bool,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| &value[..])
    }
}
