//! The Zig SDK, compiled for the machine, on the host of hookline.testing.

const std = @import("std");
const hookline = @import("hookline");

const expect = std.testing.expect;
const same = std.testing.expectEqualStrings;

fn again(in: hookline.QueryInput) hookline.PreQueryAnswer {
    return .{ .rewrite = in.query };
}

fn route(in: hookline.QueryInput) !hookline.RouteAnswer {
    if (in.is_read_only) return .standby;
    if (in.query.len == 0) return .{ .block = "no" };
    return if (hookline.hasRole(in.hook_context, "b")) .{ .node = in.tables[0] } else error.NoRole;
}

fn authenticate(in: hookline.AuthenticateInput) hookline.AuthenticateAnswer {
    const password = in.password orelse return .@"defer";
    if (!std.mem.eql(u8, password, in.headers.get("x") orelse "")) return .{ .denied = "no" };
    return .{ .success = .{ .user_id = "1", .username = in.username, .roles = &.{"a"} } };
}

fn authorize(in: hookline.AuthorizeInput) hookline.AuthorizeAnswer {
    const identity = in.identity orelse return .{ .deny = .{} };
    return .{ .allow = .{ .reason = identity.roles[0] } };
}

fn cacheGet(in: hookline.CacheGetInput) hookline.CacheGetAnswer {
    return if (in.key.len > 0) .{ .hit = .{ .data = in.key, .ttl_ms = 7 } } else .miss;
}

fn cacheSet(in: hookline.CacheSetInput) hookline.CacheSetAnswer {
    return .{ .store = .{ .ttl_ms = in.ttl_ms } };
}

fn postQuery(in: hookline.QueryInput, how: hookline.Outcome) void {
    hookline.count(if (how.success) "ok" else "failed");
    hookline.log(.info, how.@"error" orelse in.query);
}

fn connected(in: hookline.EventInput) void {
    hookline.log(.info, in.event.object.get("n").?.number_string);
}

fn custom(in: hookline.Value) ?hookline.Value {
    return if (in == .null) null else in;
}

fn answers(comptime which: hookline.Hook, comptime function: anytype, input: []const u8, answer: []const u8) !void {
    _ = hookline.testing.begin();
    try same(answer, (try hookline.call(which, function, input)).?);
}

test "text of any kind comes back as it was" {
    try answers(.pre_query, again, "{\"query\": \"a\\\"\\\\\\n\\t\\u0001\\u00e9\\ud83d\\ude00\", \"new\": [1, {\"a\": -1.5e3}]}",
        \\{"action":"rewrite","value":"a\"\\\n\u0009\u0001é😀"}
    );
}

test "an input that is not what the contract says fails the call" {
    const malformed = [_][]const u8{
        "",                                                                   "null",
        "[]",                                                                 "{}",
        "{\"query\": null}",                                                  "{\"query\": 1}",
        "{\"query\": [97]}",                                                  "{\"QUERY\": \"a\"}",
        "{\"query\": \"a\"} x",                                               "{\"query\": \"a\", \"tables\": [1]}",
        "{\"query\": \"a\", \"is_read_only\": \"true\"}",                     "{\"query\": \"a\",}",
        "{\"query\": \"\\ud800\"}",                                           "{\"query\": \"\xff\"}",
        "{\"query\": \"a\nb\"}",                                              "{\"query\": \"a\", \"hook_context\": []}",
        "{\"query\": \"a\", \"hook_context\": {\"attributes\": {\"a\": 1}}}", "{\"query\": \"a\", \"x\": 01}",
        "{\"query\": \"a\", \"x\": " ++ "[" ** 100 ++ "]" ** 100 ++ "}",      "{\"query\": \"a",
    };
    for (malformed) |input| {
        const host = hookline.testing.begin();
        try std.testing.expectError(error.CallFailed, hookline.call(.pre_query, again, input));
        try expect(host.logged("the input is not what the contract says"));
    }
}

test "every hook reads its input and writes its answers" {
    try answers(.route, route, "{\"query\": \"\", \"is_read_only\": true}", "{\"action\":\"standby\"}");
    try answers(.route, route, "{\"query\": \"\", \"hook_context\": null}", "{\"action\":\"block\",\"reason\":\"no\"}");
    try answers(.route, route,
        \\{"query": "q", "tables": ["n1"], "hook_context": {"attributes": {"identity.roles": "a, b"}}}
    , "{\"action\":\"node\",\"target\":\"n1\"}");
    try answers(.authenticate, authenticate, "{\"password\": null}", "{\"action\":\"defer\"}");
    try answers(.authenticate, authenticate, "{\"password\": \"p\"}", "{\"action\":\"denied\",\"message\":\"no\"}");
    try answers(.authenticate, authenticate, "{\"username\": \"u\", \"password\": \"p\", \"headers\": {\"x\": \"p\"}}",
        \\{"action":"success","identity":{"user_id":"1","username":"u","roles":["a"],"claims":null}}
    );
    try answers(.authorize, authorize, "{\"query\": \"\"}", "{\"action\":\"deny\"}");
    try answers(.authorize, authorize,
        \\{"query": "", "identity": {"user_id": "1", "username": "u", "roles": ["r"], "claims": {"n": [1, 2.5]}}}
    , "{\"action\":\"allow\",\"reason\":\"r\"}");
    try answers(.cache_get, cacheGet, "{\"query\": \"\", \"key\": \"k\"}", "{\"action\":\"hit\",\"data_base64\":\"aw==\",\"ttl_ms\":7}");
    try answers(.cache_set, cacheSet, "{\"query\": \"\", \"key\": \"\", \"value\": \"\", \"ttl_ms\": 60.0}", "{\"action\":\"store\",\"ttl_ms\":60}");
    try answers(.cache_set, cacheSet, "{\"query\": \"\", \"key\": \"\", \"value\": \"\"}", "{\"action\":\"store\"}");
    try answers(.custom_hook, custom, " [1, {\"a\": \"b\"}] ", "[1,{\"a\":\"b\"}]");
    try expect(try hookline.call(.custom_hook, custom, "null") == null);
}

test "observing hooks answer nothing" {
    const host = hookline.testing.begin();
    try expect(try hookline.call(.post_query, postQuery, "[{\"query\": \"q\"}, {\"success\": false, \"error\": \"why\"}]") == null);
    try expect(host.metrics.get("failed").? == 1 and host.logged("why"));
    try expect(try hookline.call(.on_connect, connected, "{\"event\": {\"n\": 123456789012345678901234}}") == null);
    try expect(host.logged("123456789012345678901234"));
    for ([_][]const u8{ "[{\"query\": \"q\"}]", "[{\"query\": \"q\"}, {\"success\": null}]", "[{\"query\": \"q\"}, {\"success\": true}, 1]" }) |input| {
        try std.testing.expectError(error.CallFailed, hookline.call(.post_query, postQuery, input));
    }
}

test "an error that a hook returns fails the call, and is named" {
    const host = hookline.testing.begin();
    try std.testing.expectError(error.CallFailed, hookline.call(.route, route, "{\"query\": \"q\"}"));
    try expect(host.logged("the hook failed: NoRole"));
}

test "keys are those of any host" {
    const host = hookline.testing.begin();
    try expect(try hookline.kvIncr("n", 5) == 5);
    try same("5", hookline.kvGet("n").?);
    try expect(try hookline.kvCompareAndSet("n", "5", "x"));
    try expect(!try hookline.kvCompareAndSet("n", null, "y"));
    try std.testing.expectError(error.Unavailable, hookline.kvIncr("n", 1));
    try hookline.kvSet("a", "");
    const keys = try hookline.kvList("");
    try expect(keys.len == 2 and keys[0][0] == 'a');
    try hookline.kvDelete("a");
    try expect(hookline.kvGet("a") == null and try hookline.kvSetTtl("n", 5));
    host.denied = &.{"kv.write"};
    try std.testing.expectError(error.Memory, hookline.kvSet("a", ""));
    try std.testing.expectError(error.Denied, hookline.kvSetTtl("n", 5));
}

test "settings, hashes and caches" {
    const host = hookline.testing.begin();
    host.config = "{\"a\": {\"b\": [7]}, \"c\": \"d\"}";
    try same("[7]", (try hookline.getConfig("a.b")).?);
    try expect(try hookline.getConfig("a.c") == null);
    try same("d", hookline.config(struct { c: []const u8, e: i64 = 1 }).c);
    try same("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", &try hookline.sha256Hex("abc"));
    const mac = try hookline.hmacSha256("Jefe", "what do ya want for nothing?"); // RFC 4231, test case 2
    try same("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843", &std.fmt.bytesToHex(mac, .lower));
    try hookline.cacheSet("", "k", "v", 0);
    try same("v", (try hookline.cacheGet("", "k")).?);
    try expect(try hookline.cacheDelete("", "k") and !try hookline.cacheExists("", "k"));
    try expect(hookline.getTime() == host.now);
}

test "what a database and a server say is the test's" {
    const host = hookline.testing.begin();
    try same("failed", hookline.queryNormalize("select 1").failed.cause);
    host.answer("query_execute", "{\"columns\": [{\"name\": \"role\", \"type\": \"text\"}], \"rows\": [[\"reader\"]], \"rowCount\": 1}");
    const rows = try hookline.queryExecute("s", "select role", &.{.{ .text = "alice" }}).get();
    try same("reader", rows.rows[0][0].string);
    host.answer("http_fetch", "{\"status\": 200, \"headers\": {\"a\": \"b\"}, \"bodyBase64\": \"aGVsbG8=\", \"fromCache\": true}");
    const response = try hookline.httpFetch(.{ .url = "https://a/" }).get();
    try same("hello", response.body);
    try same("b", response.headers.get("a").?);
    host.answer("query_prepare", "{\"error\": {\"cause\": \"failed\", \"message\": \"no such table\", \"sqlstate\": \"42P01\"}}");
    try std.testing.expectError(error.Failed, hookline.queryPrepare("s", "select 1").get());
    try expect(host.logged("no such table"));
}
