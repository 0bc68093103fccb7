"""A module's bytes, looked into without an engine: what it is, what it imports, what it says of itself.

Start at ``inspection`` for code, and at ``describe`` for what a plugin says of itself, wherever that is written.
"""
