// api-keys: who has the key is who it says, and may do what its roles say.
//
// authenticate takes a key from the header `x-api-key`, or from `authorization: Bearer …`, and looks for its
// SHA-256 among the configured ones. Only hashes are configured, so the config gives no key away. A client
// without a key is somebody else's business (defer). authorize then checks the identity's roles against rules
// of actions and resource prefixes; what no rule allows is denied.

#include "hookline.h"

// The presented key; nothing where there is none.
static hl_str presented(hl_str headers) {
    hl_str key = json_text(json_get(headers, HL("x-api-key")));
    if (key.at) return hl_trim(key);
    hl_str authorization = json_text(json_get(headers, HL("authorization"))), bearer = HL("bearer ");
    if (!authorization.at || authorization.len < bearer.len) return HL_NONE;
    if (!hl_alike((hl_str){authorization.at, bearer.len}, bearer)) return HL_NONE;
    return hl_trim((hl_str){authorization.at + bearer.len, authorization.len - bearer.len});
}

// Takes as long whatever the difference is.
static bool equal_in_constant_time(hl_str a, hl_str b) {
    unsigned char difference = a.len != b.len;
    for (size_t i = 0; i < a.len && i < b.len; i++) difference |= (unsigned char)(a.at[i] ^ b.at[i]);
    return difference == 0;
}

// A member of `from`, or an empty array or null where it has none.
static void copy(hl_buf *json, const char *name, hl_str from, const char *otherwise) {
    hl_str value = json_find(from, name);
    json_put_key(json, name);
    hl_put(json, value.at ? value : hl_cstr(otherwise));
}

HL_HOOK(authenticate, input) {
    hl_str key = presented(json_find(input, "headers"));
    if (!key.at) return hl_just("defer");
    hl_str hash = hl_sha256_hex(key), name = HL_NONE, entry = HL_NONE;
    json_walk keys = json_each(json_find(hl_config(), "keys"));
    while (json_next(&keys)) {  // to the end, also when one is found
        hl_str known = hl_trim(json_text(json_find(keys.value, "sha256")));
        if (known.len == 64 && equal_in_constant_time(known, hash)) name = json_text(keys.key), entry = keys.value;
    }
    if (!entry.at) {
        hl_count(HL("denied_total"));
        return hl_say("denied", "message", HL("unknown API key"));
    }
    hl_str user_id = json_text(json_find(entry, "user_id")), username = json_text(json_find(entry, "username"));
    hl_buf json = {0};
    hl_put(&json, HL("{\"action\":\"success\",\"identity\":{"));
    json_put_member(&json, "user_id", user_id.at ? user_id : name);
    json_put_member(&json, "username", username.at ? username : name);
    copy(&json, "roles", entry, "[]");
    copy(&json, "tenant_id", entry, "null");
    hl_put(&json, HL(",\"claims\":{"));
    json_put_member(&json, "api_key", name);
    hl_put(&json, HL("}}}"));
    return hl_answer(&json);
}

// A prefix covers whole parts only: "/reports" covers "/reports/1" and not "/reports-of-others"; "sales"
// covers the table "sales.orders". One that ends with a separator, and the empty one, cover all behind it.
static bool covers(hl_str prefix, hl_str resource) {
    if (!prefix.at || !hl_starts(resource, prefix)) return false;
    if (prefix.len == resource.len || prefix.len == 0) return true;
    char last = prefix.at[prefix.len - 1], next = resource.at[prefix.len];
    return last == '/' || last == '.' || next == '/' || next == '.' || next == '?';
}

// A path that a server may read as another one: dot segments, empty ones, backslashes, encoded characters.
static bool is_ambiguous(hl_str resource) {
    if (resource.len == 0 || resource.at[0] != '/') return false;  // no path
    for (size_t i = 0; i < resource.len && resource.at[i] != '?'; i++) {
        hl_str rest = {resource.at + i, resource.len - i};
        if (rest.at[0] == '\\' || rest.at[0] == '%' || hl_starts(rest, HL("//"))) return true;
        if (!hl_starts(rest, HL("/."))) continue;
        size_t dots = rest.len > 2 && rest.at[2] == '.' ? 3 : 2;
        if (rest.len == dots || rest.at[dots] == '/' || rest.at[dots] == '?') return true;
    }
    return false;
}

static bool allows(hl_str rule, hl_str action, hl_str resource) {
    bool action_matches = false;
    json_walk actions = json_each(json_find(rule, "actions"));
    while (json_next(&actions)) {
        hl_str one = json_text(actions.value);
        action_matches = action_matches || hl_equal(one, HL("*")) || hl_alike(one, action);
    }
    json_walk prefixes = json_each(json_find(rule, "resources"));
    while (action_matches && json_next(&prefixes))
        if (covers(json_text(prefixes.value), resource)) return true;
    return false;
}

HL_HOOK(authorize, input) {
    hl_str rules_of_roles = json_find(hl_config(), "roles");
    if (!rules_of_roles.at) return hl_just("defer");  // used for authentication alone
    hl_str action = json_text(json_find(input, "action")), resource = json_text(json_find(input, "resource"));
    if (!action.at || !resource.at) return hl_say("deny", "reason", HL("no action or no resource is named"));
    if (is_ambiguous(resource)) return hl_say("deny", "reason", HL("the path can be read in more than one way"));
    json_walk roles = json_each(json_find(input, "identity/roles"));
    while (json_next(&roles)) {
        json_walk rules = json_each(json_get(rules_of_roles, json_text(roles.value)));
        while (json_next(&rules))
            if (allows(rules.value, action, resource)) return hl_just("allow");
    }
    return hl_say("deny", "reason", HL("no role of this identity allows it"));
}
