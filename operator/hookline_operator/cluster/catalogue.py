"""What this replica knows of the cluster: plugins, their revisions, pods, and the versions of Secrets and ConfigMaps.

The handlers and the reflectors fill it, and everything else reads it. Nothing in here does I/O. ``process.py`` lists
who listens to its changes, in order.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal

from hookline_api.selectors import selects
from hookline_operator.cluster.budget import Budget
from hookline_operator.cluster.plugins import Plugin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from hookline_api.resources import Selector
    from hookline_api.status import RollbackStatus
    from hookline_operator.cluster.kube import Key, Object
    from hookline_operator.cluster.pods import Pod
    from hookline_operator.cluster.revisions import Revision, Seal
    from hookline_operator.status.observation import UnguardedPod

_NAMED: Final = 10
"""Revisions without a seal that each replica names in its log: with a lost key, all are without. All are counted."""
_KEPT_CONTENTS: Final = 4
"""Versions of an object of which it is known what was in them."""

Kind = Literal["Secret", "ConfigMap"]
Reference = tuple[Kind, str, str]
"""Kind, namespace and name of what a plugin refers to."""
Versions = Mapping[str, str | None]
"""By ``Kind/name``, the ``resourceVersion``; None where there is none."""

log = logging.getLogger("hookline.catalogue")


class Catalogue:
    """Everything that this replica knows. ``plugin_changed`` and ``pod_changed`` are called with what changed."""

    def __init__(self) -> None:
        self.plugins: dict[str, dict[str, Plugin]] = {}
        """By namespace and name."""
        self.pods: dict[str, dict[str, Pod]] = {}
        """By namespace and name."""
        self.revisions: dict[Key, dict[tuple[bool, str], Revision]] = defaultdict(dict)
        """By the namespace and the plugin's uid, and then by whether it is old and the revision's name.

        DANGER: whoever may write revisions in another namespace can put this plugin's uid on them.
        """
        self.unsealed = 0
        """How many revisions came whose seal does not hold."""
        self.versions: dict[Reference, str] = {}
        """The ``resourceVersion`` of each Secret and ConfigMap that is there."""
        self._contents: dict[Reference, dict[str, str]] = {}
        """By their versions, the digests of what was in those that were read."""
        self.default_pull_secrets: dict[str, list[str]] = {}
        """Of the service account ``default``, by namespace."""
        self.plugin_changed: list[Callable[[Key], None]] = []
        self.room_again: list[Callable[[Key], None]] = []
        """Called with each plugin whose spec was left out and fits now: it has to be read from the API again."""
        self._budgets: defaultdict[str, Budget] = defaultdict(Budget)
        self.pod_changed: list[Callable[[Key], None]] = []
        self.unguarded: Callable[[Plugin], tuple[list[UnguardedPod], int]] = lambda _: ([], 0)
        """Pods that a plugin is meant to guard and that have no sidecar: some of them, and how many."""

    def put_plugin(self, found: Object, *, gone: bool) -> None:
        """Take in a plugin as the API has it; ``gone`` says that it was deleted."""
        new = Plugin.of(found)
        there = self.plugins.setdefault(new.namespace, {})
        known = there.get(new.name)
        new = new.after(known)
        if gone:
            # kopf keeps the order of events per uid: the end of an object may come after its successor's beginning.
            if known is None or known.uid != new.uid:
                return
            del there[new.name]
            self._budgets[new.namespace].drop(new.name)
        else:
            budget = self._budgets[new.namespace]
            budget.put(new.name, created=new.created, uid=new.uid, size=new.size)
            if new.name in budget.over:
                new = new.without_spec(budget.refusal())
            if known != new:
                there[new.name] = new
        if known != new or gone:
            self.tell_plugin(new.key)
        self._make_room(new.namespace)

    def forget_plugin(self, key: Key) -> None:
        """Forget a plugin that turned out to be gone."""
        if self.plugins.get(key[0], {}).pop(key[1], None) is not None:
            self._budgets[key[0]].drop(key[1])
            self.tell_plugin(key)
            self._make_room(key[0])

    def _make_room(self, namespace: str) -> None:
        """Leave out whose specs do not fit any longer, and have read again whose do."""
        there, budget = self.plugins.get(namespace, {}), self._budgets[namespace]
        for name in budget.take_changes():
            plugin = there.get(name)
            if plugin is None:
                continue
            if plugin.left_out and name not in budget.over:
                for hear in self.room_again:
                    hear(plugin.key)
            elif name in budget.over and not plugin.left_out:
                there[name] = plugin.without_spec(budget.refusal())
                self.tell_plugin(plugin.key)

    def put_pod(self, key: Key, old: Pod | None, new: Pod | None) -> None:
        """Take in a change of a pod."""
        if new is None:
            self.pods.get(key[0], {}).pop(key[1], None)
        else:
            self.pods.setdefault(key[0], {})[key[1]] = new
        for hear in self.pod_changed:
            hear(key)
        for each in (old, new):
            if each is not None:
                self._tell_matching(each)

    def put_revision(self, _key: Key, old: Revision | None, new: Revision | None) -> None:
        """Take in a change of a revision."""
        if new is not None and not new.sealed and not new.old:
            self.unsealed += 1
            if self.unsealed <= _NAMED:
                log.warning(
                    "the WasmPluginRevision '%s/%s' has no seal of this operator's key, and is believed only if the "
                    "status of its plugin names it: who else writes there?",
                    *(new.namespace, new.name),
                )
        for each in (old, new):
            if each is not None:
                revisions = self.revisions[each.namespace, each.plugin_uid]
                revisions.pop((each.old, each.name), None)
                if each is new:
                    revisions[each.old, each.name] = each
                if not revisions:
                    del self.revisions[each.namespace, each.plugin_uid]
                for plugin in self.plugins_in(each.namespace):
                    if plugin.uid == each.plugin_uid:
                        self.tell_plugin(plugin.key)

    def verify_again(self, seal: Seal) -> None:
        """The operator's key has changed: verify every seal again, and tell of every plugin."""
        for revisions in list(self.revisions.values()):
            revisions.update({name: each.verified(seal) for name, each in revisions.items()})
        self.tell_all()

    def put_version(self, kind: Kind, key: Key, version: str | None) -> None:
        """Take in a Secret or a ConfigMap that is new, has changed, or is gone."""
        reference: Reference = (kind, *key)
        before = self.versions.pop(reference, None)
        if version is None:
            self._contents.pop(reference, None)
        else:
            self.versions[reference] = version
        is_default = key[1] in self.default_pull_secrets.get(key[0], ())
        for plugin in self.plugins_in(key[0]):
            if (is_default or key[1] in plugin.names) and not self._is_same(plugin, reference, before, version):
                self.tell_plugin(plugin.key)

    def note_contents(self, reference: Reference, version: str, digest: str) -> None:
        """Keep the digest of what a Secret or a ConfigMap held at a version."""
        known = self._contents.setdefault(reference, {})
        known.pop(version, None)
        known[version] = digest
        while len(known) > _KEPT_CONTENTS:
            del known[next(iter(known))]

    def is_compared(self, reference: Reference) -> bool:
        """Whether a plugin refers to it, and its earlier contents are known to compare with."""
        kind, namespace, name = reference
        if reference not in self.versions:
            return False
        is_default = name in self.default_pull_secrets.get(namespace, ())
        for plugin in self.plugins_in(namespace):
            if is_default or name in plugin.names:
                revision = self.current(plugin)
                if reference in self._contents or (revision and f"{kind}/{name}" in dict(revision.contents)):
                    return True
        return False

    def differing(self) -> set[Reference]:
        """The objects that have newer versions than the revisions name, where contents can be compared."""
        found: set[Reference] = set()
        for plugin in self.all_plugins():
            revision = self.current(plugin)
            contents = dict(revision.contents) if revision is not None else {}
            for name, version in revision.inputs if revision is not None else ():
                reference = _reference(plugin.namespace, name)
                if name in contents and self.versions.get(reference, version) != version:
                    found.add(reference)
        return found

    def _is_same(self, plugin: Plugin, reference: Reference, before: str | None, now: str | None) -> bool:
        """Whether both versions of an object are known to hold the same."""
        known = self._contents.get(reference, {})
        digest = known.get(now or "")
        if digest is None or before is None:
            return False
        if before in known:
            return known[before] == digest
        revision, name = self.current(plugin), f"{reference[0]}/{reference[2]}"
        return revision is not None and (name, before) in revision.inputs and (name, digest) in revision.contents

    def put_default_account(self, namespace: str, pull_secrets: list[str]) -> None:
        """Take in the pull secrets of a namespace's service account ``default``."""
        self.default_pull_secrets[namespace] = pull_secrets
        self.tell_in(namespace)

    def tell_plugin(self, key: Key) -> None:
        """Call the listeners of ``plugin_changed``: something about this plugin may have changed."""
        for hear in self.plugin_changed:
            hear(key)

    def tell_all(self) -> None:
        """The same for every plugin."""
        for plugin in self.all_plugins():
            self.tell_plugin(plugin.key)

    def tell_in(self, namespace: str) -> None:
        """The same for every plugin of a namespace."""
        for plugin in self.plugins_in(namespace):
            self.tell_plugin(plugin.key)

    def plugin(self, key: Key) -> Plugin | None:
        """A plugin, if it is there."""
        return self.plugins.get(key[0], {}).get(key[1])

    def plugins_in(self, namespace: str) -> list[Plugin]:
        """The plugins of a namespace."""
        return list(self.plugins.get(namespace, {}).values())

    def pod(self, key: Key) -> Pod | None:
        """A pod with a sidecar, if it is there."""
        return self.pods.get(key[0], {}).get(key[1])

    def all_plugins(self) -> Iterator[Plugin]:
        """Every plugin."""
        for there in list(self.plugins.values()):
            yield from list(there.values())

    def current(self, plugin: Plugin) -> Revision | None:
        """The plugin's newest revision, of those that are known to be the operator's own."""
        found = self.revisions.get((plugin.namespace, plugin.uid))
        if not found:
            return None
        newest = max((each for each in found.values() if each.sealed), key=lambda each: each.number, default=None)
        others = [
            each
            for each in found.values()
            if not each.sealed and each.claim and (newest is None or _came_later(each, newest))
        ]
        if not others:
            return newest
        vouched = (each for each in others if each.claim == plugin.vouches)
        # Of the same text as both kinds, ours.
        return max(vouched, key=lambda each: (not each.old, each.number), default=newest)

    def before(self, plugin: Plugin) -> Revision | None:
        """The revision before the current one, while it is still kept (``settling.py``)."""
        current = self.current(plugin)
        older = [
            each
            for each in self.revisions_of(plugin)
            if current is not None and each.sealed and each.name != current.name and each.number < current.number
        ]
        return max(older, key=lambda each: each.number, default=None)

    def held(self, plugin: Plugin) -> RollbackStatus | None:
        """Why the plugin's pods should run the revision before the current one; None where they should not.

        That is so for as long as the status says it of the current revision. It takes a revision before it whose
        settings have not changed since: nobody has checked it with others.
        """
        back = plugin.rolled_back
        current = self.current(plugin) if back is not None else None
        if back is None or current is None or back.revision != current.short:
            return None
        return back if self.can_go_back(plugin) else None

    def can_go_back(self, plugin: Plugin) -> bool:
        """Whether there is a revision before the current one that the pods could be given now."""
        before = self.before(plugin)
        return before is not None and self.settings_are_as_checked(before)

    def to_run(self, plugin: Plugin) -> Revision | None:
        """What the plugin's pods should run: the current revision, or the one before it while that is held."""
        return self.current(plugin) if self.held(plugin) is None else self.before(plugin)

    def revisions_of(self, plugin: Plugin) -> list[Revision]:
        """All ``WasmPluginRevision`` objects of a plugin, whoever wrote them."""
        found = self.revisions.get((plugin.namespace, plugin.uid), {})
        return [each for each in found.values() if not each.old]

    def inputs(self, namespace: str, names: Iterable[str]) -> tuple[tuple[str, str | None], ...]:
        """The versions that these objects (``Kind/name``) have now."""
        return tuple((each, self.versions.get(_reference(namespace, each))) for each in sorted(names))

    def inputs_now(self, revision: Revision) -> tuple[tuple[str, str | None], ...]:
        """The versions that a revision's inputs have now. They equal its ``inputs`` while no contents have changed."""
        known, now = dict(revision.inputs), self.inputs(revision.namespace, (name for name, _ in revision.inputs))
        if now == revision.inputs:
            return now
        return tuple(self.as_known(revision.namespace, dict(now), known, dict(revision.contents)).items())

    def settings_are_as_checked(self, revision: Revision) -> bool:
        """Whether what its settings come from is what it was; keys that signatures are verified with are not meant."""
        then, now = (dict(each) for each in (revision.inputs, self.inputs_now(revision)))
        return all(now[name] == version for name, version in then.items() if name not in revision.keys)

    def as_known(
        self, namespace: str, now: Versions, known: Versions, contents: Mapping[str, str]
    ) -> dict[str, str | None]:
        """These versions, with the known one in place of each that holds the same contents."""
        same = self.contents(namespace, now).items() & contents.items()
        return {
            name: known[name] if name in known and (name, contents.get(name)) in same else version
            for name, version in now.items()
        }

    def contents(self, namespace: str, versions: Versions) -> dict[str, str]:
        """The digests of what these objects (``Kind/name``) held at these versions, where they were read."""
        found = {}
        for name, version in versions.items():
            digest = self._contents.get(_reference(namespace, name), {}).get(version or "")
            if digest is not None:
                found[name] = digest
        return found

    def is_pod(self, namespace: str, name: str, uid: str) -> bool:
        """Whether there is such a pod with a sidecar."""
        pod = self.pod((namespace, name))
        return pod is not None and pod.uid == uid

    def matching(self, namespace: str, selector: Selector) -> list[Pod]:
        """The live pods that a selector selects."""
        return [pod for pod in self.pods.get(namespace, {}).values() if pod.live and selects(selector, pod.labels)]

    def _tell_matching(self, pod: Pod) -> None:
        for plugin in self.plugins_in(pod.namespace):
            self.tell_plugin(plugin.key)


def _came_later(each: Revision, newest: Revision) -> bool:
    """Whether an older version of the operator was at work again after ours had kept that one."""
    return each.old and each.name != newest.name and each.written > newest.written


def _reference(namespace: str, name: str) -> Reference:
    """Of ``Kind/name``."""
    kind, _, name = name.partition("/")
    return ("Secret" if kind == "Secret" else "ConfigMap", namespace, name)
