"""The sidecar: the server around ``hookline_runtime``."""
