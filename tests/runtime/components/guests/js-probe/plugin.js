// For tests: does what the statement says, and answers what came of it.
import { block, config, hooks, host, rewrite } from "./hookline-sdk/hookline.js";

let calls = 0;
const kept = [];

function tried(work) {
  try {
    return work() ?? null;
  } catch (error) {
    return { error: error?.payload ?? String(error) };
  }
}

const acts = {
  echo: (input) => input,
  count: () => ++calls,
  throw: () => {
    throw new TypeError("what a pity");
  },
  loop: () => {
    for (;;);
  },
  memory: () => {
    for (;;) kept.push("x".repeat(100_000) + kept.length);
  },
  large: () => "x".repeat(3_000_000),
  later: () => Promise.resolve(1),
  print: () => host.log("warn", "a line"),
  clock: () => [Date.now() > 1_700_000_000_000, host.getTime() > 1_700_000_000_000],
  random: () => host.random(8).length,
  config: () => [config("a.b"), config("nothing", "else")],
  digests: () => [host.sha256Hex("abc"), host.hmacSha256("key", "text")],
  metrics: () => [tried(() => host.metricInc("asked", 2)), tried(() => host.metricInc("Wrong Name", 1))],
  keys: () => [
    tried(() => host.kvGet("k")),
    tried(() => host.kvSet("k", "grüße")),
    tried(() => host.kvGet("k")),
    tried(() => host.kvIncr("n", 3)),
    tried(() => host.kvList("")),
    tried(() => host.kvCompareAndSet("k", "wrong", "x")),
    tried(() => host.kvCompareAndSet("new", undefined, "x")),
    tried(() => host.kvSetTtl("new", 1000)),
    tried(() => host.kvDelete("k")),
  ],
  bytes: () => tried(() => host.kvGet("bytes")),
  cache: () => [
    tried(() => host.cacheSet("default", "k", "v", 1000)),
    tried(() => host.cacheGet("default", "k")),
    tried(() => host.cacheExists("default", "k")),
    tried(() => host.cacheDelete("default", "k")),
    tried(() => host.cacheGet("default", "k")),
  ],
  fetch: () => JSON.parse(host.httpFetch(JSON.stringify({ url: "https://example.com/" }))),
  fail: () => host.fail("this is why"),
};

export const call = hooks({
  pre_query: ({ query }) => (query.includes("drop") ? block("no") : rewrite(`${query} -- seen`)),
  custom_hook: (input) => {
    const answer = acts[input.act](input);
    return typeof answer?.then === "function" ? answer : { value: answer ?? null };
  },
});
