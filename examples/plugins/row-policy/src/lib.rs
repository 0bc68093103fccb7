//! row-policy: each tenant reads its own rows only.
//!
//! A `rewrite` hook. In a SELECT, every configured table is replaced by its rows of the tenant that asks:
//!
//! ```sql
//! SELECT o.id FROM orders o WHERE o.total > 9
//! SELECT o.id FROM (SELECT * FROM orders WHERE tenant_id = 'acme') o WHERE o.total > 9
//! ```
//!
//! Putting the condition around the table, and not into the query's own WHERE, is right whatever the query
//! does with OR, joins and subqueries. What cannot be limited this way is blocked: any other statement that
//! names such a table, a query of no tenant, a table that only the proxy sees (behind a view).
//!
//! It cannot see into functions and prepared statements. PostgreSQL's own row security does; this is for
//! where you cannot turn that on.

mod policy;
mod sql;

use hookline::json::{self, Value};
use policy::{Outcome, Policy};

fn strings(value: Option<&Value>) -> Vec<String> {
    value.map_or_else(Vec::new, |list| list.items().iter().filter_map(Value::text).map(str::to_owned).collect())
}

fn decide(input: &Value) -> Outcome {
    let config = hookline::config();
    let attribute = |name| input.get("hook_context")?.get("attributes")?.get(name)?.text();
    let query = input.get("query").and_then(Value::text).expect("the input has a query");
    let exempt = strings(config.get("unless_role"));
    if attribute("identity.roles").unwrap_or("").split(',').any(|role| exempt.iter().any(|e| e == role.trim())) {
        return Outcome::Continue;
    }
    let policy = Policy {
        tables: config.get("tables").map_or(&[], Value::members),
        tenant: attribute("tenant_id").filter(|tenant| !tenant.is_empty()),
    };
    policy.apply(query, &strings(input.get("tables")))
}

/// The hook. A panic, as on an input that is not JSON, is a trap: the resource's failurePolicy decides.
fn rewrite(input: &str) -> String {
    let input = json::parse(input).expect("the input is JSON");
    match decide(&input) {
        Outcome::Continue => json::object(&[("action", "continue")]),
        Outcome::Rewrite(query) => json::object(&[("action", "rewrite"), ("value", &query)]),
        Outcome::Block(why) => json::object(&[("action", "block"), ("value", &why)]),
    }
}
hookline::hook!(rewrite, rewrite);
