"""``hookline status``, ``why`` and ``kv``: what a cluster or a sidecar knows, asked and put in order.

A cluster is asked with the ``kubectl`` program, for what is read as for what is executed: there is one way to log in,
with all that a kubeconfig may name, no library beside it, and whoever runs a plugin of kubectl has it.
"""
