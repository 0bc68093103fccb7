//! Inputs are read as the contract has them, or refused with the reason.

use hookline::*;

const QUERY: &str = r#"{"query":"select \"a\"","normalized":"n","tables":["a","b\u00e9"],"is_read_only":true,"new":[{"x":[1,"]"]}],
    "hook_context":{"request_id":"r","client_id":null,"identity":"alice","database":"shop","branch":null,
    "attributes":{"tenant_id":"acme","identity.roles":"app, hr"}}}"#;

#[test]
fn a_query_is_read_with_all_that_it_says() {
    let input: QueryInput = read(QUERY).unwrap();
    assert_eq!(input.query, "select \"a\"");
    assert_eq!(input.tables, ["a", "bé"]);
    assert!(input.is_read_only);
    assert_eq!(input.hook_context.client_id, None);
    assert_eq!(input.hook_context.identity.as_deref(), Some("alice"));
    assert_eq!(input.attribute("tenant_id"), Some("acme"));
    assert_eq!(input.attribute("region"), None);
    assert!(input.has_role("hr") && !input.has_role("h"));
}

#[test]
fn what_is_not_escaped_is_not_copied() {
    let input: QueryInput = read(QUERY).unwrap();
    assert!(matches!(input.normalized, std::borrow::Cow::Borrowed("n")));
}

#[test]
fn what_may_be_left_out_is_empty() {
    let input: QueryInput = read(r#" {"query":"q","normalized":null} "#).unwrap();
    assert_eq!(input, QueryInput { query: "q".into(), ..Default::default() });
}

#[test]
fn a_malformed_input_is_refused_with_the_reason() {
    let refused = |text| read::<QueryInput>(text).unwrap_err().to_string();
    assert_eq!(refused("{}"), "the input is malformed: query is missing (at byte 2)");
    assert_eq!(refused(r#"{"query":null}"#), "the input is malformed: query is missing (at byte 14)");
    assert_eq!(refused(r#"{"query":7}"#), "the input is malformed: query is no text (at byte 9)");
    assert_eq!(refused(r#"{"query":"q","tables":{}}"#), "the input is malformed: tables is no list (at byte 22)");
    assert_eq!(refused(r#"{"query":"q"} x"#), "the input is malformed: there is something behind it (at byte 14)");
    for text in ["", "null", "[]", "{", r#"{"query""#, r#"{"query":"q",}"#, r#"{"query":"q" "tables":[]}"#, r#"{"x":[1,],"query":"q"}"#,
        r#"{"query":"\ud800"}"#, "{\"query\":\"\u{1}\"}", r#"{"query":"q","is_read_only":"true"}"#,
        r#"{"query":"q","hook_context":{"attributes":{"a":1}}}"#]
    {
        assert!(read::<QueryInput>(text).is_err(), "{}", text);
    }
}

#[test]
fn nothing_is_nested_deeper_than_it_can_be_read() {
    let deep = |levels| format!(r#"{{"query":"q","x":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
    assert!(read::<QueryInput>(&deep(50)).is_ok());
    assert!(read::<QueryInput>(&deep(100_000)).is_err());
    let event = |levels| format!(r#"{{"event":{}{}}}"#, "[".repeat(levels), "]".repeat(levels));
    assert!(read::<EventInput>(&event(100_000)).is_err());
}

#[test]
fn every_hook_has_its_input() {
    let text = r#"{"headers":{"x-a":"1"},"username":"u","password":null,"client_ip":"::1","database":"d"}"#;
    assert_eq!(read::<AuthenticateInput>(text).unwrap().headers.get("x-a"), Some("1"));
    let text = r#"{"query":"","identity":{"user_id":"1","username":"u","roles":["a"],"claims":{"k":[1]}},"action":"GET","resource":"/a"}"#;
    let identity = read::<AuthorizeInput>(text).unwrap().identity.unwrap();
    assert_eq!((&*identity.user_id, &identity.claims.to_string()[..]), ("1", r#"{"k":[1]}"#));
    assert!(read::<AuthorizeInput>(r#"{"query":"","identity":{"user_id":"1"}}"#).is_err());
    assert_eq!(read::<CacheGetInput>(r#"{"query":"q","key":"k"}"#).unwrap().key, "k");
    let input = read::<CacheSetInput>(r#"{"query":"q","key":"k","value":"aGk=","ttl_ms":5}"#).unwrap();
    assert_eq!((base64::decode(&input.value), input.ttl_ms), (Some(b"hi".to_vec()), Some(5)));
    assert_eq!(read::<EventInput>(r#"{"event":{"kind":"x"}}"#).unwrap().event.get("kind"), Some(&"x".into()));
}

#[test]
fn a_statement_comes_with_how_it_went() {
    let seen = |text: &str| std::panic::catch_unwind(|| ask_post_query(text, |input: &QueryInput, outcome: &Outcome| {
        assert_eq!((&*input.query, outcome.success, outcome.elapsed_us, outcome.error.as_deref()), ("q", false, 7, Some("e")));
    }));
    assert_eq!(seen(r#"[{"query":"q"},{"success":false,"elapsed_us":7,"error":"e"}]"#).unwrap(), "");
    for text in [r#"{"query":"q"}"#, r#"[{"query":"q"}]"#, r#"[{"query":"q"},{}]"#, r#"[{"query":"q"},{"success":true},1]"#] {
        assert!(seen(text).is_err(), "{}", text);
    }
}
