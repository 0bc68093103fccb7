//! The host for tests does what docs/host-functions.md says, in memory.

use hookline::testing::Host;
use hookline::*;

#[test]
fn keys_are_kept_and_counted_and_go_with_their_time() {
    let host = Host::new().key("a", "1").time(1000);
    assert_eq!(kv_get(b"a"), Some(b"1".to_vec()));
    assert_eq!(kv_incr(b"a", 41), Ok(42));
    assert_eq!(kv_set(b"b", b"x"), Ok(()));
    assert_eq!(kv_incr(b"b", 1), Err(Error::Unavailable));
    assert_eq!(kv_compare_and_set(b"c", None, b"y"), Ok(true));
    assert_eq!(kv_compare_and_set(b"c", None, b"z"), Ok(false));
    assert_eq!(kv_compare_and_set(b"c", Some(b"y"), b"z"), Ok(true));
    assert_eq!(kv_list(""), Ok(vec!["a".into(), "b".into(), "c".into()]));
    assert_eq!(kv_set_ttl(b"c", 10), Ok(true));
    host.pass(9);
    assert_eq!(host.value("c").as_deref(), Some("z"));
    host.pass(1);
    assert_eq!((get_time(), host.value("c")), (1010, None));
    assert_eq!(kv_set_ttl(b"c", 10), Ok(false));
    assert_eq!((kv_delete(b"a"), kv_get(b"a")), (Ok(()), None));
    assert_eq!(kv_set(b"a", &[0; KV_MAX + 1]), Err(Error::Memory));
}

#[test]
fn there_are_no_more_keys_than_a_plugin_may_have() {
    let _host = Host::new();
    assert!((0..1024).all(|i: i32| kv_set(i.to_string().as_bytes(), b"").is_ok()));
    assert_eq!(kv_set(b"one more", b""), Err(Error::Memory));
    assert_eq!(kv_compare_and_set(b"one more", None, b""), Err(Error::Cap));
}

#[test]
fn what_is_not_granted_is_denied() {
    let host = Host::new().permissions(&["metrics"]).key("a", "1");
    assert_eq!(get_config(""), Err(Error::Denied));
    assert_eq!((kv_get(b"a"), kv_set(b"a", b"2")), (None, Err(Error::Memory)));
    assert_eq!(kv_list(""), Err(Error::Denied));
    assert_eq!(cache_get("", b"a"), Err(Error::Denied));
    assert_eq!(hmac_sha256(b"", b""), Err(Error::Denied));
    assert_eq!(query_normalize("q").unwrap_err().cause, "denied");
    assert!(std::panic::catch_unwind(config).is_err());
    count("n");
    assert_eq!(host.metric("n"), 1.0);
}

#[test]
fn settings_are_those_of_the_test() {
    let _host = Host::new().config(r#"{"a": {"b": [1, "x"]}}"#);
    assert_eq!(get_config("a.b"), Ok(Some(r#"[1,"x"]"#.into())));
    assert_eq!(get_config("a.c"), Ok(None));
    assert_eq!(config().get("a").unwrap().texts("b").collect::<Vec<_>>(), ["x"]);
}

#[test]
fn caches_are_apart() {
    let host = Host::new();
    cache_set("one", b"k", b"v", 5).unwrap();
    assert_eq!((cache_get("one", b"k"), cache_get("two", b"k")), (Ok(Some(b"v".to_vec())), Ok(None)));
    assert_eq!((cache_exists("one", b"k"), cache_delete("two", b"k")), (Ok(true), Ok(false)));
    host.pass(5);
    assert_eq!(cache_exists("one", b"k"), Ok(false));
    assert_eq!(cache_set("one", b"k", b"v", -1), Err(Error::Argument));
}

#[test]
fn hashes_are_those_of_the_standards() {
    // FIPS 180-4's "abc" and a text of two blocks; RFC 4231, test case 2.
    assert_eq!(sha256_hex(b"abc").unwrap(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    let long = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    assert_eq!(sha256_hex(long).unwrap(), "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    let mac: String = hmac_sha256(b"Jefe", b"what do ya want for nothing?").unwrap().iter().map(|b| format!("{:02x}", b)).collect();
    assert_eq!(mac, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

#[test]
fn chance_is_the_same_in_each_run() {
    let draw = || {
        let _host = Host::new();
        let mut out = [0; 16];
        random(&mut out).unwrap();
        out
    };
    assert_eq!(draw(), draw());
    assert_eq!(random(&mut [0; 4097]), Err(Error::Size));
}

#[test]
fn the_test_answers_for_databases_and_servers() {
    let _host = Host::new()
        .answers("query_execute", |question| match question {
            ["grants", _, r#"["alice"]"#] => Some(r#"{"columns":[{"name":"n","type":"text"}],"rows":[["hr"]],"rowCount":1}"#.into()),
            _ => None,
        })
        .answer("http_fetch", r#"{"status":404,"headers":{},"body":"none","fromCache":false}"#);
    let rows = query_execute("grants", "select 1", Params::new().text("alice")).unwrap();
    assert_eq!(rows.rows[0][0].text(), Some("hr"));
    let failure = query_execute("grants", "select 1", Params::new().text("bob")).unwrap_err();
    assert_eq!(failure.cause, "unavailable");
    assert_eq!(http_fetch(&Request::new("GET", "https://a/")).unwrap().status, 404);
    assert!(http_post("https://a/", "", b"").is_err());
}

#[test]
fn the_log_is_kept_in_order() {
    let host = Host::new();
    log(Level::Info, "a");
    log(Level::Warn, "b");
    assert_eq!(host.log(), [(Level::Info, "a".into()), (Level::Warn, "b".into())]);
}
