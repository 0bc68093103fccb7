// Looks for a rule that is not there.

import { answer, text } from "../../../../../../sdk/hookline_sdk/assemblyscript/hookline";

export { alloc, dealloc } from "../../../../../../sdk/hookline_sdk/assemblyscript/hookline";

export function custom_hook(at: usize, len: i32): u64 {
  const given = text(at, len);
  if (given.length > 0) throw new Error("the rule is missing");
  return answer(given);
}
