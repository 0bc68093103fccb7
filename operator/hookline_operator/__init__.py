"""The operator: from a ``WasmPlugin`` in the Kubernetes API to the sidecars of the matching pods."""
