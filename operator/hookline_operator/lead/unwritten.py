"""Statuses that could not be written: logged once for each state, and counted."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from hookline_api.base import API_VERSION, PLURAL
from hookline_operator.cluster.kube import KubeError, path
from hookline_operator.cluster.sight import reason_of

if TYPE_CHECKING:
    from hookline_operator.cluster.kube import Key, Kube
    from hookline_operator.metrics import Metrics

NO_SUBRESOURCE: Final = "no_subresource"
_NOT_FOUND: Final = 404
_NAMED: Final = 10
"""Plugins that the log names. Mostly the same reason keeps all statuses from being written."""
_MAX_SAID: Final = 500
_STEPS: Final = {
    NO_SUBRESOURCE: "",  # it is in the sentence
    "forbidden": "; give the operator back the rights of its chart: helm upgrade",
}
"""Refusals that a person has to end, and how."""

log = logging.getLogger("hookline.publisher")


class Unwritten:
    """The plugins whose status is out of date, because the API server does not take a new one."""

    def __init__(self, kube: Kube, metrics: Metrics) -> None:
        self._kube = kube
        self._metrics = metrics
        self._why: dict[Key, str] = {}

    async def explain(self, key: Key, error: KubeError) -> KubeError | None:
        """Why a status was refused; None where the plugin is gone.

        A definition without a status subresource answers 404, too. So the API is asked for the plugin.
        """
        if error.status != _NOT_FOUND:
            return error
        try:
            found = await self._kube.find(path(API_VERSION, PLURAL, key[0]), key[1], metadata_only=True)
        except KubeError:
            return error  # nobody knows; it is tried again
        if found is None:
            return None
        why = "WasmPlugins have no status subresource: apply the chart's CustomResourceDefinitions (crds/)"
        return KubeError(error.status, why, retry_after=error.retry_after)

    def put(self, key: Key, error: KubeError) -> str:
        """Note that a status could not be written.

        Returns the sentence for an Event. It is empty where the reason is the same as before, or may pass by itself.
        """
        reason = NO_SUBRESOURCE if error.status == _NOT_FOUND else reason_of(error)
        self._metrics.status_refused(reason)
        before = self._why.get(key)
        self._why[key] = reason
        self._metrics.unwritten(len(self._why))
        if before != reason and len(self._why) <= _NAMED:  # the words differ from try to try
            log.warning("the status of plugin '%s/%s' cannot be written: %s", *key, str(error)[:_MAX_SAID])
        elif before is None and len(self._why) == _NAMED + 1:
            log.warning(
                "the statuses of more plugins cannot be written; hookline_operator_statuses_unwritten has how many"
            )
        if before == reason or reason not in _STEPS:
            return ""
        why = str(error)[:_MAX_SAID]
        return f"the status cannot be written, and what it shows is old: {why}{_STEPS[reason]}"

    def written(self, key: Key) -> None:
        """Note that the status was written."""
        if self._why.pop(key, None) is not None:
            self._metrics.unwritten(len(self._why))
            if len(self._why) < _NAMED:
                log.info("the status of plugin '%s/%s' is written again", *key)

    def forget(self, key: Key) -> None:
        """The plugin is gone, or another replica's."""
        if self._why.pop(key, None) is not None:
            self._metrics.unwritten(len(self._why))
