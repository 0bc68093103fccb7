// sql-guard: refuses statements that should never come from an application.
//
//   - statements of a kind that is not allowed: DROP, TRUNCATE, ALTER and DO unless configured otherwise
//   - DELETE and UPDATE without a WHERE, or with one that names no column (WHERE 1=1)
//   - names on the list of denied tables, wherever they stand
//   - several statements in one text, where configured
//
// What it cannot see: what functions, views and prepared statements do inside, and SQL that the server puts
// together from strings. Put "create", "execute" or "call" on the list of blocked statements where that matters.

#include "hookline.h"
#include "sql.h"

typedef struct {
    hl_str schema;  // nothing where any will do
    hl_str table;
} denied_table;

typedef struct {
    hl_str block, require_where;  // JSON arrays; nothing where not configured
    bool single_statement;
    denied_table *denied;
    size_t denied_count;
} settings;

// The last two parts of a dotted name: of database.schema.table, schema and table.
static denied_table dotted(hl_str name) {
    size_t dot = name.len, before = 0;  // where the table's dot is, and where the schema begins
    while (dot > 0 && name.at[dot - 1] != '.') dot--;
    if (dot == 0) return (denied_table){HL_NONE, name};
    for (size_t i = 0; i + 1 < dot; i++)
        if (name.at[i] == '.') before = i + 1;
    return (denied_table){{name.at + before, dot - 1 - before}, {name.at + dot, name.len - dot}};
}

static settings read_settings(void) {
    hl_str config = hl_config();
    settings found = {
        .block = json_find(config, "block"),
        .require_where = json_find(config, "require_where"),
        .single_statement = json_true(json_find(config, "single_statement")),
    };
    json_walk walk = json_each(json_find(config, "deny_tables"));
    for (json_walk counting = walk; json_next(&counting);) found.denied_count++;
    found.denied = hl_alloc(found.denied_count * sizeof *found.denied);
    for (size_t i = 0; json_next(&walk); i++) found.denied[i] = dotted(json_text(walk.value));
    return found;
}

static hl_str sentence(hl_str what, const char *how) {
    hl_buf text = {0};
    hl_put(&text, what);
    hl_put(&text, hl_cstr(how));
    return hl_text(&text);
}

// Whether a JSON array of words, or the default where there is none, has this keyword.
static bool listed(hl_str array, const char *otherwise, const sql_token *word) {
    if (!array.at) return sql_any(word, otherwise);
    json_walk walk = json_each(array);
    while (json_next(&walk))
        if (word->kind == SQL_WORD && hl_alike(sql_text(word), json_text(walk.value))) return true;
    return false;
}

// UPDATE [ONLY] name [*] [[AS] alias] SET: no column, alias or ON UPDATE looks like that.
static bool looks_like_update(const sql_token *word) {
    for (const sql_token *t = word + 1; t->kind != SQL_END && t - word < 16; t++) {
        if (sql_word(t, "set") && t > word + 1) return true;
        if (sql_word(t, "from") || (!sql_name(t) && !sql_symbol(t, '.') && !sql_symbol(t, '*') &&
                                    !sql_symbol(t, '(') && !sql_symbol(t, ')')))
            return false;
    }
    return false;
}

// Whether DELETE or UPDATE is a command here, and no column, alias, privilege, FOR UPDATE or ON DELETE.
// `first` is the first word of the statement.
static bool is_command(const sql_token *word, const sql_token *first) {
    if (word == first) return true;
    if (sql_word(word, "delete") ? !sql_word(word + 1, "from") : !looks_like_update(word)) return false;
    const sql_token *before = word - 1;
    if (sql_symbol(before, '(')) return true;                               // WITH x AS (DELETE …
    if (sql_symbol(before, ')')) return !sql_word(first, "select");         // WITH x AS (…) DELETE …
    if (sql_word(before, "as")) return sql_word(first, "prepare");
    if (sql_word(before, "do")) return sql_word(first, "create");           // a rule, not ON CONFLICT DO
    return sql_any(before, "explain analyze analyse verbose also instead atomic");
}

// Whether the DELETE or UPDATE at `word` has a WHERE of its own that names anything.
static bool has_where(const sql_token *word) {
    int depth = 0;
    bool where = false;
    for (const sql_token *t = word + 1; t->kind != SQL_END && !sql_symbol(t, ';'); t++) {
        if (sql_symbol(t, '(')) depth++;
        if (sql_symbol(t, ')') && --depth < 0) break;
        if (where && sql_name(t) && !sql_any(t, "returning not and or is null true false")) return true;
        if (depth > 0 || sql_symbol(t - 1, '.') || sql_word(t - 1, "as")) continue;  // a name, whatever it says
        if (sql_word(t, "returning")) break;
        if (sql_word(t, "where")) where = true;
    }
    return false;
}

static bool is_denied(const settings *set, const sql_token *name) {
    for (size_t i = 0; i < set->denied_count; i++) {
        const denied_table *table = &set->denied[i];
        if (!sql_named(name, table->table)) continue;
        bool qualified = sql_symbol(name - 1, '.') && sql_name(name - 2);
        if (!table->schema.at || !qualified || name[-2].opaque || sql_named(name - 2, table->schema)) return true;
    }
    return false;
}

// Why the query is refused; nothing where it is not.
static hl_str objection(const settings *set, const sql_tokens *tokens) {
    if (tokens->error) return hl_cstr(tokens->error);
    size_t statements = 0;
    const sql_token *first = NULL;  // of the statement: its first word
    bool inside = false;
    for (const sql_token *t = tokens->at; t < tokens->at + tokens->count; t++) {
        if (sql_symbol(t, ';')) {
            first = NULL, inside = false;
            continue;
        }
        if (!inside && ++statements > 1 && set->single_statement) return HL("several statements in one text");
        inside = true;
        if (t->opaque && set->denied_count) return HL("an identifier in U& form hides its name");
        if (!sql_name(t)) continue;
        if (is_denied(set, t)) return sentence(sql_text(t), " may not be used");
        if (t->kind != SQL_WORD) continue;
        if (!first) {
            first = t;
            if (listed(set->block, "drop truncate alter do", t)) return sentence(sql_text(t), " is not allowed");
        }
        if (sql_word(t, "standard_conforming_strings"))
            return HL("standard_conforming_strings would change how strings are read");
        if (sql_any(t, "delete update") && listed(set->require_where, "delete update", t) &&
            is_command(t, first) && !has_where(t))
            return sentence(sql_text(t), " without a WHERE that names a column");
    }
    return HL_NONE;
}

// The tables that the proxy found are looked at too: it may know more than the text tells.
static hl_str objection_to_tables(const settings *set, hl_str tables) {
    json_walk walk = json_each(tables);
    while (json_next(&walk)) {
        hl_str name = json_text(walk.value);
        denied_table used = dotted(name);
        for (size_t i = 0; i < set->denied_count; i++) {
            const denied_table *table = &set->denied[i];
            if (hl_alike(used.table, table->table) &&
                (!table->schema.at || !used.schema.at || hl_alike(used.schema, table->schema)))
                return sentence(name, " may not be used");
        }
    }
    return HL_NONE;
}

HL_HOOK(pre_query, input) {
    hl_str query = json_text(json_find(input, "query"));
    if (!query.at) hl_fail(HL("the input has no query"));
    settings set = read_settings();
    sql_tokens tokens = sql_read(query);
    hl_str why = objection(&set, &tokens);
    if (!why.at) why = objection_to_tables(&set, json_find(input, "tables"));
    if (!why.at) return hl_just("continue");
    hl_count(HL("blocked_total"));
    return hl_say("block", "value", why);
}
