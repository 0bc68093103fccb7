"""Artifacts: from what a resource says to a module's bytes on disk, checked."""
