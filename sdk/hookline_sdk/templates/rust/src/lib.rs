//! my-plugin: only some roles may read some tables.

use hookline::{PreQuery, QueryInput};

hookline::pre_query!(decide);

fn decide(input: &QueryInput) -> PreQuery {
    let config = hookline::config();
    let is_limited = |table: &str| config.texts("tables").any(|each| each.eq_ignore_ascii_case(table));
    match input.tables.iter().find(|table| is_limited(table)) {
        Some(table) if !config.texts("roles").any(|role| input.has_role(role)) => {
            PreQuery::block(format!("{} is not for you", table))
        }
        _ => PreQuery::Continue,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hookline::testing::Host;

    fn ask(table: &str, roles: &str) -> PreQuery {
        let _host = Host::new().config(r#"{"tables": ["salaries"], "roles": ["hr"]}"#);
        let mut input = QueryInput { query: "SELECT 1".into(), tables: vec![table.into()], ..Default::default() };
        input.hook_context.attributes = [("identity.roles", roles)].into();
        decide(&input)
    }

    #[test]
    fn a_limited_table_is_for_its_roles() {
        assert_eq!(ask("salaries", "app"), PreQuery::block("salaries is not for you"));
        assert_eq!(ask("salaries", "app, hr"), PreQuery::Continue);
    }

    #[test]
    fn other_tables_are_for_all() {
        assert_eq!(ask("orders", ""), PreQuery::Continue);
    }

    #[test]
    #[should_panic(expected = "config.read")]
    fn without_its_settings_it_fails() {
        let _host = Host::new().permissions(&[]);
        decide(&QueryInput::default());
    }
}
