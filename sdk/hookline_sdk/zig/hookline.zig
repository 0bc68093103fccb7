//! Everything a Hookline plugin in Zig needs: hooks, answers, host functions. The standard library alone.
//!
//!     const hookline = @import("hookline");
//!     pub const panic = hookline.panic;
//!
//!     comptime {
//!         hookline.hook(.pre_query, guard);
//!     }
//!
//!     fn guard(in: hookline.QueryInput) !hookline.PreQueryAnswer {
//!         if (in.query.len > 10_000) return .{ .block = "the query is too long" };
//!         return .@"continue";
//!     }
//!
//! An input that is not what the contract says fails the call before the function is asked. So does an error that the
//! function returns, a panic, and `fail`: the log says why, and the resource's failurePolicy decides what it means for
//! the proxy. Never guess.
//!
//! `hookline.allocator` is for whatever lives as long as the call; all of it is free again at its end. `zig test` finds
//! a host in memory: see `testing`.

const std = @import("std");
const host = @import("host.zig");
const json = @import("json.zig");
const memory = @import("memory.zig");
const types = @import("types.zig");

pub const allocator = memory.allocator;
pub const Map = json.Map;
pub const Value = json.Value;
pub const valueText = json.valueText;

pub const Hook = types.Hook;
pub const AuthenticateInput = types.AuthenticateInput;
pub const AuthorizeInput = types.AuthorizeInput;
pub const QueryInput = types.QueryInput;
pub const CacheGetInput = types.CacheGetInput;
pub const CacheSetInput = types.CacheSetInput;
pub const EventInput = types.EventInput;
pub const Outcome = types.Outcome;
pub const HookContext = types.HookContext;
pub const Identity = types.Identity;
pub const AuthenticateAnswer = types.AuthenticateAnswer;
pub const AuthorizeAnswer = types.AuthorizeAnswer;
pub const PreQueryAnswer = types.PreQueryAnswer;
pub const RewriteAnswer = types.RewriteAnswer;
pub const RouteAnswer = types.RouteAnswer;
pub const CacheGetAnswer = types.CacheGetAnswer;
pub const CacheSetAnswer = types.CacheSetAnswer;

pub const Error = host.Error;
pub const Reply = host.Reply;
pub const Failure = host.Failure;
pub const Level = host.Level;
pub const Param = host.Param;
pub const Column = host.Column;
pub const Rows = host.Rows;
pub const Prepared = host.Prepared;
pub const Header = host.Header;
pub const Request = host.Request;
pub const Response = host.Response;

pub const log = host.log;
pub const fail = host.fail;
pub const failAt = host.failAt;
pub const getTime = host.getTime;
pub const random = host.random;
pub const getConfig = host.getConfig;
pub const config = host.config;
pub const metricInc = host.metricInc;
pub const metricGauge = host.metricGauge;
pub const metricObserve = host.metricObserve;
pub const count = host.count;
pub const sha256Hex = host.sha256Hex;
pub const hmacSha256 = host.hmacSha256;
pub const kvGet = host.kvGet;
pub const kvSet = host.kvSet;
pub const kvDelete = host.kvDelete;
pub const kvList = host.kvList;
pub const kvIncr = host.kvIncr;
pub const kvCompareAndSet = host.kvCompareAndSet;
pub const kvSetTtl = host.kvSetTtl;
pub const cacheGet = host.cacheGet;
pub const cacheExists = host.cacheExists;
pub const cacheSet = host.cacheSet;
pub const cacheDelete = host.cacheDelete;
pub const queryExecute = host.queryExecute;
pub const queryPrepare = host.queryPrepare;
pub const queryGetTables = host.queryGetTables;
pub const queryNormalize = host.queryNormalize;
pub const httpFetch = host.httpFetch;
pub const httpPost = host.httpPost;
pub const decoded = host.decoded;

/// The host in memory, for `zig test`.
pub const testing = if (memory.is_wasm)
    @compileError("hookline.testing is for tests, which are compiled for the machine and not for wasm")
else
    @import("native.zig");

/// A plugin's panic handler: a line in the log, and a trap.
pub const panic = std.debug.FullPanic(panicked);

fn panicked(what: []const u8, _: ?usize) noreturn {
    @branchHint(.cold);
    var line: [256]u8 = undefined;
    fail(std.fmt.bufPrint(&line, "panic: {s}", .{what}) catch what);
}

/// Exports a hook: a function of `types.Input(which)` that answers `types.Answer(which)`, or an error. That of
/// `post_query` takes two: the statement, and how it went.
pub fn hook(comptime which: Hook, comptime function: anytype) void {
    const Checked = struct {
        fn answer(raw: []const u8) ?[]const u8 {
            return call(which, function, raw) catch @trap();
        }
    };
    rawHook(which, Checked.answer);
}

/// Exports a hook that reads its input and writes its answer itself; null is the hook's default.
pub fn rawHook(comptime which: Hook, comptime function: fn ([]const u8) ?[]const u8) void {
    if (!memory.is_wasm) return;
    const Exported = struct {
        fn called(at: [*]const u8, len: usize) callconv(.c) u64 {
            return if (function(memory.begun(at, len))) |text| memory.pack(text) else 0;
        }
    };
    @export(&Exported.called, .{ .name = @tagName(which) });
}

comptime {
    if (memory.is_wasm) memory.exported();
}

/// What a hook answers to an input, as JSON; null is the hook's default. A call that fails has said why in the log.
pub fn call(comptime which: Hook, comptime function: anytype, raw: []const u8) error{CallFailed}!?[]const u8 {
    var reader: json.Reader = .init(raw);
    const in = reader.document(types.Input(which)) catch {
        const why = reader.malformed;
        return failed(&.{ "the input is not what the contract says: ", why.field, " ", why.why });
    };
    const returned = if (which == .post_query) function(in[0], in[1]) else function(in);
    const answer: types.Answer(which) = switch (@typeInfo(@TypeOf(returned))) {
        .error_union => returned catch |failure| return failed(&.{ "the hook failed: ", @errorName(failure) }),
        else => returned,
    };
    return switch (types.Answer(which)) {
        void => null,
        ?Value => if (answer) |value| json.valueText(value) else null,
        else => written: {
            var to: json.Writer = .{};
            answer.write(&to);
            break :written to.end();
        },
    };
}

/// Whether the proxy sent this role: one of the attribute identity.roles, which has commas between them.
pub fn hasRole(context: HookContext, role: []const u8) bool {
    var roles = std.mem.splitScalar(u8, context.attributes.get("identity.roles") orelse return false, ',');
    while (roles.next()) |each| {
        if (std.mem.eql(u8, std.mem.trim(u8, each, " "), role)) return true;
    }
    return false;
}

fn failed(parts: []const []const u8) error{CallFailed} {
    log(.err, std.mem.concat(allocator, u8, parts) catch memory.exhausted());
    return error.CallFailed;
}
