"""The WebAssembly plugin runtime as a library: no HTTP server, no Kubernetes. Embeddable in any Python program.

    fetcher, compiler = Fetcher(ArtifactStore(folder / "artifacts")), Compiler(folder / "compiled")
    resolved = await resolve(plugin, fetcher=fetcher, objects=objects)        # a WasmPlugin, fetched and checked
    await compiler.prepare(Job(wasm=resolved.artifact.path, …))               # once, in a child process
    runtime = Runtime(kv=KvStore(folder / "kv"))
    await runtime.load(Bundle.of([resolved.entry]), compiler.find)
    decision = await runtime.call(Hook.PRE_QUERY, b'{"query": "select 1"}')

Rooms, from the outside in: ``runtime`` (bundles), ``chain`` (the plugins of one hook), ``plugin`` (what one plugin may
use), ``call`` (one call's input and answer), ``host`` (what guests may ask for), ``guest`` (compiled modules, and calls
into them). Each imports only what is behind it.
"""
