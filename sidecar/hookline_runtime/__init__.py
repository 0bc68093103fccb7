"""The WebAssembly plugin runtime as a library: no HTTP server, no Kubernetes. Embeddable in any Python program.

    fetcher, compiler = Fetcher(ArtifactStore(folder / "artifacts")), Compiler(folder / "compiled")
    resolved = await resolve(plugin, fetcher=fetcher, objects=objects)        # a WasmPlugin, fetched and checked
    await compiler.prepare(Job(wasm=resolved.artifact.path, …))               # once, in a child process
    runtime = Runtime(kv=KvStore(folder / "kv"))
    await runtime.load(Bundle.of([resolved.entry]), compiler.find)
    decision = await runtime.call(Hook.PRE_QUERY, b'{"query": "select 1"}')

Rooms, from the outside in: ``artifacts`` (bytes on disk, checked), ``compiler`` (compiled modules), ``runtime``
(bundles), ``pipeline`` (chains), ``plugin`` (one plugin's limits), ``calls`` (guests), ``host`` (what guests may ask).
"""
