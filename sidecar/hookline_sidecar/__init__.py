"""The sidecar: the server around ``hookline_runtime``.

Three kinds of processes, forked from one warmed-up parent:

- ``parent``: binds the sockets, forks the others, replaces whichever dies. Does nothing else, so it does not die;
- ``supervisor``: the control road. Follows its source, pulls, compiles, hands bundles to the workers, answers the
  admin port. May be slow, may fail, may be restarted: the workers go on;
- ``worker``: the hook road. Answers hooks and does nothing else.

Bundles come from a folder (``folder_source``) or from the operator (``operator_source``), behind one seam, ``source``.
"apply" to "loaded" is one of them, ``slots`` and ``supervisor``; "call" to "decision" is ``endpoint`` and
``hookline_runtime.chain.pipeline``.
"""
