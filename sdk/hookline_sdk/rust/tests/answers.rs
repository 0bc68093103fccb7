//! Answers are written as the guest ABI has them; the default is no bytes.

use hookline::json::Value;
use hookline::*;

fn pre_query(answer: PreQuery) -> String {
    ask_pre_query(r#"{"query":"q"}"#, |_| answer)
}

#[test]
fn an_answer_is_its_action_with_what_belongs_to_it() {
    assert_eq!(pre_query(PreQuery::Continue), "");
    assert_eq!(pre_query(PreQuery::block("a\"\n\u{1}\\é")), r#"{"action":"block","value":"a\"\u000a\u0001\\é"}"#);
    assert_eq!(pre_query(PreQuery::rewrite("select 1")), r#"{"action":"rewrite","value":"select 1"}"#);
    assert_eq!(pre_query(PreQuery::Cached(b"hi".to_vec())), r#"{"action":"cached","data_base64":"aGk="}"#);
}

#[test]
fn every_hook_has_its_answers() {
    let route = |answer: Route| ask_route(r#"{"query":"q"}"#, |_| answer);
    assert_eq!(route(Route::Default), "");
    assert_eq!(route(Route::Standby), r#"{"action":"standby"}"#);
    assert_eq!(route(Route::node("n")), r#"{"action":"node","target":"n"}"#);
    assert_eq!(route(Route::block("r")), r#"{"action":"block","reason":"r"}"#);
    let rewrite = |answer: Rewrite| ask_rewrite(r#"{"query":"q"}"#, |_| answer);
    assert_eq!(rewrite(Rewrite::rewrite("s")), r#"{"action":"rewrite","value":"s"}"#);
    let authorize = |answer: Authorize| ask_authorize(r#"{"query":"q"}"#, |_| answer);
    assert_eq!(authorize(Authorize::Defer), "");
    assert_eq!(authorize(Authorize::Allow(None)), r#"{"action":"allow"}"#);
    assert_eq!(authorize(Authorize::deny("r")), r#"{"action":"deny","reason":"r"}"#);
    let get = |answer: CacheGet| ask_cache_get(r#"{"query":"q","key":"k"}"#, |_| answer);
    assert_eq!(get(CacheGet::Miss), "");
    let hit = CacheGet::Hit { data: vec![0], ttl_ms: Some(5) };
    assert_eq!(get(hit), r#"{"action":"hit","data_base64":"AA==","ttl_ms":5}"#);
    let set = |answer: CacheSet| ask_cache_set(r#"{"query":"q","key":"k","value":""}"#, |_| answer);
    assert_eq!(set(CacheSet::Store(None)), "");
    assert_eq!(set(CacheSet::Store(Some(5))), r#"{"action":"store","ttl_ms":5}"#);
    assert_eq!(set(CacheSet::Skip), r#"{"action":"skip"}"#);
}

#[test]
fn an_identity_is_written_whole() {
    let identity = Identity {
        user_id: "1".into(),
        username: "u\"".into(),
        roles: vec!["a".into(), "b".into()],
        claims: Value::from([("n", 7.into()), ("list", vec![true.into(), Value::Null].into())]),
        ..Default::default()
    };
    assert_eq!(
        ask_authenticate("{}", |_| Authenticate::Success(identity)),
        r#"{"action":"success","identity":{"user_id":"1","username":"u\"","roles":["a","b"],"claims":{"n":7,"list":[true,null]}}}"#
    );
    assert_eq!(ask_authenticate("{}", |_| Authenticate::denied("no")), r#"{"action":"denied","message":"no"}"#);
}

#[test]
fn a_custom_hook_answers_any_json_or_nothing() {
    assert_eq!(ask_custom_hook("[1]", |input: &Value| Some(input.clone())), "[1]");
    assert_eq!(ask_custom_hook("[1]", |_: &Value| None), "");
}

#[test]
fn what_observes_answers_nothing() {
    for ask in [ask_metrics, ask_on_connect, ask_on_disconnect] {
        assert_eq!(ask("{}", (|_| ()) as fn(&EventInput)), "");
    }
}

#[test]
fn an_error_fails_the_call_and_the_log_says_why() {
    let host = testing::Host::new();
    let failing = || ask_pre_query(r#"{"query":"q"}"#, |_| -> Result<PreQuery, Error> { Err(Error::Cap) });
    assert!(std::panic::catch_unwind(failing).is_err());
    assert!(std::panic::catch_unwind(|| ask_pre_query("{", |_| PreQuery::Continue)).is_err());
    let lines: Vec<String> = host.log().into_iter().map(|(_, line)| line).collect();
    assert_eq!(lines, ["a cap is reached", "the input is malformed: is no JSON: a name was expected (at byte 1)"]);
}
