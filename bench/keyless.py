"""What it costs to verify one signature without a key: what cosign made, offline, in each form that it leaves.

Each verification is under a trust root that was not seen before, so the root is read and nothing is kept from the one
before it. ``known`` is the same signature again under the same root. The import of ``sigstore``, once per process, is
a figure of its own.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from bench.report import Figure, Options, Result, say
from hookline_api.trust import KeylessIdentity
from hookline_artifacts.trust.evidence import Evidence
from hookline_artifacts.trust.keyless import check_root
from hookline_artifacts.trust.requirement import Authority, Requirement
from hookline_artifacts.trust.verdict import Subject, judge, subject_of

_MADE: Final = Path(__file__).parents[1] / "tests" / "artifacts" / "trust" / "keyless_material"
_CASES: Final = {
    "signed-3-log-1": "a bundle, in the log's version 1",
    "signed-3-log-2": "a bundle, in the log's version 2, with a time stamp",
    "signed-2": "annotations",
    "signed-2-stamped": "annotations, with a time stamp",
}
_ASKED_MS: Final = 40.0
_IMPORT: Final = """
import time, hookline_artifacts.trust.keyless
begin = time.process_time()
import hookline_artifacts.trust.offline
print(time.process_time() - begin)
"""


async def measure(options: Options) -> Result:
    """Each form in turn."""
    result = Result(name="keyless", idea="One artifact's signature without a key, without a network.")
    about = json.loads((_MADE / "about.json").read_text())
    identity = KeylessIdentity(issuer=about["issuer"], subject=about["subject"])
    check_root(None, "bench")  # imports what is imported once
    for case, shown in _CASES.items():
        say(f"keyless: {shown}")
        evidence = Evidence.read((_MADE / f"{case}.json").read_bytes())
        subject = subject_of(evidence, repository=about["repository"], plugin="guard")
        first, known = _measured(identity, evidence, subject, options.pick(20, 200))
        result.figures.append(
            Figure(
                what=f"{shown}: CPU until it is proven",
                asked=f"≤ {_ASKED_MS:g} ms",
                measured=f"{first:.2f} ms, known {known:.2f} ms",
                reached=first <= _ASKED_MS,
            )
        )
    imported = [_import_ms() for _ in range(options.pick(1, 5))]
    result.figures.append(
        Figure(what="import of sigstore, once per process: CPU", measured=f"{statistics.median(imported):.0f} ms")
    )
    return result


def _measured(identity: KeylessIdentity, evidence: Evidence, subject: Subject, times: int) -> tuple[float, float]:
    """Milliseconds of processor time: the median of the first and of the second look."""
    root = (_MADE / "trusted_root.json").read_bytes()
    first: list[float] = []
    known: list[float] = []
    for index in range(times):
        requirement = Requirement(
            any_of=(Authority(kind="keyless", label="bench", identity=identity),),
            trust_root=root + b" " * index,
        )
        for into in (first, known):
            begin = time.process_time()
            judge(requirement, evidence, subject, whose="bench")
            into.append((time.process_time() - begin) * 1000)
    return statistics.median(first), statistics.median(known)


def _import_ms() -> float:
    done = subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True, text=True, check=True)
    return float(done.stdout) * 1000
