"""How old a status is, so that nobody takes what was true for what is. Pure functions.

``Observed`` is a heartbeat. It is True from an operator's first status on. Its ``lastTransitionTime`` is when an
operator last confirmed the status: with each change, and now and then without one. The Kubernetes conventions would
move that time with the condition's ``status`` alone; here it is what ``kubectl`` shows as an age.

An operator that ends with no other to follow sets ``Ready`` to Unknown, with the reason ``NotObserved``, where it was
True. A ``Ready`` that was false stays: replicas read from it what pods run. The message keeps what ``Ready`` said, so
that the next operator does not take its own absence for news.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Final

from hookline_api.status import Condition, WasmPluginStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

WATCHED: Final = "Watched"
NOT_OBSERVED: Final = "NotObserved"
_CONFIRMED: Final = "an operator watches this plugin, and confirmed at lastTransitionTime that the status is true"
_ENDED: Final = "no operator is at work"
_WAS: Final = re.compile(rf"{_ENDED}; what was true at \S+: (True) \(([A-Za-z]+)\): (.*)", re.DOTALL)
_MAX_MESSAGE: Final = 32_768


def confirmed(new: WasmPluginStatus, known: Sequence[WasmPluginStatus], *, due: bool, now: str) -> WasmPluginStatus:
    """What to write: ``new`` with the heartbeat. Its time moves if it is ``due``, or if anything else changes.

    ``known`` is what the API server has, and what was sent to it. An older definition drops fields that it does not
    know, and that counts as no change. A status without a heartbeat gets one when it is due, or with its first status:
    an operator that is updated must not write all statuses at once. A replica of the version before cannot read a
    status of more than eight conditions, not even that a plugin must not run.
    """
    others = [each for each in new.conditions if each.type != "Observed"]
    new = new.model_copy(update={"conditions": others})
    for each in known:
        before = _observed(each)
        if not due and new == _without(each) and (before is None or before.status == "True"):
            return new.model_copy(update={"conditions": [*others, *([before] if before else [])]})
    if not due and any(each.conditions for each in known) and not any(_observed(each) for each in known):
        return new
    heartbeat = Condition(
        type="Observed",
        status="True",
        observed_generation=new.observed_generation,
        last_transition_time=now,
        reason=WATCHED,
        message=_CONFIRMED,
    )
    return new.model_copy(update={"conditions": [*others, heartbeat]})


def abandoned(status: WasmPluginStatus, *, now: str) -> WasmPluginStatus:
    """What an operator leaves behind when no other follows."""
    conditions = []
    for each in status.conditions:
        change: dict[str, str] = {}
        if each.type == "Ready" and each.status == "True":
            was = f"{_ENDED}; what was true at {now}: {each.status} ({each.reason}): {each.message}"
            change = {"status": "Unknown", "reason": NOT_OBSERVED, "message": _cut(was), "last_transition_time": now}
        elif each.type == "Observed" and each.status == "True":
            change = {"status": "False", "reason": NOT_OBSERVED, "message": f"{_ENDED} since {now}"}
        conditions.append(each.model_copy(update=change))
    return status.model_copy(update={"conditions": conditions})


def restored(status: WasmPluginStatus) -> WasmPluginStatus:
    """The status before it was ``abandoned``, but for the time of ``Ready``; any other status as it is."""
    return status.model_copy(update={"conditions": [_restored(each) for each in status.conditions]})


def age_of(status: WasmPluginStatus, *, now: dt.datetime) -> float | None:
    """Seconds since an operator confirmed the status; None where none ever did."""
    observed = _observed(status)
    if observed is None:
        return None
    try:
        return (now - dt.datetime.fromisoformat(observed.last_transition_time)).total_seconds()
    except (ValueError, TypeError):
        return None


def _restored(condition: Condition) -> Condition:
    if condition.type != "Ready" or condition.reason != NOT_OBSERVED:
        return condition
    was = _WAS.fullmatch(condition.message)
    if was is None:
        return condition
    status, reason, message = was.groups()
    return condition.model_copy(update={"status": status, "reason": reason, "message": message})


def _without(status: WasmPluginStatus) -> WasmPluginStatus:
    return status.model_copy(update={"conditions": [each for each in status.conditions if each.type != "Observed"]})


def _observed(status: WasmPluginStatus) -> Condition | None:
    conditions: Sequence[Condition] = status.conditions
    return next((each for each in conditions if each.type == "Observed"), None)


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_MESSAGE else text[: _MAX_MESSAGE - 1] + "…"
