// Calls the host function that its input names, with the arguments behind it (all apart by U+001F), and answers in
// a JSON string what the SDK made of it.

#include "hookline.h"

static hl_str rest;
static hl_buf out;

static hl_str next(void) {
    size_t len = 0;
    while (len < rest.len && rest.at[len] != 0x1f) len++;
    hl_str field = {rest.at, len};
    size_t taken = len < rest.len ? len + 1 : len;
    rest.at += taken, rest.len -= taken;
    return field;
}

static int64_t number(hl_str digits) {
    if (!digits.len) digits = next();
    return json_int(digits, 0);
}

static double real(void) { return (double)number(next()) / 4; }  // in quarters: there is no reader for more

static void say(const char *text) { hl_put(&out, hl_cstr(text)); }

static void error(int code) { say("error|"), hl_put_int(&out, code); }

static void done(hl_error code) {
    if (code) error(code);
    else say("ok");
}

static void bytes(hl_bytes found) {
    if (found.error) return error(found.error);
    if (!found.value.at) return say("none");
    say("some|"), hl_put(&out, found.value);
}

static void num(hl_number found) {
    if (found.error) return error(found.error);
    hl_put_int(&out, found.value);
}

static void yes(hl_number found) {
    if (found.error) return error(found.error);
    say(found.value ? "true" : "false");
}

static void failure(hl_str cause, hl_str message, hl_str sqlstate) {
    say("failure|"), hl_put(&out, cause), say("|"), hl_put(&out, message), say("|"), hl_put(&out, sqlstate);
}

static void list(hl_str json, const char *member) {
    json_walk walk = json_each(json);
    for (bool first = true; json_next(&walk); first = false) {
        if (!first) say(",");
        hl_put(&out, json_text(member ? json_find(walk.value, member) : walk.value));
    }
}

static void response(hl_response found) {
    if (found.failed) return failure(found.cause, found.message, HL_NONE);
    hl_put_int(&out, found.status), say("|");
    hl_put(&out, json_text(json_get(found.headers, HL("content-type")))), say("|");
    hl_put(&out, found.body), say(found.from_cache ? "|true" : "|false");
}

static void query(hl_str function) {
    if (hl_equal(function, HL("query_execute"))) {
        hl_str source = next(), sql = next();
        hl_buf params = {0};
        while (rest.len) {
            hl_str param = next();
            hl_str value = {param.at + 1, param.len - 1};
            switch (param.at[0]) {
                case 'n': hl_param_null(&params); break;
                case 'b': hl_param_bool(&params, hl_equal(value, HL("true"))); break;
                case 'i': hl_param_int(&params, number(value)); break;
                case 't': hl_param_text(&params, value); break;
                default: hl_param_bytes(&params, value);
            }
        }
        hl_reply reply = hl_query_execute(source, sql, &params);
        if (reply.failed) return failure(reply.cause, reply.message, reply.sqlstate);
        hl_put_int(&out, json_int(json_get(reply.value, HL("rowCount")), -1)), say("|");
        list(json_get(reply.value, HL("columns")), "name"), say("|");
        list(json_get(reply.value, HL("columns")), "type"), say("|");
        json_walk rows = json_each(json_get(reply.value, HL("rows")));
        while (json_next(&rows)) list(rows.value, NULL), say(";");
    } else if (hl_equal(function, HL("query_prepare"))) {
        hl_str source = next();
        hl_reply reply = hl_query_prepare(source, next());
        if (reply.failed) return failure(reply.cause, reply.message, reply.sqlstate);
        list(json_get(reply.value, HL("parameters")), NULL), say("|");
        list(json_get(reply.value, HL("columns")), "name");
    } else if (hl_equal(function, HL("query_get_tables"))) {
        hl_reply reply = hl_query_get_tables(next());
        if (reply.failed) return failure(reply.cause, reply.message, reply.sqlstate);
        list(reply.value, NULL);
    } else {
        hl_reply reply = hl_query_normalize(next());
        if (reply.failed) return failure(reply.cause, reply.message, reply.sqlstate);
        hl_put(&out, json_text(json_get(reply.value, HL("sql"))));
    }
}

static void keys(hl_str function) {
    hl_str key = next();
    if (hl_equal(function, HL("kv_get"))) bytes((hl_bytes){hl_kv_get(key), HL_OK});
    else if (hl_equal(function, HL("kv_set"))) done(hl_kv_set(key, next()) ? HL_OK : HL_E_MEMORY);
    else if (hl_equal(function, HL("kv_delete"))) done(hl_kv_delete(key) ? HL_OK : HL_E_MEMORY);
    else if (hl_equal(function, HL("kv_incr"))) num(hl_kv_incr(key, number(next())));
    else if (hl_equal(function, HL("kv_set_ttl"))) yes(hl_kv_set_ttl(key, number(next())));
    else if (hl_equal(function, HL("kv_list"))) {
        hl_bytes found = hl_kv_list(key);
        if (found.error) error(found.error);
        else list(found.value, NULL);
    } else {
        hl_str was = next();
        yes(hl_kv_compare_and_set(key, hl_equal(was, HL("-")) ? HL_NONE : was, next()));
    }
}

static void cache(hl_str function) {
    hl_str name = next(), key = next();
    if (hl_equal(function, HL("cache_get"))) bytes(hl_cache_get(name, key));
    else if (hl_equal(function, HL("cache_exists"))) yes(hl_cache_exists(name, key));
    else if (hl_equal(function, HL("cache_delete"))) yes(hl_cache_delete(name, key));
    else {
        hl_str value = next();
        done(hl_cache_set(name, key, value, number(next())));
    }
}

static void basic(hl_str function) {
    hl_str first = next();
    if (hl_equal(function, HL("log"))) hl_log((int)number(first), next()), say("ok");
    else if (hl_equal(function, HL("get_time"))) hl_put_int(&out, hl_get_time());
    else if (hl_equal(function, HL("get_config"))) bytes(hl_get_config(first));
    else if (hl_equal(function, HL("metric_inc"))) done(hl_metric_inc(first, real()));
    else if (hl_equal(function, HL("metric_gauge"))) done(hl_metric_gauge(first, real()));
    else if (hl_equal(function, HL("metric_observe"))) done(hl_metric_observe(first, real()));
    else if (hl_equal(function, HL("sha256_hex"))) bytes((hl_bytes){hl_sha256_hex(first), HL_OK});
    else if (hl_equal(function, HL("hmac_sha256"))) bytes(hl_hmac_sha256(first, next()));
    else if (hl_equal(function, HL("random"))) {
        size_t len = (size_t)number(first);
        char *to = hl_alloc(len);
        hl_error code = hl_random(to, len);
        bytes((hl_bytes){code ? HL_NONE : (hl_str){to, len}, code});
    } else if (hl_equal(function, HL("http_post"))) {
        hl_str type = next();
        response(hl_http_post(first, type, next()));
    } else {
        hl_request request = hl_request_to(first, next());
        hl_str name = next();
        if (name.len) hl_request_header(&request, name, next());
        else next();
        hl_str body = next();
        if (body.len) request.body = body;
        request.timeout_ms = number(next());
        response(hl_http_fetch(&request));
    }
}

__attribute__((export_name("custom_hook"))) int64_t custom_hook(const char *at, size_t len) {
    if (at == hl_input_room) hl_release(0);
    rest = (hl_str){at, len};
    out = (hl_buf){0};
    hl_str function = next();
    if (hl_starts(function, HL("query_"))) query(function);
    else if (hl_starts(function, HL("kv_"))) keys(function);
    else if (hl_starts(function, HL("cache_"))) cache(function);
    else basic(function);
    hl_buf answer = {0};
    json_put_text(&answer, hl_text(&out));
    return hl_answer(&answer);
}
