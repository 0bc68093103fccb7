"""Writes what each ``PluginTrustPolicy`` does now where people look: its status, an Event now and then, and metrics.

A plugin that changes is judged again by the policies that apply to it, and what they say is counted. Of that a status
is made for each policy, and written where the API server has another one: at most every two seconds, and ever later
while it does not take it. Nothing is remembered beyond a term.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import heapq
import logging
import time
import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import ValidationError

from hookline_api.base import API_VERSION, POLICY_KIND
from hookline_api.policies import (
    MAX_REFUSALS,
    POLICY_PLURAL,
    PluginTrustPolicyStatus,
    Refusal,
)
from hookline_api.status import Condition
from hookline_api.text import readable
from hookline_artifacts.threads import in_thread, on_behalf_of
from hookline_operator.cluster.kube import MANAGER, Kube, KubeError, path
from hookline_operator.cluster.rulings import asks_evidence, known_of, rule
from hookline_operator.metrics import PolicyCounts
from hookline_operator.rations import Ration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hookline_artifacts.trust.policy import Policy
    from hookline_operator.cluster.catalogue import Catalogue
    from hookline_operator.cluster.kube import Key
    from hookline_operator.cluster.plugins import Plugin
    from hookline_operator.cluster.policies import KnownPolicy, Policies
    from hookline_operator.cluster.revisions import Revision
    from hookline_operator.cluster.rulings import Known
    from hookline_operator.metrics import Metrics

JUDGING: Final = "Judging"
SELECTS_NOTHING: Final = "SelectsNothing"
KEYS_UNREADABLE: Final = "KeysUnreadable"
NOT_UNDERSTOOD: Final = "NotUnderstood"
READY: Final = "Ready"
REFUSES: Final = "Refuses"
"""For an Event: there are plugins that it keeps from running, or would."""
_BROKEN: Final = frozenset({KEYS_UNREADABLE, NOT_UNDERSTOOD})
_GATHER_S: Final = 0.5
"""How long changes are gathered: policies and plugins mostly come in crowds."""
_TURN_S: Final = 0.01
"""After which others' turn comes: thousands of plugins are judged after a change of a policy, and one may have half a
megabyte of signatures."""
_SHARE: Final = "policies"
_WRITE_EVERY_S: Final = 2.0
_FIRST_S: Final = 2.0
_LAST_S: Final = 60.0
_EVENTS: Final = 5
"""Events of one policy at once."""
_EVENTS_EACH_SECOND: Final = 1 / 300
_MAX_MESSAGE: Final = 1024
_NAMESPACE_OF_EVENTS: Final = "default"
"""Where Kubernetes has the Events of what is in no namespace."""
_NOT_FOUND: Final = 404
_IDLE_S: Final = 3600.0

log = logging.getLogger("hookline.policies")


class _Verdict(NamedTuple):
    policy: Policy
    refused: bool
    unknown: bool


@dataclass(slots=True)
class _Entry:
    """What was said of a plugin, and of what."""

    seen: tuple[Any, ...]
    applying: tuple[Policy, ...]
    verdicts: dict[str, _Verdict] = field(default_factory=dict)
    """By the policies' names."""


@dataclass(slots=True)
class _Tally:
    """What one policy says of all plugins that it selects."""

    matched: int = 0
    unknown: int = 0
    refused: set[Key] = field(default_factory=set)
    changes: int = 0


@dataclass(slots=True)
class _Page:
    """What was written of one policy in this term."""

    uid: str
    settled: tuple[Any, ...] = ()
    """Of what the API server's status is made; where that is the same, nothing has to be written."""
    due: float = 0.0
    """When (monotonic) it may be written next."""
    failures: int = 0
    events: Ration = field(default_factory=lambda: Ration(burst=_EVENTS, each_second=_EVENTS_EACH_SECOND))


class PolicyStatuses:
    """Keeps the statuses of policies, while this replica leads."""

    def __init__(
        self,
        kube: Kube,
        catalogue: Catalogue,
        policies: Policies,
        metrics: Metrics,
        *,
        leads: Callable[[], bool],
    ) -> None:
        """``leads`` is asked before each write: whether no other replica can lead meanwhile."""
        self._kube = kube
        self._catalogue = catalogue
        self._policies = policies
        self._metrics = metrics
        self._leads = leads
        self._dirty: dict[Key, None] = {}
        self._entries: dict[Key, _Entry] = {}
        self._tallies: defaultdict[str, _Tally] = defaultdict(_Tally)
        self._pages: dict[str, _Page] = {}
        self._woken = asyncio.Event()

    async def run(self) -> None:
        """Lead until cancelled."""
        self._entries.clear()
        self._tallies.clear()
        self._pages.clear()
        self._dirty = {plugin.key: None for plugin in self._catalogue.all_plugins()}
        while True:
            await self._judge()
            due = await self._publish()
            try:
                async with asyncio.timeout(due):
                    await self._woken.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(_GATHER_S)
            self._woken.clear()

    def plugin_changed(self, key: Key) -> None:
        """What policies say of a plugin may have changed."""
        self._dirty[key] = None
        self._woken.set()

    def policy_written(self) -> None:
        """A policy came, changed or went, or its status did."""
        self._woken.set()

    def counts(self) -> list[PolicyCounts]:
        """What each policy does, by name; nothing where another replica leads."""
        if not self._leads():
            return []
        found = []
        for policy in self._policies.in_force():
            tally = self._tallies.get(policy.name) or _Tally()
            found.append(PolicyCounts(policy.name, policy.spec.mode, tally.matched, len(tally.refused), tally.unknown))
        return found

    # ── what policies say ──

    async def _judge(self) -> None:
        """Judge every plugin again about which something may have changed."""
        dirty, self._dirty = self._dirty, {}
        began = time.monotonic()
        for key in dirty:
            try:
                await self._judge_one(key)
            except Exception:  # a defect of ours: one plugin must not end all
                log.exception("what policies say of plugin '%s/%s' could not be found out", *key)
            if time.monotonic() - began > _TURN_S:
                await asyncio.sleep(0)
                began = time.monotonic()

    async def _judge_one(self, key: Key) -> None:
        plugin, old = self._catalogue.plugin(key), self._entries.get(key)
        if plugin is None:
            self._replace(key, self._entries.pop(key, None), None)
            return
        applying, revision = self._policies.applying(plugin), self._catalogue.current(plugin)
        seen = (plugin.uid, plugin.spec, revision, plugin.failure)
        same = old is not None and old.seen == seen
        if old is not None and same and old.applying is applying:
            return
        entry, kept = _Entry(seen, applying), old.verdicts if old is not None and same else {}
        for policy in applying:
            before = kept.get(policy.name)
            if before is not None and before.policy is policy:
                entry.verdicts[policy.name] = before
        others = [each for each in applying if each.name not in entry.verdicts]
        known = known_of(plugin, revision) if others else None
        if known is not None and any(asks_evidence(each, known) for each in others):
            with on_behalf_of(_SHARE):  # signatures are verified: milliseconds for each
                entry.verdicts |= await in_thread(_verdicts, others, known)
        else:
            entry.verdicts |= _verdicts(others, known)
        self._entries[key] = entry
        self._replace(key, old, entry)

    def _replace(self, key: Key, old: _Entry | None, new: _Entry | None) -> None:
        for entry, more in ((old, -1), (new, 1)):
            for name, verdict in (entry.verdicts if entry is not None else {}).items():
                tally = self._tallies[name]
                tally.changes += 1
                tally.matched += more
                tally.unknown += more * verdict.unknown
                if verdict.refused and more > 0:
                    tally.refused.add(key)
                elif verdict.refused:
                    tally.refused.discard(key)

    # ── what is written ──

    async def _publish(self) -> float:
        """Write every status that differs and is due; the seconds until the next one is."""
        known = {each.name: each for each in self._policies.all()}
        for name in [name for name in self._pages if name not in known]:
            del self._pages[name]
        for name in [name for name, tally in self._tallies.items() if name not in known and not tally.matched]:
            del self._tallies[name]
        in_force = {each.name: each for each in self._policies.in_force()}
        wait = _IDLE_S
        for name, policy in known.items():
            page = self._pages.get(name)
            if page is None or page.uid != policy.uid:
                page = self._pages[name] = _Page(uid=policy.uid)
            made_of = (policy, in_force.get(name), self._tallies[name].changes)
            if page.settled == made_of:
                continue
            before = _status(policy)
            status = self._status(policy, before, await self._refusals(in_force.get(name), self._tallies[name]))
            if status == before:
                page.settled = made_of
            else:
                left = page.due - time.monotonic()
                wait = min(wait, left if left > 0 else await self._write(page, policy, before, status))
            await asyncio.sleep(0)
        return wait

    async def _write(
        self, page: _Page, policy: KnownPolicy, before: PluginTrustPolicyStatus, status: PluginTrustPolicyStatus
    ) -> float:
        """Send a status; the seconds after which it is looked at again."""
        if not self._leads():
            return _WRITE_EVERY_S
        where = path(API_VERSION, POLICY_PLURAL, None, policy.name, "status")
        body = {
            "apiVersion": API_VERSION,
            "kind": POLICY_KIND,
            "metadata": {"name": policy.name, "uid": policy.uid},
            "status": status.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        try:
            await self._kube.apply(where, body)
        except KubeError as error:
            if error.status == _NOT_FOUND:  # it is gone, and the watch says so in a moment
                return self._rest(page, _LAST_S)
            if not page.failures:
                log.warning("the status of the PluginTrustPolicy '%s' cannot be written: %s", policy.name, error)
            page.failures += 1
            pause = min(_FIRST_S * 2 ** min(page.failures, 10), _LAST_S)
            return self._rest(page, max(pause, error.retry_after))
        self._metrics.wrote("policy_status")
        page.failures = 0
        for event in _events(before, status, enforced=policy.shown.mode == "Enforce"):
            if page.events.take():
                await self._tell(policy, *event)
        return self._rest(page, _WRITE_EVERY_S)

    @staticmethod
    def _rest(page: _Page, seconds: float) -> float:
        page.due = time.monotonic() + seconds
        return seconds

    def _status(
        self, known: KnownPolicy, before: PluginTrustPolicyStatus, refusals: list[Refusal]
    ) -> PluginTrustPolicyStatus:
        """What is true of a policy now."""
        tally = self._tallies.get(known.name) or _Tally()
        in_force = next((each for each in self._policies.in_force() if each.name == known.name), None)
        enforced = known.shown.mode == "Enforce"
        reason, message = _reason(known, in_force, tally)
        ready = {READY: "True", SELECTS_NOTHING: "True", JUDGING: "Unknown"}.get(reason, "False")
        last = next((each for each in before.conditions if each.type == "Ready"), None)
        changed = _now() if last is None or last.status != ready else last.last_transition_time
        condition = Condition.model_validate({
            "type": "Ready", "status": ready, "observedGeneration": known.generation, "lastTransitionTime": changed,
            "reason": reason, "message": message[:_MAX_MESSAGE],
        })  # fmt: skip
        return PluginTrustPolicyStatus(
            observed_generation=known.generation,
            conditions=[condition],
            matched=tally.matched,
            refused=len(tally.refused) if enforced else 0,
            would_refuse=0 if enforced else len(tally.refused),
            unknown=tally.unknown,
            refusals=refusals,
        )

    async def _refusals(self, policy: Policy | None, tally: _Tally) -> list[Refusal]:
        """The first of those that it forbids, by name."""
        plugins = [self._catalogue.plugin(key) for key in heapq.nsmallest(MAX_REFUSALS, tally.refused)]
        found = [(each, self._catalogue.current(each)) for each in plugins if each is not None]
        if policy is None or not found:
            return []
        with on_behalf_of(_SHARE):
            return await in_thread(_told_of, policy, found)

    async def _tell(self, policy: KnownPolicy, kind: str, reason: str, message: str) -> None:
        """One that cannot be written is not worth a failure."""
        about = {"apiVersion": API_VERSION, "kind": POLICY_KIND, "name": policy.name, "uid": policy.uid}
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{policy.name[:200]}.{uuid.uuid4().hex[:16]}", "namespace": _NAMESPACE_OF_EVENTS},
            "involvedObject": about,
            "type": kind,
            "reason": reason,
            "message": message[:_MAX_MESSAGE],
            "source": {"component": MANAGER},
            "firstTimestamp": (now := _now()),
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self._kube.request("POST", path("v1", "events", _NAMESPACE_OF_EVENTS), body=body)
            self._metrics.wrote("event")
        except KubeError as error:
            log.info("an Event for the PluginTrustPolicy '%s' cannot be written: %s", policy.name, error)


def _reason(known: KnownPolicy, in_force: Policy | None, tally: _Tally) -> tuple[str, str]:
    """Of the condition Ready, with its message."""
    if known.spec is None:
        return NOT_UNDERSTOOD, f"it forbids all that it may select: {known.problem}"
    if in_force is None or in_force.spec != known.spec:
        return JUDGING, "its keys are being read; until then, what was in force before goes on"
    if in_force.broken:
        what = "forbids" if in_force.enforced else "would forbid"
        return KEYS_UNREADABLE, f"it {what} all that it selects: {in_force.broken}"
    if not tally.matched:
        return SELECTS_NOTHING, "it selects no plugin"
    verb = "refuses" if in_force.enforced else "would refuse"
    counted = f"it selects {_plugins(tally.matched)} and {verb} {len(tally.refused) or 'none'}"
    if tally.unknown:
        return JUDGING, f"{counted}; the signatures of {tally.unknown} have not been looked at yet"
    return READY, counted


def _events(
    before: PluginTrustPolicyStatus, now: PluginTrustPolicyStatus, *, enforced: bool
) -> list[tuple[str, str, str]]:
    """Type, reason and message of what is news."""
    condition = now.conditions[0]
    last = next((each.reason for each in before.conditions if each.type == "Ready"), "")
    found = []
    if condition.reason in _BROKEN and last != condition.reason:
        found.append(("Warning", condition.reason, condition.message))
    elif last in _BROKEN and condition.reason not in _BROKEN:
        found.append(("Normal", condition.reason, condition.message))
    refused = now.refused + now.would_refuse
    if refused and not before.refused + before.would_refuse and condition.reason not in _BROKEN:
        names = ", ".join(each.plugin for each in now.refusals[:3]) + (" …" if refused > 3 else "")  # noqa: PLR2004
        verb = "it keeps from running" if enforced else "in the mode Enforce, it would keep from running"
        found.append(("Warning" if enforced else "Normal", REFUSES, f"{verb}: {names}"))
    return found


def _told_of(policy: Policy, plugins: list[tuple[Plugin, Revision | None]]) -> list[Refusal]:
    """Why a policy forbids each of these, where it does."""
    told = []
    for plugin, revision in plugins:
        known = known_of(plugin, revision)
        why = rule(policy, known).refused if known is not None else ""
        if why:
            told.append(Refusal(plugin=f"{plugin.namespace}/{plugin.name}", message=readable(why, _MAX_MESSAGE - 1)))
    return told


def _verdicts(policies: Iterable[Policy], known: Known | None) -> dict[str, _Verdict]:
    """What policies say of what is known of a plugin, by their names; None is known of one that is not valid."""
    found = {}
    for policy in policies:
        # Nothing of a resource that is not valid runs, whatever policies say.
        ruling = rule(policy, known) if known is not None else None
        refused, unknown = (bool(ruling.refused), ruling.unknown) if ruling is not None else (False, False)
        found[policy.name] = _Verdict(policy, refused, unknown)
    return found


def _status(policy: KnownPolicy) -> PluginTrustPolicyStatus:
    """The status that the API server has; an empty one where it cannot be read."""
    try:
        return PluginTrustPolicyStatus.model_validate_json(policy.status)
    except ValidationError:
        return PluginTrustPolicyStatus()


def _plugins(number: int) -> str:
    return "1 plugin" if number == 1 else f"{number} plugins"


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
