"""One plugin by itself, outside of any bundle: called, watched, and held against its own cases.

It is for authors (``hookline call``, ``test``, ``bench``), and for a sidecar that tries a version before it runs. Start
at ``trial`` for one call, at ``cases`` for what a plugin says of itself.
"""
