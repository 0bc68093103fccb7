// For tests in Node.js: the host that a component imports is the one of native.js.
const NATIVE = new URL("./native.js", import.meta.url).href;

export async function resolve(specifier, context, next) {
  return specifier === "hookline:plugin/host" ? { url: NATIVE, shortCircuit: true } : next(specifier, context);
}
