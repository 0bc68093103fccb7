"""Plays a row: broken, said, mended, and said again; with what it took and what was lost."""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from truth.row import Figure, Look, Row
from waiting import PATIENCE_S, until

if TYPE_CHECKING:
    from truth.scene import Scene

_OPERATOR: Final = "hookline-operator"
"""As its Events say who wrote them."""
_SETTLED_S: Final = 3.0
_SEEN: Final = 40
"""Answers, at least, that are looked at while it is broken."""


def play(row: Row, scene: Scene, *, log: Callable[[str], object]) -> Figure:
    """What came of it; a row that is false says why in ``problems``, and leaves the scene mended all the same."""
    figure = Figure(what=row.what, asked_s=row.bound_s)
    try:
        _all_seen(row.well, scene, "all is well before it begins")
        scene.begin()
        first = len(scene.load.answers)
        if row.quiet_s:
            _stay_quiet(row, scene, figure)
        else:
            _break_and_mend(row, scene, figure)
        _count(row, scene, figure, first)
    except Exception as error:  # noqa: BLE001 - whatever it is, the row is false and the others go on
        figure.problems.append("".join(traceback.format_exception_only(error)).strip() + _where(error))
        figure.problems.append(f"kubectl said then: {_shown(scene)}")
        _mend_anyway(row, scene, figure)
    log(f"{row.name}: {figure.measured_s:.1f} s, lost {figure.lost} of {figure.requests}; {figure.problems or 'true'}")
    return figure


def _break_and_mend(row: Row, scene: Scene, figure: Figure) -> None:
    before = time.monotonic()
    row.breaks(scene)
    words = _all_seen(row.says, scene, "it is said")
    figure.measured_s = round(time.monotonic() - scene.broken_at(before), 1)
    figure.words = [tidy(each, scene) for each in words]
    found = re.search(row.next_step, " ".join(figure.words), re.DOTALL)
    if found is None:
        figure.problems.append(f"no word of the next step ({row.next_step}) in: {figure.words}")
    else:
        figure.next_step = found[0]
    seen = len(scene.load.answers)
    until(lambda: len(scene.load.answers) >= seen + _SEEN, "more answers")
    began = time.monotonic()
    row.mends(scene)
    _all_seen(row.well, scene, "it is well again")
    figure.mended_s = round(time.monotonic() - began, 1)


def _all_seen(looks: tuple[Look, ...], scene: Scene, what: str) -> list[str]:
    """The words of each look, once all of them are seen at the same time."""
    words: list[str] = []

    def seen() -> bool:
        words[:] = [look(scene) for look in looks]
        return all(words)

    until(seen, lambda: f"{what} (seen: {[each for each in words if each]}): {_shown(scene)}", seconds=PATIENCE_S / 2)
    return words


def _stay_quiet(row: Row, scene: Scene, figure: Figure) -> None:
    """Nothing is broken, whatever is done, and nothing may be said."""
    _settle(scene)
    before = _statuses(scene)
    row.breaks(scene)
    end = time.monotonic() + row.quiet_s
    while time.monotonic() < end:
        now = _statuses(scene)
        if now and now != before:
            figure.problems.append(f"the status changed though nothing was wrong: {before} → {now}")
            break
        time.sleep(0.2)  # between two looks
    told = [f"{each['reason']}: {each.get('message', '')}" for each in scene.events() if _about_plugins(each)]
    if told:
        figure.problems.append(f"Events though nothing was wrong: {told}")
    figure.words, figure.next_step, figure.asked_s = ["Ready=True, as before; no Event"], "nothing", 0.0


def _settle(scene: Scene) -> None:
    """Events of what was before come a moment after the status: back when there are no new ones for three seconds."""
    since, known = time.monotonic(), -1
    while time.monotonic() - since < _SETTLED_S:
        if len(scene.events()) != known:
            since, known = time.monotonic(), len(scene.events())
        time.sleep(0.2)  # between two looks
    scene.begin()


def _about_plugins(event: dict[str, Any]) -> bool:
    """Of a plugin, or by the operator: that a probe of a busy machine came late is the kubelet's to say."""
    by = (event.get("source") or {}).get("component") or event.get("reportingComponent")
    return event["involvedObject"]["kind"] == "WasmPlugin" or by == _OPERATOR


def _statuses(scene: Scene) -> object:
    """What kubectl shows of the plugin but for the time of the last check."""
    status = scene.plugin("guard").get("status", {})
    conditions = [
        (each["type"], each["status"], each["reason"], each["message"])
        for each in status.get("conditions", [])
        if each["type"] != "Observed"
    ]
    return conditions, status.get("pods"), status.get("failures")


def _count(row: Row, scene: Scene, figure: Figure, first: int) -> None:
    """What became of the requests of the row."""
    good = {f"hello, {name}" for name in scene.greets}
    lost: list[str] = []
    for each in scene.load.answers[first:]:
        figure.requests += 1
        if each.status == 200 and each.text in good:
            continue
        if each.status in row.refuses:
            figure.refused += 1
        else:
            lost.append(f"{each.pod}: {each.status} {each.text[:120]}")
    figure.lost = len(lost)
    if lost:
        figure.problems.append(f"{len(lost)} requests were lost: {sorted(set(lost))[:5]}")


def _mend_anyway(row: Row, scene: Scene, figure: Figure) -> None:
    try:
        row.mends(scene)
        _all_seen(row.well, scene, "it is well after a row that was false")
    except Exception as error:  # noqa: BLE001 - the row has failed already, and says so
        figure.problems.append(f"and it was not mended: {error}")


def _shown(scene: Scene) -> str:
    status = scene.plugin("guard").get("status", {})
    conditions = [f"{c['type']}={c['status']} {c['reason']}: {c['message']}" for c in status.get("conditions", [])]
    events = [f"{each['involvedObject']['kind']} {each['reason']}: {each.get('message')}" for each in scene.events()]
    return "\n  ".join([scene.line(), *conditions, f"pods {status.get('pods')}", *events[-6:], f"said: {scene.said}"])


def _where(error: BaseException) -> str:
    lines = traceback.extract_tb(error.__traceback__)
    return " at " + " < ".join(f"{each.name}:{each.lineno}" for each in reversed(lines[-4:]))


def tidy(words: str, scene: Scene) -> str:
    """Without what differs from run to run: names of pods, digests, addresses, numbers of processes."""
    words = words.replace(scene.registry.host, "registry.example:5000").replace(scene.tenant.name, "shop")
    words = re.sub(r"\b(proxy|late|older|stuck)-[0-9a-f]{8,10}-[a-z0-9]{5}\b", r"\1-…", words)
    words = re.sub(r"\bhookline-operator-[0-9a-f]{8,10}-[a-z0-9]{5}\b", "hookline-operator-…", words)
    words = re.sub(r"\b([0-9a-f]{6})[0-9a-f]{26,58}\b", r"\1…", words)
    return re.sub(r"\s+", " ", words).strip()
