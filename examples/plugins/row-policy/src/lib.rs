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

use hookline::json::Value;
use hookline::{QueryInput, Rewrite};
use policy::Policy;

hookline::rewrite!(decide);

fn decide(input: &QueryInput) -> Rewrite {
    let config = hookline::config();
    if config.texts("unless_role").any(|role| input.has_role(role)) {
        return Rewrite::Continue;
    }
    let policy = Policy {
        tables: config.get("tables").map_or(&[], Value::members),
        tenant: input.attribute("tenant_id").filter(|tenant| !tenant.is_empty()),
    };
    policy.apply(&input.query, &input.tables)
}
