// my-plugin: only some roles may read some tables.

#include "hookline.h"

static bool named(hl_str list, hl_str name) {
    json_walk each = json_each(list);
    while (json_next(&each))
        if (hl_alike(json_text(each.value), name)) return true;
    return false;
}

static bool allowed(hl_str roles, const hl_hook_context *context) {
    json_walk each = json_each(roles);
    while (json_next(&each))
        if (hl_has_role(context, json_text(each.value))) return true;
    return false;
}

HL_PRE_QUERY(in) {
    hl_str config = hl_config();
    json_walk each = json_each(in->tables);
    while (json_next(&each)) {
        hl_str table = json_text(each.value);
        if (named(json_find(config, "tables"), table) && !allowed(json_find(config, "roles"), &in->hook_context)) {
            hl_buf why = {0};
            hl_put(&why, table), hl_put(&why, HL(" is not for you"));
            return hl_block(hl_text(&why));
        }
    }
    return hl_continue();
}
