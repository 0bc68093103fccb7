"""Servers that host functions ask. Each is loaded only where a plugin needs it: a worker without one carries none.

What belongs here: how a server is spoken to, and what is done while it is away. What does not: what a guest is told.
"""
