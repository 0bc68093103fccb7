"""Thousands of sidecars on one operator: how soon all switch, and what that takes.

The pods are real objects of the API, made ready as a kubelet would, and their tokens are real ones of the
TokenRequest API, bound to them; the operator asks TokenReview about each. All are in one namespace, which is the worst
case: a plugin's change concerns every one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import math
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from bench import guests
from bench.operator.rig import HOME, Rig, Usage, Watch, many, rig, sized
from bench.operator.swarm import Member, Swarm, key_of, swarm
from bench.report import Figure, Options, Result, say
from hookline_api.distribution import AUDIENCE
from hookline_operator.cluster.kube import path
from hookline_operator.cluster.labels import SIDECAR_LABEL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_ASKED_S: Final = 10.0
_ASKED_MIB: Final = 400.0
SPACE: Final = "shop"
GUARD: Final = guests.guest({"authenticate": {"action": "denied", "reason": "not today"}})
OPERATORS: Final = ("wasmplugins/status", "wasmpluginrevisions")
"""What only the operator writes, beside Events."""
_SMALL: Final = 1_000
_LARGE: Final = 500_000
_EVERY_S: Final = 0.95
"""Two writes a second apart, as a watch hears of them."""
_SETTLE_S: Final = 2.5
_FORGET_S: Final = 21.0
"""After this long the operator asks about every token again (``identity.py``), as it would a day later."""


@dataclass(kw_only=True, slots=True)
class Change:
    """One change of one plugin."""

    switched: list[float]
    """Seconds from the apply to each sidecar's switch, in order."""
    ready: float
    """Seconds from the apply to a status that says so."""
    cpu: float
    """Of the operator, until the status said so."""
    status: int
    """Writes of the status, by the operator's own count."""
    events: int
    revisions: int
    gaps: list[float] = field(default_factory=list)
    """Seconds between two writes of the status, as a watch heard of them."""


async def measure(options: Options) -> Result:
    """Connect all, change plugins, start the operator again."""
    count = options.pick(40, 2_000)
    result = Result(name="fleet", idea=f"{count:,} simulated sidecars on one operator.")
    async with rig() as ground:
        await ground.operator.start()
        empty = ground.operator.usage()
        await ground.namespace(SPACE)
        say(f"fleet: {count} pods and their tokens")
        begin = time.monotonic()
        members = await many(pod(ground, number, count) for number in range(count))
        made = time.monotonic() - begin
        before = ground.operator.usage()
        say("fleet: connecting")
        begin = time.monotonic()
        async with connected(ground, members) as sidecars, Watch(ground.kube, SPACE) as watch:
            times = await sidecars.connected()
            connecting = ground.operator.usage()
            result.notes.append(
                f"{count:,} pods and bound tokens were made in {made:.0f} s; connecting took "
                f"{times[-1] - begin:.1f} s (100 at once; TLS and a real TokenReview each) and the operator "
                f"{connecting.cpu - before.cpu:.1f} s of CPU"
            )
            await _changes(options, ground, sidecars, watch, result, count)
            await _writes(options, ground, sidecars, watch, result, count)
            usage = await _restart(options, ground, sidecars, result, count)
            _memory(result, [("with no sidecar", empty), ("connected", connecting), ("after its restart", usage)])
        if ground.operator.tracebacks():
            result.notes.append(f"DEFECTS in the operator's log: {ground.operator.tracebacks()}")
    return result


async def _changes(options: Options, ground: Rig, sidecars: Swarm, watch: Watch, result: Result, count: int) -> None:
    """Beside two plugins that all pods have already, change a third."""
    for name in ("first", "second"):
        await _change(ground, sidecars, watch, name, sized(GUARD, _SMALL, 0))
    rounds = options.pick(1, 3)
    for what, size in (("1 kB", _SMALL), ("500 kB", _LARGE)):
        found = []
        for number in range(rounds):
            say(f"fleet: a module of {what}, round {number + 1} of {rounds}")
            await asyncio.sleep(options.pick(0.0, _FORGET_S))
            found.append(await _change(ground, sidecars, watch, "third", sized(GUARD, size, number)))
        last = [each.switched[-1] for each in found]
        result.figures.append(
            Figure(
                what=f"apply → last of {count:,} switched, a new module of {what}", asked=f"≤ {_ASKED_S:.0f} s",
                measured=_spread(last), reached=max(last) <= _ASKED_S,
            )
        )  # fmt: skip
        result.notes.append(
            f"a new module of {what}: p50 {_spread([statistics.median(each.switched) for each in found])}, "
            f"p99 {_spread([_percentile(each.switched, 0.99) for each in found])}; status Ready after "
            f"{_spread([each.ready for each in found])}; CPU of the operator until then "
            f"{_spread([each.cpu for each in found])}; at most {max(each.status for each in found)} writes of the "
            f"status, {max(each.events for each in found)} Events and {max(each.revisions for each in found)} revision"
        )
    usage = ground.operator.usage()
    result.figures.append(
        Figure(
            what=f"the operator's resident memory (RSS) with {count:,} sidecars, at its peak",
            asked=f"≤ {_ASKED_MIB:.0f} MiB",
            measured=f"{usage.peak:.0f} MiB; {usage.rss:.0f} MiB after the changes (PSS {usage.pss:.0f} MiB)",
            reached=usage.peak <= _ASKED_MIB,
        )
    )


async def _writes(options: Options, ground: Rig, sidecars: Swarm, watch: Watch, result: Result, count: int) -> None:
    """The writes of one change, by the number of pods that it concerns."""
    for label, pods in {"one": 1, "some": min(100, count // 2), "all": count}.items():
        found = []
        selector = {} if label == "all" else {"matchLabels": {f"bench.hookline.dev/{label}": "true"}}
        for number in range(options.pick(1, 2)):
            wasm = sized(GUARD, _SMALL, number)
            found.append(await _change(ground, sidecars, watch, f"for-{label}", wasm, label, selector=selector))
        gaps = [gap for each in found for gap in each.gaps]
        result.figures.append(
            Figure(
                what=f"writes of the status for one change, {pods:,} pod{'s' * (pods > 1)}",
                asked="≤ 1 a second",
                measured=f"at most {max(each.status for each in found)} within {max(e.ready for e in found):.1f} s, "
                + (f"{min(gaps):.2f} s apart or more" if gaps else "none soon after another"),
                reached=not gaps or min(gaps) >= _EVERY_S,
            )
        )


async def _restart(options: Options, ground: Rig, sidecars: Swarm, result: Result, count: int) -> Usage:
    """Stop the operator in order, start it again, and wait until all are back."""
    say("fleet: the operator's restart")
    begin = time.monotonic()
    await ground.operator.stop()
    stopped = time.monotonic()
    writes = await ground.server_writes()
    ready = await ground.operator.start()
    times = await sidecars.connected(since=stopped)
    result.figures.append(
        Figure(
            what=f"the operator's restart → all {count:,} connected again",
            measured=f"{times[-1] - begin:.1f} s from SIGTERM, {times[-1] - stopped - ready:.1f} s from when "
            "it was ready",
        )
    )
    cpu = await ground.operator.quiet()
    await asyncio.sleep(options.pick(1, 15))  # what a new leader waits for is over
    own, counted = await ground.operator.writes(), await ground.server_writes() - writes
    result.figures.append(
        Figure(
            what="writes of statuses, revisions and Events after that restart",
            measured=f"{own.total()}; the API server counted "
            f"{sum(counted[what] for what in OPERATORS)}, and {counted['tokenreviews']:,} TokenReviews",
        )
    )
    result.notes.append(
        f"the restart: stopped after {stopped - begin:.1f} s, ready {ready:.1f} s later; {cpu:.1f} s of CPU until quiet"
    )
    return ground.operator.usage()


async def _change(
    ground: Rig, sidecars: Swarm, watch: Watch, name: str, wasm: bytes, label: str = "all", **spec: Any
) -> Change:
    """Push a module under a new tag, let a plugin name it, and wait until all have switched and the status is true."""
    tag = hashlib.sha256(wasm).hexdigest()[:12]
    source = ground.pushed(f"{name}:{tag}", wasm)
    key = f"{SPACE}/{name}"
    heard, generation = len(watch.status_writes.get(key, ())), watch.generations.get(key, 0)
    before, own = ground.operator.usage(), await ground.operator.writes()
    sent = await ground.apply(SPACE, name, source, hooks=["authenticate"], **spec)
    times = await sidecars.switched(key_of(name, hashlib.sha256(wasm).hexdigest()), label)
    ready = await watch.until_ready(key, generation + 1)
    cpu = ground.operator.usage().cpu - before.cpu
    await asyncio.sleep(_SETTLE_S)
    wrote = await ground.operator.writes() - own
    writes = watch.status_writes[key][heard:]
    return Change(
        switched=[each - sent for each in times],
        ready=ready - sent,
        cpu=cpu,
        status=wrote["status"],
        events=wrote["event"],
        revisions=wrote["revision"],
        gaps=[after - before for before, after in itertools.pairwise(writes)],
    )


async def pod(ground: Rig, number: int, count: int) -> Member:
    """A pod with a sidecar, as far as the API knows, and its projected token."""
    name = f"proxy-{number}"
    labels = (["one"] if number == 0 else []) + (["some"] if number < min(100, count // 2) else [])
    pods = path("v1", "pods", SPACE)
    made = await ground.create(pods, {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {SIDECAR_LABEL: "true", **{f"bench.hookline.dev/{each}": "true" for each in labels}},
        },
        "spec": {"containers": [{"name": "proxy", "image": "proxy"}]},
    })  # fmt: skip
    await ground.kube.request(
        "PATCH",
        f"{pods}/{name}/status",
        body={"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}},
        content_type="application/merge-patch+json",
    )
    bound = {"kind": "Pod", "apiVersion": "v1", "name": name, "uid": made["metadata"]["uid"]}
    answer = await ground.create(path("v1", "serviceaccounts", SPACE, "default", "token"), {
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"audiences": [AUDIENCE], "expirationSeconds": 7200, "boundObjectRef": bound},
    })  # fmt: skip
    return Member(token=answer["status"]["token"], labels=labels)


@contextlib.asynccontextmanager
async def connected(ground: Rig, members: list[Member]) -> AsyncIterator[Swarm]:
    """Sidecars on their way to the operator."""
    found = await ground.kube.request("GET", path("v1", "configmaps", HOME, "hookline-ca"))
    async with swarm(
        members,
        url=f"https://127.0.0.1:{ground.operator.port}",
        server_name=f"hookline-operator.{HOME}.svc",
        authority=found["data"]["ca.crt"],
        folder=ground.folder,
        processes=2,
    ) as started:
        yield started


def _memory(result: Result, moments: list[tuple[str, Usage]]) -> None:
    told = ", ".join(f"{when} {usage.rss:.0f} (PSS {usage.pss:.0f})" for when, usage in moments)
    result.notes.append(f"resident memory of the operator in MiB: {told}")


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[min(math.ceil(len(ordered) * share), len(ordered)) - 1]


def _spread(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.2f} s"
    return f"{statistics.median(values):.2f} s ({min(values):.2f} to {max(values):.2f})"
