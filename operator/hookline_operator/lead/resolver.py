"""Resolves a plugin's source into a revision: asks for it, tries again after a failure, and follows tags.

A resolution asks the registry, looks into the module and checks the settings. The result is kept as a
``WasmPluginRevision``. How far each plugin's resolution is, is known for as long as a term lasts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import orjson
from pydantic import ValidationError

from hookline_api import sentences
from hookline_api.abi import permission_warning, ungranted_imports
from hookline_api.resources import granted
from hookline_api.status import ArtifactStatus
from hookline_artifacts import patience
from hookline_artifacts.errors import (
    ConfigError,
    FetchError,
    IncreasedError,
    LoadError,
    NotGrantedError,
    VerifyError,
)
from hookline_artifacts.resolve import asks, registry_access, resolve
from hookline_artifacts.schema_check import check_apart
from hookline_artifacts.threads import on_behalf_of
from hookline_operator.cluster.compliance import Proven, audits, complies, with_permissions
from hookline_operator.cluster.kube import KubeError
from hookline_operator.cluster.revisions import Template
from hookline_operator.lead.findings import reason_of, signatures, unmet
from hookline_operator.status.observation import Resolution

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from hookline_api.bundle import BundleArtifact
    from hookline_artifacts.fetch import Fetcher
    from hookline_artifacts.objects import Objects
    from hookline_artifacts.resolve import Resolved
    from hookline_artifacts.trust.policy import Asked, Policy
    from hookline_operator.cluster.catalogue import Catalogue
    from hookline_operator.cluster.kube import Key
    from hookline_operator.cluster.plugins import Facts, Plugin
    from hookline_operator.cluster.revisions import Revision
    from hookline_operator.metrics import Metrics

_RESOLVES_AT_ONCE: Final = 16
_OF_ONE_NAMESPACE: Final = 4
_CHECKS_AT_ONCE: Final = 2
"""Each is a process of up to 256 MiB."""
_HELD_S: Final = 30.0
"""Seconds that the store keeps a module from its resolution on, at the least."""
_PENDING_S: Final = 2.0
"""Seconds before the status tells of a resolution. Most end before, and then there is one write."""
_MAX_IMPORTS: Final = 256
_MAX_NOTES: Final = 8
_MAX_NOTE: Final = 300

log = logging.getLogger("hookline.controller")


class _Summary(NamedTuple):
    """What the status tells of a revision, which is read a tenth of a second where its settings have a mebibyte."""

    artifact: ArtifactStatus
    imports: list[str]
    notes: list[str]
    proven: Proven


@dataclass(slots=True)
class _Track:
    """What the leader knows of one plugin beyond the catalogue."""

    uid: str
    start: object = None
    """What the last resolution started from."""
    task: asyncio.Task[None] | None = None
    began: float | None = None
    """When (monotonic) the last resolution began; None while it waits for its turn."""
    asks: str = ""
    """Which host that asks; empty where it asks none, or before that is known."""
    error: LoadError | None = None
    """How the last resolution failed."""
    attempts: int = 0
    note: str = ""
    """What went wrong when the tag was asked again, while what it meant before runs."""
    again: asyncio.TimerHandle | None = None
    good: tuple[object, Proven | None] = (None, None)
    """What was compared last, and the current revision, where it is what the resource asks for."""
    allowed: tuple[object, bool] = (None, False)
    """That revision and the policies that it was held against last, and whether it is all that they ask for."""
    waits: str = ""
    """The reason, where what a tag means by now is refused: whoever mends that wants the tag to be asked again."""
    refused: str | None = None
    """What the tag means by now, where there is a ``note``: the digest, if that was known."""
    summary: tuple[Revision | None, _Summary | None] = (None, None)
    """The current revision and its summary, once somebody asked for it."""

    def cancel(self) -> None:
        """Nothing more comes of it."""
        if self.task is not None:
            self.task.cancel()
        if self.again is not None:
            self.again.cancel()


class Resolver:
    """Resolves plugins, while this replica leads."""

    def __init__(
        self,
        catalogue: Catalogue,
        fetcher: Fetcher,
        objects: Objects,
        metrics: Metrics,
        *,
        policies: Callable[[Plugin], tuple[Policy, ...]],
        keep: Callable[[Plugin, Template], Awaitable[None]],
        update: Callable[[Key], None],
    ) -> None:
        """``policies`` gives those that apply now. ``keep`` makes a template the plugin's current revision.

        ``update`` is called when a resolution has moved on.
        """
        self._policies = policies
        self._catalogue = catalogue
        self._fetcher = fetcher
        self._objects = objects
        self._metrics = metrics
        self._keep = keep
        self._update = update
        self._tracks: dict[Key, _Track] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._resolves = asyncio.Semaphore(_RESOLVES_AT_ONCE)
        self._shares: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(_OF_ONE_NAMESPACE))
        self._checks = asyncio.Semaphore(_CHECKS_AT_ONCE)

    def end(self) -> list[asyncio.Task[None]]:
        """The term has ended: resolve nothing more. Returns the tasks that were under way, cancelled."""
        for track in self._tracks.values():
            track.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        self._tracks.clear()
        return tasks

    def forget_other(self, key: Key, uid: str | None) -> bool:
        """Forget another object that had this name. Returns whether there was one."""
        track = self._tracks.get(key)
        if track is None or track.uid == uid:
            return False
        self._tracks.pop(key).cancel()
        return True

    def update(self, plugin: Plugin) -> None:
        """Begin a resolution, unless the current revision is what the resource asks for."""
        track = self._tracks.setdefault(plugin.key, _Track(uid=plugin.uid))
        start = (
            plugin.spec,
            plugin.generation,
            self._catalogue.inputs(plugin.namespace, plugin.refers_to),
            tuple(self._catalogue.default_pull_secrets.get(plugin.namespace, ())),
            self._policies(plugin),
        )
        if self._good(track, plugin):
            if track.error is not None or (track.task is not None and track.start != start):
                self._stop(track)
            if track.note and track.start != start and track.task is None:
                self._stop(track)  # perhaps what kept its tag from being asked for is mended: a pull secret, say
                self._begin(track, plugin, ask_again=True)
            track.start, track.error = start, None
            track.waits = track.waits if track.note else ""
            self._track_tag(track, plugin)
        elif track.start != start or (track.task is None and track.error is None):
            self._stop(track)
            track.start, track.attempts = start, 0
            self._begin(track, plugin, ask_again=bool(track.waits) and self._same(track, plugin) is None)

    def shown_from(self, plugin: Plugin) -> float | None:
        """From when (monotonic) the status tells of the resolution; 0 where none is under way.

        None while it waits for its turn, as thousands do at the start.
        """
        track = self._tracks.get(plugin.key)
        if track is None or track.task is None:
            return 0.0
        return track.began + _PENDING_S if track.began is not None else None

    def resolution(self, plugin: Plugin) -> Resolution | None:
        """How far the plugin's resolution is; None where nothing is known of this object."""
        track = self._tracks.get(plugin.key)
        if track is None or track.uid != plugin.uid:
            return None
        revision = self._catalogue.current(plugin)
        if track.summary[0] != revision:
            track.summary = revision, self._summary(plugin)
        summary = track.summary[1]
        artifact = summary.artifact if summary is not None else None
        short = revision.short if revision is not None else None
        if summary is not None and self._good(track, plugin):
            ungranted = _ungranted(plugin, summary.imports, summary.proven.artifact)
            return Resolution(
                state="Good",
                artifact=artifact,
                revision=short,
                message=track.note,
                waits=track.waits if track.note else "",
                failed_digest=track.refused if track.note else None,
                warnings=[permission_warning(ungranted)] if ungranted else [],
                notes=summary.notes,
                audits=self._audits(plugin, summary.proven),
            )
        if track.error is not None:
            return Resolution(
                state="Failed",
                cause=track.error.cause,
                reason=reason_of(track.error),
                message=str(track.error),
                transient=isinstance(track.error, FetchError) and track.error.transient,
                failed_digest=track.error.digest,
                ungranted=isinstance(track.error, NotGrantedError),
                artifact=artifact,
                revision=short,
            )
        waits = f"the source is being resolved: {track.asks} has not sent the module yet; where that lasts, look there"
        return Resolution(
            state="Pending", message=waits if track.asks and track.task else "", artifact=artifact, revision=short
        )

    def _good(self, track: _Track, plugin: Plugin) -> bool:
        """Whether the current revision is what the resource asks for, and allowed, without asking anybody."""
        same, facts = self._same(track, plugin), plugin.facts
        if same is None or facts is None:
            return False
        policies = self._policies(plugin)
        if not policies:
            return True
        if track.allowed[0] != (same, policies):
            track.allowed = (same, policies), complies(policies, _asked(facts, same.artifact), same)
        return track.allowed[1]

    def _same(self, track: _Track, plugin: Plugin) -> Proven | None:
        """The current revision, where it is what the resource asks for, whatever policies say."""
        revision = self._catalogue.current(plugin)
        if revision is None:
            return None
        inputs = self._catalogue.inputs_now(revision)
        seen = (revision, plugin.spec, inputs)
        if track.good[0] != seen:
            try:
                template, facts = revision.parsed(), plugin.facts
                same = inputs == revision.inputs and template.spec == orjson.loads(plugin.spec) and facts is not None
                # An operator that did not ask may have stored it. It goes on, as what ran before any wrong change.
                if same and facts is not None and facts.is_strict:
                    same = not _ungranted(plugin, template.imports, template.artifact)
                if same and facts is not None and facts.wants_signatures:
                    same = bool(template.met)
            except ValidationError:
                same = False
            track.good = seen, Proven.of(template) if same else None
        return track.good[1]

    def _audits(self, plugin: Plugin, proven: Proven) -> list[str]:
        policies, facts = self._policies(plugin), plugin.facts
        if not policies or facts is None:
            return []
        return [each[:_MAX_NOTE] for each in audits(policies, _asked(facts, proven.artifact), proven)[:_MAX_NOTES]]

    @staticmethod
    def _stop(track: _Track) -> None:
        if track.task is not None:
            track.task.cancel()
        if track.again is not None:
            track.again.cancel()
        track.task = track.again = track.error = None

    def _begin(self, track: _Track, plugin: Plugin, *, ask_again: bool = False) -> None:
        track.again, track.began = None, None
        tasks, work = self._tasks, self._resolve(track, plugin, ask_again=ask_again)
        track.task = asyncio.get_running_loop().create_task(work, name=f"resolve {plugin.name}")
        tasks.add(track.task)
        track.task.add_done_callback(tasks.discard)

    async def _resolve(self, track: _Track, plugin: Plugin, *, ask_again: bool) -> None:
        error: LoadError | None = None
        began = time.monotonic()
        try:
            # First the namespace's own permits: slow sources of one keep nobody else waiting.
            async with self._shares[plugin.namespace], self._resolves:
                track.began = time.monotonic()
                self._update(plugin.key)
                with on_behalf_of(plugin.namespace):
                    template = await self._template(track, plugin, ask_again=ask_again)
                await self._keep(plugin, template)
        except LoadError as caught:
            error = caught
        except KubeError as caught:
            error = FetchError(f"what it resolved to cannot be stored: {caught}")
        except Exception as caught:  # a defect of ours must be seen as this plugin's failure, not as silence
            log.exception("plugin '%s/%s' could not be resolved", plugin.namespace, plugin.name)
            # Without its text, which may quote anything: a status is read by many.
            error = VerifyError(f"the operator failed: {type(caught).__name__}; its log says more")
        self._metrics.resolved(error.cause if error else "ok", time.monotonic() - began)
        track.task = None
        if error is None and not self._good(track, plugin):
            error = FetchError("it changed while it was being resolved")
        if error is None:
            track.error, track.attempts, track.note, track.waits = None, 0, "", ""
        else:
            # What somebody has to mend first may be mended where the tag is: then what it meant before says nothing.
            moved = isinstance(error, VerifyError | IncreasedError) or (
                isinstance(error, FetchError) and not error.transient
            )
            self._note_failure(track, plugin, error, ask_again=ask_again or moved)
        self._update(plugin.key)

    def _note_failure(self, track: _Track, plugin: Plugin, error: LoadError, *, ask_again: bool) -> None:
        track.attempts += 1
        runs = self._good(track, plugin)
        if (track.error is None or str(track.error) != str(error)) and track.note != str(error):
            log.warning("plugin '%s/%s' cannot be resolved (%s): %s", *plugin.key, error.cause, error)
        policy = error.policy if isinstance(error, VerifyError) else ""
        if policy:
            self._metrics.refused(policy, "Enforce")
        if isinstance(error, VerifyError | IncreasedError):
            track.waits = reason_of(error)
        if runs:
            # The tag cannot be asked again: what it meant before goes on.
            track.note, track.refused = str(error), error.digest
        else:
            track.error = error
        pause = patience.pause(error, track.attempts)
        if pause is not None:
            self._again(track, plugin.key, pause, ask_again=ask_again)

    def _again(self, track: _Track, key: Key, pause: float, *, ask_again: bool) -> None:
        def begin() -> None:
            track.again = None
            plugin = self._catalogue.plugin(key)
            if plugin is not None and plugin.uid == track.uid and track.task is None:
                self._begin(track, plugin, ask_again=ask_again)

        track.again = asyncio.get_running_loop().call_later(pause, begin)

    def _track_tag(self, track: _Track, plugin: Plugin) -> None:
        """Ask again what a tag means, where the resource wants that."""
        if track.again is not None or track.task is not None:
            return
        interval = plugin.facts.track_interval if plugin.facts is not None else None
        if interval is not None:
            self._again(track, plugin.key, patience.pause_of_tag(interval / 1000), ask_again=True)

    async def _template(self, track: _Track, plugin: Plugin, *, ask_again: bool) -> Template:
        """What the resource resolves to now. Raises LoadError."""
        try:
            resource = plugin.parsed()
        except ValidationError as error:
            raise ConfigError(sentences.first(error)) from None
        namespace, source = plugin.namespace, resource.spec.source
        track.asks = asks(source)
        inputs = dict(self._catalogue.inputs(namespace, plugin.settings_from))  # before they are read
        more = self._catalogue.default_pull_secrets.get(namespace, ())
        access, pulls = None, [f"Secret/{name}" for name in more]
        if source.oci is not None:
            access = await registry_access(source.oci, namespace, self._objects, more)
            pulls += [f"Secret/{each.name}" for each in source.oci.pull_secrets]
        before = self._current_template(plugin)
        pulled, kept = dict(self._catalogue.inputs(namespace, pulls)), before.contents if before is not None else {}
        proven = self._catalogue.as_known(namespace, pulled, before.proven if before is not None else {}, kept)
        # Who was let in once with the same passwords need not ask again: new settings do not wait for a registry.
        known = before is not None and before.proven == proven
        same = known and before is not None and before.spec.get("source") == orjson.loads(plugin.spec).get("source")
        policies = self._policies(plugin)
        resolved = await resolve(
            resource,
            fetcher=self._fetcher,
            objects=self._objects,
            previous=before.artifact if before is not None else None,
            ask_again=ask_again,
            access=access,
            prove=not same,
            policies=policies,
            pinned=not ask_again and self._same(track, plugin) is not None,
            kept=before.evidence.encode() if before is not None and before.evidence else None,
        )
        # DANGER: what nobody holds may go, and the revision that pins it is still on its way.
        asyncio.get_running_loop().call_later(_HELD_S, getattr, resolved.artifact, "sha256")
        if resolved.description.config_schema is not None:
            async with self._checks:
                schema, made = resolved.description.config_schema, resolved.entry
                await check_apart(made.config, schema, secret_paths=made.secret_paths)
        found = resolved.trust
        self._tell(plugin, resolved, policies)
        assert resolved.entry.artifact is not None  # noqa: S101 - what is resolved has one
        return Template(
            plugin=plugin.name,
            spec=orjson.loads(plugin.spec),
            artifact=resolved.entry.artifact,
            hooks=list(resolved.hooks),
            imports=list(resolved.info.functions),
            # Under the versions that are kept, where nothing but annotations is another: then it is the same revision.
            inputs=self._catalogue.as_known(namespace, inputs, before.inputs if before is not None else {}, kept),
            proven=proven,
            contents=self._catalogue.contents(namespace, {**pulled, **inputs}),
            # Policies in Audit are asked again whenever the status is made.
            notes=[note[:_MAX_NOTE] for note in resolved.notes if note not in found.notes][:_MAX_NOTES],
            keys=sorted(plugin.facts.keys) if plugin.facts is not None else [],
            evidence=found.evidence.decode() if found.evidence is not None else "",
            signatures=signatures(found),
            met=sorted(found.met),
            audits=unmet(policies, found),
        )

    def _tell(self, plugin: Plugin, resolved: Resolved, policies: Sequence[Policy]) -> None:
        """What of its description cannot be read; what was verified, and what policies in Audit would have refused."""
        trust = resolved.trust
        for note in resolved.description.notes:
            log.warning("plugin '%s/%s': %s", *plugin.key, note)
        for policy in policies:
            if any(name == policy.name for name, _ in trust.audits):
                self._metrics.refused(policy.name, "Audit")
        if trust.met:
            self._metrics.verified(trust.seconds)

    def _current_template(self, plugin: Plugin) -> Template | None:
        revision = self._catalogue.current(plugin)
        with contextlib.suppress(ValidationError):
            return revision.parsed() if revision is not None else None
        return None

    def _summary(self, plugin: Plugin) -> _Summary | None:
        """What there is to tell of the current revision; None where there is none, or another version stored it."""
        template = self._current_template(plugin)
        if template is None:
            return None
        artifact = ArtifactStatus(
            digest=template.artifact.digest,
            sha256=template.artifact.sha256,
            layout=template.artifact.layout,
            size=template.artifact.size,
            version=template.artifact.version,
            signer=template.signatures[0].signer if template.signatures else None,
            signatures=template.signatures,
            cases=template.artifact.cases,
            hooks=[hook.value for hook in template.hooks],
            imports=template.imports[:_MAX_IMPORTS],
        )
        return _Summary(artifact, template.imports, template.notes, Proven.of(template))


def _ungranted(plugin: Plugin, imports: list[str], artifact: BundleArtifact) -> dict[str, str]:
    """What the module imports and the resource does not grant."""
    has = granted(plugin.facts.asked, artifact.asks or ()) if plugin.facts is not None else ()
    return ungranted_imports(imports, has)


def _asked(facts: Facts, artifact: BundleArtifact) -> Asked:
    """What policies judge of a plugin that has this artifact."""
    return with_permissions(facts.asked, granted(facts.asked, artifact.asks or ()))
