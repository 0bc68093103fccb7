//! Writes an answer. The default of a hook is no bytes at all, which spares the host its reading.

use crate::json;
use crate::read::Malformed;
use std::fmt::Display;

/// What a hook answers: JSON, or an empty text for the hook's default.
pub trait Answer {
    #[doc(hidden)]
    fn written(&self) -> String;
}

/// A hook that observes answers nothing.
impl Answer for () {
    fn written(&self) -> String {
        String::new()
    }
}

/// `custom_hook` answers any JSON, or nothing.
impl Answer for Option<json::Value> {
    fn written(&self) -> String {
        self.as_ref().map_or_else(String::new, |value| value.to_string())
    }
}

/// An answer, or why there is none: a call that cannot be answered fails, and never guesses.
pub trait Outcomes<A> {
    #[doc(hidden)]
    fn answer(self) -> A;
}

impl<A: Answer> Outcomes<A> for A {
    fn answer(self) -> A {
        self
    }
}

impl<A: Answer, E: Display> Outcomes<A> for Result<A, E> {
    fn answer(self) -> A {
        self.unwrap_or_else(|error| crate::fail(&error.to_string()))
    }
}

/// What a hook's body made of its input, as the host gets it.
pub(crate) fn run<A: Answer, R: Outcomes<A>>(outcome: Result<R, Malformed>) -> String {
    match outcome {
        Ok(outcome) => outcome.answer().written(),
        Err(error) => crate::fail(&error.sentence()),
    }
}

/// An object that begins with its `action`.
pub(crate) struct Written(String);

impl Written {
    pub(crate) fn new(action: &str) -> Written {
        Written(format_action(action))
    }

    pub(crate) fn text(mut self, name: &str, text: &str) -> Written {
        self.name(name);
        json::quote(&mut self.0, text);
        self
    }

    /// What is JSON already.
    pub(crate) fn json(mut self, name: &str, json: &str) -> Written {
        self.name(name);
        self.0.push_str(json);
        self
    }

    pub(crate) fn number(mut self, name: &str, number: i64) -> Written {
        self.name(name);
        json::decimal(&mut self.0, number);
        self
    }

    fn name(&mut self, name: &str) {
        self.0.push_str(",\"");
        self.0.push_str(name);
        self.0.push_str("\":");
    }

    pub(crate) fn done(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

fn format_action(action: &str) -> String {
    let mut out = String::with_capacity(128);
    out.push_str("{\"action\":\"");
    out.push_str(action);
    out.push('"');
    out
}
