"""Guests: modules compiled, instantiated and called through wasmtime. ``calls`` is the door.

What belongs here: the engine, memory, and the bytes that cross into a guest. What does not: what these bytes mean.
"""
