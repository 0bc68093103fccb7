//! salary-guard: some columns and tables are for some roles alone.
//!
//! A query that names one of them anywhere but in a string or a comment is blocked, unless who asks has one of the roles
//! in `identity.roles`. So is one that cannot be read.
//!
//! It reads names, and knows no schema: `SELECT *` and `SELECT t FROM t` name no column. Put a table whose every row
//! tells too much into `tables`; the names that the proxy found in the query count, too, so that a view hides nothing
//! that the proxy sees through. A label is a name like any other: `1 AS salary` is blocked.

use hookline::json::Value;
use hookline::sql::{self, Kind};
use hookline::{PreQuery, QueryInput};

hookline::pre_query!(decide);

fn decide(input: &QueryInput) -> PreQuery {
    let config = hookline::config();
    if config.texts("roles").any(|role| input.has_role(role)) {
        return PreQuery::Continue;
    }
    match problem(input, &config) {
        None => PreQuery::Continue,
        Some(why) => {
            hookline::count("blocked_total");
            PreQuery::Block(why)
        }
    }
}

/// Why the query is blocked; None where it is not.
fn problem(input: &QueryInput, config: &Value) -> Option<String> {
    let limited = |setting, name: &str| config.texts(setting).any(|each| each.eq_ignore_ascii_case(name));
    if let Some(table) = input.tables.iter().find(|table| limited("tables", last(table))) {
        return Some(format!("the table {} is not for you", last(table)));
    }
    let tokens = match sql::tokens(&input.query) {
        Ok(tokens) => tokens,
        Err(why) => return Some(why.into()),
    };
    for token in tokens {
        let name = match token.kind {
            Kind::Word => token.text,
            Kind::Quoted => token.text.trim_matches('"'),
            Kind::Opaque => return Some("an identifier in U& form hides its name".into()),
            _ => continue,
        };
        for (setting, what) in [("columns", "column"), ("tables", "table")] {
            if limited(setting, name) {
                return Some(format!("the {} {} is not for you", what, name));
            }
        }
    }
    None
}

/// Of schema.table, the table.
fn last(table: &str) -> &str {
    table.rsplit('.').next().unwrap_or(table).trim_matches('"')
}

#[cfg(test)]
mod tests {
    use super::*;
    use hookline::testing::Host;

    const CONFIG: &str = r#"{"columns": ["salary"], "tables": ["salaries"], "roles": ["hr"]}"#;

    fn asked(query: &str, roles: &str) -> PreQuery {
        let mut input = QueryInput { query: query.into(), ..Default::default() };
        input.hook_context.attributes = [("identity.roles", roles)].into();
        decide(&input)
    }

    #[test]
    fn a_query_that_names_the_column_is_blocked_and_counted() {
        let host = Host::new().config(CONFIG);
        assert_eq!(asked("SELECT e.Salary FROM e", "app"), PreQuery::block("the column Salary is not for you"));
        assert_eq!(host.metric("blocked_total"), 1.0);
    }

    #[test]
    fn who_has_the_role_is_not_asked_why() {
        let host = Host::new().config(CONFIG);
        assert_eq!(asked("SELECT salary FROM e", "app, hr"), PreQuery::Continue);
        assert_eq!(host.metric("blocked_total"), 0.0);
    }

    #[test]
    fn strings_and_comments_name_nothing() {
        let _host = Host::new().config(CONFIG);
        for query in ["SELECT 'salary'", "SELECT 1 -- salary", "SELECT /* salary */ 1", "SELECT $$salary$$", "SELECT salary_of"] {
            assert_eq!(asked(query, ""), PreQuery::Continue, "{}", query);
        }
    }

    #[test]
    fn what_cannot_be_read_is_blocked() {
        let _host = Host::new().config(CONFIG);
        for query in ["SELECT 'x", "SELECT \"x", "SELECT U&\"s\\0061lary\""] {
            assert!(matches!(asked(query, ""), PreQuery::Block(_)), "{}", query);
        }
    }

    #[test]
    fn a_table_that_the_proxy_sees_behind_a_view_is_blocked() {
        let _host = Host::new().config(CONFIG);
        let input = QueryInput { query: "SELECT * FROM v".into(), tables: vec!["hr.salaries".into()], ..Default::default() };
        assert_eq!(decide(&input), PreQuery::block("the table salaries is not for you"));
    }
}
