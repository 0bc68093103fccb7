/** What a test gives to the plugin's host. */
export interface Given {
  config?: unknown;
  keys?: Record<string, string>;
  caches?: Record<string, Record<string, string>>;
  /** All are granted where there are none. */
  permissions?: string[] | null;
  /** By function, such as `http-fetch`: what it answers, or a function of what it is asked. */
  answers?: Record<string, unknown>;
  /** Milliseconds since 1970. */
  now?: number;
}

export declare const state: {
  keys: Map<string, string>;
  caches: Map<string, Map<string, string>>;
  log: { level: string; text: string }[];
  metrics: Record<string, number | number[]>;
};
export declare function reset(given?: Given): void;
export declare class Failure extends Error {}
