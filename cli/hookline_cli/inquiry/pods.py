"""The pods of a plugin, and what the sidecar of each says of itself."""

from __future__ import annotations

import concurrent.futures
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from hookline_api.resources import Selector
from hookline_api.selectors import selects
from hookline_artifacts.errors import FetchError
from hookline_cli.inquiry.kubectl import CONTAINER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hookline_cli.inquiry.kubectl import Kubectl

LABEL: Final = "hookline.dev/sidecar=true"
_AT_ONCE: Final = 4
"""Sidecars that are asked at the same time: each is a kubectl."""


@dataclass(kw_only=True, slots=True)
class Pod:
    """A pod with a sidecar."""

    name: str
    ready: bool
    """Whether its sidecar is."""
    state: str = ""
    """Why its sidecar does not run, in Kubernetes' words."""
    told: dict[str, Any] | None = field(default=None, repr=False)
    """``/v1/plugins`` of its sidecar; None where it was not asked."""
    error: str = ""
    """Why it could not be asked."""


def of_plugin(kubectl: Kubectl, plugin: Mapping[str, Any]) -> list[Pod]:
    """The pods that a plugin is for, by name. Raises FetchError."""
    spec = plugin.get("spec")
    given = spec.get("selector") if isinstance(spec, dict) else None
    try:
        selector = Selector.model_validate(given or {})
    except ValidationError:
        return []
    found = kubectl.items("pods", f"--selector={LABEL}")
    pods = [each for each in found if selects(selector, each["metadata"].get("labels") or {})]
    return sorted((_pod(each) for each in pods if _lives(each)), key=lambda pod: pod.name)


def _lives(found: Mapping[str, Any]) -> bool:
    phase = (found.get("status") or {}).get("phase")
    return phase not in {"Succeeded", "Failed"} and not found["metadata"].get("deletionTimestamp")


def _pod(found: Mapping[str, Any]) -> Pod:
    status = found.get("status") or {}
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    own = next((each for each in containers if each.get("name") == CONTAINER), None)
    if own is None:
        conditions = {each.get("type"): each.get("status") for each in status.get("conditions") or ()}
        return Pod(name=found["metadata"]["name"], ready=conditions.get("Ready") == "True")
    waiting = (own.get("state") or {}).get("waiting") or {}
    return Pod(name=found["metadata"]["name"], ready=bool(own.get("ready")), state=str(waiting.get("reason") or ""))


def ask(kubectl: Kubectl, pods: Sequence[Pod]) -> None:
    """Ask the sidecars of these pods what they run; what keeps one from answering is taken down."""
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as threads:
        list(threads.map(lambda pod: _ask(kubectl, pod), pods))


def _ask(kubectl: Kubectl, pod: Pod) -> None:
    try:
        done = kubectl.inside(pod.name, "hookline-sidecar", "get", "/v1/plugins")
    except FetchError as error:
        pod.error = str(error)
        return
    try:
        found = json.loads(done.out) if done.code == 0 else None
    except ValueError:
        found = None
    if isinstance(found, dict):
        pod.told = found
    else:
        pod.error = f"pod '{pod.name}': its sidecar did not answer: {' '.join(done.err.split()):.300}"
