//! A strict reader of inputs, and a writer of answers.
//!
//! std.json would take a list of numbers for a text, and a text for a number: a guard would then judge something else
//! than what is run. Here its scanner reads, and each value has to be of its field's kind. Of repeated names the last
//! one counts, as in most parsers.

const std = @import("std");
const memory = @import("memory.zig");

pub const Value = std.json.Value;

/// Texts by name.
pub const Map = struct {
    entries: []const Entry = &.{},

    pub const Entry = struct { name: []const u8, value: []const u8 };

    /// The text of that name; null where there is none.
    pub fn get(self: Map, name: []const u8) ?[]const u8 {
        var at = self.entries.len;
        while (at > 0) {
            at -= 1;
            if (std.mem.eql(u8, self.entries[at].name, name)) return self.entries[at].value;
        }
        return null;
    }
};

/// Why an input is not what the contract says.
pub const Malformed = struct {
    field: []const u8 = "the input",
    why: []const u8 = "is not valid JSON",
};

const max_depth = 64;
const Error = error{Malformed};

pub const Reader = struct {
    scanner: std.json.Scanner,
    malformed: Malformed = .{},

    pub fn init(input: []const u8) Reader {
        return .{ .scanner = .initCompleteInput(memory.allocator, input) };
    }

    /// A whole document of that type.
    pub fn document(self: *Reader, comptime T: type) Error!T {
        const found = try self.value(T, "the input", 1);
        if (try self.next() != .end_of_document) return self.wrong("the input", "has more behind its end");
        return found;
    }

    fn wrong(self: *Reader, field: []const u8, why: []const u8) Error {
        self.malformed = .{ .field = field, .why = why };
        return error.Malformed;
    }

    fn next(self: *Reader) Error!std.json.Token {
        return self.scanner.nextAlloc(memory.allocator, .alloc_if_needed) catch |failure| switch (failure) {
            error.OutOfMemory => memory.exhausted(),
            else => error.Malformed,
        };
    }

    fn peek(self: *Reader) Error!std.json.TokenType {
        return self.scanner.peekNextTokenType() catch error.Malformed;
    }

    fn text(self: *Reader, field: []const u8) Error![]const u8 {
        return switch (try self.next()) {
            .string, .allocated_string => |found| found,
            else => self.wrong(field, "should be a text"),
        };
    }

    fn value(self: *Reader, comptime T: type, field: []const u8, depth: usize) Error!T {
        if (T == []const u8) return self.text(field);
        if (T == []const []const u8) return self.list(field);
        if (T == Map) return self.map(field);
        if (T == Value) return self.any(field, depth);
        return switch (@typeInfo(T)) {
            .optional => |optional| {
                if (try self.peek() != .null) return try self.value(optional.child, field, depth);
                _ = try self.next();
                return null;
            },
            .bool => switch (try self.next()) {
                .true => true,
                .false => false,
                else => self.wrong(field, "should be true or false"),
            },
            .int => switch (try self.next()) {
                .number, .allocated_number => |digits| whole(T, digits) orelse self.wrong(field, "should be a whole number"),
                else => self.wrong(field, "should be a whole number"),
            },
            .@"struct" => |info| if (info.is_tuple) self.tuple(T, field) else self.object(T, field, depth),
            else => @compileError("no input holds a " ++ @typeName(T)),
        };
    }

    /// Also one that is written 60.0.
    fn whole(comptime T: type, digits: []const u8) ?T {
        const dot = std.mem.indexOfScalar(u8, digits, '.') orelse digits.len;
        if (std.mem.trim(u8, digits[dot..], ".0").len > 0) return null;
        return std.fmt.parseInt(T, digits[0..dot], 10) catch null;
    }

    fn object(self: *Reader, comptime T: type, field: []const u8, depth: usize) Error!T {
        if (try self.next() != .object_begin) return self.wrong(field, "should be an object");
        const fields = @typeInfo(T).@"struct".fields;
        var found: T = undefined;
        var there = [_]bool{false} ** fields.len;
        inline for (fields) |each| {
            if (each.defaultValue()) |default| @field(found, each.name) = default;
        }
        members: while (try self.peek() != .object_end) {
            const name = try self.text(field);
            inline for (fields, 0..) |each, at| {
                if (std.mem.eql(u8, name, each.name)) {
                    // What may be left out may be null, which is the same. Other JSON is an object.
                    const kind = try self.peek();
                    if (each.type == Value and kind != .null and kind != .object_begin)
                        return self.wrong(each.name, "should be an object");
                    if (each.defaultValue() != null and kind == .null) {
                        _ = try self.next();
                    } else {
                        @field(found, each.name) = try self.value(each.type, each.name, depth + 1);
                    }
                    there[at] = true;
                    continue :members;
                }
            }
            try self.skip(depth + 1);
        }
        _ = try self.next();
        inline for (fields, 0..) |each, at| {
            if (each.defaultValue() == null and !there[at]) return self.wrong(each.name, "is missing");
        }
        return found;
    }

    fn tuple(self: *Reader, comptime T: type, field: []const u8) Error!T {
        if (try self.next() != .array_begin) return self.wrong(field, "should be a list");
        var found: T = undefined;
        inline for (@typeInfo(T).@"struct".fields) |each| {
            @field(found, each.name) = try self.value(each.type, field, 2);
        }
        if (try self.next() != .array_end) return self.wrong(field, "has too many elements");
        return found;
    }

    fn list(self: *Reader, field: []const u8) Error![]const []const u8 {
        if (try self.next() != .array_begin) return self.wrong(field, "should be a list of texts");
        var found: std.ArrayList([]const u8) = .empty;
        while (try self.peek() != .array_end) {
            found.append(memory.allocator, try self.text(field)) catch memory.exhausted();
        }
        _ = try self.next();
        return found.items;
    }

    fn map(self: *Reader, field: []const u8) Error!Map {
        if (try self.next() != .object_begin) return self.wrong(field, "should be an object of texts");
        var found: std.ArrayList(Map.Entry) = .empty;
        while (try self.peek() != .object_end) {
            const name = try self.text(field);
            found.append(memory.allocator, .{ .name = name, .value = try self.text(field) }) catch memory.exhausted();
        }
        _ = try self.next();
        return .{ .entries = found.items };
    }

    fn any(self: *Reader, field: []const u8, depth: usize) Error!Value {
        if (depth > max_depth) return self.wrong(field, "is nested too deep");
        return switch (try self.next()) {
            .true => .{ .bool = true },
            .false => .{ .bool = false },
            .null => .null,
            .string, .allocated_string => |found| .{ .string = found },
            .number, .allocated_number => |digits| .parseFromNumberSlice(digits),
            .array_begin => elements: {
                var found: std.json.Array = .init(memory.allocator);
                while (try self.peek() != .array_end) {
                    found.append(try self.any(field, depth + 1)) catch memory.exhausted();
                }
                _ = try self.next();
                break :elements .{ .array = found };
            },
            .object_begin => members: {
                var found: std.json.ObjectMap = .empty;
                while (try self.peek() != .object_end) {
                    const name = try self.text(field);
                    found.put(memory.allocator, name, try self.any(field, depth + 1)) catch memory.exhausted();
                }
                _ = try self.next();
                break :members .{ .object = found };
            },
            else => error.Malformed,
        };
    }

    fn skip(self: *Reader, depth: usize) Error!void {
        if (depth > max_depth) return self.wrong("the input", "is nested too deep");
        switch (try self.peek()) {
            .array_begin => {
                _ = try self.next();
                while (try self.peek() != .array_end) try self.skip(depth + 1);
            },
            .object_begin => {
                _ = try self.next();
                while (try self.peek() != .object_end) {
                    _ = try self.text("the input");
                    try self.skip(depth + 1);
                }
            },
            else => {},
        }
        _ = try self.next();
    }
};

/// Writes one object.
pub const Writer = struct {
    made: std.ArrayList(u8) = .empty,

    pub fn put(self: *Writer, part: []const u8) void {
        self.made.appendSlice(memory.allocator, part) catch memory.exhausted();
    }

    fn key(self: *Writer, name: []const u8) void {
        self.put(if (self.made.items.len == 0) "{" else ",");
        self.string(name);
        self.put(":");
    }

    pub fn action(self: *Writer, name: []const u8) void {
        self.text("action", name);
    }

    pub fn text(self: *Writer, name: []const u8, value: []const u8) void {
        self.key(name);
        self.string(value);
    }

    pub fn integer(self: *Writer, name: []const u8, value: i64) void {
        self.key(name);
        self.number(value);
    }

    pub fn number(self: *Writer, value: i64) void {
        var digits: [20]u8 = undefined;
        self.put(std.fmt.bufPrint(&digits, "{d}", .{value}) catch unreachable);
    }

    pub fn base64(self: *Writer, name: []const u8, value: []const u8) void {
        self.key(name);
        self.bytes(value);
    }

    pub fn bytes(self: *Writer, value: []const u8) void {
        const encoder = std.base64.standard.Encoder;
        self.put("\"");
        const room = self.made.addManyAsSlice(memory.allocator, encoder.calcSize(value.len)) catch memory.exhausted();
        _ = encoder.encode(room, value);
        self.put("\"");
    }

    /// Whatever std.json writes.
    pub fn any(self: *Writer, name: []const u8, value: anytype) void {
        self.key(name);
        self.put(valueText(value));
    }

    pub fn string(self: *Writer, value: []const u8) void {
        self.put("\"");
        var done: usize = 0;
        for (value, 0..) |c, at| {
            if (c >= 0x20 and c != '"' and c != '\\') continue;
            self.put(value[done..at]);
            done = at + 1;
            switch (c) {
                '"', '\\' => self.put(&.{ '\\', c }),
                '\n' => self.put("\\n"),
                else => self.put(&.{ '\\', 'u', '0', '0', "0123456789abcdef"[c >> 4], "0123456789abcdef"[c & 15] }),
            }
        }
        self.put(value[done..]);
        self.put("\"");
    }

    pub fn end(self: *Writer) []const u8 {
        self.put(if (self.made.items.len == 0) "{}" else "}");
        return self.made.items;
    }
};

/// A value as JSON; what is null is left out of structs. A struct writes itself by `jsonStringify`, as Map does.
pub fn valueText(value: anytype) []const u8 {
    return std.json.Stringify.valueAlloc(memory.allocator, value, .{ .emit_null_optional_fields = false }) catch memory.exhausted();
}
