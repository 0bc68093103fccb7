"""Trust: whether an artifact is signed by whom it has to be, and whether a plugin may be what it is.

From an artifact's repository ``collect`` takes every signature there may be; ``verdict`` holds them against what is
asked for (``requirement``), and what was proven travels with the module as ``evidence``, so that whoever runs it can
verify it again without asking anybody. ``policy`` judges the rest of a resource. Nothing here believes a registry, an
operator, or a file.
"""
