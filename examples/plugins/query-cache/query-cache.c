// query-cache: keeps answers to reads for a short time, in the key-value store that a pod's workers share.
//
// An entry belongs to one tenant, database and branch (and to one identity, with scope "identity"), which are
// hashed into its key: no tenant can be given another's rows. A statement without a tenant is not cached.
//
// The proxy's values are stored as the base64 text they come in, so an answer may have up to 49,140 bytes. A
// plugin may have 1024 keys; when they are used up, nothing more is stored until entries run out. Writes do not
// remove entries: choose a ttl for which an old answer is a right one.

#include "hookline.h"

enum { HEADER = 16, DEFAULT_TTL_MS = 5000 };  // the header: when the entry runs out, 15 digits, and a space

static void put_part(hl_buf *text, hl_str part) {  // with its length, so that no two lists of parts are alike
    hl_put_int(text, part.at ? (int64_t)part.len : -1);
    hl_put_char(text, ':');
    hl_put(text, part);
}

// The key of the entry; nothing where the statement must not be cached.
static hl_str entry_key(hl_str config, hl_str input) {
    hl_str tenant = hl_attribute(input, "tenant_id"), key = json_text(json_find(input, "key"));
    if (!tenant.len || !key.at || !json_true(json_find(input, "is_read_only"))) return HL_NONE;
    hl_str identity = json_text(json_find(input, "hook_context/identity"));
    bool own = hl_equal(json_text(json_find(config, "scope")), HL("identity"));
    if (own && !identity.at) return HL_NONE;
    hl_buf parts = {0};
    put_part(&parts, tenant);
    put_part(&parts, json_text(json_find(input, "hook_context/database")));
    put_part(&parts, json_text(json_find(input, "hook_context/branch")));
    put_part(&parts, own ? identity : HL_NONE);
    put_part(&parts, key);
    return hl_sha256_hex(hl_text(&parts));
}

HL_HOOK(cache_get, input) {
    hl_str key = entry_key(hl_config(), input), value = key.at ? hl_kv_get(key) : HL_NONE;
    if (value.len < HEADER) return hl_just("miss");
    int64_t left = json_int((hl_str){value.at, HEADER - 1}, 0) - hl_get_time();
    if (left <= 0) return hl_just("miss");
    hl_count(HL("hits_total"));
    hl_buf json = {0};
    hl_put(&json, HL("{\"action\":\"hit\""));
    json_put_member(&json, "data_base64", (hl_str){value.at + HEADER, value.len - HEADER});
    json_put_key(&json, "ttl_ms");
    hl_put_int(&json, left);
    hl_put_char(&json, '}');
    return hl_answer(&json);
}

HL_HOOK(cache_set, input) {
    hl_str config = hl_config(), value = json_text(json_find(input, "value"));
    int64_t longest = json_int(json_find(config, "max_ttl_ms"), 60 * 1000);
    int64_t ttl = json_int(json_find(input, "ttl_ms"), json_int(json_find(config, "ttl_ms"), DEFAULT_TTL_MS));
    if (ttl > longest) ttl = longest;
    hl_str key = entry_key(config, input);
    if (!key.at || !value.at || ttl <= 0 || HEADER + value.len > HL_KV_MAX) return hl_just("skip");

    int64_t until = hl_get_time() + ttl;
    hl_buf entry = {0};
    for (int64_t above = 100000000000000; above > until && above > 1; above /= 10) hl_put_char(&entry, '0');
    hl_put_int(&entry, until);
    hl_put_char(&entry, ' ');
    hl_put(&entry, value);
    // The entry knows when it runs out; the store's own limit only makes room.
    if (!hl_kv_set(key, hl_text(&entry))) {
        hl_count(HL("store_full_total"));
        return hl_just("skip");
    }
    hl_kv_set_ttl(key, ttl);
    hl_buf json = {0};
    hl_put(&json, HL("{\"action\":\"store\",\"ttl_ms\":"));
    hl_put_int(&json, ttl);
    hl_put_char(&json, '}');
    return hl_answer(&json);
}
