// Everything a Hookline plugin in C needs: hooks, answers, host functions. Header only, no libc.
//
//     #include "hookline.h"
//
//     HL_PRE_QUERY(in) {
//         return in->query.len > 10000 ? hl_block(HL("the query is too long")) : hl_continue();
//     }
//
// types.h has such a line for each hook, its input as a struct, and its answers. An input that is not what the contract
// says fails the call before the body runs. HL_HOOK gives the input as JSON instead.
//
// A plugin that cannot do its work (no permission, a full store) calls hl_fail(): the call fails with cause `trap`, and
// the resource's failurePolicy decides what that means. Never guess. HL_PANIC and HL_MUST also log where.
//
// A test includes hookline_test.h, which has a host in memory, and is compiled for the machine.

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
    return (int64_t)((uint64_t)hl_place(json->at) << 32 | json->len);
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
    HL_EXPORT(#hook) int64_t hl_call_##hook(const char *at, size_t len) {                \
        if (at == hl_input_room) hl_release(0);                                          \
        return hl_on_##hook(hl_checked(at, len));                                        \
    }                                                                                    \
    static int64_t hl_on_##hook(hl_str input)

#include "types.h"

// Whether the proxy sent this role: one of the attribute identity.roles, which has commas between them.
static inline bool hl_has_role(const hl_hook_context *context, hl_str role) {
    hl_str roles = hl_in(context->attributes, "identity.roles");
    while (roles.len)
        if (hl_equal(hl_split(&roles), role)) return true;
    return false;
}

#endif
