// Everything a Hookline plugin in C needs: hooks, answers, host functions. Header only, no libc.
//
//     #include "hookline.h"
//
//     HL_HOOK(pre_query, input) {
//         hl_str query = json_text(json_find(input, "query"));
//         return query.len > 10000 ? hl_say("block", "value", HL("too long")) : hl_just("continue");
//     }
//
// A plugin that cannot do its work (no permission, a full store, an input that is not JSON) calls hl_fail():
// the call fails with cause `trap`, and the resource's failurePolicy decides what that means. Never guess.

#ifndef HOOKLINE_H
#define HOOKLINE_H

#include "json.h"

// ---- Host functions, as docs/author/guest-abi.md has them. Those that a plugin does not use are not imported. ----

#define HL_IMPORT(module, name) __attribute__((import_module(module), import_name(name))) extern

HL_IMPORT("env", "kv_get") int32_t hl_host_kv_get(const char *key, size_t key_len, char *out, size_t out_max);
HL_IMPORT("env", "kv_set") int32_t hl_host_kv_set(const char *key, size_t key_len, const char *val, size_t val_len);
HL_IMPORT("env", "kv_delete") int32_t hl_host_kv_delete(const char *key, size_t key_len);
HL_IMPORT("env", "sha256_hex") int32_t hl_host_sha256_hex(const char *in, size_t in_len, char *out);
HL_IMPORT("hookline", "log") int32_t hl_host_log(int32_t level, const char *line, size_t len);
HL_IMPORT("hookline", "get_time") int64_t hl_host_get_time(void);
HL_IMPORT("hookline", "random") int32_t hl_host_random(char *out, size_t len);
HL_IMPORT("hookline", "get_config") int64_t hl_host_get_config(const char *path, size_t len);
HL_IMPORT("hookline", "metric_inc") int32_t hl_host_metric_inc(const char *name, size_t len, double by);
HL_IMPORT("hookline", "metric_gauge") int32_t hl_host_metric_gauge(const char *name, size_t len, double value);
HL_IMPORT("hookline", "metric_observe") int32_t hl_host_metric_observe(const char *name, size_t len, double value);
HL_IMPORT("hookline", "hmac_sha256")
int32_t hl_host_hmac_sha256(const char *key, size_t key_len, const char *in, size_t in_len, char *out);
HL_IMPORT("hookline", "kv_list") int64_t hl_host_kv_list(const char *prefix, size_t len);
HL_IMPORT("hookline", "kv_incr") int64_t hl_host_kv_incr(const char *key, size_t key_len, int64_t by);
HL_IMPORT("hookline", "kv_compare_and_set")
int32_t hl_host_kv_compare_and_set(const char *key, size_t key_len, const char *was, int32_t was_len,
                                   const char *val, size_t val_len);
HL_IMPORT("hookline", "kv_set_ttl") int32_t hl_host_kv_set_ttl(const char *key, size_t key_len, int64_t ttl_ms);

// ---- The same, as one likes to call them. ----

enum { HL_TRACE, HL_DEBUG, HL_INFO, HL_WARN, HL_ERROR };
enum { HL_KV_MAX = 65536 };  // bytes of a key, and of a value

static inline void hl_log(int level, hl_str line) { hl_host_log(level, line.at, line.len); }

_Noreturn static inline void hl_fail(hl_str why) {
    hl_log(HL_ERROR, why);
    __builtin_trap();
}

// Adds one to a counter. Without the permission `metrics` nothing is counted, and nothing breaks.
static inline void hl_count(hl_str metric) { hl_host_metric_inc(metric.at, metric.len, 1); }

// The whole config, a JSON object. Without the permission the call fails: a guard must not run on defaults
// because somebody forgot a line.
static inline hl_str hl_config(void) {
    uint64_t packed = (uint64_t)hl_host_get_config("", 0);
    if (packed == 0) return HL("{}");
    if (packed >> 32 == 0) hl_fail(HL("the config cannot be read; is the permission config.read granted?"));
    return (hl_str){(const char *)(uintptr_t)(packed >> 32), (size_t)(uint32_t)packed};
}

// The value of a key; nothing where there is none. env.kv_get answers the same for "missing" and "not
// permitted", so a plugin that must tell them apart writes first.
static inline hl_str hl_kv_get(hl_str key) {
    for (size_t room = 4096;; room = HL_KV_MAX) {
        char *value = hl_alloc(room);
        int32_t len = hl_host_kv_get(key.at, key.len, value, room);
        if (len >= 0) return (hl_str){value, (size_t)len};
        if (len != -2 || room == HL_KV_MAX) return HL_NONE;
    }
}

static inline bool hl_kv_set(hl_str key, hl_str value) {
    return hl_host_kv_set(key.at, key.len, value.at, value.len) == 0;
}

// 64 lower-case hexadecimal digits.
static inline hl_str hl_sha256(hl_str text) {
    char *hex = hl_alloc(64);
    if (hl_host_sha256_hex(text.at, text.len, hex) != 64)
        hl_fail(HL("sha256_hex failed; is the permission crypto granted?"));
    return (hl_str){hex, 64};
}

// ---- What the proxy says. ----

// hook_context.attributes[name]; nothing where the proxy did not send it.
static inline hl_str hl_attribute(hl_str input, const char *name) {
    return json_text(json_get(json_find(input, "hook_context/attributes"), hl_cstr(name)));
}

// ---- Answers. ----

static inline int64_t hl_answer(const hl_buf *json) {
    return (int64_t)((uint64_t)(uintptr_t)json->at << 32 | json->len);
}

// {"action": action}
static inline int64_t hl_just(const char *action) {
    hl_buf json = {0};
    hl_put_char(&json, '{');
    json_put_member(&json, "action", hl_cstr(action));
    hl_put_char(&json, '}');
    return hl_answer(&json);
}

// {"action": action, field: text}
static inline int64_t hl_say(const char *action, const char *field, hl_str text) {
    hl_buf json = {0};
    hl_put_char(&json, '{');
    json_put_member(&json, "action", hl_cstr(action));
    json_put_member(&json, field, text);
    hl_put_char(&json, '}');
    return hl_answer(&json);
}

// ---- Hooks. ----

static inline hl_str hl_checked(const char *at, size_t len) {
    hl_str input = {at, len};
    if (!json_valid(input)) hl_fail(HL("the input is not valid JSON"));
    const char *start = json_space(at, at + len);
    return (hl_str){start, len - (size_t)(start - at)};
}

// Exports a hook. `input` is its checked input, a JSON value; the body returns an answer, or 0 for the
// hook's default.
#define HL_HOOK(hook, input)                                                             \
    static int64_t hl_on_##hook(hl_str input);                                           \
    __attribute__((export_name(#hook))) int64_t hl_call_##hook(const char *at, size_t len) { \
        if (at == hl_input_room) hl_release(0);                                          \
        return hl_on_##hook(hl_checked(at, len));                                        \
    }                                                                                    \
    static int64_t hl_on_##hook(hl_str input)

#endif
