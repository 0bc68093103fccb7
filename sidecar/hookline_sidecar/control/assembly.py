"""Assembly: the bundle of what all plugins that the source asks for have now. Pure: nothing is changed here.

Each stands as what resolved, or as ``hookline_api.standing`` says for one that cannot be had: what ran before, a
placeholder that fails closed, or nothing. A plugin that is new while others run is left out, since nothing ran before
it; at the start of a sidecar without any last good bundle it fails closed, since nothing may run without its guard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hookline_api.bundle import Bundle, BundlePlugin, LoadFailure
from hookline_api.standing import policy_of, stands
from hookline_runtime.plugin.stats import MAX_PLUGINS
from hookline_sidecar.control.sources.source import STAND_IN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hookline_sidecar.control.slots import Slot


class Assembled(NamedTuple):
    """A bundle, and what has no room in it."""

    bundle: Bundle
    problems: dict[str, LoadFailure]
    """By plugin."""


def assemble(slots: Mapping[str, Slot], last: Bundle | None) -> Assembled:
    """The bundle of these slots, where ``last`` is what runs."""
    running = {entry.name: entry for entry in last.plugins} if last is not None else {}
    entries: list[BundlePlugin] = []
    problems: dict[str, LoadFailure] = {}
    may_be_new = last is not None and not _stands_in(slots, running)
    for name in sorted(slots):
        entry = _entry(slots[name], running.get(name), may_be_new=may_be_new)
        if entry is not None and len(entries) == MAX_PLUGINS:
            problems[name] = LoadFailure(cause="config", message=f"there are more than {MAX_PLUGINS} plugins")
        elif entry is not None:
            entries.append(entry)
    return Assembled(Bundle.of([*entries, *_renamed(slots, running)]), problems)


def _entry(slot: Slot, now: BundlePlugin | None, *, may_be_new: bool) -> BundlePlugin | None:
    if slot.resolved is not None:
        entry = slot.resolved.entry if slot.refused is None else slot.refused.before
        return entry.model_copy(update={"failure": slot.failure})
    wanted = slot.wanted
    last = now if now is not None and (now.artifact is not None or not wanted.readable) else None
    hooks = wanted.placeholder.hooks or (now.hooks if now is not None else [])
    return stands(
        last,
        slot.failure or (last.failure if last is not None and last.artifact is None else None),
        policy_of(wanted.failure_policy, slot.failure),
        placeholder=wanted.placeholder.model_copy(update={"hooks": hooks}),
        is_new=now is None and may_be_new,
        stage=slot.stage,
    )


def _renamed(slots: Mapping[str, Slot], running: Mapping[str, BundlePlugin]) -> list[BundlePlugin]:
    """What goes on running although it is asked for no longer: its file now names a plugin that is not loaded yet.

    A guard that gets another name, and a mistake with it, must not be gone.
    """
    coming = {
        slot.wanted.file
        for slot in slots.values()
        if slot.wanted.file is not None and slot.resolved is None and slot.name not in running
    }
    return [entry for entry in running.values() if entry.name not in slots and entry.origin in coming]


def _stands_in(slots: Mapping[str, Slot], running: Mapping[str, BundlePlugin]) -> bool:
    """Whether something refuses for a file that could not be read, and can by now.

    What was in that file goes on refusing until it is loaded.
    """
    return any(name.startswith(STAND_IN) and name not in slots for name in running)
