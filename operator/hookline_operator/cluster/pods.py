"""Pods as the operator keeps them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hookline_operator.cluster.authority import fingerprints
from hookline_operator.cluster.labels import ANNOTATION_CA

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hookline_operator.cluster.kube import Object


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod with a sidecar."""

    namespace: str
    name: str
    uid: str
    labels: Mapping[str, str] = field(compare=True)
    ready: bool
    live: bool
    """False once it is being deleted or has ended: then it counts no more."""
    authorities: frozenset[str] | None = None
    """Fingerprints of the authorities that its sidecar was made to trust; None where the operator did not do that."""

    @classmethod
    def of(cls, found: Object) -> Pod:
        """From the API's object."""
        metadata, status = found["metadata"], found.get("status") or {}
        conditions = {each["type"]: each["status"] for each in status.get("conditions") or []}
        trusts = (metadata.get("annotations") or {}).get(ANNOTATION_CA)
        return cls(
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=metadata["uid"],
            labels=metadata.get("labels") or {},
            ready=conditions.get("Ready") == "True",
            live="deletionTimestamp" not in metadata and status.get("phase") not in {"Succeeded", "Failed"},
            authorities=fingerprints(trusts) if trusts else None,
        )
