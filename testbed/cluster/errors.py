"""What can go wrong with a cluster of ours; each error's sentence says what happened, why, and what to do."""

from __future__ import annotations


class ClusterError(Exception):
    """The cluster could not be brought up, or does not do what was asked of it."""


class NotPossibleHereError(ClusterError):
    """This machine, or this cluster, cannot do it at all: a test may skip."""
