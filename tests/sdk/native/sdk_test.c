// The C SDK, compiled for the machine with the checks for undefined behaviour, on the host of hookline_test.h.

#include "hookline_test.h"

static hl_query_input seen;

HL_PRE_QUERY(in) {
    hl_str tenant = hl_in(in->hook_context.attributes, "tenant_id");
    if (hl_equal(in->query, HL("panic"))) HL_PANIC("it was asked to");
    HL_MUST(in->query.len < 60000);
    if (in->normalized.len) return hl_cached(in->query);
    return hl_equal(tenant, HL("acme")) ? hl_block(HL("not \"acme\"\n")) : hl_rewrite(in->query);
}
HL_REWRITE(in) { return in->query.len ? hl_rewrite(in->query) : hl_continue(); }
HL_ROUTE(in) {
    seen = *in;
    return in->is_read_only ? hl_standby() : hl_equal(in->query, HL("")) ? hl_route_block(HL("no")) : hl_node(HL("n1"));
}
HL_AUTHENTICATE(in) {
    if (!in->password.at) return hl_defer();
    if (!hl_equal(in->password, hl_in(in->headers, "x"))) return hl_denied(HL("no"));
    hl_identity who = {.user_id = HL("1"), .username = in->username, .roles = HL("[\"a\"]"), .tenant_id = HL("acme")};
    return hl_success(&who);
}
HL_AUTHORIZE(in) {
    if (!in->has_identity) return hl_deny(HL_NONE);
    return json_has(in->identity.roles, HL("admin")) ? hl_allow(in->action) : hl_deny(in->identity.username);
}
HL_CACHE_GET(in) { return in->key.len ? hl_hit(in->key, 7) : hl_miss(); }
HL_CACHE_SET(in) { return in->has_ttl_ms ? hl_store(in->ttl_ms) : hl_skip(); }
HL_POST_QUERY(in, how) {
    hl_count(how->success ? HL("ok") : HL("failed"));
    hl_log(HL_INFO, how->error.at ? how->error : in->query);
}
HL_ON_CONNECT(in) { hl_log(HL_INFO, json_find(in->event, "n")); }
HL_HOOK(custom_hook, json) { return hl_say("answered", "value", json); }

static void inputs(void) {
    static const char *const malformed[] = {
        "", "null", "[]", "{}", "{\"query\": null}", "{\"query\": 1}", "{\"QUERY\": \"a\"}", "{\"query\": \"a\"} x",
        "{\"query\": \"a\", \"tables\": [1]}", "{\"query\": \"a\", \"is_read_only\": \"no\"}", "{\"query\": \"a\",}",
        "{\"query\": \"\\ud800\"}", "{\"query\": \"\xff\"}", "{\"query\": \"a\", \"hook_context\": []}",
        "{\"query\": \"a\", \"hook_context\": {\"attributes\": {\"a\": 1}}}", "{\"query\": \"a\", \"x\": 01}",
    };
    for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++) {
        hl_test_begin();
        HL_CALL(route, malformed[i]);
        HL_EXPECT(hl_test.failed && (hl_test_logged("not what the contract says") || hl_test_logged("not valid JSON")));
    }
    HL_CALL(route, " {\"query\": \"\\u00e9\", \"tables\": [\"a\"], \"is_read_only\": true, \"new\": [{}],"
                   "\"hook_context\": {\"identity\": \"u\", \"branch\": null, \"attributes\": {\"identity.roles\": \"a, b\"}}}");
    HL_EXPECT(hl_equal(seen.query, HL("\xc3\xa9")) && seen.is_read_only && json_has(seen.tables, HL("a")));
    HL_EXPECT(hl_equal(seen.hook_context.identity, HL("u")) && !seen.hook_context.branch.at);
    HL_EXPECT(hl_has_role(&seen.hook_context, HL("b")) && !hl_has_role(&seen.hook_context, HL("c")));
}

#define IS(hook, input, json) HL_EXPECT(hl_equal(HL_CALL(hook, input), HL(json)))

static void answers(void) {
    IS(pre_query, "{\"query\": \"a\\n\\u0001\"}", "{\"action\":\"rewrite\",\"value\":\"a\\n\\u0001\"}");
    IS(pre_query, "{\"query\": \"a\", \"hook_context\": {\"attributes\": {\"tenant_id\": \"acme\"}}}",
       "{\"action\":\"block\",\"value\":\"not \\\"acme\\\"\\n\"}");
    IS(rewrite, "{\"query\": \"\"}", "{\"action\":\"continue\"}");
    IS(pre_query, "{\"query\": \"ab\", \"normalized\": \"n\"}", "{\"action\":\"cached\",\"data_base64\":\"YWI=\"}");
    IS(route, "{\"query\": \"\", \"is_read_only\": true}", "{\"action\":\"standby\"}");
    IS(route, "{\"query\": \"\"}", "{\"action\":\"block\",\"reason\":\"no\"}");
    IS(route, "{\"query\": \"a\"}", "{\"action\":\"node\",\"target\":\"n1\"}");
    IS(authenticate, "{\"username\": null, \"password\": null}", "{\"action\":\"defer\"}");
    IS(authenticate, "{\"password\": \"p\"}", "{\"action\":\"denied\",\"message\":\"no\"}");
    IS(authenticate, "{\"username\": \"u\", \"password\": \"p\", \"headers\": {\"x\": \"p\"}}",
       "{\"action\":\"success\",\"identity\":{\"user_id\":\"1\",\"username\":\"u\",\"roles\":[\"a\"],\"tenant_id\":\"acme\"}}");
    IS(authorize, "{\"query\": \"\"}", "{\"action\":\"deny\"}");
    IS(authorize, "{\"query\": \"\", \"action\": \"read\", \"identity\": {\"user_id\": \"1\", \"username\": \"u\", \"roles\": [\"admin\"]}}",
       "{\"action\":\"allow\",\"reason\":\"read\"}");
    IS(cache_get, "{\"query\": \"\", \"key\": \"k\"}", "{\"action\":\"hit\",\"data_base64\":\"aw==\",\"ttl_ms\":7}");
    IS(cache_set, "{\"query\": \"\", \"key\": \"k\", \"value\": \"\", \"ttl_ms\": 60.0}", "{\"action\":\"store\",\"ttl_ms\":60}");
    IS(cache_set, "{\"query\": \"\", \"key\": \"k\", \"value\": \"\"}", "{\"action\":\"skip\"}");
    IS(custom_hook, " [1]", "{\"action\":\"answered\",\"value\":\"[1]\"}");
    HL_CALL(post_query, "[{\"query\": \"q\"}, {\"success\": false, \"error\": \"why\"}]");
    HL_EXPECT(!hl_test.failed && hl_test_metric("failed") == 1 && hl_test_logged("why"));
    HL_CALL(post_query, "[{\"query\": \"q\"}]");
    HL_EXPECT(hl_test.failed);
    HL_CALL(on_connect, "{\"event\": {\"n\": 9007199254740993}}");
    HL_EXPECT(hl_test_logged("9007199254740993"));
    HL_CALL(pre_query, "{\"query\": \"panic\"}");
    HL_EXPECT(hl_test.failed && hl_test_logged("panic: it was asked to at ") && hl_test_logged("sdk_test.c:"));
}

static void host(void) {
    hl_test_begin();
    HL_EXPECT(hl_kv_incr(HL("n"), 5).value == 5 && hl_equal(hl_kv_get(HL("n")), HL("5")));
    HL_EXPECT(hl_kv_compare_and_set(HL("n"), HL("5"), HL("x")).value == 1);
    HL_EXPECT(hl_kv_compare_and_set(HL("n"), HL_NONE, HL("y")).value == 0);
    HL_EXPECT(hl_kv_incr(HL("n"), 1).error == HL_E_UNAVAILABLE);
    HL_EXPECT(hl_kv_set(HL("a"), HL("")) && hl_equal(hl_kv_list(HL("")).value, HL("[\"a\",\"n\"]")));
    HL_EXPECT(hl_kv_delete(HL("a")) && !hl_kv_get(HL("a")).at && hl_kv_set_ttl(HL("n"), 5).value == 1);
    hl_test_deny("kv.write");
    HL_EXPECT(!hl_kv_set(HL("a"), HL("")) && hl_kv_set_ttl(HL("n"), 5).error == HL_E_DENIED);
    hl_test_config("{\"a\": {\"b\": [7]}}");
    HL_EXPECT(hl_equal(hl_get_config(HL("a.b")).value, HL("[7]")) && !hl_get_config(HL("a.c")).value.at);
    HL_EXPECT(hl_equal(hl_sha256_hex(HL("abc")), HL("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")));
    // RFC 4231, test case 2
    hl_buf mac = {0};
    json_put_base64(&mac, hl_hmac_sha256(HL("Jefe"), HL("what do ya want for nothing?")).value);
    HL_EXPECT(hl_equal(hl_text(&mac), HL("\"W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM=\"")));
    HL_EXPECT(hl_cache_set(HL(""), HL("k"), HL("v"), 0) == HL_OK && hl_equal(hl_cache_get(HL(""), HL("k")).value, HL("v")));
    HL_EXPECT(hl_cache_delete(HL(""), HL("k")).value == 1 && hl_cache_exists(HL(""), HL("k")).value == 0);
    HL_EXPECT(hl_query_normalize(HL("select 1")).failed);
    hl_test_answer("query_normalize", "{\"sql\": \"select $1\"}");
    HL_EXPECT(hl_equal(json_text(json_get(hl_query_normalize(HL("select 1")).value, HL("sql"))), HL("select $1")));
    hl_test_answer("http_fetch", "{\"status\": 200, \"headers\": {}, \"body\": \"hello\", \"fromCache\": false}");
    hl_request request = hl_request_to(HL("GET"), HL("https://a/"));
    HL_EXPECT(hl_equal(hl_http_fetch(&request).body, HL("hello")));
}

int main(void) {
    inputs();
    answers();
    host();
    return hl_test_done();
}
