"""A module's bytes, looked into without an engine: what it is, what it imports, what it says of itself.

``inspection`` is the door for code; ``describe`` for what a plugin says of itself, wherever that stands.
"""
