//! tenant-hash sends all statements of a tenant to one of the configured nodes, always the same: so each node's caches
//! hold its own tenants alone.
//!
//! Rendezvous hashing: of all nodes a tenant has the one with the highest score, so a node that is added or taken away
//! moves the tenants of that node alone, about one in as many as there are nodes. The order of the list does not
//! matter, the names do. The score is FNV-1a (64 bits) of the tenant, a zero byte and the node, mixed by the finalizer
//! of SplitMix64: anybody may compute it.
//!
//! A statement without a tenant goes where the proxy sends it. What this cannot do: know whether a node is up, or large.

const std = @import("std");
const hookline = @import("hookline");
pub const panic = hookline.panic;

const Config = struct { nodes: []const []const u8 };

comptime {
    hookline.hook(.route, route);
}

fn route(in: hookline.QueryInput) !hookline.RouteAnswer {
    const config = hookline.config(Config);
    if (config.nodes.len == 0) return error.NoNodes;
    const tenant = in.hook_context.attributes.get("tenant_id") orelse "";
    if (tenant.len == 0) return .default;
    hookline.count("routed_total");
    return .{ .node = home(tenant, config.nodes) };
}

fn home(tenant: []const u8, nodes: []const []const u8) []const u8 {
    var best = nodes[0];
    for (nodes[1..]) |node| {
        const ahead = std.math.order(score(tenant, node), score(tenant, best));
        // Of two with the same score, the first by name.
        if (ahead == .gt or (ahead == .eq and std.mem.lessThan(u8, node, best))) best = node;
    }
    return best;
}

fn score(tenant: []const u8, node: []const u8) u64 {
    var hash: std.hash.Fnv1a_64 = .init();
    hash.update(tenant);
    hash.update(&.{0});
    hash.update(node);
    var z = hash.final();
    z = (z ^ (z >> 30)) *% 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) *% 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

test "a node that is taken away moves its own tenants alone, and they spread" {
    const all = [_][]const u8{ "node-a", "node-b", "node-c", "node-d" };
    var tenants = [_]usize{0} ** all.len;
    var name: [16]u8 = undefined;
    for (0..4000) |number| {
        const tenant = try std.fmt.bufPrint(&name, "tenant-{d}", .{number});
        const before = home(tenant, &all);
        const after = home(tenant, all[0..3]);
        if (!std.mem.eql(u8, before, "node-d")) try std.testing.expectEqualStrings(before, after);
        for (all, &tenants) |node, *count| count.* += @intFromBool(std.mem.eql(u8, node, before));
    }
    for (tenants) |count| try std.testing.expect(count > 900 and count < 1100);
}

test "the order of the nodes does not matter" {
    const one = home("acme", &.{ "node-a", "node-b", "node-c" });
    try std.testing.expectEqualStrings(one, home("acme", &.{ "node-c", "node-a", "node-b" }));
}
