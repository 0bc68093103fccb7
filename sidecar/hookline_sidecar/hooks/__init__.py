"""A worker's process: it accepts connections and answers hooks, and does nothing else.

What belongs here: from the bytes of a request to those of its answer. What does not: files, the network, compiling.
``control`` and this package import nothing of each other.

Rooms: ``accepting`` (which worker takes a connection), ``lanes`` and ``lane`` (requests beyond doubt, answered on the
connection), ``heads`` (what is beyond doubt), ``server`` (aiohttp, for all others) with ``reading`` (their bodies),
``endpoint`` (which request is what), ``batch``, ``auth`` with ``question`` and ``original`` (what a proxy's subrequest
asks, and on whose behalf), ``written`` (replies as bytes). ``worker`` has them all.
"""
