// region-router: sends each statement to where its tenant, or else its client's region, belongs.
//
//   1. a tenant may have a branch of its own; all its statements go there
//   2. a tenant may be bound to a region, which then counts instead of the attribute helios.region
//   3. a region has a node for reads and one for writes; without them, reads go to any standby and writes to
//      the primary
//   4. a statement from a region that is not configured goes where one without a region goes, or is blocked
//
// A statement is a read only if the proxy says so (is_read_only).

#include "hookline.h"

// {"action": action, "target": target}, or the fallback where there is no target.
static int64_t to(const char *action, hl_str target, const char *otherwise) {
    return target.at ? hl_say(action, "target", target) : hl_just(otherwise);
}

HL_HOOK(route, input) {
    hl_str config = hl_config();
    hl_str tenant = json_get(json_find(config, "tenants"), hl_attribute(input, "tenant_id"));
    bool read = json_true(json_find(input, "is_read_only"));

    hl_str branch = json_text(json_find(tenant, "branch"));
    if (branch.at) return hl_say("branch", "target", branch);

    hl_str name = json_text(json_find(tenant, "region"));
    if (!name.at) name = hl_attribute(input, "helios.region");
    hl_str region = json_get(json_find(config, "regions"), name);
    if (name.at && !region.at && hl_equal(json_text(json_find(config, "unknown_region")), HL("block"))) {
        hl_count(HL("unknown_region_total"));
        return hl_say("block", "reason", HL("the region is not served"));
    }
    return read ? to("node", json_text(json_find(region, "read")), "standby")
                : to("node", json_text(json_find(region, "write")), "primary");
}
