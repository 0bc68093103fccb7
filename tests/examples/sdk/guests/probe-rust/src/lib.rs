//! Calls the host function that its input names, with the arguments behind it (all apart by U+001F), and answers in
//! a JSON string what the SDK made of it.

use hookline::json::Value;
use hookline::{Column, Error, Failure, Level, Params, Request, Response};

fn error(error: Error) -> String {
    format!("error|{}", error.code())
}

fn done(result: Result<(), Error>) -> String {
    result.map_or_else(error, |()| "ok".into())
}

fn text(bytes: Vec<u8>) -> String {
    format!("some|{}", String::from_utf8(bytes).unwrap())
}

fn bytes(result: Result<Option<Vec<u8>>, Error>) -> String {
    result.map_or_else(error, |found| found.map_or("none".into(), text))
}

fn yes(result: Result<bool, Error>) -> String {
    result.map_or_else(error, |found| found.to_string())
}

fn failure(failure: Failure) -> String {
    format!("failure|{}|{}|{}", failure.cause, failure.message, failure.sqlstate.unwrap_or_default())
}

fn response(result: Result<Response, Failure>) -> String {
    result.map_or_else(failure, |found| {
        let kind = found.header("content-type").unwrap_or("");
        format!("{}|{}|{}|{}", found.status, kind, String::from_utf8(found.body.clone()).unwrap(), found.from_cache)
    })
}

fn names(columns: &[Column]) -> String {
    columns.iter().map(|each| each.name.clone()).collect::<Vec<_>>().join(",")
}

fn parameters(arguments: &[&str]) -> Params {
    arguments.iter().fold(Params::new(), |params, each| match each.split_at(1) {
        ("n", _) => params.null(),
        ("b", value) => params.bool(value == "true"),
        ("i", value) => params.int(value.parse().unwrap()),
        ("t", value) => params.text(value),
        (_, value) => params.bytes(value.as_bytes()),
    })
}

fn fetch(arguments: &[&str]) -> String {
    let mut request = Request::new(arguments[0], arguments[1]);
    if !arguments[2].is_empty() {
        request = request.header(arguments[2], arguments[3]);
    }
    if !arguments[4].is_empty() {
        request = request.body(arguments[4].as_bytes());
    }
    match arguments[5].parse().unwrap() {
        0 => {}
        timeout => request = request.timeout_ms(timeout),
    }
    response(hookline::http_fetch(&request))
}

fn execute(a: &[&str]) -> String {
    hookline::query_execute(a[0], a[1], parameters(&a[2..])).map_or_else(failure, |found| {
        let kinds: Vec<_> = found.columns.iter().map(|each| each.kind.clone()).collect();
        let row = |row: &Vec<Value>| row.iter().map(|each| each.text().unwrap_or("").into()).collect::<Vec<String>>();
        let rows: String = found.rows.iter().map(|each| row(each).join(",") + ";").collect();
        format!("{}|{}|{}|{}", found.row_count, names(&found.columns), kinds.join(","), rows)
    })
}

fn quoted(input: &str) -> String {
    hookline::json::quoted(&call(input))
}
hookline::hook!(custom_hook, quoted);

fn call(input: &str) -> String {
    let fields: Vec<&str> = input.split('\u{1f}').collect();
    let a = &fields[1..];
    let at = |index: usize| a[index].as_bytes();
    let number = |index: usize| a[index].parse::<i64>().unwrap();
    let real = |index: usize| number(index) as f64 / 4.0;
    match fields[0] {
        "log" => {
            let levels = [Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Error];
            hookline::log(levels[number(0) as usize], a[1]);
            "ok".into()
        }
        "get_time" => hookline::get_time().to_string(),
        "random" => {
            let mut out = vec![0; number(0) as usize];
            let result = hookline::random(&mut out);
            bytes(result.map(|()| Some(out)))
        }
        "get_config" => bytes(hookline::get_config(a[0]).map(|found| found.map(String::into_bytes))),
        "metric_inc" => done(hookline::metric_inc(a[0], real(1))),
        "metric_gauge" => done(hookline::metric_gauge(a[0], real(1))),
        "metric_observe" => done(hookline::metric_observe(a[0], real(1))),
        "sha256_hex" => hookline::sha256_hex(at(0)).map_or_else(error, |hex| format!("some|{}", hex)),
        "hmac_sha256" => hookline::hmac_sha256(at(0), at(1)).map_or_else(error, |mac| text(mac.to_vec())),
        "kv_get" => bytes(Ok(hookline::kv_get(at(0)))),
        "kv_set" => done(hookline::kv_set(at(0), at(1))),
        "kv_delete" => done(hookline::kv_delete(at(0))),
        "kv_list" => hookline::kv_list(a[0]).map_or_else(error, |keys| keys.join(",")),
        "kv_incr" => hookline::kv_incr(at(0), number(1)).map_or_else(error, |sum| sum.to_string()),
        "kv_compare_and_set" => {
            let was = if a[1] == "-" { None } else { Some(at(1)) };
            yes(hookline::kv_compare_and_set(at(0), was, at(2)))
        }
        "kv_set_ttl" => yes(hookline::kv_set_ttl(at(0), number(1))),
        "cache_get" => bytes(hookline::cache_get(a[0], at(1))),
        "cache_exists" => yes(hookline::cache_exists(a[0], at(1))),
        "cache_set" => done(hookline::cache_set(a[0], at(1), at(2), number(3))),
        "cache_delete" => yes(hookline::cache_delete(a[0], at(1))),
        "query_execute" => execute(a),
        "query_prepare" => hookline::query_prepare(a[0], a[1])
            .map_or_else(failure, |found| format!("{}|{}", found.parameters.join(","), names(&found.columns))),
        "query_get_tables" => hookline::query_get_tables(a[0]).map_or_else(failure, |tables| tables.join(",")),
        "query_normalize" => hookline::query_normalize(a[0]).unwrap_or_else(failure),
        "http_fetch" => fetch(a),
        "http_post" => response(hookline::http_post(a[0], a[1], at(2))),
        other => panic!("there is no function {}", other),
    }
}
