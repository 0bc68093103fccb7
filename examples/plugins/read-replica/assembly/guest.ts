// The guest's side of the ABI: memory that the host writes to and reads from, and host functions.

@external("env", "kv_get")
declare function hostKvGet(key: usize, keyLen: i32, out: usize, outMax: i32): i32;
@external("env", "kv_set")
declare function hostKvSet(key: usize, keyLen: i32, value: usize, valueLen: i32): i32;
@external("hookline", "get_time")
export declare function now(): i64;
@external("hookline", "get_config")
declare function hostGetConfig(path: usize, len: i32): u64;
@external("hookline", "log")
declare function hostLog(level: i32, line: usize, len: i32): i32;

// Blocks for the host are taken outside of the garbage collector's sight, and freed when the host says so.
export function alloc(size: i32): usize {
  return heap.alloc(size);
}

export function dealloc(at: usize, size: i32): void {
  heap.free(at);
}

/** What a failed assertion and a thrown error come to: a line in the log and a trap. */
export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  const text = String.UTF8.encode(message ? message : "aborted");
  hostLog(4, changetype<usize>(text), text.byteLength);
  unreachable();
}

export function text(at: usize, len: i32): string {
  return String.UTF8.decodeUnsafe(at, len);
}

/** Copies an answer to where the host frees it, and packs pointer and length. */
export function answer(json: string): u64 {
  const bytes = String.UTF8.encode(json);
  const at = heap.alloc(bytes.byteLength);
  memory.copy(at, changetype<usize>(bytes), bytes.byteLength);
  return ((<u64>at) << 32) | (<u64>bytes.byteLength);
}

/** The whole config, JSON. */
export function config(): string {
  const packed = hostGetConfig(0, 0);
  const at = <usize>(packed >> 32);
  if (at == 0) {
    assert(packed == 0, "the config cannot be read; is the permission config.read granted?");
    return "{}";
  }
  const json = text(at, <i32>packed);
  heap.free(at);
  return json;
}

/** A short value of the key-value store; null where there is none. */
export function kvGet(key: string): string | null {
  const name = String.UTF8.encode(key);
  const out = new ArrayBuffer(64);
  const len = hostKvGet(changetype<usize>(name), name.byteLength, changetype<usize>(out), out.byteLength);
  return len < 0 ? null : text(changetype<usize>(out), len);
}

export function kvSet(key: string, value: string): bool {
  const name = String.UTF8.encode(key);
  const bytes = String.UTF8.encode(value);
  return hostKvSet(changetype<usize>(name), name.byteLength, changetype<usize>(bytes), bytes.byteLength) == 0;
}
