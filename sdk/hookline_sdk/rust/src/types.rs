//! What each hook is asked, and what it answers.
// Written by scripts/write_sdk.py from the contract; do not edit.

use crate::answer::{run, Answer, Outcomes, Written};
use crate::base64;
use crate::json::{self, Value};
use crate::read::{read, read_pair, Malformed, Map, Read, Reader};
use std::borrow::Cow;

/// Who asks, and where: the same for every hook of one statement.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HookContext<'a> {
    /// Stays the same over every hook of one statement; made by the sidecar where the proxy sends none.
    pub request_id: Cow<'a, str>,
    pub client_id: Option<Cow<'a, str>>,
    /// The user's name, as the proxy knows it.
    pub identity: Option<Cow<'a, str>>,
    pub database: Option<Cow<'a, str>>,
    pub branch: Option<Cow<'a, str>>,
    /// Anything else that plugins read; `ATTRIBUTES` has the names that they agree about.
    pub attributes: Map<'a>,
}

impl<'a> Read<'a> for HookContext<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let mut found = Self::default();
        let mut is_first = true;
        while let Some(at) = reader.member(&["request_id", "client_id", "identity", "database", "branch", "attributes"], &mut is_first)? {
            match at {
                0 => _ = reader.field(&mut found.request_id)?,
                1 => _ = reader.field(&mut found.client_id)?,
                2 => _ = reader.field(&mut found.identity)?,
                3 => _ = reader.field(&mut found.database)?,
                4 => _ = reader.field(&mut found.branch)?,
                5 => _ = reader.field(&mut found.attributes)?,
                _ => unreachable!(),
            }
        }
        Ok(found)
    }
}

impl HookContext<'_> {
    /// An attribute that the proxy sent, such as `tenant_id`.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name)
    }

    /// Whether the attribute `identity.roles` names this role.
    pub fn has_role(&self, role: &str) -> bool {
        self.roles().any(|each| each == role)
    }

    /// The roles of who asks: the attribute `identity.roles`, at its commas.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        let roles = self.attributes.get("identity.roles").unwrap_or("");
        roles.split(',').map(|role| role.trim_matches(' ')).filter(|role| !role.is_empty())
    }
}

/// Input of `authenticate`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AuthenticateInput<'a> {
    /// Names in lower case; repeated headers joined with a comma.
    pub headers: Map<'a>,
    pub username: Cow<'a, str>,
    pub password: Option<Cow<'a, str>>,
    pub client_ip: Cow<'a, str>,
    pub database: Option<Cow<'a, str>>,
    /// Its `request_id` is the header `x-request-id` where the proxy names it there alone.
    pub hook_context: HookContext<'a>,
}

impl<'a> Read<'a> for AuthenticateInput<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let mut found = Self::default();
        let mut is_first = true;
        while let Some(at) = reader.member(&["headers", "username", "password", "client_ip", "database", "hook_context"], &mut is_first)? {
            match at {
                0 => _ = reader.field(&mut found.headers)?,
                1 => _ = reader.field(&mut found.username)?,
                2 => _ = reader.field(&mut found.password)?,
                3 => _ = reader.field(&mut found.client_ip)?,
                4 => _ = reader.field(&mut found.database)?,
                5 => _ = reader.field(&mut found.hook_context)?,
                _ => unreachable!(),
            }
        }
        Ok(found)
    }
}

impl AuthenticateInput<'_> {
    /// An attribute that the proxy sent, such as `tenant_id`.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.hook_context.attribute(name)
    }

    /// Whether the attribute `identity.roles` names this role.
    pub fn has_role(&self, role: &str) -> bool {
        self.hook_context.has_role(role)
    }
}

/// Who a client is: what `authenticate` answers, and `authorize` is asked with.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Identity<'a> {
    /// Stays the same for this client, and is nobody else's.
    pub user_id: Cow<'a, str>,
    /// For people, and as the user's name in `hook_context.identity`.
    pub username: Cow<'a, str>,
    /// What the client may act as; a role has no comma. In later hooks it is the attribute `identity.roles`.
    pub roles: Vec<Cow<'a, str>>,
    /// The tenant that the client belongs to; in later hooks it is the attribute of that name.
    pub tenant_id: Option<Cow<'a, str>>,
    /// Anything else that was proven of the client, such as the claims of a token.
    pub claims: Value,
}

impl<'a> Read<'a> for Identity<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let mut found = Self::default();
        let mut has_user_id = false;
        let mut has_username = false;
        let mut is_first = true;
        while let Some(at) = reader.member(&["user_id", "username", "roles", "tenant_id", "claims"], &mut is_first)? {
            match at {
                0 => has_user_id = reader.field(&mut found.user_id)?,
                1 => has_username = reader.field(&mut found.username)?,
                2 => _ = reader.field(&mut found.roles)?,
                3 => _ = reader.field(&mut found.tenant_id)?,
                4 => _ = reader.field(&mut found.claims)?,
                _ => unreachable!(),
            }
        }
        reader.need(has_user_id, "user_id")?;
        reader.need(has_username, "username")?;
        Ok(found)
    }
}

/// Input of `authorize`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AuthorizeInput<'a> {
    /// The statement, as the client sent it.
    pub query: Cow<'a, str>,
    /// The statement without its literals. Where the proxy does not compute it, and after a rewrite, guests find the
    /// query's own text here, and the attribute `hookline.normalized` is `verbatim`.
    pub normalized: Cow<'a, str>,
    pub tables: Vec<Cow<'a, str>>,
    pub is_read_only: bool,
    pub hook_context: HookContext<'a>,
    pub identity: Option<Identity<'a>>,
    /// What is to be done: a verb of the proxy's, or an HTTP method. Empty where the proxy does not say.
    pub action: Cow<'a, str>,
    /// To what: a table, or an HTTP path. Empty where the proxy does not say.
    pub resource: Cow<'a, str>,
}

impl<'a> Read<'a> for AuthorizeInput<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let mut found = Self::default();
        let mut has_query = false;
        let mut is_first = true;
        while let Some(at) = reader.member(&["query", "normalized", "tables", "is_read_only", "hook_context", "identity", "action", "resource"], &mut is_first)? {
            match at {
                0 => has_query = reader.field(&mut found.query)?,
                1 => _ = reader.field(&mut found.normalized)?,
                2 => _ = reader.field(&mut found.tables)?,
                3 => _ = reader.field(&mut found.is_read_only)?,
                4 => _ = reader.field(&mut found.hook_context)?,
                5 => _ = reader.field(&mut found.identity)?,
                6 => _ = reader.field(&mut found.action)?,
                7 => _ = reader.field(&mut found.resource)?,
                _ => unreachable!(),
            }
        }
        reader.need(has_query, "query")?;
        Ok(found)
    }
}

impl AuthorizeInput<'_> {
    /// An attribute that the proxy sent, such as `tenant_id`.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.hook_context.attribute(name)
    }

    /// Whether the attribute `identity.roles` names this role.
    pub fn has_role(&self, role: &str) -> bool {
        self.hook_context.has_role(role)
    }
}

/// Input of `pre_query`, `rewrite` and `route`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QueryInput<'a> {
    /// The statement, as the client sent it.
    pub query: Cow<'a, str>,
    /// The statement without its literals. Where the proxy does not compute it, and after a rewrite, guests find the
    /// query's own text here, and the attribute `hookline.normalized` is `verbatim`.
    pub normalized: Cow<'a, str>,
    pub tables: Vec<Cow<'a, str>>,
    pub is_read_only: bool,
    pub hook_context: HookContext<'a>,
}

impl<'a> Read<'a> for QueryInput<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let mut found = Self::default();
        let mut has_query = false;
        let mut is_first = true;
        while let Some(at) = reader.member(&["query", "normalized", "tables", "is_read_only", "hook_context"], &mut is_first)? {
            match at {
                0 => has_query = reader.field(&mut found.query)?,
                1 => _ = reader.field(&mut found.normalized)?,
                2 => _ = reader.field(&mut found.tables)?,
                3 => _ = reader.field(&mut found.is_read_only)?,
                4 => _ = reader.field(&mut found.hook_context)?,
                _ => unreachable!(),
            }
        }
        reader.need(has_query, "query")?;
        Ok(found)
    }
}

impl QueryInput<'_> {
    /// An attribute that the proxy sent, such as `tenant_id`.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.hook_context.attribute(name)
    }

    /// Whether the attribute `identity.roles` names this role.
    pub fn has_role(&self, role: &str) -> bool {
        self.hook_context.has_role(role)
    }
}

/// Input of `cache_get`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CacheGetInput<'a> {
    /// The statement, as the client sent it.
    pub query: Cow<'a, str>,
    /// The statement without its literals. Where the proxy does not compute it, and after a rewrite, guests find the
    /// query's own text here, and the attribute `hookline.normalized` is `verbatim`.
    pub normalized: Cow<'a, str>,
    pub tables: Vec<Cow<'a, str>>,
    pub is_read_only: bool,
    pub hook_context: HookContext<'a>,
    pub key: Cow<'a, str>,
}

impl<'a> Read<'a> for CacheGetInput<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let mut found = Self::default();
        let mut has_query = false;
        let mut has_key = false;
        let mut is_first = true;
        while let Some(at) = reader.member(&["query", "normalized", "tables", "is_read_only", "hook_context", "key"], &mut is_first)? {
            match at {
                0 => has_query = reader.field(&mut found.query)?,
                1 => _ = reader.field(&mut found.normalized)?,
                2 => _ = reader.field(&mut found.tables)?,
                3 => _ = reader.field(&mut found.is_read_only)?,
                4 => _ = reader.field(&mut found.hook_context)?,
                5 => has_key = reader.field(&mut found.key)?,
                _ => unreachable!(),
            }
        }
        reader.need(has_query, "query")?;
        reader.need(has_key, "key")?;
        Ok(found)
    }
}

impl CacheGetInput<'_> {
    /// An attribute that the proxy sent, such as `tenant_id`.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.hook_context.attribute(name)
    }

    /// Whether the attribute `identity.roles` names this role.
    pub fn has_role(&self, role: &str) -> bool {
        self.hook_context.has_role(role)
    }
}

/// Input of `cache_set`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CacheSetInput<'a> {
    /// The statement, as the client sent it.
    pub query: Cow<'a, str>,
    /// The statement without its literals. Where the proxy does not compute it, and after a rewrite, guests find the
    /// query's own text here, and the attribute `hookline.normalized` is `verbatim`.
    pub normalized: Cow<'a, str>,
    pub tables: Vec<Cow<'a, str>>,
    pub is_read_only: bool,
    pub hook_context: HookContext<'a>,
    pub key: Cow<'a, str>,
    /// The bytes to store, base64.
    pub value: Cow<'a, str>,
    pub ttl_ms: Option<i64>,
}

impl<'a> Read<'a> for CacheSetInput<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let mut found = Self::default();
        let mut has_query = false;
        let mut has_key = false;
        let mut has_value = false;
        let mut is_first = true;
        while let Some(at) = reader.member(&["query", "normalized", "tables", "is_read_only", "hook_context", "key", "value", "ttl_ms"], &mut is_first)? {
            match at {
                0 => has_query = reader.field(&mut found.query)?,
                1 => _ = reader.field(&mut found.normalized)?,
                2 => _ = reader.field(&mut found.tables)?,
                3 => _ = reader.field(&mut found.is_read_only)?,
                4 => _ = reader.field(&mut found.hook_context)?,
                5 => has_key = reader.field(&mut found.key)?,
                6 => has_value = reader.field(&mut found.value)?,
                7 => _ = reader.field(&mut found.ttl_ms)?,
                _ => unreachable!(),
            }
        }
        reader.need(has_query, "query")?;
        reader.need(has_key, "key")?;
        reader.need(has_value, "value")?;
        Ok(found)
    }
}

impl CacheSetInput<'_> {
    /// An attribute that the proxy sent, such as `tenant_id`.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.hook_context.attribute(name)
    }

    /// Whether the attribute `identity.roles` names this role.
    pub fn has_role(&self, role: &str) -> bool {
        self.hook_context.has_role(role)
    }
}

/// Input of `on_connect`, `on_disconnect` and `metrics`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EventInput<'a> {
    pub hook_context: HookContext<'a>,
    pub event: Value,
}

impl<'a> Read<'a> for EventInput<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let mut found = Self::default();
        let mut is_first = true;
        while let Some(at) = reader.member(&["hook_context", "event"], &mut is_first)? {
            match at {
                0 => _ = reader.field(&mut found.hook_context)?,
                1 => _ = reader.field(&mut found.event)?,
                _ => unreachable!(),
            }
        }
        Ok(found)
    }
}

impl EventInput<'_> {
    /// An attribute that the proxy sent, such as `tenant_id`.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.hook_context.attribute(name)
    }

    /// Whether the attribute `identity.roles` names this role.
    pub fn has_role(&self, role: &str) -> bool {
        self.hook_context.has_role(role)
    }
}

/// How a statement went; the second element of `post_query`'s input.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome<'a> {
    pub success: bool,
    pub target_node: Option<Cow<'a, str>>,
    pub elapsed_us: i64,
    pub response_bytes: i64,
    pub error: Option<Cow<'a, str>>,
}

impl<'a> Read<'a> for Outcome<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let mut found = Self::default();
        let mut has_success = false;
        let mut is_first = true;
        while let Some(at) = reader.member(&["success", "target_node", "elapsed_us", "response_bytes", "error"], &mut is_first)? {
            match at {
                0 => has_success = reader.field(&mut found.success)?,
                1 => _ = reader.field(&mut found.target_node)?,
                2 => _ = reader.field(&mut found.elapsed_us)?,
                3 => _ = reader.field(&mut found.response_bytes)?,
                4 => _ = reader.field(&mut found.error)?,
                _ => unreachable!(),
            }
        }
        reader.need(has_success, "success")?;
        Ok(found)
    }
}

impl Identity<'_> {
    fn json(&self) -> String {
        let mut out: Vec<(String, String)> = Vec::new();
        out.push((json::quoted("user_id"), json::quoted(&self.user_id)));
        out.push((json::quoted("username"), json::quoted(&self.username)));
        let texts: Vec<String> = self.roles.iter().map(|each| json::quoted(each)).collect();
        out.push((json::quoted("roles"), format!("[{}]", texts.join(","))));
        if let Some(value) = &self.tenant_id {
            out.push((json::quoted("tenant_id"), json::quoted(value)));
        }
        if self.claims != Value::Null {
            out.push((json::quoted("claims"), self.claims.to_string()));
        }
        let members: Vec<String> = out.into_iter().map(|(name, value)| name + ":" + &value).collect();
        format!("{{{}}}", members.join(","))
    }
}

/// What `authenticate` answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Authenticate {
    /// The client is who `identity` says.
    Success(Identity<'static>),
    /// The client's credentials are wrong.
    Denied(String),
    /// No plugin has an opinion; the proxy's own rules apply.
    Defer,
}

impl Authenticate {
    /// The client's credentials are wrong.
    pub fn denied(text: impl Into<String>) -> Authenticate {
        Authenticate::Denied(text.into())
    }
}

impl Answer for Authenticate {
    fn written(&self) -> String {
        match self {
            Authenticate::Success(identity) => Written::new("success").json("identity", &identity.json()).done(),
            Authenticate::Denied(message) => Written::new("denied").text("message", message).done(),
            Authenticate::Defer => String::new(),
        }
    }
}

/// Exports `authenticate`: a function, or a closure, that takes `&AuthenticateInput` and answers `Authenticate`, or a `Result` of it.
#[macro_export]
macro_rules! authenticate {
    ($body:expr) => {
        $crate::export!(authenticate, |input| $crate::ask_authenticate(input, $body));
    };
}

#[doc(hidden)]
pub fn ask_authenticate<R: Outcomes<Authenticate>>(text: &str, body: impl for<'a> FnOnce(&AuthenticateInput<'a>) -> R) -> String {
    run(read::<AuthenticateInput<'_>>(text).map(|input| body(&input)))
}

/// What `authorize` answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Authorize {
    /// The action may be done.
    Allow(Option<String>),
    /// The action may not be done.
    Deny(Option<String>),
    /// No plugin has an opinion; the proxy's own rules apply.
    Defer,
}

impl Authorize {
    /// The action may be done.
    pub fn allow(text: impl Into<String>) -> Authorize {
        Authorize::Allow(Some(text.into()))
    }

    /// The action may not be done.
    pub fn deny(text: impl Into<String>) -> Authorize {
        Authorize::Deny(Some(text.into()))
    }
}

impl Answer for Authorize {
    fn written(&self) -> String {
        match self {
            Authorize::Allow(reason) => {
                let out = Written::new("allow");
                match reason {
                    None => out.done(),
                    Some(reason) => out.text("reason", reason).done(),
                }
            }
            Authorize::Deny(reason) => {
                let out = Written::new("deny");
                match reason {
                    None => out.done(),
                    Some(reason) => out.text("reason", reason).done(),
                }
            }
            Authorize::Defer => String::new(),
        }
    }
}

/// Exports `authorize`: a function, or a closure, that takes `&AuthorizeInput` and answers `Authorize`, or a `Result` of it.
#[macro_export]
macro_rules! authorize {
    ($body:expr) => {
        $crate::export!(authorize, |input| $crate::ask_authorize(input, $body));
    };
}

#[doc(hidden)]
pub fn ask_authorize<R: Outcomes<Authorize>>(text: &str, body: impl for<'a> FnOnce(&AuthorizeInput<'a>) -> R) -> String {
    run(read::<AuthorizeInput<'_>>(text).map(|input| body(&input)))
}

/// What `pre_query` answers.
#[derive(Debug, Clone, PartialEq)]
pub enum PreQuery {
    /// Go on with the query as it is.
    Continue,
    /// Go on with another query.
    Rewrite(String),
    /// Refuse the statement.
    Block(String),
    /// Answer the client with these bytes, and do not run the query.
    Cached(Vec<u8>),
}

impl PreQuery {
    /// Go on with another query.
    pub fn rewrite(text: impl Into<String>) -> PreQuery {
        PreQuery::Rewrite(text.into())
    }

    /// Refuse the statement.
    pub fn block(text: impl Into<String>) -> PreQuery {
        PreQuery::Block(text.into())
    }
}

impl Answer for PreQuery {
    fn written(&self) -> String {
        match self {
            PreQuery::Continue => String::new(),
            PreQuery::Rewrite(value) => Written::new("rewrite").text("value", value).done(),
            PreQuery::Block(value) => Written::new("block").text("value", value).done(),
            PreQuery::Cached(data) => Written::new("cached").text("data_base64", &base64::encode(data)).done(),
        }
    }
}

/// Exports `pre_query`: a function, or a closure, that takes `&QueryInput` and answers `PreQuery`, or a `Result` of it.
#[macro_export]
macro_rules! pre_query {
    ($body:expr) => {
        $crate::export!(pre_query, |input| $crate::ask_pre_query(input, $body));
    };
}

#[doc(hidden)]
pub fn ask_pre_query<R: Outcomes<PreQuery>>(text: &str, body: impl for<'a> FnOnce(&QueryInput<'a>) -> R) -> String {
    run(read::<QueryInput<'_>>(text).map(|input| body(&input)))
}

/// What `rewrite` answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Rewrite {
    /// Go on with the query as it is.
    Continue,
    /// Go on with another query.
    Rewrite(String),
    /// Refuse the statement.
    Block(String),
}

impl Rewrite {
    /// Go on with another query.
    pub fn rewrite(text: impl Into<String>) -> Rewrite {
        Rewrite::Rewrite(text.into())
    }

    /// Refuse the statement.
    pub fn block(text: impl Into<String>) -> Rewrite {
        Rewrite::Block(text.into())
    }
}

impl Answer for Rewrite {
    fn written(&self) -> String {
        match self {
            Rewrite::Continue => String::new(),
            Rewrite::Rewrite(value) => Written::new("rewrite").text("value", value).done(),
            Rewrite::Block(value) => Written::new("block").text("value", value).done(),
        }
    }
}

/// Exports `rewrite`: a function, or a closure, that takes `&QueryInput` and answers `Rewrite`, or a `Result` of it.
#[macro_export]
macro_rules! rewrite {
    ($body:expr) => {
        $crate::export!(rewrite, |input| $crate::ask_rewrite(input, $body));
    };
}

#[doc(hidden)]
pub fn ask_rewrite<R: Outcomes<Rewrite>>(text: &str, body: impl for<'a> FnOnce(&QueryInput<'a>) -> R) -> String {
    run(read::<QueryInput<'_>>(text).map(|input| body(&input)))
}

/// What `route` answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Route {
    /// Send the statement to the default node, the primary, or any standby.
    Default,
    /// Send the statement to the default node, the primary, or any standby.
    Primary,
    /// Send the statement to the default node, the primary, or any standby.
    Standby,
    /// Send the statement to a node or a branch by name.
    Node(String),
    /// Send the statement to a node or a branch by name.
    Branch(String),
    /// Do not route the statement at all.
    Block(String),
}

impl Route {
    /// Send the statement to a node or a branch by name.
    pub fn node(text: impl Into<String>) -> Route {
        Route::Node(text.into())
    }

    /// Send the statement to a node or a branch by name.
    pub fn branch(text: impl Into<String>) -> Route {
        Route::Branch(text.into())
    }

    /// Do not route the statement at all.
    pub fn block(text: impl Into<String>) -> Route {
        Route::Block(text.into())
    }
}

impl Answer for Route {
    fn written(&self) -> String {
        match self {
            Route::Default => String::new(),
            Route::Primary => Written::new("primary").done(),
            Route::Standby => Written::new("standby").done(),
            Route::Node(target) => Written::new("node").text("target", target).done(),
            Route::Branch(target) => Written::new("branch").text("target", target).done(),
            Route::Block(reason) => Written::new("block").text("reason", reason).done(),
        }
    }
}

/// Exports `route`: a function, or a closure, that takes `&QueryInput` and answers `Route`, or a `Result` of it.
#[macro_export]
macro_rules! route {
    ($body:expr) => {
        $crate::export!(route, |input| $crate::ask_route(input, $body));
    };
}

#[doc(hidden)]
pub fn ask_route<R: Outcomes<Route>>(text: &str, body: impl for<'a> FnOnce(&QueryInput<'a>) -> R) -> String {
    run(read::<QueryInput<'_>>(text).map(|input| body(&input)))
}

/// What `cache_get` answers.
#[derive(Debug, Clone, PartialEq)]
pub enum CacheGet {
    /// Answer from the cache.
    Hit { data: Vec<u8>, ttl_ms: Option<i64> },
    /// The cache has nothing.
    Miss,
}

impl Answer for CacheGet {
    fn written(&self) -> String {
        match self {
            CacheGet::Hit { data, ttl_ms } => {
                let out = Written::new("hit").text("data_base64", &base64::encode(data));
                match ttl_ms {
                    None => out.done(),
                    Some(ttl_ms) => out.number("ttl_ms", *ttl_ms).done(),
                }
            }
            CacheGet::Miss => String::new(),
        }
    }
}

/// Exports `cache_get`: a function, or a closure, that takes `&CacheGetInput` and answers `CacheGet`, or a `Result` of it.
#[macro_export]
macro_rules! cache_get {
    ($body:expr) => {
        $crate::export!(cache_get, |input| $crate::ask_cache_get(input, $body));
    };
}

#[doc(hidden)]
pub fn ask_cache_get<R: Outcomes<CacheGet>>(text: &str, body: impl for<'a> FnOnce(&CacheGetInput<'a>) -> R) -> String {
    run(read::<CacheGetInput<'_>>(text).map(|input| body(&input)))
}

/// What `cache_set` answers.
#[derive(Debug, Clone, PartialEq)]
pub enum CacheSet {
    /// Store the value.
    Store(Option<i64>),
    /// Do not store the value.
    Skip,
}

impl Answer for CacheSet {
    fn written(&self) -> String {
        match self {
            CacheSet::Store(ttl_ms) => match ttl_ms {
                None => String::new(),
                Some(ttl_ms) => Written::new("store").number("ttl_ms", *ttl_ms).done(),
            },
            CacheSet::Skip => Written::new("skip").done(),
        }
    }
}

/// Exports `cache_set`: a function, or a closure, that takes `&CacheSetInput` and answers `CacheSet`, or a `Result` of it.
#[macro_export]
macro_rules! cache_set {
    ($body:expr) => {
        $crate::export!(cache_set, |input| $crate::ask_cache_set(input, $body));
    };
}

#[doc(hidden)]
pub fn ask_cache_set<R: Outcomes<CacheSet>>(text: &str, body: impl for<'a> FnOnce(&CacheSetInput<'a>) -> R) -> String {
    run(read::<CacheSetInput<'_>>(text).map(|input| body(&input)))
}

/// Exports `post_query`: a function, or a closure, that takes `&QueryInput, &Outcome` and answers `()`, or a `Result` of it.
#[macro_export]
macro_rules! post_query {
    ($body:expr) => {
        $crate::export!(post_query, |input| $crate::ask_post_query(input, $body));
    };
}

#[doc(hidden)]
pub fn ask_post_query<R: Outcomes<()>>(text: &str, body: impl for<'a> FnOnce(&QueryInput<'a>, &Outcome<'a>) -> R) -> String {
    run(read_pair::<QueryInput<'_>, Outcome<'_>>(text).map(|(first, second)| body(&first, &second)))
}

/// Exports `metrics`: a function, or a closure, that takes `&EventInput` and answers `()`, or a `Result` of it.
#[macro_export]
macro_rules! metrics {
    ($body:expr) => {
        $crate::export!(metrics, |input| $crate::ask_metrics(input, $body));
    };
}

#[doc(hidden)]
pub fn ask_metrics<R: Outcomes<()>>(text: &str, body: impl for<'a> FnOnce(&EventInput<'a>) -> R) -> String {
    run(read::<EventInput<'_>>(text).map(|input| body(&input)))
}

/// Exports `on_connect`: a function, or a closure, that takes `&EventInput` and answers `()`, or a `Result` of it.
#[macro_export]
macro_rules! on_connect {
    ($body:expr) => {
        $crate::export!(on_connect, |input| $crate::ask_on_connect(input, $body));
    };
}

#[doc(hidden)]
pub fn ask_on_connect<R: Outcomes<()>>(text: &str, body: impl for<'a> FnOnce(&EventInput<'a>) -> R) -> String {
    run(read::<EventInput<'_>>(text).map(|input| body(&input)))
}

/// Exports `on_disconnect`: a function, or a closure, that takes `&EventInput` and answers `()`, or a `Result` of it.
#[macro_export]
macro_rules! on_disconnect {
    ($body:expr) => {
        $crate::export!(on_disconnect, |input| $crate::ask_on_disconnect(input, $body));
    };
}

#[doc(hidden)]
pub fn ask_on_disconnect<R: Outcomes<()>>(text: &str, body: impl for<'a> FnOnce(&EventInput<'a>) -> R) -> String {
    run(read::<EventInput<'_>>(text).map(|input| body(&input)))
}

/// Exports `custom_hook`: a function, or a closure, that takes `&Value` and answers `Option<Value>`, or a `Result` of it.
#[macro_export]
macro_rules! custom_hook {
    ($body:expr) => {
        $crate::export!(custom_hook, |input| $crate::ask_custom_hook(input, $body));
    };
}

#[doc(hidden)]
pub fn ask_custom_hook<R: Outcomes<Option<Value>>>(text: &str, body: impl FnOnce(&Value) -> R) -> String {
    run(read::<Value>(text).map(|input| body(&input)))
}
