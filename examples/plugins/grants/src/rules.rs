//! What a grant covers, and how grants are kept in the cache.

use hookline::json::{self, Value};

pub struct Grant {
    action: String,
    resource: String,
    effect: String,
}

impl Grant {
    /// Of a row; None where one of the three is missing.
    pub fn of(row: &[Value]) -> Option<Grant> {
        match row {
            [Value::Text(action), Value::Text(resource), Value::Text(effect)] => {
                Some(Grant { action: action.clone(), resource: resource.clone(), effect: effect.clone() })
            }
            _ => None,
        }
    }

    /// Whatever is not `allow` forbids.
    pub fn allows(&self) -> bool {
        self.effect == "allow"
    }

    pub fn covers(&self, action: &str, resource: &str) -> bool {
        (self.action == "*" || self.action.eq_ignore_ascii_case(action)) && is_below(&self.resource, resource)
    }
}

/// A prefix has whole parts only: "/reports" has "/reports/1" and not "/reports-of-others"; "sales" has the table
/// "sales.orders". One that ends with a separator, and the empty one, have all behind it.
fn is_below(prefix: &str, resource: &str) -> bool {
    match resource.strip_prefix(prefix) {
        None => false,
        Some(rest) => {
            let ends = |text: &str| text.is_empty() || text.ends_with(|c| c == '/' || c == '.');
            ends(prefix) || rest.is_empty() || rest.starts_with(|c| c == '/' || c == '.' || c == '?')
        }
    }
}

/// A path that a server may read as another one: dot segments, empty ones, backslashes, encoded characters.
pub fn is_ambiguous(resource: &str) -> bool {
    let path = resource.split('?').next().unwrap_or("");
    path.starts_with('/')
        && (path.contains(|c| c == '\\' || c == '%')
            || path.contains("//")
            || path.split('/').any(|part| part == "." || part == ".."))
}

pub fn read(text: &[u8]) -> Option<Vec<Grant>> {
    let list = json::parse(std::str::from_utf8(text).ok()?)?;
    list.items().iter().map(|row| Grant::of(row.items())).collect()
}

pub fn write(grants: &[Grant]) -> String {
    let rows: Vec<String> = grants
        .iter()
        .map(|each| [&each.action, &each.resource, &each.effect].map(|text| json::quoted(text)).join(","))
        .map(|row| format!("[{}]", row))
        .collect();
    format!("[{}]", rows.join(","))
}
