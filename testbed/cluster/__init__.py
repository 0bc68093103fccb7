"""A real Kubernetes for the tests, with or without a node, on a machine that has neither Docker nor an image registry.

``ControlPlane`` starts in seconds and needs no root; ``Cluster`` adds a node that runs containers. ``python -m cluster
--help`` shows what can be done by hand.
"""

from cluster.access import Access
from cluster.control_plane import ControlPlane
from cluster.errors import ClusterError, NotPossibleHereError
from cluster.existing import open_cluster
from cluster.node import Cluster

__all__ = ["Access", "Cluster", "ClusterError", "ControlPlane", "NotPossibleHereError", "open_cluster"]
