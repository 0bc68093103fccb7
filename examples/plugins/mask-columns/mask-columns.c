// mask-columns: rewrites queries so that users without a role see masked values.
//
//     SELECT id, u.email FROM users u WHERE email = $1
//     SELECT id, (mask(u.email)) AS email FROM users u WHERE email = $1
//
// Only what a query gives out is changed: select lists and RETURNING lists, also those of subqueries, but no
// conditions. In a query that names a masked table, every column of a masked name is replaced; which of the
// tables it belongs to is not worked out, so this masks too much rather than too little.
//
// What would give values out in a way that it cannot rewrite is blocked: `*` (unless configured otherwise),
// whole rows (SELECT u FROM users u), TABLE users, COPY users TO, renamed columns (users AS u(a, b)), and an
// alias without AS where it looks like a column.
//
// What it cannot see: views and functions over the table (name them in the config as tables of their own),
// SQL in strings, and what conditions tell (WHERE email LIKE 'a%'). Against people who try hard, use the
// database's own column privileges.

#include "hookline.h"
#include "sql.h"

enum { MAX_ALIASES = 64 };

enum clause { OTHER, LIST, CONDITIONS };

// What the statement, or one pair of parentheses, is about at the token we are at.
typedef struct {
    enum clause clause;
    bool output;       // what a SELECT selects here is given out, directly or in the end
    bool query;        // there was a SELECT, RETURNING or VALUES
    bool call;         // these are a function's arguments
    bool distinct_on;  // these are the columns of DISTINCT ON
} frame;

typedef struct {
    hl_str name;
    hl_str expression;  // of a column: what stands for it
} rule;

typedef struct {
    rule *tables, *columns;
    size_t table_count, column_count;
    bool star;  // `*` may pass
    sql_tokens tokens;
    const sql_token *aliases[MAX_ALIASES];
    size_t alias_count;
    const sql_token *item;  // the first token of the list's present item
    hl_buf out;
    const char *copied;     // the query up to here is in `out`
    const char *objection;  // why the query must be blocked
} masking;

// Reads {table: {column: expression}}.
static void read_rules(masking *m, hl_str tables) {
    json_walk table = json_each(tables), column;
    for (json_walk counting = table; json_next(&counting); m->table_count++)
        for (column = json_each(counting.value); json_next(&column);) m->column_count++;
    rule *t = m->tables = hl_alloc(m->table_count * sizeof *t), *c = m->columns = hl_alloc(m->column_count * sizeof *c);
    while (json_next(&table)) {
        *t++ = (rule){.name = json_text(table.key)};
        for (column = json_each(table.value); json_next(&column);)
            *c++ = (rule){json_text(column.key), json_text(column.value)};
    }
}

static bool is_table(const masking *m, const sql_token *name) {
    for (size_t i = 0; i < m->table_count; i++)
        if (sql_named(name, m->tables[i].name)) return true;
    return false;
}

// What stands for a masked column of this name; nothing where there is none.
static hl_str expression_of(const masking *m, const sql_token *name) {
    for (size_t i = 0; i < m->column_count; i++)
        if (sql_named(name, m->columns[i].name)) return m->columns[i].expression;
    return HL_NONE;
}

// A keyword, and no name behind AS or a dot that only looks like one.
static bool is_keyword(const sql_token *t, const char *words) {
    return sql_any(t, words) && !sql_word(t - 1, "as") && !sql_symbol(t - 1, '.');
}

// The alias at this place behind a table or a parenthesis; NULL where there is none.
static const sql_token *alias_at(const sql_token *t) {
    if (sql_word(t, "as")) return t + 1;
    bool keyword = sql_any(t, "where join left right full inner cross natural on using group order having limit "
                              "offset fetch for window union except intersect set values select default overriding "
                              "returning tablesample to from with do and or is in not like ilike between collate at");
    return sql_name(t) && !keyword ? t : NULL;
}

static void collect_aliases(masking *m) {
    for (const sql_token *t = m->tokens.at; t->kind != SQL_END; t++) {
        if (!is_table(m, t) || sql_symbol(t + 1, '.')) continue;
        const sql_token *alias = alias_at(sql_symbol(t + 1, '*') ? t + 2 : t + 1);  // `users *`: and its children
        if (!alias) continue;
        if (sql_symbol(alias + 1, '(')) m->objection = "columns of a masked table may not be renamed";
        if (m->alias_count == MAX_ALIASES) m->objection = "too many aliases of masked tables";
        if (m->objection) return;
        m->aliases[m->alias_count++] = alias;
    }
}

static bool same_name(const sql_token *a, const sql_token *b) {
    if (a->kind == SQL_WORD && b->kind == SQL_WORD) return hl_alike(sql_text(a), sql_text(b));
    if (a->kind == b->kind) return hl_equal(sql_text(a), sql_text(b));
    const sql_token *word = a->kind == SQL_WORD ? a : b, *quoted = a->kind == SQL_WORD ? b : a;
    return sql_named(word, (hl_str){quoted->at + 1, quoted->len - 2});
}

// A masked table, or its alias, standing alone: all of its columns in one value.
static bool is_whole_row(const masking *m, const sql_token *t) {
    if (!sql_name(t) || sql_symbol(t + 1, '.') || sql_symbol(t + 1, '(') || sql_word(t - 1, "as")) return false;
    if (is_table(m, t)) return true;
    for (size_t i = 0; i < m->alias_count; i++)
        if (same_name(t, m->aliases[i])) return true;
    return false;
}

// `*` as in SELECT * or u.*, and not as in count(*) or 2 * 3.
static bool is_star(const masking *m, const sql_token *t) {
    const sql_token *next = t + 1;
    return sql_symbol(t, '*') &&
           (t == m->item || sql_symbol(t - 1, '.') || next->kind == SQL_END || sql_symbol(next, ',') ||
            sql_symbol(next, ';') || sql_any(next, "from into") || (sql_symbol(next, ')') && !sql_symbol(t - 1, '(')));
}

// TABLE users, and not CREATE TABLE users or LOCK TABLE users.
static bool is_table_command(const masking *m, const sql_token *t) {
    if (!sql_word(t, "table") || sql_symbol(t - 1, '.') ||
        sql_any(t - 1, "create alter drop truncate lock on temporary temp unlogged foreign"))
        return false;
    for (t++; sql_name(t) || sql_symbol(t, '.'); t++)
        if (is_table(m, t)) return true;
    return false;
}

// Whether an operand may follow this token; otherwise a name that does is an alias without AS.
static bool before_operand(const sql_token *t) {
    if (t->kind == SQL_SYMBOL) return !sql_symbol(t, ')') && !sql_symbol(t, ']');
    return is_keyword(t, "select all distinct case when then else and or not between symmetric like ilike to in from "
                         "by both leading trailing for returning escape variadic is");
}

// Puts the expression in the place of the column that ends with the token `name`.
static void mask(masking *m, const sql_token *name, hl_str expression) {
    const sql_token *start = name, *next = name + 1;
    for (; sql_symbol(start - 1, '.'); start -= 2) {
        if (sql_name(start - 2)) continue;
        m->objection = "a masked column is taken out of a composite value";
        return;
    }
    if (start != m->item && !before_operand(start - 1)) {
        m->objection = "write AS before an alias that is named like a masked column";
        return;
    }
    hl_str column = {start->at, (size_t)(name->at + name->len - start->at)}, hole = HL("{column}");
    hl_put(&m->out, (hl_str){m->copied, (size_t)(start->at - m->copied)});
    m->copied = name->at + name->len;
    hl_put_char(&m->out, '(');
    while (expression.len) {
        bool here = hl_starts(expression, hole);
        hl_put(&m->out, here ? column : (hl_str){expression.at, 1});
        size_t taken = here ? hole.len : 1;
        expression.at += taken, expression.len -= taken;
    }
    hl_put_char(&m->out, ')');
    bool alone = next->kind == SQL_END || sql_symbol(next, ',') || sql_symbol(next, ')') || sql_symbol(next, ';') ||
                 sql_any(next, "from into where union except intersect order limit offset fetch for group having "
                               "window");
    if (start == m->item && alone) {  // the client goes on to find the column by its name
        hl_put(&m->out, HL(" AS "));
        hl_put(&m->out, sql_text(name));
    }
}

// What the parenthesis at `open` is about.
static frame inside(const frame *outer, const sql_token *open) {
    const sql_token *before = open - 1;
    bool distinct_on = sql_word(before, "on") && sql_word(before - 1, "distinct");
    bool aside = outer->clause == CONDITIONS || distinct_on || sql_any(before, "over filter");
    bool call = sql_name(before) && !sql_any(before, "from join only lateral as materialized on in exists any some all "
                                                     "using union except intersect values where and or not select");
    return (frame){
        .clause = outer->clause == LIST && !aside ? LIST : OTHER,
        .output = outer->output && !aside,
        .call = outer->call || call,
        .distinct_on = distinct_on,
    };
}

// A keyword that begins another clause. Which of them are names where depends on what stands before.
static void keyword(masking *m, frame *f, const sql_token *t) {
    if (sql_any(t, "select returning") && !sql_symbol(t - 1, '.')) {
        f->query = true, f->call = false;
        f->clause = f->output ? LIST : OTHER;
        for (m->item = t + 1; sql_any(m->item, "all distinct");) m->item++;
    } else if (is_keyword(t, "where")) {
        f->clause = CONDITIONS;
    } else if (is_keyword(t, "values")) {
        f->query = true;
    } else if (f->query && is_keyword(t, "having group order window limit offset fetch") &&
               !sql_word(t - 1, "within")) {
        f->clause = CONDITIONS;
    } else if (f->query && is_keyword(t, "from into union except intersect")) {
        if (!(sql_word(t - 1, "distinct") && sql_any(t - 2, "is not"))) f->clause = OTHER;  // IS DISTINCT FROM
    }
}

// Goes once over the tokens with a stack of frames, masks, and objects.
static void rewrite(masking *m) {
    size_t deepest = 1;
    for (const sql_token *t = m->tokens.at; t->kind != SQL_END; t++) deepest += sql_symbol(t, '(');
    frame *const base = hl_alloc(deepest * sizeof *base), *f = base;
    const sql_token *first = m->tokens.at;  // of the statement
    *f = (frame){.output = true};
    for (const sql_token *t = first; t->kind != SQL_END && !m->objection; t++) {
        if (sql_symbol(t, ';')) {
            f = base, first = t + 1;
            *f = (frame){.output = true};
        } else if (sql_symbol(t, '(')) {
            frame next = inside(f, t);
            *++f = next;
        } else if (sql_symbol(t, ')')) {
            if (f->distinct_on) m->item = t + 1;
            bool join = f->output && f->clause == OTHER && !f->query && !f->call;
            if (join && alias_at(t + 1)) m->objection = "a join with an alias of its own";
            if (f > base) f--;
        } else if (sql_symbol(t, ',') && f->query) {
            m->item = t + 1;
        }
        keyword(m, f, t);
        if (is_table_command(m, t)) m->objection = "TABLE gives out all columns";
        if (f == base && is_keyword(t, "to") && sql_word(first, "copy")) m->objection = "COPY gives out all columns";
        if (f->clause == LIST && is_star(m, t) && !m->star) m->objection = "name the columns instead of *";
        if ((f->clause == LIST || (f->output && f->call && f->clause != CONDITIONS)) && is_whole_row(m, t))
            m->objection = "a whole row of a masked table";
        bool label = sql_word(t - 1, "as") || sql_symbol(t + 1, '.') || sql_symbol(t + 1, '(');
        if (f->clause != LIST || m->objection || label) continue;
        hl_str expression = expression_of(m, t);
        if (expression.at) mask(m, t, expression);
    }
    const char *end = m->tokens.at[m->tokens.count].at;
    hl_put(&m->out, (hl_str){m->copied, (size_t)(end - m->copied)});
}

// Whether the query is about a masked table, by its text or by what the proxy says.
static bool concerns(masking *m, hl_str tables) {
    bool found = false;
    for (const sql_token *t = m->tokens.at; t->kind != SQL_END; t++) {
        if (t->opaque) m->objection = "an identifier in U& form hides its name";
        found = found || is_table(m, t);
    }
    json_walk walk = json_each(tables);
    while (json_next(&walk)) {
        hl_str name = json_text(walk.value);
        for (size_t i = name.len; i-- > 0;)
            if (name.at[i] == '.') name = (hl_str){name.at + i + 1, name.len - i - 1};
        for (size_t i = 0; i < m->table_count; i++) found = found || hl_alike(m->tables[i].name, name);
    }
    return found || m->objection;
}

static bool may_see(hl_str roles, hl_str config) {
    hl_str allowed = json_find(config, "unless_role");
    while (roles.len)
        if (json_has(allowed, hl_split(&roles))) return true;
    return false;
}

// In the dialect of HeliosDB's SDK, which Hookline reads as well as its own.
static int64_t say(const char *kind, const char *field, hl_str text) {
    hl_buf json = {0};
    hl_put_char(&json, '{');
    json_put_member(&json, "kind", hl_cstr(kind));
    if (field) json_put_member(&json, field, text);
    hl_put_char(&json, '}');
    return hl_answer(&json);
}

HL_HOOK(pre_query, input) {
    hl_str query = json_text(json_find(input, "query")), config = hl_config();
    if (!query.at) hl_fail(HL("the input has no query"));
    if (may_see(hl_attribute(input, "identity.roles"), config)) return say("continue", NULL, HL_NONE);
    masking m = {
        .star = hl_equal(json_text(json_find(config, "star")), HL("pass")),
        .tokens = sql_read(query),
        .copied = query.at,
    };
    read_rules(&m, json_find(config, "tables"));
    m.objection = m.tokens.error;
    if (!m.objection) {
        if (!concerns(&m, json_find(input, "tables"))) return say("continue", NULL, HL_NONE);
        collect_aliases(&m);
        rewrite(&m);
    }
    if (m.objection) return say("block", "reason", hl_cstr(m.objection));
    hl_str masked = hl_text(&m.out);
    return hl_equal(masked, query) ? say("continue", NULL, HL_NONE) : say("rewrite", "sql", masked);
}
