"""The chain of plugins that answer one hook, one after the other."""
