// A strict JSON reader that builds no tree, and what is needed to write JSON.
//
// json_valid() checks a whole document once: RFC 8259, UTF-8, no lone surrogates, at most 64 levels. After
// that a value is just its text within the document, and finding one is a walk over the text. Only strings
// with escapes are copied, when they are asked for. Of repeated keys the last one counts, as in most parsers.

#ifndef HOOKLINE_JSON_H
#define HOOKLINE_JSON_H

#include "memory.h"

enum { JSON_MAX_DEPTH = 64 };

static inline const char *json_space(const char *p, const char *end) {
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) p++;
    return p;
}

// Four hexadecimal digits; -1 where there are none.
static inline int32_t json_hex4(const char *p, const char *end) {
    if (end - p < 4) return -1;
    int32_t value = 0;
    for (int i = 0; i < 4; i++) {
        char c = hl_lower(p[i]);
        if (c >= '0' && c <= '9') value = value * 16 + (c - '0');
        else if (c >= 'a' && c <= 'f') value = value * 16 + (c - 'a' + 10);
        else return -1;
    }
    return value;
}

// The length of the well-formed UTF-8 sequence at p, which is not ASCII; 0 where it is malformed.
static inline size_t json_utf8(const char *p, const char *end) {
    const unsigned char *u = (const unsigned char *)p;
    size_t len = u[0] >= 0xc2 && u[0] <= 0xdf ? 2 : (u[0] & 0xf0) == 0xe0 ? 3 : u[0] >= 0xf0 && u[0] <= 0xf4 ? 4 : 0;
    if (len == 0 || (size_t)(end - p) < len) return 0;
    for (size_t i = 1; i < len; i++)
        if ((u[i] & 0xc0) != 0x80) return 0;
    if (u[0] == 0xe0 && u[1] < 0xa0) return 0;  // overlong
    if (u[0] == 0xed && u[1] > 0x9f) return 0;  // surrogates
    if (u[0] == 0xf0 && u[1] < 0x90) return 0;  // overlong
    if (u[0] == 0xf4 && u[1] > 0x8f) return 0;  // past U+10FFFF
    return len;
}

// The json_check functions return the end of what they checked, NULL where it is malformed.
static inline const char *json_check_string(const char *p, const char *end) {
    if (p == end || *p++ != '"') return NULL;
    while (p < end) {
        unsigned char c = (unsigned char)*p;
        if (c == '"') return p + 1;
        if (c < 0x20) return NULL;
        if (c >= 0x80) {
            size_t len = json_utf8(p, end);
            if (len == 0) return NULL;
            p += len;
        } else if (c != '\\') {
            p++;
        } else {
            if (++p == end) return NULL;
            char escape = *p++;
            if (escape == 'u') {
                int32_t unit = json_hex4(p, end);
                if (unit < 0 || (unit >= 0xdc00 && unit <= 0xdfff)) return NULL;
                p += 4;
                if (unit >= 0xd800 && unit <= 0xdbff) {
                    if (end - p < 6 || p[0] != '\\' || p[1] != 'u') return NULL;
                    unit = json_hex4(p + 2, end);
                    if (unit < 0xdc00 || unit > 0xdfff) return NULL;
                    p += 6;
                }
            } else if (escape != '"' && escape != '\\' && escape != '/' && escape != 'b' && escape != 'f' &&
                       escape != 'n' && escape != 'r' && escape != 't') {
                return NULL;
            }
        }
    }
    return NULL;
}

static inline const char *json_check_digits(const char *p, const char *end) {
    const char *start = p;
    while (p < end && *p >= '0' && *p <= '9') p++;
    return p == start ? NULL : p;
}

static inline const char *json_check_number(const char *p, const char *end) {
    if (p < end && *p == '-') p++;
    if (p < end && *p == '0') p++;
    else if (!(p = json_check_digits(p, end))) return NULL;
    if (p < end && *p == '.' && !(p = json_check_digits(p + 1, end))) return NULL;
    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < end && (*p == '+' || *p == '-')) p++;
        p = json_check_digits(p, end);
    }
    return p;
}

static const char *json_check(const char *p, const char *end, int depth) {
    if (p == end || depth > JSON_MAX_DEPTH) return NULL;
    if (*p == '"') return json_check_string(p, end);
    if (*p == '{' || *p == '[') {
        bool object = *p == '{';
        char close = object ? '}' : ']';
        p = json_space(p + 1, end);
        if (p < end && *p == close) return p + 1;
        for (;;) {
            if (object) {
                if (!(p = json_check_string(p, end))) return NULL;
                p = json_space(p, end);
                if (p == end || *p++ != ':') return NULL;
                p = json_space(p, end);
            }
            if (!(p = json_check(p, end, depth + 1))) return NULL;
            p = json_space(p, end);
            if (p == end) return NULL;
            if (*p == close) return p + 1;
            if (*p++ != ',') return NULL;
            p = json_space(p, end);
        }
    }
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < 3; i++) {
        hl_str word = hl_cstr(words[i]);
        if (hl_starts((hl_str){p, (size_t)(end - p)}, word)) return p + word.len;
    }
    return json_check_number(p, end);
}

static inline bool json_valid(hl_str document) {
    const char *end = document.at + document.len;
    const char *p = json_check(json_space(document.at, end), end, 1);
    return p && json_space(p, end) == end;
}

// ---- Reading, of documents that are valid. ----

// The end of the string whose opening quote is at p.
static inline const char *json_string_end(const char *p) {
    for (p++; *p != '"'; p++)
        if (*p == '\\') p++;
    return p + 1;
}

// The end of the value at p.
static inline const char *json_value_end(const char *p, const char *end) {
    if (*p == '"') return json_string_end(p);
    int depth = 0;
    while (p < end) {
        if (*p == '"') {
            p = json_string_end(p);
            continue;
        }
        if (*p == '{' || *p == '[') depth++;
        if (*p == '}' || *p == ']') {
            if (depth == 0) return p;  // behind a number or a word
            if (--depth == 0) return p + 1;
        }
        if (depth == 0 && (*p == ',' || *p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) return p;
        p++;
    }
    return p;
}

// '{' object, '[' array, '"' string, 't' true, 'f' false, 'n' null, '0' number; 0 where there is nothing.
static inline char json_kind(hl_str value) {
    if (!value.at || !value.len) return 0;
    char c = value.at[0];
    return c == '-' || (c >= '0' && c <= '9') ? '0' : c;
}

// A walk over the members of an object or the elements of an array; over nothing for any other value.
//
//     json_walk walk = json_each(value);
//     while (json_next(&walk)) … walk.key … walk.value …
typedef struct {
    const char *p, *end;
    bool object;
    hl_str key;    // of an object's member: a JSON string, see json_text()
    hl_str value;
} json_walk;

static inline json_walk json_each(hl_str value) {
    char kind = json_kind(value);
    if (kind != '{' && kind != '[') return (json_walk){0};
    return (json_walk){.p = value.at + 1, .end = value.at + value.len, .object = kind == '{'};
}

static inline bool json_next(json_walk *walk) {
    if (!walk->p) return false;
    const char *p = json_space(walk->p, walk->end);
    if (*p == ',') p = json_space(p + 1, walk->end);
    if (*p == '}' || *p == ']') return false;
    if (walk->object) {
        walk->key.at = p;
        p = json_string_end(p);
        walk->key.len = (size_t)(p - walk->key.at);
        p = json_space(json_space(p, walk->end) + 1, walk->end);
    }
    walk->value.at = p;
    walk->p = json_value_end(p, walk->end);
    walk->value.len = (size_t)(walk->p - p);
    return true;
}

// The characters of a JSON string; nothing for any other value.
static inline hl_str json_text(hl_str value) {
    if (json_kind(value) != '"') return HL_NONE;
    const char *p = value.at + 1, *end = value.at + value.len - 1;
    const char *escape = p;
    while (escape < end && *escape != '\\') escape++;
    if (escape == end) return (hl_str){p, (size_t)(end - p)};
    char *text = hl_alloc(value.len), *to = text;  // an escape is never shorter than what it stands for
    while (p < end) {
        if (*p != '\\') {
            *to++ = *p++;
            continue;
        }
        char c = p[1];
        p += 2;
        if (c != 'u') {
            *to++ = c == 'b' ? '\b' : c == 'f' ? '\f' : c == 'n' ? '\n' : c == 'r' ? '\r' : c == 't' ? '\t' : c;
            continue;
        }
        uint32_t code = (uint32_t)json_hex4(p, end);
        p += 4;
        if (code >= 0xd800 && code <= 0xdbff) {
            code = 0x10000 + ((code - 0xd800) << 10) + ((uint32_t)json_hex4(p + 2, end) - 0xdc00);
            p += 6;
        }
        if (code < 0x80) {
            *to++ = (char)code;
        } else if (code < 0x800) {
            *to++ = (char)(0xc0 | code >> 6), *to++ = (char)(0x80 | (code & 63));
        } else if (code < 0x10000) {
            *to++ = (char)(0xe0 | code >> 12), *to++ = (char)(0x80 | (code >> 6 & 63));
            *to++ = (char)(0x80 | (code & 63));
        } else {
            *to++ = (char)(0xf0 | code >> 18), *to++ = (char)(0x80 | (code >> 12 & 63));
            *to++ = (char)(0x80 | (code >> 6 & 63)), *to++ = (char)(0x80 | (code & 63));
        }
    }
    return (hl_str){text, (size_t)(to - text)};
}

// The member of an object; nothing where there is none.
static inline hl_str json_get(hl_str object, hl_str key) {
    hl_str found = HL_NONE;
    json_walk walk = json_each(object);
    while (walk.object && json_next(&walk))
        if (hl_equal(json_text(walk.key), key)) found = walk.value;
    return found;
}

// The same along a path of keys with slashes between: "hook_context/attributes/tenant_id". (Keys such as
// "identity.roles" have dots in them.)
static inline hl_str json_find(hl_str value, const char *path) {
    while (*path) {
        const char *slash = path;
        while (*slash && *slash != '/') slash++;
        value = json_get(value, (hl_str){path, (size_t)(slash - path)});
        path = *slash ? slash + 1 : slash;
    }
    return value;
}

static inline bool json_true(hl_str value) { return json_kind(value) == 't'; }

// An integer (also one written 60.0), held to the range of int64_t; `otherwise` for anything else.
static inline int64_t json_int(hl_str value, int64_t otherwise) {
    if (json_kind(value) != '0') return otherwise;
    const char *p = value.at, *end = value.at + value.len;
    bool negative = *p == '-';
    int64_t number = 0;
    for (p += negative; p < end && *p >= '0' && *p <= '9'; p++) {
        int digit = *p - '0';
        number = number > (INT64_MAX - digit) / 10 ? INT64_MAX : number * 10 + digit;
    }
    if (p < end && *p == '.')
        for (p++; p < end && *p == '0';) p++;
    if (p < end) return otherwise;
    return negative ? -number : number;
}

// Whether an array of strings has this one.
static inline bool json_has(hl_str array, hl_str text) {
    json_walk walk = json_each(array);
    while (json_next(&walk))
        if (hl_equal(json_text(walk.value), text)) return true;
    return false;
}

// The bytes of base64 (RFC 4648, section 4, with or without padding); nothing where it is none.
static inline hl_str json_base64(hl_str text) {
    while (text.len && text.at[text.len - 1] == '=') text.len--;
    char *bytes = hl_alloc(text.len / 4 * 3 + 3), *to = bytes;
    uint32_t bits = 0;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.at[i];
        int digit = c >= 'A' && c <= 'Z'   ? c - 'A'
                    : c >= 'a' && c <= 'z' ? c - 'a' + 26
                    : c >= '0' && c <= '9' ? c - '0' + 52
                    : c == '+'             ? 62
                    : c == '/'             ? 63
                                           : -1;
        if (digit < 0) return HL_NONE;
        bits = bits << 6 | (uint32_t)digit;
        if (i % 4 == 1) *to++ = (char)(bits >> 4);
        else if (i % 4 == 2) *to++ = (char)(bits >> 2);
        else if (i % 4 == 3) *to++ = (char)bits;
    }
    return text.len % 4 == 1 ? HL_NONE : (hl_str){bytes, (size_t)(to - bytes)};
}

// ---- Writing. ----

// A JSON string of UTF-8 text.
static inline void json_put_text(hl_buf *buf, hl_str text) {
    static const char hex[] = "0123456789abcdef";
    hl_put_char(buf, '"');
    size_t done = 0;
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.at[i];
        if (c >= 0x20 && c != '"' && c != '\\') continue;
        hl_put(buf, (hl_str){text.at + done, i - done});
        char escape[] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
        char plain = c == '\n' ? 'n' : c == '\r' ? 'r' : c == '\t' ? 't' : c >= 0x20 ? (char)c : 0;
        if (plain) escape[1] = plain;
        hl_put(buf, (hl_str){escape, plain ? 2 : 6});
        done = i + 1;
    }
    hl_put(buf, (hl_str){text.at + done, text.len - done});
    hl_put_char(buf, '"');
}

// A JSON string of bytes, in base64.
static inline void json_put_base64(hl_buf *buf, hl_str bytes) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    hl_put_char(buf, '"');
    for (size_t i = 0; i < bytes.len; i += 3) {
        size_t have = bytes.len - i < 3 ? bytes.len - i : 3;
        uint32_t bits = 0;
        for (size_t k = 0; k < 3; k++) bits = bits << 8 | (k < have ? (unsigned char)bytes.at[i + k] : 0);
        char four[4];
        for (size_t k = 0; k < 4; k++) four[k] = k <= have ? digits[bits >> (18 - 6 * k) & 63] : '=';
        hl_put(buf, (hl_str){four, 4});
    }
    hl_put_char(buf, '"');
}

// The next member of an object that is being written: its comma, its name and the colon. The value follows.
static inline hl_buf *json_put_key(hl_buf *buf, const char *key) {
    if (buf->len && buf->at[buf->len - 1] != '{') hl_put_char(buf, ',');
    json_put_text(buf, hl_cstr(key));
    hl_put_char(buf, ':');
    return buf;
}

// A member whose value is text, or null where there is nothing.
static inline void json_put_member(hl_buf *buf, const char *key, hl_str text) {
    json_put_key(buf, key);
    if (text.at) json_put_text(buf, text);
    else hl_put(buf, HL("null"));
}

#endif
