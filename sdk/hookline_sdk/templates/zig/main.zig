//! my-plugin: only some roles may read some tables.

const std = @import("std");
const hookline = @import("hookline");
pub const panic = hookline.panic;

const Config = struct { tables: []const []const u8, roles: []const []const u8 = &.{} };

comptime {
    hookline.hook(.pre_query, guard);
}

fn guard(in: hookline.QueryInput) !hookline.PreQueryAnswer {
    const config = hookline.config(Config);
    for (in.tables) |table| {
        if (!named(config.tables, table)) continue;
        for (config.roles) |role| {
            if (hookline.hasRole(in.hook_context, role)) break;
        } else return .{ .block = try std.mem.concat(hookline.allocator, u8, &.{ table, " is not for you" }) };
    }
    return .@"continue";
}

fn named(list: []const []const u8, name: []const u8) bool {
    for (list) |each| if (std.ascii.eqlIgnoreCase(each, name)) return true;
    return false;
}

fn ask(comptime table: []const u8, comptime roles: []const u8) !?[]const u8 {
    return hookline.call(.pre_query, guard,
        \\{"query": "select 1", "tables": ["
    ++ table ++
        \\"], "hook_context": {"attributes": {"identity.roles": "
    ++ roles ++
        \\"}}}
    );
}

test "a limited table is for its roles" {
    hookline.testing.begin().config = "{\"tables\": [\"salaries\"], \"roles\": [\"hr\"]}";
    const blocked = "{\"action\":\"block\",\"value\":\"salaries is not for you\"}";
    try std.testing.expectEqualStrings(blocked, (try ask("salaries", "app")).?);
    try std.testing.expectEqualStrings("{\"action\":\"continue\"}", (try ask("Salaries", "app, hr")).?);
}

test "other tables are for all" {
    hookline.testing.begin().config = "{\"tables\": [\"salaries\"]}";
    try std.testing.expectEqualStrings("{\"action\":\"continue\"}", (try ask("orders", "")).?);
}

test "an input without a query fails the call" {
    const host = hookline.testing.begin();
    try std.testing.expectError(error.CallFailed, hookline.call(.pre_query, guard, "{}"));
    try std.testing.expect(host.logged("query is missing"));
}
