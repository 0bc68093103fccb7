// The host functions, as docs/author/guest-abi.md has them: each as it is imported, and as one likes to call it.
// A plugin imports those alone that it calls. All of them look blocking; while one waits, others are answered.

#ifndef HOOKLINE_HOST_H
#define HOOKLINE_HOST_H

#include "json.h"

#ifdef __wasm__
#define HL_IMPORT(module, name) __attribute__((import_module(module), import_name(name))) extern
#else
#define HL_IMPORT(module, name) extern  // hookline_test.h has them
#endif

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
HL_IMPORT("hookline", "query_execute")
int64_t hl_host_query_execute(const char *source, size_t source_len, const char *sql, size_t sql_len,
                              const char *params, size_t params_len);
HL_IMPORT("hookline", "query_prepare")
int64_t hl_host_query_prepare(const char *source, size_t source_len, const char *sql, size_t sql_len);
HL_IMPORT("hookline", "query_get_tables") int64_t hl_host_query_get_tables(const char *sql, size_t len);
HL_IMPORT("hookline", "query_normalize") int64_t hl_host_query_normalize(const char *sql, size_t len);
HL_IMPORT("hookline", "cache_get")
int64_t hl_host_cache_get(const char *cache, size_t cache_len, const char *key, size_t key_len);
HL_IMPORT("hookline", "cache_exists")
int32_t hl_host_cache_exists(const char *cache, size_t cache_len, const char *key, size_t key_len);
HL_IMPORT("hookline", "cache_set")
int32_t hl_host_cache_set(const char *cache, size_t cache_len, const char *key, size_t key_len, const char *val,
                          size_t val_len, int64_t ttl_ms);
HL_IMPORT("hookline", "cache_delete")
int32_t hl_host_cache_delete(const char *cache, size_t cache_len, const char *key, size_t key_len);
HL_IMPORT("hookline", "http_fetch") int64_t hl_host_http_fetch(const char *request, size_t len);
HL_IMPORT("hookline", "http_post")
int64_t hl_host_http_post(const char *url, size_t url_len, const char *type, size_t type_len, const char *body,
                          size_t body_len);

// ---- How they say what went wrong. ----

typedef enum {
    HL_OK = 0,
    HL_E_MEMORY = -1,       // a pointer or length outside memory
    HL_E_SIZE = -2,         // too large
    HL_E_DENIED = -3,       // the resource does not grant the permission
    HL_E_ARGUMENT = -4,     // a malformed argument, or a cache that the resource does not name
    HL_E_CAP = -5,          // a cap is reached
    HL_E_UNAVAILABLE = -6,  // not now
} hl_error;

// Bytes, or nothing (`value.at` is NULL), or what went wrong.
typedef struct {
    hl_str value;
    hl_error error;
} hl_bytes;

// A number, or what went wrong; then `value` is 0.
typedef struct {
    int64_t value;
    hl_error error;
} hl_number;

// What query_* and http_* answer. `failed` says which of value and the rest counts.
typedef struct {
    bool failed;
    hl_str value;                     // JSON, valid
    hl_str cause, message, sqlstate;  // timeout | denied | limit | failed; sqlstate where PostgreSQL said it
} hl_reply;

// What a server answered.
typedef struct {
    bool failed;
    hl_str cause, message;  // where it failed
    int status;
    hl_str headers;  // a JSON object of strings; its names are in lower case
    hl_str body;
    bool from_cache;
} hl_response;

static inline hl_bytes hl_unpack(int64_t packed) {
    uint32_t at = (uint32_t)((uint64_t)packed >> 32), len = (uint32_t)packed;
    if (at) return (hl_bytes){{hl_at(at), len}, HL_OK};
    return (hl_bytes){HL_NONE, (hl_error)-(int32_t)len};
}

static inline hl_number hl_checked_number(int32_t answer) {
    return answer < 0 ? (hl_number){0, (hl_error)answer} : (hl_number){answer, HL_OK};
}

static inline hl_error hl_checked_error(int32_t answer) { return answer < 0 ? (hl_error)answer : HL_OK; }

static inline hl_reply hl_checked_reply(int64_t packed) {
    hl_str value = hl_unpack(packed).value;
    if (!value.at || !json_valid(value)) {
        hl_str why = HL("the host cannot do it now, or could not read the arguments");
        return (hl_reply){.failed = true, .cause = HL("failed"), .message = why};
    }
    hl_str error = json_get(value, HL("error"));
    if (!error.at) return (hl_reply){.value = value};
    return (hl_reply){
        .failed = true,
        .cause = json_text(json_get(error, HL("cause"))),
        .message = json_text(json_get(error, HL("message"))),
        .sqlstate = json_text(json_get(error, HL("sqlstate"))),
    };
}

// ---- Log, time, chance, settings. ----

enum { HL_TRACE, HL_DEBUG, HL_INFO, HL_WARN, HL_ERROR };

static inline void hl_log(int level, hl_str line) { hl_host_log(level, line.at, line.len); }

_Noreturn static inline void hl_fail(hl_str why) {
    hl_log(HL_ERROR, why);
    hl_trap();
}

// The same for what should never be: the log says where.
_Noreturn static inline void hl_panic(const char *file, int64_t line, hl_str what) {
    hl_buf text = {0};
    hl_put(&text, HL("panic: "));
    hl_put(&text, what);
    hl_put(&text, HL(" at "));
    hl_put(&text, hl_cstr(file));
    hl_put_char(&text, ':');
    hl_put_int(&text, line);
    hl_fail(hl_text(&text));
}

#define HL_PANIC(what) hl_panic(__FILE__, __LINE__, HL(what))
#define HL_MUST(condition) ((condition) ? (void)0 : hl_panic(__FILE__, __LINE__, HL("it is false that " #condition)))

// Milliseconds since 1970, UTC.
static inline int64_t hl_get_time(void) { return hl_host_get_time(); }

// Fills up to 4096 bytes from the system's generator.
static inline hl_error hl_random(char *out, size_t len) { return hl_checked_error(hl_host_random(out, len)); }

// JSON of the setting at a dotted path; nothing where there is none.
static inline hl_bytes hl_get_config(hl_str path) { return hl_unpack(hl_host_get_config(path.at, path.len)); }

// The whole config, a JSON object. Without the permission the call fails: a guard must not run on defaults
// because somebody forgot a line.
static inline hl_str hl_config(void) {
    hl_bytes config = hl_get_config(HL(""));
    if (config.error) hl_fail(HL("the config cannot be read; is the permission config.read granted?"));
    return config.value.at ? config.value : HL("{}");
}

// ---- Metrics. ----

static inline hl_error hl_metric_inc(hl_str name, double by) {
    return hl_checked_error(hl_host_metric_inc(name.at, name.len, by));
}

static inline hl_error hl_metric_gauge(hl_str name, double value) {
    return hl_checked_error(hl_host_metric_gauge(name.at, name.len, value));
}

static inline hl_error hl_metric_observe(hl_str name, double value) {
    return hl_checked_error(hl_host_metric_observe(name.at, name.len, value));
}

// Adds one to a counter. Without the permission `metrics` nothing is counted, and nothing breaks.
static inline void hl_count(hl_str metric) { hl_metric_inc(metric, 1); }

// ---- Hashes. ----

// 64 lower-case hexadecimal digits.
static inline hl_str hl_sha256_hex(hl_str text) {
    char *hex = hl_alloc(64);
    if (hl_host_sha256_hex(text.at, text.len, hex) != 64)
        hl_fail(HL("sha256_hex failed; is the permission crypto granted?"));
    return (hl_str){hex, 64};
}

// 32 bytes.
static inline hl_bytes hl_hmac_sha256(hl_str key, hl_str text) {
    char *out = hl_alloc(32);
    hl_error error = hl_checked_error(hl_host_hmac_sha256(key.at, key.len, text.at, text.len, out));
    return error ? (hl_bytes){HL_NONE, error} : (hl_bytes){{out, 32}, HL_OK};
}

// ---- Keys: the pod's own, or the cluster's, as the resource says. Each call is atomic. ----

enum { HL_KV_MAX = 65536 };  // bytes of a key, and of a value

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

static inline bool hl_kv_delete(hl_str key) { return hl_host_kv_delete(key.at, key.len) == 0; }

// A JSON array of the keys with that prefix, in order.
static inline hl_bytes hl_kv_list(hl_str prefix) { return hl_unpack(hl_host_kv_list(prefix.at, prefix.len)); }

// Adds to a decimal number, and answers the sum. What went wrong is not said: a permission, a cap, no number.
static inline hl_number hl_kv_incr(hl_str key, int64_t by) {
    int64_t sum = hl_host_kv_incr(key.at, key.len, by);
    return sum == INT64_MIN ? (hl_number){0, HL_E_UNAVAILABLE} : (hl_number){sum, HL_OK};
}

// 1 where the value was `was` and is `value` now, else 0. HL_NONE stands for a key that does not exist.
static inline hl_number hl_kv_compare_and_set(hl_str key, hl_str was, hl_str value) {
    int32_t was_len = was.at ? (int32_t)was.len : -1;
    return hl_checked_number(
        hl_host_kv_compare_and_set(key.at, key.len, was.at, was_len, value.at, value.len));
}

// 1 where there is such a key, else 0. 0 or less takes the limit off.
static inline hl_number hl_kv_set_ttl(hl_str key, int64_t ttl_ms) {
    return hl_checked_number(hl_host_kv_set_ttl(key.at, key.len, ttl_ms));
}

// ---- Caches. An empty name is the first of the resource's; a ttl of 0 is the cache's own. ----

static inline hl_bytes hl_cache_get(hl_str cache, hl_str key) {
    return hl_unpack(hl_host_cache_get(cache.at, cache.len, key.at, key.len));
}

static inline hl_number hl_cache_exists(hl_str cache, hl_str key) {
    return hl_checked_number(hl_host_cache_exists(cache.at, cache.len, key.at, key.len));
}

static inline hl_error hl_cache_set(hl_str cache, hl_str key, hl_str value, int64_t ttl_ms) {
    return hl_checked_error(
        hl_host_cache_set(cache.at, cache.len, key.at, key.len, value.at, value.len, ttl_ms));
}

// 1 where it was there, else 0.
static inline hl_number hl_cache_delete(hl_str cache, hl_str key) {
    return hl_checked_number(hl_host_cache_delete(cache.at, cache.len, key.at, key.len));
}

// ---- Databases. Parameters are a JSON array, which these write: ----
//
//     hl_buf params = {0};
//     hl_param_text(&params, tenant);
//     hl_param_int(&params, 7);
//     hl_reply reply = hl_query_execute(HL("grants"), HL("select … where tenant = $1 and n > $2"), &params);

static inline hl_buf *hl_param_json(hl_buf *params, hl_str json) {
    hl_put_char(params, params->len ? ',' : '[');
    hl_put(params, json);
    return params;
}

static inline void hl_param_null(hl_buf *params) { hl_param_json(params, HL("null")); }
static inline void hl_param_bool(hl_buf *params, bool value) { hl_param_json(params, value ? HL("true") : HL("false")); }
static inline void hl_param_int(hl_buf *params, int64_t value) { hl_put_int(hl_param_json(params, HL("")), value); }

// UTF-8. HL_NONE is null.
static inline void hl_param_text(hl_buf *params, hl_str text) {
    if (text.at) json_put_text(hl_param_json(params, HL("")), text);
    else hl_param_null(params);
}

static inline void hl_param_bytes(hl_buf *params, hl_str bytes) {
    json_put_base64(hl_param_json(params, HL("")), bytes);
}

// {"columns": [{"name", "type"}], "rows": [[…]], "rowCount": n}. `params` may be NULL.
static inline hl_reply hl_query_execute(hl_str source, hl_str sql, const hl_buf *params) {
    hl_buf array = {0};
    if (params && params->len) hl_put(&array, hl_text(params)), hl_put_char(&array, ']');
    return hl_checked_reply(
        hl_host_query_execute(source.at, source.len, sql.at, sql.len, array.at, array.len));
}

// {"parameters": ["int4"], "columns": [{"name", "type"}]}
static inline hl_reply hl_query_prepare(hl_str source, hl_str sql) {
    return hl_checked_reply(hl_host_query_prepare(source.at, source.len, sql.at, sql.len));
}

// A JSON array of the tables that a statement names, as it writes them.
static inline hl_reply hl_query_get_tables(hl_str sql) {
    return hl_checked_reply(hl_host_query_get_tables(sql.at, sql.len));
}

// {"sql": "select $1"}
static inline hl_reply hl_query_normalize(hl_str sql) {
    return hl_checked_reply(hl_host_query_normalize(sql.at, sql.len));
}

// ---- HTTP. ----

static inline hl_response hl_checked_response(int64_t packed) {
    hl_reply reply = hl_checked_reply(packed);
    if (reply.failed) return (hl_response){.failed = true, .cause = reply.cause, .message = reply.message};
    hl_str text = json_text(json_get(reply.value, HL("body")));
    hl_str coded = json_text(json_get(reply.value, HL("bodyBase64")));
    return (hl_response){
        .status = (int)json_int(json_get(reply.value, HL("status")), 0),
        .headers = json_get(reply.value, HL("headers")),
        .body = coded.at ? json_base64(coded) : text.at ? text : HL(""),
        .from_cache = json_true(json_get(reply.value, HL("fromCache"))),
    };
}

// A request that is being written:
//
//     hl_request request = hl_request_to(HL("GET"), HL("https://example.com/v1"));
//     hl_request_header(&request, HL("Accept"), HL("application/json"));
//     hl_response response = hl_http_fetch(&request);
typedef struct {
    hl_str method, url, body;
    hl_buf headers;
    int64_t timeout_ms;  // 0: the plugin's limits.wait alone
} hl_request;

static inline hl_request hl_request_to(hl_str method, hl_str url) {
    return (hl_request){.method = method, .url = url, .body = HL_NONE};
}

static inline void hl_request_header(hl_request *request, hl_str name, hl_str value) {
    if (request->headers.len) hl_put_char(&request->headers, ',');
    json_put_text(&request->headers, name);
    hl_put_char(&request->headers, ':');
    json_put_text(&request->headers, value);
}

static inline hl_response hl_http_fetch(const hl_request *request) {
    hl_buf json = {0};
    hl_put_char(&json, '{');
    json_put_member(&json, "method", request->method);
    json_put_member(&json, "url", request->url);
    json_put_key(&json, "headers");
    hl_put_char(&json, '{');
    hl_put(&json, hl_text(&request->headers));
    hl_put_char(&json, '}');
    if (request->body.at) {
        json_put_key(&json, "bodyBase64");
        json_put_base64(&json, request->body);
    }
    if (request->timeout_ms) {
        json_put_key(&json, "timeoutMs");
        hl_put_int(&json, request->timeout_ms);
    }
    hl_put_char(&json, '}');
    return hl_checked_response(hl_host_http_fetch(json.at, json.len));
}

static inline hl_response hl_http_post(hl_str url, hl_str content_type, hl_str body) {
    return hl_checked_response(
        hl_host_http_post(url.at, url.len, content_type.at, content_type.len, body.at, body.len));
}

#endif
