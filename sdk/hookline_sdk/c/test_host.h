// The host functions of hookline_test.h.

#ifndef HOOKLINE_TEST_HOST_H
#define HOOKLINE_TEST_HOST_H

static bool hl_test_denies(const char *permission) {
    return hl_test_find(hl_test.denied, hl_cstr(permission)) != NULL;
}

// As the host answers bytes: from alloc, packed.
static int64_t hl_test_give(hl_str text) {
    char *at = hl_alloc(text.len);
    if (text.len) memcpy(at, text.at, text.len);
    return (int64_t)((uint64_t)hl_place(at) << 32 | text.len);
}

int32_t hl_host_kv_get(const char *key, size_t key_len, char *out, size_t out_max) {
    hl_test_entry *entry = hl_test_find(hl_test.keys, (hl_str){key, key_len});
    if (!entry || hl_test_denies("kv.read")) return -1;
    if (entry->value_len > out_max) return HL_E_SIZE;
    memcpy(out, entry->value, entry->value_len);
    return (int32_t)entry->value_len;
}

static hl_error hl_test_write(hl_str key, hl_str value) {
    size_t count = 0;
    for (hl_test_entry *entry = hl_test.keys; entry; entry = entry->next) count++;
    if (hl_test_denies("kv.write")) return HL_E_DENIED;
    if (key.len > HL_KV_MAX || value.len > HL_KV_MAX) return HL_E_SIZE;
    if (count >= 1024 && !hl_test_find(hl_test.keys, key)) return HL_E_CAP;
    hl_test_put(&hl_test.keys, key, value);
    return HL_OK;
}

int32_t hl_host_kv_set(const char *key, size_t key_len, const char *val, size_t val_len) {
    return hl_test_write((hl_str){key, key_len}, (hl_str){val, val_len}) ? -1 : 0;
}

int32_t hl_host_kv_delete(const char *key, size_t key_len) {
    if (hl_test_denies("kv.write")) return -1;
    hl_test_drop(&hl_test.keys, (hl_str){key, key_len});
    return 0;
}

static int hl_test_order(const void *a, const void *b) {
    return strcmp((*(hl_test_entry *const *)a)->name, (*(hl_test_entry *const *)b)->name);
}

int64_t hl_host_kv_list(const char *prefix, size_t len) {
    hl_test_entry *found[1024];
    size_t count = 0;
    if (hl_test_denies("kv.read")) return -HL_E_DENIED;
    for (hl_test_entry *entry = hl_test.keys; entry; entry = entry->next)
        if (hl_starts((hl_str){entry->name, entry->name_len}, (hl_str){prefix, len})) found[count++] = entry;
    qsort(found, count, sizeof *found, hl_test_order);
    hl_buf list = {0};
    hl_put_char(&list, '[');
    for (size_t i = 0; i < count; i++) {
        if (i) hl_put_char(&list, ',');
        json_put_text(&list, (hl_str){found[i]->name, found[i]->name_len});
    }
    hl_put_char(&list, ']');
    return hl_test_give(hl_text(&list));
}

int64_t hl_host_kv_incr(const char *key, size_t key_len, int64_t by) {
    hl_str name = {key, key_len};
    hl_test_entry *entry = hl_test_find(hl_test.keys, name);
    char *end = NULL;
    int64_t number = entry ? strtoll(entry->value, &end, 10) : 0;
    if (entry && (end == entry->value || *end)) return INT64_MIN;
    hl_buf digits = {0};
    hl_put_int(&digits, number + by);
    return hl_test_write(name, hl_text(&digits)) ? INT64_MIN : number + by;
}

int32_t hl_host_kv_compare_and_set(const char *key, size_t key_len, const char *was, int32_t was_len,
                                   const char *val, size_t val_len) {
    hl_str name = {key, key_len};
    hl_test_entry *entry = hl_test_find(hl_test.keys, name);
    if (hl_test_denies("kv.write")) return HL_E_DENIED;
    if ((entry != NULL) != (was_len >= 0)) return 0;
    if (entry && !hl_equal((hl_str){entry->value, entry->value_len}, (hl_str){was, (size_t)was_len})) return 0;
    hl_error error = hl_test_write(name, (hl_str){val, val_len});
    return error ? (int32_t)error : 1;
}

// Nothing ends here by itself.
int32_t hl_host_kv_set_ttl(const char *key, size_t key_len, int64_t ttl_ms) {
    (void)ttl_ms;
    if (hl_test_denies("kv.write")) return HL_E_DENIED;
    return hl_test_find(hl_test.keys, (hl_str){key, key_len}) != NULL;
}

int32_t hl_host_sha256_hex(const char *in, size_t in_len, char *out) {
    static const char digits[] = "0123456789abcdef";
    if (hl_test_denies("crypto")) return -1;
    uint8_t sum[32];
    hl_test_sha256((hl_str){in, in_len}, HL(""), sum);
    for (size_t i = 0; i < 64; i++) out[i] = digits[i % 2 ? sum[i / 2] & 15 : sum[i / 2] >> 4];
    return 64;
}

int32_t hl_host_hmac_sha256(const char *key, size_t key_len, const char *in, size_t in_len, char *out) {
    if (hl_test_denies("crypto")) return HL_E_DENIED;
    hl_test_hmac_sha256((hl_str){key, key_len}, (hl_str){in, in_len}, (uint8_t *)out);
    return 0;
}

// The list has the newest line first; each is an entry of its own.
int32_t hl_host_log(int32_t level, const char *line, size_t len) {
    char name[32];
    static int64_t count;
    int size = snprintf(name, sizeof name, "%d %lld", level, (long long)count++);
    hl_test_put(&hl_test.log, (hl_str){name, (size_t)size}, (hl_str){line, len});
    return 0;
}

int64_t hl_host_get_time(void) { return hl_test.now; }

// The same numbers in every run, so that a test says the same.
int32_t hl_host_random(char *out, size_t len) {
    static uint64_t state = 0x9e3779b97f4a7c15;
    if (len > 4096) return HL_E_SIZE;
    for (size_t i = 0; i < len; i++) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        out[i] = (char)(state >> 32);
    }
    return 0;
}

int64_t hl_host_get_config(const char *path, size_t len) {
    if (hl_test_denies("config.read")) return -HL_E_DENIED;
    hl_str found = hl_cstr(hl_test.config ? hl_test.config : "{}");
    if (!json_valid(found)) return hl_test_expect(false, __FILE__, __LINE__, "the config is JSON"), -HL_E_UNAVAILABLE;
    found = hl_trim(found);
    for (hl_str rest = {path, len}; rest.len;) {
        size_t dot = 0;
        while (dot < rest.len && rest.at[dot] != '.') dot++;
        found = json_get(found, (hl_str){rest.at, dot});
        size_t taken = dot < rest.len ? dot + 1 : dot;
        rest.at += taken, rest.len -= taken;
    }
    return found.at ? hl_test_give(found) : 0;
}

static int32_t hl_test_measure(const char *name, size_t len, double value, bool counts) {
    if (hl_test_denies("metrics")) return HL_E_DENIED;
    hl_test_entry *entry = hl_test_find(hl_test.metrics, (hl_str){name, len});
    if (!entry) entry = hl_test_put(&hl_test.metrics, (hl_str){name, len}, HL(""));
    entry->number = counts ? entry->number + value : value;
    return 0;
}

int32_t hl_host_metric_inc(const char *name, size_t len, double by) { return hl_test_measure(name, len, by, true); }
int32_t hl_host_metric_gauge(const char *name, size_t len, double value) {
    return hl_test_measure(name, len, value, false);
}
int32_t hl_host_metric_observe(const char *name, size_t len, double value) {
    return hl_test_measure(name, len, value, true);
}

static hl_str hl_test_cache_name(const char *cache, size_t cache_len, const char *key, size_t key_len) {
    hl_buf name = {0};
    hl_put(&name, (hl_str){cache, cache_len});
    hl_put_char(&name, '/');
    hl_put(&name, (hl_str){key, key_len});
    return hl_text(&name);
}

int64_t hl_host_cache_get(const char *cache, size_t cache_len, const char *key, size_t key_len) {
    if (hl_test_denies("cache.read")) return -HL_E_DENIED;
    hl_test_entry *entry = hl_test_find(hl_test.caches, hl_test_cache_name(cache, cache_len, key, key_len));
    return entry ? hl_test_give((hl_str){entry->value, entry->value_len}) : 0;
}

int32_t hl_host_cache_exists(const char *cache, size_t cache_len, const char *key, size_t key_len) {
    if (hl_test_denies("cache.read")) return HL_E_DENIED;
    return hl_test_find(hl_test.caches, hl_test_cache_name(cache, cache_len, key, key_len)) != NULL;
}

int32_t hl_host_cache_set(const char *cache, size_t cache_len, const char *key, size_t key_len, const char *val,
                          size_t val_len, int64_t ttl_ms) {
    if (hl_test_denies("cache.write")) return HL_E_DENIED;
    if (ttl_ms < 0) return HL_E_ARGUMENT;
    hl_test_put(&hl_test.caches, hl_test_cache_name(cache, cache_len, key, key_len), (hl_str){val, val_len});
    return 0;
}

int32_t hl_host_cache_delete(const char *cache, size_t cache_len, const char *key, size_t key_len) {
    if (hl_test_denies("cache.write")) return HL_E_DENIED;
    return hl_test_drop(&hl_test.caches, hl_test_cache_name(cache, cache_len, key, key_len));
}

// What the test says that this function answers.
static int64_t hl_test_given(const char *function, const char *permission) {
    if (hl_test_denies(permission))
        return hl_test_give(HL("{\"error\":{\"cause\":\"denied\",\"message\":\"the permission is not granted\"}}"));
    hl_test_entry *entry = hl_test_find(hl_test.answers, hl_cstr(function));
    if (entry) return hl_test_give((hl_str){entry->value, entry->value_len});
    return hl_test_give(HL("{\"error\":{\"cause\":\"failed\",\"message\":\"the test has no hl_test_answer for it\"}}"));
}

#define HL_TEST_ASKED(name, permission, ...) \
    int64_t hl_host_##name(__VA_ARGS__) { return hl_test_given(#name, permission); }

HL_TEST_ASKED(query_execute, "query.execute", HL_UNUSED const char *source, HL_UNUSED size_t source_len,
              HL_UNUSED const char *sql, HL_UNUSED size_t sql_len, HL_UNUSED const char *params,
              HL_UNUSED size_t params_len)
HL_TEST_ASKED(query_prepare, "query.execute", HL_UNUSED const char *source, HL_UNUSED size_t source_len,
              HL_UNUSED const char *sql, HL_UNUSED size_t sql_len)
HL_TEST_ASKED(query_get_tables, "query.execute", HL_UNUSED const char *sql, HL_UNUSED size_t len)
HL_TEST_ASKED(query_normalize, "query.execute", HL_UNUSED const char *sql, HL_UNUSED size_t len)
HL_TEST_ASKED(http_fetch, "http.fetch", HL_UNUSED const char *request, HL_UNUSED size_t len)
HL_TEST_ASKED(http_post, "http.fetch", HL_UNUSED const char *url, HL_UNUSED size_t url_len, HL_UNUSED const char *type,
              HL_UNUSED size_t type_len, HL_UNUSED const char *body, HL_UNUSED size_t body_len)

#endif
