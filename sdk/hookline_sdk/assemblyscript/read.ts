// Reads an input straight into its type, in one pass. What is malformed ends the call with the reason.

import { decimal, unescaped } from "./json";

const MAX_DEPTH = 64;

/** Whether two names are the same but for upper and lower case of A to Z, as SQL has it. */
export function sameName(a: string, b: string): bool {
  if (a.length != b.length) return false;
  for (let i = 0; i < a.length; i++) {
    const one = a.charCodeAt(i);
    const other = b.charCodeAt(i);
    if (one == other) continue;
    if ((one | 0x20) != (other | 0x20) || (one | 0x20) < 0x61 || (one | 0x20) > 0x7a) return false;
  }
  return true;
}

/** Whether one of the parts of a text, which has commas between them, is this one. */
export function hasPart(list: string, wanted: string): bool {
  let start = 0;
  for (let at = 0; at <= list.length; at++) {
    if (at < list.length && list.charCodeAt(at) != 0x2c) continue;
    let end = at;
    while (start < end && list.charCodeAt(start) <= 0x20) start++;
    while (start < end && list.charCodeAt(end - 1) <= 0x20) end--;
    if (end - start == wanted.length && end > start && list.substring(start, end) == wanted) return true;
    start = at + 1;
  }
  return false;
}

/** Texts by name, such as attributes and headers, in the order in which they came. */
export class Texts {
  names: string[] = [];
  values: string[] = [];

  /** Null where there is no such name; of repeated names the last. */
  get(name: string): string | null {
    const at = this.names.lastIndexOf(name);
    return at < 0 ? null : this.values[at];
  }

  set(name: string, value: string): Texts {
    this.names.push(name);
    this.values.push(value);
    return this;
  }
}

export class Reader {
  private at: i32 = 0;
  private depth: i32 = 0;
  private name: string | null = null; // of the member, where something in it is escaped
  private nameAt: i32 = 0;
  private nameLength: i32 = 0;

  constructor(private json: string) {}

  private malformed(why: string): void {
    throw new Error("the input is malformed: " + why + " (at character " + decimal(this.at) + ")");
  }

  private code(at: i32): i32 {
    return <i32>load<u16>(changetype<usize>(this.json) + ((<usize>at) << 1));
  }

  /** The next character that is no space; -1 at the end. */
  private peek(): i32 {
    const length = this.json.length;
    for (; this.at < length; this.at++) {
      const c = this.code(this.at);
      if (c != 0x20 && c != 0x0a && c != 0x0d && c != 0x09) return c;
    }
    return -1;
  }

  private takes(c: i32): bool {
    if (this.peek() != c) return false;
    this.at++;
    return true;
  }

  private word(word: string): bool {
    this.peek();
    if (!this.json.startsWith(word, this.at)) return false;
    this.at += word.length;
    return true;
  }

  /** Goes over a string to behind it; whether something in it is escaped. */
  private scan(): bool {
    if (!this.takes(0x22)) this.malformed("a text was expected");
    const units = changetype<usize>(this.json);
    const length = this.json.length;
    let escaped = false;
    let at = this.at; // not the field: this is the loop that reads a long statement
    for (; at < length; at++) {
      const c = load<u16>(units + ((<usize>at) << 1));
      if (c == 0x22) {
        this.at = at + 1;
        return escaped;
      }
      if (c < 0x20) break;
      if (c == 0x5c) {
        escaped = true;
        at++;
      }
    }
    this.at = min(at, length);
    this.malformed("a text does not end");
    return false;
  }

  private decoded(start: i32, end: i32): string {
    const text = unescaped(this.json, start, end);
    if (text !== null) return text;
    this.malformed("an escape is none");
    return "";
  }

  /** Begins an object. */
  open(): void {
    if (!this.takes(0x7b)) this.malformed("an object was expected");
    this.depth++;
  }

  /** To the value of an object's next member that is not null; false at its end, which is taken. */
  next(isFirst: bool): bool {
    while (true) {
      if (this.takes(0x7d)) {
        this.depth--;
        return false;
      }
      if (!isFirst && !this.takes(0x2c)) this.malformed("a comma is missing");
      this.peek();
      const start = this.at + 1;
      const escaped = this.scan();
      this.nameAt = start;
      this.nameLength = this.at - 1 - start;
      this.name = escaped ? this.decoded(start, this.at - 1) : null;
      if (!this.takes(0x3a)) this.malformed("a colon is missing");
      if (!this.word("null")) return true;
      isFirst = false;
    }
  }

  /** Whether the member's name is this one. */
  is(name: string): bool {
    const escaped = this.name;
    if (escaped !== null) return escaped == name;
    if (this.nameLength != name.length) return false;
    const at = changetype<usize>(this.json) + ((<usize>this.nameAt) << 1);
    return memory.compare(at, changetype<usize>(name), (<usize>name.length) << 1) == 0;
  }

  /** An input without a field that has to be there is malformed. */
  need(isThere: bool, name: string): void {
    if (!isThere) this.malformed(name + " is missing");
  }

  text(): string {
    this.peek();
    const start = this.at + 1;
    const escaped = this.scan();
    return escaped ? this.decoded(start, this.at - 1) : this.json.substring(start, this.at - 1);
  }

  flag(): bool {
    if (this.word("true")) return true;
    if (!this.word("false")) this.malformed("true or false was expected");
    return false;
  }

  integer(): i64 {
    this.peek();
    const start = this.at;
    this.number();
    let value: i64 = 0;
    const negative = this.code(start) == 0x2d;
    for (let at = start + i32(negative); at < this.at; at++) {
      const digit = this.code(at) - 0x30;
      if (digit < 0 || digit > 9 || value > (i64.MAX_VALUE - digit) / 10) this.malformed("a whole number was expected");
      value = value * 10 + digit;
    }
    return negative ? -value : value;
  }

  texts(): string[] {
    const found: string[] = [];
    if (!this.takes(0x5b)) this.malformed("a list was expected");
    while (!this.takes(0x5d)) {
      if (found.length && !this.takes(0x2c)) this.malformed("a comma is missing");
      found.push(this.text());
    }
    return found;
  }

  map(): Texts {
    const found = new Texts();
    this.open();
    for (let first = true; !this.takes(0x7d); first = false) {
      if (!first && !this.takes(0x2c)) this.malformed("a comma is missing");
      found.names.push(this.text());
      if (!this.takes(0x3a)) this.malformed("a colon is missing");
      found.values.push(this.text());
    }
    this.depth--;
    return found;
  }

  /** A value as it is written: JSON. */
  raw(): string {
    this.peek();
    const start = this.at;
    this.skip();
    return this.json.substring(start, this.at);
  }

  private digits(): void {
    const start = this.at;
    while (this.at < this.json.length && this.code(this.at) - 0x30 >= 0 && this.code(this.at) <= 0x39) this.at++;
    if (this.at == start) this.malformed("it is no JSON");
  }

  private number(): void {
    if (this.peek() == 0x2d) this.at++;
    this.digits();
    if (this.json.startsWith(".", this.at)) {
      this.at++;
      this.digits();
    }
    const c = this.at < this.json.length ? this.code(this.at) | 0x20 : 0;
    if (c != 0x65) return;
    this.at++;
    const sign = this.at < this.json.length ? this.code(this.at) : 0;
    if (sign == 0x2b || sign == 0x2d) this.at++;
    this.digits();
  }

  /** Goes over a value: a newer host may say more. */
  skip(): void {
    const c = this.peek();
    if (c == 0x22) {
      this.scan();
      return;
    }
    if (c != 0x7b && c != 0x5b) {
      if (!this.word("true") && !this.word("false") && !this.word("null")) this.number();
      return;
    }
    if (++this.depth > MAX_DEPTH) this.malformed("it is nested too deeply");
    const close = c + 2; // } ]
    this.at++;
    for (let first = true; !this.takes(close); first = false) {
      if (!first && !this.takes(0x2c)) this.malformed("a comma is missing");
      if (c == 0x7b) {
        this.scan();
        if (!this.takes(0x3a)) this.malformed("a colon is missing");
      }
      this.skip();
    }
    this.depth--;
  }

  /** Takes one of the characters that hold a list of two together. */
  part(c: i32): void {
    if (!this.takes(c)) this.malformed("a list of two was expected");
  }

  end(): void {
    if (this.peek() >= 0) this.malformed("there is something behind it");
  }
}
