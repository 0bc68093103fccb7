"""Finds the pod that a caller is. It has to be there, to be alive, and to have a sidecar's label."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hookline_operator.cluster.kube import KubeError, path
from hookline_operator.cluster.labels import SIDECAR_LABEL
from hookline_operator.cluster.pods import Pod
from hookline_operator.rations import Rations
from hookline_operator.serve.identity import DeniedError

if TYPE_CHECKING:
    from hookline_operator.cluster.catalogue import Catalogue
    from hookline_operator.cluster.kube import Kube
    from hookline_operator.serve.identity import Caller

_LOOKUPS: Final = 10
_LOOKUPS_EACH_SECOND: Final = 0.5
"""Look-ups in the API server of one pod that the watch has not told of: a new one, or one without a sidecar's label."""
_FORBIDDEN: Final = 403


class Callers:
    """Looks pods up in the catalogue, and in the API server where the watch may be behind."""

    def __init__(self, kube: Kube, catalogue: Catalogue) -> None:
        self._kube = kube
        self._catalogue = catalogue
        self._lookups: Rations[str] = Rations(burst=_LOOKUPS, each_second=_LOOKUPS_EACH_SECOND)
        """By the pod's uid."""

    async def look_up(self, caller: Caller) -> Pod:
        """The caller's pod, from the API server if need be. Raises DeniedError."""
        if caller.pod is None or caller.pod_uid is None:
            raise DeniedError(403, "the token is bound to no pod: mount it as a projected serviceAccountToken volume")
        pod = self._catalogue.pod((caller.namespace, caller.pod))
        if pod is None or pod.uid != caller.pod_uid:
            if not self._lookups.of(caller.pod_uid).take():
                raise DeniedError(429, f"pod '{caller.pod}' is not known here and asks too often; try again later")
            try:  # the watch may be behind
                found = await self._kube.get(path("v1", "pods", caller.namespace, caller.pod))
            except KubeError as error:
                if error.status == _FORBIDDEN:
                    text = f"this operator does not watch namespace '{caller.namespace}'"
                    raise DeniedError(403, text) from error
                raise DeniedError(503, f"the pod cannot be looked up now: {error}") from error
            pod = Pod.of(found) if found is not None else None
        if pod is None or pod.uid != caller.pod_uid or not pod.live:
            raise DeniedError(403, f"the token's pod '{caller.pod}' is gone")
        if pod.labels.get(SIDECAR_LABEL) != "true":
            raise DeniedError(403, f"pod '{caller.pod}' has no label {SIDECAR_LABEL}=true, by which plugins find it")
        return pod
