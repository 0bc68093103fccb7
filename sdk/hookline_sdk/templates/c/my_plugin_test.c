#include "hookline_test.h"

#include "my_plugin.c"

#define ASK(table, roles)                                                         \
    HL_CALL(pre_query, "{\"query\": \"select 1\", \"tables\": [\"" table "\"], "  \
                       "\"hook_context\": {\"attributes\": {\"identity.roles\": \"" roles "\"}}}")

int main(void) {
    hl_test_config("{\"tables\": [\"salaries\"], \"roles\": [\"hr\"]}");
    // A limited table is for its roles.
    HL_EXPECT(hl_test_has(ASK("salaries", "app"), "salaries is not for you"));
    HL_EXPECT(hl_test_has(ASK("Salaries", "app, hr"), "continue"));
    // Other tables are for all.
    HL_EXPECT(hl_test_has(ASK("orders", ""), "continue"));
    // Without its settings it fails.
    hl_test_begin();
    hl_test_deny("config.read");
    ASK("orders", "");
    HL_EXPECT(hl_test.failed && hl_test_logged("config.read"));
    return hl_test_done();
}
