"""What Prometheus would find at ``/metrics``: the families that a program declares, and the names of their series."""

from __future__ import annotations

import contextlib
import http.client
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from local_ports import reserve_port
from waiting import PATIENCE_S, until

_SUFFIXES: Final = {
    "gauge": ("",),
    "counter": ("_total",),
    "histogram": ("_bucket", "_sum", "_count"),
    "summary": ("_sum", "_count"),
}


def families(text: str) -> dict[str, str]:
    """The metric families that an exposition declares, with their kinds."""
    declared = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
    return {name.removesuffix("_total") if kind == "counter" else name: kind for name, kind in declared}


def names(found: dict[str, str]) -> set[str]:
    """The names of the series of metric families."""
    return {name + suffix for name, kind in found.items() for suffix in _SUFFIXES[kind]}


def of_a_sidecar(folder: Path, source: Sequence[str | Path]) -> dict[str, str]:
    """The metric families of a sidecar with this source: ``["--plugins", FOLDER]``, or the options of an operator."""
    port = reserve_port()
    command = [Path(sys.executable).with_name("hookline-sidecar"), *source, "--listen", "off"]
    command += ["--state", folder / "state", "--socket", folder / "s.sock", "--admin", f"127.0.0.1:{port}"]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:

            def metrics() -> str:
                assert process.poll() is None, (folder / "log").read_text()
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
                with contextlib.closing(connection):
                    connection.request("GET", "/metrics")
                    return connection.getresponse().read().decode()

            return families(
                until(metrics, lambda: f"metrics; it said:\n{(folder / 'log').read_text()}", ignoring=(OSError,))
            )
        finally:
            process.terminate()
