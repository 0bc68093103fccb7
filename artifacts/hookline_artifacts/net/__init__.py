"""Asking somebody over the network: whom we never ask, how, for how long, and what a failure is called.

What belongs here: sockets, names, certificates, HTTP. What does not: what a registry's answer means.
"""
