"""A worker's process: it accepts connections and answers hooks, and does nothing else.

What belongs here: from the bytes of a request to those of its answer. What does not: files, the network, compiling;
no module of ``control`` is imported here, nor the other way round.
"""
