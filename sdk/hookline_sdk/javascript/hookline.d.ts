// Types for plugins in TypeScript, and for editors. The wire is described in docs/reference/hooks.md.

/** What comes with every call. */
export interface HookContext {
  request_id: string;
  client_id: string | null;
  identity: string | null;
  database: string | null;
  branch: string | null;
  attributes: Record<string, string>;
}

/** A statement: the input of pre_query, rewrite and route. */
export interface Query {
  query: string;
  normalized: string;
  tables: string[];
  is_read_only: boolean;
  hook_context: HookContext;
}

export interface CacheGetInput extends Query {
  key: string;
}

export interface CacheSetInput extends CacheGetInput {
  /** Base64. */
  value: string;
  ttl_ms: number | null;
}

export interface Identity {
  user_id: string;
  username: string;
  roles?: string[];
  tenant_id?: string | null;
  claims?: Record<string, unknown>;
}

export interface AuthorizeInput extends Query {
  identity: Record<string, unknown> | null;
  action: string;
  resource: string;
}

export interface AuthenticateInput {
  headers: Record<string, string>;
  username: string;
  password: string | null;
  client_ip: string;
  database: string | null;
}

export interface Outcome {
  success: boolean;
  target_node: string | null;
  elapsed_us: number;
  response_bytes: number;
  error: string | null;
}

export interface EventInput {
  hook_context: HookContext;
  event: Record<string, unknown>;
}

export type GoOn = { action: "continue" };
export type Block = { action: "block"; value: string };
export type Rewrite = { action: "rewrite"; value: string };
export type Cached = { action: "cached"; data: number[] };
export type Default = undefined | null | void;

export type PreQueryAnswer = GoOn | Block | Rewrite | Cached | Default;
export type RewriteAnswer = GoOn | Block | Rewrite | Default;
export type RouteAnswer =
  | { action: "default" | "primary" | "standby" }
  | { action: "node" | "branch"; target: string }
  | { action: "block"; reason: string }
  | Default;
export type AuthenticateAnswer =
  | { action: "success"; identity: Identity }
  | { action: "denied"; message: string }
  | { action: "defer" }
  | Default;
export type AuthorizeAnswer = { action: "allow" | "deny"; reason?: string } | { action: "defer" } | Default;
export type CacheGetAnswer =
  | { action: "hit"; data: number[]; ttl_ms?: number }
  | { action: "hit"; data_base64: string; ttl_ms?: number }
  | { action: "miss" }
  | Default;
export type CacheSetAnswer = { action: "store"; ttl_ms?: number } | { action: "skip" } | Default;

/** One function for each hook that the plugin answers. */
export interface Hooks {
  pre_query?(input: Query): PreQueryAnswer;
  post_query?(input: [Query, Outcome]): Default;
  authenticate?(input: AuthenticateInput): AuthenticateAnswer;
  authorize?(input: AuthorizeInput): AuthorizeAnswer;
  cache_get?(input: CacheGetInput): CacheGetAnswer;
  cache_set?(input: CacheSetInput): CacheSetAnswer;
  route?(input: Query): RouteAnswer;
  rewrite?(input: Query): RewriteAnswer;
  metrics?(input: EventInput): Default;
  on_connect?(input: EventInput): Default;
  on_disconnect?(input: EventInput): Default;
  custom_hook?(input: unknown): unknown;
}

export declare function hooks(table: Hooks): (hook: string, input: string) => string;
export declare const goOn: GoOn;
export declare function block(reason: string): Block;
export declare function rewrite(sql: string): Rewrite;
export declare function config<T = unknown>(path?: string, otherwise?: T): T;
export declare function fetch(request: Record<string, unknown>): Record<string, unknown>;
export declare function query(source: string, sql: string, parameters?: unknown[]): Record<string, unknown>;

/** The host's functions. One that has an error throws it; its text is the error's `payload`. */
export declare const host: {
  log(level: "trace" | "debug" | "info" | "warn" | "error", text: string): void;
  /** Ends the call as a failure. */
  fail(message: string): never;
  getTime(): number;
  random(bytes: number): string;
  getConfig(path: string): string | undefined;
  metricInc(name: string, by: number): void;
  metricGauge(name: string, value: number): void;
  metricObserve(name: string, value: number): void;
  sha256Hex(text: string): string;
  hmacSha256(key: string, text: string): string;
  kvGet(key: string): string | undefined;
  kvSet(key: string, value: string): void;
  kvDelete(key: string): void;
  kvList(prefix: string): string[];
  kvIncr(key: string, by: number): number;
  kvCompareAndSet(key: string, old: string | undefined, value: string): boolean;
  kvSetTtl(key: string, ttlMs: number): boolean;
  queryExecute(source: string, sql: string, parameters: string): string;
  queryPrepare(source: string, sql: string): string;
  queryGetTables(sql: string): string;
  queryNormalize(sql: string): string;
  cacheGet(cache: string, key: string): string | undefined;
  cacheExists(cache: string, key: string): boolean;
  cacheSet(cache: string, key: string, value: string, ttlMs: number): void;
  cacheDelete(cache: string, key: string): boolean;
  httpFetch(request: string): string;
  httpPost(url: string, contentType: string, body: string): string;
};
