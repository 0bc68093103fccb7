// SQL as PostgreSQL's lexer reads it, so that a plugin is fooled neither by a keyword in a comment or a
// string, nor by a quote in one.
//
// Known to it: `--` and nested `/* */` comments; '…' with doubled quotes; E'…' with backslash escapes; a
// string that goes on behind a newline; B, X, N and U& strings; $tag$…$tag$; "identifiers"; U&"identifiers".
// Taken for granted: standard_conforming_strings is on, the default since PostgreSQL 9.1.

#ifndef HOOKLINE_SQL_H
#define HOOKLINE_SQL_H

#include "memory.h"

enum { SQL_END, SQL_WORD, SQL_QUOTED, SQL_STRING, SQL_NUMBER, SQL_SYMBOL };

typedef struct {
    const char *at;
    uint32_t len;
    uint8_t kind;
    bool opaque;  // a U&"identifier": its name is not what it looks like
} sql_token;

// An SQL_END stands before the first token as well as behind the last: at[-1] and at[count] may be looked at.
typedef struct {
    sql_token *at;
    size_t count;
    const char *error;  // what is unterminated; NULL where all is well
} sql_tokens;

typedef struct {
    const char *p, *end;
    const char *error;
} sql_lexer;

static inline bool sql_space(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v';
}

static inline bool sql_digit(char c) { return c >= '0' && c <= '9'; }

static inline bool sql_letter(char c) {
    return (hl_lower(c) >= 'a' && hl_lower(c) <= 'z') || c == '_' || (unsigned char)c >= 0x80;
}

static inline bool sql_at(const sql_lexer *lexer, char first, char second) {
    return lexer->end - lexer->p >= 2 && lexer->p[0] == first && lexer->p[1] == second;
}

static inline void sql_line_comment(sql_lexer *lexer) {
    while (lexer->p < lexer->end && *lexer->p != '\n' && *lexer->p != '\r') lexer->p++;
}

static inline void sql_skip_blank(sql_lexer *lexer) {
    while (lexer->p < lexer->end) {
        if (sql_space(*lexer->p)) {
            lexer->p++;
        } else if (sql_at(lexer, '-', '-')) {
            sql_line_comment(lexer);
        } else if (sql_at(lexer, '/', '*')) {
            int depth = 0;
            do {
                if (sql_at(lexer, '/', '*')) depth++, lexer->p += 2;
                else if (sql_at(lexer, '*', '/')) depth--, lexer->p += 2;
                else lexer->p++;
            } while (depth > 0 && lexer->p < lexer->end);
            if (depth > 0) lexer->error = "unterminated comment";
        } else {
            return;
        }
    }
}

// From the opening quote to behind the closing one; doubled quotes, and escaped ones if so, are inside.
static inline void sql_quoted(sql_lexer *lexer, char quote, bool backslashes) {
    for (lexer->p++; lexer->p < lexer->end; lexer->p++) {
        if (backslashes && *lexer->p == '\\') {
            lexer->p++;
        } else if (*lexer->p == quote) {
            if (!sql_at(lexer, quote, quote)) {
                lexer->p++;
                return;
            }
            lexer->p++;
        }
    }
    lexer->p = lexer->end;
    lexer->error = quote == '"' ? "unterminated identifier" : "unterminated string";
}

// A string goes on, in the same dialect, where the next quote is on a later line.
static inline void sql_string(sql_lexer *lexer, bool backslashes) {
    for (;;) {
        sql_quoted(lexer, '\'', backslashes);
        sql_lexer ahead = *lexer;
        bool newline = false;
        while (ahead.p < ahead.end && (sql_space(*ahead.p) || sql_at(&ahead, '-', '-'))) {
            newline = newline || *ahead.p == '\n' || *ahead.p == '\r';
            if (*ahead.p == '-') sql_line_comment(&ahead);
            else ahead.p++;
        }
        if (!newline || ahead.p == ahead.end || *ahead.p != '\'') return;
        lexer->p = ahead.p;
    }
}

// $tag$…$tag$; leaves the lexer alone where there is none.
static inline bool sql_dollar_string(sql_lexer *lexer) {
    const char *p = lexer->p + 1;
    if (p < lexer->end && sql_digit(*p)) return false;
    while (p < lexer->end && (sql_letter(*p) || sql_digit(*p))) p++;
    if (p == lexer->end || *p != '$') return false;
    hl_str tag = {lexer->p, (size_t)(p + 1 - lexer->p)};
    for (p++; (size_t)(lexer->end - p) >= tag.len; p++) {
        if (*p == '$' && memcmp(p, tag.at, tag.len) == 0) {
            lexer->p = p + tag.len;
            return true;
        }
    }
    lexer->p = lexer->end;
    lexer->error = "unterminated dollar-quoted string";
    return true;
}

static inline sql_token sql_next(sql_lexer *lexer) {
    sql_skip_blank(lexer);
    sql_token token = {.at = lexer->p};
    if (lexer->p == lexer->end) return token;
    char c = hl_lower(*lexer->p);
    bool unicode = c == 'u' && lexer->end - lexer->p >= 3 && lexer->p[1] == '&';
    if (c == '\'') {
        token.kind = SQL_STRING;
        sql_string(lexer, false);
    } else if (unicode && lexer->p[2] == '\'') {
        token.kind = SQL_STRING;
        lexer->p += 2;
        sql_string(lexer, false);
    } else if ((c == 'e' || c == 'b' || c == 'x' || c == 'n') && sql_at(lexer, *lexer->p, '\'')) {
        token.kind = SQL_STRING;
        lexer->p++;
        sql_string(lexer, c == 'e');
    } else if (c == '"' || (unicode && lexer->p[2] == '"')) {
        token.kind = SQL_QUOTED;
        token.opaque = c == 'u';
        if (token.opaque) lexer->p += 2;
        sql_quoted(lexer, '"', false);
    } else if (sql_letter(c)) {
        token.kind = SQL_WORD;
        while (lexer->p < lexer->end && (sql_letter(*lexer->p) || sql_digit(*lexer->p) || *lexer->p == '$')) lexer->p++;
    } else if (sql_digit(c) || (c == '.' && lexer->end - lexer->p >= 2 && sql_digit(lexer->p[1]))) {
        token.kind = SQL_NUMBER;
        while (lexer->p < lexer->end && (sql_digit(*lexer->p) || *lexer->p == '.')) lexer->p++;
    } else if (c == '$' && sql_dollar_string(lexer)) {
        token.kind = SQL_STRING;
    } else {
        token.kind = SQL_SYMBOL;
        lexer->p++;
    }
    token.len = (uint32_t)(lexer->p - token.at);
    return token;
}

static inline sql_tokens sql_read(hl_str text) {
    sql_lexer lexer = {.p = text.at, .end = text.at + text.len};
    size_t count = 0;
    while (sql_next(&lexer).kind != SQL_END) count++;
    sql_token *at = (sql_token *)hl_alloc((count + 2) * sizeof *at) + 1;
    at[-1] = (sql_token){.at = text.at};
    lexer = (sql_lexer){.p = text.at, .end = text.at + text.len};
    for (size_t i = 0; i <= count; i++) at[i] = sql_next(&lexer);
    return (sql_tokens){at, count, lexer.error};
}

static inline hl_str sql_text(const sql_token *token) { return (hl_str){token->at, token->len}; }

static inline bool sql_symbol(const sql_token *token, char symbol) {
    return token->kind == SQL_SYMBOL && token->at[0] == symbol;
}

static inline bool sql_name(const sql_token *token) { return token->kind == SQL_WORD || token->kind == SQL_QUOTED; }

// Whether the token is this keyword.
static inline bool sql_word(const sql_token *token, const char *word) {
    return token->kind == SQL_WORD && hl_alike(sql_text(token), hl_cstr(word));
}

// Whether the token is one of these keywords: "from join where".
static inline bool sql_any(const sql_token *token, const char *words) {
    if (token->kind != SQL_WORD) return false;
    while (*words) {
        size_t len = 0;
        while (words[len] && words[len] != ' ') len++;
        if (hl_alike(sql_text(token), (hl_str){words, len})) return true;
        words += words[len] ? len + 1 : len;
    }
    return false;
}

// Whether the token is an identifier of this name. Unquoted ones are folded to lower case first.
static inline bool sql_named(const sql_token *token, hl_str name) {
    if (token->kind == SQL_WORD) {
        if (token->len != name.len) return false;
        for (size_t i = 0; i < name.len; i++)
            if (hl_lower(token->at[i]) != name.at[i]) return false;
        return true;
    }
    if (token->kind != SQL_QUOTED || token->opaque) return false;
    size_t matched = 0;
    for (size_t i = 1; i + 1 < token->len; i++, matched++) {
        if (matched == name.len || token->at[i] != name.at[matched]) return false;
        if (token->at[i] == '"') i++;  // doubled
    }
    return matched == name.len;
}

#endif
