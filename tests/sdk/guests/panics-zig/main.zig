//! Panics where it is asked to.

const hookline = @import("hookline");
pub const panic = hookline.panic;

comptime {
    hookline.hook(.pre_query, guard);
}

fn guard(in: hookline.QueryInput) hookline.PreQueryAnswer {
    var digits = [_]u8{0} ** 10;
    digits[in.query.len] = 1;
    return .{ .block = in.query[0 .. in.query.len * digits[in.query.len]] };
}
