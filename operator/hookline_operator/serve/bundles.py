"""What a pod must run: the offer of each plugin that selects it, and the bundle of all of them.

A plugin's *offer* is what pods get of it now: its last good revision with its settings filled in, or a placeholder that
says why there is none (``hookline_api.standing``). Every replica comes to the same result, since all of it is in the
API: the revision, the Secrets, and the failure in the resource's status.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections import OrderedDict, defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

import orjson
from pydantic import ValidationError

from hookline_api import bundle as bundle_json
from hookline_api import json_cost
from hookline_api.bundle import Bundle, BundlePlugin, LoadFailure, revision_of
from hookline_api.distribution import BundleMessage
from hookline_api.resources import FailurePolicy, Probation, Rollout, granted
from hookline_api.selectors import selects
from hookline_api.standing import policy_of, stands
from hookline_artifacts import settings as filling
from hookline_artifacts.entry import make_entry
from hookline_artifacts.errors import ConfigError, FetchError, LoadError
from hookline_artifacts.threads import in_thread
from hookline_artifacts.trust.policy import asked_by, asked_by_entry
from hookline_operator.cluster.compliance import proves, refusals, unproven
from hookline_operator.cluster.kept import Kept
from hookline_operator.cluster.plugins import Plugin, parse_plugin
from hookline_operator.status.conditions import rolled_back

if TYPE_CHECKING:
    from collections.abc import Callable

    from hookline_api.bundle import BundleArtifact
    from hookline_api.resources import Selector, WasmPlugin
    from hookline_artifacts.objects import Objects
    from hookline_artifacts.trust.policy import Policy
    from hookline_operator.cluster.catalogue import Catalogue
    from hookline_operator.cluster.kube import Key
    from hookline_operator.cluster.pods import Pod
    from hookline_operator.cluster.revisions import Revision, Template

_AGAIN_S: Final = 3.0
SOUGHT_S: Final = 1800.0
"""How long what runs is left alone while the leader looks for signatures that a policy asks for by now: 5,000 plugins
take minutes. Whoever changes his resource all the time, or answers slowly, has the leader begin again and again."""
_KEPT_BUNDLES: Final = 512
_KEPT_MESSAGES: Final = 64 * 2**20
"""Bytes of bundles as they are sent, kept so that the pods of a deployment share one text: the size of the largest."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What pods get of a plugin now."""

    selector: Selector
    entry: BundlePlugin
    full_revision: str
    """``entry.full_revision``, which takes time to compute."""

    @property
    def revision(self) -> str:
        """``entry.revision``."""
        return revision_of(self.full_revision)

    @property
    def evidence(self) -> str:
        """What proves its artifact, by sha256; empty where nothing was asked for."""
        artifact = self.entry.artifact
        return artifact.evidence.sha256 if artifact is not None and artifact.evidence is not None else ""


@dataclass(frozen=True)
class PodBundle:
    """What one pod must run."""

    bundle: Bundle
    version: str
    revisions: dict[str, str]
    """By plugin: what is to run, for those that have an artifact."""
    deadline: int
    """Milliseconds that prepared pods wait for the others."""
    messages: Kept[tuple[PodBundle, str]] = field(compare=False, repr=False)
    """Those that carry bundles: each is made once for all pods that get it at the same time."""

    @cached_property
    def unsealed(self) -> dict[tuple[str, str], str]:
        """The revision by plugin and by the name that an older sidecar gives it, which knows no seals."""
        return {
            (each.name, each.model_copy(update={"seal": None}).revision): each.revision
            for each in self.bundle.plugins
            if each.seal is not None and each.artifact is not None
        }

    def with_older(self, names: set[str], older: PodBundle) -> PodBundle:
        """The same bundle with these plugins as an older bundle has them, or without those that it does not have."""
        kept = [entry for entry in self.bundle.plugins if entry.name not in names]
        bundle = Bundle.of([*kept, *(entry for entry in older.bundle.plugins if entry.name in names)])
        known = older.revisions | self.revisions
        revisions = {
            entry.name: older.revisions[entry.name] if entry.name in names else known[entry.name]
            for entry in bundle.plugins
            if entry.artifact is not None
        }
        return dataclasses.replace(self, bundle=bundle, version=bundle.version, revisions=revisions)

    def message(self, *, hold: bool) -> str:
        """The message that carries the bundle; it is made once for all pods."""
        key = id(self), hold
        owner, text = self.messages.get(key) or (None, "")
        if owner is not self:
            told = BundleMessage(version=self.version, bundle=Bundle(), hold=hold, deadline=self.deadline)
            around = told.model_dump_json(by_alias=True)
            text = around.replace(bundle_json.write(Bundle()), bundle_json.write(self.bundle), 1)
            self.messages.put(key, (self, text), len(text) * (1 if text.isascii() else json_cost.WIDEST))
        return text


class Bundles:
    """Makes bundles, and keeps each until something that went into it changes."""

    def __init__(
        self,
        catalogue: Catalogue,
        objects: Objects,
        *,
        key: Callable[[], bytes],
        policies: Callable[[Plugin], tuple[Policy, ...]] = lambda _: (),
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``key`` seals entries that hold values of Secrets. It has to be the same for all replicas.

        ``policies`` gives those that apply to a plugin now.
        """
        self._policies = policies
        self._refused: dict[Key, str] = {}
        """Revisions that were refused for a signature. Another policy that asks for one does not let them run again."""
        self._sought: dict[Key, tuple[str, dict[str, float]]] = {}
        """Revisions whose signatures are looked for, and since when: by requirement."""
        self._now = now
        self._unproven: dict[Key, tuple[BundleArtifact, tuple[Policy, ...], bool]] = {}
        """Of what pods have, the last that was asked about, by what, and whether its signatures are not proven."""
        self._catalogue = catalogue
        self._objects = objects
        self._key = key
        self._offers: dict[Key, tuple[object, Offer | None]] = {}
        self._locks: defaultdict[Key, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._bundles: OrderedDict[tuple[str, ...], PodBundle] = OrderedDict()
        self._messages: Kept[tuple[PodBundle, str]] = Kept("bundles as they are sent", most=_KEPT_MESSAGES)

    async def of_pod(self, pod: Pod) -> PodBundle:
        """The bundle of a pod: the plugins of its namespace that select it."""
        offers = []
        for plugin in self._catalogue.plugins_in(pod.namespace):
            offer = await self.offer(plugin)
            if offer is not None and selects(offer.selector, pod.labels):
                offers.append(offer)
        # The revision says nothing of a failure, nor of the rules of probation.
        key = tuple(
            part
            for each in offers
            for part in (
                each.entry.name,
                each.full_revision,
                each.evidence,
                repr(each.entry.failure),
                repr(each.entry.probation),
            )
        )
        known = self._bundles.get((pod.namespace, *key))
        if known is None:
            bundle = Bundle.of([each.entry for each in offers])
            known = PodBundle(
                bundle=bundle,
                version=bundle.version,
                revisions={each.entry.name: each.revision for each in offers if each.entry.artifact is not None},
                deadline=max((self._deadline_of(pod.namespace, each.entry.name) for each in offers), default=0),
                messages=self._messages,
            )
            self._bundles[(pod.namespace, *key)] = known
            while len(self._bundles) > _KEPT_BUNDLES:
                self._bundles.popitem(last=False)
        return known

    async def offer(self, plugin: Plugin) -> Offer | None:
        """What pods get of a plugin now; None where its policy leaves it out."""
        known = self._known(plugin)
        if known is not None:
            return known[1]
        async with self._locks[plugin.key]:  # two thousand pods ask for it at the same moment
            known = self._known(plugin)
            if known is not None:
                return known[1]
            fingerprint = self._fingerprint(plugin)
            offer, lasting = await self._make_offer(plugin)
            known = self._offers[plugin.key] = (fingerprint, offer)
            if not lasting:  # kept for a while all the same: each of its pods would ask the API server
                asyncio.get_running_loop().call_later(_AGAIN_S, self._expire, plugin.key, known)
            return offer

    def is_known(self, plugin: Plugin) -> bool:
        """Whether the plugin's offer was made, and nothing that goes into it has changed since."""
        return self._known(plugin) is not None

    def _expire(self, key: Key, known: tuple[object, Offer | None] | None = None) -> None:
        if key in self._offers and (known is None or self._offers[key] is known):
            del self._offers[key]
            self._catalogue.tell_plugin(key)

    def _known(self, plugin: Plugin) -> tuple[object, Offer | None] | None:
        known = self._offers.get(plugin.key)
        return known if known is not None and known[0] == self._fingerprint(plugin) else None

    def _fingerprint(self, plugin: Plugin) -> object:
        revision, held = self._catalogue.to_run(plugin), self._catalogue.held(plugin)
        inputs = self._catalogue.inputs_now(revision) if revision is not None else None
        policies = self._policies(plugin)
        return plugin.uid, plugin.spec, plugin.failure, revision, inputs, held, self._key(), policies

    async def _make_offer(self, plugin: Plugin) -> tuple[Offer | None, bool]:
        """The offer, and whether it holds until something changes (and not only until the API answers)."""
        revision, failure, lasting = self._catalogue.to_run(plugin), plugin.failure, True
        held = self._catalogue.held(plugin)
        try:
            spec = plugin.parsed().spec
        except ValidationError:
            spec = None
        policy = policy_of(spec.failure_policy if spec else FailurePolicy(), failure)
        selector, last, forbidden = plugin.selector, None, ""
        if policy == "LastGood" and revision is not None:
            try:
                template, resource = self._checked(revision)
                forbidden = await self._forbidden(plugin, revision, template, resource)
                if forbidden:
                    failure, policy = LoadFailure(cause="verify", message=forbidden), "Closed"
                else:
                    last, selector = await self._filled(revision, template, resource), resource.spec.selector
            except LoadError as error:
                failure = failure or LoadFailure(cause=error.cause, message=str(error))
                lasting = not isinstance(error, FetchError)
            else:
                if held is not None and last is not None:  # it ran before, and is to prove nothing
                    failure = failure or LoadFailure(cause="verify", message=rolled_back(held))
                    last = last.model_copy(update={"probation": Probation(calls=0)})
        placeholder = BundlePlugin(name=plugin.name, namespace=plugin.namespace, origin=plugin.uid)
        if spec is not None:
            told = ("hooks", "priority", "match", "failure_policy")
            placeholder = placeholder.model_copy(update={name: getattr(spec, name) for name in told})
        if forbidden or (revision is None and failure is not None and self._forbids(plugin, failure)):
            # DANGER: without this word, a sidecar would go on with what it ran before, as with any other failure.
            closed = placeholder.failure_policy.model_copy(update={"verify": "Closed"})
            placeholder = placeholder.model_copy(update={"failure_policy": closed})
        entry = stands(last, failure, policy, placeholder=placeholder)
        return (Offer(selector, entry, entry.full_revision) if entry is not None else None), lasting

    def _forbids(self, plugin: Plugin, failure: LoadFailure) -> bool:
        """Whether a failure may be that of a policy: of what nobody knows, nothing goes on then."""
        return failure.cause == "verify" and any(each.enforced for each in self._policies(plugin))

    async def entry(self, revision: Revision) -> tuple[Selector, BundlePlugin]:
        """A revision with its settings filled in. Raises LoadError."""
        template, resource = self._checked(revision)
        return resource.spec.selector, await self._filled(revision, template, resource)

    def _checked(self, revision: Revision) -> tuple[Template, WasmPlugin]:
        """A revision's template, and the resource in it. Raises ConfigError."""
        if not self._catalogue.settings_are_as_checked(revision):
            # What somebody wrote into a Secret a moment ago was not checked yet.
            raise ConfigError("a Secret or a ConfigMap that it takes settings from has changed, and is being checked")
        try:
            template = revision.parsed()
            return template, parse_plugin(revision.namespace, template.plugin, revision.plugin_uid, 0, template.spec)
        except ValidationError:  # the leader is about to make a new one
            raise ConfigError(f"revision '{revision.name}' was stored by another version of the operator") from None

    async def _filled(self, revision: Revision, template: Template, resource: WasmPlugin) -> BundlePlugin:
        """The entry of what a revision holds. Raises LoadError."""
        return make_entry(
            resource,
            template.artifact,
            hooks=template.hooks,
            settings=await filling.settings(resource, self._objects),
            origin=revision.plugin_uid,
            key=self._key(),
        )

    async def _forbidden(self, plugin: Plugin, revision: Revision, template: Template, resource: WasmPlugin) -> str:
        """Why policies that are enforced keep a revision from running, in one sentence; empty where they do not.

        What they ask of its settings is judged here. Signatures are the leader's to look for: until
        it has, the revision goes on. Once it has failed to, for whatever reason, it does not.
        """
        policies = self._policies(plugin)
        if not policies:
            return ""
        artifact = template.artifact
        asked = asked_by(resource, granted(resource.spec, artifact.asks or ()))
        for policy, why in refusals(policies, asked, artifact):
            if policy.enforced:
                return f"{policy.label} forbids it: {why}"
        unmet = [each for each in unproven(policies, template.met) if each.enforced]
        if unmet:
            unmet = await in_thread(
                lambda: [each for each in unmet if not proves(each, template.evidence, asked, artifact)]
            )
        asks = frozenset(each.requirement.fingerprint for each in unmet if each.requirement is not None)
        known = asks if self._refused.get(plugin.key) == revision.name else frozenset[str]()
        # Nobody looks for signatures of the revision before the current one.
        if plugin.failure is not None or revision != self._catalogue.current(plugin):
            known = asks
        known |= self._overdue(plugin.key, revision.name, asks)
        self._refused.pop(plugin.key, None)
        if not known:
            return ""
        # DANGER: kept, since each change of the resource makes its failure one of an older generation.
        self._refused[plugin.key] = revision.name
        who = next(each for each in unmet if each.requirement is not None and each.requirement.fingerprint in known)
        why = plugin.failure.message if plugin.failure is not None else "none were found that count"
        return why if why.startswith(who.label) else f"{who.label} asks for signatures that are not proven: {why}"

    def _overdue(self, key: Key, revision: str, asks: frozenset[str]) -> frozenset[str]:
        """Of these requirements those that a revision has not been found to meet for too long."""
        name, known = self._sought.pop(key, ("", {}))
        now = self._now()
        since = {each: known.get(each, now) if name == revision else now for each in asks}
        if not asks:
            return asks
        self._sought[key] = revision, since
        if name != revision or asks - known.keys():
            asyncio.get_running_loop().call_later(SOUGHT_S + 1, self._expire, key)
        return frozenset(each for each in asks if now - since[each] >= SOUGHT_S)

    async def forbids(self, namespace: str, entry: BundlePlugin) -> bool:
        """Whether policies that are enforced forbid an entry that pods have, by all that is known of it here."""
        plugin = self._catalogue.plugin((namespace, entry.name))
        policies = self._policies(plugin) if plugin is not None else ()
        if plugin is None or not policies or entry.artifact is None:
            return False
        if any(policy.enforced for policy, _ in refusals(policies, asked_by_entry(entry), entry.artifact)):
            return True
        artifact, before = entry.artifact, self._unproven.get(plugin.key)
        if before is None or before[0] != artifact or before[1] is not policies:  # two thousand pods have the same
            before = self._unproven[plugin.key] = artifact, policies, self._is_unproven(plugin, entry, artifact)
        return before[2]

    def _is_unproven(self, plugin: Plugin, entry: BundlePlugin, artifact: BundleArtifact) -> bool:
        """Whether no revision that is kept proves that an artifact is signed as policies ask now."""
        asking = [each for each in self._policies(plugin) if each.enforced and each.requirement is not None]
        for revision in (self._catalogue.current(plugin), self._catalogue.before(plugin)) if asking else ():
            with contextlib.suppress(ValidationError):
                known = revision.parsed() if revision is not None else None
                if known is None or (known.artifact.digest, known.artifact.sha256) != (
                    artifact.digest,
                    artifact.sha256,
                ):
                    continue
                asked = asked_by_entry(entry)
                asking = [
                    each for each in unproven(asking, known.met) if not proves(each, known.evidence, asked, artifact)
                ]
        return bool(asking)

    def deadline(self, plugin: Plugin) -> int:
        """Milliseconds that pods which have prepared a new revision wait for the others."""
        try:
            return Rollout.model_validate((orjson.loads(plugin.spec) or {}).get("rollout") or {}).deadline
        except (ValidationError, AttributeError):
            return Rollout().deadline

    def _deadline_of(self, namespace: str, name: str) -> int:
        plugin = self._catalogue.plugin((namespace, name))
        return self.deadline(plugin) if plugin else 0

    def plugin_changed(self, key: Key) -> None:
        """Forget a plugin that is gone; what else changes is seen when it is asked for."""
        if self._catalogue.plugin(key) is None:
            self._offers.pop(key, None)
            self._refused.pop(key, None)
            self._sought.pop(key, None)
            self._unproven.pop(key, None)
            self._locks.pop(key, None)


def _is_unproven(asking: list[Policy], entry: BundlePlugin, revisions: list[Revision]) -> bool:
    """Whether none of these revisions proves that an entry's artifact is signed as policies ask."""
    asked, artifact = asked_by_entry(entry), entry.artifact
    for revision in revisions:
        with contextlib.suppress(ValidationError):
            known = revision.parsed()
            if artifact is not None and (known.artifact.digest, known.artifact.sha256) == (
                artifact.digest,
                artifact.sha256,
            ):
                asking = [
                    each
                    for each in unproven(asking, known.met)
                    if not proves(each, known.evidence, asked, known.artifact)
                ]
    return bool(asking)
