// my-plugin: refuses statements that drop or truncate a table.

import { block, config, hooks } from "./hookline-sdk/hookline.js";

const FORBIDDEN = /\b(drop|truncate)\b/i;

function preQuery({ query }) {
  const found = FORBIDDEN.exec(query);
  return found ? block(`${found[1].toLowerCase()} is not allowed${config("because", "")}`) : undefined;
}

export const call = hooks({ pre_query: preQuery });
