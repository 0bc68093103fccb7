// Reads single values out of JSON without building a tree: a value is the index at which it begins. What is
// malformed on the way to a value fails an assertion, which is a trap.

const MALFORMED = "malformed JSON";
const HEX = "0123456789abcdef";

function space(json: string, at: i32): i32 {
  for (; at < json.length; at++) {
    const c = json.charCodeAt(at);
    if (c != 0x20 && c != 0x0a && c != 0x0d && c != 0x09) break;
  }
  return at;
}

function is(json: string, at: i32, c: string): bool {
  return at < json.length && json.charCodeAt(at) == c.charCodeAt(0);
}

/** The end of the string that begins at an index. */
function stringEnd(json: string, at: i32): i32 {
  assert(is(json, at, '"'), MALFORMED);
  for (at++; at < json.length; at++) {
    const c = json.charCodeAt(at);
    if (c == 0x22) return at + 1; // "
    if (c == 0x5c) at++; // \
    assert(c >= 0x20, MALFORMED);
  }
  throw new Error(MALFORMED);
}

/** The end of any value that begins at an index. */
function valueEnd(json: string, at: i32): i32 {
  if (is(json, at, '"')) return stringEnd(json, at);
  let depth = 0;
  const start = at;
  while (at < json.length) {
    const c = json.charCodeAt(at);
    if (c == 0x22) {
      at = stringEnd(json, at);
      continue;
    }
    if (c == 0x7b || c == 0x5b) depth++; // { [
    if (c == 0x7d || c == 0x5d) {
      // } ]
      if (depth == 0) break;
      if (--depth == 0) return at + 1;
    }
    if (depth == 0 && (c == 0x2c || c <= 0x20)) break; // ,
    at++;
  }
  assert(depth == 0 && at > start, MALFORMED);
  return at;
}

/** The member of the object that begins at an index; -1 where there is none. Of repeated keys the last. */
export function member(json: string, at: i32, key: string): i32 {
  if (at < 0) return -1;
  at = space(json, at);
  if (!is(json, at, "{")) return -1;
  let found = -1;
  at = space(json, at + 1);
  while (!is(json, at, "}")) {
    const name = at;
    at = space(json, stringEnd(json, at));
    assert(is(json, at, ":"), MALFORMED);
    at = space(json, at + 1);
    if (textOf(json, name) == key) found = at;
    at = space(json, valueEnd(json, at));
    if (is(json, at, "}")) break;
    assert(is(json, at, ","), MALFORMED);
    at = space(json, at + 1);
  }
  return found;
}

/** The names of an object's members. */
export function names(json: string, at: i32): string[] {
  const found: string[] = [];
  if (at < 0 || !is(json, at, "{")) return found;
  at = space(json, at + 1);
  while (!is(json, at, "}")) {
    const name = textOf(json, at);
    if (name !== null) found.push(name);
    at = space(json, stringEnd(json, at));
    assert(is(json, at, ":"), MALFORMED);
    at = space(json, valueEnd(json, space(json, at + 1)));
    if (is(json, at, "}")) break;
    assert(is(json, at, ","), MALFORMED);
    at = space(json, at + 1);
  }
  return found;
}

/** Where the elements of an array begin. */
export function elements(json: string, at: i32): i32[] {
  const found: i32[] = [];
  if (at < 0 || !is(json, at, "[")) return found;
  at = space(json, at + 1);
  while (!is(json, at, "]")) {
    found.push(at);
    at = space(json, valueEnd(json, at));
    if (is(json, at, "]")) break;
    assert(is(json, at, ","), MALFORMED);
    at = space(json, at + 1);
  }
  return found;
}

/** The strings of an array; other elements are left out. */
export function texts(json: string, at: i32): string[] {
  const found: string[] = [];
  const places = elements(json, at);
  for (let i = 0; i < places.length; i++) {
    const one = textOf(json, places[i]);
    if (one !== null) found.push(one);
  }
  return found;
}

/** Text that is written unit by unit into room that is taken once: with `+=` a long one would be copied for each. */
export class Writer {
  private units: ArrayBuffer;
  private length: usize = 0;

  constructor(private atMost: i32) {
    this.units = new ArrayBuffer(atMost << 1);
  }

  // @ts-ignore: a decorator of AssemblyScript
  @inline
  put(unit: i32): void {
    assert(this.length < <usize>this.atMost);
    store<u16>(changetype<usize>(this.units) + (this.length++ << 1), unit);
  }

  get text(): string {
    return String.UTF16.decodeUnsafe(changetype<usize>(this.units), this.length << 1);
  }
}

/** Text as a JSON string, with its quotes. */
export function quoted(text: string): string {
  let length = text.length + 2;
  for (let at = 0; at < text.length; at++) {
    const c = text.charCodeAt(at);
    if (c < 0x20) length += 5;
    else if (c == 0x22 || c == 0x5c) length++;
  }
  if (length == text.length + 2) return '"' + text + '"';
  const out = new Writer(length);
  out.put(0x22);
  for (let at = 0; at < text.length; at++) {
    const c = text.charCodeAt(at);
    if (c < 0x20) {
      for (let i = 0; i < 4; i++) out.put("\\u00".charCodeAt(i));
      out.put(HEX.charCodeAt(c >> 4));
      out.put(HEX.charCodeAt(c & 15));
    } else {
      if (c == 0x22 || c == 0x5c) out.put(0x5c);
      out.put(c);
    }
  }
  out.put(0x22);
  return out.text;
}

/** What stands between two indices of a string with its escapes decoded; null where one of them is none. */
export function unescaped(json: string, start: i32, end: i32): string | null {
  const out = new Writer(end - start);
  const units = changetype<usize>(json);
  for (let at = start; at < end; at++) {
    let c: i32 = load<u16>(units + ((<usize>at) << 1));
    if (c == 0x5c) {
      if (++at >= end) return null;
      c = load<u16>(units + ((<usize>at) << 1));
      switch (c) {
        case 0x22: // "
        case 0x5c: // \
        case 0x2f: // /
          break;
        case 0x62:
          c = 0x08;
          break;
        case 0x66:
          c = 0x0c;
          break;
        case 0x6e:
          c = 0x0a;
          break;
        case 0x72:
          c = 0x0d;
          break;
        case 0x74:
          c = 0x09;
          break;
        case 0x75: // half a pair comes with its other half
          c = at + 4 < end ? hex4(json, at + 1) : -1;
          if (c < 0) return null;
          at += 4;
          break;
        default:
          return null;
      }
    }
    out.put(c);
  }
  return out.text;
}

/** A string, with its escapes decoded; null for any other value. */
export function textOf(json: string, at: i32): string | null {
  if (at < 0 || !is(json, at, '"')) return null;
  const end = stringEnd(json, at) - 1;
  for (let i = at + 1; i < end; i++) {
    if (json.charCodeAt(i) != 0x5c) continue;
    const text = unescaped(json, at + 1, end);
    assert(text !== null, MALFORMED);
    return text;
  }
  return json.substring(at + 1, end);
}

/** Four hexadecimal digits; -1 where they are none. */
export function hex4(json: string, at: i32): i32 {
  let unit = 0;
  for (let i = at; i < at + 4; i++) {
    const digit = i < json.length ? json.charCodeAt(i) | 0x20 : 0;
    if (digit >= 0x30 && digit <= 0x39) unit = (unit << 4) | (digit - 0x30);
    else if (digit >= 0x61 && digit <= 0x66) unit = (unit << 4) | (digit - 0x57);
    else return -1;
  }
  return unit;
}

/** A number of 0 or more as it is written: without the tables that toString brings. */
export function decimal(number: i32): string {
  let out = "";
  do {
    out = String.fromCharCode(0x30 + (number % 10)) + out;
    number /= 10;
  } while (number > 0);
  return out;
}

export function isTrue(json: string, at: i32): bool {
  return at >= 0 && json.substr(at, 4) == "true";
}

/** An integer; `otherwise` for any other value. */
export function integer(json: string, at: i32, otherwise: i64): i64 {
  if (at < 0) return otherwise;
  const c = json.charCodeAt(at);
  return c == 0x2d || (c >= 0x30 && c <= 0x39) ? I64.parseInt(json.substring(at, valueEnd(json, at))) : otherwise;
}
