"""What the operator counts, in Prometheus' conventions."""

from __future__ import annotations

import collections
import functools
import itertools
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from hookline_operator.status.reasons import TROUBLES
from hookline_serving import Closed
from hookline_serving.bounds import REASONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from prometheus_client.core import Metric

    from hookline_operator.cluster.kube import Key
    from hookline_operator.cluster.sight import Sights

_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0)
_VERIFYING: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_WAITING: Final = 10_000
_MAX_POLICIES: Final = 100
_OTHERS: Final = "others"
"""What counts of policies are named that come after so many."""


class _Connections(Collector):
    """What the servers have counted."""

    def __init__(self, closed: dict[str, Closed]) -> None:
        self._closed = closed

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(
            "hookline_operator_connections_closed", "Connections that had to go, by where and why.",
            labels=["port", "reason"],
        )  # fmt: skip
        for port, counts in self._closed.items():
            for reason in REASONS:
                family.add_metric([port, reason], counts[reason])
        yield family


class _Seen(Collector):
    """How well this replica sees what it watches."""

    def __init__(self, sights: Sights) -> None:
        self._sights = sights

    def collect(self) -> Iterator[Metric]:
        age = GaugeMetricFamily(
            "hookline_operator_watch_age_seconds", "Since the API server last said anything of it.",
            labels=["collection"],
        )  # fmt: skip
        blind = GaugeMetricFamily(
            "hookline_operator_blind", "1 where that is too long ago: what changes there is not known.",
            labels=["collection"],
        )  # fmt: skip
        failures = CounterMetricFamily(
            "hookline_operator_watch_failures", "Looks at it that failed.", labels=["collection", "reason"]
        )
        for name, sights in self._sights.by_name().items():
            age.add_metric([name], max(each.age for each in sights))
            blind.add_metric([name], any(each.blind for each in sights))
            for reason, count in sum((each.failures for each in sights), collections.Counter[str]()).items():
                failures.add_metric([name, reason], count)
        yield from (age, blind, failures)


class _Policies(Collector):
    """What the leader knows of policies."""

    def __init__(self, counts: Callable[[], Sequence[PolicyCounts]]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "hookline_operator_policy_plugins",
            "WasmPlugins that a PluginTrustPolicy selects, those that it refuses (in Audit: would refuse), and those "
            "whose signatures nobody has looked at yet; of the first 100 policies by name, as the leader knows.",
            labels=["policy", "mode", "which"],
        )
        for each in itertools.islice(self._counts(), _MAX_POLICIES):
            for which, number in (("matched", each.matched), ("refused", each.refused), ("unknown", each.unknown)):
                family.add_metric([each.policy, each.mode, which], number)
        yield family


class PolicyCounts(NamedTuple):
    """What one policy does now, by the number of plugins."""

    policy: str
    mode: str
    matched: int
    """Those that it selects."""
    refused: int
    """Those that it keeps from running, or would in the mode Enforce."""
    unknown: int
    """Those whose signatures nobody has looked at yet."""


class Metrics:
    """One replica's metrics."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        gauge, counter = functools.partial(Gauge, registry=registry), functools.partial(Counter, registry=registry)
        seconds = functools.partial(Histogram, buckets=_BUCKETS, registry=registry)
        self.leader = gauge("hookline_operator_leader", "1 where this replica holds the Lease.")
        self._plugins = gauge("hookline_operator_plugins", "WasmPlugins, by whether they are Ready.", ["ready"])
        self._unhealthy = gauge(
            "hookline_operator_plugins_unhealthy",
            "WasmPlugins whose calls are not well in some pod, by what their condition Healthy says.",
            ["reason"],
        )
        self._rolled_back = gauge(
            "hookline_operator_plugins_rolled_back",
            "WasmPlugins whose newest revision failed on probation, and is held.",
        )
        self._sidecars = gauge("hookline_operator_connected_sidecars", "Sidecars connected to this replica.")
        self._resolves = counter(
            "hookline_operator_resolves", "Resolutions of a WasmPlugin, by how they ended.", ["result"]
        )
        self._resolve_seconds = seconds("hookline_operator_resolve_seconds", "How long a resolution took.")
        self._refused, self._verify_seconds = _of_trust(registry)
        self._policies: set[str] = set()
        self._writes = counter("hookline_operator_api_writes", "Writes to the Kubernetes API.", ["kind"])
        self._status_failures = counter(
            "hookline_operator_status_failures", "Statuses that the API server did not take, by why.", ["reason"]
        )
        self._unwritten = gauge(
            "hookline_operator_statuses_unwritten", "Plugins whose status is not what it should be, for that."
        )
        self._switch_seconds = seconds(
            "hookline_operator_switch_seconds", "From a new revision to the last matching pod running it."
        )
        self._injections = counter("hookline_operator_injections", "Pods that were asked about.", ["result"])
        self._admissions = counter("hookline_operator_admissions", "WasmPlugins that were asked about.", ["result"])
        self._callers = counter(
            "hookline_operator_callers", "Tokens that were brought, by how they were judged.", ["result"]
        )
        self._reports = counter(
            "hookline_operator_reports", "Reports of sidecars: read, or passed over for a newer one.", ["result"]
        )
        self._cut = counter(
            "hookline_operator_sessions_cut", "Connections of sidecars that were ended for what they sent.", ["reason"]
        )
        self._unsealed = gauge(
            "hookline_operator_revisions_refused",
            "WasmPluginRevisions that came without this operator's seal since this replica started.",
        )
        self._unguarded = gauge(
            "hookline_operator_unguarded_pods",
            "Pods that a plugin's selector or a label asks a sidecar for, and that have none.",
        )
        self._stranded = gauge(
            "hookline_operator_pods_stranded",
            "Pods that trust only a certificate authority that is gone, and cannot connect; as the leader knows.",
        )
        self.closed = {"https": Closed(), "health": Closed()}
        """Connections that had to go, by where and why."""
        registry.register(_Connections(self.closed))
        self._since: dict[Key, float] = {}

    def watch(
        self,
        *,
        ready: Callable[[], int],
        not_ready: Callable[[], int],
        sidecars: Callable[[], int],
        unsealed: Callable[[], int],
        troubled: Callable[[str], int],
        rolled_back: Callable[[], int],
        stranded: Callable[[], int] = lambda: 0,
        unguarded: Callable[[], int] = lambda: 0,
    ) -> None:
        """Where the gauges get their values from, when they are asked for."""
        self._plugins.labels("true").set_function(ready)
        self._plugins.labels("false").set_function(not_ready)
        self._sidecars.set_function(sidecars)
        self._unsealed.set_function(unsealed)
        self._stranded.set_function(stranded)
        self._unguarded.set_function(unguarded)
        for reason in TROUBLES:
            self._unhealthy.labels(reason).set_function(functools.partial(troubled, reason))
        self._rolled_back.set_function(rolled_back)

    def watch_policies(self, counts: Callable[[], Sequence[PolicyCounts]]) -> None:
        """Where the numbers of plugins come from that policies select and refuse; empty where nobody knows."""
        self._registry.register(_Policies(counts))

    def see(self, sights: Sights) -> None:
        """What is watched."""
        self._registry.register(_Seen(sights))

    def resolved(self, result: str, seconds: float) -> None:
        """One resolution ended: ``ok``, or its cause."""
        self._resolves.labels(result).inc()
        self._resolve_seconds.observe(seconds)

    def refused(self, policy: str, mode: str) -> None:
        """A policy refuses what a resource resolves to, or would, in ``Audit``."""
        if policy not in self._policies and len(self._policies) >= _MAX_POLICIES:
            policy = _OTHERS  # a label is kept for as long as the process lives
        self._policies.add(policy)
        self._refused.labels(policy, mode).inc()

    def verified(self, seconds: float) -> None:
        """The signatures of an artifact are what was asked for."""
        self._verify_seconds.observe(seconds)

    def wrote(self, kind: str) -> None:
        """One write to the API: ``status``, ``revision``, ``policy_status`` or ``event``."""
        self._writes.labels(kind).inc()

    def status_refused(self, reason: str) -> None:
        """One status that was not taken, by ``reason_of`` or ``no_subresource``."""
        self._status_failures.labels(reason).inc()

    def unwritten(self, count: int) -> None:
        """How many statuses wait to be written again."""
        self._unwritten.set(count)

    def new_revision(self, key: Key) -> None:
        """The pods have something to switch to."""
        if len(self._since) < _WAITING:
            self._since[key] = time.monotonic()

    def note_switch(self, key: Key) -> bool:
        """All matching pods run what they should. Returns whether that is news since the last revision."""
        since = self._since.pop(key, None)
        if since is not None:
            self._switch_seconds.observe(time.monotonic() - since)
        return since is not None

    def injected(self, result: str) -> None:
        """One pod: ``injected``, ``skipped`` or ``refused``."""
        self._injections.labels(result).inc()

    def admitted(self, result: str) -> None:
        """One resource: ``allowed`` or ``denied``."""
        self._admissions.labels(result).inc()

    def called(self, result: str) -> None:
        """One token, by ``Reviewer``'s words."""
        self._callers.labels(result).inc()

    def reported(self, result: str) -> None:
        """One report: ``read``, or ``passed`` over."""
        self._reports.labels(result).inc()

    def cut(self, reason: str) -> None:
        """One connection of a sidecar, by ``Distribution``'s words."""
        self._cut.labels(reason).inc()

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self._registry)


def _of_trust(registry: CollectorRegistry) -> tuple[Counter, Histogram]:
    """What policies refuse, and how long signatures take."""
    refused = Counter(
        "hookline_operator_policy_refusals",
        "Resolutions that a PluginTrustPolicy refused, or would have refused in another mode.",
        ["policy", "mode"],
        registry=registry,
    )
    verified = Histogram(
        "hookline_operator_verify_seconds",
        "How long the signatures of an artifact took that were good, without asking a registry for them.",
        buckets=_VERIFYING,
        registry=registry,
    )
    return refused, verified
