//! The host's functions, as docs/author/guest-abi.md has them. A plugin imports those alone that it calls. Elsewhere
//! native.zig has them.

const env = struct {
    extern "env" fn kv_get(key: [*]const u8, key_len: usize, out: [*]u8, out_max: usize) i32;
    extern "env" fn kv_set(key: [*]const u8, key_len: usize, value: [*]const u8, value_len: usize) i32;
    extern "env" fn kv_delete(key: [*]const u8, key_len: usize) i32;
    extern "env" fn sha256_hex(in: [*]const u8, in_len: usize, out: [*]u8) i32;
};

const hookline = struct {
    extern "hookline" fn log(level: i32, line: [*]const u8, len: usize) i32;
    extern "hookline" fn get_time() i64;
    extern "hookline" fn random(out: [*]u8, len: usize) i32;
    extern "hookline" fn get_config(path: [*]const u8, len: usize) u64;
    extern "hookline" fn metric_inc(name: [*]const u8, len: usize, by: f64) i32;
    extern "hookline" fn metric_gauge(name: [*]const u8, len: usize, value: f64) i32;
    extern "hookline" fn metric_observe(name: [*]const u8, len: usize, value: f64) i32;
    extern "hookline" fn hmac_sha256(key: [*]const u8, key_len: usize, in: [*]const u8, in_len: usize, out: [*]u8) i32;
    extern "hookline" fn kv_list(prefix: [*]const u8, len: usize) u64;
    extern "hookline" fn kv_incr(key: [*]const u8, key_len: usize, by: i64) i64;
    extern "hookline" fn kv_compare_and_set(key: [*]const u8, key_len: usize, was: [*]const u8, was_len: i32, value: [*]const u8, value_len: usize) i32;
    extern "hookline" fn kv_set_ttl(key: [*]const u8, key_len: usize, ttl_ms: i64) i32;
    extern "hookline" fn query_execute(source: [*]const u8, source_len: usize, sql: [*]const u8, sql_len: usize, params: [*]const u8, params_len: usize) u64;
    extern "hookline" fn query_prepare(source: [*]const u8, source_len: usize, sql: [*]const u8, sql_len: usize) u64;
    extern "hookline" fn query_get_tables(sql: [*]const u8, len: usize) u64;
    extern "hookline" fn query_normalize(sql: [*]const u8, len: usize) u64;
    extern "hookline" fn cache_get(cache: [*]const u8, cache_len: usize, key: [*]const u8, key_len: usize) u64;
    extern "hookline" fn cache_exists(cache: [*]const u8, cache_len: usize, key: [*]const u8, key_len: usize) i32;
    extern "hookline" fn cache_set(cache: [*]const u8, cache_len: usize, key: [*]const u8, key_len: usize, value: [*]const u8, value_len: usize, ttl_ms: i64) i32;
    extern "hookline" fn cache_delete(cache: [*]const u8, cache_len: usize, key: [*]const u8, key_len: usize) i32;
    extern "hookline" fn http_fetch(request: [*]const u8, len: usize) u64;
    extern "hookline" fn http_post(url: [*]const u8, url_len: usize, content_type: [*]const u8, type_len: usize, body: [*]const u8, body_len: usize) u64;
};

/// Bytes that the host put where our alloc said, none, or a code.
pub const Bytes = struct { code: i32 = 0, bytes: ?[]const u8 = null };

fn unpack(packed_bytes: u64) Bytes {
    const at: usize = @intCast(packed_bytes >> 32);
    const len: usize = @truncate(packed_bytes);
    if (at == 0) return .{ .code = -@as(i32, @intCast(@min(len, 1 << 30))) };
    return .{ .bytes = @as([*]const u8, @ptrFromInt(at))[0..len] };
}

const Text = []const u8;

pub fn kvGet(key: Text, out: []u8) i32 {
    return env.kv_get(key.ptr, key.len, out.ptr, out.len);
}

pub fn kvSet(key: Text, value: Text) i32 {
    return env.kv_set(key.ptr, key.len, value.ptr, value.len);
}

pub fn kvDelete(key: Text) i32 {
    return env.kv_delete(key.ptr, key.len);
}

pub fn sha256Hex(text: Text, out: *[64]u8) i32 {
    return env.sha256_hex(text.ptr, text.len, out);
}

pub fn log(level: i32, line: Text) void {
    _ = hookline.log(level, line.ptr, line.len);
}

pub fn getTime() i64 {
    return hookline.get_time();
}

pub fn random(out: []u8) i32 {
    return hookline.random(out.ptr, out.len);
}

pub fn getConfig(path: Text) Bytes {
    return unpack(hookline.get_config(path.ptr, path.len));
}

pub fn metricInc(name: Text, by: f64) i32 {
    return hookline.metric_inc(name.ptr, name.len, by);
}

pub fn metricGauge(name: Text, value: f64) i32 {
    return hookline.metric_gauge(name.ptr, name.len, value);
}

pub fn metricObserve(name: Text, value: f64) i32 {
    return hookline.metric_observe(name.ptr, name.len, value);
}

pub fn hmacSha256(key: Text, text: Text, out: *[32]u8) i32 {
    return hookline.hmac_sha256(key.ptr, key.len, text.ptr, text.len, out);
}

pub fn kvList(prefix: Text) Bytes {
    return unpack(hookline.kv_list(prefix.ptr, prefix.len));
}

/// The least i64 where it came to nothing.
pub fn kvIncr(key: Text, by: i64) i64 {
    return hookline.kv_incr(key.ptr, key.len, by);
}

pub fn kvCompareAndSet(key: Text, was: ?Text, value: Text) i32 {
    const old = was orelse "";
    const len: i32 = if (was == null) -1 else @intCast(old.len);
    return hookline.kv_compare_and_set(key.ptr, key.len, old.ptr, len, value.ptr, value.len);
}

pub fn kvSetTtl(key: Text, ttl_ms: i64) i32 {
    return hookline.kv_set_ttl(key.ptr, key.len, ttl_ms);
}

pub fn queryExecute(source: Text, sql: Text, params: Text) Bytes {
    return unpack(hookline.query_execute(source.ptr, source.len, sql.ptr, sql.len, params.ptr, params.len));
}

pub fn queryPrepare(source: Text, sql: Text) Bytes {
    return unpack(hookline.query_prepare(source.ptr, source.len, sql.ptr, sql.len));
}

pub fn queryGetTables(sql: Text) Bytes {
    return unpack(hookline.query_get_tables(sql.ptr, sql.len));
}

pub fn queryNormalize(sql: Text) Bytes {
    return unpack(hookline.query_normalize(sql.ptr, sql.len));
}

pub fn cacheGet(cache: Text, key: Text) Bytes {
    return unpack(hookline.cache_get(cache.ptr, cache.len, key.ptr, key.len));
}

pub fn cacheExists(cache: Text, key: Text) i32 {
    return hookline.cache_exists(cache.ptr, cache.len, key.ptr, key.len);
}

pub fn cacheSet(cache: Text, key: Text, value: Text, ttl_ms: i64) i32 {
    return hookline.cache_set(cache.ptr, cache.len, key.ptr, key.len, value.ptr, value.len, ttl_ms);
}

pub fn cacheDelete(cache: Text, key: Text) i32 {
    return hookline.cache_delete(cache.ptr, cache.len, key.ptr, key.len);
}

pub fn httpFetch(request: Text) Bytes {
    return unpack(hookline.http_fetch(request.ptr, request.len));
}

pub fn httpPost(url: Text, content_type: Text, body: Text) Bytes {
    return unpack(hookline.http_post(url.ptr, url.len, content_type.ptr, content_type.len, body.ptr, body.len));
}

/// The call fails here.
pub fn end() noreturn {
    @trap();
}
