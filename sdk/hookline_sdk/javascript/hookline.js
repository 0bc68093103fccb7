// Hookline's plugins in JavaScript: one function for each hook, which gets an object and answers one.
//
//   import { block, hooks } from "./hookline-sdk/hookline.js";
//   export const call = hooks({ pre_query: ({ query }) => (/drop/i.test(query) ? block("no") : undefined) });

import * as host from "hookline:plugin/host";

export { host };

/** What a component exports as `call`: the functions of its hooks, by their names. What one throws fails the call. */
export function hooks(table) {
  return (hook, input) => {
    const handler = Object.hasOwn(table, hook) ? table[hook] : undefined;
    if (handler === undefined) {
      host.fail(`it has no function for the hook ${hook}`);
    }
    let answer;
    try {
      answer = handler(input === "" ? undefined : JSON.parse(input));
    } catch (error) {
      if (error?.ended) {
        throw error; // in tests, what fail() throws
      }
      host.fail(told(error));
    }
    if (answer === undefined || answer === null) {
      return "";
    }
    if (typeof answer.then === "function") {
      host.fail(`the function for ${hook} is asynchronous, and a hook is answered at once`);
    }
    return JSON.stringify(answer);
  };
}

function told(error) {
  if (!(error instanceof Error)) {
    return String(error?.payload ?? error);
  }
  const where = String(error.stack ?? "").split("\n").map((line) => line.trim()).find((line) => line.startsWith("at "));
  return `${error.name}: ${error.payload ?? error.message}${where ? ` (${where})` : ""}`;
}

/** Go on as if the plugin were not there (pre_query, rewrite). */
export const goOn = Object.freeze({ action: "continue" });

/** Refuse the statement (pre_query, route), and tell the client why. */
export function block(reason) {
  return { action: "block", value: reason };
}

/** Go on with another statement (pre_query, rewrite). */
export function rewrite(sql) {
  return { action: "rewrite", value: sql };
}

/** The plugin's setting at a path with dots; `otherwise` where there is none. */
export function config(path = "", otherwise = undefined) {
  const found = host.getConfig(path);
  return found === undefined || found === null ? otherwise : JSON.parse(found);
}

/** Ask a host that spec.egress allows. The response, or an object with `error`. */
export function fetch(request) {
  return JSON.parse(host.httpFetch(JSON.stringify(request)));
}

/** Ask a database of spec.dataSources. The result, or an object with `error`. */
export function query(source, sql, parameters = []) {
  return JSON.parse(host.queryExecute(source, sql, JSON.stringify(parameters)));
}
