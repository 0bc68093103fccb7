// tenant-budget: so many queries a minute for each tenant, and so many bytes of answers a day.
//
// pre_query counts the query and blocks it over the budget; post_query adds up what was answered. Counters
// are atomic over all workers of a pod and kept over a restart; every pod has its own. Each tenant takes up to
// three of the 1024 keys a plugin may have (one for the minute, one for each of two days), so up to about 340
// tenants a day fit; where a counter cannot be kept, the call fails and failurePolicy decides.

#include "hookline.h"

enum { MINUTE_MS = 60 * 1000, DAY_MS = 24 * 60 * MINUTE_MS };

// A setting of the tenant's own, or else the one for all; no limit where there is neither.
static int64_t budget(hl_str config, hl_str tenant, const char *name) {
    hl_str own = json_find(json_get(json_find(config, "tenants"), tenant), name);
    return json_int(own.at ? own : json_find(config, name), INT64_MAX);
}

// "<what>/<number of the window>/<tenant>"
static hl_str counter(const char *what, int64_t window, hl_str tenant) {
    hl_buf key = {0};
    hl_put(&key, hl_cstr(what));
    hl_put_char(&key, '/');
    hl_put_int(&key, window);
    hl_put_char(&key, '/');
    hl_put(&key, tenant);
    return hl_text(&key);
}

// Adds to a counter, which disappears `ttl_ms` after it was begun; the sum.
static int64_t add(hl_str key, int64_t by, int64_t ttl_ms) {
    hl_number sum = hl_kv_incr(key, by);
    if (sum.error) hl_fail(HL("a counter cannot be kept; is kv.write granted, are there too many tenants?"));
    if (sum.value == by) hl_kv_set_ttl(key, ttl_ms);
    return sum.value;
}

HL_HOOK(pre_query, input) {
    hl_str config = hl_config(), tenant = hl_attribute(input, "tenant_id");
    if (!tenant.len) {
        bool block = !hl_equal(json_text(json_find(config, "without_tenant")), HL("continue"));
        return block ? hl_say("block", "value", HL("no tenant_id")) : hl_just("continue");
    }
    int64_t now = hl_get_time();
    int64_t bytes = budget(config, tenant, "bytes_per_day"), queries = budget(config, tenant, "per_minute");
    if (bytes < INT64_MAX && json_int(hl_kv_get(counter("bytes", now / DAY_MS, tenant)), 0) >= bytes) {
        hl_count(HL("blocked_total"));
        return hl_say("block", "value", HL("the tenant's bytes for today are used up"));
    }
    hl_str count = counter("queries", now / MINUTE_MS, tenant);
    if (queries < INT64_MAX && add(count, 1, MINUTE_MS - now % MINUTE_MS + 1000) > queries) {
        hl_count(HL("blocked_total"));
        return hl_say("block", "value", HL("the tenant's queries for this minute are used up"));
    }
    return hl_just("continue");
}

HL_HOOK(post_query, input) {
    json_walk walk = json_each(input);  // [context, outcome]
    hl_str context = json_next(&walk) ? walk.value : HL_NONE;
    hl_str outcome = json_next(&walk) ? walk.value : HL_NONE;
    hl_str tenant = hl_attribute(context, "tenant_id");
    int64_t bytes = json_int(json_find(outcome, "response_bytes"), 0);
    if (tenant.len && bytes > 0) add(counter("bytes", hl_get_time() / DAY_MS, tenant), bytes, 2 * (int64_t)DAY_MS);
    return 0;
}
