// Bytes and memory without a libc: slices, a bump allocator, a growing buffer. Outside of wasm, native.h has what the
// host gives.
//
// Memory is only ever taken, never given back one by one: a call is short. When the host gives back the
// input, which is always the first block of a call, the call is over and all of it is free again. So a
// plugin runs as well with `isolation: Pooled` as with `PerCall`, and needs no free(). Keep no pointer
// into this memory in a static variable: it would outlive the call.
//
// Short inputs have a place of their own, so that the host need not ask for one: then all is free again when
// the next hook begins.

#ifndef HOOKLINE_MEMORY_H
#define HOOKLINE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __wasm__

// What the compiler expects of every environment. `no_builtin` keeps it from turning the loops into
// calls to themselves.
__attribute__((no_builtin)) void *memcpy(void *to, const void *from, size_t len) {
    for (size_t i = 0; i < len; i++) ((char *)to)[i] = ((const char *)from)[i];
    return to;
}

__attribute__((no_builtin)) void *memmove(void *to, const void *from, size_t len) {
    if ((uintptr_t)to <= (uintptr_t)from) return memcpy(to, from, len);
    while (len--) ((char *)to)[len] = ((const char *)from)[len];
    return to;
}

__attribute__((no_builtin)) void *memset(void *to, int byte, size_t len) {
    for (size_t i = 0; i < len; i++) ((char *)to)[i] = (char)byte;
    return to;
}

__attribute__((no_builtin)) int memcmp(const void *a, const void *b, size_t len) {
    for (size_t i = 0; i < len; i++) {
        int difference = ((const unsigned char *)a)[i] - ((const unsigned char *)b)[i];
        if (difference) return difference;
    }
    return 0;
}

#define HL_EXPORT(name) __attribute__((export_name(name)))

extern char __heap_base;  // set by the linker: behind the data and the stack

static inline uintptr_t hl_heap(void) { return ((uintptr_t)&__heap_base + 15) & ~(uintptr_t)15; }

// Whether there is memory up to this address, perhaps after asking for more.
static inline bool hl_reach(uint64_t end) {
    uint64_t pages = (end + 0xffff) >> 16, have = __builtin_wasm_memory_size(0);
    if (pages > 0xffff) return false;
    return pages <= have || __builtin_wasm_memory_grow(0, (size_t)(pages - have)) != (size_t)-1;
}

// An address as the host has it, and back.
static inline uint32_t hl_place(const void *at) { return (uint32_t)(uintptr_t)at; }
static inline void *hl_at(uint32_t place) { return (void *)(uintptr_t)place; }

_Noreturn static inline void hl_trap(void) { __builtin_trap(); }

#else
#include "native.h"
#endif

// A piece of text that somebody else holds. `at` is NULL where there is nothing, which is not the same as
// an empty text.
typedef struct {
    const char *at;
    size_t len;
} hl_str;

#define HL(literal) ((hl_str){"" literal, sizeof(literal) - 1})
#define HL_NONE ((hl_str){NULL, 0})

static inline hl_str hl_cstr(const char *text) {
    size_t len = 0;
    while (text[len]) len++;
    return (hl_str){text, len};
}

static inline bool hl_equal(hl_str a, hl_str b) {
    return a.at && b.at && a.len == b.len && memcmp(a.at, b.at, a.len) == 0;
}

static inline bool hl_starts(hl_str text, hl_str with) {
    return text.len >= with.len && memcmp(text.at, with.at, with.len) == 0;
}

static inline char hl_lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c; }

// Equal but for the case of ASCII letters.
static inline bool hl_alike(hl_str a, hl_str b) {
    if (!a.at || !b.at || a.len != b.len) return false;
    for (size_t i = 0; i < a.len; i++)
        if (hl_lower(a.at[i]) != hl_lower(b.at[i])) return false;
    return true;
}

static inline bool hl_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

static inline hl_str hl_trim(hl_str text) {
    while (text.len && hl_blank(text.at[0])) text.at++, text.len--;
    while (text.len && hl_blank(text.at[text.len - 1])) text.len--;
    return text;
}

// The part of `list` before the next comma, without spaces around it; takes it off the list.
static inline hl_str hl_split(hl_str *list) {
    size_t len = 0;
    while (len < list->len && list->at[len] != ',') len++;
    hl_str part = hl_trim((hl_str){list->at, len});
    size_t taken = len < list->len ? len + 1 : len;
    list->at += taken, list->len -= taken;
    return part;
}

static uintptr_t hl_taken;  // the end of what is taken; 0 at the start of a call

// A block of at least one byte, aligned to 16; NULL where the host gives no more memory.
static inline void *hl_try_alloc(size_t size) {
    uint64_t start = hl_taken ? hl_taken : hl_heap();
    uint64_t end = (start + (size ? size : 1) + 15) & ~(uint64_t)15;
    if (!hl_reach(end)) return NULL;
    hl_taken = (uintptr_t)end;
    return (void *)(uintptr_t)start;
}

// The same for the plugin's own use. Without memory there is no answer to give: the call fails, and the
// resource's failurePolicy decides.
static inline void *hl_alloc(size_t size) {
    void *block = hl_try_alloc(size);
    if (!block) hl_trap();
    return block;
}

// For loops: what was taken since the mark is free again after the release.
static inline uintptr_t hl_mark(void) { return hl_taken; }
static inline void hl_release(uintptr_t mark) { hl_taken = mark; }

enum { HL_INPUT_ROOM = 8192 };
static char hl_input_room[HL_INPUT_ROOM];

HL_EXPORT("hookline_input") uint64_t hl_input_region(void) {
    return (uint64_t)hl_place(hl_input_room) << 32 | HL_INPUT_ROOM;
}

HL_EXPORT("alloc") void *alloc(size_t size) { return hl_try_alloc(size); }

HL_EXPORT("dealloc") void dealloc(void *block, size_t size) {
    (void)size;
    if ((uintptr_t)block == hl_heap()) hl_taken = 0;
}

// Text that grows at its end. Start with {0}.
typedef struct {
    char *at;
    size_t len, room;
} hl_buf;

static inline void hl_put(hl_buf *buf, hl_str text) {
    if (!text.len) return;
    if (text.len > buf->room - buf->len) {
        size_t room = buf->room * 2 + text.len + 64;
        char *at = hl_alloc(room);
        if (buf->len) memcpy(at, buf->at, buf->len);
        buf->at = at, buf->room = room;
    }
    memcpy(buf->at + buf->len, text.at, text.len);
    buf->len += text.len;
}

static inline void hl_put_char(hl_buf *buf, char c) { hl_put(buf, (hl_str){&c, 1}); }

static inline void hl_put_int(hl_buf *buf, int64_t number) {
    char digits[20];
    size_t at = sizeof digits;
    uint64_t rest = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    do digits[--at] = (char)('0' + rest % 10);
    while (rest /= 10);
    if (number < 0) hl_put_char(buf, '-');
    hl_put(buf, (hl_str){digits + at, sizeof digits - at});
}

static inline hl_str hl_text(const hl_buf *buf) { return (hl_str){buf->at ? buf->at : "", buf->len}; }

#endif
