"""The contract: what users write, what pods run, and what proxies send and get.

Models and pure functions only. No I/O happens here, and nothing of the other packages is imported, so that
a proxy written in Python may depend on the contract alone.

- ``resources``: the ``WasmPlugin`` custom resource, as users write it;
- ``status``: its status, as the operator writes it; ``base``: what both share;
- ``bundle``: everything one pod must run, as the operator or a manifest folder resolved it;
- ``permissions``: what a plugin may ask of its host;
- ``hooks``: the twelve hooks, their inputs and their decisions;
- ``crd``: the CustomResourceDefinitions, generated from them;
- ``quantities``: durations and sizes.
"""
