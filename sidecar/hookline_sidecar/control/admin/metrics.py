"""``/metrics``: what all workers counted, in Prometheus' conventions (https://prometheus.io/docs/practices/naming/)."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from hookline_api.sources import source_names
from hookline_runtime.host.arguments import BOUNDS_S
from hookline_runtime.plugin.stats import PROMETHEUS_BOUNDS
from hookline_serving.bounds import REASONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hookline_serving.bounds import Closed
    from hookline_sidecar.board import Board
    from hookline_sidecar.control.admin.access import Access
    from hookline_sidecar.control.admin.kv import KvAdmin
    from hookline_sidecar.control.view import View
    from hookline_sidecar.messages import HostCalls


class Counters(NamedTuple):
    """What is counted beside a view."""

    board: Board
    closed: Mapping[str, Closed]
    """Connections to the admin ports that had to go, by port."""
    access: Access
    keys: KvAdmin


def exposition(view: View, counters: Counters, *, guests: bool) -> bytes:
    """The text format, https://prometheus.io/docs/instrumenting/exposition_formats/.

    ``guests``: with the metrics that plugins keep. A plugin makes up their names while it is asked, of whatever a call
    brought it, so they are not for strangers. All other names and labels are ours, or those of resources.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(view, counters, guests=guests))
    return generate_latest(registry)


class _Collector(Collector):
    def __init__(self, view: View, counters: Counters, *, guests: bool) -> None:
        self._view = view
        self._counters = counters
        self._with_guests = guests

    def collect(self) -> Iterator[Metric]:
        yield from self._sidecar()
        yield from self._admin()
        yield from self._plugins()
        yield from self._calls()
        yield from self._host()
        yield from self._sources()
        yield from self._host_seconds()
        yield from self._caches()
        if self._with_guests:
            yield from self._guests()

    def _sidecar(self) -> Iterator[Metric]:
        view, workers = self._view, self._view.workers
        yield GaugeMetricFamily("hookline_ready", "Whether the sidecar is ready.", value=float(not view.not_ready()))
        yield GaugeMetricFamily("hookline_workers", "Workers that should run.", value=workers.size)
        yield GaugeMetricFamily(
            "hookline_workers_current", "Workers that run the newest bundle.", value=workers.current
        )
        yield CounterMetricFamily(
            "hookline_worker_connections", "Workers that were started.", value=workers.connections
        )
        yield from self._connections()
        refused = CounterMetricFamily(
            "hookline_trust_refused",
            "What the trust policies of the sidecar forbade; with the mode Audit, what they would forbid.",
            labels=["policy", "mode"],
        )
        for key, count in sorted(view.trust.refused.items()):
            refused.add_metric(list(key), count)
        yield refused
        yield CounterMetricFamily(
            "hookline_compiled_refused",
            "Compiled modules in the cache that were damaged or not made by this sidecar, and were compiled again.",
            value=view.trust.unsealed,
        )
        yield CounterMetricFamily("hookline_bundle_changes", "Bundles that replaced another.", value=view.changes)
        link = view.source.link
        if link is not None:
            yield GaugeMetricFamily(
                "hookline_operator_connected",
                "Whether there is a connection to the operator.",
                value=float(link.connected),
            )
            yield CounterMetricFamily(
                "hookline_operator_connections", "Connections to the operator that were made.", value=link.connections
            )
        else:
            yield GaugeMetricFamily(
                "hookline_manifest_problems", "Manifests that cannot be used.", value=len(view.source.problems)
            )
        info = GaugeMetricFamily("hookline_bundle_info", "The running bundle.", labels=["version"])
        info.add_metric([view.bundle.version if view.bundle else ""], 1)
        yield info

    def _connections(self) -> Iterator[Metric]:
        board = self._counters.board
        connections = GaugeMetricFamily(
            "hookline_connections", "Connections of proxies, by the worker that answers on them.", labels=["worker"]
        )
        for worker in range(self._view.workers.size):
            connections.add_metric([str(worker)], board.connections(worker))
        yield connections
        yield CounterMetricFamily(
            "hookline_auth_unclear",
            "Subrequests of proxies that were refused: two headers differ, or servers would read the path differently.",
            value=board.unclear(),
        )
        closed = CounterMetricFamily(
            "hookline_connections_closed", "Connections that had to go, by where and why.", labels=["port", "reason"]
        )
        for port, counts in {**self._counters.closed, "hooks": board.closed()}.items():
            for reason in REASONS:
                closed.add_metric([port, reason], counts[reason])
        yield closed

    def _admin(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "hookline_admin_kv_requests", "Requests for keys of plugins, answered.", labels=["method", "code"]
        )
        for (method, code), count in sorted(self._counters.keys.requests.items()):
            requests.add_metric([method, str(code)], count)
        yield requests
        refused = CounterMetricFamily(
            "hookline_admin_refused", "Requests for protected admin paths by strangers.", labels=["reason"]
        )
        for reason, count in sorted(self._counters.access.refused.items()):
            refused.add_metric([reason], count)
        yield refused

    def _plugins(self) -> Iterator[Metric]:
        view = self._view
        ready = GaugeMetricFamily(
            "hookline_plugin_ready", "Whether what runs is what the manifest asks for.", labels=["plugin"]
        )
        info = GaugeMetricFamily("hookline_plugin_info", "What runs.", labels=["plugin", "revision", "digest", "mode"])
        healthy = GaugeMetricFamily(
            "hookline_plugin_healthy", "Whether all hooks of a plugin that is loaded are well.", labels=["plugin"]
        )
        trouble = GaugeMetricFamily(
            "hookline_plugin_trouble",
            "1 for a hook that is not well: FailingCalls, Paused, Slow, Overloaded.",
            labels=["plugin", "hook", "trouble"],
        )
        for plugin in view.plugins:
            name, entry = plugin.name, view.entry(plugin.name)
            ready.add_metric([name], float(view.state_of(plugin) == "Running"))
            if entry is not None and entry.artifact is not None:
                info.add_metric([name, entry.revision, entry.artifact.digest, entry.mode], 1)
                troubles = view.health.get(name, [])
                healthy.add_metric([name], float(not troubles))
                for each in troubles:
                    trouble.add_metric([name, each.hook.value, each.trouble], 1)
        yield from (ready, info, healthy, trouble)

    def _calls(self) -> Iterator[Metric]:
        labels = ["plugin", "hook"]
        calls = CounterMetricFamily("hookline_plugin_calls", "Calls of a plugin.", labels=labels)
        failures = CounterMetricFamily("hookline_plugin_failures", "Calls that failed.", labels=[*labels, "cause"])
        cancelled = CounterMetricFamily(
            "hookline_plugin_cancelled", "Calls that were dropped while they waited: their client left.", labels=labels
        )
        skipped = CounterMetricFamily(
            "hookline_plugin_skipped", "Calls that the circuit breaker answered.", labels=labels
        )
        dropped = CounterMetricFamily(
            "hookline_observers_dropped",
            "Calls that a plugin was to observe and that never ran, for want of room.",
            labels=labels,
        )
        waited = CounterMetricFamily(
            "hookline_observers_waited", "Answers that waited until their call could be observed.", labels=labels
        )
        waiting = CounterMetricFamily("hookline_observers_waited_seconds", "How long they waited.", labels=labels)
        duration = HistogramMetricFamily("hookline_plugin_call_duration_seconds", "Time in a plugin.", labels=labels)
        fuel = CounterMetricFamily("hookline_plugin_fuel", "Fuel, where it is counted.", labels=labels)
        memory = GaugeMetricFamily(
            "hookline_plugin_memory_max_bytes", "The largest memory of any instance.", labels=labels
        )
        for name in self._view.rows.plugins():
            for hook, summary in self._view.rows.summaries(name).items():
                key = [name, hook.value]
                calls.add_metric(key, summary.calls)
                cancelled.add_metric(key, summary.cancelled)
                skipped.add_metric(key, summary.skipped)
                dropped.add_metric(key, summary.dropped)
                waited.add_metric(key, summary.waited)
                waiting.add_metric(key, summary.waited_seconds)
                for cause, count in summary.failures.items():
                    failures.add_metric([*key, cause], count)
                buckets = [(f"{bound:g}", float(n)) for bound, n in summary.cumulative(PROMETHEUS_BOUNDS)]
                duration.add_metric(key, [*buckets, ("+Inf", float(sum(summary.buckets)))], summary.seconds)
                fuel.add_metric(key, summary.fuel)
                memory.add_metric(key, summary.memory)
        yield from (calls, failures, cancelled, skipped, dropped, waited, waiting, duration, fuel, memory)

    def _host(self) -> Iterator[Metric]:
        labels = ["plugin", "function"]
        for field, text in (
            ("denied", "Host calls without their permission."),
            ("refused", "Host calls that a cap, an argument or the store stopped."),
        ):
            family = CounterMetricFamily(f"hookline_host_calls_{field}", text, labels=labels)
            totals: dict[tuple[str, str], int] = {}
            for name, function, count in (
                (name, function, count)
                for report in self._view.workers.facts
                for name, facts in report.items()
                for function, count in (facts.denied if field == "denied" else facts.refused).items()
            ):
                totals[name, function] = totals.get((name, function), 0) + count
            for key, count in sorted(totals.items()):
                family.add_metric(list(key), count)
            yield family

    def _host_seconds(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(
            "hookline_host_call_seconds",
            "Time of host functions that ask somebody else; a call that was dropped counts until then.",
            labels=["plugin", "function"],
        )
        found: dict[tuple[str, str], list[HostCalls]] = {}
        for report in self._view.workers.facts:
            for plugin, facts in report.items():
                for function, each in facts.host_calls.items():
                    found.setdefault((plugin, function), []).append(each)
        for key, calls in sorted(found.items()):
            counts = itertools.accumulate(map(sum, zip(*(each.buckets for each in calls), strict=True)))
            bounds = [f"{bound:g}" for bound in BOUNDS_S] + ["+Inf"]
            buckets = [(bound, float(count)) for bound, count in zip(bounds, counts, strict=True)]
            family.add_metric(list(key), buckets, sum(each.seconds for each in calls))
        yield family

    def _sources(self) -> Iterator[Metric]:
        """Of what plugins ask outside the pod; a source that nobody has asked yet counts as reached."""
        family = GaugeMetricFamily(
            "hookline_source_available",
            "Whether a worker reaches what a plugin asks outside the pod.",
            labels=["plugin", "source"],
        )
        for entry in self._view.bundle.plugins if self._view.bundle is not None else ():
            away = self._view.unavailable(entry.name)
            for source in source_names(entry, entry.kv.valkey):  # and no host that a guest has made up
                family.add_metric([entry.name, source], float(source not in away))
        yield family

    def _caches(self) -> Iterator[Metric]:
        family = CounterMetricFamily(
            "hookline_cache_requests",
            "Look-ups in caches of plugins, and all requests that found the store away.",
            labels=["plugin", "cache", "result"],
        )
        totals: Counter[tuple[str, str, str]] = Counter()
        for report in self._view.workers.facts:
            for plugin, facts in report.items():
                for cache, results in facts.caches.items():
                    for result, count in results.items():
                        totals[plugin, cache, result] += count
        for key, count in sorted(totals.items()):
            family.add_metric(list(key), count)
        yield family

    def _guests(self) -> Iterator[Metric]:
        """The metrics that plugins keep themselves. Counters and summaries add up over workers, gauges do not."""
        found: dict[tuple[str, str], dict[str, tuple[float, int]]] = {}
        reported = (
            (plugin, given, metric)
            for report in self._view.workers.facts
            for plugin, facts in report.items()
            for given, metric in facts.metrics.items()
        )
        for plugin, given, metric in reported:
            # Prometheus' own ending of counters: with it or without it, it is one metric.
            name = given.removesuffix("_total") if metric.type == "counter" else given
            per_plugin = found.setdefault((name, metric.type), {})
            old_value, old_count = per_plugin.get(plugin, (0.0, 0))
            total = metric.value if metric.type == "gauge" else old_value + metric.value
            per_plugin[plugin] = (total, old_count + metric.count)
        for (name, kind), per_plugin in sorted(found.items()):
            yield _guest_family(name, kind, per_plugin)


def _guest_family(name: str, kind: str, per_plugin: dict[str, tuple[float, int]]) -> Metric:
    # The kind is part of the name, so that two plugins cannot make one family of two types.
    full, text = f"hookline_guest_{kind}_{name}", "A metric that plugins keep."
    family: Any
    if kind == "summary":
        family = SummaryMetricFamily(full, text, labels=["plugin"])
        for plugin, (value, count) in sorted(per_plugin.items()):
            family.add_metric([plugin], count, value)
        return family  # type: ignore[no-any-return]
    family = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(full, text, labels=["plugin"])
    for plugin, (value, _) in sorted(per_plugin.items()):
        family.add_metric([plugin], value)
    return family  # type: ignore[no-any-return]
