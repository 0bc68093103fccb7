"""The sidecar: the server around ``hookline_runtime``.

Three kinds of processes, forked from one warmed-up parent:

- ``parent``: binds the sockets, forks the others, replaces whichever dies. Does nothing else, so it does not die;
- ``control``: the supervisor. Follows its source, pulls, compiles, hands bundles to the workers, answers the admin
  port. May be slow, may fail, may be restarted: the workers go on;
- ``hooks``: a worker. Answers hooks and does nothing else.

The two say to each other what is in ``messages``, and share what is in ``board`` and the statistics.
"""
