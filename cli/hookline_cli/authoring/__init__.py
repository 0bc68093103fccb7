"""What authors of plugins do at their desk: make a project, build it, call it, hold it against its cases.

A plugin runs here as it does in a sidecar, by ``hookline_runtime.trial``. Start at ``project`` for what a folder is, at
``subject`` for what a command line names. ``toolchains`` needs the standard library alone.
"""
