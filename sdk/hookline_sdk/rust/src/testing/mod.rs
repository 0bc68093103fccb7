//! A host for tests: `cargo test` runs a plugin's functions natively, and the host's functions do here what they do in a
//! sidecar, with keys, caches and clock in memory.
//!
//! ```
//! use hookline::testing::Host;
//!
//! let host = Host::new().config(r#"{"columns": ["salary"]}"#);
//! assert_eq!(hookline::get_config("columns"), Ok(Some(r#"["salary"]"#.into())));
//! hookline::count("blocked_total");
//! assert_eq!(host.metric("blocked_total"), 1.0);
//! ```
//!
//! Each thread has a host of its own, so tests run side by side. What asks a database or a server is answered by the
//! test: [`Host::answers`].

mod sha256;
mod store;
#[doc(hidden)]
pub mod sys;

use crate::json::{self, Value};
use crate::Level;
use std::cell::RefCell;
use std::collections::BTreeMap;
use store::Store;

/// What a test says that a function answers to a question.
type Given = Box<dyn Fn(&[&str]) -> Option<String>>;

pub(crate) struct State {
    config: Value,
    /// None: all are granted.
    permissions: Option<Vec<String>>,
    now: i64,
    random: u64,
    kv: Store,
    caches: BTreeMap<String, Store>,
    metrics: BTreeMap<String, f64>,
    log: Vec<(Level, String)>,
    answers: Vec<(String, Given)>,
}

impl State {
    fn new() -> State {
        State {
            config: Value::Object(Vec::new()),
            permissions: None,
            now: 1_767_225_600_000, // 2026-01-01
            random: 0x9e37_79b9_7f4a_7c15,
            kv: Store::default(),
            caches: BTreeMap::new(),
            metrics: BTreeMap::new(),
            log: Vec::new(),
            answers: Vec::new(),
        }
    }
}

thread_local! {
    static STATE: RefCell<State> = RefCell::new(State::new());
}

pub(crate) fn with<T>(run: impl FnOnce(&mut State) -> T) -> T {
    STATE.with(|state| run(&mut state.borrow_mut()))
}

/// The host of this thread. A new one knows nothing of the last.
pub struct Host(());

impl Host {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Host {
        with(|state| *state = State::new());
        Host(())
    }

    /// The plugin's settings, JSON. Panics where it is none.
    pub fn config(self, text: &str) -> Host {
        let config = json::parse(text).expect("the config is JSON");
        with(|state| state.config = config);
        self
    }

    /// What is granted: `["kv.read"]`; without this call, everything.
    pub fn permissions(self, granted: &[&str]) -> Host {
        with(|state| state.permissions = Some(granted.iter().map(|each| each.to_string()).collect()));
        self
    }

    /// A key of the plugin.
    pub fn key(self, key: &str, value: &str) -> Host {
        with(|state| state.kv.put(key.as_bytes(), value.as_bytes(), None));
        self
    }

    /// What `http_fetch`, `http_post` or one of `query_*` answers: JSON, as docs/host-functions.md has it. Without one, the
    /// function fails.
    pub fn answer(self, function: &str, answer: &str) -> Host {
        let answer = answer.to_owned();
        self.answers(function, move |_| Some(answer.clone()))
    }

    /// The same, made of the question: the function's texts, in order. None leaves it to the next one.
    pub fn answers(self, function: &str, give: impl Fn(&[&str]) -> Option<String> + 'static) -> Host {
        with(|state| state.answers.push((function.to_owned(), Box::new(give))));
        self
    }

    /// Sets the clock: milliseconds since 1970.
    pub fn time(self, now: i64) -> Host {
        with(|state| state.now = now);
        self
    }

    /// Lets time go by. What has a limit goes with it.
    pub fn pass(&self, ms: i64) {
        with(|state| state.now += ms);
    }

    /// What the plugin logged, in order.
    pub fn log(&self) -> Vec<(Level, String)> {
        with(|state| state.log.clone())
    }

    /// The value of a key, where there is one and it is text.
    pub fn value(&self, key: &str) -> Option<String> {
        with(|state| state.kv.get(key.as_bytes(), state.now).and_then(|value| String::from_utf8(value).ok()))
    }

    /// A metric: the sum of a counter, what a gauge was set to last, the sum of what was observed.
    pub fn metric(&self, name: &str) -> f64 {
        with(|state| state.metrics.get(name).copied().unwrap_or(0.0))
    }
}
