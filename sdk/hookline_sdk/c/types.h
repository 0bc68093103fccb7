// Generated from hookline_api/hooks.py by scripts/write_sdk.py; do not edit.

#ifndef HOOKLINE_TYPES_H
#define HOOKLINE_TYPES_H

#include "read.h"

// ---- What the proxy says. ----
//
// A text is HL_NONE where it may be missing and is. Lists, maps and other JSON are slices of the input, checked: walk
// them with json_each(), look into them with json_get() or hl_in(). All of it is gone when the call ends.

// Who asks, and where: the same for every hook of one statement.
typedef struct {
    // Stays the same over every hook of one statement; made by the sidecar where the proxy sends none.
    hl_str request_id;
    hl_str client_id;
    // The user's name, as the proxy knows it.
    hl_str identity;
    hl_str database;
    hl_str branch;
    // Anything else that plugins read; `ATTRIBUTES` has the names that they agree about.
    hl_str attributes;  // a JSON object of texts
} hl_hook_context;

static inline hl_hook_context hl_read_hook_context(hl_str json, const char *of) {
    hl_hook_context in = {0};
    in.request_id = HL("");
    in.attributes = HL("{}");
    json_walk walk = hl_members(json, of);
    while (json_next(&walk)) {
        hl_str name = json_text(walk.key);
        if (hl_equal(name, HL("request_id"))) {
            if (json_kind(walk.value) != 'n') in.request_id = hl_read_text(walk.value, "request_id");
        } else if (hl_equal(name, HL("client_id"))) {
            if (json_kind(walk.value) != 'n') in.client_id = hl_read_text(walk.value, "client_id");
        } else if (hl_equal(name, HL("identity"))) {
            if (json_kind(walk.value) != 'n') in.identity = hl_read_text(walk.value, "identity");
        } else if (hl_equal(name, HL("database"))) {
            if (json_kind(walk.value) != 'n') in.database = hl_read_text(walk.value, "database");
        } else if (hl_equal(name, HL("branch"))) {
            if (json_kind(walk.value) != 'n') in.branch = hl_read_text(walk.value, "branch");
        } else if (hl_equal(name, HL("attributes"))) {
            if (json_kind(walk.value) != 'n') in.attributes = hl_read_map(walk.value, "attributes");
        }
    }
    return in;
}

// Input of `authenticate`.
typedef struct {
    // Names in lower case; repeated headers joined with a comma.
    hl_str headers;  // a JSON object of texts
    hl_str username;
    hl_str password;
    hl_str client_ip;
    hl_str database;
    // Its `request_id` is the header `x-request-id` where the proxy names it there alone.
    hl_hook_context hook_context;
} hl_authenticate_input;

static inline hl_authenticate_input hl_read_authenticate_input(hl_str json, const char *of) {
    hl_authenticate_input in = {0};
    in.headers = HL("{}");
    in.username = HL("");
    in.client_ip = HL("");
    in.hook_context = hl_read_hook_context(HL("{}"), "");
    json_walk walk = hl_members(json, of);
    while (json_next(&walk)) {
        hl_str name = json_text(walk.key);
        if (hl_equal(name, HL("headers"))) {
            if (json_kind(walk.value) != 'n') in.headers = hl_read_map(walk.value, "headers");
        } else if (hl_equal(name, HL("username"))) {
            if (json_kind(walk.value) != 'n') in.username = hl_read_text(walk.value, "username");
        } else if (hl_equal(name, HL("password"))) {
            if (json_kind(walk.value) != 'n') in.password = hl_read_text(walk.value, "password");
        } else if (hl_equal(name, HL("client_ip"))) {
            if (json_kind(walk.value) != 'n') in.client_ip = hl_read_text(walk.value, "client_ip");
        } else if (hl_equal(name, HL("database"))) {
            if (json_kind(walk.value) != 'n') in.database = hl_read_text(walk.value, "database");
        } else if (hl_equal(name, HL("hook_context"))) {
            if (json_kind(walk.value) != 'n') in.hook_context = hl_read_hook_context(walk.value, "hook_context");
        }
    }
    return in;
}

// Who a client is: what `authenticate` answers, and `authorize` is asked with.
typedef struct {
    // Stays the same for this client, and is nobody else's.
    hl_str user_id;
    // For people, and as the user's name in `hook_context.identity`.
    hl_str username;
    // What the client may act as; a role has no comma. In later hooks it is the attribute `identity.roles`.
    hl_str roles;  // a JSON array of texts
    // The tenant that the client belongs to; in later hooks it is the attribute of that name.
    hl_str tenant_id;
    // Anything else that was proven of the client, such as the claims of a token.
    hl_str claims;  // a JSON object
} hl_identity;

static inline hl_identity hl_read_identity(hl_str json, const char *of) {
    hl_identity in = {0};
    in.roles = HL("[]");
    in.claims = HL("{}");
    bool has_user_id = false;
    bool has_username = false;
    json_walk walk = hl_members(json, of);
    while (json_next(&walk)) {
        hl_str name = json_text(walk.key);
        if (hl_equal(name, HL("user_id"))) {
            has_user_id = true, in.user_id = hl_read_text(walk.value, "user_id");
        } else if (hl_equal(name, HL("username"))) {
            has_username = true, in.username = hl_read_text(walk.value, "username");
        } else if (hl_equal(name, HL("roles"))) {
            if (json_kind(walk.value) != 'n') in.roles = hl_read_texts(walk.value, "roles");
        } else if (hl_equal(name, HL("tenant_id"))) {
            if (json_kind(walk.value) != 'n') in.tenant_id = hl_read_text(walk.value, "tenant_id");
        } else if (hl_equal(name, HL("claims"))) {
            if (json_kind(walk.value) != 'n') in.claims = hl_read_object(walk.value, "claims");
        }
    }
    if (!has_user_id) hl_misread("user_id", "is missing");
    if (!has_username) hl_misread("username", "is missing");
    return in;
}

// Input of `authorize`.
typedef struct {
    // The statement, as the client sent it.
    hl_str query;
    // The statement without its literals. Where the proxy does not compute it, and after a rewrite, guests find the
    // query's own text here, and the attribute `hookline.normalized` is `verbatim`.
    hl_str normalized;
    hl_str tables;  // a JSON array of texts
    bool is_read_only;
    hl_hook_context hook_context;
    bool has_identity;
    hl_identity identity;
    // What is to be done: a verb of the proxy's, or an HTTP method. Empty where the proxy does not say.
    hl_str action;
    // To what: a table, or an HTTP path. Empty where the proxy does not say.
    hl_str resource;
} hl_authorize_input;

static inline hl_authorize_input hl_read_authorize_input(hl_str json, const char *of) {
    hl_authorize_input in = {0};
    in.normalized = HL("");
    in.tables = HL("[]");
    in.action = HL("");
    in.resource = HL("");
    in.hook_context = hl_read_hook_context(HL("{}"), "");
    bool has_query = false;
    json_walk walk = hl_members(json, of);
    while (json_next(&walk)) {
        hl_str name = json_text(walk.key);
        if (hl_equal(name, HL("query"))) {
            has_query = true, in.query = hl_read_text(walk.value, "query");
        } else if (hl_equal(name, HL("normalized"))) {
            if (json_kind(walk.value) != 'n') in.normalized = hl_read_text(walk.value, "normalized");
        } else if (hl_equal(name, HL("tables"))) {
            if (json_kind(walk.value) != 'n') in.tables = hl_read_texts(walk.value, "tables");
        } else if (hl_equal(name, HL("is_read_only"))) {
            if (json_kind(walk.value) != 'n') in.is_read_only = hl_read_flag(walk.value, "is_read_only");
        } else if (hl_equal(name, HL("hook_context"))) {
            if (json_kind(walk.value) != 'n') in.hook_context = hl_read_hook_context(walk.value, "hook_context");
        } else if (hl_equal(name, HL("identity"))) {
            if (json_kind(walk.value) != 'n') in.has_identity = true, in.identity = hl_read_identity(walk.value, "identity");
        } else if (hl_equal(name, HL("action"))) {
            if (json_kind(walk.value) != 'n') in.action = hl_read_text(walk.value, "action");
        } else if (hl_equal(name, HL("resource"))) {
            if (json_kind(walk.value) != 'n') in.resource = hl_read_text(walk.value, "resource");
        }
    }
    if (!has_query) hl_misread("query", "is missing");
    return in;
}

// Input of `pre_query`, `rewrite` and `route`.
typedef struct {
    // The statement, as the client sent it.
    hl_str query;
    // The statement without its literals. Where the proxy does not compute it, and after a rewrite, guests find the
    // query's own text here, and the attribute `hookline.normalized` is `verbatim`.
    hl_str normalized;
    hl_str tables;  // a JSON array of texts
    bool is_read_only;
    hl_hook_context hook_context;
} hl_query_input;

static inline hl_query_input hl_read_query_input(hl_str json, const char *of) {
    hl_query_input in = {0};
    in.normalized = HL("");
    in.tables = HL("[]");
    in.hook_context = hl_read_hook_context(HL("{}"), "");
    bool has_query = false;
    json_walk walk = hl_members(json, of);
    while (json_next(&walk)) {
        hl_str name = json_text(walk.key);
        if (hl_equal(name, HL("query"))) {
            has_query = true, in.query = hl_read_text(walk.value, "query");
        } else if (hl_equal(name, HL("normalized"))) {
            if (json_kind(walk.value) != 'n') in.normalized = hl_read_text(walk.value, "normalized");
        } else if (hl_equal(name, HL("tables"))) {
            if (json_kind(walk.value) != 'n') in.tables = hl_read_texts(walk.value, "tables");
        } else if (hl_equal(name, HL("is_read_only"))) {
            if (json_kind(walk.value) != 'n') in.is_read_only = hl_read_flag(walk.value, "is_read_only");
        } else if (hl_equal(name, HL("hook_context"))) {
            if (json_kind(walk.value) != 'n') in.hook_context = hl_read_hook_context(walk.value, "hook_context");
        }
    }
    if (!has_query) hl_misread("query", "is missing");
    return in;
}

// Input of `cache_get`.
typedef struct {
    // The statement, as the client sent it.
    hl_str query;
    // The statement without its literals. Where the proxy does not compute it, and after a rewrite, guests find the
    // query's own text here, and the attribute `hookline.normalized` is `verbatim`.
    hl_str normalized;
    hl_str tables;  // a JSON array of texts
    bool is_read_only;
    hl_hook_context hook_context;
    hl_str key;
} hl_cache_get_input;

static inline hl_cache_get_input hl_read_cache_get_input(hl_str json, const char *of) {
    hl_cache_get_input in = {0};
    in.normalized = HL("");
    in.tables = HL("[]");
    in.hook_context = hl_read_hook_context(HL("{}"), "");
    bool has_query = false;
    bool has_key = false;
    json_walk walk = hl_members(json, of);
    while (json_next(&walk)) {
        hl_str name = json_text(walk.key);
        if (hl_equal(name, HL("query"))) {
            has_query = true, in.query = hl_read_text(walk.value, "query");
        } else if (hl_equal(name, HL("normalized"))) {
            if (json_kind(walk.value) != 'n') in.normalized = hl_read_text(walk.value, "normalized");
        } else if (hl_equal(name, HL("tables"))) {
            if (json_kind(walk.value) != 'n') in.tables = hl_read_texts(walk.value, "tables");
        } else if (hl_equal(name, HL("is_read_only"))) {
            if (json_kind(walk.value) != 'n') in.is_read_only = hl_read_flag(walk.value, "is_read_only");
        } else if (hl_equal(name, HL("hook_context"))) {
            if (json_kind(walk.value) != 'n') in.hook_context = hl_read_hook_context(walk.value, "hook_context");
        } else if (hl_equal(name, HL("key"))) {
            has_key = true, in.key = hl_read_text(walk.value, "key");
        }
    }
    if (!has_query) hl_misread("query", "is missing");
    if (!has_key) hl_misread("key", "is missing");
    return in;
}

// Input of `cache_set`.
typedef struct {
    // The statement, as the client sent it.
    hl_str query;
    // The statement without its literals. Where the proxy does not compute it, and after a rewrite, guests find the
    // query's own text here, and the attribute `hookline.normalized` is `verbatim`.
    hl_str normalized;
    hl_str tables;  // a JSON array of texts
    bool is_read_only;
    hl_hook_context hook_context;
    hl_str key;
    // The bytes to store, base64.
    hl_str value;
    bool has_ttl_ms;
    int64_t ttl_ms;
} hl_cache_set_input;

static inline hl_cache_set_input hl_read_cache_set_input(hl_str json, const char *of) {
    hl_cache_set_input in = {0};
    in.normalized = HL("");
    in.tables = HL("[]");
    in.hook_context = hl_read_hook_context(HL("{}"), "");
    bool has_query = false;
    bool has_key = false;
    bool has_value = false;
    json_walk walk = hl_members(json, of);
    while (json_next(&walk)) {
        hl_str name = json_text(walk.key);
        if (hl_equal(name, HL("query"))) {
            has_query = true, in.query = hl_read_text(walk.value, "query");
        } else if (hl_equal(name, HL("normalized"))) {
            if (json_kind(walk.value) != 'n') in.normalized = hl_read_text(walk.value, "normalized");
        } else if (hl_equal(name, HL("tables"))) {
            if (json_kind(walk.value) != 'n') in.tables = hl_read_texts(walk.value, "tables");
        } else if (hl_equal(name, HL("is_read_only"))) {
            if (json_kind(walk.value) != 'n') in.is_read_only = hl_read_flag(walk.value, "is_read_only");
        } else if (hl_equal(name, HL("hook_context"))) {
            if (json_kind(walk.value) != 'n') in.hook_context = hl_read_hook_context(walk.value, "hook_context");
        } else if (hl_equal(name, HL("key"))) {
            has_key = true, in.key = hl_read_text(walk.value, "key");
        } else if (hl_equal(name, HL("value"))) {
            has_value = true, in.value = hl_read_text(walk.value, "value");
        } else if (hl_equal(name, HL("ttl_ms"))) {
            if (json_kind(walk.value) != 'n') in.has_ttl_ms = true, in.ttl_ms = hl_read_integer(walk.value, "ttl_ms");
        }
    }
    if (!has_query) hl_misread("query", "is missing");
    if (!has_key) hl_misread("key", "is missing");
    if (!has_value) hl_misread("value", "is missing");
    return in;
}

// Input of `on_connect`, `on_disconnect` and `metrics`.
typedef struct {
    hl_hook_context hook_context;
    hl_str event;  // a JSON object
} hl_event_input;

static inline hl_event_input hl_read_event_input(hl_str json, const char *of) {
    hl_event_input in = {0};
    in.event = HL("{}");
    in.hook_context = hl_read_hook_context(HL("{}"), "");
    json_walk walk = hl_members(json, of);
    while (json_next(&walk)) {
        hl_str name = json_text(walk.key);
        if (hl_equal(name, HL("hook_context"))) {
            if (json_kind(walk.value) != 'n') in.hook_context = hl_read_hook_context(walk.value, "hook_context");
        } else if (hl_equal(name, HL("event"))) {
            if (json_kind(walk.value) != 'n') in.event = hl_read_object(walk.value, "event");
        }
    }
    return in;
}

// How a statement went; the second element of `post_query`'s input.
typedef struct {
    bool success;
    hl_str target_node;
    int64_t elapsed_us;
    int64_t response_bytes;
    hl_str error;
} hl_outcome;

static inline hl_outcome hl_read_outcome(hl_str json, const char *of) {
    hl_outcome in = {0};
    bool has_success = false;
    json_walk walk = hl_members(json, of);
    while (json_next(&walk)) {
        hl_str name = json_text(walk.key);
        if (hl_equal(name, HL("success"))) {
            has_success = true, in.success = hl_read_flag(walk.value, "success");
        } else if (hl_equal(name, HL("target_node"))) {
            if (json_kind(walk.value) != 'n') in.target_node = hl_read_text(walk.value, "target_node");
        } else if (hl_equal(name, HL("elapsed_us"))) {
            if (json_kind(walk.value) != 'n') in.elapsed_us = hl_read_integer(walk.value, "elapsed_us");
        } else if (hl_equal(name, HL("response_bytes"))) {
            if (json_kind(walk.value) != 'n') in.response_bytes = hl_read_integer(walk.value, "response_bytes");
        } else if (hl_equal(name, HL("error"))) {
            if (json_kind(walk.value) != 'n') in.error = hl_read_text(walk.value, "error");
        }
    }
    if (!has_success) hl_misread("success", "is missing");
    return in;
}

// Of lists, maps and other JSON those count that are not empty.
static inline void hl_put_identity(hl_buf *json, const hl_identity *in) {
    hl_put_char(json, '{');
    json_put_member(json, "user_id", in->user_id);
    json_put_member(json, "username", in->username);
    if (in->roles.len) hl_put(json_put_key(json, "roles"), in->roles);
    if (in->tenant_id.at) json_put_member(json, "tenant_id", in->tenant_id);
    if (in->claims.len) hl_put(json_put_key(json, "claims"), in->claims);
    hl_put_char(json, '}');
}

// ---- What hooks answer; 0 is a hook's default. ----

// The client is who `identity` says.
static inline int64_t hl_success(const hl_identity *identity) {
    hl_buf json = hl_begin("success");
    hl_put_identity(json_put_key(&json, "identity"), identity);
    return hl_end(&json);
}

// The client's credentials are wrong.
static inline int64_t hl_denied(hl_str message) {
    return hl_say("denied", "message", message);
}

// No plugin has an opinion; the proxy's own rules apply.
static inline int64_t hl_defer(void) {
    return hl_just("defer");
}

// authenticate: hl_success, hl_denied, hl_defer; 0 is defer.

// The action may be done. Without reason: HL_NONE.
static inline int64_t hl_allow(hl_str reason) {
    hl_buf json = hl_begin("allow");
    if (reason.at) json_put_member(&json, "reason", reason);
    return hl_end(&json);
}

// The action may not be done. Without reason: HL_NONE.
static inline int64_t hl_deny(hl_str reason) {
    hl_buf json = hl_begin("deny");
    if (reason.at) json_put_member(&json, "reason", reason);
    return hl_end(&json);
}

// authorize: hl_allow, hl_deny, hl_defer; 0 is defer.

// Go on with the query as it is.
static inline int64_t hl_continue(void) {
    return hl_just("continue");
}

// Go on with another query.
static inline int64_t hl_rewrite(hl_str value) {
    return hl_say("rewrite", "value", value);
}

// Refuse the statement.
static inline int64_t hl_block(hl_str value) {
    return hl_say("block", "value", value);
}

// Answer the client with these bytes, and do not run the query.
static inline int64_t hl_cached(hl_str data) {
    hl_buf json = hl_begin("cached");
    json_put_base64(json_put_key(&json, "data_base64"), data);
    return hl_end(&json);
}

// pre_query: hl_continue, hl_rewrite, hl_block, hl_cached; 0 is continue.

// rewrite: hl_continue, hl_rewrite, hl_block; 0 is continue.

// Send the statement to the default node, the primary, or any standby.
static inline int64_t hl_default(void) {
    return hl_just("default");
}

// Send the statement to the default node, the primary, or any standby.
static inline int64_t hl_primary(void) {
    return hl_just("primary");
}

// Send the statement to the default node, the primary, or any standby.
static inline int64_t hl_standby(void) {
    return hl_just("standby");
}

// Send the statement to a node or a branch by name.
static inline int64_t hl_node(hl_str target) {
    return hl_say("node", "target", target);
}

// Send the statement to a node or a branch by name.
static inline int64_t hl_branch(hl_str target) {
    return hl_say("branch", "target", target);
}

// Do not route the statement at all.
static inline int64_t hl_route_block(hl_str reason) {
    return hl_say("block", "reason", reason);
}

// route: hl_default, hl_primary, hl_standby, hl_node, hl_branch, hl_route_block; 0 is default.

// Answer from the cache. Without ttl_ms: -1.
static inline int64_t hl_hit(hl_str data, int64_t ttl_ms) {
    hl_buf json = hl_begin("hit");
    json_put_base64(json_put_key(&json, "data_base64"), data);
    if (ttl_ms >= 0) hl_put_int(json_put_key(&json, "ttl_ms"), ttl_ms);
    return hl_end(&json);
}

// The cache has nothing.
static inline int64_t hl_miss(void) {
    return hl_just("miss");
}

// cache_get: hl_hit, hl_miss; 0 is miss.

// Store the value. Without ttl_ms: -1.
static inline int64_t hl_store(int64_t ttl_ms) {
    hl_buf json = hl_begin("store");
    if (ttl_ms >= 0) hl_put_int(json_put_key(&json, "ttl_ms"), ttl_ms);
    return hl_end(&json);
}

// Do not store the value.
static inline int64_t hl_skip(void) {
    return hl_just("skip");
}

// cache_set: hl_store, hl_skip; 0 is store.

// ---- Hooks: HL_PRE_QUERY(in) { … in->query … return hl_continue(); } ----
//
// Observing ones return nothing. A custom_hook has its JSON: HL_HOOK(custom_hook, json).

#define HL_AUTHENTICATE(in) HL_DECIDES(authenticate, authenticate_input, in)
#define HL_AUTHORIZE(in) HL_DECIDES(authorize, authorize_input, in)
#define HL_PRE_QUERY(in) HL_DECIDES(pre_query, query_input, in)
#define HL_REWRITE(in) HL_DECIDES(rewrite, query_input, in)
#define HL_ROUTE(in) HL_DECIDES(route, query_input, in)
#define HL_CACHE_GET(in) HL_DECIDES(cache_get, cache_get_input, in)
#define HL_CACHE_SET(in) HL_DECIDES(cache_set, cache_set_input, in)
#define HL_POST_QUERY(in, how) HL_OBSERVES_PAIR(post_query, query_input, outcome, in, how)
#define HL_METRICS(in) HL_OBSERVES(metrics, event_input, in)
#define HL_ON_CONNECT(in) HL_OBSERVES(on_connect, event_input, in)
#define HL_ON_DISCONNECT(in) HL_OBSERVES(on_disconnect, event_input, in)

#endif
