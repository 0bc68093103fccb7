// A host in memory, for tests that are compiled for the machine:
//
//     #include "hookline_test.h"
//     #include "my-plugin.c"
//
//     int main(void) {
//         hl_test_config("{\"max_length\": 20}");
//         HL_EXPECT(hl_test_has(HL_CALL(pre_query, "{\"query\": \"select 1\"}"), "continue"));
//         return hl_test_done();
//     }
//
// Keys and caches are kept in memory, what the plugin logs and counts is noted, and nobody is reached: what a database
// or a server would say, the test says. hl_test_begin() makes all of it fresh.

#ifndef HOOKLINE_TEST_H
#define HOOKLINE_TEST_H

#ifdef __wasm__
#error "hookline_test.h is for tests, which are compiled for the machine and not for wasm"
#endif

#include <setjmp.h>
#include <stdio.h>

#include "hookline.h"
#include "test_hash.h"

// Texts by name, of any number.
typedef struct hl_test_entry {
    struct hl_test_entry *next;
    char *name, *value;
    size_t name_len, value_len;
    double number;
} hl_test_entry;

static struct {
    hl_test_entry *keys, *caches, *metrics, *answers, *denied, *log;
    char *config;
    int64_t now;
    jmp_buf trapped;
    bool calling, failed;
    int wrong;
} hl_test = {.now = 1767225600000};

static char *hl_test_copy(hl_str text) {
    char *copy = malloc(text.len + 1);
    if (!copy) abort();
    if (text.len) memcpy(copy, text.at, text.len);
    copy[text.len] = 0;
    return copy;
}

static hl_test_entry *hl_test_find(hl_test_entry *list, hl_str name) {
    while (list && !hl_equal((hl_str){list->name, list->name_len}, name)) list = list->next;
    return list;
}

static hl_test_entry *hl_test_put(hl_test_entry **list, hl_str name, hl_str value) {
    hl_test_entry *entry = hl_test_find(*list, name);
    if (!entry) {
        entry = calloc(1, sizeof *entry);
        if (!entry) abort();
        entry->name = hl_test_copy(name), entry->name_len = name.len;
        entry->next = *list, *list = entry;
    }
    free(entry->value);
    entry->value = hl_test_copy(value), entry->value_len = value.len;
    return entry;
}

static bool hl_test_drop(hl_test_entry **list, hl_str name) {
    for (; *list; list = &(*list)->next) {
        hl_test_entry *entry = *list;
        if (!hl_equal((hl_str){entry->name, entry->name_len}, name)) continue;
        *list = entry->next;
        free(entry->name), free(entry->value), free(entry);
        return true;
    }
    return false;
}

static void hl_test_clear(hl_test_entry **list) {
    while (*list) hl_test_drop(list, (hl_str){(*list)->name, (*list)->name_len});
}

// ---- What a test says. ----

// All as it is at first: no keys, no config, everything granted.
static inline void hl_test_begin(void) {
    hl_test_entry **lists[] = {&hl_test.keys, &hl_test.caches, &hl_test.metrics, &hl_test.answers, &hl_test.denied, &hl_test.log};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) hl_test_clear(lists[i]);
    free(hl_test.config);
    hl_test.config = NULL;
    hl_test.now = 1767225600000;
}

// spec.config, a JSON object.
static inline void hl_test_config(const char *json) {
    free(hl_test.config);
    hl_test.config = hl_test_copy(hl_cstr(json));
}

// A permission that the resource does not grant, such as "kv.write".
static inline void hl_test_deny(const char *permission) { hl_test_put(&hl_test.denied, hl_cstr(permission), HL("")); }

static inline void hl_test_key(const char *key, const char *value) {
    hl_test_put(&hl_test.keys, hl_cstr(key), hl_cstr(value));
}

// What a function that would ask somebody else answers from now on: the JSON that docs/host-functions.md has.
static inline void hl_test_answer(const char *function, const char *json) {
    hl_test_put(&hl_test.answers, hl_cstr(function), hl_cstr(json));
}

// ---- What a test asks. ----

static inline bool hl_test_contains(hl_str text, hl_str part) {
    for (size_t i = 0; i + part.len <= text.len; i++)
        if (memcmp(text.at + i, part.at, part.len) == 0) return true;
    return false;
}

// Whether the answer, or any text, has this in it.
static inline bool hl_test_has(hl_str text, const char *part) { return hl_test_contains(text, hl_cstr(part)); }

// Whether a line of the log has this in it.
static inline bool hl_test_logged(const char *part) {
    for (hl_test_entry *line = hl_test.log; line; line = line->next)
        if (hl_test_contains((hl_str){line->value, line->value_len}, hl_cstr(part))) return true;
    return false;
}

static inline double hl_test_metric(const char *name) {
    hl_test_entry *entry = hl_test_find(hl_test.metrics, hl_cstr(name));
    return entry ? entry->number : 0;
}

// Asks a hook as the host does. Its answer, until the next call; HL_NONE for the hook's default, and where the call
// failed: then hl_test.failed is true.
static inline hl_str hl_test_call(int64_t (*hook)(const char *, size_t), const char *input) {
    size_t len = strlen(input);
    hl_release(0);
    hl_test.failed = false, hl_test.calling = true;
    int64_t packed = 0;
    if (setjmp(hl_test.trapped) == 0) {
        char *at = hl_alloc(len);
        memcpy(at, input, len);
        packed = hook(at, len);
    } else {
        hl_test.failed = true;
    }
    hl_test.calling = false;
    return hl_test.failed || !packed ? HL_NONE : hl_unpack(packed).value;
}

#define HL_CALL(hook, input) hl_test_call(hl_call_##hook, input)
#define HL_EXPECT(condition) hl_test_expect((condition), __FILE__, __LINE__, #condition)

static inline void hl_test_expect(bool holds, const char *file, int line, const char *condition) {
    if (holds) return;
    hl_test.wrong++;
    fprintf(stderr, "%s:%d: it is false that %s\n", file, line, condition);
    for (hl_test_entry *entry = hl_test.log; entry; entry = entry->next) fprintf(stderr, "  logged: %s\n", entry->value);
}

// What main returns: 0 where all was as expected.
static inline int hl_test_done(void) {
    if (hl_test.wrong) fprintf(stderr, "%d expectations are wrong\n", hl_test.wrong);
    else printf("all is as expected\n");
    return hl_test.wrong != 0;
}

_Noreturn void hl_trap(void) {
    if (hl_test.calling) longjmp(hl_test.trapped, 1);
    fprintf(stderr, "the plugin trapped outside of a call\n");
    abort();
}

#include "test_host.h"

#endif
