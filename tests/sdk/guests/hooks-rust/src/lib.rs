//! All twelve hooks with their types: each answers what it was asked, in another form.

use hookline::json::Value;
use hookline::*;

hookline::authenticate!(|input| match &*input.username {
    "" => Authenticate::denied("no name"),
    "?" => Authenticate::Defer,
    name => Authenticate::Success(Identity {
        user_id: input.headers.get("x-id").unwrap_or("none").to_owned().into(),
        username: name.to_owned().into(),
        roles: vec![input.password.as_deref().unwrap_or("-").to_owned().into()],
        tenant_id: input.database.as_deref().map(|name| name.to_owned().into()),
        claims: Value::from([("ip", (&*input.client_ip).into())]),
    }),
});

hookline::authorize!(|input| match &input.identity {
    None => Authorize::Deny(None),
    Some(identity) if input.action == "GET" => Authorize::allow(format!("{} {}", identity.roles.join("+"), identity.claims)),
    Some(_) if input.resource.is_empty() => Authorize::deny("nothing"),
    Some(_) => Authorize::Defer,
});

hookline::pre_query!(|input| match &*input.query {
    "block" => Ok(PreQuery::block(&*input.normalized)),
    "rewrite" => Ok(PreQuery::rewrite(input.tables.join(","))),
    "cached" => Ok(PreQuery::Cached(vec![0, 255])),
    "panic" => panic!("boom {}", input.normalized),
    "error" => Err(Error::Cap),
    _ => Ok(PreQuery::Continue),
});

hookline::rewrite!(|input| match input.attribute("t") {
    Some(text) => Rewrite::rewrite(text),
    None if input.has_role("r") => Rewrite::block("r"),
    None => Rewrite::Continue,
});

hookline::route!(|input| {
    let context = &input.hook_context;
    match &*input.query {
        "primary" => Route::Primary,
        "standby" => Route::Standby,
        "node" => Route::node(context.client_id.as_deref().unwrap_or("none")),
        "branch" => Route::branch(context.branch.as_deref().unwrap_or("none")),
        "block" => Route::block(context.identity.as_deref().unwrap_or("none")),
        _ => Route::Default,
    }
});

hookline::cache_get!(|input| match &*input.key {
    "k" => CacheGet::Hit { data: b"hi".to_vec(), ttl_ms: None },
    "t" => CacheGet::Hit { data: Vec::new(), ttl_ms: Some(5) },
    _ => CacheGet::Miss,
});

hookline::cache_set!(|input| match input.ttl_ms {
    Some(ttl) => CacheSet::Store(Some(ttl + input.value.len() as i64)),
    None if input.is_read_only => CacheSet::Skip,
    None => CacheSet::Store(None),
});

hookline::post_query!(|input, outcome| {
    let (node, error) = (outcome.target_node.as_deref().unwrap_or("-"), outcome.error.as_deref().unwrap_or("-"));
    let numbers = format!("{} {}", outcome.elapsed_us, outcome.response_bytes);
    log(Level::Info, &format!("{} {} {} {} {}", input.query, outcome.success, node, numbers, error));
});

fn seen(input: &EventInput) {
    log(Level::Info, &format!("{} {}", input.hook_context.request_id, input.event));
}
hookline::metrics!(seen);
hookline::on_connect!(seen);
hookline::on_disconnect!(seen);

hookline::custom_hook!(|input| if *input == Value::Null { None } else { Some(input.clone()) });
