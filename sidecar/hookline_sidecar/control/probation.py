"""Probation: a new version proves itself in this pod, or the one before it goes on.

Where a bundle has another revision of a plugin than ran before, the workers keep the version before it warm
(``hookline_runtime.plugin.probation``) and let it answer what the new one fails on. They count, in the statistics that
they share with the supervisor; this decides, over all of them:

- *proven*: after ``calls`` calls, or ``for`` seconds. The version before is given back;
- *back*: ``maxFailures`` of the first ``calls`` calls failed that the version before did not fail on, and their share
  is more than twice that of its own failures in its last minutes. The version before runs again, at once, and the new
  one is *refused* here for as long as nothing else is wanted.

There is no probation where nothing ran before, for a plugin in Shadow mode or one that was in it (what decided nothing
must not come to decide), for one that had permissions that it is to have no longer, and with ``calls: 0``. A third
version that comes meanwhile has the one before that has proven itself behind it.

Both lists are kept in the state folder, so that a restart loses neither: the version before is loaded again beside the
new one, and what is refused stays so. What was counted before a restart of the whole sidecar is not: calls and failures
begin anew.
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from pydantic import AliasChoices, Field, ValidationError

from hookline_api.base import Resource
from hookline_api.bundle import Bundle, BundlePlugin, CallCause, LoadFailure
from hookline_api.distribution import RolledBack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from hookline_api.resources import Probation
    from hookline_runtime.plugin.stats import Summary
    from hookline_sidecar.messages import CallFailure, PluginFacts
    from hookline_sidecar.state import StateFolder

LOOK_S: Final = 0.2
"""How often what is on probation is looked at: a call that fails takes as long as both versions until it goes back."""
_WINDOW_S: Final = 60.0
"""The last minutes of a version are one to two of these."""
_TIMES: Final = 2
"""How many times the share of the failures before is not like before."""
_FEW: Final = 20
"""Calls of the version before that say something of it."""
_TOLD_S: Final = 1.0
"""How long the workers may take to say why calls failed, before it goes back without their word."""
_MAX_SENTENCE: Final = 256
_CAUSES: Final[tuple[CallCause, ...]] = ("trap", "timeout", "result")

log = logging.getLogger("hookline.probation")


class Counts(NamedTuple):
    """What was counted of one plugin, over all hooks and workers."""

    calls: int = 0
    """Those that the breaker answered are among them."""
    failed: int = 0
    """By trap, timeout or result, and by the breaker."""
    alone: int = 0
    """Of these, what the version before did not fail on."""

    def since(self, then: Counts) -> Counts:
        """What came after that; all where the figures began anew since."""
        if any(now < before for now, before in zip(self, then, strict=True)):
            return self
        return Counts(*(now - before for now, before in zip(self, then, strict=True)))


class Trial(Resource):
    """One plugin that is on probation."""

    revision: str
    before: BundlePlugin
    began: float
    """Seconds since 1970."""
    calls: int = 0
    """As the three that follow: what was counted when it began."""
    failed: int = 0
    alone: int = 0
    share: float = 0.0
    """Of the calls of the version before, in its last minutes: how many failed."""


class RolledBackPlugin(Resource):
    """One revision that failed on probation."""

    entry: BundlePlugin
    before: BundlePlugin
    key: str = ""
    """Of the wish that asked for it (``source.Wanted.key``)."""
    rolled_back: RolledBack = Field(
        validation_alias=AliasChoices("rolledBack", "rolled_back", "told"), serialization_alias="told"
    )
    """What the operator is told. In the state folder it is ``told`` for one release more: the one before reads that."""

    @property
    def failure(self) -> LoadFailure:
        """Why what is asked for does not run. Of the causes there are, ``verify`` is what it is: it is not good."""
        told = self.rolled_back
        said = f": {told.message}" if told.message else ""
        return LoadFailure(
            cause="verify",
            message=f"revision {told.revision} failed {told.failures} of its first {told.calls} calls "
            f"({told.cause}{said}); the version before it goes on",
        )


class _Kept(Resource):
    trials: dict[str, Trial] = Field(default_factory=dict)
    refused: dict[str, RolledBackPlugin] = Field(default_factory=dict)


class Probations:
    """Those of one sidecar.

    ``count`` tells what was counted of a plugin, ``reports`` what each worker says of its plugins.
    """

    def __init__(
        self,
        state: StateFolder,
        *,
        count: Callable[[str], Counts],
        reports: Callable[[], Iterable[Mapping[str, PluginFacts]]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._state = state
        self._count = count
        self._reports = reports
        self._clock = clock
        kept = _read(state)
        self.trials: dict[str, Trial] = dict(kept.trials)
        self.refused: dict[str, RolledBackPlugin] = dict(kept.refused)
        self._revisions: dict[str, tuple[BundlePlugin, str]] = {}
        self._ready_since: dict[str, float] = {}
        """By plugin: since when it is to go back, and the workers have not said why yet."""
        self._enough_since: dict[str, float] = {}
        """By plugin: since when it has had enough calls, of which so many failed that it may have to go back."""
        self._windows: dict[str, tuple[str, float, Counts, Counts]] = {}
        """By plugin: its revision, when the newer of two samples was taken, and both, the older one first."""

    # ── with a bundle ──

    def before(self, bundle: Bundle, running: Bundle | None) -> list[BundlePlugin]:
        """The versions before those plugins of a bundle that are on probation in it."""
        now = {entry.name: entry for entry in running.plugins} if running else {}
        found = [self._before(entry, now.get(entry.name)) for entry in bundle.plugins]
        return [entry for entry in found if entry is not None]

    def of_bundle(self, bundle: Bundle | None) -> frozenset[str]:
        """The plugins of the running bundle that are on probation."""
        entries = bundle.plugins if bundle is not None else ()
        trials = ((entry, self.trials.get(entry.name)) for entry in entries)
        return frozenset(
            entry.name for entry, trial in trials if trial is not None and trial.revision == self._revision(entry)
        )

    def _revision(self, entry: BundlePlugin) -> str:
        """``entry.revision``, which takes time to compute, of what runs."""
        known = self._revisions.get(entry.name)
        if known is None or known[0] is not entry:
            known = self._revisions[entry.name] = entry, entry.revision
        return known[1]

    def _before(self, entry: BundlePlugin, runs: BundlePlugin | None) -> BundlePlugin | None:
        trial = self.trials.get(entry.name)
        if entry.artifact is None or entry.mode == "Shadow" or not entry.probation.calls:
            return None
        if trial is not None and trial.revision == entry.revision:
            return trial.before
        if runs is None or runs.artifact is None or runs.revision == entry.revision:
            return None
        refused = self.refused.get(entry.name)
        proven = runs
        if trial is not None and trial.revision == runs.revision:
            proven = trial.before
        elif refused is not None and refused.rolled_back.revision == runs.revision:
            proven = refused.before
        if proven.revision == entry.revision or proven.mode == "Shadow":
            return None
        # A guest that is to have less must not get it back by failing.
        return None if set(proven.permissions) - set(entry.permissions) else proven

    def begin(self, bundle: Bundle, before: Iterable[BundlePlugin], alone: Mapping[str, str]) -> None:
        """A bundle runs, with these versions behind its plugins. ``alone``: why there is none, by plugin."""
        behind = {entry.name: entry for entry in before}
        trials: dict[str, Trial] = {}
        for entry in bundle.plugins:
            name = entry.name
            if name not in behind:
                continue
            if name in alone:
                log.warning("plugin '%s' runs without probation: %s", name, alone[name])
                continue
            known = self.trials.get(name)
            if known is not None and known.revision == entry.revision:
                trials[name] = known
                continue
            counts, revision = self._count(name), behind[name].revision
            share = self._take_share(name, revision, counts)
            if known is not None and known.before.revision == revision:
                share = known.share
            trials[name] = Trial(
                revision=entry.revision,
                before=behind[name],
                began=self._clock(),
                share=share,
                **counts._asdict(),
            )
            log.info("plugin '%s': revision %s is on probation, %s stays warm",
                     name, entry.revision, behind[name].revision)  # fmt: skip
        changed, self.trials = trials != self.trials, trials
        names = {entry.name for entry in bundle.plugins}
        self._windows = {name: known for name, known in self._windows.items() if name in names}
        self._revisions = {name: known for name, known in self._revisions.items() if name in trials}
        for since in (self._ready_since, self._enough_since):
            for name in since.keys() - trials.keys():
                del since[name]
        if changed:
            self._keep()

    def restored(self, bundle: Bundle) -> Bundle:
        """The last good bundle without what is refused: the sidecar may have ended in between."""
        refused = {
            entry.name: known
            for entry in bundle.plugins
            if (known := self.refused.get(entry.name))
            and entry.artifact
            and entry.revision == known.rolled_back.revision
        }
        return Bundle.of([refused[e.name].before if e.name in refused else e for e in bundle.plugins])

    def entries(self) -> list[BundlePlugin]:
        """What may run again: of its artifacts everything stays on disk."""
        entries = [trial.before for trial in self.trials.values()]
        return entries + [each for known in self.refused.values() for each in (known.before, known.entry)]

    def modules(self) -> set[str]:
        """The sha256 of their modules."""
        return {entry.artifact.sha256 for entry in self.entries() if entry.artifact is not None}

    # ── while it runs ──

    def look(self, bundle: Bundle | None) -> tuple[dict[str, str], list[str]]:
        """Of the running bundle: who has proven themselves (the revision by plugin), and who goes back."""
        proven: dict[str, str] = {}
        back: list[str] = []
        for entry in bundle.plugins if bundle else ():
            trial = self.trials.get(entry.name)
            if trial is None:
                if entry.artifact is not None:
                    self._sample(entry.name, entry)
                continue
            if trial.revision != self._revision(entry):
                continue
            rule, counts = entry.probation, self._since(entry.name, trial)
            if _fails(counts, trial, rule):
                now = self._clock()
                since = self._ready_since.setdefault(entry.name, now)
                # The workers have said why, or had time for it.
                if self._newest_fault(entry.name, trial) is not None or now - since >= _TOLD_S:
                    back.append(entry.name)
                continue
            if counts.calls >= rule.calls:
                self._enough_since.setdefault(entry.name, self._clock())
            if self._is_proven(entry.name, trial, rule, counts):
                proven[entry.name] = entry.revision
                log.info("plugin '%s': revision %s has proven itself (%d calls)",
                         entry.name, entry.revision, counts.calls)  # fmt: skip
        for name in proven:
            self._end(name)
        if proven:
            self._keep()
        return proven, back

    def refuse(self, entry: BundlePlugin, key: str) -> BundlePlugin | None:
        """Refuse what runs, on the wish of that key; the version before it, or None where it is on no probation."""
        trial = self.trials.get(entry.name)
        if trial is None or trial.revision != entry.revision:
            return None
        counts = self._since(entry.name, trial)
        cause, said = self._newest(entry.name, trial)
        calls = max(counts.calls, counts.alone)
        told = RolledBack(
            revision=entry.revision, calls=calls, failures=counts.alone, cause=cause, message=said[:_MAX_SENTENCE]
        )
        refused = self.refused[entry.name] = RolledBackPlugin(
            entry=entry, before=trial.before, key=key, rolled_back=told
        )
        self._end(entry.name)
        self._keep()
        log.warning(
            "plugin '%s' goes back to revision %s: %s", entry.name, trial.before.revision, refused.failure.message
        )
        return trial.before

    def take_wish(self, entry: BundlePlugin, key: str) -> RolledBackPlugin | None:
        """Why a plugin that is wanted, by a wish of that key, is not to run here; None where it may.

        A wish for anything else ends what was refused.
        """
        known = self.refused.get(entry.name)
        if known is None or entry.revision == known.rolled_back.revision:
            if known is not None and known.key != key:
                self.refused[entry.name] = known.model_copy(update={"key": key})
                self._keep()
            return known
        if known.key != key:  # else the same wish means something else now, such as a tag, and may mean it again
            del self.refused[entry.name]
            self._keep()
        return None

    def give_up(self, before: BundlePlugin) -> bool:
        """This version does not load any more: if something is to go back to it, that goes on. Whether it was so."""
        known = self.refused.get(before.name)
        if known is None or known.before.revision != before.revision:
            return False
        del self.refused[before.name]
        self._keep()
        log.error(
            "plugin '%s' cannot go back to revision %s; revision %s goes on, although it fails",
            before.name, before.revision, known.rolled_back.revision,
        )  # fmt: skip
        return True

    def end(self, forbidden: Iterable[BundlePlugin]) -> dict[str, str]:
        """These may not run any more, so nothing goes back to them: whose probation ended, by plugin the revision."""
        gone = {entry.name: entry.revision for entry in forbidden}
        ended = {name: trial.revision for name, trial in self.trials.items() if gone.get(name) == trial.before.revision}
        for name in ended:
            log.warning("plugin '%s' runs without probation: the version before it may not run any more", name)
            self._end(name)
        if ended:
            self._keep()
        return ended

    def forget(self, names: Iterable[str]) -> None:
        """Those are wanted no longer."""
        gone = self.refused.keys() & set(names)
        for name in gone:
            del self.refused[name]
        if gone:
            self._keep()

    def _since(self, name: str, trial: Trial) -> Counts:
        return self._count(name).since(Counts(trial.calls, trial.failed, trial.alone))

    def _end(self, name: str) -> None:
        del self.trials[name]
        for since in (self._ready_since, self._enough_since):
            since.pop(name, None)

    def _is_proven(self, name: str, trial: Trial, rule: Probation, counts: Counts) -> bool:
        """Whether it has proven itself, as it has not failed."""
        now = self._clock()
        if abs(now - trial.began) * 1000 >= rule.for_:
            return True
        if counts.calls < rule.calls:
            return False
        if not _fails(counts._replace(alone=counts.failed), trial, rule):
            return True
        # Of calls that have just failed, the version before may not have said yet whether it fails on them too.
        return abs(now - self._enough_since[name]) >= 2 * trial.before.limits.timeout / 1000 + _TOLD_S

    def _newest_fault(self, name: str, trial: Trial) -> CallFailure | None:
        facts = [report[name] for report in self._reports() if name in report]
        faults = [each.last_fault for each in facts if each.revision == trial.revision]
        ours = [each for each in faults if each is not None and each.at >= trial.began]
        return max(ours, key=lambda each: each.at, default=None)

    def _newest(self, name: str, trial: Trial) -> tuple[CallCause, str]:
        """Why calls fail: in a word, and in a sentence that may be told."""
        fault = self._newest_fault(name, trial)
        return (fault.cause, fault.message) if fault is not None else ("trap", "")

    # ── how it was before ──

    def _sample(self, name: str, entry: BundlePlugin) -> None:
        known, now = self._windows.get(name), self._clock()
        if known is None or not 0 <= now - known[1] < _WINDOW_S:
            revision, counts = entry.revision, self._count(name)
            older = known[3] if known is not None and known[0] == revision else counts
            self._windows[name] = revision, now, older, counts

    def _take_share(self, name: str, revision: str, counts: Counts) -> float:
        """How many calls of the version before failed in its last minutes, which end here."""
        known = self._windows.pop(name, None)
        if known is None or known[0] != revision:
            return 0.0
        seen = counts.since(known[2])
        # Of a few calls, one that failed says little: it must not take the way back from the next version.
        return seen.failed / max(seen.calls, _FEW)

    def _keep(self) -> None:
        with contextlib.suppress(OSError):  # a restart would begin it anew; the bundle's own writing tells of that
            kept = _Kept(trials=self.trials, refused=self.refused)
            self._state.save_probation(kept.model_dump_json(by_alias=True).encode())


def _fails(counts: Counts, trial: Trial, rule: Probation) -> bool:
    """Whether it goes back. Of more calls than it is about, in the same proportion; of fewer than may fail, all."""
    if not counts.alone or not rule.calls:
        return False
    first = counts.alone * min(1.0, rule.calls / max(counts.calls, 1))
    return (
        first >= min(rule.max_failures, rule.calls)
        and counts.alone / max(counts.calls, counts.alone) > _TIMES * trial.share
    )


def counts_of(total: Summary) -> Counts:
    """What matters here of all that was counted of a plugin."""
    failed = sum(total.failures[cause] for cause in _CAUSES) + total.skipped
    return Counts(calls=total.calls + total.skipped - total.late, failed=failed, alone=total.alone)


def _read(state: StateFolder) -> _Kept:
    try:
        return _Kept.model_validate_json(state.load_probation() or b"{}")
    except (OSError, ValidationError):  # without the words, which may hold values of Secrets
        log.warning("the record of probations in the state folder cannot be read, and starts empty")
        return _Kept()
