"""Clients of what host functions ask over a network. Each is imported where a plugin needs it, and by nobody else."""
