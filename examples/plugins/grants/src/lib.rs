//! grants: allows what a table of grants in PostgreSQL allows.
//!
//! An `authorize` hook. The table is yours:
//!
//! ```sql
//! CREATE TABLE grants (
//!     principal text NOT NULL,              -- user:<user_id> or role:<role>
//!     tenant text,                          -- NULL: in every tenant
//!     action text NOT NULL,                 -- such as SELECT; * is all
//!     resource text NOT NULL,               -- and what is below it: sales has sales.orders; the empty one has all
//!     effect text NOT NULL DEFAULT 'allow'  -- or deny, which wins
//! );
//! CREATE INDEX ON grants (principal);
//! ```
//!
//! What one and the same identity may do is remembered for `cache_ms`, by all workers of a pod or of a cluster, as
//! `spec.caches` says. Where the table cannot be read, nothing is allowed: the reason has the cause, the log the rest.

mod rules;

use hookline::json::{self, Value};
use hookline::{Authorize, AuthorizeInput, Identity, Level, Params};
use rules::Grant;

/// Bytes of all names of one identity.
const MAX_NAMES: usize = 4096;

struct Asker {
    principals: Vec<String>,
    tenant: Option<String>,
}

impl Asker {
    /// Who asks; None where it is nobody, or somebody of too many names.
    fn of(identity: &Identity) -> Option<Asker> {
        if identity.user_id.is_empty() {
            return None;
        }
        let mut principals = vec![format!("user:{}", identity.user_id)];
        principals.extend(identity.roles.iter().map(|role| format!("role:{}", role)));
        principals.sort();
        principals.dedup();
        let tenant = identity.tenant_id.as_deref().filter(|tenant| !tenant.is_empty()).map(str::to_owned);
        let bytes: usize = principals.iter().map(String::len).sum::<usize>() + tenant.as_ref().map_or(0, String::len);
        (bytes <= MAX_NAMES).then(|| Asker { principals, tenant })
    }

    fn key(&self, source: &str, table: &str) -> String {
        let names = [source, table, if self.tenant.is_some() { "in" } else { "all" }];
        let parts = names.into_iter().chain(self.tenant.as_deref()).chain(self.principals.iter().map(String::as_str));
        let quoted: Vec<String> = parts.map(json::quoted).collect();
        format!("[{}]", quoted.join(","))
    }
}

/// The grants of the one who asks; why they cannot be had, in a few words, where they cannot.
fn grants_of(asker: &Asker, config: &Value) -> Result<Vec<Grant>, String> {
    let text = |name| config.get(name).and_then(Value::text).unwrap_or("grants");
    let (source, table) = (text("source"), text("table"));
    let cache_ms = config.get("cache_ms").and_then(Value::int).unwrap_or(5000);
    let key = asker.key(source, table);
    if cache_ms > 0 {
        // A cache that is away has nothing.
        let found = hookline::cache_get("", key.as_bytes()).unwrap_or(None).and_then(|bytes| rules::read(&bytes));
        if let Some(grants) = found {
            hookline::count("cache_hits_total");
            return Ok(grants);
        }
    }
    // The schema of the config keeps the table's name to letters, digits and one dot.
    let sql = format!(
        "select action, resource, effect from {} where principal = any($1::text[]) and (tenant is null or tenant = $2)",
        table
    );
    let params = Params::new().texts(asker.principals.iter().map(String::as_str));
    let params = match &asker.tenant {
        Some(tenant) => params.text(tenant),
        None => params.null(),
    };
    let found = hookline::query_execute(source, &sql, params).map_err(|failure| {
        hookline::count("unavailable_total");
        hookline::log(Level::Warn, &format!("the grants cannot be read: {}", failure));
        failure.cause
    })?;
    let grants: Option<Vec<Grant>> = found.rows.iter().map(|row| Grant::of(row)).collect();
    let grants = grants.ok_or("there is one without action, resource or effect")?;
    if cache_ms > 0 && hookline::cache_set("", key.as_bytes(), rules::write(&grants).as_bytes(), cache_ms).is_err() {
        hookline::count("cache_failed_total");
    }
    Ok(grants)
}

fn decide(input: &AuthorizeInput) -> Result<(), String> {
    let (action, resource) = (&*input.action, &*input.resource);
    if rules::is_ambiguous(resource) {
        return Err("the path can be read in more than one way".into());
    }
    let asker = input.identity.as_ref().and_then(Asker::of).ok_or("there is no identity, or one of too many roles")?;
    let grants =
        grants_of(&asker, &hookline::config()).map_err(|why| format!("the grants cannot be read: {}", why))?;
    let (allowing, denying): (Vec<&Grant>, Vec<&Grant>) =
        grants.iter().filter(|grant| grant.covers(action, resource)).partition(|grant| grant.allows());
    if !denying.is_empty() {
        return Err("a grant forbids it".into());
    }
    allowing.first().map(|_| ()).ok_or_else(|| "no grant allows it".into())
}

hookline::authorize!(|input| match decide(input) {
    Ok(()) => Authorize::Allow(None),
    Err(why) => Authorize::Deny(Some(why)),
});
