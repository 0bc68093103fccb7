"""What a ``PluginTrustPolicy`` would stop in this cluster now, told to whoever applies or deletes it.

All plugins that this replica knows are judged, on a thread and for a bounded time: what was not judged in time is said.
Signatures are known where the operator has looked at them; for a new key nobody has.

DANGER: the answer names plugins of all namespaces, and what is in their specs. It is for who may write policies, which
the API server has found out; so it is given only where the API server asks (``secret_path``).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from hookline_api.text import readable
from hookline_artifacts.errors import FetchError
from hookline_artifacts.threads import in_thread, on_behalf_of
from hookline_artifacts.trust.policy import Policy
from hookline_operator.cluster.rulings import known_of, rule

if TYPE_CHECKING:
    from hookline_api.policies import PluginTrustPolicySpec
    from hookline_operator.cluster.catalogue import Catalogue
    from hookline_operator.cluster.plugins import Plugin
    from hookline_operator.cluster.policies import Policies
    from hookline_operator.cluster.revisions import Revision

PATH: Final = "/webhooks/policies"
ENTRY: Final = "plugintrustpolicies.validate.hookline.dev"
"""The webhook's name in the chart's configuration."""
_PURPOSE: Final = b"hookline.dev/webhook-path/1"
_DIGITS: Final = 40
_SHARE: Final = "policies"
_MOST_S: Final = 4.0
"""Seconds for one dry run."""
_OF_TIMEOUT: Final = 0.75
"""The same as a part of the time for which the API server waits."""
_OF_JUDGING: Final = 0.85
"""After this part of them no further plugin is judged, and what was found is told."""
_KEYS_S: Final = 1.0
_SLICE: Final = 500
_NAMED: Final = 5
_MAX_SENTENCE: Final = 1000

log = logging.getLogger("hookline.admission")


def secret_path(key: bytes) -> str:
    """Where only the API server asks, since only it is told: the webhook configuration names it.

    ``key`` is the operator's own, which all replicas share.
    """
    return f"{PATH}/{hmac.new(key, _PURPOSE, hashlib.sha256).hexdigest()[:_DIGITS]}"


class PolicyReview(NamedTuple):
    """A policy that is new, changes or goes."""

    name: str
    spec: PluginTrustPolicySpec | None
    """None where it goes."""
    before: PluginTrustPolicySpec | None
    """None where it is new, or was not understood."""
    dry_run: bool
    seconds: float
    """For how long the API server waits."""


@dataclass(slots=True)
class _Tally:
    """What was found."""

    selected: int = 0
    refused: int = 0
    unknown: int = 0
    unjudged: int = 0
    """Plugins that there was no time for."""
    named: list[str] = field(default_factory=list)
    unsigned: list[str] = field(default_factory=list)
    """Plugins of which nobody asks for a signature any more."""


class DryRun:
    """Tells what a policy would do to the plugins that this replica knows."""

    def __init__(self, catalogue: Catalogue, policies: Policies) -> None:
        self._catalogue = catalogue
        self._policies = policies
        self._one = asyncio.Semaphore(1)

    async def __call__(self, review: PolicyReview) -> list[str]:
        """In sentences; none where it stops nothing, unless it is but a dry run."""
        seconds = min(_MOST_S, review.seconds * _OF_TIMEOUT)
        deadline = time.monotonic() + seconds * _OF_JUDGING
        try:
            async with asyncio.timeout(seconds), self._one:
                policy = await self._made(review)
                plugins = await self._plugins()
                with on_behalf_of(_SHARE):
                    tally = await in_thread(self._judged, review, policy, plugins, deadline)
        except (TimeoutError, FetchError):
            return ["what it would do to the plugins of this cluster could not be found out in time"]
        found = _sentences(policy, tally, review) if policy is not None else []
        if tally.unjudged:
            found.append(f"{_plugins(tally.unjudged)} could not be judged in time")
        if tally.unsigned:
            names = ", ".join(tally.unsigned[:_NAMED]) + (" …" if len(tally.unsigned) > _NAMED else "")
            found.append(f"nothing asks for signatures of {_plugins(len(tally.unsigned))} any more: {names}")
        return found

    async def _made(self, review: PolicyReview) -> Policy | None:
        if review.spec is None:
            return None
        for each in self._policies.in_force():
            if each.name == review.name and each.spec == review.spec:
                return each
        try:
            async with asyncio.timeout(_KEYS_S):
                return await self._policies.made(review.name, review.spec)
        except TimeoutError:
            why = "its keys could not be read in time, so it is not known whether they are there"
            return Policy(name=review.name, spec=review.spec, broken=why)

    async def _plugins(self) -> list[tuple[Plugin, Revision | None]]:
        """All of them, by name, as they are now."""
        found = []
        for number, plugin in enumerate(sorted(self._catalogue.all_plugins(), key=lambda each: each.key)):
            found.append((plugin, self._catalogue.current(plugin)))
            if number % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
        return found

    def _judged(
        self,
        review: PolicyReview,
        policy: Policy | None,
        plugins: list[tuple[Plugin, Revision | None]],
        deadline: float,
    ) -> _Tally:
        tally = _Tally()
        in_force = self._policies.in_force()
        told = policy is not None and any(each == policy for each in in_force)
        others = [each for each in in_force if each.name != review.name and _wants(each.spec)]
        loosened = review.before if review.before is not None and _wants(review.before) else None
        for number, (plugin, revision) in enumerate(plugins):
            if time.monotonic() > deadline:
                tally.unjudged = len(plugins) - number
                break
            selected = policy is not None and self._selects(policy.spec, plugin)
            if policy is not None and selected:
                tally.selected += 1
                self._rule(policy, plugin, revision, tally, told=told)
            if loosened is not None and not (selected and policy is not None and _wants(policy.spec)):
                asked = [loosened, *(each.spec for each in others)]
                which = [self._selects(each, plugin) for each in asked]
                if which[0] and not any(which[1:]) and plugin.facts is not None and not plugin.facts.wants_signatures:
                    tally.unsigned.append(f"{plugin.namespace}/{plugin.name}")
        return tally

    def _selects(self, spec: PluginTrustPolicySpec, plugin: Plugin) -> bool:
        labels = dict(plugin.labels) if plugin.labels is not None else None
        return self._policies.selects(spec, plugin.namespace, plugin.name, labels)

    def _rule(self, policy: Policy, plugin: Plugin, revision: Revision | None, tally: _Tally, *, told: bool) -> None:
        known = known_of(plugin, revision)
        if known is None:
            return  # nothing of it can run, whatever policies say
        ruling = rule(policy, known, told=told)
        tally.unknown += ruling.unknown
        if ruling.refused:
            tally.refused += 1
            if len(tally.named) < _NAMED:
                why = readable(ruling.refused, _MAX_SENTENCE)
                tally.named.append(f"would refuse {plugin.namespace}/{plugin.name}: {why}")


def _wants(spec: PluginTrustPolicySpec) -> bool:
    """Whether it keeps what is not signed from running."""
    return spec.mode == "Enforce" and spec.signatures is not None and spec.signatures.wanted


def _sentences(policy: Policy, tally: _Tally, review: PolicyReview) -> list[str]:
    found = [policy.broken] if policy.broken else []
    if not tally.selected:
        return [*found, "it selects no plugin now"] if not tally.unjudged else found
    of = f"{tally.refused} of {_plugins(tally.selected)} that it selects"
    if tally.refused:
        in_audit = "" if policy.enforced else "; in Audit it lets them run"
        found.append(f"would refuse {of}{in_audit}")
        found += [] if policy.broken else tally.named
    elif review.dry_run:
        found.append(f"would refuse {of}")
    if tally.unknown:
        need = "needs" if tally.unknown == 1 else "need"
        found.append(
            f"{_plugins(tally.unknown)} {need} signatures that nobody has looked at yet: the operator does once the "
            "policy is stored"
        )
    return found


def _plugins(number: int) -> str:
    return "1 plugin" if number == 1 else f"{number} plugins"
