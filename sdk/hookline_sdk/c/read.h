// What types.h is made of: readers that fail the call where an input is not what the contract says, and hooks that get
// their input as a struct.

#ifndef HOOKLINE_READ_H
#define HOOKLINE_READ_H

#include "hookline.h"

_Noreturn static inline void hl_misread(const char *field, const char *how) {
    hl_buf text = {0};
    hl_put(&text, HL("the input is not what the contract says: "));
    hl_put(&text, hl_cstr(field));
    hl_put_char(&text, ' ');
    hl_put(&text, hl_cstr(how));
    hl_fail(hl_text(&text));
}

static inline json_walk hl_members(hl_str json, const char *of) {
    if (json_kind(json) != '{') hl_misread(of, "should be an object");
    return json_each(json);
}

static inline hl_str hl_read_text(hl_str json, const char *of) {
    if (json_kind(json) != '"') hl_misread(of, "should be a text");
    return json_text(json);
}

static inline bool hl_read_flag(hl_str json, const char *of) {
    if (json_kind(json) != 't' && json_kind(json) != 'f') hl_misread(of, "should be true or false");
    return json_true(json);
}

static inline int64_t hl_read_integer(hl_str json, const char *of) {
    int64_t number = json_int(json, INT64_MIN);
    if (number == INT64_MIN) hl_misread(of, "should be a whole number");
    return number;
}

// Elements of a list, or values of a map, that have to be texts.
static inline hl_str hl_read_all_texts(hl_str json, char kind, const char *of, const char *how) {
    if (json_kind(json) != kind) hl_misread(of, how);
    json_walk walk = json_each(json);
    while (json_next(&walk))
        if (json_kind(walk.value) != '"') hl_misread(of, how);
    return json;
}

static inline hl_str hl_read_texts(hl_str json, const char *of) {
    return hl_read_all_texts(json, '[', of, "should be a list of texts");
}

static inline hl_str hl_read_map(hl_str json, const char *of) {
    return hl_read_all_texts(json, '{', of, "should be an object of texts");
}

static inline hl_str hl_read_object(hl_str json, const char *of) {
    hl_members(json, of);
    return json;
}

// The text of that name in a map, such as in->hook_context.attributes or in->headers; HL_NONE where there is none.
static inline hl_str hl_in(hl_str map, const char *name) { return json_text(json_get(map, hl_cstr(name))); }

// ---- Answers of several fields. ----

static inline hl_buf hl_begin(const char *action) {
    hl_buf json = {0};
    hl_put_char(&json, '{');
    json_put_member(&json, "action", hl_cstr(action));
    return json;
}

static inline int64_t hl_end(hl_buf *json) {
    hl_put_char(json, '}');
    return hl_answer(json);
}

// ---- Hooks whose input is a struct. ----

#define HL_UNUSED __attribute__((unused))

#define HL_DECIDES(hook, input, in)                                        \
    static int64_t hl_decide_##hook(const hl_##input *in);                 \
    HL_HOOK(hook, hl_json) {                                               \
        hl_##input hl_read = hl_read_##input(hl_json, "the input");        \
        return hl_decide_##hook(&hl_read);                                 \
    }                                                                      \
    static int64_t hl_decide_##hook(HL_UNUSED const hl_##input *in)

#define HL_OBSERVES(hook, input, in)                                       \
    static void hl_observe_##hook(const hl_##input *in);                   \
    HL_HOOK(hook, hl_json) {                                               \
        hl_##input hl_read = hl_read_##input(hl_json, "the input");        \
        hl_observe_##hook(&hl_read);                                       \
        return 0;                                                          \
    }                                                                      \
    static void hl_observe_##hook(HL_UNUSED const hl_##input *in)

// An array of two.
static inline void hl_read_pair(hl_str json, hl_str *first, hl_str *second) {
    json_walk walk = json_each(json);
    bool both = json_kind(json) == '[' && json_next(&walk);
    *first = walk.value;
    both = both && json_next(&walk);
    *second = walk.value;
    if (!both || json_next(&walk)) hl_misread("the input", "should be a list of two");
}

#define HL_OBSERVES_PAIR(hook, input, input2, in, in2)                                 \
    static void hl_observe_##hook(const hl_##input *in, const hl_##input2 *in2);       \
    HL_HOOK(hook, hl_json) {                                                           \
        hl_str hl_first, hl_second;                                                    \
        hl_read_pair(hl_json, &hl_first, &hl_second);                                  \
        hl_##input hl_read = hl_read_##input(hl_first, "the first element");           \
        hl_##input2 hl_read2 = hl_read_##input2(hl_second, "the second element");      \
        hl_observe_##hook(&hl_read, &hl_read2);                                        \
        return 0;                                                                      \
    }                                                                                  \
    static void hl_observe_##hook(HL_UNUSED const hl_##input *in, HL_UNUSED const hl_##input2 *in2)

#endif
