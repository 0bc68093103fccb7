"""The WebAssembly plugin runtime, as a library."""
