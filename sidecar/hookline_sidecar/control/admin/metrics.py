"""``/metrics``: what all workers counted, in Prometheus' conventions (https://prometheus.io/docs/practices/naming/)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from hookline_api.hooks import Hook
from hookline_runtime.plugin.stats import PROMETHEUS_BOUNDS, Summary
from hookline_serving.bounds import REASONS
from hookline_sidecar.control.sources.operator import OperatorSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hookline_sidecar.control.supervisor import Supervisor


def exposition(supervisor: Supervisor, *, guests: bool) -> bytes:
    """The text format, https://prometheus.io/docs/instrumenting/exposition_formats/.

    ``guests``: with the metrics that plugins keep. A plugin makes up their names while it is asked, of whatever a call
    brought it, so they are not for strangers. All other names and labels are ours, or those of resources.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(supervisor, guests=guests))
    return generate_latest(registry)


def summaries(supervisor: Supervisor, plugin: str) -> dict[Hook, Summary]:
    """One plugin's statistics over all workers, for the hooks that were called."""
    number = supervisor.numbers.get(plugin)
    if number is None:
        return {}
    found = {hook: Summary.of([table.row(number, hook).values() for table in supervisor.tables]) for hook in Hook}
    return {hook: summary for hook, summary in found.items() if summary.calls or summary.skipped or summary.waited}


class _Collector(Collector):
    def __init__(self, supervisor: Supervisor, *, guests: bool) -> None:
        self._supervisor = supervisor
        self._with_guests = guests

    def collect(self) -> Iterator[Metric]:
        yield from self._sidecar()
        yield from self._admin()
        yield from self._plugins()
        yield from self._calls()
        yield from self._host()
        if self._with_guests:
            yield from self._guests()

    def _sidecar(self) -> Iterator[Metric]:
        it = self._supervisor
        version = it.bundle.version if it.bundle else ""
        yield GaugeMetricFamily("hookline_ready", "Whether the sidecar is ready.", value=float(not it.not_ready()))
        yield GaugeMetricFamily("hookline_workers", "Workers that should run.", value=it.fleet.size)
        yield GaugeMetricFamily(
            "hookline_workers_current", "Workers that run the newest bundle.", value=it.fleet.running(version)
        )
        yield CounterMetricFamily(
            "hookline_worker_connections", "Workers that were started.", value=it.fleet.connections
        )
        connections = GaugeMetricFamily(
            "hookline_connections", "Connections of proxies, by the worker that answers on them.", labels=["worker"]
        )
        for worker in range(it.fleet.size):
            connections.add_metric([str(worker)], it.board.connections(worker))
        yield connections
        yield CounterMetricFamily(
            "hookline_auth_unclear",
            "Subrequests of proxies that were refused: two headers differ, or servers would read the path differently.",
            value=it.board.unclear(),
        )
        closed = CounterMetricFamily(
            "hookline_connections_closed", "Connections that had to go, by where and why.", labels=["port", "reason"]
        )
        for port, counts in {**it.admin.closed, "hooks": it.board.closed()}.items():
            for reason in REASONS:
                closed.add_metric([port, reason], counts[reason])
        yield closed
        yield CounterMetricFamily("hookline_bundle_changes", "Bundles that replaced another.", value=it.changes)
        if isinstance(it.source, OperatorSource):
            yield GaugeMetricFamily(
                "hookline_operator_connected",
                "Whether there is a connection to the operator.",
                value=float(it.source.connected),
            )
            yield CounterMetricFamily(
                "hookline_operator_connections",
                "Connections to the operator that were made.",
                value=it.source.connections,
            )
        else:
            yield GaugeMetricFamily(
                "hookline_manifest_problems", "Manifests that cannot be used.", value=len(it.source.problems)
            )
        info = GaugeMetricFamily("hookline_bundle_info", "The running bundle.", labels=["version"])
        info.add_metric([version], 1)
        yield info

    def _admin(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "hookline_admin_kv_requests", "Requests for keys of plugins, answered.", labels=["method", "code"]
        )
        for (method, code), count in sorted(self._supervisor.kv_admin.requests.items()):
            requests.add_metric([method, str(code)], count)
        yield requests
        refused = CounterMetricFamily(
            "hookline_admin_refused", "Requests for protected admin paths by strangers.", labels=["reason"]
        )
        for reason, count in sorted(self._supervisor.access.refused.items()):
            refused.add_metric([reason], count)
        yield refused

    def _plugins(self) -> Iterator[Metric]:
        it = self._supervisor
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
        for name, slot in sorted(it.slots.items()):
            ready.add_metric([name], float(it.state_of(slot) == "Running"))
            entry = it.entry(name)
            if entry is not None and entry.artifact is not None:
                info.add_metric([name, entry.revision, entry.artifact.digest, entry.mode], 1)
                troubles = it.health.of(name)
                healthy.add_metric([name], float(not troubles))
                for each in troubles:
                    trouble.add_metric([name, each.hook.value, each.trouble], 1)
        yield from (ready, info, healthy, trouble)

    def _calls(self) -> Iterator[Metric]:
        labels = ["plugin", "hook"]
        calls = CounterMetricFamily("hookline_plugin_calls", "Calls of a plugin.", labels=labels)
        failures = CounterMetricFamily("hookline_plugin_failures", "Calls that failed.", labels=[*labels, "cause"])
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
        for name in sorted(self._supervisor.numbers):
            for hook, summary in summaries(self._supervisor, name).items():
                key = [name, hook.value]
                calls.add_metric(key, summary.calls)
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
        yield from (calls, failures, skipped, dropped, waited, waiting, duration, fuel, memory)

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
                for report in self._supervisor.fleet.reports()
                for name, facts in report.items()
                for function, count in facts[field].items()
            ):
                totals[name, function] = totals.get((name, function), 0) + count
            for key, count in sorted(totals.items()):
                family.add_metric(list(key), count)
            yield family

    def _guests(self) -> Iterator[Metric]:
        """The metrics that plugins keep themselves. Counters and summaries add up over workers, gauges do not."""
        found: dict[tuple[str, str], dict[str, tuple[float, int]]] = {}
        for report in self._supervisor.fleet.reports():
            for plugin, facts in report.items():
                for given, (kind, value, count) in facts["metrics"].items():
                    # Prometheus' own ending of counters: with it or without it, it is one metric.
                    name = given.removesuffix("_total") if kind == "counter" else given
                    per_plugin = found.setdefault((name, kind), {})
                    old_value, old_count = per_plugin.get(plugin, (0.0, 0))
                    total = value if kind == "gauge" else old_value + value
                    per_plugin[plugin] = (total, old_count + count)
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
