"""Pods without a sidecar: what is kept of each, and how those of a namespace are read again."""

from __future__ import annotations

import sys
from typing import Final, NamedTuple

from hookline_operator.cluster.kube import Key, Kube, Object, key_of, path
from hookline_operator.cluster.labels import SIDECAR_LABEL
from hookline_operator.cluster.reflector import Reflector

WITHOUT: Final = f"{SIDECAR_LABEL}!=true"
ALIVE: Final = "status.phase!=Succeeded,status.phase!=Failed,spec.hostNetwork=false"
"""Ended pods run nothing, and a pod on its node's network gets no sidecar by itself (``injection``)."""


class Shape(NamedTuple):
    """What is the same for all pods that count for the same plugins. The pods of one Deployment have one shape."""

    labels: tuple[tuple[str, str], ...]
    """Those that a selector of the namespace looks at, sorted."""
    asks: bool
    """By its own label."""
    mirror: bool


class Bare(NamedTuple):
    """A pod without a sidecar."""

    shape: Shape
    uid: str


class BarePods(Reflector[Bare]):
    """Follows the pods without a sidecar, and keeps those that some plugin or label is about."""

    _gone: set[Key] | None = None
    """Those that went while pods are read again."""

    def is_of(self, namespace: str) -> bool:
        """Whether it follows this namespace alone."""
        return self._where == path("v1", "pods", namespace)

    async def read_again(self, kube: Kube, namespace: str) -> None:
        """Read the pods of a namespace again, because more of them is to be kept from now on. Raises KubeError."""
        self._gone = set()
        try:
            where = path("v1", "pods", namespace)
            async for page, _ in kube.pages(where, selector=WITHOUT, fields=ALIVE, metadata_only=True):
                for each in page:
                    # DANGER: the watch may be ahead of this list.
                    if key_of(each) not in self._gone:
                        self._take(each, gone=False)
        finally:
            self._gone = None

    def _take(self, found: Object, *, gone: bool) -> None:
        metadata = found["metadata"]
        metadata["namespace"] = sys.intern(metadata["namespace"])  # one text, and not one for each pod
        if gone and self._gone is not None:
            self._gone.add(key_of(found))
        super()._take(found, gone=gone)
