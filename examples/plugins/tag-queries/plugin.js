// tag-queries: writes who asked into a comment behind each statement, for the database's own log (sqlcommenter's form).

import { config, hooks, rewrite } from "./hookline-sdk/hookline.js";

function tags({ hook_context: context }) {
  const known = { ...context.attributes, database: context.database, identity: context.identity, request_id: context.request_id };
  return config("tags", ["application_name", "identity"])
    .filter((name) => typeof known[name] === "string" && known[name] !== "")
    .sort()
    .map((name) => `${encodeURIComponent(name)}='${encodeURIComponent(known[name]).replaceAll("'", "%27")}'`);
}

// encodeURIComponent leaves neither * nor ' nor /: of these only * would be left, and it could end the comment.
function rewriteQuery({ query, ...rest }) {
  const found = tags(rest).join(",").replaceAll("*", "%2A");
  let statement = query.trimEnd();
  const end = statement.endsWith(";") ? ";" : "";
  statement = end === "" ? statement : statement.slice(0, -1).trimEnd();
  return found === "" || statement.endsWith("*/") ? undefined : rewrite(`${statement} /*${found}*/${end}`);
}

export const call = hooks({ rewrite: rewriteQuery });
