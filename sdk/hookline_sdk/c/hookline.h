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

#include "host.h"

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
