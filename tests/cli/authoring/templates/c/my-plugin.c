// my-plugin: refuses DROP.
#include "hookline.h"
#include "sql.h"

HL_HOOK(pre_query, input) {
    hl_str query = json_text(json_find(input, "query"));
    if (!query.at) hl_fail(HL("the input has no query"));
    sql_tokens tokens = sql_read(query);
    for (const sql_token *each = tokens.at; each < tokens.at + tokens.count; each++)
        if (sql_word(each, "drop")) return hl_say("block", "value", HL("DROP is not allowed"));
    hl_log(HL_INFO, HL("my_plugin lets it through"));
    return hl_just("continue");
}
