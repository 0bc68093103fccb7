// my-plugin: only some roles may read some tables.

import { PreQuery, QueryInput, config, hook, sameName } from "../hookline-sdk/hookline";
import { member, texts } from "../hookline-sdk/json";

export { alloc, dealloc } from "../hookline-sdk/hookline";

function decide(input: QueryInput): PreQuery {
  const settings = config();
  const roles = texts(settings, member(settings, 0, "roles"));
  for (let i = 0; i < roles.length; i++) {
    if (input.hasRole(roles[i])) return PreQuery.continue();
  }
  const limited = texts(settings, member(settings, 0, "tables"));
  for (let i = 0; i < limited.length; i++) {
    for (let k = 0; k < input.tables.length; k++) {
      if (sameName(limited[i], input.tables[k])) return PreQuery.block(input.tables[k] + " is not for you");
    }
  }
  return PreQuery.continue();
}

export function pre_query(at: usize, len: i32): u64 {
  return hook.pre_query(at, len, decide);
}
