// my-plugin: only some roles may read some tables.

import { block, config, hooks } from "./hookline-sdk/hookline.js";

const among = (names, name) => names.some((each) => each.toLowerCase() === name.toLowerCase());

function guard({ tables = [], hook_context: context = {} }) {
  const { tables: limited, roles: allowed = [] } = config();
  const roles = (context.attributes?.["identity.roles"] ?? "").split(",").map((role) => role.trim());
  const table = tables.find((each) => among(limited, each));
  return table && !roles.some((role) => allowed.includes(role)) ? block(`${table} is not for you`) : undefined;
}

export const call = hooks({ pre_query: guard });
