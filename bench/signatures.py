"""What it costs to verify one artifact's signature: what cosign made, for each kind of key, without a network.

Counted is what a plugin's resolution does beside fetching: the key is read, the evidence is judged, and the evidence
is written for those who run the module. ``judged again`` is what these do: they read it, and judge it anew.
"""

from __future__ import annotations

import asyncio
import base64
import json
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.report import Figure, Options, Result, say
from hookline_api.trust import CosignKey, Signatures, Signer
from hookline_artifacts.trust.evidence import Evidence, Signature
from hookline_artifacts.trust.requirement import load
from hookline_artifacts.trust.verdict import judge, subject_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from hookline_artifacts.trust.requirement import Requirement

_MADE: Final = Path(__file__).parents[1] / "tests" / "support" / "signed" / "signed.json"
_KINDS: Final = {
    "p256": "ECDSA P-256",
    "p384": "ECDSA P-384",
    "p521": "ECDSA P-521",
    "rsa2048": "RSA 2048",
    "ed25519": "Ed25519ph",
}
_ASKED_MS: Final = 5.0
_SIGNATURE: Final = "dev.cosignproject.cosign/signature"


class _NoObjects:
    """Keys are in the resource here."""

    async def secret(self, *_: object) -> None:
        return None

    async def config_map(self, *_: object) -> None:
        return None


async def measure(options: Options) -> Result:
    """Each form and each kind of key in turn."""
    made = json.loads(_MADE.read_text())
    times = options.pick(20, 200)
    result = Result(name="signatures", idea="One artifact's signature by a key, without a network.")
    for kind, shown in _KINDS.items():
        for form in ("simple", "bundle"):
            say(f"signatures: {shown}, {form}")
            first, again = await _measured(made, f"{form}-{kind}", kind, times)
            result.figures.append(
                Figure(
                    what=f"{shown}, {form}: CPU until it is proven",
                    asked=f"≤ {_ASKED_MS:g} ms",
                    measured=f"{first:.2f} ms, judged again {again:.2f} ms",
                    reached=first <= _ASKED_MS,
                )
            )
    return result


async def _measured(made: dict[str, Any], case: str, kind: str, times: int) -> tuple[float, float]:
    """Milliseconds of processor time: the median of both."""
    evidence = _evidence(made, case)
    signer = Signer(key=CosignKey(pem=made["keys"][kind]), signed_as=[made["name"]])
    asked = Signatures(any_of=[signer])

    async def read() -> Requirement:
        return await load(asked, objects=_NoObjects(), namespace="", base=None, where="bench")

    requirement = await read()
    key, proven, again = [], [], []
    for _ in range(times):
        begin = time.process_time()
        await read()
        key.append(time.process_time() - begin)
        proven.append(_timed(lambda: _judged(requirement, evidence)))
    written = _judged(requirement, evidence)
    for _ in range(times):
        again.append(_timed(lambda: _judged(requirement, Evidence.read(written))))
        await asyncio.sleep(0)
    return (statistics.median(key) + statistics.median(proven)) * 1000, statistics.median(again) * 1000


def _judged(requirement: Requirement, evidence: Evidence) -> bytes:
    subject = subject_of(evidence, repository="registry.example/copied", plugin="plugin")
    proofs = judge(requirement, evidence, subject, whose="bench")
    return evidence.only(each.signature for each in proofs).write()


def _timed(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def _evidence(made: dict[str, Any], case: str) -> Evidence:
    """What ``collect`` finds of a case in a registry."""
    contents, tags = made["contents"], dict(made["cases"][case])
    digest = tags.pop("v1")
    (beside,) = (json.loads(contents[each]) for each in tags.values())
    if "manifests" in beside:
        beside = json.loads(contents[beside["manifests"][0]["digest"]])
    (layer,) = beside["layers"]
    payload = contents[layer["digest"]].encode()
    raw = layer.get("annotations", {}).get(_SIGNATURE)
    signature = (
        Signature(form="bundle", payload=payload)
        if raw is None
        else Signature(form="simple", payload=payload, signature=base64.b64decode(raw))
    )
    return Evidence(digest=digest, documents={digest: contents[digest].encode()}, signatures=(signature,))
