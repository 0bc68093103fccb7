# ruff: noqa: A005 - it is bench.operator
"""``python -m bench.operator``: measure the operator, show what was found, keep it in ``bench/OPERATOR.md``."""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import re
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench import report
from bench.operator import fleet, latency, plugins, policies
from bench.report import Options, Result, say
from cluster.binaries import control_plane_binaries

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_BENCHMARKS: Final[dict[str, tuple[str, Callable[[Options], Awaitable[Result]]]]] = {
    "latency": ("three pods: from apply to the last one's switch", latency.measure),
    "fleet": ("2,000 sidecars: all switched, memory, writes, restart", fleet.measure),
    "plugins": ("5,000 WasmPlugins: cold start, writes, memory, restart", plugins.measure),
    "policies": ("5,000 WasmPlugins: starts under 20 policies and under none, in turn", policies.measure),
}
_RESULTS: Final = Path(__file__).parents[1] / "OPERATOR.md"
_EPILOG: Final = """\
Brings up etcd and an API server (built once, cached outside of the repository), Debian's docker-registry, and the
operator's own process. Sidecars are simulated, in two processes of their own; everything shares this machine's cores,
so a figure is an upper bound of what the operator alone would take. Nothing outside this machine is asked.

A full run writes bench/OPERATOR.md; a quick or partial one writes nothing, unless --out says where.

The exit code is 0 when everything was measured, whether or not each figure was reached (the table says which), and
1 when a benchmark broke.

examples:
  python -m bench.operator                          everything, ten minutes or more
  python -m bench.operator --quick                  everything with less of it, within a minute
  python -m bench.operator --only plugins           one of them
"""
_IDEA: Final = """\
The operator's process with the chart's own rights, at a real API server (etcd
without fsync, no nodes); simulated sidecars in two processes of their own. All of it shares the cores below."""


def main() -> int:
    """Run what the command line asks for; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.operator",
        description="Measures Hookline's operator against what was asked of it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="fewer objects, sidecars and rounds")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=_BENCHMARKS, help="only these benchmarks")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--list", action="store_true", help="list the benchmarks, and measure nothing")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the results as Markdown to this file")
    options = parser.parse_args()
    if options.list:
        for name, (what, _) in _BENCHMARKS.items():
            print(f"{name:<12} {what}")
        return 0
    # As Ctrl-C does: what was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    facts = _machine()
    command = " ".join(["python -m bench.operator", *(["--quick"] if options.quick else []),
                        *(["--only", *options.only] if options.only else [])])  # fmt: skip
    names = [name for name in _BENCHMARKS if not options.only or name in options.only]
    results = [_run(name, Options(quick=options.quick)) for name in names]
    broken = any(result.broken for result in results)
    if options.json:
        print(json.dumps(report.as_json(results, facts, command), indent=2, ensure_ascii=False))
    else:
        print(report.as_table(results))
    full = not options.quick and not options.only
    out = options.out or (_RESULTS if full and not broken else None)
    if out is not None:
        out.write_text(report.as_markdown(results, facts, command, idea=_IDEA))
        say(f"written to {out}")
    return 1 if broken else 0


def _machine() -> dict[str, str]:
    facts = report.machine()
    for name in ("wasmtime", "uvloop"):
        facts.pop(name)
    folder = control_plane_binaries()["kube-apiserver"].parent.name
    version = re.search(r"v\d+\.\d+\.\d+", folder)
    return facts | {
        "kopf": importlib.metadata.version("kopf"),
        "Kubernetes": version.group() if version else "as given",
    }


def _run(name: str, options: Options) -> Result:
    what, measure = _BENCHMARKS[name]
    say(f"{name}: {what}")
    begin = time.monotonic()

    async def run() -> Result:
        return await measure(options)

    try:
        result = asyncio.run(run())
    except Exception as error:  # noqa: BLE001 - the others are still worth measuring
        traceback.print_exc()
        result = Result(name=name, idea=what, broken=f"{type(error).__name__}: {error}")
    result.seconds = time.monotonic() - begin
    return result


if __name__ == "__main__":
    sys.exit(main())
