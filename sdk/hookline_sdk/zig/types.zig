//! Generated from hookline_api/hooks.py by scripts/write_sdk.py; do not edit.
//!
//! What the proxy says, and what hooks answer. Slices are gone when the call ends.

const std = @import("std");
const json = @import("json.zig");
const Map = json.Map;

/// The points at which a proxy asks.
pub const Hook = enum {
    authenticate,
    authorize,
    pre_query,
    rewrite,
    route,
    cache_get,
    cache_set,
    post_query,
    metrics,
    on_connect,
    on_disconnect,
    custom_hook,
};

/// Who asks, and where: the same for every hook of one statement.
pub const HookContext = struct {
    /// Stays the same over every hook of one statement; made by the sidecar where the proxy sends none.
    request_id: []const u8 = "",
    client_id: ?[]const u8 = null,
    /// The user's name, as the proxy knows it.
    identity: ?[]const u8 = null,
    database: ?[]const u8 = null,
    branch: ?[]const u8 = null,
    /// Anything else that plugins read; `ATTRIBUTES` has the names that they agree about.
    attributes: Map = .{},
};

/// Input of `authenticate`.
pub const AuthenticateInput = struct {
    /// Names in lower case; repeated headers joined with a comma.
    headers: Map = .{},
    username: []const u8 = "",
    password: ?[]const u8 = null,
    client_ip: []const u8 = "",
    database: ?[]const u8 = null,
    /// Its `request_id` is the header `x-request-id` where the proxy names it there alone.
    hook_context: HookContext = .{},
};

/// Who a client is: what `authenticate` answers, and `authorize` is asked with.
pub const Identity = struct {
    /// Stays the same for this client, and is nobody else's.
    user_id: []const u8,
    /// For people, and as the user's name in `hook_context.identity`.
    username: []const u8,
    /// What the client may act as; a role has no comma. In later hooks it is the attribute `identity.roles`.
    roles: []const []const u8 = &.{},
    /// The tenant that the client belongs to; in later hooks it is the attribute of that name.
    tenant_id: ?[]const u8 = null,
    /// Anything else that was proven of the client, such as the claims of a token.
    claims: json.Value = .null,
};

/// Input of `authorize`.
pub const AuthorizeInput = struct {
    /// The statement, as the client sent it.
    query: []const u8,
    /// The statement without its literals. Where the proxy does not compute it, and after a rewrite, guests find the
    /// query's own text here, and the attribute `hookline.normalized` is `verbatim`.
    normalized: []const u8 = "",
    tables: []const []const u8 = &.{},
    is_read_only: bool = false,
    hook_context: HookContext = .{},
    identity: ?Identity = null,
    /// What is to be done: a verb of the proxy's, or an HTTP method. Empty where the proxy does not say.
    action: []const u8 = "",
    /// To what: a table, or an HTTP path. Empty where the proxy does not say.
    resource: []const u8 = "",
};

/// Input of `pre_query`, `rewrite` and `route`.
pub const QueryInput = struct {
    /// The statement, as the client sent it.
    query: []const u8,
    /// The statement without its literals. Where the proxy does not compute it, and after a rewrite, guests find the
    /// query's own text here, and the attribute `hookline.normalized` is `verbatim`.
    normalized: []const u8 = "",
    tables: []const []const u8 = &.{},
    is_read_only: bool = false,
    hook_context: HookContext = .{},
};

/// Input of `cache_get`.
pub const CacheGetInput = struct {
    /// The statement, as the client sent it.
    query: []const u8,
    /// The statement without its literals. Where the proxy does not compute it, and after a rewrite, guests find the
    /// query's own text here, and the attribute `hookline.normalized` is `verbatim`.
    normalized: []const u8 = "",
    tables: []const []const u8 = &.{},
    is_read_only: bool = false,
    hook_context: HookContext = .{},
    key: []const u8,
};

/// Input of `cache_set`.
pub const CacheSetInput = struct {
    /// The statement, as the client sent it.
    query: []const u8,
    /// The statement without its literals. Where the proxy does not compute it, and after a rewrite, guests find the
    /// query's own text here, and the attribute `hookline.normalized` is `verbatim`.
    normalized: []const u8 = "",
    tables: []const []const u8 = &.{},
    is_read_only: bool = false,
    hook_context: HookContext = .{},
    key: []const u8,
    /// The bytes to store, base64.
    value: []const u8,
    ttl_ms: ?i64 = null,
};

/// Input of `on_connect`, `on_disconnect` and `metrics`.
pub const EventInput = struct {
    hook_context: HookContext = .{},
    event: json.Value = .null,
};

/// How a statement went; the second element of `post_query`'s input.
pub const Outcome = struct {
    success: bool,
    target_node: ?[]const u8 = null,
    elapsed_us: i64 = 0,
    response_bytes: i64 = 0,
    @"error": ?[]const u8 = null,
};

/// What `authenticate` answers.
pub const AuthenticateAnswer = union(enum) {
    /// The client is who `identity` says.
    success: Identity,
    /// The client's credentials are wrong.
    denied: []const u8,
    /// No plugin has an opinion; the proxy's own rules apply.
    @"defer",

    pub fn write(self: @This(), to: *json.Writer) void {
        switch (self) {
            .success => |value| {
                to.action("success");
                to.any("identity", value);
            },
            .denied => |value| {
                to.action("denied");
                to.text("message", value);
            },
            .@"defer" => to.action("defer"),
        }
    }
};

/// What `authorize` answers.
pub const AuthorizeAnswer = union(enum) {
    /// The action may be done.
    allow: struct { reason: ?[]const u8 = null },
    /// The action may not be done.
    deny: struct { reason: ?[]const u8 = null },
    /// No plugin has an opinion; the proxy's own rules apply.
    @"defer",

    pub fn write(self: @This(), to: *json.Writer) void {
        switch (self) {
            .allow => |value| {
                to.action("allow");
                if (value.reason) |some| to.text("reason", some);
            },
            .deny => |value| {
                to.action("deny");
                if (value.reason) |some| to.text("reason", some);
            },
            .@"defer" => to.action("defer"),
        }
    }
};

/// What `pre_query` answers.
pub const PreQueryAnswer = union(enum) {
    /// Go on with the query as it is.
    @"continue",
    /// Go on with another query.
    rewrite: []const u8,
    /// Refuse the statement.
    block: []const u8,
    /// Answer the client with these bytes, and do not run the query.
    cached: []const u8,

    pub fn write(self: @This(), to: *json.Writer) void {
        switch (self) {
            .@"continue" => to.action("continue"),
            .rewrite => |value| {
                to.action("rewrite");
                to.text("value", value);
            },
            .block => |value| {
                to.action("block");
                to.text("value", value);
            },
            .cached => |value| {
                to.action("cached");
                to.base64("data_base64", value);
            },
        }
    }
};

/// What `rewrite` answers.
pub const RewriteAnswer = union(enum) {
    /// Go on with the query as it is.
    @"continue",
    /// Go on with another query.
    rewrite: []const u8,
    /// Refuse the statement.
    block: []const u8,

    pub fn write(self: @This(), to: *json.Writer) void {
        switch (self) {
            .@"continue" => to.action("continue"),
            .rewrite => |value| {
                to.action("rewrite");
                to.text("value", value);
            },
            .block => |value| {
                to.action("block");
                to.text("value", value);
            },
        }
    }
};

/// What `route` answers.
pub const RouteAnswer = union(enum) {
    /// Send the statement to the default node, the primary, or any standby.
    default,
    /// Send the statement to the default node, the primary, or any standby.
    primary,
    /// Send the statement to the default node, the primary, or any standby.
    standby,
    /// Send the statement to a node or a branch by name.
    node: []const u8,
    /// Send the statement to a node or a branch by name.
    branch: []const u8,
    /// Do not route the statement at all.
    block: []const u8,

    pub fn write(self: @This(), to: *json.Writer) void {
        switch (self) {
            .default => to.action("default"),
            .primary => to.action("primary"),
            .standby => to.action("standby"),
            .node => |value| {
                to.action("node");
                to.text("target", value);
            },
            .branch => |value| {
                to.action("branch");
                to.text("target", value);
            },
            .block => |value| {
                to.action("block");
                to.text("reason", value);
            },
        }
    }
};

/// What `cache_get` answers.
pub const CacheGetAnswer = union(enum) {
    /// Answer from the cache.
    hit: struct { data: []const u8, ttl_ms: ?i64 = null },
    /// The cache has nothing.
    miss,

    pub fn write(self: @This(), to: *json.Writer) void {
        switch (self) {
            .hit => |value| {
                to.action("hit");
                to.base64("data_base64", value.data);
                if (value.ttl_ms) |some| to.integer("ttl_ms", some);
            },
            .miss => to.action("miss"),
        }
    }
};

/// What `cache_set` answers.
pub const CacheSetAnswer = union(enum) {
    /// Store the value.
    store: struct { ttl_ms: ?i64 = null },
    /// Do not store the value.
    skip,

    pub fn write(self: @This(), to: *json.Writer) void {
        switch (self) {
            .store => |value| {
                to.action("store");
                if (value.ttl_ms) |some| to.integer("ttl_ms", some);
            },
            .skip => to.action("skip"),
        }
    }
};

/// What a hook is called with; `post_query` has two.
pub fn Input(comptime hook: Hook) type {
    return switch (hook) {
        .authenticate => AuthenticateInput,
        .authorize => AuthorizeInput,
        .pre_query => QueryInput,
        .rewrite => QueryInput,
        .route => QueryInput,
        .cache_get => CacheGetInput,
        .cache_set => CacheSetInput,
        .post_query => struct { QueryInput, Outcome },
        .metrics => EventInput,
        .on_connect => EventInput,
        .on_disconnect => EventInput,
        .custom_hook => json.Value,
    };
}

/// What it answers; observing ones nothing.
pub fn Answer(comptime hook: Hook) type {
    return switch (hook) {
        .authenticate => AuthenticateAnswer,
        .authorize => AuthorizeAnswer,
        .pre_query => PreQueryAnswer,
        .rewrite => RewriteAnswer,
        .route => RouteAnswer,
        .cache_get => CacheGetAnswer,
        .cache_set => CacheSetAnswer,
        .post_query => void,
        .metrics => void,
        .on_connect => void,
        .on_disconnect => void,
        .custom_hook => ?json.Value,
    };
}
