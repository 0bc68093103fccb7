// Base64 (RFC 4648, section 4), in which bytes travel in JSON.

import { Writer } from "./json";

const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

export function encode(bytes: Uint8Array): string {
  const out = new Writer(((bytes.length + 2) / 3) * 4);
  for (let i = 0; i < bytes.length; i += 3) {
    const have = min(bytes.length - i, 3);
    let bits: u32 = 0;
    for (let k = 0; k < 3; k++) bits = (bits << 8) | (k < have ? bytes[i + k] : 0);
    for (let k = 0; k < 4; k++) out.put(k > have ? 0x3d : DIGITS.charCodeAt((bits >> (18 - 6 * k)) & 63));
  }
  return out.text;
}

/** With or without padding; null where it is no base64. */
export function decode(text: string): Uint8Array | null {
  let length = text.length;
  while (length > 0 && text.charCodeAt(length - 1) == 0x3d) length--;
  if (length % 4 == 1) return null;
  const out = new Uint8Array((length * 3) / 4);
  let bits: u32 = 0;
  let at = 0;
  for (let i = 0; i < length; i++) {
    const digit = DIGITS.indexOf(text.charAt(i));
    if (digit < 0) return null;
    bits = (bits << 6) | digit;
    if (i % 4 != 0) out[at++] = <u8>(bits >> (2 * (3 - (i % 4))));
  }
  return out;
}
